"""Kills of a worker at each step of a schedule, and the real command, also with a clock that is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gitstore.git.cleanup import sweep
from service import worker as worker_loops
from service.actions import schedules as actions
from service.caller import Backend
from service.worker import ScheduleLoop
from sync import schedules
from sync.integrity.differences import differences
from sync.reconcile import reconcile
from sync.schedules import Claim
from sync.unit_of_work import MirrorUnitOfWork
from tests.helpers import until
from tests.service.api.conftest import Client, House, opened
from tests.service.api.test_schedules import at, backend, events, expire, make_due, trailers
from tests.service.killed_scheduler import OWN
from tests.service.serve_process import GITSTORE, environment

pytestmark = pytest.mark.slow

AHEAD = """
import time, gitstore.system
from datetime import timedelta
now, epoch = gitstore.system.now, time.time
gitstore.system.now = lambda: now() + timedelta(days=1)
time.time = lambda: epoch() + 86400
from service.cli.main import main
main()
"""
"""A `gitstore` whose clock is a day ahead."""


@pytest.fixture(scope="module")
def house(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    with opened(postgres_admin_conninfo, migrated_template) as house:
        house.client("owner").put("/environments", json={"environments": [{"name": "prod"}]})
        yield house


class Killer:
    """Schedules that a killed worker leaves behind, one after the other, for the next worker.

    That one comes after `pause` seconds: within one, it would make the tag that a left entry names.
    """

    def __init__(self, house: House, kind: str, pause: float) -> None:
        self.house, self.kind, self.pause, self.owner = house, kind, pause, house.client("owner")
        self.count = 0
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "tests.service.killed_scheduler", str(house.config.data),
                house.database.conninfo,
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def prepared(self) -> tuple[str, str]:
        """The slug of a new workflow, and a schedule for it that is due."""
        self.count += 1
        slug, owner = f"{self.kind}-{self.count}", self.owner
        owner.create(slug)
        if self.kind == "publish":
            made = owner.post(f"/workflows/{slug}/versions/publish", json={"at": at()})
        else:
            owner.publish(slug)
            made = owner.put(f"/workflows/{slug}/environments/prod", json={"version": 1, "at": at()})
        return slug, make_due(self.house, made)

    def work(self, place: str | None = None, nth: int = 1) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"at": place, "nth": nth}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert answer["error"] is None, answer["error"]
        return answer

    def kill(self, place: str, nth: int) -> None:
        """Kill the worker there; the next one does the rest, and the whole has happened once."""
        slug, schedule = self.prepared()
        if not self.work(place, nth)["killed"]:
            return  # an object that was there already is not written again
        time.sleep(self.pause)
        expire(self.house)
        self.restart()
        with self.house.database.as_mirror() as tx:
            claims = schedules.claim(tx, 10)
        for claimed in claims:
            actions.carry_out(backend(self.house), claimed)
        what = f"{self.kind} killed at {place} {nth}"
        assert self.owner.get(f"/schedules/{schedule}").json["state"] == "done", what
        assert trailers(self.house, slug) == [schedule], what
        kind = "version.published" if self.kind == "publish" else "environment.changed"
        assert len(events(self.house, slug, f"workflow.{kind}")) == 1, what
        reader = backend(self.house).projects.reader(self.house.project)
        with closing(reader) as repository, self.house.database.as_owner() as tx:
            assert list(differences(tx, repository, slug)) == [], what

    def restart(self) -> None:
        """Do what maintenance does when a worker starts."""
        with closing(backend(self.house).projects.reader(self.house.project)) as repository:
            writes = MirrorUnitOfWork(self.house.database, repository)
            sweep(repository.path, writes.maintenance, time.time() + 100_000, sleep=lambda _: None)
            assert reconcile(writes).failures == {}

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(30)


@pytest.mark.parametrize(
    "every", [False, pytest.param(True, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
@pytest.mark.parametrize("kind", ["publish", "move"])
def test_a_schedule_whose_worker_is_killed_is_carried_out_once(house: House, kind: str, every: bool) -> None:
    """At the first passage of each third place, and at each step of its own; the long form takes them all."""
    with closing(Killer(house, kind, 1.0 if every else 0.0)) as killer:
        killer.prepared()
        passed = killer.work()["passed"]
        own = [f"{sign[0]}{name}{sign[1]}" for name in OWN for sign in (("<", ""), ("", ">"))]
        chances = [(place, nth) for place, times in passed.items() for nth in range(1, times + 1)]
        short = [*own, "<refs", "refs>", "<commit", "commit>", "unmarked>"]
        for place, nth in chances if every else [(place, 1) for place in short if place in passed]:
            killer.kill(place, nth)
        assert killer.count > len(OWN)


def test_a_worker_in_which_a_schedule_hangs_is_to_be_replaced(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends no heartbeats; its claim is renewed until then."""
    monkeypatch.setattr(worker_loops, "_STUCK_SECONDS", 0.5)
    owner, ended = house.client("owner"), threading.Event()
    owner.create("hanging")
    make_due(house, owner.post("/workflows/hanging/versions/publish", json={"at": at()}))

    def hang(_backend: Backend, _claimed: Claim) -> None:
        ended.wait()

    loop = ScheduleLoop(backend(house), ended, carry_out=hang)
    with loop.running():
        until(loop.is_stuck)
    with house.database.as_owner() as tx:
        tx.run("delete from gitstore.schedules where state = 'running'")


