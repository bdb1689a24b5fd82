"""The lock that a writer holds, as an interface, and the file lock for a store that stands alone.

Every write of a ref happens inside `Locks.writing`. With Postgres, `sync/writing.py` implements it by
advisory locks that hold across machines, in the transaction that carries the rows: leaving the block
mirrors what was written and commits.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol


class Locks(Protocol):
    """Who may write to which workflows of one project, one at a time."""

    def writing(self, slugs: Collection[str]) -> AbstractContextManager[None]:
        """Hold the workflows `slugs` against every other writer, and the repository against maintenance."""
        ...


class FileLocks:
    """`Locks` for one machine and no database: one flock(2) for the repository.

    Coarse on purpose: a store without Postgres is a tool on somebody's desk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def writing(self, slugs: Collection[str]) -> Iterator[None]:  # noqa: ARG002 - all of them
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
