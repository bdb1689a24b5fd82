"""Background worker: runs the tasks that are due, one after the other.

Tasks: recovery of writes that markers record as unfinished after a process was stopped, and of the lock files
that it left (at the start, and every GITSTORE_RECONCILE_SECONDS); a full pass over all workflows daily, and
once after each boot of the machine, as markers do not survive a power cut; git's own maintenance daily;
retention of old deliveries and receipts, hourly. Several workers may run: each task takes its locks and is
idempotent.

Each round runs in a child process (isolation.py). A task that crashed its child is skipped for a while, and
given up after three crashes in a row, so that one project's maintenance cannot block that of others. The loop
here sends heartbeats (heartbeats.py), as do those that sync and deliver, to the process that watches this one
(service/run/supervisor.py).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from gitstore.errors import ConfigError, GitstoreError, UnavailableError
from gitstore.git.files import write_atomically
from service import logs, upkeep
from service.config import Config
from service.incoming import connected_in_child, following
from service.logs import Event
from service.metrics import Metrics
from service.outgoing import delivering
from service.projects import Projects
from service.run.database import check
from service.run.heartbeats import Heartbeats
from service.run.isolation import Channel, CrashError, Isolation, Limits, StopError
from sync import catalog, reconcile
from sync.catalog import Project
from sync.db import Database
from sync.reconcile import Report
from sync.unit_of_work import MirrorUnitOfWork
from webhooks import crashes, pulse
from webhooks.pulse import Beat

LIMITS: Final = Limits(memory=2**30, step=900, whole=21_600)
"""Limits of a round of maintenance. Its longest steps are git's, when it packs a large repository."""
FULL_PASS_SECONDS: Final = 86_400.0
PRUNE_SECONDS: Final = 3600.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_KEPT_BOOTS: Final = 20
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True)
class State:
    """Times of the last completed full pass, by boot of a machine: boot id -> seconds since 1970.

    Machines that share the data folder share the file; containers, which start often, have the boot id of
    their host.
    """

    passes: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> State:
        """Read the file; empty if it is missing or damaged, which makes a full pass due."""
        with suppress(OSError, ValueError, AttributeError):
            passes = json.loads(path.read_text()).get("full_passes", {})
            return cls({str(boot): float(at) for boot, at in passes.items()})
        return cls()

    def full_pass_due(self, boot: str, now: float) -> bool:
        newest = max(self.passes.values(), default=0.0)
        return boot not in self.passes or not 0 <= now - newest < FULL_PASS_SECONDS

    def passed(self, boot: str, now: float) -> State:
        newest = sorted({**self.passes, boot: now}.items(), key=lambda item: item[1])[-_KEPT_BOOTS:]
        return State(dict(newest))

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps({"full_passes": self.passes}))


@dataclass
class Crashes:
    """Consecutive crashes of one maintenance step; `again` is the monotonic time of its next attempt."""

    count: int = 0
    again: float = 0.0

    def may_try(self) -> bool:
        return self.count < crashes.MOST and time.monotonic() >= self.again

    def add(self) -> None:
        self.again = time.monotonic() + crashes.PAUSE_SECONDS * self.count
        self.count += 1


@dataclass
class Memory:
    """State that one round of maintenance passes to the next.

    `told` is the last logged failure of each workflow, by project and slug; `crashed` are the steps that
    crashed a child, by their names and the slugs of projects.
    """

    told: dict[tuple[UUID, str], str] = field(default_factory=dict)
    swept: bool = False
    prune_at: float = 0.0
    crashed: dict[tuple[str, str], Crashes] = field(default_factory=dict)

    def may_try(self, step: tuple[str, str]) -> bool:
        return step not in self.crashed or self.crashed[step].may_try()