@contextmanager
def worker(house: House, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    settings = environment(DATABASE_URL=house.database.conninfo, GITSTORE_DATA=str(house.config.data))
    with subprocess.Popen(
        [*(command or GITSTORE), "worker"], env=settings, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def scheduled(house: House, owner: Client, slug: str, seconds: float) -> str:
    """A schedule in some seconds by Postgres' clock: its id."""
    owner.create(slug)
    with house.database.as_owner() as tx:
        then = tx.value("select clock_timestamp() + make_interval(secs => %(seconds)s)", seconds=seconds)
    made = owner.post(f"/workflows/{slug}/versions/publish", json={"at": then.isoformat()})
    assert made.status_code == 202, made.text
    return str(made.json["id"])


def delay(house: House, schedule: str) -> float | None:
    with house.database.as_owner() as tx:
        query = (
            "select extract(epoch from ended_at - at)::float8 from gitstore.schedules where id = %(id)s::uuid"
        )
        found: float | None = tx.value(query + " and state = 'done'", id=schedule)
    return found


def test_the_worker_follows_the_clock_of_postgres(house: House) -> None:
    """Within two seconds of the time, though the clock of its own machine is a day ahead."""
    owner = house.client("owner")
    with worker(house, sys.executable, "-c", AHEAD):
        first = scheduled(house, owner, "timed-first", 1)
        until(lambda: delay(house, first) is not None, seconds=30)
        second = scheduled(house, owner, "timed-second", 1.5)
        until(lambda: delay(house, second) is not None, seconds=30)
    assert 0 <= (delay(house, second) or -1) < 2


def test_a_worker_that_is_killed_is_replaced_and_carries_it_out_once(house: House) -> None:
    """The command starts another process, which finds in the ledger that the change was made, or makes it."""
    owner = house.client("owner")
    with worker(house) as watcher:
        children = Path(f"/proc/{watcher.pid}/task/{watcher.pid}/children")
        until(lambda: len(children.read_text().split()) == 1, seconds=30)
        made = [scheduled(house, owner, f"killed-{number}", 1.5) for number in range(6)]
        with house.database.as_owner() as tx:
            until(lambda: tx.value("select clock_timestamp() >= min(at) from gitstore.schedules "
                                   "where id = any(%(ids)s::uuid[])", ids=made))  # fmt: skip
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
        until(lambda: all(delay(house, each) is not None for each in made), seconds=60)
    assert [trailers(house, f"killed-{number}") for number in range(6)] == [[each] for each in made]
