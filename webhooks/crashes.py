"""Limits and messages, shared by sources and deliveries, for abandoning work that crashes its process.

A crash is a process that exited or was killed during the work, because it hung or exceeded its limit of
memory or CPU time. A recorded failure is not a crash and resets the count of consecutive crashes.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 3
"""Consecutive crashes after which a source or a delivery is abandoned."""
PAUSE_SECONDS: Final = 60.0
"""Delay before the second retry; each later retry adds this again. The first retry is immediate."""
WORKER_ENDED: Final = "the worker was killed or stopped responding during this work"


def given_up(reason: str, way_out: str) -> str:
    """Return the reason that is stored with an abandoned source or delivery."""
    return f"{reason}; given up after {MOST} crashes in a row: {way_out}"
