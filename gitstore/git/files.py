"""Durable files, and the faults of the disk that they are on.

A file and its folder are fsynced, so that both survive a power cut. A full or failing disk, or a volume that
is lost, is reported as `unavailable`, a rule that no other module has: an OSError is translated at the
boundary of a request or a command (service/errors.py), and git's messages about the same faults are
recognized here, too.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from gitstore.errors import GitstoreError, UnavailableError

RETRY_AFTER: Final = 30  # seconds: people have to free the space

_FAULTS: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file reached its size limit",
    errno.EIO: "disk I/O error",
    errno.EROFS: "the disk is read-only",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.ENOMEM: "out of memory",
    errno.EAGAIN: "too many processes",
    errno.ENOTCONN: "the volume is not mounted",
    errno.ECONNABORTED: "the volume was disconnected",
    errno.ETIMEDOUT: "the volume does not respond",
    errno.ESTALE: "an open file was lost",
}
_LOST: Final = (errno.ENOTCONN, errno.ECONNABORTED, errno.ESTALE)
_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, *_LOST)

_BLOCK: Final = 64 * 1024  # bytes; a read of a file returns fewer only at its end
_MANY: Final = 16  # files; below this number threads cost more than they save
_AT_ONCE: Final = 8


def fsync_folder(folder: Path) -> None:
    """Make the directory entries of `folder` durable."""
    handle = open_folder(folder)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Make all files and folders in `folder` durable, but not its own entry in its parent."""
    for parent, _, files in os.walk(folder):
        for name in files:
            with Path(parent, name).open("rb") as file:
                os.fsync(file.fileno())
        fsync_folder(Path(parent))


def open_folder(path: str | bytes | Path, within: int | None = None) -> int:
    """Return a descriptor of a folder; a relative `path` is that below the open folder `within`."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=within)


def read_file(path: str | bytes, within: int | None = None) -> bytes:
    """Return the content of a file, in three system calls: each may be a round trip to another machine.

    A relative `path` is that below the open folder `within`.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=within)
    try:
        content = os.read(handle, _BLOCK)
        if len(content) == _BLOCK:
            parts = [content]
            while part := os.read(handle, _BLOCK):
                parts.append(part)
            content = b"".join(parts)
        return content
    finally:
        os.close(handle)


def write_atomically(path: Path, text: str, *, replace: bool = True) -> None:
    """Write a file that only this user can read: atomically, and durably.

    Without `replace`, an existing file raises FileExistsError.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # with mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            flush(file)
        if replace:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def flush(file: BinaryIO) -> None:
    """Make the content written to `file` durable."""
    file.flush()
    os.fsync(file.fileno())


def sync_all(handles: Sequence[int]) -> None:
    """Make the content of open files durable; many are synced concurrently, so the disk can merge writes."""
    if len(handles) < _MANY:
        _sync(handles)
    else:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(_sync, [handles[start::_AT_ONCE] for start in range(_AT_ONCE)]))


def _sync(handles: Iterable[int]) -> None:
    for handle in handles:
        os.fsync(handle)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each durable in its own parent."""
    make_folders([folder])


def make_folders(folders: Iterable[Path]) -> None:
    """Create several folders as `make_folder` does; a shared parent is synced once."""
    parents = set()
    for folder in folders:
        if not folder.is_dir():
            make_folder(folder.parent)
            with suppress(FileExistsError):  # created by another process in between
                folder.mkdir()
            parents.add(folder.parent)
    for parent in parents:
        fsync_folder(parent)


def machine_fault(error: BaseException | None) -> GitstoreError | None:
    """Return `unavailable` if `error`, or its cause, is a fault of the machine rather than of the program."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FAULTS:
            return _unavailable(error.errno)
        if isinstance(error, MemoryError):
            return _unavailable(errno.ENOMEM)
        error = error.__cause__ or error.__context__
    return None


def fault_in_output(output: str) -> GitstoreError | None:
    """Return `unavailable` if git's error output is about the disk."""
    return next((_unavailable(number) for number in _DISK if os.strerror(number) in output), None)


def _unavailable(number: int) -> GitstoreError:
    message = f"{_FAULTS[number]} on the server: retry later; retrying is safe"
    return UnavailableError(message, retry_after=RETRY_AFTER)
