"""What the worker does beside mirroring: sweep what killed processes left, git's gc, forget what is old.

The first two are for a repository, whose project the caller lets every line of the log tell. Neither stops
the other, nor the mirror: what can't be done now, as somebody is at it, is done the next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from dulwich.file import FileLocked

from gitstore.errors import Code, GitstoreError
from gitstore.git.cleanup import sweep
from gitstore.git.maintenance import collect, due
from gitstore.git.recovery import mend_packed_refs, packed_refs_damaged
from service import logs
from sync.db import Database
from sync.unit_of_work import MirrorUnitOfWork
from webhooks.retention import prune

GC_SECONDS: Final = 86_400.0


def tidy(writes: MirrorUnitOfWork, *, everything: bool) -> None:
    """Sweep: after what markers say was under way, or `everything`. Raises `unavailable`."""
    path = writes.reading.path
    slugs = None if everything else list(writes.markers.pending())
    try:
        swept = sweep(path, writes.maintenance, time.time(), slugs)
        if swept:
            logs.action("swept", files=[str(one.relative_to(path)) for one in swept[:20]])
        if everything and packed_refs_damaged(path):
            with writes.maintenance():
                kept = mend_packed_refs(path, f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
            if kept is not None:
                advice = "git could read none of it: run gitstore repair"
                logs.action("packed_refs_mended", level="error", kept=kept.name, advice=advice)
    except (GitstoreError, OSError, FileLocked) as error:
        _go_on(error, "sweep_failed")


def collect_garbage(writes: MirrorUnitOfWork, stopping: Callable[[], bool]) -> None:
    """git's maintenance, where a day has passed since the last. Raises `unavailable`."""
    path = writes.reading.path

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
        _go_on(error, "gc_failed")
        return
    if done is not None:
        logs.action(
            "gc", pruned=done.pruned, packs=done.packs,
            duration_ms=round(done.seconds * 1000, 1),
        )  # fmt: skip


def forget_old(database: Database, days: int, stopping: Callable[[], bool]) -> None:
    """Deliveries that ended more than `days` ago, and receipts. Raises `unavailable`."""
    started = time.monotonic()
    pruned = prune(database, timedelta(days=days), stopping)
    if pruned:
        logs.action(
            "forgotten", deliveries=pruned.deliveries, receipts=pruned.receipts, held=pruned.held or None,
            duration_ms=round((time.monotonic() - started) * 1000, 1),
        )  # fmt: skip


class _StopError(Exception):
    """The worker is asked to end, in the middle of a run; what was done so far is complete."""


def _go_on(error: Exception, what: str) -> None:
    if isinstance(error, GitstoreError) and error.code is Code.UNAVAILABLE:
        raise error
    logs.action(what, level="warning", reason=str(error))
