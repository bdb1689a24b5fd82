"""The unit of work of a write as an interface, and one that needs no database.

Every ref write happens inside `UnitOfWork.begin`. With Postgres, `sync/unit_of_work.py` implements it by
advisory locks, which hold across machines, in the transaction that carries the rows: leaving the block
mirrors the changes and commits.

In addition, every writer holds a shared flock(2) (`shared_lock`) on one file of the repository, which the
kernel releases however the process ends. A process that holds that file exclusively can therefore treat
every ref lock file as stale.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final, Protocol

from gitstore import pending
from gitstore.errors import BusyError, TooLargeError
from gitstore.repository import Repository, WritableRepository
from gitstore.system import try_lock, wait_until

WRITERS: Final = "gitstore-writers"
"""The file in a repository on which all its writers hold a shared lock."""
MOST_WORKFLOWS: Final = 200
"""Workflows that one write may lock; each lock takes an entry in Postgres' lock table."""
EXCLUSIVE_PATIENCE: Final = 0.2
"""Seconds that one attempt waits for the exclusive lock; new writers queue behind it during that time."""
_PATIENCE: Final = 10.0  # seconds, equal to the lock timeout of Postgres


class UnitOfWork(Protocol):
    """Units of work on one repository, one after the other."""

    def begin(self, slugs: Collection[str], release: str | None = None) -> AbstractContextManager[None]:
        """Lock the workflows `slugs` against all other writers, and the repository against maintenance.

        `release` is the name of a release that is locked as well. What is pending on them is complete. The
        end of the block carries out what the block decided (gitstore/pending.py) and commits, also after an
        exception: a part of the write may be in Git.
        """
        ...

    def maintenance(self) -> AbstractContextManager[None]:
        """Lock the repository against all writers. Raises `busy` if writers left no gap for it."""
        ...


MakeUnitOfWork = Callable[[Repository], UnitOfWork]


class FileUnitOfWork:
    """`UnitOfWork` for one machine without a database: one flock(2) for the whole repository.

    Deliberately coarse: a store without Postgres is a single-user tool.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._path = repository.path / "gitstore.lock"
        self._writers = repository.path / WRITERS

    @contextmanager
    def begin(self, slugs: Collection[str], release: str | None = None) -> Iterator[None]:  # noqa: ARG002
        with _held(self._path, fcntl.LOCK_EX), shared_lock(self._writers):
            self._complete()
            try:
                with self._repository.refs.cached_reads():
                    yield
            finally:
                self._complete()

    def _complete(self) -> None:
        if pending.is_any(self._repository):
            with closing(WritableRepository.of(self._repository)) as repository:
                for operation in pending.listed(repository):
                    pending.carry_out(repository, operation)
                    pending.conclude(repository, operation)

    @contextmanager
    def maintenance(self) -> Iterator[None]:
        with _held(self._path, fcntl.LOCK_EX), exclusive_lock(self._writers):
            yield


def shared_lock(path: Path) -> AbstractContextManager[None]:
    """Take the shared writer lock until the block or the process ends. Raises `busy`."""
    return _held(path, fcntl.LOCK_SH, _PATIENCE)


def exclusive_lock(path: Path) -> AbstractContextManager[None]:
    """Take the exclusive writer lock once all shared holders have left. Raises `busy` soon: writers wait."""
    return _held(path, fcntl.LOCK_EX, EXCLUSIVE_PATIENCE)


def check_count(workflows: int) -> None:
    """Raise `too_large` if one write would lock more than MOST_WORKFLOWS."""
    if workflows > MOST_WORKFLOWS:
        raise TooLargeError(
            f"an atomic push changes at most {MOST_WORKFLOWS} workflows, and this one names {workflows}: "
            "push without --atomic, or in several pushes",
            limit=MOST_WORKFLOWS,
        )


@contextmanager
def _held(path: Path, how: int, patience: float | None = None) -> Iterator[None]:
    """Hold a lock on `path`; wait without limit, or for `patience` seconds if given."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if patience is None:
            fcntl.flock(handle, how)
        elif not wait_until(lambda: try_lock(handle, how), patience):
            raise BusyError("another process holds the repository's lock: try again")
        yield
    finally:
        os.close(handle)
