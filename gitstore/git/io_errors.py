"""What a disk that is full, or fails, means: `unavailable`, now and for a while. The one place that says so.

An OSError is translated where a request or a command ends (service/errors.py); what git says of the same
thing is recognized here, too, since its children meet the same disk.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from gitstore.errors import Code, GitstoreError

RETRY_AFTER: Final = 30  # seconds: room is made by people

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
    """`unavailable`, where `error`, or what caused it, is a fault of the machine and not of the program."""
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
    """`unavailable`, where git's complaint is about the machine."""
    return next((unavailable(number) for number in _DISK if os.strerror(number) in said), None)


def unavailable(number: int) -> GitstoreError:
    return GitstoreError(
        Code.UNAVAILABLE,
        f"{_FAULTS[number]}, where gitstore runs: try the same again later; what was written is written once",
        retry_after=RETRY_AFTER,
    )
