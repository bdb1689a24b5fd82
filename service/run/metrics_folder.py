"""The folder in which the processes of one `gitstore serve` count together (see service/metrics.py).

Counting must be cheap, so it is on this machine, not on a data folder that may be another's. Each service
has a new one, and holds a lock in it: what a killed one left behind is told by that lock, and removed.
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
    """An empty folder, for nobody else to read, that goes with the block."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody else's, or somebody else was faster
            _remove_unless_held(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    # Under another name until it is held: a lock that is there and free is that of a dead one.
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
