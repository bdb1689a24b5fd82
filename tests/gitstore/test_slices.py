"""Slices of a push: few workflows and refs each, in order, each ref once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore import names
from gitstore.errors import BusyError, IntegrityError
from gitstore.policy import Command
from gitstore.push.request import MOST_COMMANDS, MOST_WORKFLOWS, Slice, divide

OID = b"1" * 40


def draft(slug: str) -> Command:
    return Command(names.draft(slug), None, OID)


def tag(slug: str, number: int) -> Command:
    return Command(names.tag(slug, number), None, OID)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, []), (1, [1]), (64, [64]), (65, [64, 1]), (200, [64, 64, 64, 8])],
)
def test_a_slice_has_at_most_64_workflows(count: int, sizes: list[int]) -> None:
    parts = divide(draft(f"w-{number:03}") for number in range(count))
    assert [len(part.slugs) for part in parts] == sizes


def test_versions_of_one_workflow_take_several_slices_each_with_the_draft() -> None:
    """The draft's command decides whether publishing moves the draft along."""
    parts = divide([*(tag("a", number) for number in range(600, 0, -1)), draft("a")])
    assert [part.slugs for part in parts] == [("a",)] * 3
    assert all(part.commands[0] == draft("a") for part in parts)
    assert [c for part in parts for c in part.commands[1:]] == [tag("a", n) for n in range(1, 601)]


def test_refs_of_no_workflow_are_in_no_slice() -> None:
    assert divide([Command(b"refs/heads/main", None, OID), Command(b"refs/ledger/a", OID, None)]) == []


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,2}", fullmatch=True),
        st.tuples(st.booleans(), st.integers(0, 300)),
        max_size=100,
    )
)
def test_every_command_is_in_a_slice_in_order_and_none_is_too_large(
    shapes: dict[str, tuple[bool, int]],
) -> None:
    given_ = [tag(slug, n) for slug, (_, count) in shapes.items() for n in range(1, count + 1)]
    given_ += [draft(slug) for slug, (has_draft, _) in shapes.items() if has_draft]
    parts = divide(given_)
    assert {command for part in parts for command in part.commands} == set(given_)
    tags = [c for part in parts for c in part.commands if c.ref.startswith(names.TAGS)]
    assert len(tags) == len(set(tags))
    assert all(len(part.commands) <= MOST_COMMANDS for part in parts)
    assert all(len(set(part.slugs)) == len(part.slugs) <= MOST_WORKFLOWS for part in parts)
    order = [slug for part in parts for slug in part.slugs]
    assert order == sorted(order)


def test_only_a_contradiction_removes_its_workflow_from_a_slice() -> None:
    part = Slice(("a", "b"), (draft("a"), tag("a", 1), draft("b")))
    wrong = IntegrityError("rows and Git differ", workflow="a")
    assert part.without_contradiction(wrong) == Slice(("b",), (draft("b"),))
    assert Slice(("a",), (draft("a"),)).without_contradiction(wrong) is None
    for fault in (
        IntegrityError("a file is in the way"),
        IntegrityError("another workflow", workflow="c"),
        BusyError("locked", workflow="a"),
    ):
        assert part.without_contradiction(fault) is None


def test_the_limits_are_those_of_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gitstore.push.request.MOST_WORKFLOWS", 2)
    assert [len(part.slugs) for part in divide(map(draft, "abc"))] == [2, 1]
