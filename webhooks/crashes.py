"""When work that ends its process is given up: the limits and the words that sources and deliveries share.

A crash is a process that ended, or was killed, in the middle of the work: it hung, or needed more memory or
CPU time than it may have. A failure that was recorded is none, and ends a run of crashes.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 3
"""Crashes in a row after which a source or a delivery is given up."""
PAUSE_SECONDS: Final = 60.0
"""Before the second retry, and so much longer before each one after it. The first follows at once."""
WORKER_ENDED: Final = "the worker was killed or stopped responding during this work"


def given_up(reason: str, way_out: str) -> str:
    """Return the reason of a source or a delivery that is given up."""
    return f"{reason}; given up after {MOST} crashes in a row: {way_out}"
