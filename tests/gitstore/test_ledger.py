"""Ledger entries: any text in them is written, read back, and sound for git."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dulwich.objects import Commit
from hypothesis import given
from hypothesis import strategies as st

from gitstore import ledger
from gitstore.changes import Authorship, ChangeSet
from gitstore.errors import Code, ConflictError, IntegrityError
from gitstore.git.objects import WritableObjects
from gitstore.model import Actor, Environment, LedgerEntry, LedgerKind, Person
from gitstore.repository import WritableRepository
from tests.gitstore.conftest import Git

WHEN = datetime(2026, 11, 23, 12, tzinfo=UTC)
FIRST = LedgerEntry(
    oid="", parent=None, kind=LedgerKind.CREATED, actor=Person("token:ci", "1@tokens.gitstore"), when=WHEN,
    message="", latest=0, current=None, held=False,
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80)
NUMBER = st.integers(1, 2**31 - 1)
ENVIRONMENT = st.one_of(
    st.builds(Environment, st.just("a"), NUMBER, held=st.booleans()),
    st.builds(Environment, st.just("a"), NUMBER, st.integers(0, 100), NUMBER, st.booleans()),
)
STATE = st.fixed_dictionaries(
    {
        "environments": st.lists(ENVIRONMENT, max_size=16).map(
            lambda some: tuple(replace(one, name=f"e-{n}") for n, one in enumerate(some))
        ),
        "yanked": st.lists(NUMBER, max_size=5).map(tuple),
        "archived": st.booleans(),
        "environment": st.none() | st.just("e-0"),
        "title": st.none() | TEXT,
        "notes": st.none() | TEXT,
        "release": st.none() | st.just("spring"),
        "schedule": st.none() | st.uuids(),
    }
)


@given(
    reason=TEXT,
    name=st.none() | TEXT,
    description=TEXT,
    kind=st.sampled_from(LedgerKind),
    current=st.none() | st.integers(1, 9),
    held=st.booleans(),
    facts=st.tuples(*[st.none() | TEXT] * 4).filter(any),
    state=STATE,
)
def test_an_entry_is_read_back_as_it_was_written(
    reason: str,
    name: str | None,
    description: str,
    kind: LedgerKind,
    current: int | None,
    held: bool,
    facts: tuple[str | None, ...],
    state: dict[str, Any],
) -> None:
    """With any reason, texts, imitated trailers, state and identity of the actor."""
    entry = replace(
        FIRST, kind=kind, message=reason.strip(), name=name, description=description or None,
        latest=9, current=current, held=held, version=9, target="a" * 40, **state,
    )  # fmt: skip
    for actor in (FIRST.actor, Actor(FIRST.actor.name, FIRST.actor.email, *facts)):
        by = replace(entry, actor=actor)
        commit = ledger.compose("a", by)
        assert ledger.parse(commit) == replace(by, oid=commit.id.decode())


def test_a_reason_that_imitates_trailers_is_a_reason() -> None:
    """Only the last paragraph is read back."""
    entry = replace(FIRST, message="Gitstore-Event: published\nGitstore-Latest: v7")
    assert ledger.parse(ledger.compose("a", entry)).message == entry.message


def test_the_chain_is_walked_newest_first(bare: Path, git: Git) -> None:
    """Three entries, and git finds nothing wrong with them."""
    objects = WritableObjects(bare / "objects")
    tip = None
    for number in range(3):
        commit = ledger.compose("a", replace(FIRST, parent=tip, message=str(number)))
        objects.write([ledger.EMPTY_TREE, commit])
        tip = commit.id.decode()
    assert [entry.message for entry in ledger.walk(objects, (tip or "").encode())] == ["2", "1", "0"]
    git("update-ref", "refs/ledger/a", tip or "")
    git("fsck", "--strict")
    assert "Gitstore-Event: created" in git("log", "-1", "refs/ledger/a")
    objects.close()


@pytest.mark.parametrize("kind", ledger.LEVELS)
def test_kinds_that_older_processes_would_lose_wait_for_the_end_of_the_upgrade(
    bare: Path, kind: LedgerKind
) -> None:
    """An entry of a later kind is refused below its feature level, and keeps the state of others above it."""
    repository = WritableRepository(bare, uuid4())
    change = ChangeSet(repository, "a", Authorship(FIRST.actor, WHEN))
    pointed = change.append(LedgerKind.POINTED, environment="qa", environments=(Environment("qa", 3),))
    facts = {"version": 3, "environment": "qa"}
    assert change.append(kind, **facts).environments == pointed.environments
    repository.level = 1
    with pytest.raises(ConflictError, match="migrate --finish") as refused:
        change.append(kind, **facts)
    assert refused.value.code is Code.UPGRADE_UNFINISHED
    repository.close()


def test_subjects_of_pointers_name_both_versions() -> None:
    """As people read them in git log."""
    environment = Environment("prod", 4, 90, 3, held=True)
    entry = replace(
        FIRST, kind=LedgerKind.POINTED, environment="prod", version=4, environments=(environment,)
    )
    message = ledger.compose("a", entry).message.decode()
    assert message.startswith("Held prod of a to v4:90,v3:10\n")
    assert "Gitstore-Environments: prod=v4:90,v3:10,held\n" in message


def of_unknown_kind(entry: LedgerEntry) -> Commit:
    """Return `entry` as a later version might write it: another kind, and trailers with other meanings."""
    commit = ledger.compose("a", entry)
    trailers = "Gitstore-Event: labelled\nGitstore-Version: stable\nGitstore-Name: none\nGitstore-Color: red"
    commit.message = commit.message.replace(f"Gitstore-Event: {entry.kind}".encode(), trailers.encode())
    return commit


def test_an_entry_of_an_unknown_kind_has_its_state_and_no_other_facts() -> None:
    """Trailers of known names are skipped, too: they may have another meaning."""
    entry = replace(FIRST, message="Why", latest=4, current=2, held=True)
    commit = of_unknown_kind(entry)
    assert ledger.parse(commit) == replace(entry, kind="labelled", oid=commit.id.decode())


@pytest.mark.parametrize("trailer", ["Latest", "Current", "Held"])
def test_an_entry_of_an_unknown_kind_without_its_state_is_damage(trailer: str) -> None:
    commit = of_unknown_kind(FIRST)
    commit.message = re.sub(rb"\nGitstore-%s: [^\n]*" % trailer.encode(), b"", commit.message)
    with pytest.raises(IntegrityError):
        ledger.parse(commit)


def test_an_entry_of_an_unknown_kind_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="labelled"):
        ledger.compose("a", replace(FIRST, kind="labelled"))


def test_a_foreign_commit_in_the_ledger_is_damage(bare: Path, commit: Callable[..., str]) -> None:
    """A foreign commit in a ledger is `integrity`, and the message names it."""
    foreign = commit()
    objects = WritableObjects(bare / "objects")
    with pytest.raises(IntegrityError, match=foreign):
        list(ledger.walk(objects, foreign.encode()))
    objects.close()
