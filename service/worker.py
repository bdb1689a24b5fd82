"""Background worker: the loops that send deliveries, sync sources, carry out schedules and do maintenance.

Each loop has a thread and sends heartbeats (run/heartbeats.py) to the process that watches this one
(run/supervisor.py). A sync fetches and parses the upstream's data, so each runs in a child process
(run/isolation.py), as does a delivery during which a process crashed. Several workers may run.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import Final

from gitstore.errors import GitstoreError
from gitstore.store import Store
from service import logs
from service.actions import schedules as actions
from service.caller import Backend
from service.config import Config
from service.logs import Event
from service.metrics import Metrics
from service.projects import Projects
from service.run import secret_key
from service.run.heartbeats import Heartbeats
from service.run.isolation import Channel, CrashError, Isolation, Limits, StopError, Work, child_database
from service.upkeep import UpkeepLoop
from sync import replication, schedules
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database
from sync.schedules import CHANNEL, LEASE_SECONDS
from webhooks import delivery_queue
from webhooks.attempts import Attempt, Ending, Verdict
from webhooks.delivery_queue import Due
from webhooks.egress import Egress
from webhooks.lease_loop import MOST_CRASHES, POLL_SECONDS, Beat, LeaseLoop, Loop, Report, no_beat, no_report
from webhooks.sender import DeliveryLoop, Sender
from webhooks.source_queue import Claim
from webhooks.source_sync import SourceSync, StoppingError, SyncLoop, import_limits

DELIVERY_LIMITS: Final = Limits(memory=2**29, step=45, whole=45)
"""Limits of a delivery sent in a child process: they end it before its lease expires."""
SYNC_LIMITS: Final = Limits(memory=2**30, step=300, whole=7200)
"""Limits of a sync. Its longest steps are git's check of the largest pack, and the walk over its objects."""


class Worker:
    """Worker that runs until `stop` is set. `beats` are those of the process that watches this one."""

    def __init__(
        self, config: Config, database: Database, stop: threading.Event, beats: Heartbeats | None = None
    ) -> None:
        self._config = config
        self._database = database
        self._stop = stop
        self._beats = beats

    def run(self) -> None:
        with ExitStack() as stack:
            for loop in self._loops():
                stack.enter_context(loop.running())
            while not self._stop.wait(replication.BEAT_SECONDS):
                replication.beat(self._database)

    def _loops(self) -> Iterator[Loop]:
        config, database, metrics = self._config, self._database, Metrics(self._config.metrics_folder)
        yield UpkeepLoop(config, database, self._stop, self._beat("upkeep"))
        yield ScheduleLoop(
            Backend.of(config, database, count_publish=metrics.published, count_move=metrics.moved),
            self._stop,
            beat=self._beat("schedule"),
            report=partial(_log_error, Event.SCHEDULE_LOOP_FAILED),
        )
        try:
            sender = sender_of(config, database, self._stop, metrics.delivered)
            syncs = source_sync(config, database, self._stop, metrics.synced)
        except GitstoreError as error:  # the secrets cannot be decrypted; maintenance continues
            logs.action(Event.DELIVERIES_DISABLED, level="error", reason=error.message)
            logs.action(Event.SOURCES_DISABLED, level="error", reason=error.message)
            for name in ("delivery", "sync"):
                if self._beats is not None:
                    self._beats.off(name)
            return
        alone = partial(deliver_alone, config, sender, Isolation(DELIVERY_LIMITS), metrics.delivered)
        yield DeliveryLoop(sender, send_alone=alone, on_crash=log_crash, beat=self._beat("delivery"))
        yield isolated_sync_loop(config, syncs, Isolation(SYNC_LIMITS), beat=self._beat("sync"))

    def _beat(self, loop: str) -> Beat:
        return partial(self._beats.beat, loop) if self._beats is not None else no_beat


# Deliveries


