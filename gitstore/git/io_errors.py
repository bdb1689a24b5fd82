"""Translate a full or failing disk to `unavailable`; no other module has that rule.

An OSError is translated at the boundary of a request or a command (service/errors.py). git's messages about
the same faults are recognized here, too, since its processes use the same disk.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from gitstore.errors import GitstoreError, UnavailableError

RETRY_AFTER: Final = 30  # seconds: people have to free the space

_FAULTS: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow any further",
    errno.EIO: "the disk reports an error",
    errno.EROFS: "the disk is read-only",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.ENOMEM: "there is no memory left",
    errno.EAGAIN: "there are too many processes",
}
_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def of_system(error: BaseException | None) -> GitstoreError | None:
    """Return `unavailable` if `error`, or its cause, is a fault of the machine rather than of the program."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FAULTS:
            return unavailable(error.errno)
        if isinstance(error, MemoryError):
            return unavailable(errno.ENOMEM)
        error = error.__cause__ or error.__context__
    return None


def of_child(said: str) -> GitstoreError | None:
    """Return `unavailable` if git's error message is about the machine."""
    return next((unavailable(number) for number in _DISK if os.strerror(number) in said), None)


def unavailable(number: int) -> GitstoreError:
    return UnavailableError(
        f"{_FAULTS[number]}, where gitstore runs: try the same again later; what was written is written once",
        retry_after=RETRY_AFTER,
    )
