"""The worker: what is due, when, and what does not stop it."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import structlog

from gitstore.drafts import Content
from gitstore.model import Person, Rules
from gitstore.store import Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from service import logs, upkeep
from service.config import Config
from service.projects import Projects, make_data_folder
from service.run.bootstrap import create_project
from service.worker import FULL_PASS_SECONDS, PRUNE_SECONDS, State, Worker, boot_id
from sync.catalog import Project
from sync.db import Database
from sync.embedded.server import EmbeddedPostgres
from sync.markers import Markers
from sync.migrate import migrate
from tests.service.serve_process import GITSTORE, alive, environment, until
from webhooks.retention import Pruned

ADA = Person("Ada", "ada@example.com")
DEFINITION = {"nodes": [{"id": "start", "type": "webhook", "data": {"label": "Start"}}]}
NOON = 1_800_000_000.0


@pytest.fixture
def told() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The lines of the log."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


@dataclass
class House:
    """A data folder, a database, and a worker for both whose clock is ours."""

    config: Config
    database: Database

    def __post_init__(self) -> None:
        self.stop = threading.Event()
        self.now = NOON
        self.projects = Projects(self.config)

    def worker(self, boot: str = "boot-1") -> Worker:
        return Worker(self.config, self.database, self.stop, clock=lambda: self.now, boot=boot)

    def project(self, slug: str = "team") -> Project:
        with self.database.as_owner() as transaction:
            return create_project(transaction, self.projects, uuid4(), slug, slug, Rules.MESHHOOK)

    def write(self, project: Project, slug: str, *, marked: bool) -> None:
        """Write a draft that the database does not hear of, as a writer that is killed in the middle."""
        path = self.projects.path(project.id)
        with closing(Store(path, project.id, FileUnitOfWork)) as store:
            if marked:
                Markers(store.path).put([slug])
            store.create_workflow(slug, Content(value=DEFINITION), Actors(ADA, ADA))

    def mirrored(self) -> list[str]:
        with self.database.as_owner() as transaction:
            return [
                slug for (slug,) in transaction.tuples("select slug from gitstore.workflows order by slug")
            ]


@pytest.fixture
def house(tmp_path: Path, make_database: Callable[..., str]) -> Iterator[House]:
    url = make_database()
    migrate(url)
    config = Config.from_env(
        {"DATABASE_URL": url, "GITSTORE_DATA": str(tmp_path), "GITSTORE_RECONCILE_SECONDS": "1"}
    )
    make_data_folder(config)
    with closing(Database(url, max_connections=4)) as database:
        yield House(config, database)


def test_what_a_crash_left_is_mirrored_at_the_start(
    house: House, told: Callable[[], list[dict[str, Any]]]
) -> None:
    """In every project, where a marker says so; and it is told."""
    one, other = house.project("one"), house.project("other")
    house.worker().tick()
    house.write(one, "a", marked=True)
    house.write(other, "b", marked=True)
    house.worker().tick()
    assert house.mirrored() == ["a", "b"]
    assert [line["project"] for line in told() if line["event"] == "reconciled"] == ["one", "other"]


def test_upkeep_names_a_project_as_every_other_line_does(
    house: House, told: Callable[[], list[dict[str, Any]]]
) -> None:
    """By its slug, so that one search finds all that happened to it."""
    house.project("one")
    house.project("other")
    house.worker().tick()
    assert [line["project"] for line in told() if line["event"] == "gc"] == ["one", "other"]


def test_a_full_pass_finds_what_no_marker_tells_of(house: House) -> None:
    """Daily, and once a boot: markers do not survive a power cut."""
    project = house.project()
    house.worker().tick()
    house.write(project, "a", marked=False)
    house.now += FULL_PASS_SECONDS - 1
    house.worker().tick()
    assert house.mirrored() == []
    house.now += 1
    house.worker().tick()
    assert house.mirrored() == ["a"]
    house.write(project, "b", marked=False)
    house.worker().tick()
    assert house.mirrored() == ["a"]
    house.worker("boot-2").tick()
    assert house.mirrored() == ["a", "b"]


def test_when_a_full_pass_is_due(tmp_path: Path) -> None:
    """Never done, done in another boot, a day ago, or by a clock that runs ahead of ours."""
    done = State().passed("a", NOON)
    assert State().full_pass_due("a", NOON)
    assert done.full_pass_due("b", NOON)
    assert not done.full_pass_due("a", NOON + FULL_PASS_SECONDS - 1)
    assert done.full_pass_due("a", NOON + FULL_PASS_SECONDS)
    assert done.full_pass_due("a", NOON - 1)
    # Two machines on one folder: one pass a day is enough.
    both = done.passed("b", NOON + 10)
    assert not both.full_pass_due("a", NOON + FULL_PASS_SECONDS)


def test_what_was_done_is_remembered(tmp_path: Path) -> None:
    """In a small file that stays small; a broken one is as none."""
    file = tmp_path / "worker.json"
    assert State.read(file) == State()
    state = State()
    for number in range(100):
        state = state.passed(f"boot-{number}", NOON + number)
    state.write(file)
    assert State.read(file) == state
    assert len(state.passes) < 50
    assert not state.full_pass_due("boot-99", NOON + 100)
    for broken in ("", "[]", "{", '{"full_passes": 3}', '{"full_passes": {"a": "b"}}', "\x00"):
        file.write_text(broken)
        assert State.read(file) == State()


def test_what_is_old_is_forgotten_hourly(
    house: House, told: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the start on, as old as the setting says."""
    ages: list[timedelta] = []

    def prune(_database: Database, age: timedelta, _stopping: Callable[[], bool]) -> Pruned:
        ages.append(age)
        return Pruned(deliveries=3, receipts=0, held=0)

    monkeypatch.setattr(upkeep, "prune", prune)
    worker = house.worker()
    worker.tick()
    worker.tick()
    assert ages == [timedelta(days=30)]
    house.now += PRUNE_SECONDS
    worker.tick()
    assert len(ages) == 2
    assert [line["deliveries"] for line in told() if line["event"] == "deliveries_pruned"] == [3, 3]


