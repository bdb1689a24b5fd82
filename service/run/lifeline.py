"""A child that ends with its parent, however the parent ends: `kill -9` gives it no time to say so."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_LOOK_SECONDS: Final = 0.5


def die_with_parent(parent: int) -> None:
    """End this process, at once, when `parent` (its pid) has ended. For a child to call at its own start.

    The kernel tells by a signal where it can, which is kept across exec and not across fork. SIGKILL: what
    a crash of the parent leaves undone is made good by whoever comes next, as after any crash.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), name="lifeline", daemon=True).start()
    # It may have ended before we asked.
    _end_unless_child_of(parent)


def _watch(parent: int) -> None:
    while True:
        _end_unless_child_of(parent)
        time.sleep(_LOOK_SECONDS)


def _end_unless_child_of(parent: int) -> None:
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
