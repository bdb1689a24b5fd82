"""The commit point of a write to several workflows: one ref, whose creation decides that all of it happens.

Everything that the write adds is staged first: ledger entries, tags, commits. Then a ref
`refs/gitstore/pending/<id>` is created; its commit lists each ref of the operation with its old and its new
value, and keeps the staged objects. Before that nothing has happened, and after it everything will: the
operation is only ever carried forward, by its writer or, after a kill, by the next writer of one of its
workflows or by reconciliation. The ref is deleted once every ref is in place and the rows follow.

A holder of the locks of some workflows completes what is pending on them before anything else, under the
locks of all workflows of the operation. So a ref holds its old value or its new one. One that holds neither
was moved past gitstore, and is left alone.

    <old> <new> <ref>       a line of the file `refs`; 40 zeros: the ref does not exist

A tag object cannot be a parent of the commit, so the tree holds a copy of each.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from dulwich.objects import Blob, ObjectID, ShaFile, Tag, Tree

from gitstore import budget, ledger, names
from gitstore.errors import BusyError, GitstoreError, IntegrityError
from gitstore.git.commits import new_commit
from gitstore.git.refs import RefUpdate
from gitstore.repository import FOLDER, Repository, WritableRepository
from gitstore.system import now

LEVEL: Final = 2
"""The feature level from which on an operation may be pending: older processes would not complete it."""

_REFS: Final = b"refs"
_ABSENT: Final = b"0" * 40
_AT_ONCE: Final = 256  # refs, each of which is a file that is open until all are locked
_TRIES: Final = 3
_ORDER: Final = (names.LEDGERS, names.TAGS, names.SUPERSEDED, names.RENAMED)


@dataclass(frozen=True, slots=True)
class Removal:
    """Delete the ref `name` if it holds `old`."""

    name: bytes
    old: bytes


@dataclass(frozen=True, slots=True)
class Operation:
    """A write that is decided. `ref` names it, and holds `commit`.

    `released` are the workflows of the releases that it makes. Not each of them has a ref that moves.
    """

    ref: bytes
    commit: bytes
    updates: tuple[RefUpdate, ...]
    removals: tuple[Removal, ...]
    released: frozenset[str] = frozenset()

    @property
    def slugs(self) -> list[str]:
        """The workflows that it concerns."""
        refs = [*(update.name for update in self.updates), *(removal.name for removal in self.removals)]
        return sorted({slug for slug in map(names.slug_of, refs) if slug is not None} | self.released)

    @property
    def renames(self) -> bool:
        return any(update.name.startswith(names.RENAMED) for update in self.updates)

    @property
    def releases(self) -> list[str]:
        """The names of the releases that it makes."""
        found = (names.release_of(update.name) for update in self.updates)
        return sorted(name for name in found if name is not None)


def decide(
    repository: WritableRepository,
    what: str,
    updates: Iterable[RefUpdate],
    removals: Sequence[Removal] = (),
    staged: Sequence[ShaFile] = (),
) -> list[bytes]:
    """Write `staged`, and decide that all of `updates` and `removals` happen; `what` describes that
    to people.

    Return the refs that do not hold their old value: then nothing is decided. Requires the locks of all
    workflows. The unit of work carries the operation out when its block ends.
    """
    refs, objects = repository.refs, repository.objects
    ordered = tuple(sorted(updates, key=_rank))
    refs.invalidate()
    before = [*((update.name, update.old) for update in ordered), *((r.name, r.old) for r in removals)]
    if moved := [name for name, old in before if refs.read(name) != old]:
        return moved
    for update in ordered:
        refs.check_place(update.name)
    new = {bytes(item.id): item for item in staged}
    parents: dict[bytes, None] = {}
    tree, copies = Tree(), []
    lines = [b"%b %b %b\n" % (update.old or _ABSENT, update.new, update.name) for update in ordered]
    lines += [b"%b %b %b\n" % (removal.old, _ABSENT, removal.name) for removal in removals]
    for oid in dict.fromkeys(update.new for update in ordered):
        item = new.get(oid) or objects.get(oid)
        if isinstance(item, Tag):
            copies.append(Blob.from_string(item.as_raw_string()))
            tree.add(oid, stat.S_IFREG | 0o644, ObjectID(copies[-1].id))
            oid = item.object[1]
        parents[oid] = None
    listing = Blob.from_string(b"".join(lines))
    tree.add(_REFS, stat.S_IFREG | 0o644, listing.id)
    commit = new_commit(
        tree=tree.id,
        parents=list(parents),
        author=ledger.COMMITTER,
        committer=ledger.COMMITTER,
        when=now(),
        message=what,
    )
    objects.write_pack(list({item.id: item for item in (*staged, listing, *copies, tree, commit)}.values()))
    budget.lift()
    return refs.update([RefUpdate(names.pending(uuid4().hex), None, commit.id)])


def listed(repository: Repository) -> Iterator[Operation]:
    """Yield the operations that are decided and not complete. Raises `integrity` for a damaged one."""
    for ref, oid in repository.refs.below(names.PENDING).items():
        try:
            tree = repository.objects.tree(repository.objects.commit(oid).tree)
            lines = repository.objects.blob(tree[_REFS][1]).splitlines()
            moves = [line.split(b" ", 2) for line in lines]
            updates = [
                RefUpdate(name, None if old == _ABSENT else old, new)
                for old, new, name in moves
                if new != _ABSENT
            ]
            removals = [Removal(name, old) for old, new, name in moves if new == _ABSENT]
            released = _released(repository, updates)
        except (GitstoreError, KeyError, ValueError) as error:
            shown = names.show(ref)
            raise IntegrityError(
                f"{shown} is damaged: restore its objects from a backup", ref=shown
            ) from error
        yield Operation(ref, oid, tuple(updates), tuple(removals), released)


def _released(repository: Repository, updates: Sequence[RefUpdate]) -> frozenset[str]:
    """Return the workflows in the commits of releases among `updates`."""
    found: set[str] = set()
    for update in updates:
        if names.release_of(update.name) is not None:
            root = repository.objects.tree(repository.objects.commit(update.new).tree)
            found.update(map(names.show, repository.objects.tree(root[FOLDER][1])))
    return frozenset(found)


def check_level(repository: Repository) -> None:
    """Raise `upgrade_unfinished` if no operation may be pending yet."""
    ledger.require_level(LEVEL, repository.level)


def is_any(repository: Repository) -> bool:
    """Return whether an operation is pending; the cost of looking into one folder."""
    return repository.refs.has_below(names.PENDING)


def concerning(repository: Repository, slugs: Collection[str], release: str | None = None) -> list[Operation]:
    """Return the pending operations on any of `slugs` or on `release`."""
    if not is_any(repository):
        return []
    return [
        operation
        for operation in listed(repository)
        if not {*slugs}.isdisjoint(operation.slugs) or release in operation.releases
    ]


def carry_out(repository: WritableRepository, operation: Operation) -> None:
    """Move the refs of `operation` that still hold their old value. Requires the locks of its workflows."""
    refs = repository.refs
    refs.invalidate()
    _restore_tags(repository, operation)
    for start in range(0, len(operation.updates), _AT_ONCE):
        part = operation.updates[start : start + _AT_ONCE]
        for _ in range(_TRIES):
            waiting = [update for update in part if refs.read(update.name) == update.old]
            if not waiting or not refs.update(waiting):
                break
        else:
            raise BusyError(f"{names.show(part[0].name)} moves all the time: try again")
    for removal in operation.removals:
        if refs.read(removal.name) == removal.old and not refs.delete(removal.name, removal.old):
            raise BusyError(f"{names.show(removal.name)} could not be deleted: try again")
    repository.point_head([update.name for update in operation.updates])


def _restore_tags(repository: WritableRepository, operation: Operation) -> None:
    """Write the tag objects that git has pruned since: only the copy in the tree was kept reachable."""
    objects = repository.objects
    tree = objects.tree(objects.commit(operation.commit).tree)
    lost = [
        Tag.from_string(objects.blob(copy))
        for oid, _, copy in tree.items()
        if oid != _REFS and oid not in objects
    ]
    if lost:
        objects.write(lost)


def conclude(repository: WritableRepository, operation: Operation) -> None:
    """Delete the ref of an `operation` that is carried out, unless another process has just done so."""
    repository.refs.delete(operation.ref, operation.commit)


def _rank(update: RefUpdate) -> int:
    """Order ledgers first, then tags and kept drafts, then the rest: as after any other write."""
    return next((rank for rank, prefix in enumerate(_ORDER) if update.name.startswith(prefix)), len(_ORDER))
