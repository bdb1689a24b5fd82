"""How a loop that waits shows that it is alive: it beats before each wait, and at least every two seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

BEAT_SECONDS: Final = 2.0

Beat = Callable[[], None]
"""Notes that the loop that calls it is alive, now."""


def silent() -> None:
    """Do nothing: the beat of a loop that is not watched."""


def wait(event: threading.Event, seconds: float, beat: Beat) -> None:
    """Wait for `event`, for at most `seconds`, in the thread of the loop."""
    deadline = time.monotonic() + seconds
    while True:
        beat()
        left = deadline - time.monotonic()
        if left <= 0 or event.wait(min(left, BEAT_SECONDS)):
            return
