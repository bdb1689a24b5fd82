"""Environments: their rules, the moves of their pointers, and the choice between two versions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore import pointers
from gitstore.environments import (
    EnvironmentRule,
    bucket,
    choose,
    history,
    is_name,
    rulebook,
    state_of,
    weighted,
)
from gitstore.errors import Code, ConflictError, EnvironmentRefusedError, GitstoreError, NotFoundError
from gitstore.model import Environment, LedgerKind
from gitstore.store import ANY, Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.gitstore.conftest import Git
from tests.gitstore.test_store import ANN, publish, refusal

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RULES = [
    EnvironmentRule("dev", "author", follows=True),
    EnvironmentRule("staging", "publisher"),
    EnvironmentRule("prod", "owner", hours=24),
]
WORKFLOW = UUID(int=7)
DOCUMENT = Path(__file__).parents[2] / "docs/releases.md"


class Clock:
    now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(bare: Path, git: Git, clock: Clock) -> Iterator[Store]:
    store = Store(bare, UUID(int=7), FileUnitOfWork, clock=clock)
    pointers.change_rulebook(store, RULES, ANN.actor, {pointers.NONE})
    yield store
    store.close()
    git("fsck", "--strict")


def shown(store: Store, slug: str = "a") -> dict[str, tuple[int, ...]]:
    return {pointer.name: pointer.versions for pointer in store.state(slug).environments}


def test_a_publication_moves_the_pointers_that_follow_in_its_own_entry(store: Store) -> None:
    """Unless they are held, and whether or not the version becomes current."""
    publish(store, "a", "1")
    before = sum(1 for _ in store.ledger("a"))
    publish(store, "a", "2", activate=False)
    assert (shown(store), store.state("a").current) == ({"dev": (2,)}, 1)
    assert sum(1 for _ in store.ledger("a")) == before + 1
    pointers.move(store, "a", Environment("dev", 1, held=True), ANN)
    publish(store, "a", "3")
    assert shown(store) == {"dev": (1,)}


def test_a_move_is_recorded_with_its_reason_and_one_to_the_same_value_is_not(store: Store) -> None:
    publish(store, "a", "1")
    publish(store, "a", "2")
    assert pointers.move(store, "a", Environment("staging", 1), ANN, message="try it")
    tip = store.state("a").ledger
    assert not pointers.move(store, "a", Environment("staging", 1), ANN, message="again")
    assert store.state("a").ledger == tip
    assert pointers.move(store, "a", Environment("staging", 2, 10, 1), ANN, message="canary")
    assert pointers.remove(store, "a", "staging", ANN, message="done")
    assert not pointers.remove(store, "a", "staging", ANN)
    moves, following = pointers.history(store, "a", "staging", limit=10)
    recorded = [(move.entry.message, move.to.versions if move.to else None) for move in moves]
    assert recorded == [("done", None), ("canary", (2, 1)), ("try it", (1,))]
    assert following is None
    assert shown(store) == {"dev": (2,)}
    assert next(store.ledger("a")).kind is LedgerKind.UNPOINTED


def test_a_history_is_read_in_pages_that_examine_a_part_of_the_ledger(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of any length, also without a move, have every move exactly once, between other entries."""
    for number in range(1, 6):
        publish(store, "a", str(number))
        pointers.move(store, "a", Environment("staging", number), ANN)
        store.describe("a", {"name": f"after {number}"}, ANN)
    for examined, limit in ((1000, 2), (1000, 5), (4, 2), (1, 9)):
        monkeypatch.setattr(pointers, "MOST_ENTRIES", examined)
        pages: list[list[int]] = []
        start = None
        while not pages or start is not None:
            moves, start = pointers.history(store, "a", "staging", limit=limit, start=start)
            pages.append([move.entry.environments[-1].version for move in moves])
        assert [number for page in pages for number in page] == [5, 4, 3, 2, 1]
        assert all(len(page) <= min(limit, examined) for page in pages)


def test_a_move_is_refused_with_every_reason_at_once(store: Store, clock: Clock) -> None:
    """A version that does not exist, and one that was not long enough in the environment before."""
    for label in ("1", "2"):
        publish(store, "a", label)
    error = refusal(pointers.move, store, "a", Environment("prod", 7, 50, 1), ANN)
    assert isinstance(error, EnvironmentRefusedError)
    assert [reason.code for _, reason in error.refusals] == [Code.VERSION_NOT_FOUND, Code.TOO_EARLY]
    error = refusal(pointers.move, store, "a", Environment("nowhere", 1), ANN)
    assert isinstance(error, NotFoundError) and "dev, staging, prod" in error.message  # noqa: PT018
    assert shown(store) == {"dev": (2,)}


