"""Maintenance, in rounds: unfinished writes, leftovers of killed processes, full passes, git's gc, retention.

A round completes the writes that markers record as unfinished, and removes lock files that killed processes
left: all of them at the start, and marked ones every GITSTORE_RECONCILE_SECONDS. A full pass over all
workflows runs daily; once after each boot of a machine, as markers do not survive a power cut; and after a
replica of Postgres was promoted, which may lack rows whose markers are gone. git's maintenance runs daily,
and retention of old deliveries, receipts and autosaves hourly. Each round saves what people typed in the
editor and left for ten minutes. Each task takes its locks and is idempotent.

Each round runs in a child process (run/isolation.py). A step that crashed its child is skipped for a while,
and given up after three crashes in a row, so that one project's maintenance cannot block that of others. A
failure of one step does not stop the others; work that another process blocks is done in the next round.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from dulwich.file import FileLocked

from gitstore.errors import ConfigError, GitstoreError, UnavailableError
from gitstore.git.files import write_atomically
from gitstore.git.maintenance import collect, due, pack_refs, refs_due
from gitstore.git.packed_refs import packed_refs_damaged, repair_packed_refs
from gitstore.system import now
from service import logs
from service.actions.autosaves import KEPT, commit_idle
from service.caller import Backend
from service.config import Config
from service.logs import Event
from service.projects import Projects
from service.run.database import check
from service.run.isolation import Channel, CrashError, Isolation, Limits, StopError, child_database
from sync import autosaves, catalog, reconcile
from sync.catalog import Project
from sync.db import Database
from sync.reconcile import Report
from sync.unit_of_work import MirrorUnitOfWork
from webhooks.housekeeping import prune
from webhooks.lease_loop import CRASH_PAUSE_SECONDS, MOST_CRASHES, Beat, Loop

LIMITS: Final = Limits(memory=2**30, step=900, whole=21_600)
"""Limits of a round. Its longest steps are git's, when it packs a large repository."""
FULL_PASS_SECONDS: Final = 86_400.0
GC_SECONDS: Final = 86_400.0
PRUNE_SECONDS: Final = 3600.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_KEPT_CAUSES: Final = 20

Step = tuple[str, str]
"""A step of a round: its name, and the slug of its project or an empty string."""


@dataclass(frozen=True, slots=True)
class State:
    """Times of the last completed full pass, by what makes one due: name -> seconds since 1970.

    That is the boot id of a machine, or the timeline of Postgres' log. Machines that share the data folder
    share the file; containers, which start often, have the boot id of their host.
    """

    passes: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> State:
        """Read the file; empty if it is missing or damaged, which makes a full pass due."""
        with suppress(OSError, ValueError, AttributeError):
            passes = json.loads(path.read_text()).get("full_passes", {})
            return cls({str(boot): float(at) for boot, at in passes.items()})
        return cls()

    def full_pass_due(self, causes: Collection[str], now: float) -> bool:
        newest = max(self.passes.values(), default=0.0)
        return not self.passes.keys() >= set(causes) or not 0 <= now - newest < FULL_PASS_SECONDS

    def passed(self, causes: Collection[str], now: float) -> State:
        passes = {**self.passes, **dict.fromkeys(causes, now)}
        newest = sorted(passes.items(), key=lambda item: item[1])[-_KEPT_CAUSES:]
        return State(dict(newest))

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps({"full_passes": self.passes}))


@dataclass
class Crashes:
    """Consecutive crashes of a step; `again` is the monotonic time of its next attempt."""

    count: int = 0
    again: float = 0.0

    @property
    def given_up(self) -> bool:
        return self.count >= MOST_CRASHES

    def may_try(self) -> bool:
        return not self.given_up and time.monotonic() >= self.again

    def add(self) -> None:
        self.again = time.monotonic() + CRASH_PAUSE_SECONDS * self.count
        self.count += 1


@dataclass
class Memory:
    """State that one round passes to the next.

    `reported` is the last logged failure of each workflow, by project and slug.
    """

    reported: dict[tuple[UUID, str], str] = field(default_factory=dict)
    swept: bool = False
    prune_at: float = 0.0
    crashed: dict[Step, Crashes] = field(default_factory=dict)

    def may_try(self, step: Step) -> bool:
        return step not in self.crashed or self.crashed[step].may_try()


