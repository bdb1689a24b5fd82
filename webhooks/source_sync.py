"""Synchronization of due sources, each by the first worker that claims it.

    claim (a lease) -> sync (webhooks/ref_sync.py), outside any transaction -> record, in one transaction

A source is due when its poll interval has elapsed, when its webhook was received, when a local event has to
be pushed to it, or on request. A webhook received during a sync makes the source due again right after it.
The lease of a killed worker expires within a minute. A failed sync is retried at increasing intervals.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

from gitstore.errors import Code, GitstoreError
from gitstore.model import Limits
from gitstore.store import Store
from gitstore.system import now
from gitstore.upstream.importer import Layout
from gitstore.upstream.remote import Remote
from sync import catalog
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database, Transaction
from webhooks import divergences, source_leases, sources
from webhooks.divergences import Found
from webhooks.egress import Egress
from webhooks.ref_sync import Job, Progress, Result, Sync
from webhooks.secrets import Sealer
from webhooks.source_leases import Claim, Crashed
from webhooks.sources import Direction

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

OpenStore = Callable[[Project, Origin], AbstractContextManager[Store]]
"""Callback that opens a project's Store whose writes are mirrored."""


@dataclass(frozen=True, slots=True)
class Means:
    """The dependencies of a sync.

    `tell` writes a log line. `count` updates the metrics with the outcome ("ok", "crashed" or an error code)
    and the codes of new divergences. `limits` apply to imports. `alive` is called at each step of a sync.
    """

    database: Database
    open_store: OpenStore
    egress: Egress
    sealer: Sealer
    limits: Limits
    tell: Callable[..., None] = lambda _event, **_facts: None
    count: Callable[[str, Sequence[str], int], None] = lambda _outcome, _divergences, _published: None
    alive: Callable[[], None] = lambda: None
    clock: Callable[[], datetime] = now
    dice: Callable[[], float] = random.random


class StoppingError(GitstoreError):
    """The worker is shutting down. The source in progress is left to the next worker."""

    def __init__(self) -> None:
        super().__init__(Code.UNAVAILABLE, "gitstore is stopping")