def test_a_version_waits_in_the_environment_before_without_a_break(store: Store, clock: Clock) -> None:
    for label in ("1", "2"):
        publish(store, "a", label)
    pointers.move(store, "a", Environment("staging", 1), ANN)
    clock.now += timedelta(hours=20)
    pointers.move(store, "a", Environment("staging", 2), ANN)
    clock.now += timedelta(hours=20)
    pointers.move(store, "a", Environment("staging", 1), ANN)
    clock.now += timedelta(hours=23, minutes=59)
    error = refusal(pointers.move, store, "a", Environment("prod", 1), ANN)
    assert "for 24.0 of the 24 hours" in error.message
    clock.now += timedelta(minutes=1)
    assert pointers.move(store, "a", Environment("prod", 1), ANN)
    assert refusal(pointers.move, store, "a", Environment("prod", 2), ANN).code is Code.ENVIRONMENT_REFUSED
    pointers.remove(store, "a", "staging", ANN)
    pointers.move(store, "a", Environment("prod", 1, held=True), ANN)  # it has been there long enough, once


def test_a_stale_expectation_moves_nothing(store: Store) -> None:
    publish(store, "a", "1")
    pointers.move(store, "a", Environment("staging", 1), ANN, expected={pointers.NONE})
    for expected in ({pointers.NONE}, {"v2"}, {"v1,held"}, set()):
        moved = refusal(pointers.move, store, "a", Environment("staging", 1, 0, 1), ANN, expected=expected)
        removed = refusal(pointers.remove, store, "a", "staging", ANN, expected=expected)
        for error in (moved, removed):
            assert (type(error), error.code) == (ConflictError, Code.ENVIRONMENT_MOVED)
            assert "it is on v1 now" in error.message
    assert pointers.remove(store, "a", "staging", ANN, expected={"v1"})


def test_the_rules_of_a_project_have_a_history_and_a_used_environment_stays(store: Store) -> None:
    publish(store, "a", "1")
    known = rulebook(store)
    error = refusal(pointers.change_rulebook, store, RULES[1:2], ANN.actor, {ANY})
    assert (error.code, error.data["workflows"]) == (Code.ENVIRONMENT_USED, ["a"])
    assert (
        refusal(pointers.change_rulebook, store, [], ANN.actor, {pointers.NONE}).code
        is Code.ENVIRONMENT_MOVED
    )
    assert pointers.change_rulebook(store, RULES, ANN.actor, {ANY}) == known
    pointers.remove(store, "a", "dev", ANN)
    changed = pointers.change_rulebook(store, RULES[1:2], ANN.actor, {known.commit or ""})
    assert [rule.name for rule in rulebook(store).rules] == ["staging"]
    assert [change.commit for change in history(store)] == [changed.commit, known.commit]
    publish(store, "a", "2")
    assert shown(store) == {}


def test_everything_wrong_with_rules_is_listed_at_once(store: Store) -> None:
    rules = [
        EnvironmentRule("current", "owner", hours=2),
        EnvironmentRule("Prod", "owner"),
        EnvironmentRule("a", "owner", follows=True, hours=1),
        EnvironmentRule("a", "owner", hours=-1),
    ]
    error = refusal(pointers.change_rulebook, store, rules, ANN.actor, {ANY})
    assert error.code is Code.ENVIRONMENT_INVALID
    assert [problem.message.partition(":")[0] for problem in error.problems] == [
        "'current' is not the name of an environment", "current", "'Prod' is not the name of an environment",
        "a", "a is listed twice", "a",
    ]  # fmt: skip
    many = [EnvironmentRule(f"e-{number}", "owner") for number in range(17)]
    assert "at most 16" in refusal(pointers.change_rulebook, store, many, ANN.actor, {ANY}).message


@pytest.mark.parametrize(
    "name", ["current", "draft", "latest", "v3", "3", "", "-a", "Prod", "a" * 41, str(WORKFLOW)]
)
def test_names_that_mean_something_else_are_not_environments(name: str) -> None:
    assert not is_name(name)
    assert is_name("prod")
    assert is_name("v3-eu")


@given(st.text(max_size=300), st.integers(0, 100), st.integers(0, 100))
def test_a_rising_weight_moves_no_key_back(key: str, low: int, high: int) -> None:
    low, high = sorted((low, high))
    before = choose(Environment("prod", 4, low, 3), WORKFLOW, key)
    after = choose(Environment("prod", 4, high, 3), WORKFLOW, key)
    assert before == 3 or after == 4
    assert choose(Environment("prod", 4), WORKFLOW, key) == 4