def test_a_project_that_is_broken_stops_no_other(
    house: House, told: Callable[[], list[dict[str, Any]]]
) -> None:
    """What is wrong with it is told once, not every minute."""
    broken, whole = house.project("broken"), house.project("whole")
    house.projects.path(broken.id).rename(house.config.data / "elsewhere")
    house.write(whole, "a", marked=True)
    worker = house.worker()
    worker.tick()
    worker.tick()
    assert house.mirrored() == ["a"]
    (line,) = (line for line in told() if line["event"] == "reconcile_failed")
    assert (line["project"], line["code"], line["level"]) == ("broken", "integrity", "error")


def test_postgres_away_is_waited_for(ram_path: Path, told: Callable[[], list[dict[str, Any]]]) -> None:
    """It is told once, with what the driver says; when it is back, the work goes on by itself."""
    server = EmbeddedPostgres(ram_path / "postgres")
    url = server.start()
    try:
        migrate(url)
        settings = {
            "DATABASE_URL": url,
            "GITSTORE_DATA": str(ram_path),
            "GITSTORE_RECONCILE_SECONDS": "1",
        }
        with closing(Database(url, max_connections=2)) as database:
            house = House(Config.from_env(settings), database)
            project = house.project()
            server.stop()
            running = threading.Thread(target=house.worker().run)
            running.start()
            try:
                until(lambda: any(line["event"] == "postgres_unavailable" for line in told()))
                house.write(project, "a", marked=True)
                server.start()
                until(lambda: any(line["event"] == "postgres_available" for line in told()))
                assert house.mirrored() == ["a"]
            finally:
                house.stop.set()
                running.join()
        (away,) = (line for line in told() if line["event"] == "postgres_unavailable")
        assert "failed" in away["cause"]
    finally:
        server.stop()


