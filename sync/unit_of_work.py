"""The unit of work of a write with a database: locks that hold across machines, and the rows of the write.

One unit is one transaction of the role gitstore_mirror around the store's own work:

    begin     locks; what is pending is completed; the rows of earlier writes catch up; a marker for each
              workflow
    write     the store writes objects, ledger entries and refs; or it decides that several workflows change
              at once (gitstore/pending.py), and then their refs move
    mirror    rows, events and audit rows are derived from what Git now holds
    commit    the transaction commits, the markers and the pending operation are removed
    recover   if the transaction is lost after a write: mirror again, or leave the markers to a reconcile

The locks are advisory locks of the transaction: the repository's, shared, then each workflow's, exclusive, in
the order of their keys. One unit locks at most `MOST_WORKFLOWS`, since Postgres' lock table is small.
Maintenance and rebuild take the repository's lock exclusively (`exclusive`), in short attempts with pauses,
because Postgres queues every new writer behind a waiting exclusive lock. A writer that has lost its Postgres
connection may still run for a moment, so each writer also holds a shared file lock in the repository
(gitstore/unit_of_work.py).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from psycopg.rows import class_row, tuple_row

from gitstore import pending
from gitstore.errors import BusyError, Code, GitstoreError, NotFoundError, NotMirroredError, UnavailableError
from gitstore.git import cleanup
from gitstore.git.refs import WritableRefs
from gitstore.names import check_slug
from gitstore.pending import Operation
from gitstore.repository import Repository, WritableRepository
from gitstore.unit_of_work import EXCLUSIVE_PATIENCE, WRITERS, check_count, exclusive_lock, shared_lock
from sync import derive, mirror, releases, rows
from sync.audit import WORKER, Origin
from sync.db import IDLE_SECONDS, Database, Locks, Transaction
from sync.errors import translated
from sync.events import Fact
from sync.markers import Markers
from sync.mirror import MirroredState

_PAUSE: Final = 0.2  # seconds between two tries
_TRIES: Final = 10
_ALONE_SECONDS: Final = 25.0  # for a workflow's lock: several writers, each of which waits 3 s for a ref's

_States = dict[str, MirroredState]
_Tips = list[tuple[str | None, str | None]]


@dataclass(slots=True)
class _Write:
    """The progress of one unit of work on `slugs`."""

    slugs: list[str]
    tips: _Tips = field(default_factory=list)
    markers: list[Path] = field(default_factory=list)
    begun: bool = False
    decided: list[Operation] = field(default_factory=list)
    written: bool = True
    refusal: Exception | None = None


class MirrorUnitOfWork:
    """`gitstore.unit_of_work.UnitOfWork` with a database. Audit rows name `origin`.

    `patience` is the time in seconds for which a write whose transaction was lost is mirrored again before
    `published_not_mirrored` is raised: 0 for a push, which may report ok at once, and more for HTTP.
    """

    def __init__(
        self,
        database: Database,
        repository: Repository,
        origin: Origin = WORKER,
        *,
        patience: float = 0.0,
    ) -> None:
        self.database = database
        self.repository = repository
        self.origin = origin
        self.markers = Markers(repository.path)
        self._writers = repository.path / WRITERS
        self._patience = patience

    @contextmanager
    def begin(self, slugs: Collection[str], release: str | None = None) -> Iterator[None]:
        """Hold the locks of `slugs` and of the name `release` for a write, and mirror it at the end.

        Raises `unavailable`, `busy` or `integrity` before anything is written, and `published_not_mirrored`
        if Git has the write and its rows could not follow. An exception of the block is raised again after
        the refs that it wrote were mirrored.
        """
        write = _Write([check_slug(slug) for slug in sorted(set(slugs))])
        try:
            with ExitStack() as held:
                tx, states = self._settled(held, write.slugs, release)
                self._catch_up(tx, write, states)
                with shared_lock(self._writers):
                    write.markers = self.markers.put(write.slugs)
                    write.begun = True
                    with self._fenced(tx):
                        try:
                            yield
                        except Exception as error:
                            write.refusal = error  # a part may be written
                        write.decided = self._carry_out(pending.concerning(self.repository, slugs, release))
                self._mirror(tx, write, states)
        except Exception as error:
            if not write.begun:
                raise
            self._recover(write, error)
        else:
            self.markers.remove(write.markers)
            self._conclude(write.decided)
        if write.refusal is not None:
            raise write.refusal

    def _settled(
        self, held: ExitStack, slugs: Sequence[str], release: str | None = None
    ) -> tuple[Transaction, _States]:
        """Enter `_locked`, with nothing pending on `slugs` and `release`. Raises `busy`."""
        for _ in range(_TRIES):
            tx, states = held.enter_context(self._locked(slugs, [release] if release else []))
            operations = pending.concerning(self.repository, slugs, release)
            if not operations:
                return tx, states
            held.close()  # an operation is completed under the locks of all its workflows, in their order
            for operation in operations:
                self.complete(operation)
        raise BusyError("other writes to several workflows are in progress: try again")

    def complete(self, operation: Operation) -> list[Fact]:
        """Complete a pending operation that its writer left behind, once its locks are free."""
        slugs = operation.slugs
        with self._locked(slugs, operation.releases) as (tx, states):
            if self.repository.refs.read(operation.ref) is None:
                return []
            with shared_lock(self._writers):
                markers = self.markers.put(slugs)
                self._carry_out([operation])
            if operation.renames:
                states = mirror.mirrored_states(tx, self.repository, slugs)
            facts = self._converge(tx, slugs, states, WORKER)
            releases.mirror(tx, self.repository, operation.updates)
        self.markers.remove(markers)
        self._conclude([operation])
        return facts

    def _carry_out(self, operations: list[Operation]) -> list[Operation]:
        for operation in operations:
            with self._writable() as repository:
                pending.carry_out(repository, operation)
        if operations:
            self.repository.refs.invalidate()
        return operations

    def _conclude(self, operations: Sequence[Operation]) -> None:
        """Delete the refs of operations whose rows are committed. Else the next writer does it."""
        for operation in operations:
            with self._writable() as repository, suppress(GitstoreError, OSError):
                pending.conclude(repository, operation)

    @contextmanager
    def _writable(self) -> Iterator[WritableRepository]:
        """Yield the repository as one that can be written; the fence of a write holds for it, too."""
        if isinstance(self.repository, WritableRepository):
            yield self.repository
            return
        with closing(WritableRepository.of(self.repository)) as repository:
            yield repository

    @contextmanager
    def _fenced(self, tx: Transaction) -> Iterator[None]:
        """Within the block, write refs only before a deadline and while `tx`, which has the locks, lives."""
        refs = self.repository.refs
        if not isinstance(refs, WritableRefs):
            yield
            return
        deadline = time.monotonic() + IDLE_SECONDS / 2

        def check() -> None:
            if time.monotonic() > deadline:
                raise BusyError("the write took too long, and nothing was written: try again")
            with translated():
                tx.check()

        refs.before_writing = check
        try:
            yield
        finally:
            refs.before_writing = lambda: None

    def _catch_up(self, tx: Transaction, write: _Write, states: _States) -> None:
        """Mirror the unmirrored writes of earlier writers, and update `states`."""
        if self._converge(tx, write.slugs, states, WORKER):
            states.update(mirror.mirrored_states(tx, self.repository, write.slugs))
        write.tips = self._tips(write.slugs)

    def _mirror(self, tx: Transaction, write: _Write, states: _States) -> None:
        self.repository.refs.invalidate()  # the write may have used another reader of the refs
        write.written = write.tips != self._tips(write.slugs)
        if any(operation.renames for operation in write.decided):
            states = mirror.mirrored_states(tx, self.repository, write.slugs)
        self._converge(tx, write.slugs, states, self.origin)
        for operation in write.decided:
            releases.mirror(tx, self.repository, operation.updates, self.origin)

    def _recover(self, write: _Write, error: Exception) -> None:
        """Mirror a write whose transaction was lost. Raises `published_not_mirrored` after `patience`."""
        if not write.written:
            self.markers.remove(write.markers)
            return
        # A writer that took over the locks of a lost connection may have removed the markers.
        self.markers.restore(write.markers)
        if write.refusal is not None:
            raise write.refusal from error
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            try:
                self.mirror_now(write.slugs)
            except (UnavailableError, BusyError):
                time.sleep(_PAUSE)
            except Exception:
                break
            else:
                return
        newest = {slug: self.repository.newest_counting(slug) for slug in write.slugs}
        latest = {slug: entry.latest if entry else 0 for slug, entry in newest.items()}
        where = ", ".join(f"{slug} (latest version: {number or 'none'})" for slug, number in latest.items())
        raise NotMirroredError(
            f"{where}: written to Git, and safe there; the database follows as soon as it is reachable",
            latest,
        ) from error

    def mirror_now(self, slugs: Collection[str], origin: Origin | None = None) -> list[Fact]:
        """Mirror the rows of `slugs` and remove their markers. Return the facts that were missing."""
        touched = sorted(set(slugs))
        with ExitStack() as held:
            tx, mirrored_states = self._settled(held, touched)
            # Read under the lock: they belong to writers that were killed or lost the database.
            left = self.markers.pending()
            facts = self._converge(tx, touched, mirrored_states, origin or self.origin)
        self.markers.remove(path for slug in touched for path in left.get(slug, ()))
        return facts

    def recheck_draft(self, slug: str) -> None:
        """Write the row of the open draft as the repository's rules judge it; versions stay as they are."""
        with self._locked([slug]) as (tx, states):
            self._converge(tx, [slug], states, WORKER)
            draft = derive.draft_row(self.repository, self.repository.state(slug))
            if draft is not None:
                tx.run(rows.RECHECK_DRAFTS, versions=rows.as_json([draft]))

    @contextmanager
    def maintenance(self) -> Iterator[None]:
        """Hold the exclusive lock of the repository. Raises `busy` if writers never leave it free."""
        everything = exclusive(self.database.as_mirror, [self.repository], self.database.lock_seconds)
        with everything, exclusive_lock(self._writers):
            yield

    def sweep(self, *, everything: bool = False) -> list[Path]:
        """Remove the files that killed writers left, of marked writes or `everything`; return their paths.

        Raises `busy` as `maintenance` does, and OSError.
        """
        slugs = None if everything else list(self.markers.pending())
        return cleanup.sweep(self.repository.path, self.maintenance, time.time(), slugs, alone=self._alone)

    def _alone(self, slug: str) -> AbstractContextManager[Transaction]:
        """Hold the lock of a workflow; wait in line with its writers. Raises `busy`."""
        return self.database.as_mirror(replace(locks_of(self.repository, [slug]), patience=_ALONE_SECONDS))

    @contextmanager
    def _locked(
        self, slugs: Sequence[str], named: Sequence[str] = ()
    ) -> Iterator[tuple[Transaction, dict[str, MirroredState]]]:
        """Hold the locks of `slugs` and of the releases `named`, with cached refs.

        Yield the transaction and the mirrored states.
        """
        repository = self.repository
        with repository.refs.cached_reads():
            expected = {slug: repository.identity(slug) for slug in slugs}
        queries, ids = (rows.MARKS, mirror.MIRRORED_STATES), list(set(expected.values()))
        locks = locks_of(repository, slugs, named)
        with (
            self.database.as_mirror(locks, *queries, project=repository.project, ids=ids) as tx,
            repository.refs.cached_reads(),
        ):
            if not (repository.path / "HEAD").is_file():
                raise NotFoundError(
                    Code.PROJECT_NOT_FOUND, "the project was deleted, or its repository is gone"
                )
            rows.take_marks(repository, expected, tx.begun(-2, tuple_row))
            states = mirror.by_slug(tx.begun(-1, class_row(MirroredState)), expected)
            if expected != {slug: repository.identity(slug) for slug in slugs}:  # renamed before the locks
                rows.load_marks(tx, repository, slugs)
                states = mirror.mirrored_states(tx, repository, slugs)
            yield tx, states

    def _converge(
        self, tx: Transaction, slugs: Sequence[str], mirrored_states: dict[str, MirroredState], origin: Origin
    ) -> list[Fact]:
        """Mirror `slugs`. Raises `integrity` where rows contradict Git."""
        batch = mirror.Batch(tx, self.repository)
        facts = [
            fact
            for slug in slugs
            for fact in mirror.converge(batch, self.repository, slug, mirrored_states.get(slug), origin)
        ]
        batch.flush()
        return facts

    def _tips(self, slugs: Sequence[str]) -> _Tips:
        return [mirror.tips(self.repository, slug) for slug in slugs]