def sender_of(
    config: Config, database: Database, stop: threading.Event, count: Callable[[str], None]
) -> Sender:
    """Return the sender of deliveries; `count` updates the metrics.

    Raises `config` if the secrets cannot be decrypted.
    """

    def on_attempt(due: Due, attempt: Attempt, verdict: Verdict) -> None:
        count(verdict.ending.value)
        _log_attempt(due, attempt, verdict)

    return Sender(
        database=database,
        egress=Egress(config.egress_allow),
        sealer=secret_key.sealer(config, database),
        stop=stop,
        agent=f"gitstore/{version('gitstore')}",
        on_attempt=on_attempt,
        report=partial(_log_error, Event.DELIVERY_LOOP_FAILED),
    )


def deliver_alone(
    config: Config, sender: Sender, isolation: Isolation, count: Callable[[str], None], due: Due
) -> None:
    """Send a delivery in a child process, and record a crash of that process."""
    try:
        isolation.run(deliver_in_child, config, due, stop=sender.stop, on_message=count)
    except StopError:
        with sender.database.as_mirror() as tx:
            delivery_queue.release(tx, [due.id])
    except CrashError as error:
        count("crashed")
        reason = f"the attempt {error}"
        with sender.database.as_mirror() as tx:
            crashes = delivery_queue.crash(tx, due, reason)
        log_crash(due, crashes or 0, reason)


def deliver_in_child(channel: Channel, stop: threading.Event, config: Config, due: Due) -> None:
    """Send a delivery in a child process: `work` for Isolation."""
    with child_database(config) as database:
        sender_of(config, database, stop, channel.send).deliver(due)


def log_crash(due: Due, crashes: int, reason: str) -> None:
    logs.action(
        Event.DELIVERY_POISONED if crashes >= MOST_CRASHES else Event.DELIVERY_CRASHED,
        level="error",
        project=due.project,
        subscription=str(due.subscription_id),
        delivery=str(due.id),
        crashes=crashes,
        reason=reason,
    )


def _log_attempt(due: Due, attempt: Attempt, verdict: Verdict) -> None:
    delivered = verdict.ending is Ending.SUCCEEDED
    about = {"project": due.project, "subscription": str(due.subscription_id)}
    logs.action(
        Event.DELIVERED if delivered else Event.DELIVERY_FAILED,
        level="info" if delivered else "warning",
        **about,
        delivery=str(due.id),
        type=due.type,
        attempt=due.tries + 1,
        status=attempt.outcome.status,
        reason=verdict.error,
        again=None if delivered else verdict.ending is Ending.RETRY and not verdict.disabled,
        duration_ms=round(attempt.seconds * 1000, 1),
    )
    if verdict.disabled:
        logs.action(Event.SUBSCRIPTION_DISABLED, level="warning", **about, reason=verdict.error)


# Sources


def source_sync(
    config: Config,
    database: Database,
    stop: threading.Event,
    count: Callable[[str, Sequence[str], int], None] = lambda _outcome, _divergences, _published: None,
    alive: Callable[[], None] = lambda: None,
) -> SourceSync:
    """Return the synchronization of sources, for the worker and the CLI; `count` updates the metrics.

    Raises `config` if the secrets cannot be decrypted.
    """
    projects = Projects(config)

    @contextmanager
    def open_store(project: Project, origin: Origin) -> Iterator[Store]:
        with closing(projects.writer(project, database, origin)) as store:
            yield store

    return SourceSync(
        database=database,
        open_store=open_store,
        egress=Egress(config.egress_allow),
        sealer=secret_key.sealer(config, database),
        limits=import_limits(config.limits, config.max_import),
        stop=stop,
        log=logs.action,
        count=count,
        alive=alive,
    )


def sync_in_child(channel: Channel, stop: threading.Event, config: Config, claim: Claim) -> None:
    """Sync a source in a child process: `work` for Isolation."""

    def count(outcome: str, divergences: Sequence[str], published: int) -> None:
        channel.send((outcome, dict(Counter(divergences)), published))

    with child_database(config) as database:
        try:
            source_sync(config, database, stop, count, channel.alive).sync(claim)
        except StoppingError as error:
            raise StopError from error


