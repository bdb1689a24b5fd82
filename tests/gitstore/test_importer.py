"""Rules that differ between an import and a push, without a network."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore import ledger, names
from gitstore.errors import Code
from gitstore.model import LedgerEntry, LedgerKind, Person
from gitstore.names import DraftRef, VersionRef
from gitstore.policy import Command, Effect, Verdict, judge
from gitstore.repository import Repository
from gitstore.upstream.refs import MOST_MISNAMED, Layout, RefMatching, gaps, misnamed_refs
from tests.gitstore.test_policy import DRAFT, Facts, oid, refused, tag


def imported(facts: Facts, *commands: tuple[bytes, int | None, int]) -> list[Verdict]:
    given_ = [Command(ref, None if old is None else oid(old), oid(new)) for ref, old, new in commands]
    return judge(given_, facts, imported=True)


def test_any_larger_number_is_taken_in_ascending_order() -> None:
    """v12 and v5 after v3: both, v5 first."""
    facts = Facts({tag(3): oid(3)}, latest=3)
    verdicts = imported(facts, (tag(12), None, 12), (tag(5), None, 5))
    assert [verdict.effect for verdict in verdicts] == [Effect.PUBLISH, Effect.PUBLISH]


def test_a_smaller_number_does_not_fill_a_gap() -> None:
    """v4 after v5 is refused, with the reason."""
    (verdict,) = imported(Facts({tag(5): oid(5)}, latest=5), (tag(4), None, 4))
    error = refused(verdict)
    assert error.code is Code.WRONG_NUMBER
    assert error.message == "v4 is below v5, the latest version here; gaps are never filled"


def test_the_commit_of_an_import_may_have_another_history() -> None:
    """It was published upstream, under the rules there."""
    (verdict,) = imported(Facts({tag(1): oid(1)}, latest=1), (tag(2), None, 100))
    assert verdict.effect is Effect.PUBLISH


def test_an_import_does_not_change_a_published_version() -> None:
    (verdict,) = imported(Facts({tag(1): oid(1)}, latest=1), (tag(1), None, 2))
    assert refused(verdict).code is Code.VERSION_IMMUTABLE


def test_an_invalid_definition_is_recorded_with_its_problems() -> None:
    facts = Facts({tag(1): oid(1)}, latest=1, invalid={oid(2)})
    second, third = imported(facts, (tag(2), None, 2), (tag(3), None, 3))
    assert (second.effect, second.problems.errors) == (Effect.PUBLISH, 1)
    assert (third.effect, third.problems.errors) == (Effect.PUBLISH, 0)


@pytest.mark.parametrize(
    ("ours", "latest", "theirs", "effect"),
    [
        (None, None, 1, Effect.SAVE),  # there is none here
        (1, None, 2, Effect.SAVE),  # ours is behind
        (2, None, 1, Effect.NOTHING),  # ours is ahead
        (None, 3, 2, Effect.NOTHING),  # theirs was published
        (3, 3, 2, Effect.NOTHING),
    ],
)
def test_an_upstream_draft_is_imported_if_ours_is_behind(
    ours: int | None, latest: int | None, theirs: int, effect: Effect
) -> None:
    """An older upstream draft changes nothing."""
    refs = {DRAFT: oid(ours)} if ours else {}
    refs |= {tag(1): oid(latest)} if latest else {}
    (verdict,) = imported(Facts(refs, latest=1 if latest else 0), (DRAFT, ours, theirs))
    assert (verdict.effect, verdict.refusal) == (effect, None)


def test_a_diverged_draft_is_refused() -> None:
    """No work is overwritten."""
    (verdict,) = imported(Facts({DRAFT: oid(2)}), (DRAFT, 2, 100))
    assert refused(verdict).code is Code.NOT_FAST_FORWARD


@given(st.sets(st.integers(1, 30)), st.integers(0, 30))
def test_an_import_publishes_the_numbers_above_the_latest_and_no_others(
    numbers: set[int], latest: int
) -> None:
    """In ascending order, each once."""
    facts = Facts({tag(latest): oid(1)} if latest else {}, latest=latest)
    verdicts = imported(facts, *((tag(number), None, 50) for number in numbers if number != latest))
    done = {
        v.target.number for v in verdicts if v.effect is Effect.PUBLISH and isinstance(v.target, VersionRef)
    }
    assert done == {number for number in numbers if number > latest}


@given(st.sets(st.integers(1, 60)), st.integers(0, 60))
def test_gaps_are_the_missing_numbers(numbers: set[int], after: int) -> None:
    """Each missing number is in exactly one run."""
    missing = [number for first, last in gaps(numbers, after) for number in range(first, last + 1)]
    top = max([*numbers, after])
    assert missing == [number for number in range(after + 1, top) if number not in numbers]


def test_drafts_and_versions_are_selected_in_order(bare: Path) -> None:
    """By workflow, versions by number and then the draft; in folders, no drafts."""
    advertised = {
        names.tag("b", 1): oid(1),
        names.tag("a", 10): oid(2),
        names.tag("a", 9): oid(3),
        names.draft("a"): oid(4),
        names.TAGS + b"release-1": oid(5),
        b"refs/heads/main": oid(6),
        b"HEAD": oid(6),
    }
    repository = Repository(bare, UUID(int=7))
    targets = [ref.target for ref in RefMatching(repository, Layout.REFS).match(advertised)]
    assert targets == [VersionRef("a", 9), VersionRef("a", 10), DraftRef("a"), VersionRef("b", 1)]
    folders = RefMatching(repository, Layout.FOLDERS).match(advertised)
    assert [(ref.name, ref.remote) for ref in folders] == [
        (names.full(target), names.full(target)) for target in targets if isinstance(target, VersionRef)
    ]


MISNAMED = [
    "Order-Sync/v1",
    "a/b/v1",
    "order_sync/v1",
    "x/V1",
    "x/v0",
    "x/v01",
    f"{'a' * 64}/v1",
    "x/v2147483648",
]


def test_refs_that_only_look_like_versions_or_drafts_are_selected() -> None:
    """By name; not a release's tag nor a branch; in folders, no drafts."""
    tags = [names.TAGS + name.encode() for name in MISNAMED]
    drafts = [names.DRAFTS + b"Order_Sync"]
    others = [b"v1", b"release/v1.2", b"x/1", b"x/v", b"x/version1", b"x/v1"]
    advertised = dict.fromkeys(
        [*tags, *drafts, *(names.TAGS + name for name in others), b"refs/heads/main"], oid(1)
    )
    assert [ref.name for ref in misnamed_refs(advertised, Layout.REFS)] == [*drafts, *sorted(tags)]
    folders = misnamed_refs(advertised, Layout.FOLDERS)
    assert [ref.name for ref in folders] == sorted(tags)
    reasons = {names.show(ref.name)[10:]: ref.reason for ref in folders}
    assert reasons["x/V1"] == "'V1' is not a version: use v1 to v2147483647, without a leading zero"
    assert reasons["a/b/v1"] == f"'a/b' is not a slug: use {names.SLUG_RULE}"


