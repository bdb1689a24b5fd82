"""Kill this process when its parent dies (PR_SET_PDEATHSIG), even by `kill -9`."""

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
    """Kill this process at once when `parent` (its pid) dies. A child calls this at its own start.

    Where supported, the kernel sends a signal; the setting survives exec but not fork. SIGKILL: work that a
    crash of the parent leaves unfinished is recovered by the next process, as after any crash.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), name="lifeline", daemon=True).start()
    # The parent may have died before the request.
    _end_unless_child_of(parent)


def _watch(parent: int) -> None:
    while True:
        _end_unless_child_of(parent)
        time.sleep(_LOOK_SECONDS)


def _end_unless_child_of(parent: int) -> None:
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