def test_the_command_ends_when_it_is_told_to(house: House) -> None:
    """`gitstore worker`: SIGTERM ends it at once, which is a success."""
    project = house.project()
    house.write(project, "a", marked=True)
    settings = {"DATABASE_URL": house.database.conninfo, "GITSTORE_DATA": str(house.config.data)}
    worker = subprocess.Popen([*GITSTORE, "worker"], env=environment(**settings), stderr=subprocess.PIPE)
    try:
        until(lambda: house.mirrored() == ["a"])
        worker.send_signal(signal.SIGTERM)
        said = worker.communicate(timeout=60)[1].decode()
    finally:
        worker.kill()
        worker.wait()
    assert worker.returncode == 0
    assert "Traceback" not in said


def test_the_command_replaces_a_child_that_dies(house: House) -> None:
    """Run alone, it watches the process that does the work; told to end, it leaves nothing running."""
    settings = {"DATABASE_URL": house.database.conninfo, "GITSTORE_DATA": str(house.config.data)}
    watching = subprocess.Popen([*GITSTORE, "worker"], env=environment(**settings), stderr=subprocess.PIPE)
    listed = Path(f"/proc/{watching.pid}/task/{watching.pid}/children")
    try:
        until(lambda: len(listed.read_text().split()) == 1)
        (first,) = listed.read_text().split()
        os.kill(int(first), signal.SIGKILL)
        until(lambda: listed.read_text().split() not in ([], [first]))
        (second,) = listed.read_text().split()
        watching.send_signal(signal.SIGTERM)
        said = watching.communicate(timeout=60)[1].decode()
    finally:
        watching.kill()
        watching.wait()
    assert watching.returncode == 0
    assert said.count("worker_exited") == 1
    assert not alive(int(second))


def test_a_worker_ends_with_its_parent(house: House) -> None:
    """One that was started by a process that is gone does not begin."""
    settings = {"DATABASE_URL": house.database.conninfo, "GITSTORE_DATA": str(house.config.data)}
    done = subprocess.run(
        [*GITSTORE, "worker", "--parent", "1"], env=environment(**settings), check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL


def test_the_lag_of_the_mirror_is_the_age_of_the_oldest_marker(house: House) -> None:
    """In any project; without markers there is none."""
    project = house.project()
    assert house.projects.mirror_lag(NOON) == 0
    house.write(project, "a", marked=True)
    house.write(project, "b", marked=True)
    marks = [mark for marks in Markers(house.projects.path(project.id)).pending().values() for mark in marks]
    made = min(mark.stat().st_mtime for mark in marks)
    assert house.projects.mirror_lag(made + 5) == pytest.approx(5)
    house.worker().tick()
    assert house.projects.mirror_lag(made + 5) == 0


def test_a_boot_of_the_machine_has_a_name() -> None:
    """The same for every process."""
    assert boot_id() == boot_id() != ""


def test_a_database_that_is_not_migrated_is_waited_for(
    tmp_path: Path, make_database: Callable[..., str], told: Callable[[], list[dict[str, Any]]]
) -> None:
    """As one that is away: whoever serves migrates it."""
    url = make_database()
    with closing(Database(url, max_connections=2)) as database:
        house = House(Config.from_env({"DATABASE_URL": url, "GITSTORE_DATA": str(tmp_path)}), database)
        running = threading.Thread(target=house.worker().run)
        running.start()
        try:
            until(lambda: any(line["event"] == "postgres_unavailable" for line in told()))
            assert any("run gitstore migrate" in line.get("reason", "") for line in told())
            migrate(url)
            until(lambda: any(line["event"] == "postgres_available" for line in told()))
        finally:
            house.stop.set()
            running.join()
    with psycopg.connect(url) as connection:
        assert connection.execute("select count(*) from gitstore.projects").fetchone() == (0,)