class UpkeepLoop(Loop):
    """Loop that runs a round every GITSTORE_RECONCILE_SECONDS. An unavailable Postgres is logged once."""

    def __init__(self, config: Config, database: Database, stop: threading.Event, beat: Beat) -> None:
        super().__init__(stop, beat=beat, report=self._log_unavailable)
        self._config = config
        self._database = database
        self._isolation = Isolation(LIMITS)
        self._boot = boot_id()
        self._memory = Memory()
        self._step: Step = ("start", "")

    def tick(self) -> float:
        work = (run_in_child, self._config, self._boot, self._memory)
        try:
            self._isolation.run(*work, stop=self._stop, on_message=self._note, beat=self.beat)
        except StopError:
            return 0.0
        except CrashError as error:
            crashes = self._memory.crashed.setdefault(self._step, Crashes())
            crashes.add()
            logs.action(
                Event.UPKEEP_SUSPENDED if crashes.given_up else Event.UPKEEP_CRASHED,
                level="error",
                step=self._step[0],
                project=self._step[1] or None,
                crashes=crashes.count,
                reason=f"it {error}",
                advice="restart the worker to try it again" if crashes.given_up else None,
            )
        return float(self._config.reconcile_seconds)

    def recovered(self) -> None:
        logs.action(Event.POSTGRES_AVAILABLE)

    def _note(self, message: Any) -> None:
        if isinstance(message, Memory):
            self._memory = message
        else:
            self._step = message

    def _log_unavailable(self, error: BaseException) -> None:
        cause: str | None = None
        try:
            check(self._database.conninfo)
        except GitstoreError as closer:
            cause = logs.cause_of(closer)
        logs.action(Event.POSTGRES_UNAVAILABLE, level="warning", reason=str(error), cause=cause)


def run_in_child(channel: Channel, stop: threading.Event, config: Config, boot: str, memory: Memory) -> None:
    """Run a round in a child process: `work` for Isolation."""
    with child_database(config) as database:
        Upkeep(config, database, stop, boot, memory, begin=channel.send, alive=channel.alive).run()
    channel.send(memory)


