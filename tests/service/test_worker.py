"""The worker: its due tasks, and its behaviour while Postgres is unavailable or a project is broken."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
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
from gitstore.unit_of_work import WRITERS, FileUnitOfWork
from service import logs, upkeep
from service.config import Config
from service.projects import Projects, make_data_folder
from service.run.bootstrap import create_project
from service.upkeep import FULL_PASS_SECONDS, PRUNE_SECONDS, Memory, State, Upkeep, boot_id
from service.worker import Worker
from sync import projects
from sync.catalog import Project
from sync.db import Database
from sync.embedded.server import EmbeddedPostgres
from sync.markers import Markers
from sync.migrate import migrate
from sync.unit_of_work import locks_of
from tests.service.serve_process import GITSTORE, alive, environment, until
from webhooks.housekeeping import Pruned

ADA = Person("Ada", "ada@example.com")
DEFINITION = {"nodes": [{"id": "start", "type": "webhook", "data": {"label": "Start"}}]}
NOON = 1_800_000_000.0

Logged = Callable[[str], list[dict[str, Any]]]
"""Returns the log lines of an event."""


@pytest.fixture
def logged() -> Iterator[Logged]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("json", "info", stream)

    def lines(event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, stream.getvalue().splitlines()) if line["event"] == event]

    yield lines
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


@dataclass
class House:
    """A data folder and a database, with maintenance at a time that the test sets."""

    config: Config
    database: Database

    def __post_init__(self) -> None:
        self.stop = threading.Event()
        self.now = NOON
        self.projects = Projects(self.config)

    def upkeep(self, boot: str = "boot-1") -> Upkeep:
        """Return the first round of a new worker."""
        return Upkeep(self.config, self.database, self.stop, boot, clock=lambda: self.now)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Run a worker until the block ends."""
        thread = threading.Thread(target=Worker(self.config, self.database, self.stop).run)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join()

    def command(self) -> subprocess.Popen[bytes]:
        """Start `gitstore worker`."""
        settings = {"DATABASE_URL": self.database.conninfo, "GITSTORE_DATA": str(self.config.data)}
        return subprocess.Popen([*GITSTORE, "worker"], env=environment(**settings), stderr=subprocess.PIPE)

    def project(self, slug: str = "team") -> Project:
        with self.database.as_owner() as transaction:
            return create_project(transaction, self.projects, uuid4(), slug, slug, Rules.MESHHOOK)

    def write(self, project: Project, slug: str, *, marked: bool) -> None:
        """Write a draft that is not mirrored, as a writer that is killed before."""
        path = self.projects.path(project.id)
        with closing(Store(path, project.id, FileUnitOfWork)) as store:
            if marked:
                Markers(store.path).put([slug])
            store.create_workflow(slug, Content(value=DEFINITION), Actors(ADA, ADA))

    def mirrored(self) -> list[str]:
        with self.database.as_owner() as transaction:
            rows = transaction.tuples("select slug from gitstore.workflows order by slug")
        return [slug for (slug,) in rows]


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


# Rounds of maintenance


def test_marked_writes_of_every_project_are_mirrored(house: House, logged: Logged) -> None:
    """Each project gets a log line. Lines of maintenance name a project by its slug, as others do."""
    one, other = house.project("one"), house.project("other")
    house.upkeep().run()
    house.write(one, "a", marked=True)
    house.write(other, "b", marked=True)
    house.upkeep().run()
    assert house.mirrored() == ["a", "b"]
    for event in ("reconciled", "gc"):
        assert [line["project"] for line in logged(event)] == ["one", "other"]


