"""Random sequences of everything that moves pointers, or that decides where they may move.

Publications, moves, weights, holds, promotions, yanks, notes, archives, renames, releases and rollbacks, with
kills and rebuilds between them. Each step is refused exactly where the rules refuse it. Afterwards the rows
equal Git, every pointer is where a step moved it, and no pointer was moved to a yanked version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from gitstore import names, pointers, release_commit, releases, states
from gitstore.environments import CURRENT, EnvironmentRule, state_of, weighted
from gitstore.errors import GitstoreError
from gitstore.model import Environment, LedgerEntry
from gitstore.releases import Wanted
from gitstore.store import ANY, Store
from sync.integrity.rebuild import rebuild
from sync.integrity.verify import verify
from sync.reconcile import full_pass, reconcile
from tests.sync.conftest import House

ENVIRONMENTS = [EnvironmentRule("staging", "editor", follows=True), EnvironmentRule("prod", "publisher")]
PLACES = (CURRENT, "staging", "prod")
PLACE = st.sampled_from(PLACES)
SEEDS = st.integers(0, 2**16)
MAYBE = st.booleans()
TABLES = (
    "workflows", "workflow_versions", "version_states", "environments", "releases", "release_items",
)  # fmt: skip


class Killed(BaseException):
    """Ends a write between two of its steps, as a kill does."""


@dataclass
class Known:
    """What a workflow must have."""

    pointers: dict[str, Environment | None] = field(default_factory=lambda: dict.fromkeys(PLACES))
    yanked: set[int] = field(default_factory=set)
    titles: dict[int, str] = field(default_factory=dict)
    archived: bool = False

    def usable(self, *numbers: int) -> bool:
        return not self.archived and self.yanked.isdisjoint(numbers)

    def held(self, place: str) -> bool:
        pointer = self.pointers[place]
        return pointer is not None and pointer.held

    def follow(self, number: int, *places: str) -> None:
        """Move the pointers in `places` after a publication."""
        for place in places:
            if not self.held(place):
                self.pointers[place] = Environment(place, number)


@contextmanager
def refused(wrong: object) -> Iterator[None]:
    """Expect a refusal exactly if something is wrong."""
    if wrong:
        with pytest.raises(GitstoreError):
            yield
    else:
        yield


class Releasing(RuleBasedStateMachine):
    """Three workflows. `known` has what each of them must have, by the workflow's id."""

    make_house: Callable[..., House]

    @initialize()
    def begin(self) -> None:
        self.house = type(self).make_house(f"p-{uuid4().hex[:8]}")
        self.store, self.who = self.house.store, self.house.who
        pointers.change_rulebook(self.store, ENVIRONMENTS, self.who.actor, ANY)
        self.known: dict[Any, Known] = {}
        self.count, self.behind = 0, False
        for slug in "abc":
            self.known[self.store.identity(slug)] = Known()
            self.publish(slug)

    def teardown(self) -> None:
        if not hasattr(self, "house"):
            return
        if self.behind:
            self.derive()
        assert list(verify(self.house.database, self.store)) == []
        before = self.rows()
        rebuild(self.house.database, [self.store])
        assert self.rows() == before
        for slug in self.store.slugs():
            assert list(moves_to_yanked(self.store, slug)) == []
            for number, title in self.of(slug).titles.items():
                assert next(states.annotations_of(self.store, slug, number)).title == title
        self.store.close()

    def rows(self) -> list[list[str]]:
        query = "select to_jsonb(t)::text from gitstore.{} t where project_id = %(project)s order by 1"
        with self.house.database.as_owner() as tx:
            values = {"project": self.house.project}
            return [
                [text for (text,) in tx.connection.execute(query.format(table).encode(), values)]
                for table in TABLES
            ]

    # Choices

    def one(self, seed: int) -> str:
        slugs = self.store.slugs()
        return slugs[seed % len(slugs)]

    def some(self, seed: int) -> list[str]:
        """At least one workflow, which comes first, and each other one or not."""
        first = self.one(seed)
        others = (slug for n, slug in enumerate(self.store.slugs()) if seed >> (4 + n) & 1)
        return [first, *(slug for slug in others if slug != first)]

    def number(self, slug: str, seed: int) -> int:
        return 1 + (seed >> 8) % self.store.state(slug).latest

    def of(self, slug: str) -> Known:
        return self.known[self.store.identity(slug)]

    def url(self) -> str:
        self.count += 1
        return f"https://{self.count}.example/"

    @contextmanager
    def writer(self, killed: bool) -> Iterator[Store]:
        """The house's store, or one that is killed before its rows are written."""
        if not killed:
            yield self.store
            return
        self.behind = True
        with closing(self.house.unmirrored()) as store:
            yield store

    @contextmanager
    def killed_at_the_commit_point(self) -> Iterator[Store]:
        """A store that decides what happens and does not carry it out."""
        with closing(self.house.unmirrored()) as store:
            store.unit_of_work._complete = lambda: None  # type: ignore[attr-defined]
            yield store

    # Steps

    def publish(self, slug: str, *, activate: bool = True, killed: bool = False) -> None:
        self.house.save(slug, self.url())
        with self.writer(killed) as store:
            number = store.publish(slug, self.who, activate=activate).number
        self.of(slug).follow(number, *([CURRENT] if activate else []), "staging")

    @rule(seed=SEEDS, activate=MAYBE, killed=MAYBE)
    def publish_one(self, seed: int, activate: bool, killed: bool) -> None:
        slug = self.one(seed)
        with refused(self.of(slug).archived):
            self.publish(slug, activate=activate, killed=killed)

    @rule(seed=SEEDS)
    def publish_again(self, seed: int) -> None:
        """What is published already, which changes nothing, and is refused if that was withdrawn."""
        state = self.store.state(self.one(seed))
        if not state.draft_open:
            with refused(not self.of(state.slug).usable(state.latest)):
                assert not self.store.publish(state.slug, self.who).new

    @rule(seed=SEEDS)
    def publish_in_part(self, seed: int) -> None:
        """A kill between the ledger and the tag: nothing is published."""
        if self.of(slug := self.one(seed)).archived:
            return
        self.house.save(slug, self.url())
        with self.writer(killed=True) as store:
            update = store.refs.update

            def update_one(updates: Any) -> None:
                update(updates[:1])
                raise Killed

            store.refs.update = update_one  # type: ignore[method-assign,assignment]
            with pytest.raises(Killed):
                store.publish(slug, self.who)

    @rule(seed=SEEDS, place=PLACE, share=st.sampled_from([0, 0, 10, 60]), hold=MAYBE, killed=MAYBE)
    def move(self, seed: int, place: str, share: int, hold: bool, killed: bool) -> None:
        """To one version, or to two with weights."""
        slug = self.one(seed)
        known, number, other = self.of(slug), self.number(slug, seed), self.number(slug, seed >> 3)
        wanted = Environment(place, number, held=hold)
        if share and place != CURRENT and number != other:
            wanted = weighted(place, {number: share, other: 100 - share}, held=hold)
        wrong = known.archived or (known.pointers[place] != wanted and not known.usable(*wanted.versions))
        with refused(wrong), self.writer(killed) as store:
            if place == CURRENT:
                store.move_current(slug, number, self.who, hold=hold)
            else:
                pointers.move(store, slug, wanted, self.who)
        if not wrong:
            known.pointers[place] = wanted

    @rule(seed=SEEDS, place=PLACE)
    def remove(self, seed: int, place: str) -> None:
        known = self.of(slug := self.one(seed))
        with refused(known.archived):
            if place == CURRENT:
                self.store.clear_current(slug, self.who)
            else:
                pointers.remove(self.store, slug, place, self.who)
        if not known.archived:
            known.pointers[place] = None

    @rule(seed=SEEDS, way=st.sampled_from([("staging", "prod"), (CURRENT, "prod"), ("prod", CURRENT)]))
    def promote(self, seed: int, way: tuple[str, str]) -> None:
        slugs, (source, target), wrong = self.some(seed), way, False
        wanted: list[tuple[Known, Environment]] = []
        for known in map(self.of, slugs):
            found = known.pointers[source]
            if found is None or found.second is not None:
                wrong = True
                continue
            wanted.append((known, Environment(target, found.version, held=known.held(target))))
            wrong |= known.pointers[target] != wanted[-1][1] and not known.usable(found.version)
        with refused(wrong):
            pointers.promote(self.store, slugs, source, target, self.who)
        for known, pointer in wanted if not wrong else ():
            known.pointers[target] = pointer

    @rule(seed=SEEDS, place=PLACE, kill=st.sampled_from([None, None, "restart", "next writer"]))
    def release(self, seed: int, place: str, kill: str | None) -> None:
        """A version of one workflow, and drafts of others; a kill comes behind the commit point."""
        first, *others = self.some(seed)
        drafts = [slug for slug in others if not self.of(slug).archived]
        for slug in drafts:
            self.house.save(slug, self.url())
        chosen = Wanted(first, version=self.number(first, seed))
        wanted = [chosen, *(Wanted(slug, draft=ANY) for slug in drafts)]
        wrong = not self.of(first).usable(chosen.version or 0)
        self.count += 1
        name = f"r{self.count}"
        if kill is None or wrong:
            with refused(wrong):
                releases.create(self.store, name, wanted, self.who, environment=place)
        else:
            with self.killed_at_the_commit_point() as store:
                releases.create(store, name, wanted, self.who, environment=place)
            if kill == "restart":
                assert reconcile(self.house.writes).failures == {}
            else:
                self.store.describe(wanted[-1].slug, {"name": f"after {self.count}"}, self.who)
        for each in wanted if not wrong else ():
            known, number = self.of(each.slug), each.version or self.store.state(each.slug).latest
            held = known.held(place)
            if each.version is None:
                known.follow(number, "staging")
            known.pointers[place] = Environment(place, number, held=held)

    @rule(seed=SEEDS, force=MAYBE)
    def roll_back(self, seed: int, force: bool) -> None:
        if not (made := list(release_commit.listed(self.store))):
            return
        release, wrong = made[seed % len(made)], False
        place = release.environment
        returns: list[tuple[Known, Environment | None]] = []
        for item in release.items:
            known, back = self.of(item.slug), item.before.named(place)
            now = known.pointers[place]
            if now == back:
                continue
            moved = now is None or (now.version, now.second) != (item.version, None)
            wrong |= (moved and not force) or not known.usable(*(back.versions if back else ()))
            returns.append((known, back))
        with refused(wrong):
            releases.roll_back(self.store, release.name, self.who, force=force)
        for known, back in returns if not wrong else ():
            known.pointers[place] = back

    @rule(seed=SEEDS, killed=MAYBE)
    def yank(self, seed: int, killed: bool) -> None:
        """Its pointers stay."""
        known = self.of(slug := self.one(seed))
        number = self.number(slug, seed)
        with refused(known.archived), self.writer(killed) as store:
            states.yank(store, slug, number, self.who, reason=f"Bad {number}")
        if not known.archived:
            known.yanked.add(number)

    @rule(seed=SEEDS)
    def unyank(self, seed: int) -> None:
        known = self.of(slug := self.one(seed))
        if known.yanked and not known.archived:
            states.unyank(self.store, slug, known.yanked.pop(), self.who)

    @rule(seed=SEEDS, killed=MAYBE)
    def annotate(self, seed: int, killed: bool) -> None:
        known = self.of(slug := self.one(seed))
        number = self.number(slug, seed)
        with refused(known.archived), self.writer(killed) as store:
            states.annotate(store, slug, number, {"title": f"Title {seed}"}, self.who)
        if not known.archived:
            known.titles[number] = f"Title {seed}"

    @rule(seed=SEEDS, killed=MAYBE)
    def archive(self, seed: int, killed: bool) -> None:
        """Or unarchive the one that is archived."""
        archived = [slug for slug in self.store.slugs() if self.of(slug).archived]
        slug = next(iter(archived), self.one(seed))
        with self.writer(killed) as store:
            (states.unarchive if archived else states.archive)(store, slug, self.who)
        self.of(slug).archived = not archived

    @rule(seed=SEEDS, kill=st.sampled_from([None, "before the refs", "before the rows"]))
    def rename(self, seed: int, kill: str | None) -> None:
        if (known := self.of(slug := self.one(seed))).archived:
            return
        self.count += 1
        if kill == "before the refs":
            with self.killed_at_the_commit_point() as store:
                store.rename(slug, f"n{self.count}", self.who)
            assert reconcile(self.house.writes).failures == {}
        else:
            with self.writer(kill is not None) as store:
                store.rename(slug, f"n{self.count}", self.who)
        assert self.of(f"n{self.count}") is known

    @rule(whole=MAYBE)
    def derive(self, whole: bool = False) -> None:
        if whole:
            rebuild(self.house.database, [self.store])
        else:
            assert full_pass(self.house.writes).failures == {}
        self.behind = False

    @invariant()
    def every_pointer_stands_where_it_was_put(self) -> None:
        if not hasattr(self, "house"):
            return
        assert self.store.refs.below(names.PENDING) == {}
        for slug in self.store.slugs():
            state, known = self.store.state(slug), self.of(slug)
            assert {place: state_of(state, place) for place in PLACES} == known.pointers, slug
            assert (set(state.yanked), state.archived) == (known.yanked, known.archived), slug


def moves_to_yanked(store: Store, slug: str) -> Iterator[tuple[LedgerEntry, str]]:
    """Yield the ledger entries that moved a pointer to a version that was yanked."""
    counting = [entry for entry in store.ledger(slug) if store.counts(slug, entry)]
    before: dict[str, set[int]] = {}
    for entry in reversed(counting):
        after = {pointer.name: set(pointer.versions) for pointer in entry.environments}
        after[CURRENT] = {entry.current} if entry.current is not None else set()
        for name, versions in after.items():
            if (versions - before.get(name, set())) & set(entry.yanked):
                yield entry, name
        before = after


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
            stateful_step_count=10,
            deadline=None,
            derandomize=examples == 25,
            suppress_health_check=list(HealthCheck),
        ),
    )
