"""Ledger entries of kinds that only a later version of gitstore knows, at every place of a ledger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gitstore import ledger, names
from gitstore.git.refs import RefUpdate
from gitstore.model import LedgerKind
from sync.events import EventType
from sync.integrity import verify
from sync.integrity.rebuild import rebuild
from sync.reconcile import full_pass
from tests.sync.conftest import House

SLUG = "order-sync"


def append_unknown(house: House, **state: object) -> str:
    """Append an entry as a newer node would, and return its id; `state` differs from the entry before."""
    store = house.store
    before, newest = store.refs.read(names.ledger(SLUG)), store.newest_counting(SLUG)
    parent = before.decode() if before else None
    entry = ledger.draft_entry(newest, parent, LedgerKind.CREATED, house.who.actor, store.clock())
    commit = ledger.compose(SLUG, replace(entry, **state))  # type: ignore[arg-type]
    commit.message = commit.message.replace(b"Event: created", b"Event: labelled\nGitstore-Object: stable")
    store.objects.write([ledger.EMPTY_TREE, commit])
    assert store.refs.update([RefUpdate(names.ledger(SLUG), before, commit.id)]) == []
    return commit.id.decode()


def assert_sound(house: House, *unknown: str) -> None:
    """No differences; the unknown entries are mentioned, newest first; a rebuild changes nothing."""
    notes = verify.Notes()
    assert list(verify.verify(house.database, house.store, notes=notes)) == []
    assert [line.partition(";")[0] for line in notes.unknown] == [
        f'{SLUG}: ledger entry {oid} is of the unknown kind "labelled"' for oid in unknown
    ]
    before = house.mirrored()
    rebuild(house.database, [house.store])
    assert house.mirrored() == before


def test_at_the_tip_its_state_is_taken_over_and_written_on(house: House) -> None:
    """The newer node held v1; publishing v2 here then leaves the current version alone."""
    house.publish(SLUG)
    with house.store.unit_of_work.begin([SLUG]):
        oid = append_unknown(house, held=True)
    state = house.store.state(SLUG)
    assert (state.latest, state.current, state.held, state.ledger) == (1, 1, True, oid)
    assert_sound(house, oid)
    house.publish(SLUG, "https://v2.example/")
    state = house.store.state(SLUG)
    assert (state.latest, state.current, state.held) == (2, 1, True)
    assert_sound(house, oid)


def test_in_the_middle_it_is_passed_by(house: House) -> None:
    """Versions on both sides of it are found, and so is the change of current that it carries."""
    house.publish(SLUG)
    house.publish(SLUG, "https://v2.example/")
    with house.store.unit_of_work.begin([SLUG]):
        oid = append_unknown(house, current=1)
    house.publish(SLUG, "https://v3.example/")
    moves = [fact.data["version_number"] for fact in house.facts if fact.type is EventType.CURRENT_CHANGED]
    assert moves == [1, 2, 1, 3]
    assert house.store.predecessor(SLUG, 3) == 2
    assert_sound(house, oid)


def test_at_the_start_the_workflow_begins_with_it(house: House) -> None:
    """A newer node may create workflows with an entry of another kind."""
    with house.store.unit_of_work.begin([SLUG]):
        oid = append_unknown(house)
    house.save(SLUG)
    house.store.publish(SLUG, house.who)
    assert [entry.kind for entry in house.store.ledger(SLUG)][-1] == "labelled"
    assert_sound(house, oid)


@pytest.mark.parametrize("by_worker", [True, False])
def test_written_without_the_rows_it_is_mirrored_later(house: House, by_worker: bool) -> None:
    """By the next full pass or the next write, as any entry."""
    house.publish(SLUG)
    oid = append_unknown(house, held=True)
    assert house.store.refs.read(names.ledger(SLUG)) == oid.encode()
    if by_worker:
        full_pass(house.writes)
    else:
        house.publish(SLUG, "https://v2.example/")
    assert_sound(house, oid)