def test_a_sweep_that_finds_a_writer_is_repeated_in_full(
    house: House, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock file that a kill left may have no marker any more, and must not stay until a restart."""
    monkeypatch.setattr("sync.unit_of_work._ALONE_SECONDS", 0.3)
    project = house.project()
    house.write(project, "a", marked=False)
    left = house.projects.path(project.id) / "refs/heads/drafts/a.lock"
    left.touch()
    house.database.lock_seconds = 0.3
    memory = Memory()
    with closing(house.projects.reader(project)) as repository:
        writing = house.database.as_mirror(locks_of(repository, ["a"]))
    with writing:
        replace(house.upkeep(), memory=memory).run()
    assert left.exists()
    assert len(logged("leftovers_failed")) == 1
    replace(house.upkeep(), memory=memory).run()
    assert not left.exists()
    assert memory.swept


def test_a_full_pass_mirrors_writes_without_a_marker(house: House) -> None:
    """It runs daily and once a boot, since markers do not survive a power cut."""
    project = house.project()
    house.upkeep().run()
    house.write(project, "a", marked=False)
    house.now += FULL_PASS_SECONDS - 1
    house.upkeep().run()
    assert house.mirrored() == []
    house.now += 1
    house.upkeep().run()
    assert house.mirrored() == ["a"]
    house.write(project, "b", marked=False)
    house.upkeep().run()
    assert house.mirrored() == ["a"]
    house.upkeep("boot-2").run()
    assert house.mirrored() == ["a", "b"]


@pytest.mark.parametrize(
    ("boot", "now", "is_due"),
    [
        ("a", NOON + FULL_PASS_SECONDS - 1, False),
        ("a", NOON + FULL_PASS_SECONDS, True),
        ("a", NOON - 1, True),  # the clock of the last pass was ahead
        ("b", NOON, True),
    ],
)
def test_a_full_pass_is_due_after_a_day_and_after_a_boot(boot: str, now: float, is_due: bool) -> None:
    """Two machines that share a data folder need one pass a day between them."""
    assert State().full_pass_due({"a"}, NOON)
    done = State().passed({"a"}, NOON)
    assert done.full_pass_due({boot}, now) is is_due
    assert not done.passed({"b"}, NOON + 10).full_pass_due({"a"}, NOON + FULL_PASS_SECONDS)


def test_the_state_file_is_bounded_and_may_be_damaged(tmp_path: Path) -> None:
    """A damaged or missing file counts as empty."""
    file = tmp_path / "worker.json"
    assert State.read(file) == State()
    state = State()
    for number in range(100):
        state = state.passed({f"boot-{number}"}, NOON + number)
    state.write(file)
    assert State.read(file) == state
    assert len(state.passes) < 50
    assert not state.full_pass_due({"boot-99"}, NOON + 100)
    for damaged in ("", "[]", "{", '{"full_passes": 3}', '{"full_passes": {"a": "b"}}', "\x00"):
        file.write_text(damaged)
        assert State.read(file) == State()


def test_old_rows_are_pruned_hourly(house: House, logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time at the start; the age is the setting's."""
    ages: list[timedelta] = []

    def prune(_database: Database, age: timedelta, _stopping: Callable[[], bool]) -> Pruned:
        ages.append(age)
        return Pruned(deliveries=3, receipts=0, held=0)

    monkeypatch.setattr(upkeep, "prune", prune)
    rounds = house.upkeep()
    rounds.run()
    rounds.run()
    assert ages == [timedelta(days=30)]
    house.now += PRUNE_SECONDS
    rounds.run()
    assert len(ages) == 2
    assert [line["deliveries"] for line in logged("deliveries_pruned")] == [3, 3]


def test_a_broken_project_does_not_stop_the_others(house: House, logged: Logged) -> None:
    """Its failure is logged once, not in every round."""
    broken, whole = house.project("broken"), house.project("whole")
    house.projects.path(broken.id).rename(house.config.data / "elsewhere")
    house.write(whole, "a", marked=True)
    rounds = house.upkeep()
    rounds.run()
    rounds.run()
    assert house.mirrored() == ["a"]
    (line,) = logged("reconcile_failed")
    assert (line["project"], line["code"], line["level"]) == ("broken", "integrity", "error")


def test_a_project_that_is_deleted_during_a_round_is_no_failure(house: House, logged: Logged) -> None:
    """It was listed, and is gone with its repository when its turn comes."""
    gone, whole = house.project("gone"), house.project("whole")
    house.write(whole, "a", marked=True)

    def delete(step: tuple[str, str]) -> None:
        if step == ("reconcile", "gone"):
            with house.database.upkeep() as tx:
                projects.change(tx, gone.id, archived=True)
                projects.delete(tx, gone.id)
            house.projects.discard(gone.id)

    replace(house.upkeep(), begin=delete).run()
    assert house.mirrored() == ["a"]
    assert logged("reconcile_failed") == []


def test_drafts_are_judged_by_new_rules_in_the_next_round(house: House) -> None:
    """If the request that changed them did not come so far."""
    team = house.project()
    house.write(team, "a", marked=True)
    house.upkeep().run()
    with house.database.as_owner() as tx:
        projects.change(tx, team.id, rules=Rules.ANY)
        tx.run("update gitstore.workflow_versions set valid = false")
    house.upkeep().run()
    with house.database.as_owner() as tx:
        assert tx.tuples("select valid from gitstore.workflow_versions") == [(True,)]
        assert tx.value("select checked_rules from gitstore.projects") == "any"


def test_the_mirror_lag_is_the_age_of_the_oldest_marker(house: House) -> None:
    """Of any project, however old the repository is; without markers it is 0."""
    project = house.project()
    assert house.projects.mirror_lag(NOON) == 0
    writers = house.projects.path(project.id) / WRITERS
    writers.touch()
    os.utime(writers, (1, 1))
    before = time.time()
    house.write(project, "a", marked=True)
    house.write(project, "b", marked=True)
    after = time.time()
    assert 5 - (after - before) <= house.projects.mirror_lag(before + 5) <= 5
    assert house.projects.mirror_lag(before - 5) == 0
    house.upkeep().run()
    assert house.projects.mirror_lag(after + 5) == 0


def test_a_boot_of_the_machine_has_a_constant_id() -> None:
    assert boot_id() == boot_id() != ""


# The worker


def test_the_worker_waits_for_an_unavailable_postgres(ram_path: Path, logged: Logged) -> None:
    """It is logged once with the driver's message, and work continues once Postgres is back."""
    server = EmbeddedPostgres(ram_path / "postgres")
    url = server.start()
    settings = {"DATABASE_URL": url, "GITSTORE_DATA": str(ram_path), "GITSTORE_RECONCILE_SECONDS": "1"}
    try:
        migrate(url)
        with closing(Database(url, max_connections=2)) as database:
            house = House(Config.from_env(settings), database)
            project = house.project()
            server.stop()
            with house.working():
                until(lambda: bool(logged("postgres_unavailable")))
                house.write(project, "a", marked=True)
                server.start()
                until(lambda: bool(logged("postgres_available")))
                assert house.mirrored() == ["a"]
        (away,) = logged("postgres_unavailable")
        assert "failed" in away["cause"]
    finally:
        server.stop()


def test_the_worker_waits_for_the_migration(
    tmp_path: Path, make_database: Callable[..., str], logged: Logged
) -> None:
    """A database that is not migrated counts as unavailable: `gitstore serve` migrates it."""
    url = make_database()
    with closing(Database(url, max_connections=2)) as database:
        house = House(Config.from_env({"DATABASE_URL": url, "GITSTORE_DATA": str(tmp_path)}), database)
        with house.working():
            until(lambda: bool(logged("postgres_unavailable")))
            assert "run gitstore migrate" in logged("postgres_unavailable")[0]["reason"]
            migrate(url)
            until(lambda: bool(logged("postgres_available")))
    with psycopg.connect(url) as connection:
        assert connection.execute("select count(*) from gitstore.projects").fetchone() == (0,)


# The command


def test_sigterm_ends_the_command_successfully(house: House) -> None:
    project = house.project()
    house.write(project, "a", marked=True)
    with house.command() as worker:
        try:
            until(lambda: house.mirrored() == ["a"])
            worker.send_signal(signal.SIGTERM)
            stderr = worker.communicate(timeout=60)[1].decode()
        finally:
            worker.kill()
    assert worker.returncode == 0
    assert "Traceback" not in stderr


def test_the_command_replaces_a_killed_child(house: House) -> None:
    """It watches the process that does the work; after SIGTERM no process is left."""
    with house.command() as watcher:
        children = Path(f"/proc/{watcher.pid}/task/{watcher.pid}/children")
        try:
            until(lambda: len(children.read_text().split()) == 1)
            (first,) = children.read_text().split()
            os.kill(int(first), signal.SIGKILL)
            until(lambda: children.read_text().split() not in ([], [first]))
            (second,) = children.read_text().split()
            watcher.send_signal(signal.SIGTERM)
            stderr = watcher.communicate(timeout=60)[1].decode()
        finally:
            watcher.kill()
    assert watcher.returncode == 0
    assert stderr.count("worker_exited") == 1
    assert not alive(int(second))


def test_a_worker_without_its_parent_ends(house: House) -> None:
    """One whose parent is gone when it starts does not begin to work."""
    settings = {"DATABASE_URL": house.database.conninfo, "GITSTORE_DATA": str(house.config.data)}
    command = [*GITSTORE, "worker", "--parent", "1"]
    done = subprocess.run(command, env=environment(**settings), check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
