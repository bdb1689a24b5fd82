"""Guard of packed-refs.lock, git's lock of the file packed-refs.

git's lock file does not identify its owner, and packing refs can take minutes on a slow volume. If the lock
is removed while its owner lives, a second git packs the refs written since and deletes their files; the
first one then replaces packed-refs by a file without them, and they are lost. Therefore each git that may
take the lock inherits a shared flock(2), which lasts until the last process that has it ends, and a sweep
removes the lock file only while it holds that flock exclusively.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from gitstore.errors import BusyError
from gitstore.git.process import command, environment
from gitstore.system import try_lock, wait_until

_FILE: Final = "gitstore-packed-refs"
_PATIENCE: Final = 3.0  # seconds; a sweep holds the guard for milliseconds


def run(
    repository: Path, *arguments: str, config: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a git command that may rewrite packed-refs, under the guard. Raises `busy` during a long sweep."""
    handle = _open(repository)
    try:
        if not wait_until(partial(try_lock, handle, fcntl.LOCK_SH), _PATIENCE):
            raise BusyError("files that killed processes left are being removed: try again")
        return subprocess.run(
            command(repository, *arguments, config=config),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env=environment(),
            pass_fds=[handle],
        )
    finally:
        os.close(handle)


@contextmanager
def idle(repository: Path) -> Iterator[bool]:
    """Keep runs from beginning within the block. Yield False if one is in progress."""
    handle = _open(repository)
    try:
        yield try_lock(handle)
    finally:
        os.close(handle)


def _open(repository: Path) -> int:
    return os.open(repository / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