def isolated_sync_loop(
    config: Config, syncs: SourceSync, isolation: Isolation, work: Work = sync_in_child, beat: Beat = no_beat
) -> SyncLoop:
    """Return a loop that syncs each source in a child process, and records a crash of that process."""

    def count(message: tuple[str, dict[str, int], int]) -> None:
        outcome, divergences, published = message
        syncs.count(outcome, list(Counter(divergences).elements()), published)

    def sync(claim: Claim) -> None:
        try:
            with syncs.holding(claim):  # here too: a child that hangs does not renew its lease
                isolation.run(work, config, claim, stop=syncs.stop, on_message=count)
        except StopError:
            syncs.release(claim)
        except CrashError as error:
            syncs.crash(claim, f"the sync {error}")

    report = partial(_log_error, Event.SYNC_LOOP_FAILED)
    return SyncLoop(syncs, sync=sync, sync_is_stuck=isolation.is_stuck, beat=beat, report=report)


def _log_error(event: Event, error: BaseException) -> None:
    if isinstance(error, GitstoreError):
        logs.action(event, level="error", reason=error.message, cause=logs.cause_of(error))
    else:
        logs.action(event, level="error", exc_info=error)


# Schedules

SCHEDULE_THREADS: Final = 4
"""Schedules that are carried out at once."""
_ASK_SECONDS: Final = 1.5
_BEHIND_SECONDS: Final = 0.25
_SLOW_SECONDS: Final = 60.0
_STUCK_SECONDS: Final = 180.0
"""Seconds after which one that is being carried out counts as hanging: locks and writes have lower limits."""


class ScheduleLoop(LeaseLoop[schedules.Claim]):
    """Loop that claims due schedules. `carry_out` carries one out, in a thread.

    It sleeps until the next one is due by Postgres' clock. While any waits, it asks again every
    `_ASK_SECONDS`, as that clock may be set, and a notification may be missed.
    """

    def __init__(
        self,
        backend: Backend,
        stop: threading.Event,
        *,
        carry_out: Callable[[Backend, schedules.Claim], None] = actions.carry_out,
        beat: Beat = no_beat,
        report: Report = no_report,
    ) -> None:
        super().__init__(
            backend.database, CHANNEL, stop, slow_seconds=_SLOW_SECONDS, beat=beat, report=report
        )
        self._backend = backend
        self._carry_out = carry_out

    def tick(self) -> float:
        progress = self.progress()
        running = [one.lease for one in (*progress.quick, *progress.slow)]
        with self._database.as_mirror() as tx:
            if running:
                schedules.renew(tx, [each.claim for each in running])
            claims = schedules.claim(tx, max(SCHEDULE_THREADS - len(running), 0))
            following = schedules.seconds_to_next(tx)
        self.start(claims)
        pause = POLL_SECONDS
        if following is not None:  # one that is due waits for another one of its workflow
            pause = min(following, _ASK_SECONDS) if following > 0 else _BEHIND_SECONDS
        if len(running) + len(claims) >= SCHEDULE_THREADS:
            pause = LEASE_SECONDS / 4  # a thread that is done wakes the loop
        return pause

    def is_stuck(self) -> bool:
        progress = self.progress()
        return any(
            time.monotonic() - one.started > _STUCK_SECONDS for one in (*progress.quick, *progress.slow)
        )

    def work(self, lease: schedules.Claim) -> None:
        self._carry_out(self._backend, lease)

    def release(self, leases: Sequence[schedules.Claim]) -> None:
        """Let the next worker look in the ledger for unfinished work, which may be there."""
        with self._database.as_mirror() as tx:
            for lease in leases:
                schedules.look_again(tx, lease, timedelta())
