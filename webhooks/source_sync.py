"""Synchronization of due sources, each by the first worker that claims it.

    claim (a lease) -> sync (webhooks/ref_sync.py), outside any transaction -> record, in one transaction

A webhook received during a sync makes the source due again right after it. A failed sync is retried at
increasing intervals. Sources that are slow or failed last time have a lane of their own, so that an upstream
that hangs does not delay the others.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final
from uuid import UUID

from gitstore.errors import Code, GitstoreError
from gitstore.model import Limits
from gitstore.store import Store
from gitstore.system import now
from gitstore.upstream.refs import Layout
from gitstore.upstream.remote import Remote
from sync import catalog
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database
from webhooks import divergences, source_queue, sources
from webhooks.divergences import Detected
from webhooks.egress import Egress
from webhooks.lease_loop import POLL_SECONDS, Beat, LeaseLoop, Report, no_beat, no_report
from webhooks.ref_sync import Job, Progress, Result, Sync, address_of
from webhooks.secrets import Sealer
from webhooks.source_queue import Claim, Crashed, Lanes
from webhooks.sources import Direction

QUICK: Final = 4
"""Concurrent syncs of quick sources."""
SLOW: Final = 4
"""Concurrent syncs of slow or failing sources."""

RENEW_SECONDS: Final = 20
EXCHANGE_SECONDS: Final = 900.0
"""Time limit in seconds for the fetch and the push of one sync together."""
STALL_SECONDS: Final = 60.0
"""Longest silence of an upstream in seconds. A git server sends a keep-alive every few seconds."""
REFS_SIZE: Final = 32 * 2**20
"""Largest ref advertisement in bytes, some 400,000 refs. All of it is held in memory."""
_SLACK: Final = 64 * 2**20  # bytes of an exchange in addition to the pack
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 3600.0
_SLOW_SECONDS: Final = 10.0

OpenStore = Callable[[Project, Origin], AbstractContextManager[Store]]
"""Callback that opens a project's Store whose writes are mirrored."""


class StoppingError(GitstoreError):
    """The worker is shutting down. The source in progress is left to the next worker."""

    def __init__(self) -> None:
        super().__init__(Code.UNAVAILABLE, "gitstore is stopping")