class Worker:
    """Worker that runs until `stop` is set.

    `clock` returns seconds since 1970, `boot` identifies this boot of the machine. `beats` are those of the
    process that watches this one. `begin` is called with each step of maintenance and the slug of its
    project, `alive` often.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        stop: threading.Event,
        *,
        clock: Callable[[], float] = time.time,
        boot: str | None = None,
        beats: Heartbeats | None = None,
        memory: Memory | None = None,
        begin: Callable[[str, str], None] = lambda _step, _project: None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._database = database
        self._projects = Projects(config)
        self._seconds = float(config.reconcile_seconds)
        self._state_file = config.data / "worker.json"
        self._stop = stop
        self._clock = clock
        self._boot = boot or boot_id()
        self._beats = beats
        self._begin = begin
        self._alive = alive
        self.memory = memory or Memory()

    def run(self) -> None:
        """Run due tasks in a loop. An unavailable Postgres is logged once, and waited for."""
        gauges = Metrics(self._config.metrics_folder)
        with (
            delivering(self._config, self._database, gauges, *self._beat("delivery")),
            following(self._config, self._database, gauges, *self._beat("sync")),
        ):
            self._heal()

    def _beat(self, loop: str) -> tuple[Beat, Callable[[], None]]:
        """Return a function that records a heartbeat of a loop, and one that records that it does not run."""
        if self._beats is None:
            return pulse.silent, pulse.silent
        return partial(self._beats.beat, loop), partial(self._beats.off, loop)

    def _heal(self) -> None:
        beat, _ = self._beat("upkeep")
        isolation = Isolation(LIMITS)
        pause, away = _FIRST_PAUSE, False
        while not self._stop.is_set():
            try:
                self._tick_in_child(isolation, beat)
            except StopError:
                return
            except GitstoreError as error:
                if not away:
                    self._tell_away(error)
                pulse.wait(self._stop, pause, beat)
                pause, away = min(pause * 2, _LONGEST_PAUSE), True
            else:
                if away:
                    logs.action(Event.POSTGRES_AVAILABLE)
                pause, away = _FIRST_PAUSE, False
                pulse.wait(self._stop, self._seconds, beat)

    def _tick_in_child(self, isolation: Isolation, beat: Beat) -> None:
        under_way = ("start", "")

        def heard(message: Any) -> None:
            nonlocal under_way
            if isinstance(message, Memory):
                self.memory = message
            else:
                under_way = message

        work = (tick_in_child, self._config, self._boot, self.memory)
        try:
            isolation.run(*work, stop=self._stop, heard=heard, beat=beat)
        except CrashError as error:
            found = self.memory.crashed.setdefault(under_way, Crashes())
            found.add()
            given_up = found.count >= crashes.MOST
            logs.action(
                Event.UPKEEP_SUSPENDED if given_up else Event.UPKEEP_CRASHED,
                level="error",
                step=under_way[0],
                project=under_way[1] or None,
                crashes=found.count,
                reason=f"it {error}",
                advice="restart the worker to try it again" if given_up else None,
            )

    def _tell_away(self, error: GitstoreError) -> None:
        cause: str | None = None
        try:
            check(self._database.conninfo)
        except GitstoreError as closer:
            cause = logs.cause_of(closer)
        logs.action(Event.POSTGRES_UNAVAILABLE, level="warning", reason=error.message, cause=cause)

    def tick(self) -> None:
        """Run the tasks due now. Raises errors that prevent all of them: `unavailable`, `busy`, `config`."""
        self._database.ping()
        memory = self.memory
        # Locks of killed writers first, as they block others. Everything once; then only marked writes.
        self._each_project("reconcile", partial(self._tidy_and_reconcile, everything=not memory.swept))
        memory.swept = True
        state, now = State.read(self._state_file), self._clock()
        if state.full_pass_due(self._boot, now) and not self._stop.is_set():
            started = time.monotonic()
            self._each_project("full_pass", partial(reconcile.full_pass, progress=self._progress))
            if not self._stop.is_set():
                state.passed(self._boot, now).write(self._state_file)
                logs.action(Event.FULL_RECONCILIATION, duration_ms=_since(started))
        self._each_project("gc", self._collect_garbage)
        prune = ("forget", "")
        if self._clock() >= memory.prune_at and memory.may_try(prune) and not self._stopping():
            self._begin(*prune)
            upkeep.forget_old(self._database, self._config.keep_days, self._stopping)
            memory.prune_at = self._clock() + PRUNE_SECONDS
            memory.crashed.pop(prune, None)

    def _tidy_and_reconcile(self, writes: MirrorUnitOfWork, *, everything: bool) -> Report:
        upkeep.tidy(writes, everything=everything)
        return reconcile.reconcile(writes, self._progress)

    def _collect_garbage(self, writes: MirrorUnitOfWork) -> Report:
        upkeep.collect_garbage(writes, self._stopping)
        return Report()

    def _stopping(self) -> bool:
        """Return whether to stop. Called at each step of long work, and so also a sign of progress."""
        self._alive()
        return self._stop.is_set()

    def _progress(self, _done: int, _total: int) -> None:
        self._alive()

    def _each_project(self, name: str, heal: Callable[[MirrorUnitOfWork], Report]) -> None:
        with self._database.as_mirror() as transaction:
            projects = catalog.projects(transaction)
        for project in projects:
            if self._stopping():
                return
            step = (name, project.slug)
            if not self.memory.may_try(step):
                continue
            self._begin(*step)
            started = time.monotonic()
            try:
                with logs.about(project=project.slug), closing(self._projects.reader(project)) as repository:
                    report = heal(MirrorUnitOfWork(self._database, repository))
            except (UnavailableError, ConfigError):
                raise
            except GitstoreError as error:
                self._tell_failures(project, {"": error})
            except MemoryError:  # of this process, which has to end
                raise
            except Exception:  # a project that fails in an unknown way must not stop the others
                logs.action(Event.RECONCILE_FAILED, level="error", project=project.slug, exc_info=True)
            else:
                _tell(project, report, started)
                self._tell_failures(project, report.failures)
            self.memory.crashed.pop(step, None)

    def _tell_failures(self, project: Project, failures: Mapping[str, GitstoreError]) -> None:
        """Log each failure once, until it changes: a contradiction lasts until an operator resolves it."""
        for slug, error in failures.items():
            if self.memory.told.get((project.id, slug)) == error.message:
                continue
            self.memory.told[project.id, slug] = error.message
            logs.action(
                Event.RECONCILE_FAILED,
                level="error",
                project=project.slug,
                workflow=slug or None,
                code=error.code.value,
                reason=error.message,
            )


def tick_in_child(channel: Channel, stop: threading.Event, config: Config, boot: str, memory: Memory) -> None:
    """Run a round of maintenance, in a child process: `work` for Isolation."""
    logs.configure(config.log_format, config.log_level)
    with closing(connected_in_child(config)) as database:
        worker = Worker(
            config,
            database,
            stop,
            boot=boot,
            memory=memory,
            begin=lambda step, project: channel.tell((step, project)),
            alive=channel.alive,
        )
        worker.tick()
    channel.tell(memory)


def boot_id() -> str:
    """Return an id of this boot of the machine; if the system has none, every start counts as a boot."""
    with suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return f"started-{os.getpid()}-{time.time_ns()}"


def _tell(project: Project, report: Report, started: float) -> None:
    if report.facts:
        logs.action(
            Event.RECONCILED,
            project=project.slug,
            facts=len(report.facts),
            principal="gitstore",
            duration_ms=_since(started),
        )


def _since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
