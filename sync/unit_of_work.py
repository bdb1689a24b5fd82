"""The unit of work of a write with a database: locks that hold across machines, and the rows of the write.

A Store takes a `MirrorUnitOfWork` as its `locks`. One write is one transaction of the role gitstore_mirror
around the store's own work:

    locks; rows catch up; marker; [the store writes objects, ledger, refs]; rows, events, audit; commit

The locks are advisory locks of the transaction: the repository's, shared, then each workflow's, exclusive, in
the order of their keys. One write locks at most `locks.MOST_WORKFLOWS`, since Postgres' lock table is small.
Maintenance and rebuild take the repository's lock exclusively (`exclusive`), in short attempts with pauses,
because Postgres queues every new writer behind a waiting exclusive lock. A writer that has lost its Postgres
connection may still run for a moment, so each writer also holds a shared file lock in the repository
(gitstore/locks.py).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

from gitstore import locks
from gitstore.errors import Code, GitstoreError
from gitstore.repository import Repository
from gitstore.versions import check_slug
from sync import marks, mirror
from sync.audit import WORKER, Origin
from sync.db import Database, Locks, Transaction
from sync.events import Fact
from sync.markers import Markers
from sync.mirror import MirroredState

_PASSING: Final = (Code.UNAVAILABLE, Code.BUSY)
_PAUSE: Final = 0.2  # seconds between two tries

Notify = Callable[[Sequence[Fact]], None]


class MirrorUnitOfWork:
    """`gitstore.locks.Locks` for one project. Audit rows name `origin`.

    `reading` is the Store that takes this as its locks; both share one cache of definitions. `notify` is
    called with the facts of a write after its commit. `patience` is the time in seconds for which a write
    whose rows could not follow is mirrored again before `published_not_mirrored` is raised: 0 for a push,
    which may report ok at once, and more for HTTP.
    """

    def __init__(
        self,
        database: Database,
        reading: Repository,
        origin: Origin = WORKER,
        notify: Notify | None = None,
        *,
        patience: float = 0.0,
    ) -> None:
        self.database = database
        self.reading = reading
        self.origin = origin
        self.markers = Markers(reading.path)
        self._writers = reading.path / locks.WRITERS
        self._notify = notify
        self._patience = patience

    @contextmanager
    def writing(self, slugs: Collection[str]) -> Iterator[None]:
        """Hold the locks of `slugs` for a write, and mirror it at the end.

        Raises `unavailable`, `busy` or `integrity` before anything is written, and `published_not_mirrored`
        where Git has the write and its rows could not follow. An exception of the body is raised again after
        the refs that it wrote were mirrored.
        """
        touched = [check_slug(slug) for slug in sorted(set(slugs))]
        marks: list[Path] = []
        facts: list[Fact] = []
        refusal: Exception | None = None
        begun, written = False, True
        try:
            with self._locked(touched) as (tx, mirrored_states):
                facts += self._catch_up(tx, touched, mirrored_states)
                before = [mirror.tips(self.reading, slug) for slug in touched]
                with locks.present(self._writers):
                    marks = self.markers.put(touched)
                    begun = True
                    try:
                        yield
                    except Exception as error:
                        # A part may be written: mirror it, then raise the refusal.
                        refusal = error
                self.reading.refs.invalidate()  # the body may have written without this cache
                written = before != [mirror.tips(self.reading, slug) for slug in touched]
                facts += self._converge(tx, touched, mirrored_states, self.origin)
        except Exception as error:
            if not begun:
                raise
            facts = []
            if written:
                # A writer that took over the locks of a lost connection may have removed the markers.
                self.markers.keep(marks)
                if refusal is not None:
                    raise refusal from error
                self._follow_later(touched, error)
                return
        self.markers.remove(marks)
        self._tell(facts)
        if refusal is not None:
            raise refusal

    def mirror_now(self, slugs: Collection[str], origin: Origin | None = None) -> list[Fact]:
        """Mirror the rows of `slugs` and remove their markers. Return the facts that were missing."""
        touched = sorted(set(slugs))
        with self._locked(touched) as (tx, mirrored_states):
            # Read under the lock: they belong to writers that were killed or lost the database.
            pending = self.markers.pending()
            facts = self._converge(tx, touched, mirrored_states, origin or self.origin)
        self.markers.remove(path for slug in touched for path in pending.get(slug, ()))
        self._tell(facts)
        return facts

    @contextmanager
    def maintenance(self) -> Iterator[None]:
        """Hold the exclusive lock of the repository. Raises `busy` if writers never leave it free."""
        everything = exclusive(self.database.as_mirror, [self.reading], self.database.lock_seconds)
        with everything, locks.alone(self._writers):
            yield

    @contextmanager
    def _locked(self, slugs: Sequence[str]) -> Iterator[tuple[Transaction, dict[str, MirroredState]]]:
        """Hold the locks of `slugs`, with cached refs. Yield the transaction and the mirrored states."""
        with self.database.as_mirror(locks_of(self.reading, slugs)) as tx, self.reading.refs.cached_reads():
            marks.load(tx, self.reading, slugs)
            yield tx, mirror.mirrored_states(tx, self.reading, slugs)

    def _catch_up(
        self, tx: Transaction, slugs: Sequence[str], mirrored_states: dict[str, MirroredState]
    ) -> list[Fact]:
        """Mirror the unmirrored writes of earlier writers, and update `mirrored_states`."""
        facts = self._converge(tx, slugs, mirrored_states, WORKER)
        if facts:
            mirrored_states.update(mirror.mirrored_states(tx, self.reading, slugs))
        return facts

    def _converge(
        self, tx: Transaction, slugs: Sequence[str], mirrored_states: dict[str, MirroredState], origin: Origin
    ) -> list[Fact]:
        """Mirror `slugs`. Raises `integrity` where rows contradict Git."""
        batch = mirror.Batch(tx, self.reading)
        facts = [
            fact
            for slug in slugs
            for fact in mirror.converge(batch, self.reading, slug, mirrored_states.get(slug), origin)
        ]
        batch.flush()
        return facts

    def _tell(self, facts: Sequence[Fact]) -> None:
        if facts and self._notify is not None:
            self._notify(facts)

    def _follow_later(self, slugs: Sequence[str], error: Exception) -> None:
        """Mirror a write whose transaction was lost. Raises `published_not_mirrored` after `patience`."""
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            try:
                self.mirror_now(slugs)
            except Exception as again:
                if not isinstance(again, GitstoreError) or again.code not in _PASSING:
                    break
                time.sleep(_PAUSE)
            else:
                return
        latest = {slug: entry.latest for slug in slugs if (entry := self.reading.newest_counting(slug))}
        where = ", ".join(f"{slug} (latest version: {latest.get(slug, 0) or 'none'})" for slug in slugs)
        raise GitstoreError(
            Code.PUBLISHED_NOT_MIRRORED,
            f"{where}: written to Git, and safe there; the database could not follow yet, and will by itself",
            workflows=list(slugs),
            latest=latest,
            retry_after=5,
        ) from error


@contextmanager
def exclusive(
    begin: Callable[[Locks], AbstractContextManager[Transaction]],
    readings: Sequence[Repository],
    seconds: float,
) -> Iterator[Transaction]:
    """Hold the exclusive locks of the repositories of `readings`, in a transaction that `begin` opens.

    Raises `busy` after `seconds`. No attempt waits longer than `EXCLUSIVE_PATIENCE` for a lock, and each is
    followed by a longer pause, in which the writers that were queued behind it proceed.
    """
    keys = sorted(lock_key(reading, None) for reading in readings)
    wanted = Locks(shared=[], exclusive=keys, patience=locks.EXCLUSIVE_PATIENCE)
    deadline, pause = time.monotonic() + seconds, _PAUSE
    while True:
        with ExitStack() as held:
            try:
                tx = held.enter_context(begin(wanted))
            except GitstoreError as error:
                if error.code is not Code.BUSY or time.monotonic() > deadline:
                    raise
            else:
                yield tx
                return
        pause *= 2
        time.sleep(pause)


def locks_of(reading: Repository, slugs: Collection[str]) -> Locks:
    """Return the locks of a write to `slugs`. Raises `too_large`."""
    locks.check_count(len(slugs))
    return Locks(
        shared=[lock_key(reading, None)], exclusive=sorted(lock_key(reading, slug) for slug in slugs)
    )


def lock_key(reading: Repository, slug: str | None) -> int:
    """Return the 64-bit key of a workflow's lock, or of the repository's without a slug."""
    name = f"gitstore {reading.project}" + (f" {slug}" if slug is not None else "")
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
