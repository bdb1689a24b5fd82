"""Random sequences of publications, moves, promotions, releases, renames, kills and rebuilds.

After each of them the rows equal Git, and every pointer is where a step of the sequence moved it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from gitstore import names, pointers, release_commit, releases
from gitstore.environments import EnvironmentRule, state_of
from gitstore.model import Environment
from gitstore.releases import Wanted
from gitstore.store import ANY, Store
from sync.integrity.rebuild import rebuild
from sync.integrity.verify import verify
from sync.reconcile import full_pass, reconcile
from tests.sync.conftest import House

ENVIRONMENTS = [EnvironmentRule("staging", "editor", follows=True), EnvironmentRule("prod", "publisher")]
PLACES = st.sampled_from(["current", "staging", "prod"])
SEEDS = st.integers(0, 2**16)


class Releasing(RuleBasedStateMachine):
    """Three workflows. `where` has what each pointer of each workflow must stand on, by the workflow's id."""

    make_house: Callable[..., House]

    @initialize()
    def begin(self) -> None:
        self.house = type(self).make_house(f"p-{uuid4().hex[:8]}")
        self.store, self.who = self.house.store, self.house.who
        pointers.change_rulebook(self.store, ENVIRONMENTS, self.who.actor, ANY)
        self.where: dict[Any, dict[str, int | None]] = {}
        self.count = 0
        for slug in "abc":
            self.publish(slug)

    def teardown(self) -> None:
        if hasattr(self, "house"):
            assert list(verify(self.house.database, self.store)) == []
            self.store.close()

    def publish(self, slug: str) -> None:
        self.count += 1
        number = self.house.publish(slug, f"https://{self.count}.example/")
        placed = self.where.setdefault(self.store.identity(slug), {"prod": None})
        placed.update(current=number, staging=number)

    def one(self, seed: int) -> str:
        slugs = self.store.slugs()
        return slugs[seed % len(slugs)]

    def number(self, slug: str, seed: int) -> int:
        return 1 + seed % self.store.state(slug).latest

    def placed(self, slug: str) -> dict[str, int | None]:
        return self.where[self.store.identity(slug)]

    def put(self, store: Store, slug: str, place: str, number: int) -> None:
        if place == "current":
            store.move_current(slug, number, self.who)
        else:
            pointers.move(store, slug, Environment(place, number), self.who)
        self.placed(slug)[place] = number

    @rule(seed=SEEDS)
    def publish_one(self, seed: int) -> None:
        self.publish(self.one(seed))

    @rule(seed=SEEDS, place=PLACES)
    def move(self, seed: int, place: str) -> None:
        slug = self.one(seed)
        self.put(self.store, slug, place, self.number(slug, seed))

    @rule(seed=SEEDS)
    def promote(self, seed: int) -> None:
        """All of them, from staging to prod."""
        slugs = self.store.slugs()
        pointers.promote(self.store, slugs, "staging", "prod", self.who)
        for slug in slugs:
            self.placed(slug)["prod"] = self.placed(slug)["staging"]

    def wanted(self, seed: int) -> list[Wanted]:
        """A version of one workflow, and a draft of each other."""
        first, *others = sorted(self.store.slugs(), key=lambda slug: (slug != self.one(seed), slug))
        for slug in others:
            self.count += 1
            self.house.save(slug, f"https://{self.count}.example/")
        chosen = Wanted(first, version=self.number(first, seed))
        return [chosen, *(Wanted(slug, draft=ANY) for slug in others)]

    def expect(self, wanted: list[Wanted], place: str) -> None:
        for each in wanted:
            placed, latest = self.placed(each.slug), self.store.state(each.slug).latest
            if each.version is None:
                placed["staging"] = latest
            placed[place] = each.version or latest

    @rule(seed=SEEDS, place=PLACES)
    def release(self, seed: int, place: str) -> None:
        wanted = self.wanted(seed)
        releases.create(self.store, f"r{self.count}", wanted, self.who, environment=place)
        self.expect(wanted, place)

    @rule(seed=SEEDS, place=PLACES, restart=st.booleans())
    def release_and_die(self, seed: int, place: str, restart: bool) -> None:
        """Behind the commit point: the next writer or a restart completes it."""
        wanted = self.wanted(seed)
        with closing(self.house.unmirrored()) as store:
            store.unit_of_work._complete = lambda: None  # type: ignore[attr-defined]
            releases.create(store, f"r{self.count}", wanted, self.who, environment=place)
        if restart:
            assert reconcile(self.house.writes).failures == {}
        else:
            self.store.describe(wanted[-1].slug, {"name": f"after {self.count}"}, self.who)
        self.expect(wanted, place)

    @rule(seed=SEEDS)
    def roll_back(self, seed: int) -> None:
        made = list(release_commit.listed(self.store))
        if made:
            release = made[seed % len(made)]
            releases.roll_back(self.store, release.name, self.who, force=True)
            for item in release.items:
                self.placed(item.slug)[release.environment] = item.before.version

    @rule(seed=SEEDS)
    def rename(self, seed: int) -> None:
        if hasattr(self.store, "rename"):
            self.count += 1
            self.store.rename(self.one(seed), f"n{self.count}", self.who)

    @rule(whole=st.booleans())
    def derive_again(self, whole: bool) -> None:
        if whole:
            rebuild(self.house.database, [self.store])
        else:
            assert full_pass(self.house.writes).failures == {}

    @invariant()
    def every_pointer_stands_where_it_was_put(self) -> None:
        if not hasattr(self, "house"):
            return
        assert self.store.refs.below(names.PENDING) == {}
        for slug in self.store.slugs():
            state = self.store.state(slug)
            for place, number in self.placed(slug).items():
                found = state_of(state, place)
                assert (found.version if found else None) == number, (slug, place)


@pytest.mark.slow
@pytest.mark.parametrize(
    "examples", [25, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])]
)
def test_rows_equal_git_after_any_sequence(make_house: Callable[..., House], examples: int) -> None:
    Releasing.make_house = staticmethod(make_house)
    run_state_machine_as_test(
        Releasing,
        settings=settings(
            max_examples=examples,
            stateful_step_count=8,
            deadline=None,
            derandomize=examples == 25,
            suppress_health_check=list(HealthCheck),
        ),
    )
