"""Ledger entries: written, read back, and sound to git whatever people put into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore import ledger
from gitstore.errors import Code, GitstoreError
from gitstore.git.objects import WritableObjects
from gitstore.model import LedgerEntry, LedgerKind, Person
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
)
def test_an_entry_is_read_back_as_it_was_written(
    reason: str, name: str | None, description: str, kind: LedgerKind, current: int | None, held: bool
) -> None:
    """Whatever stands in reason, name and description, trailers that imitate ours included."""
    entry = replace(
        FIRST, kind=kind, message=reason.strip(), name=name, description=description or None,
        latest=9, current=current, held=held, version=9, target="a" * 40,
    )  # fmt: skip
    commit = ledger.compose("a", entry)
    assert ledger.parse(commit) == replace(entry, oid=commit.id.decode())


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


def test_a_commit_that_gitstore_did_not_write_is_no_entry(bare: Path, commit: Callable[..., str]) -> None:
    """Somebody's commit in a ledger is `integrity`, naming it."""
    foreign = commit().encode()
    objects = WritableObjects(bare / "objects")
    with pytest.raises(GitstoreError) as refusal:
        list(ledger.walk(objects, foreign))
    assert refusal.value.code is Code.INTEGRITY
    objects.close()