@dataclass(frozen=True, slots=True)
class SourceSync:
    """Synchronization of one source per call. Safe to share between threads.

    `limits` apply to imports. `log` writes a log line. `count` updates the metrics with the outcome ("ok",
    "crashed" or an error code), the codes of new divergences and the number of imported versions. `alive` is
    called at each step of a sync.
    """

    database: Database
    open_store: OpenStore
    egress: Egress
    sealer: Sealer
    limits: Limits
    stop: threading.Event = field(default_factory=threading.Event)
    log: Callable[..., None] = lambda _event, **_fields: None
    count: Callable[[str, Sequence[str], int], None] = lambda _outcome, _divergences, _published: None
    alive: Callable[[], None] = lambda: None

    def claim(self, source_id: UUID | None = None) -> Claim | None:
        """Claim a due, unclaimed source, or the source with the given id even if it is not due.

        Returns None if no such source is free.
        """
        self.crash_expired()
        with self.database.as_mirror() as tx:
            return source_queue.claim(tx, source_id)

    def crash_expired(self) -> None:
        """Record and log the crashes of workers whose leases expired during a sync."""
        with self.database.as_mirror() as tx:
            crashed = source_queue.crash_expired(tx)
        for one in crashed:
            self._log_crash(one)

    def crash(self, claim: Claim, reason: str) -> None:
        """Record that the process that synced `claim` exited or was killed before it finished."""
        with self.database.as_mirror() as tx:
            crashed = source_queue.crash(tx, claim, reason)
        if crashed is not None:
            self._log_crash(crashed)

    def release(self, claim: Claim) -> None:
        """Release an unfinished claim, so that the next worker can take it."""
        with self.database.as_mirror() as tx:
            source_queue.release(tx, claim)

    def sync(self, claim: Claim, progress: Progress | None = None) -> Result:
        """Sync a claimed source and record the result, or the error with its message.

        Raises `unavailable` if Postgres does not answer or the worker is shutting down.
        """
        started = time.monotonic()
        with self.database.as_mirror() as tx:
            project = catalog.project_by_id(tx, claim.project_id)
            job = Job(
                source_id=claim.id,
                url=claim.url,
                layout=Layout(claim.layout),
                direction=Direction(claim.direction),
                synced=claim.synced,
                others=frozenset(map(address_of, claim.others)),
                seen=claim.synced.select(source_queue.upstream_refs(tx, claim)),
                known=claim.synced.select(divergences.known(tx, claim.id)),
                full=claim.full_sync,
                activate_invalid=catalog.activates_invalid(tx, claim.project_id),
            )
        if project is None:  # deleted, with its sources, since the claim
            return Result()
        try:
            with self.holding(claim):
                result = self._run(claim, job, project, progress or partial(self._log_progress, project, job))
        except StoppingError:
            self.release(claim)
            raise
        except MemoryError:  # the process reached its memory limit and has to end
            raise
        except GitstoreError as error:
            result = Result(seen=dict(job.seen), untouched=set(job.known), error=error)
        except Exception as error:  # any failure is recorded, so that the source is retried
            self.log("sync_failed", level="error", project=project.slug, source=job.label, exc_info=True)
            failure = GitstoreError(Code.INTERNAL, f"internal error ({type(error).__name__})")
            result = Result(seen=dict(job.seen), untouched=set(job.known), error=failure)
        diverged = self._record(claim, job, result)
        outcome = result.error.code.value if result.error is not None else "ok"
        published = sum(len(numbers) for numbers in result.published.values())
        self.count(outcome, [one.code for one in diverged], published)
        self._log_result(project, job, result, diverged, started)
        return result

    def _run(self, claim: Claim, job: Job, project: Project, progress: Progress) -> Result:
        login = sources.opened_credential(self.sealer, claim.id, claim.sealed_credential)
        origin = Origin(job.label, job.label, "worker")
        size = self.limits.pack + _SLACK
        try:
            with (
                self.egress.git_pool(
                    seconds=EXCHANGE_SECONDS, most_bytes=size, stall=STALL_SECONDS, first=REFS_SIZE
                ) as pool,
                self.open_store(project, origin) as store,
            ):
                sync = Sync(job, store, self.limits, check=self._check, progress=progress)
                connect = partial(Remote, explain=pool.explain, advertised=pool.budget.allow_all)
                return sync.run(lambda: connect(claim.url, pool, login))
        except GitstoreError as error:
            if login is not None and login.password in error.message:  # echoed by the upstream
                raise error.reworded(error.message.replace(login.password, "***")) from error
            raise

    def _check(self) -> None:
        self.alive()
        if self.stop.is_set():
            raise StoppingError

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[None]:
        """Renew the lease until the block ends."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(RENEW_SECONDS):
                try:
                    with self.database.as_mirror() as tx:
                        source_queue.renew(tx, claim)
                except GitstoreError:
                    continue  # a lost lease is harmless, since a sync is idempotent

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    # Recording the result

    def _record(self, claim: Claim, job: Job, result: Result) -> list[Detected]:
        """Record the result in one transaction. Return the new divergences.

        Nothing is recorded if the source was deleted or another worker holds its lease.
        """
        at = now()
        report = {**result.report, "at": at.isoformat()} if result.report else None
        pause = min(_FIRST_PAUSE * 2.0 ** min(claim.failures, 20), _LONGEST_PAUSE)
        pause *= random.uniform(0.9, 1.1)  # noqa: S311 - jitter
        with self.database.as_mirror() as tx:
            if not source_queue.holds(tx, claim):
                return []
            source_queue.record_upstream_refs(tx, claim, job.seen, result.seen)
            diverged = divergences.record(
                tx, claim.project_id, claim.id, claim.url, result.diverged, result.untouched,
                {ref for ref, known in job.known.items() if known.decision}, at,
            )  # fmt: skip
            source_queue.done(tx, claim, report, result.error, pause)
        return diverged

    def _log_result(
        self, project: Project, job: Job, result: Result, diverged: list[Detected], started: float
    ) -> None:
        log, about = self.log, {"project": project.slug, "principal": job.label}
        for slug, numbers in result.published.items():
            for number in numbers:
                log("published", **about, workflow=slug, version=number, door="source")
        for slug, runs in result.gaps.items():
            log("gaps", level="warning", **about, workflow=slug, missing=[f"v{a}-v{b}" for a, b in runs])
        for slug in result.saved:
            log("saved", **about, workflow=slug, door="source")
        for one in diverged:
            log(
                "diverged", level="warning", **about, workflow=one.target.slug, version=one.number,
                ref=one.ref, code=one.code, reason=one.reason,
            )  # fmt: skip
        duration = round((time.monotonic() - started) * 1000, 1)
        if result.error is not None:
            code, why = result.error.code.value, result.error.message
            log("sync_failed", level="warning", **about, code=code, reason=why, duration_ms=duration)
        elif result.report is not None or diverged:
            log("synced", **about, pushed=result.pushed or None, duration_ms=duration)

    def _log_crash(self, one: Crashed) -> None:
        self.count("crashed", [], 0)
        self.log(
            "source_poisoned" if one.poisoned else "sync_crashed", level="error", project=one.project,
            source=str(one.id), url=one.url, crashes=one.crashes, reason=one.last_error,
        )  # fmt: skip

    def _log_progress(self, project: Project, job: Job, done: int, total: int) -> None:
        if total > 1:
            self.log("importing", project=project.slug, source=job.label, done=done, total=total)


def import_limits(limits: Limits, size: int) -> Limits:
    """Return the limits of an import with a pack of up to `size` bytes.

    The limits of definitions are unchanged; those of packs, objects and memory are raised.
    """
    return replace(
        limits,
        pack=size,
        inflated=4 * size,
        object=max(limits.object, size // 8),
        pack_objects=5_000_000,
        memory=max(limits.memory, min(size, 768 * 2**20)),
    )


class SyncLoop(LeaseLoop[Claim]):
    """Loop that syncs due sources, several at a time.

    `sync` replaces the sync in this process; `sync_is_stuck` returns whether it hangs beyond its own limits.
    """

    def __init__(
        self,
        syncs: SourceSync,
        *,
        sync: Callable[[Claim], object] | None = None,
        sync_is_stuck: Callable[[], bool] = lambda: False,
        quick: int = QUICK,
        slow: int = SLOW,
        slow_seconds: float = _SLOW_SECONDS,
        beat: Beat = no_beat,
        report: Report = no_report,
    ) -> None:
        super().__init__(
            syncs.database,
            sources.CHANNEL,
            syncs.stop,
            slow_seconds=slow_seconds,
            beat=beat,
            report=report,
        )
        self._syncs = syncs
        self._sync = sync or syncs.sync
        self._sync_is_stuck = sync_is_stuck
        self._quick, self._slow = quick, slow
        self._events: queue.SimpleQueue[UUID] = queue.SimpleQueue()
        self._polled: set[UUID] = set()

    def tick(self) -> float:
        self._push_events()
        self._syncs.crash_expired()
        while True:
            self.beat()
            progress = self.progress()
            lanes = Lanes(
                quick=len(progress.quick) < self._quick,
                slow=len(progress.slow) < self._slow,
                known_slow=progress.known_slow,
            )
            # A running sync leaves its lane, without an event, once it counts as slow.
            clock = time.monotonic()
            waits = [max(one.started + self._slow_seconds - clock, 0.05) for one in progress.quick]
            pause = min([POLL_SECONDS, *waits])
            if not (lanes.quick or lanes.slow):
                return pause
            with self._syncs.database.as_mirror() as tx:
                claim = source_queue.claim(tx, lanes=lanes)
                next_in = source_queue.seconds_to_next(tx) if claim is None else None
            if claim is None:
                return pause if next_in is None else min(max(next_in, 0.05), pause)
            self.start([claim])

    def work(self, lease: Claim) -> None:
        with suppress(StoppingError):
            self._sync(lease)

    def release(self, leases: Sequence[Claim]) -> None:
        for claim in leases:
            self._syncs.release(claim)

    def is_stuck(self) -> bool:
        return self._sync_is_stuck()

    def notified(self, payload: str) -> None:
        """Keep the id of an event to push. The payload is empty for a due source."""
        with suppress(ValueError):
            self._events.put(UUID(payload))

    def polled(self) -> None:
        """Keep the ids of recent events to push that were not polled before."""
        with suppress(GitstoreError), self._syncs.database.as_mirror() as tx:
            recent = set(source_queue.recent_events(tx))
            for event in recent - self._polled:
                self._events.put(event)
            self._polled = recent

    def _push_events(self) -> None:
        ids = []
        while not self._events.empty():
            ids.append(self._events.get())
        if ids:
            with self._syncs.database.as_mirror() as tx:
                source_queue.push_due(tx, ids)