def test_the_number_of_selected_misnamed_refs_is_bounded() -> None:
    advertised = {names.TAGS + b"X/v%d" % number: oid(1) for number in range(MOST_MISNAMED + 10)}
    assert len(misnamed_refs(advertised, Layout.REFS)) == MOST_MISNAMED


TAGGERS = st.builds(
    Person,
    st.text(st.characters(codec="utf-8", exclude_characters="<>\n\r\0"), min_size=1).filter(
        lambda n: n == n.strip() != ""
    ),
    st.just("ann@example.test"),
)


@given(tagger=TAGGERS, seconds=st.integers(0, 253_402_300_799), after=st.none() | st.integers(0, 6))
def test_the_ledger_returns_the_tagger_and_the_time_of_a_tag(
    tagger: Person, seconds: int, after: int | None
) -> None:
    """And the gap that an import left."""
    entry = LedgerEntry(
        oid="", parent=None, kind=LedgerKind.PUBLISHED, actor=Person("source:x", "x@y"),
        when=datetime(2026, 1, 1, tzinfo=UTC), message="Ship it", latest=8, current=8, held=False, version=8,
        target="a" * 40, tagger=tagger, tagged_at=datetime.fromtimestamp(seconds, UTC), after=after,
    )  # fmt: skip
    commit = ledger.compose("a", entry)
    assert ledger.parse(commit) == replace(entry, oid=commit.id.decode())
