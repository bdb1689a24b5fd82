"""Ledger entries: any text in them is written, read back, and sound for git."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dulwich.objects import Commit
from hypothesis import given
from hypothesis import strategies as st

from gitstore import ledger
from gitstore.errors import IntegrityError
from gitstore.git.objects import WritableObjects
from gitstore.model import Actor, LedgerEntry, LedgerKind, Person
from tests.gitstore.conftest import Git

WHEN = datetime(2026, 11, 23, 12, tzinfo=UTC)
FIRST = LedgerEntry(
    oid="", parent=None, kind=LedgerKind.CREATED, actor=Person("token:ci", "1@tokens.gitstore"), when=WHEN,
    message="", latest=0, current=None, held=False,
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80)


@given(
    reason=TEXT,
    name=st.none() | TEXT,
    description=TEXT,
    kind=st.sampled_from(LedgerKind),
    current=st.none() | st.integers(1, 9),
    held=st.booleans(),
    facts=st.tuples(st.none() | TEXT, st.none() | TEXT, st.none() | TEXT).filter(any),
)
def test_an_entry_is_read_back_as_it_was_written(
    reason: str,
    name: str | None,
    description: str,
    kind: LedgerKind,
    current: int | None,
    held: bool,
    facts: tuple[str | None, str | None, str | None],
) -> None:
    """With any reason, name and description, imitated trailers included, and any identity of the actor."""
    entry = replace(
        FIRST, kind=kind, message=reason.strip(), name=name, description=description or None,
        latest=9, current=current, held=held, version=9, target="a" * 40,
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
