"""The worker: does in the background what is due, one thing after the other.

Due is: what markers say was under way when a process was stopped, and the lock files that it left (at the
start, and every GITSTORE_RECONCILE_SECONDS); a full pass over all workflows daily, and once after each boot
of the machine, as markers do not survive a power cut; git's own maintenance daily; forgetting old deliveries
and receipts, hourly. Several workers are fine: each thing is done under its locks, and to do it twice is to
do it once.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

from gitstore.errors import Code, GitstoreError
from service import logs, upkeep
from service.config import Config
from service.database import check
from service.incoming import following
from service.metrics import Metrics
from service.outgoing import delivering
from service.projects import Projects
from sync import catalog, reconcile
from sync.catalog import Project
from sync.db import Database
from sync.reconcile import Report
from sync.writing import MirroredWrites

FULL_PASS_SECONDS: Final = 86_400.0
PRUNE_SECONDS: Final = 3600.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_KEPT_BOOTS: Final = 20
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True)
class State:
    """When a full pass was last completed in which boot of a machine: boot id -> seconds since 1970.

    Machines that share the data folder share the file; those that are started anew again and again (as
    containers are) have the boot of their host.
    """

    passes: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> State:
        """What the file says; nothing, where it is missing or broken: then a full pass is due."""
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
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            json.dump({"full_passes": self.passes}, file)
        Path(file.name).replace(path)


class Worker:
    """Runs until `stop` is set. `clock` tells seconds since 1970, `boot` names this boot of the machine."""

    def __init__(
        self,
        config: Config,
        database: Database,
        stop: threading.Event,
        *,
        clock: Callable[[], float] = time.time,
        boot: str | None = None,
    ) -> None:
        self._config = config
        self._database = database
        self._projects = Projects(config)
        self._seconds = float(config.reconcile_seconds)
        self._state_file = config.data / "worker.json"
        self._stop = stop
        self._clock = clock
        self._boot = boot or boot_id()
        self._told: dict[tuple[UUID, str], str] = {}
        self._swept = False
        self._prune_at = 0.0

    def run(self) -> None:
        """Do what is due, again and again. A Postgres that is away is told of once, and waited for."""
        figures = Metrics(self._config.metrics_folder)
        with (
            delivering(self._config, self._database, figures),
            following(self._config, self._database, figures),
        ):
            self._heal()

    def _heal(self) -> None:
        pause, away = _FIRST_PAUSE, False
        while not self._stop.is_set():
            try:
                self.tick()
            except GitstoreError as error:
                if not away:
                    self._tell_away(error)
                self._stop.wait(pause)
                pause, away = min(pause * 2, _LONGEST_PAUSE), True
            else:
                if away:
                    logs.action("postgres_back")
                pause, away = _FIRST_PAUSE, False
                self._stop.wait(self._seconds)

    def _tell_away(self, error: GitstoreError) -> None:
        cause: str | None = None
        try:
            check(self._database.conninfo)
        except GitstoreError as closer:
            cause = logs.cause_of(closer)
        logs.action("postgres_away", level="warning", reason=error.message, cause=cause)

    def tick(self) -> None:
        """What is due now. Raises what hinders all of it: `unavailable`, `busy`, `config`."""
        self._database.ping()
        # Locks of killed writers first: they stop others. Once, everything; then, what markers tell of.
        self._each_project(partial(_tidy_and_reconcile, everything=not self._swept))
        self._swept = True
        state, now = State.read(self._state_file), self._clock()
        if state.full_pass_due(self._boot, now) and not self._stop.is_set():
            started = time.monotonic()
            self._each_project(reconcile.full_pass)
            if not self._stop.is_set():
                state.passed(self._boot, now).write(self._state_file)
                logs.action("full_pass", duration_ms=_since(started))
        self._each_project(self._collect_garbage)
        if self._clock() >= self._prune_at and not self._stop.is_set():
            upkeep.forget_old(self._database, self._config.keep_days, self._stop.is_set)
            self._prune_at = self._clock() + PRUNE_SECONDS

    def _collect_garbage(self, writes: MirroredWrites) -> Report:
        upkeep.collect_garbage(writes, self._stop.is_set)
        return Report()

    def _each_project(self, heal: Callable[[MirroredWrites], Report]) -> None:
        with self._database.as_mirror() as transaction:
            projects = catalog.projects(transaction)
        for project in projects:
            if self._stop.is_set():
                return
            started = time.monotonic()
            try:
                mirrored = self._projects.mirrored(project, self._database)
                with logs.about(project=project.slug), mirrored as (_, writes):
                    report = heal(writes)
            except GitstoreError as error:
                if error.code in (Code.UNAVAILABLE, Code.CONFIG):
                    raise
                self._tell_failures(project, {"": error})
            except Exception:  # one project that is broken in a new way stops no other
                logs.action("reconcile_failed", level="error", project=project.slug, exc_info=True)
            else:
                _tell(project, report, started)
                self._tell_failures(project, report.failures)

    def _tell_failures(self, project: Project, failures: Mapping[str, GitstoreError]) -> None:
        """Each once, until it changes: a contradiction stays until a person puts it right."""
        for slug, error in failures.items():
            if self._told.get((project.id, slug)) == error.message:
                continue
            self._told[project.id, slug] = error.message
            logs.action(
                "reconcile_failed",
                level="error",
                project=project.slug,
                workflow=slug or None,
                code=error.code.value,
                reason=error.message,
            )


def _tidy_and_reconcile(writes: MirroredWrites, *, everything: bool) -> Report:
    upkeep.tidy(writes, everything=everything)
    return reconcile.reconcile(writes)


def boot_id() -> str:
    """What names this boot of the machine; where the system does not say, every start counts as one."""
    with suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return f"started-{os.getpid()}-{time.time_ns()}"


def _tell(project: Project, report: Report, started: float) -> None:
    if report.facts:
        logs.action(
            "reconciled",
            project=project.slug,
            facts=len(report.facts),
            principal="gitstore",
            duration_ms=_since(started),
        )


def _since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
