"""Releases of several workflows, and the commit point of a write to several workflows, without Postgres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from gitstore import changes, names, pending, release_commit, releases
from gitstore import pointers as pointers_
from gitstore.changes import Authorship, ChangeSet
from gitstore.environments import EnvironmentRule, weighted
from gitstore.errors import Code, GitstoreError, IntegrityError, ReleaseRefusedError
from gitstore.model import Actor, LedgerKind
from gitstore.pointers import change_rulebook
from gitstore.release_commit import Pointer
from gitstore.releases import Wanted
from gitstore.store import ANY, Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.gitstore.conftest import Git
from tests.gitstore.test_store import ANN, publish, refusal, yaml

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def store(bare: Path, git: Git) -> Iterator[Store]:
    store = Store(bare, UUID(int=7), FileUnitOfWork, clock=lambda: NOW)
    yield store
    store.close()
    git("fsck", "--strict")


def pointers(store: Store, *slugs: str) -> list[tuple[int | None, bool]]:
    return [(state.current, state.held) for state in map(store.state, slugs)]


def prepared(store: Store) -> list[Wanted]:
    """`a` has v1 and a draft, `b` only a draft, `c` v1 and v2 with v1 current and held."""
    publish(store, "a", "a1")
    store.create_draft("a", yaml("a2"), ANN)
    store.create_workflow("b", yaml("b1"), ANN)
    publish(store, "c", "c1")
    publish(store, "c", "c2")
    store.move_current("c", 1, ANN, hold=True)
    draft = store.state("a").draft
    return [Wanted("c", version=2), Wanted("a", draft=draft), Wanted("b", draft=ANY)]


def test_a_release_publishes_and_moves_in_one_step_and_is_a_checkout(store: Store, git: Git) -> None:
    wanted = prepared(store)
    ada = Actor("Ada", "ada@example.test", "https://id.example", "ada")
    made = releases.create(store, "2026-48", wanted, Actors(ada, ada), message="Autumn\n\nGitstore-Event: x")
    assert pointers(store, "a", "b", "c") == [(2, False), (1, False), (2, True)]
    assert release_commit.find(store, "2026-48") == made
    assert list(release_commit.listed(store)) == [made]
    assert [(item.slug, item.version, item.published, str(item.before)) for item in made.items] == [
        ("a", 2, True, "v1"), ("b", 1, True, "none"), ("c", 2, False, "v1,held"),
    ]  # fmt: skip
    assert git("show", "refs/releases/2026-48:workflows/a/workflow.yaml") == git("show", "a/v2:workflow.yaml")
    assert git("rev-parse", "refs/releases/2026-48:workflows/c") == git("rev-parse", "c/v2^{tree}")
    for slug in "abc":
        entry = next(store.ledger(slug))
        assert (entry.release, entry.actor) == ("2026-48", ada)
    assert store.version("b", 1).message == "Autumn\n\nGitstore-Event: x"
    assert store.refs.below(names.PENDING) == {}


def test_the_same_request_again_returns_the_release_and_another_one_is_refused(store: Store) -> None:
    wanted = prepared(store)
    made = releases.create(store, "r.1", wanted, ANN)
    refs = store.refs.below(names.PREFIX)
    again = releases.create(store, "r.1", wanted, ANN)
    assert (again.commit, again.new) == (made.commit, False)
    other = refusal(releases.create, store, "r.1", [Wanted("a", version=1)], ANN)
    assert other.code is Code.RELEASE_EXISTS
    assert store.refs.below(names.PREFIX) == refs


def test_a_refusal_lists_every_gate_and_changes_nothing(store: Store) -> None:
    prepared(store)
    store.create_workflow("broken", yaml("x", valid=False), ANN)
    refs = store.refs.below(names.PREFIX)
    wanted = [
        Wanted("a", draft="0" * 40), Wanted("b", version=4), Wanted("broken", draft=ANY),
        Wanted("c", draft=ANY), Wanted("nowhere", version=1),
    ]  # fmt: skip
    error = refusal(releases.create, store, "r", wanted, ANN)
    assert isinstance(error, ReleaseRefusedError)
    assert error.code is Code.RELEASE_REFUSED
    assert {slug: each.code for slug, each in error.refusals} == {
        "a": Code.STALE_DRAFT,
        "b": Code.VERSION_NOT_FOUND,
        "broken": Code.DEFINITION_INVALID,
        "nowhere": Code.WORKFLOW_NOT_FOUND,
    }
    moved = refusal(releases.create, store, "r", [wanted[0], Wanted("b", draft=ANY)], ANN)
    assert moved.code is Code.RELEASE_CONFLICT
    assert store.refs.below(names.PREFIX) == refs


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Big", [Wanted("a", version=1)]), ("a..b", [Wanted("a", version=1)]), ("r", []),
        ("x.lock", [Wanted("a", version=1)]), ("r", [Wanted("a", version=1)] * 2),
        ("r", [Wanted(f"a{n}", version=1) for n in range(201)]),
        ("r", [Wanted("a")]), ("r", [Wanted("A", version=1)]),
    ],
)  # fmt: skip
def test_malformed_requests_are_refused_before_any_lock(
    store: Store, name: str, wanted: list[Wanted]
) -> None:
    assert refusal(releases.create, store, name, wanted, ANN).code in (Code.MALFORMED, Code.INVALID_NAME)
    assert store.refs.below(names.PREFIX) == {}


def test_a_yanked_version_and_an_archived_workflow_cannot_be_released(store: Store) -> None:
    publish(store, "a", "a1")
    publish(store, "b", "b1")
    for slug, facts in (("a", {"version": 1, "yanked": (1,)}), ("b", {"archived": True})):
        change = ChangeSet(store, slug, Authorship(ANN.actor, NOW))
        change.append(LedgerKind.YANKED if slug == "a" else LedgerKind.ARCHIVED, **facts)
        changes.write_one(store, change)
    error = refusal(releases.create, store, "r", [Wanted("a", version=1), Wanted("b", version=1)], ANN)
    assert isinstance(error, ReleaseRefusedError)
    assert [each.code for _, each in error.refusals] == [Code.VERSION_UNUSABLE, Code.WORKFLOW_ARCHIVED]


def test_rolling_back_restores_what_stood_before_and_is_repeatable(store: Store) -> None:
    releases.create(store, "r", prepared(store), ANN)
    returns = releases.roll_back(store, "r", ANN, message="Prices are wrong")
    assert [(each.slug, str(each.left), str(each.now)) for each in returns] == [
        ("a", "v2", "v1"), ("b", "v1", "none"), ("c", "v2,held", "v1,held"),
    ]  # fmt: skip
    assert pointers(store, "a", "b", "c") == [(1, False), (None, False), (1, True)]
    assert {next(store.ledger(slug)).message for slug in "abc"} == {"Prices are wrong"}
    assert releases.roll_back(store, "r", ANN) == []


def test_a_rollback_leaves_alone_what_has_moved_since_unless_forced(store: Store) -> None:
    releases.create(store, "r", prepared(store), ANN)
    publish(store, "a", "hotfix")
    error = refusal(releases.roll_back, store, "r", ANN)
    assert error.code is Code.RELEASE_CONFLICT
    assert pointers(store, "a", "b", "c") == [(3, False), (1, False), (2, True)]
    assert len(releases.roll_back(store, "r", ANN, force=True)) == 3
    assert pointers(store, "a", "b", "c") == [(1, False), (None, False), (1, True)]


def test_a_process_below_the_level_releases_nothing(store: Store) -> None:
    wanted = prepared(store)
    store.level = 1
    assert refusal(releases.create, store, "r", wanted, ANN).code is Code.UPGRADE_UNFINISHED


class DyingUnitOfWork(FileUnitOfWork):
    """Completes nothing at the end of a block, as if the process had been killed there."""

    @contextmanager
    def begin(self, slugs: object, release: str | None = None) -> Iterator[None]:
        yield


def test_the_next_writer_of_any_workflow_completes_what_was_decided(
    bare: Path, store: Store, git: Git
) -> None:
    """Also after a gc in between, which keeps what is staged."""
    wanted = prepared(store)
    dying = Store(bare, store.project, DyingUnitOfWork, clock=lambda: NOW)
    releases.create(dying, "r", wanted, ANN)
    dying.close()
    assert store.refs.read(names.release("r")) is None
    git("gc", "--prune=now", "-q")
    store.close()
    with_fresh_cache = Store(bare, store.project, FileUnitOfWork, clock=lambda: NOW)
    with_fresh_cache.describe("b", {"name": "Next"}, ANN)
    assert pointers(with_fresh_cache, "a", "b", "c") == [(2, False), (1, False), (2, True)]
    assert with_fresh_cache.version("a", 2).published_by == ANN.actor
    assert with_fresh_cache.refs.below(names.PENDING) == {}
    with_fresh_cache.close()


def test_a_ref_that_was_moved_past_gitstore_is_left_alone(bare: Path, store: Store, git: Git) -> None:
    wanted = prepared(store)
    dying = Store(bare, store.project, DyingUnitOfWork, clock=lambda: NOW)
    releases.create(dying, "r", wanted, ANN)
    dying.close()
    git("update-ref", "refs/releases/r", "refs/tags/c/v1")
    with store.unit_of_work.begin([]):
        pass
    assert store.refs.read(names.release("r")) == store.refs.read(names.tag("c", 1))
    assert store.state("a").latest == 2


def test_a_damaged_operation_stops_writes_with_its_name(store: Store, git: Git) -> None:
    publish(store, "a", "a1")
    git("update-ref", "refs/gitstore/pending/x", "a/v1^{commit}")
    error = refusal(store.describe, "a", {"name": "x"}, ANN)
    assert isinstance(error, IntegrityError)
    assert "refs/gitstore/pending/x" in error.message
    git("update-ref", "-d", "refs/gitstore/pending/x")


def test_a_release_that_is_no_release_is_damage(store: Store, git: Git) -> None:
    publish(store, "a", "a1")
    git("update-ref", "refs/releases/odd", "a/v1^{commit}")
    with pytest.raises(GitstoreError, match="not a release"):
        release_commit.find(store, "odd")
    missing: Callable[..., object] = release_commit.find
    assert refusal(missing, store, "../a").code is Code.NOT_FOUND


def test_pending_is_empty_without_a_folder(store: Store) -> None:
    assert not pending.is_any(store)
    assert pending.concerning(store, ["a"], "r") == []
    assert Pointer(None) == Pointer(None, held=False)


def test_a_release_into_an_environment_moves_its_pointers_and_those_that_follow(store: Store) -> None:
    """`current` stays; rolling back restores two weighted versions, a hold, and no pointer at all."""
    wanted = prepared(store)
    rules = [EnvironmentRule("staging", "editor", follows=True), EnvironmentRule("prod", "publisher")]
    change_rulebook(store, rules, ANN.actor, ANY)
    pointers_.move(store, "c", weighted("prod", {1: 10, 2: 90}, held=True), ANN)
    before = {slug: store.state(slug).environments for slug in "abc"}
    made = releases.create(store, "r", wanted, ANN, environment="prod")
    assert [str(item.before) for item in made.items] == ["none", "none", "v2:90,v1:10,held"]
    assert release_commit.find(store, "r") == made
    assert pointers(store, "a", "b", "c") == [(1, False), (None, False), (1, True)]
    shown = {slug: {p.name: (p.weights, p.held) for p in store.state(slug).environments} for slug in "abc"}
    assert shown == {
        "a": {"prod": ({2: 100}, False), "staging": ({2: 100}, False)},
        "b": {"prod": ({1: 100}, False), "staging": ({1: 100}, False)},
        "c": {"prod": ({2: 100}, True)},
    }
    assert len(releases.roll_back(store, "r", ANN)) == 3
    after = {slug: [p for p in store.state(slug).environments if p.name == "prod"] for slug in "abc"}
    assert after == {"a": [], "b": [], "c": list(before["c"])}
    missing = refusal(releases.create, store, "s", wanted, ANN, environment="nowhere")
    assert missing.code is Code.ENVIRONMENT_NOT_FOUND


def test_what_has_to_wait_in_another_environment_is_not_released(store: Store) -> None:
    wanted = prepared(store)
    rules = [EnvironmentRule("staging", "editor"), EnvironmentRule("prod", "publisher", hours=24)]
    change_rulebook(store, rules, ANN.actor, ANY)
    error = refusal(releases.create, store, "r", wanted, ANN, environment="prod")
    assert isinstance(error, ReleaseRefusedError)
    assert [(slug, each.code) for slug, each in error.refusals] == [
        (slug, Code.TOO_EARLY) for slug in "abc"
    ]  # fmt: skip
