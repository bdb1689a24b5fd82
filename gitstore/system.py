"""Primitives of the operating system: the time, file locks, waiting."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime


def now() -> datetime:
    return datetime.now(UTC)


def rfc3339(moment: datetime, timespec: str = "auto") -> str:
    """Format a time in UTC with a trailing Z; `timespec` is that of `datetime.isoformat`."""
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def try_lock(handle: int, how: int = fcntl.LOCK_EX) -> bool:
    """Take a flock(2) on an open file, and return True, unless another process holds it.

    The kernel releases the lock when the file is closed, or the process ends.
    """
    with suppress(BlockingIOError):
        fcntl.flock(handle, how | fcntl.LOCK_NB)
        return True
    return False


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.01) -> bool:
    """Wait until the condition holds, for at most `seconds`; return whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
