"""The lock that a writer holds, as an interface, and the file lock for a store that stands alone.

Every write of a ref happens inside `Locks.writing`. With Postgres, `sync/unit_of_work.py` implements it by
advisory locks that hold across machines, in the transaction that carries the rows: leaving the block
mirrors what was written and commits.

Beside its lock, every writer is `present`: it shares flock(2) on one file of the repository, which the kernel
lets go of when the writer dies, however it dies. Who has that file alone knows that no ref's lock file has
an owner.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol

from gitstore.errors import Code, GitstoreError

WRITERS: Final = "gitstore-writers"
"""The file in a repository that all who write to it share."""
MOST_WORKFLOWS: Final = 200
"""Workflows that one write may lock; each lock takes a place in Postgres' lock table."""
EXCLUSIVE_PATIENCE: Final = 0.2
"""Seconds that one attempt waits for the whole repository: new writers queue behind it meanwhile."""
_PATIENCE: Final = 10.0  # seconds, as long as for a lock of Postgres
_PAUSE: Final = 0.01


class Locks(Protocol):
    """Who may write to which workflows of one project, one at a time."""

    def writing(self, slugs: Collection[str]) -> AbstractContextManager[None]:
        """Hold the workflows `slugs` against every other writer, and the repository against maintenance."""
        ...

    def maintenance(self) -> AbstractContextManager[None]:
        """Hold the repository against every writer. Raises `busy` where writers left no time for it."""
        ...


class FileLocks:
    """`Locks` for one machine and no database: one flock(2) for the repository.

    Coarse on purpose: a store without Postgres is a tool on somebody's desk.
    """

    def __init__(self, repository: Path) -> None:
        self._path = repository / "gitstore.lock"
        self._writers = repository / WRITERS

    @contextmanager
    def writing(self, slugs: Collection[str]) -> Iterator[None]:  # noqa: ARG002 - all of them
        with _held(self._path, fcntl.LOCK_EX), present(self._writers):
            yield

    @contextmanager
    def maintenance(self) -> Iterator[None]:
        with _held(self._path, fcntl.LOCK_EX), alone(self._writers):
            yield


def present(path: Path) -> AbstractContextManager[None]:
    """Be one of those who write, for as long as the block or the process lasts. Raises `busy`."""
    return _held(path, fcntl.LOCK_SH, _PATIENCE)


def alone(path: Path) -> AbstractContextManager[None]:
    """Be the only one, once all who are `present` have left. Raises `busy`, soon: writers wait meanwhile."""
    return _held(path, fcntl.LOCK_EX, EXCLUSIVE_PATIENCE)


def check_count(workflows: int) -> None:
    """Raise `too_large` where one write would lock more than MOST_WORKFLOWS."""
    if workflows > MOST_WORKFLOWS:
        raise GitstoreError(
            Code.TOO_LARGE,
            f"an atomic push changes at most {MOST_WORKFLOWS} workflows, and this one names {workflows}: "
            "push without --atomic, or in several pushes",
            limit=MOST_WORKFLOWS,
        )


@contextmanager
def _held(path: Path, how: int, patience: float | None = None) -> Iterator[None]:
    """Hold `path`, waited for in turn, or for as many seconds as there is `patience`."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if patience is None:
            fcntl.flock(handle, how)
        else:
            _wait_for(handle, how, time.monotonic() + patience)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int, how: int, deadline: float) -> None:
    while not _taken(handle, how):
        if time.monotonic() > deadline:
            raise GitstoreError(Code.BUSY, "another process has been at it for too long: try again")
        time.sleep(_PAUSE)


def _taken(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