@dataclass(frozen=True, slots=True)
class Upkeep:
    """A round of maintenance.

    `boot` identifies this boot of the machine; `clock` returns seconds since 1970. `begin` is called with
    each step, and `alive` often.
    """

    config: Config
    database: Database
    stop: threading.Event
    boot: str
    memory: Memory = field(default_factory=Memory)
    clock: Callable[[], float] = time.time
    begin: Callable[[Step], None] = lambda _step: None
    alive: Callable[[], None] = lambda: None

    def run(self) -> None:
        """Run the tasks due now. Raises errors that prevent all of them: `unavailable`, `busy`, `config`."""
        self.database.ping()
        memory = self.memory
        # Locks of killed writers first, as they block others. Everything once; then only marked writes.
        everything, memory.swept = not memory.swept, True  # until a sweep fails
        self._each_project("reconcile", partial(self._reconcile, everything=everything))
        state_file, now = self.config.data / "worker.json", self.clock()
        state, causes = State.read(state_file), {self.boot, f"timeline {self.database.timeline()}"}
        if state.full_pass_due(causes, now) and not self.stop.is_set():
            started = time.monotonic()
            self._each_project("full_pass", partial(reconcile.full_pass, progress=self._progress))
            if not self.stop.is_set():
                state.passed(causes, now).write(state_file)
                logs.action(Event.FULL_RECONCILIATION, duration_ms=_since(started))
        self._commit_autosaves(("autosaves", ""))
        self._each_project("gc", self._collect_garbage)
        self._prune(("forget", ""))

    def _each_project(self, name: str, run: Callable[[MirrorUnitOfWork], Report]) -> None:
        with self.database.as_mirror() as transaction:
            projects = catalog.projects(transaction)
        repositories = Projects(self.config)
        for project in projects:
            if self._stopping():
                return
            step = (name, project.slug)
            if not self.memory.may_try(step):
                continue
            self.begin(step)
            started = time.monotonic()
            try:
                with logs.about(project=project.slug), closing(repositories.reader(project)) as repository:
                    report = run(MirrorUnitOfWork(self.database, repository))
            except (UnavailableError, ConfigError):
                raise
            except GitstoreError as error:
                if self._exists(project):
                    self._log_failures(project, {"": error})
            except MemoryError:  # of this process, which has to end
                raise
            except Exception:  # an unknown failure of one project must not stop the others
                logs.action(Event.RECONCILE_FAILED, level="error", project=project.slug, exc_info=True)
            else:
                if report.facts:
                    logs.action(
                        Event.RECONCILED,
                        project=project.slug,
                        facts=len(report.facts),
                        principal="gitstore",
                        duration_ms=_since(started),
                    )
                self._log_failures(project, report.failures)
            self.memory.crashed.pop(step, None)

    def _exists(self, project: Project) -> bool:
        """Return whether the project was not deleted since the round began."""
        with self.database.as_mirror() as transaction:
            return catalog.project_by_id(transaction, project.id) is not None

    def _log_failures(self, project: Project, failures: Mapping[str, GitstoreError]) -> None:
        """Log each failure once, until it changes: a contradiction lasts until an operator resolves it."""
        for slug, error in failures.items():
            if self.memory.reported.get((project.id, slug)) == error.message:
                continue
            self.memory.reported[project.id, slug] = error.message
            logs.action(
                Event.RECONCILE_FAILED,
                level="error",
                project=project.slug,
                workflow=slug or None,
                code=error.code.value,
                reason=error.message,
            )

    def _reconcile(self, writes: MirrorUnitOfWork, *, everything: bool) -> Report:
        try:
            _clean_up(writes, everything=everything)
        except UnavailableError:
            raise
        except (GitstoreError, OSError, FileLocked) as error:
            # The next round sweeps everything: what is left may have no marker any more.
            self.memory.swept = False
            logs.action(Event.LEFTOVERS_FAILED, level="warning", reason=str(error))
        report = reconcile.reconcile(writes, self._progress)
        reconcile.recheck_drafts(writes, self._progress)
        return report

    def _collect_garbage(self, writes: MirrorUnitOfWork) -> Report:
        """Pack refs if many are loose, and run git's maintenance if a day has passed since the last run."""

        def check() -> None:
            if self._stopping():
                raise StopError

        path = writes.repository.path
        try:
            if refs_due(path, time.time()):
                pack_refs(path)
            done = collect(path, writes, check=check) if due(path, time.time(), GC_SECONDS) else None
        except UnavailableError:
            raise
        except (GitstoreError, OSError) as error:
            logs.action(Event.GC_FAILED, level="warning", reason=str(error))
        except StopError:  # what was done so far is complete
            pass
        else:
            if done is not None:
                duration = round(done.seconds * 1000, 1)
                logs.action(Event.GC, pruned=done.pruned, packs=done.packs, duration_ms=duration)
        return Report()

    def _commit_autosaves(self, step: Step) -> None:
        """Save what people typed and left for ten minutes, as drafts in their names."""
        if not self.memory.may_try(step) or self._stopping():
            return
        self.begin(step)
        commit_idle(Backend.of(self.config, self.database), self._stopping)
        self.memory.crashed.pop(step, None)

    def _prune(self, step: Step) -> None:
        """Delete deliveries that ended longer ago than GITSTORE_KEEP_DAYS, and old receipts and autosaves."""
        if self.clock() < self.memory.prune_at or not self.memory.may_try(step) or self._stopping():
            return
        self.begin(step)
        started = time.monotonic()
        pruned = prune(self.database, timedelta(days=self.config.keep_days), self._stopping)
        if pruned:
            logs.action(
                Event.DELIVERIES_PRUNED,
                deliveries=pruned.deliveries,
                receipts=pruned.receipts,
                held=pruned.held or None,
                duration_ms=_since(started),
            )
        with self.database.as_owner() as tx:
            autosaves.prune(tx, KEPT)
        self.memory.prune_at = self.clock() + PRUNE_SECONDS
        self.memory.crashed.pop(step, None)

    def _stopping(self) -> bool:
        """Return whether to stop. Called at each step of long work, and so also a sign of progress."""
        self.alive()
        return self.stop.is_set()

    def _progress(self, _done: int, _total: int) -> None:
        self.alive()


def _clean_up(writes: MirrorUnitOfWork, *, everything: bool) -> None:
    """Remove leftovers: of the writes that markers record as unfinished, or `everything`."""
    path = writes.repository.path
    swept = writes.sweep(everything=everything)
    if swept:
        logs.action(Event.LEFTOVERS_REMOVED, files=[str(file.relative_to(path)) for file in swept[:20]])
    if everything and packed_refs_damaged(path):
        with writes.maintenance():
            kept = repair_packed_refs(path, f"{now():%Y%m%dT%H%M%S%f}")
        if kept is not None:
            advice = "git could read none of it: run gitstore repair"
            logs.action(Event.PACKED_REFS_REPAIRED, level="error", kept=kept.name, advice=advice)


def boot_id() -> str:
    """Return an id of this boot of the machine; if the system has none, every start counts as a boot."""
    with suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return f"started-{os.getpid()}-{time.time_ns()}"


def _since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
