"""Kills anywhere in a write: reported results are there, nothing is partial, and a retry works.

The short form passes each place once; `-m soak` kills 1,000 times, at every passage of every place.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gitstore import names, pointers, release_commit, releases
from gitstore.environments import EnvironmentRule
from gitstore.errors import BusyError
from gitstore.git.cleanup import sweep
from gitstore.model import Environment
from gitstore.releases import Wanted
from gitstore.store import ANY
from sync.integrity import verify
from sync.integrity.differences import differences
from sync.reconcile import reconcile
from sync.unit_of_work import exclusive
from tests.sync.conftest import House
from tests.sync.kill_points import PLACES, Killer, push_request

pytestmark = pytest.mark.slow

PUSHES = ("push", "push of large files")
WRITES = ("create", "save", "publish", "one call", *PUSHES, "discard", "revert", "current")
STEPS = ("decided", "carried out", "deleted", "concluded", "commit")
STOPS = ("<marker", "<lock", "lock>", "<rename", "rename>", "<link", "link>", "refs>", "<row", "<commit")
ENDED = """
    select pg_terminate_backend(pid, 1000) from pg_stat_activity
    where usename = 'gitstore' and state like 'idle in transaction%'
"""
KILLS = int(os.environ.get("GITSTORE_TEST_KILLS", "1000"))


@pytest.fixture
def tmp_path(ram_path: Path) -> Path:
    """A kill of a process loses nothing that was written, so nothing here needs a disk."""
    return ram_path


@pytest.fixture
def killer(house: House, conninfo: str) -> Iterator[Killer]:
    with closing(Killer(house.store.path, house.project, conninfo)) as killer:
        yield killer


class Bench:
    """Kills writes to one workflow after another, and checks the state of each."""

    def __init__(self, house: House, killer: Killer, scratch: Path) -> None:
        self.house, self.killer, self.scratch = house, killer, scratch
        self.count = 0
        self.slowest = 0.0
        self.outcomes: Counter[str] = Counter()

    def passages(self, kind: str) -> dict[str, int]:
        """place -> how often a write of this kind passes it."""
        answer = self.killer.write(self.prepared(kind))
        assert not answer["killed"], answer
        assert answer["passed"], answer
        return dict(answer["passed"])

    def prepared(self, kind: str) -> dict[str, Any]:
        """A write of this kind, and a new workflow that it makes sense for."""
        self.count += 1
        slug = f"w{self.count}"
        if kind not in ("create", *PUSHES):
            self.house.publish(slug)
            if kind != "one call":
                self.house.save(slug, "https://draft.example/")
        write = {"kind": kind, "slug": slug, "definition": self.house.definition(f"https://{slug}.example/")}
        if kind not in PUSHES:
            return write
        return {**write, "request": str(push_request(self.scratch, slug, large=kind != "push"))}

    def kill(self, kind: str, place: str, nth: int) -> bool:
        """Kill a write there, restart, look, and do the write again. False where it did not get there."""
        write = self.prepared(kind)
        before = self.standing(write["slug"])
        answer = self.killer.write(write, place, nth)
        if not answer["killed"]:  # an object that was there already is not written again
            self.outcomes["not passed"] += 1
            return False
        started = time.monotonic()
        self.restart()
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.check(write["slug"], f"{kind} killed at {place} {nth}")
        self.outcomes["done" if self.standing(write["slug"]) != before else "not done"] += 1
        again = self.killer.write(write)["ended"]
        self.check(write["slug"], f"{kind} again after {place} {nth}: {again}")
        self.check_done(kind, write["slug"], again)
        return True

    def restart(self) -> None:
        """What the worker does when it starts."""
        writes = self.house.writes
        # No child of git is left here, so there is nothing to wait for.
        sweep(self.house.store.path, writes.maintenance, time.time() + 100_000, sleep=lambda _: None)
        report = reconcile(writes)
        assert report.failures == {}

    def standing(self, slug: str) -> tuple[Any, ...]:
        store = self.house.store
        return store.version_tags(slug), store.refs.read(names.draft(slug)), store.exists(slug)

    def pointed(self, slug: str) -> tuple[Any, ...]:
        store = self.house.store
        return *self.standing(slug), store.state(slug).current if store.exists(slug) else None

    def check(self, slug: str, what: str) -> None:
        """Rows equal refs, and each published version has its one event."""
        house = self.house
        with house.database.as_owner() as tx:
            assert list(differences(tx, house.store, slug)) == [], what
            published = tx.tuples(
                "select data::text from gitstore.events where workflow_id = %(id)s "
                "and type = 'workflow.version.published'",
                id=house.workflow_id(slug),
            )
        tags = house.store.version_tags(slug)
        assert sorted(tags) == list(range(1, len(tags) + 1)), what
        assert len(published) == len(tags), what

    def check_done(self, kind: str, slug: str, again: Any) -> None:
        """The write was done once, by the first or by the second try."""
        store = self.house.store
        expected = {"create": 0, "publish": 2, "one call": 2, **dict.fromkeys(PUSHES, 2)}.get(kind, 1)
        assert len(store.version_tags(slug)) == expected, (kind, again)
        match kind:
            case "push" | "push of large files":
                assert again == ["ok"] * 3
            case "publish":
                assert again == 2
            case "one call":
                assert (again, store.state(slug).draft_open) == (2, False)
                assert self.saves(slug, store.commit_of(slug, 2).decode()) == 1
            case "discard":
                assert store.refs.read(names.draft(slug)) is None
            case "current":
                state = store.state(slug)
                assert (state.current, state.held) == (1, True)

    def saves(self, slug: str, commit: str) -> int:
        """How many events have this commit as a saved draft."""
        with self.house.database.as_owner() as tx:
            return int(
                tx.value(
                    "select count(*) from gitstore.events where workflow_id = %(id)s "
                    "and type = 'workflow.draft.updated' and data ->> 'commit' = %(commit)s",
                    id=self.house.workflow_id(slug),
                    commit=commit,
                )
            )

    def prepared_at_once(self, kind: str) -> tuple[dict[str, Any], list[str]]:
        """A write of this kind to several workflows, and these."""
        self.count += 1
        slug, other = f"w{self.count}", f"w{self.count}-other"
        self.house.publish(other)
        if kind == "release":
            self.house.publish(other, "https://two.example/")
            self.house.save(slug)
            self.house.publish(f"{slug}-too")
            self.house.save(f"{slug}-too", "https://draft.example/")
            items = {slug: {"draft": "*"}, f"{slug}-too": {"draft": "*"}, other: {"version": 1}}
            return {"kind": kind, "slug": slug, "items": items}, list(items)
        if kind in ("roll back", "promote"):
            return {"kind": kind, "slug": slug, "items": self.promoted(slug, other)}, [
                slug,
                other,
                f"{slug}-too",
            ]
        self.house.save(other, "https://draft.example/")
        heads = {other: self.house.store.state(other).draft or ""}
        request = push_request(self.scratch, slug, discarded=heads)
        return {"kind": kind, "slug": slug, "request": str(request)}, [slug, f"{slug}-too", other]

    def promoted(self, *slugs: str) -> list[str]:
        """Workflows whose v1 is in staging, of which a release made v2 current."""
        store, who = self.house.store, self.house.who
        pointers.change_rulebook(store, [EnvironmentRule("staging", "publisher")], who.actor, ANY)
        three = [*slugs, f"{slugs[0]}-too"]
        for slug in three:
            if not store.exists(slug):
                self.house.publish(slug)
            pointers.move(store, slug, Environment("staging", 1), who)
            self.house.save(slug, "https://draft.example/")
        releases.create(store, f"of-{slugs[0]}", [Wanted(slug, draft=ANY) for slug in three], who)
        return three

    def write_next(self, slug: str) -> None:
        """Do what the next writer does: `busy` until the worker has removed the lock files of the kill."""
        try:
            self.house.store.describe(slug, {"name": "Next"}, self.house.who)
        except BusyError:
            markers = list(self.house.writes.markers.pending())
            hold = self.house.writes.maintenance
            sweep(self.house.store.path, hold, time.time(), markers, sleep=lambda _: None)
            self.house.store.describe(slug, {"name": "Next"}, self.house.who)

    def kill_at_once(self, kind: str, place: str, nth: int) -> None:
        """Kill a write to several workflows there; the next writer, or a restart, completes or forgets it."""
        write, slugs = self.prepared_at_once(kind)
        before = [self.pointed(slug) for slug in slugs]
        assert self.killer.write(write, place, nth)["killed"], place
        if self.count % 2:
            self.write_next(slugs[-1])
        else:
            self.restart()
        after = [self.pointed(slug) for slug in slugs]
        what = f"{kind} killed at {place} {nth}"
        moved = [old != new for old, new in zip(before, after, strict=True)]
        assert all(moved) or not any(moved), what
        self.outcomes["done" if all(moved) else "not done"] += 1
        assert self.house.store.refs.below(names.PENDING) == {}, what
        self.restart()
        for slug in slugs:
            self.check(slug, what)
        again = self.killer.write(write)["ended"]
        if kind == "release":
            assert again == release_commit.find(self.house.store, f"of-{slugs[0]}").commit, what
        elif kind == "push at once":
            assert set(again) == {"ok"}, what
        assert [self.pointed(slug) != old for slug, old in zip(slugs, before, strict=True)] == [True] * 3

    def finish(self) -> None:
        """The whole: nothing left over, git and gitstore find no fault."""
        store = self.house.store
        assert list(store.path.rglob("*.lock")) == []
        assert list(store.path.rglob("tmp_*")) == []
        assert list((store.path / "gitstore-pending").iterdir()) == []
        assert list(verify.verify(self.house.database, store)) == []
        self.house.git("fsck", "--strict", "--no-dangling")


@pytest.fixture
def bench(house: House, killer: Killer, tmp_path: Path) -> Bench:
    return Bench(house, killer, tmp_path / "scratch")


@pytest.mark.parametrize("kind", WRITES)
def test_a_write_that_is_killed_happened_or_not_and_works_again(bench: Bench, kind: str) -> None:
    """At the first passage of each place, or of each third one: the long form takes them all."""
    for place in list(bench.passages(kind))[:: 1 if kind in ("publish", "one call") else 3]:
        bench.kill(kind, place, 1)
    assert bench.outcomes["not passed"] == 0
    bench.finish()


def test_a_writer_that_was_stopped_while_another_node_published_changes_nothing(
    bench: Bench, postgres_admin_conninfo: str
) -> None:
    """At each step from the first lock to the commit: its backend ends, then its node's lock files are swept.

    Another node publishes. Then the writer goes on, and each number has one tag, and the ledger is one chain.
    """
    store = bench.house.store
    for place in STOPS:
        write = bench.prepared("publish")
        slug, answer = write["slug"], dict[str, Any]()
        with bench.killer.stopped(write, place, answer):
            with psycopg.connect(postgres_admin_conninfo) as admin:
                admin.execute(ENDED)
            # As from another machine, where the shared lock of the stopped writer may be unknown.
            hold = partial(exclusive, bench.house.database.as_mirror, [store], 1.0)
            sweep(store.path, hold, time.time(), sleep=lambda _: None)  # type: ignore[arg-type]
            if not store.state(slug).draft_open:
                bench.house.save(slug, "https://other.example/")
            published = store.publish(slug, bench.house.who).number
            tags = store.version_tags(slug)
        assert store.version_tags(slug) == tags, (place, answer)
        assert published in tags
        assert list(tags) == list(range(1, len(tags) + 1))
        bench.restart()
        bench.check(slug, f"publish stopped at {place}: {answer}")
    bench.finish()


@pytest.mark.parametrize(
    ("kind", "every"),
    [
        ("push at once", False),
        ("release", False),
        *(
            pytest.param(kind, True, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])
            for kind in ("push at once", "release", "roll back", "promote")
        ),
    ],
)
def test_a_write_to_several_workflows_that_is_killed_happens_wholly_or_not(
    bench: Bench, kind: str, every: bool
) -> None:
    """An atomic push that also discards a draft; a release of three, its rollback, and a promotion."""
    passed = bench.killer.write(bench.prepared_at_once(kind)[0])["passed"]
    chances = [(place, nth) for place, times in passed.items() for nth in range(1, times + 1)]
    steps = [(place, 1) for step in STEPS for place in (f"<{step}", f"{step}>") if place in passed]
    for place, nth in chances if every else [*steps, ("rename>", 3)]:
        bench.kill_at_once(kind, place, nth)
    with bench.house.database.as_owner() as tx:
        events = tx.tuples("select data ->> 'release' from gitstore.events where type = 'release.created'")
        assert len(events) == tx.value("select count(*) from gitstore.releases")
    assert min(bench.outcomes["done"], bench.outcomes["not done"]) > 0
    bench.finish()


def test_every_place_is_passed_by_a_write(bench: Bench) -> None:
    """A place that no write passes would test nothing."""
    passed: Counter[str] = Counter()
    for kind in WRITES:
        passed.update(bench.passages(kind))
    passed.update(bench.killer.write(bench.prepared_at_once("push at once")[0])["passed"])
    assert set(passed) == {sign for name in PLACES for sign in (f"<{name}", f"{name}>")}


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_kills_lose_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Over every passage of every place, in random order."""
    chances = [
        (kind, place, nth)
        for kind in WRITES
        for place, times in bench.passages(kind).items()
        for nth in range(1, times + 1)
    ]
    draw = random.Random(3)  # noqa: S311
    draw.shuffle(chances)
    started = time.monotonic()
    killed = 0
    for chance in itertools.cycle(chances):
        killed += bench.kill(*chance)
        if killed % 50 == 0:
            with capsys.disabled():
                print(
                    f"\n  {killed} kills, {time.monotonic() - started:.0f} s, {dict(bench.outcomes)}", end=""
                )
        if killed == KILLS:
            break
    bench.finish()
    with capsys.disabled():
        print(f"\n  {len(chances)} points, {dict(bench.outcomes)}; slowest recovery {bench.slowest:.2f} s")