class SourceSync:
    """Synchronization of one source per call. Safe to share between threads."""

    def __init__(self, means: Means, stop: threading.Event) -> None:
        self._means = means
        self._stop = stop

    def claim(self, source_id: UUID | None = None) -> Claim | None:
        """Claim a due, unclaimed source, or the source with the given id even if it is not due.

        Returns None if no such source is free.
        """
        self.note_ended_leases()
        with self._means.database.as_mirror() as tx:
            return source_leases.claim(tx, source_id)

    def note_ended_leases(self) -> None:
        """Record and log the crashes of workers whose leases expired during a sync."""
        with self._means.database.as_mirror() as tx:
            ended = source_leases.leases_ended(tx)
        for one in ended:
            self._tell_crash(one)

    def is_stuck(self) -> bool:
        """Return whether a sync hangs in a way that none of its limits can end."""
        return False

    def record_crash(self, claim: Claim, reason: str) -> None:
        """Record that the process that synced `claim` exited or was killed before it finished."""
        with self._means.database.as_mirror() as tx:
            one = source_leases.crashed(tx, claim, reason)
        if one is not None:
            self._tell_crash(one)

    def release(self, claim: Claim) -> None:
        """Release an unfinished claim, so that the next worker can take it."""
        with self._means.database.as_mirror() as tx:
            source_leases.release(tx, claim)

    def sync(self, claim: Claim, progress: Progress | None = None) -> Result:
        """Sync a claimed source and record the result, or the error with its message.

        Raises `unavailable` if Postgres does not answer or the worker is shutting down.
        """
        started = time.monotonic()
        with self._means.database.as_mirror() as tx:
            project = catalog.project_by_id(tx, claim.project_id)
            job = _job(tx, claim)
        if project is None:  # deleted, with its sources, since the claim
            return Result()
        try:
            with self.holding(claim):
                result = self._run(claim, job, project, progress or self._teller(project, job))
        except StoppingError:
            self.release(claim)
            raise
        except MemoryError:  # the process reached its memory limit and has to end
            raise
        except GitstoreError as error:
            result = Result(seen=dict(job.seen), untouched=set(job.known), error=error)
        except Exception as error:  # any failure is recorded, so that the source is retried
            self._means.tell(
                "sync_failed", level="error", project=project.slug, source=job.label, exc_info=True
            )
            failure = GitstoreError(Code.INTERNAL, f"something went wrong here ({type(error).__name__})")
            result = Result(seen=dict(job.seen), untouched=set(job.known), error=failure)
        news = self._finish(claim, job, result)
        outcome = result.error.code.value if result.error is not None else "ok"
        published = sum(len(numbers) for numbers in result.published.values())
        self._means.count(outcome, [one.code for one in news], published)
        self._tell(project, job, result, news, started)
        return result

    def _run(self, claim: Claim, job: Job, project: Project, progress: Progress) -> Result:
        means = self._means
        login = sources.opened_credential(means.sealer, claim.id, claim.sealed_credential)
        origin = Origin(job.label, job.label, "worker")
        size = means.limits.pack + _SLACK
        try:
            with (
                means.egress.git_pool(
                    seconds=EXCHANGE_SECONDS, most_bytes=size, stall=STALL_SECONDS, first=REFS_SIZE
                ) as pool,
                means.open_store(project, origin) as store,
            ):
                sync = Sync(job, store, means.limits, check=self._check, progress=progress)
                connect = partial(Remote, claim.url, pool, login, explain=pool.explain, advertised=pool.go_on)
                return sync.run(connect)
        except GitstoreError as error:
            if login is not None and login.password in error.message:  # echoed by the upstream
                raise error.reworded(error.message.replace(login.password, "***")) from error
            raise

    def _check(self) -> None:
        self._means.alive()
        if self._stop.is_set():
            raise StoppingError

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[None]:
        """Renew the lease until the block ends."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(RENEW_SECONDS):
                try:
                    with self._means.database.as_mirror() as tx:
                        source_leases.renew(tx, claim)
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

    def _finish(self, claim: Claim, job: Job, result: Result) -> list[Found]:
        """Record the result in one transaction. Return the new divergences.

        Nothing is recorded if the source was deleted or another worker holds its lease.
        """
        report = {**result.report, "at": self._means.clock().isoformat()} if result.report else None
        with self._means.database.as_mirror() as tx:
            if not source_leases.holds(tx, claim):
                return []
            source_leases.see(tx, claim, job.seen, result.seen)
            news = divergences.record(
                tx, claim.project_id, claim.id, claim.url, result.found, result.untouched,
                {ref for ref, known in job.known.items() if known.decision}, self._means.clock(),
            )  # fmt: skip
            source_leases.done(tx, claim, report, result.error, self._pause(claim.failures))
        return news

    def _pause(self, failures: int) -> float:
        """Return the seconds until the next retry, after `failures` consecutive earlier failures."""
        pause = min(_FIRST_PAUSE * 2.0 ** min(failures, 20), _LONGEST_PAUSE)
        return pause * (0.9 + 0.2 * self._means.dice())

    def _tell(self, project: Project, job: Job, result: Result, news: list[Found], started: float) -> None:
        tell, about = self._means.tell, {"project": project.slug, "principal": job.label}
        for slug, numbers in result.published.items():
            for number in numbers:
                tell("published", **about, workflow=slug, version=number, door="source")
        for slug, runs in result.gaps.items():
            tell("gaps", level="warning", **about, workflow=slug, missing=[f"v{a}-v{b}" for a, b in runs])
        for slug in result.saved:
            tell("saved", **about, workflow=slug, door="source")
        for one in news:
            tell(
                "diverged", level="warning", **about, workflow=one.target.slug, version=one.number,
                ref=one.ref, code=one.code, reason=one.reason,
            )  # fmt: skip
        duration = round((time.monotonic() - started) * 1000, 1)
        if result.error is not None:
            code, why = result.error.code.value, result.error.message
            tell("sync_failed", level="warning", **about, code=code, reason=why, duration_ms=duration)
        elif result.report is not None or news:
            tell("synced", **about, pushed=result.pushed or None, duration_ms=duration)

    def _tell_crash(self, one: Crashed) -> None:
        self._means.count("crashed", [], 0)
        self._means.tell(
            "source_poisoned" if one.poisoned else "sync_crashed", level="error", project=one.project,
            source=str(one.id), url=one.url, crashes=one.crashes, reason=one.last_error,
        )  # fmt: skip

    def _teller(self, project: Project, job: Job) -> Progress:
        """Return a callback that logs progress, with a few lines at most per hundred refs."""

        def tell(done: int, total: int) -> None:
            if total > 1:
                self._means.tell("importing", project=project.slug, source=job.label, done=done, total=total)

        return tell


def _job(tx: Transaction, claim: Claim) -> Job:
    return Job(
        source_id=claim.id,
        url=claim.url,
        layout=Layout(claim.layout),
        direction=Direction(claim.direction),
        seen=source_leases.seen(tx, claim),
        known=divergences.known(tx, claim.id),
        full=claim.full_sync,
    )


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
