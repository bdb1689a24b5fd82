"""What it takes for a file to be there after a power cut: fsync of the file and of its folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from dulwich.file import _GitFile

_MANY: Final = 16  # files, below which threads cost more than they save
_AT_ONCE: Final = 8


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


def flush_all(files: Sequence[_GitFile]) -> None:
    """Make what was written to `files` durable. Of many, several at once, so that the disk may join them."""
    for file in files:
        file.flush()
    handles = [file.fileno() for file in files]
    if len(handles) < _MANY:
        _sync(handles)
    else:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(_sync, [handles[start::_AT_ONCE] for start in range(_AT_ONCE)]))


def _sync(handles: Iterable[int]) -> None:
    for handle in handles:
        os.fsync(handle)


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, each durable in its own parent."""
    make_folders([folder])


def make_folders(folders: Iterable[Path]) -> None:
    """As `make_folder`, of several: a parent that they share is synced once."""
    parents = set()
    for folder in folders:
        if not folder.is_dir():
            make_folder(folder.parent)
            with suppress(FileExistsError):  # another process made it just now
                folder.mkdir()
            parents.add(folder.parent)
    for parent in parents:
        fsync_folder(parent)


def release(lock: _GitFile) -> None:
    """Let go of a lock file that was not renamed into place; no effect on one that was.

    On a full disk, dulwich's own abort fails on what it has not written yet, and leaves the lock for ever.
    """
    try:
        lock.abort()
    except OSError:
        lock._closed = True
        Path(os.fsdecode(lock._lockfilename)).unlink(missing_ok=True)
