"""Heartbeat of a waiting loop: one beat before each wait, and at least one every two seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

BEAT_SECONDS: Final = 2.0

Beat = Callable[[], None]
"""Callback that records that the calling loop is alive."""


def silent() -> None:
    """Do nothing: the heartbeat of an unsupervised loop."""


def wait(event: threading.Event, seconds: float, beat: Beat) -> None:
    """Wait for `event`, for at most `seconds`, with heartbeats. Call it in the loop's own thread."""
    deadline = time.monotonic() + seconds
    while True:
        beat()
        left = deadline - time.monotonic()
        if left <= 0 or event.wait(min(left, BEAT_SECONDS)):
            return
