"""Versions that are yanked and annotated, and workflows that are archived, on a real repository."""

from __future__ import annotations

import pytest

from gitstore import pointers, releases, states
from gitstore.environments import EnvironmentRule
from gitstore.errors import Code
from gitstore.model import Environment, LedgerKind
from gitstore.releases import Wanted
from gitstore.store import ANY, Store
from tests.gitstore.test_store import ANN, _sound, publish, refusal, store, yaml

__all__ = ["_sound", "store"]

SLUG = "order-sync"


@pytest.fixture
def published(store: Store) -> Store:
    """Three versions; v3 is current."""
    for label in ("one", "two", "three"):
        publish(store, SLUG, label)
    return store


def test_nothing_new_selects_a_yanked_version_and_its_pointers_stay(published: Store) -> None:
    """A yank lists the pointers on the version; moves refuse it with the reason until it is taken back."""
    assert states.yank(published, SLUG, 3, ANN, reason="It loses orders") == ["current"]
    state = published.state(SLUG)
    assert (state.current, state.latest, state.next_number, state.yanked) == (3, 3, 4, (3,))
    assert states.newest_usable(published, state) == 2
    published.move_current(SLUG, 2, ANN)
    error = refusal(published.move_current, SLUG, 3, ANN)
    assert error.code is Code.VERSION_UNUSABLE
    assert "It loses orders" in error.message

    before = published.state(SLUG).ledger
    assert states.yank(published, SLUG, 3, ANN, reason="Again") == []
    assert published.state(SLUG).ledger == before

    states.unyank(published, SLUG, 3, ANN, reason="Only on Mondays")
    published.move_current(SLUG, 3, ANN)
    assert published.state(SLUG).yanked == ()
    assert states.yank_of(published, SLUG, 3) is None


def test_a_publication_and_its_base_count_yanked_versions(published: Store) -> None:
    """The next number follows a yanked version, which stays the base of the next draft."""
    states.yank(published, SLUG, 3, ANN, reason="Bad")
    assert publish(published, SLUG, "four") == 4
    state = published.state(SLUG)
    assert (state.current, state.yanked) == (4, (3,))
    states.yank(published, SLUG, 1, ANN, reason="Old")
    assert published.state(SLUG).yanked == (1, 3)


def test_all_versions_may_be_yanked_and_each_yank_needs_a_reason(published: Store) -> None:
    """No version is usable then; a yank without a reason, or of no version, is refused."""
    assert refusal(states.yank, published, SLUG, 3, ANN, reason=" ").code is Code.MALFORMED
    assert refusal(states.yank, published, SLUG, 9, ANN, reason="x").code is Code.VERSION_NOT_FOUND
    assert refusal(states.yank, published, "none", 1, ANN, reason="x").code is Code.WORKFLOW_NOT_FOUND
    for number in (1, 2, 3):
        states.yank(published, SLUG, number, ANN, reason="Bad")
    assert states.newest_usable(published, published.state(SLUG)) is None


def test_a_title_and_notes_are_kept_with_their_history(published: Store) -> None:
    """What is not given stays, None removes, and an equal annotation writes nothing."""
    states.annotate(published, SLUG, 2, {"title": "Spring", "notes": "Line 1\n\nLine 2"}, ANN)
    states.annotate(published, SLUG, 2, {"title": "Spring, 2026"}, ANN)
    before = published.state(SLUG).ledger
    states.annotate(published, SLUG, 2, {"title": "Spring, 2026"}, ANN)
    assert published.state(SLUG).ledger == before
    states.annotate(published, SLUG, 2, {"notes": None}, ANN)
    history = [(entry.title, entry.notes) for entry in states.annotations_of(published, SLUG, 2)]
    assert history == [
        ("Spring, 2026", None),
        ("Spring, 2026", "Line 1\n\nLine 2"),
        ("Spring", "Line 1\n\nLine 2"),
    ]
    assert list(states.annotations_of(published, SLUG, 1)) == []


def test_an_archived_workflow_takes_no_change_until_it_is_restored(published: Store) -> None:
    """Its draft, slug and versions stay; saving, discarding, publishing and moving are refused in words."""
    saved = published.create_draft(SLUG, yaml("four"), ANN)
    states.archive(published, SLUG, ANN, reason="Replaced")
    state = published.state(SLUG)
    assert (state.archived, state.draft, state.current) == (True, saved.commit, 3)
    for error in (
        refusal(published.save_draft, SLUG, yaml("five"), ANN, expected=ANY),
        refusal(published.discard_draft, SLUG, ANN),
        refusal(published.publish, SLUG, ANN),
        refusal(published.move_current, SLUG, 1, ANN),
    ):
        assert error.code is Code.WORKFLOW_ARCHIVED
        assert "unarchive it first" in error.message
    assert refusal(published.create_workflow, SLUG, None, ANN).code is Code.WORKFLOW_EXISTS
    states.unarchive(published, SLUG, ANN)
    assert published.publish(SLUG, ANN).number == 4
    kinds = [entry.kind for entry in published.ledger(SLUG)][:3]
    assert kinds == [LedgerKind.PUBLISHED, LedgerKind.UNARCHIVED, LedgerKind.ARCHIVED]


def test_a_yanked_version_enters_no_environment_and_no_release(store: Store) -> None:
    """With the reason of the yank; a pointer that is on it stays."""
    publish(store, "a", "1")
    publish(store, "a", "2")
    pointers.change_rulebook(store, [EnvironmentRule("qa", "owner")], ANN.actor, {ANY})
    pointers.move(store, "a", Environment("qa", 1), ANN)
    states.yank(store, "a", 1, ANN, reason="it orders twice")
    for refused in (
        refusal(pointers.move, store, "a", Environment("qa", 1, held=True), ANN),
        refusal(pointers.promote, store, ["a"], "qa", "current", ANN),
        refusal(releases.create, store, "r", [Wanted("a", version=1)], ANN),
    ):
        assert "v1 of a was yanked (it orders twice)" in refused.message
    assert [pointer.version for pointer in store.state("a").environments] == [1]
