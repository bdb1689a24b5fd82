"""Slugs, versions and refs: tables and properties."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from uuid import UUID, uuid5

import pytest
from dulwich.refs import Ref, check_ref_format
from hypothesis import given
from hypothesis import strategies as st

from gitstore import names
from gitstore.errors import Code, GitstoreError
from gitstore.names import DraftRef, VersionRef


@pytest.mark.parametrize("slug", ["a", "0", "a-b", "a" * 63, "order-sync", "a--b"])
def test_slugs(slug: str) -> None:
    """Valid names of workflows."""
    assert names.check_slug(slug) == slug


@pytest.mark.parametrize(
    "slug",
    ["", "-a", "a-", "A", "ä", "a" * 64, "a/b", "a.b", "a_b", "a b", "a\n", "..", "a\0", "１",
     "0f8fad5b-d9cb-469f-a165-70867728950e"],
)  # fmt: skip
def test_invalid_slugs(slug: str) -> None:
    """Refused refs, with the message."""
    with pytest.raises(GitstoreError) as refusal:
        names.check_slug(slug)
    assert refusal.value.code is Code.INVALID_NAME


@pytest.mark.parametrize(
    ("ref", "target"),
    [
        (b"refs/heads/drafts/a", DraftRef("a")),
        (b"refs/tags/a/v1", VersionRef("a", 1)),
        (b"refs/tags/a-b/v2147483647", VersionRef("a-b", 2**31 - 1)),
        (b"refs/tags/a/v2147483648", None),
        (b"refs/tags/a/v0", None),
        (b"refs/tags/a/v01", None),
        (b"refs/tags/a/1", None),
        (b"refs/tags/a/v1/x", None),
        (b"refs/tags/v1", None),
        (b"refs/tags/a/v\xd9\xa1", None),
        (b"refs/heads/a", None),
        (b"refs/heads/drafts/a/b", None),
        (b"refs/heads/drafts/A", None),
        (b"refs/ledger/a", None),
        (b"refs/superseded/a/x", None),
        (b"HEAD", None),
        (b"refs/heads/drafts/a\n", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_refs_that_users_may_write(ref: bytes, target: DraftRef | VersionRef | None) -> None:
    """Drafts and versions have one spelling."""
    assert names.parse(ref) == target


@given(st.from_regex(names.SLUG_PATTERN, fullmatch=True), st.integers(1, names.HIGHEST_NUMBER))
def test_names_are_read_back(slug: str, number: int) -> None:
    """A generated name parses to the same ref, for every slug and number."""
    assert names.parse(names.draft(slug)) == DraftRef(slug)
    assert names.parse(names.tag(slug, number)) == VersionRef(slug, number)


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_not(raw: bytes) -> None:
    """No ref that a pusher can send raises."""
    assert names.parse(raw) is None or names.show(raw).startswith("refs/")


@given(st.text("aB9/-._@{ ~^:?*[\\\n\0ä").map(str.encode))
def test_a_valid_ref_name_is_one_that_git_accepts(name: bytes) -> None:
    """git-check-ref-format(1), as dulwich reads it."""
    assert names.is_ref(b"refs/" + name) == check_ref_format(Ref(b"refs/" + name))


def test_git_accepts_every_generated_name() -> None:
    """`git check-ref-format` agrees, the time of a superseded draft included."""
    when = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    for name in (names.draft("a-b"), names.tag("a", 7), names.ledger("a"), names.superseded("a", when)):
        subprocess.run(["git", "check-ref-format", name], check=True)
    assert names.superseded("a", when) == b"refs/superseded/a/20260102T030405.000006Z"


def test_ids_are_derived_from_names_alone() -> None:
    """The ids of workflows and versions follow from the repository."""
    project = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
    workflow = names.workflow_id(project, "a")
    assert workflow == uuid5(project, "a")
    assert names.version_id(workflow, 3) == uuid5(workflow, "v3")
    assert names.next_number(0, 0) == 1
    assert names.next_number(3, 1) == 4
    assert names.next_number(3, 6) == 7


@given(st.text(max_size=100), st.text(max_size=100))
def test_a_slug_is_made_of_any_text(one: str, other: str) -> None:
    """A slug stays; any other text has a slug of its own."""
    made = names.slug_from(one)
    assert names.is_slug(made)
    assert names.slug_from(made) == made
    assert (made == one) == names.is_slug(one)
    assert one == other or names.slug_from(other) != made


@pytest.mark.parametrize(
    ("text", "begins"),
    [("Order Sync", "order-sync-"), ("naïve café", "naive-cafe-"), ("", "workflow-"), ("заказ", "workflow-"),
     ("x" * 80, "x" * 54 + "-"), ("--a--", "a-"), ("a/b.c", "a-b-c-")],
)  # fmt: skip
def test_a_made_slug_can_be_read(text: str, begins: str) -> None:
    """Its hash has eight digits."""
    made = names.slug_from(text)
    assert made.startswith(begins)
    assert len(made) == len(begins) + 8