def test_the_choice_follows_the_published_vectors_and_the_weights() -> None:
    """As an engine computes it by itself."""
    keys = [f"order-{number}" for number in range(10_000)]
    for key in keys[:3]:
        digest = hashlib.sha256(f"00000000-0000-0000-0000-000000000007/prod/{key}".encode()).hexdigest()
        assert bucket(WORKFLOW, "prod", key) == int(digest[:16], 16) % 100
    vectors = re.findall(r"^\| `(\S+)` \| (\d+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert len(vectors) == 4
    assert [bucket(WORKFLOW, "prod", key) for key, _ in vectors] == [int(shown) for _, shown in vectors]
    newer = sum(choose(Environment("prod", 4, 10, 3), WORKFLOW, key) == 4 for key in keys)
    assert 900 < newer < 1100


@pytest.mark.parametrize(
    ("weights", "pointer"),
    [
        ({3: 100}, Environment("prod", 3)),
        ({3: 90, 4: 10}, Environment("prod", 4, 10, 3)),
        ({3: 0, 4: 100}, Environment("prod", 4)),
        ({3: 100, 4: 0}, Environment("prod", 3)),
    ],
)
def test_weights_in_any_order_are_one_pointer(weights: dict[int, int], pointer: Environment) -> None:
    assert weighted("prod", weights) == weighted("prod", dict(reversed(weights.items()))) == pointer


@pytest.mark.parametrize(
    "weights", [{}, {1: 50, 2: 49}, {1: 50, 2: 60}, {1: 101, 2: -1}, {1: 99}, {1: 30, 2: 30, 3: 40}]
)
def test_weights_that_are_not_one_or_two_that_add_up_are_refused(weights: dict[int, int]) -> None:
    with pytest.raises(GitstoreError) as caught:
        weighted("prod", weights)
    assert caught.value.code is Code.ENVIRONMENT_INVALID


def test_current_is_a_pointer_without_a_rule(store: Store) -> None:
    publish(store, "a", "1")
    assert state_of(store.state("a"), "current") == Environment("current", 1)
    assert state_of(store.state("a"), "prod") is None


def test_a_promotion_moves_several_workflows_or_none(store: Store, clock: Clock) -> None:
    """Every gate of every workflow is listed at once; what is there already is left alone."""
    for slug in ("a", "b", "c"):
        publish(store, slug, "1")
    names = ["a", "b", "c"]
    assert [p.after.version for p in pointers.promote(store, names, "dev", "staging", ANN)] == [1, 1, 1]
    publish(store, "a", "2")
    before = [store.state(slug).ledger for slug in names]
    error = refusal(pointers.promote, store, [*names, "d"], "staging", "prod", ANN)
    assert isinstance(error, EnvironmentRefusedError)
    assert [(slug, reason.code) for slug, reason in error.refusals] == [
        ("a", Code.TOO_EARLY), ("b", Code.TOO_EARLY), ("c", Code.TOO_EARLY), ("d", Code.WORKFLOW_NOT_FOUND),
    ]  # fmt: skip
    assert [store.state(slug).ledger for slug in names] == before
    clock.now += timedelta(hours=24)
    pointers.promote(store, names, "dev", "staging", ANN, message="two")
    assert [shown(store, slug)["staging"] for slug in names] == [(2,), (1,), (1,)]
    assert [store.state(slug).ledger for slug in names[1:]] == before[1:]
    pointers.promote(store, ["b", "c"], "staging", "prod", ANN)
    pointers.promote(store, ["a"], "staging", "current", ANN)
    assert [shown(store, slug).get("prod") for slug in names] == [None, (1,), (1,)]


def test_a_promotion_needs_one_version_and_two_environments(store: Store) -> None:
    publish(store, "a", "1")
    publish(store, "a", "2")
    for source, target, code in (
        ("dev", "dev", Code.MALFORMED),
        ("dev", "nowhere", Code.ENVIRONMENT_NOT_FOUND),
        ("staging", "dev", Code.NOT_PUBLISHED),
    ):
        assert refusal(pointers.promote, store, ["a"], source, target, ANN).code is code
    pointers.move(store, "a", Environment("dev", 2, 5, 1), ANN)
    assert (
        "leave one version there first"
        in refusal(pointers.promote, store, ["a"], "dev", "staging", ANN).message
    )
