"""Maintenance by the worker besides mirroring: cleanup after killed processes, git's gc, and retention.

The first two work on one repository; the caller adds its project to every log line. A failure of one stops
neither the other nor the mirror: work that is blocked by another process is done at the next run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from dulwich.file import FileLocked

from gitstore.errors import GitstoreError, UnavailableError
from gitstore.git.cleanup import sweep
from gitstore.git.maintenance import collect, due
from gitstore.git.packed_refs import packed_refs_damaged, repair_packed_refs
from gitstore.system import now
from service import logs
from service.logs import Event
from sync.db import Database
from sync.unit_of_work import MirrorUnitOfWork
from webhooks.retention import prune

GC_SECONDS: Final = 86_400.0


def tidy(writes: MirrorUnitOfWork, *, everything: bool) -> None:
    """Clean up: after the writes that markers record as unfinished, or `everything`. Raises `unavailable`."""
    path = writes.repository.path
    slugs = None if everything else list(writes.markers.pending())
    try:
        swept = sweep(path, writes.maintenance, time.time(), slugs)
        if swept:
            logs.action(Event.LEFTOVERS_REMOVED, files=[str(one.relative_to(path)) for one in swept[:20]])
        if everything and packed_refs_damaged(path):
            with writes.maintenance():
                kept = repair_packed_refs(path, f"{now():%Y%m%dT%H%M%S%f}")
            if kept is not None:
                advice = "git could read none of it: run gitstore repair"
                logs.action(Event.PACKED_REFS_REPAIRED, level="error", kept=kept.name, advice=advice)
    except (GitstoreError, OSError, FileLocked) as error:
        _go_on(error, Event.LEFTOVERS_FAILED)


def collect_garbage(writes: MirrorUnitOfWork, stopping: Callable[[], bool]) -> None:
    """Run git's maintenance if a day has passed since the last run. Raises `unavailable`."""
    path = writes.repository.path

    def check() -> None:
        if stopping():
            raise _StopError

    if not due(path, time.time(), GC_SECONDS):
        return
    try:
        done = collect(path, writes, check=check)
    except _StopError:
        return
    except (GitstoreError, OSError) as error:
        _go_on(error, Event.GC_FAILED)
        return
    if done is not None:
        logs.action(
            Event.GC, pruned=done.pruned, packs=done.packs,
            duration_ms=round(done.seconds * 1000, 1),
        )  # fmt: skip


def forget_old(database: Database, days: int, stopping: Callable[[], bool]) -> None:
    """Delete deliveries that ended more than `days` ago, and old receipts. Raises `unavailable`."""
    started = time.monotonic()
    pruned = prune(database, timedelta(days=days), stopping)
    if pruned:
        logs.action(
            Event.DELIVERIES_PRUNED, deliveries=pruned.deliveries, receipts=pruned.receipts,
            held=pruned.held or None,
            duration_ms=round((time.monotonic() - started) * 1000, 1),
        )  # fmt: skip


class _StopError(Exception):
    """The worker was asked to end in the middle of a run; the work done so far is complete."""


def _go_on(error: Exception, event: Event) -> None:
    if isinstance(error, UnavailableError):
        raise error
    logs.action(event, level="warning", reason=str(error))
