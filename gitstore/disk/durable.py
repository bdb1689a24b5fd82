"""What it takes for a file to be there after a power cut: fsync of the file and of its folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dulwich.file import _GitFile


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush(file: BinaryIO) -> None:
    """Make what was written to `file` durable."""
    file.flush()
    os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, each durable in its own parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):  # somebody else made it just now
        folder.mkdir()
    fsync_folder(folder.parent)


def release(lock: _GitFile) -> None:
    """Let go of a lock file that was not renamed into place; no effect on one that was.

    On a full disk, dulwich's own abort fails on what it has not written yet, and leaves the lock for ever.
    """
    try:
        lock.abort()
    except OSError:
        lock._closed = True
        Path(os.fsdecode(lock._lockfilename)).unlink(missing_ok=True)