@contextmanager
def exclusive(
    begin: Callable[[Locks], AbstractContextManager[Transaction]],
    repositories: Sequence[Repository],
    seconds: float,
) -> Iterator[Transaction]:
    """Hold the exclusive locks of the repositories of `repositories`, in a transaction that `begin` opens.

    Raises `busy` after `seconds`. No attempt waits longer than `EXCLUSIVE_PATIENCE` for a lock, and each is
    followed by a longer pause, in which the writers that were queued behind it proceed.
    """
    keys = sorted(lock_key(repository, None) for repository in repositories)
    wanted = Locks(shared=[], exclusive=keys, patience=EXCLUSIVE_PATIENCE)
    deadline, pause = time.monotonic() + seconds, _PAUSE
    while True:
        with ExitStack() as held:
            try:
                tx = held.enter_context(begin(wanted))
            except BusyError:
                if time.monotonic() > deadline:
                    raise
            else:
                yield tx
                return
        pause *= 2
        time.sleep(pause)


def locks_of(repository: Repository, slugs: Collection[str], named: Collection[str] = ()) -> Locks:
    """Return the locks of a write to `slugs` and to the releases `named`. Raises `too_large`."""
    check_count(len(slugs))
    names = [*slugs, *(f"release {name}" for name in named)]  # a slug has no space
    return Locks(
        shared=[lock_key(repository, None)], exclusive=sorted(lock_key(repository, name) for name in names)
    )


def lock_key(repository: Repository, slug: str | None) -> int:
    """Return the 64-bit key of a workflow's lock, or of the repository's without a slug."""
    name = f"gitstore {repository.project}" + (f" {slug}" if slug is not None else "")
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
