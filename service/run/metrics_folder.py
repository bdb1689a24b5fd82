"""Folder in which the processes of one `gitstore serve` share their counters (see service/metrics.py).

Counting must be cheap, so the folder is on this machine, not on a data folder that may be remote. Each
service has a new one, and holds a lock in it: a folder left by a killed service is recognised by its free
lock, and removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "gitstore-metrics-"
_LOCK: Final = "lock"


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """Yield an empty folder, accessible to this user only, which is removed after the block."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or already removed by another process
            _remove_unless_held(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    # Under another name until it is locked: a folder with a free lock is that of a dead service.
    made = folder / f"new-{_LOCK}"
    handle = os.open(made, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        made.rename(folder / _LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _remove_unless_held(folder: Path) -> None:
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(handle)
