"""Raw Git objects in Postgres: enough to restore every publication to a repository that has lost it.

The commits, trees, blobs and tag of each publication are inserted in the transaction of its row, and each
ledger entry in that of its fact. Drafts are stored in Git alone. A file larger than `LARGEST` is not read and
is recorded without its bytes; a very large publication is stored in part. `gitstore verify` lists the
versions that cannot be restored from these rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import accumulate, chain, islice
from typing import Final, LiteralString
from uuid import UUID

from dulwich.objects import Blob, ShaFile

from gitstore import ledger
from gitstore.errors import GitstoreError, ObjectsMissingError
from gitstore.git.commits import new_objects, object_of
from gitstore.git.process import sizes
from gitstore.git.quarantine import references
from gitstore.repository import Repository
from sync.db import Transaction

LARGEST: Final = 2**20  # bytes of one object; a definition may have as many as the settings allow
MOST_OBJECTS: Final = 20_000  # of one publication
MOST_BYTES: Final = 64 * 2**20  # of one publication
_SURELY_SMALL: Final = 64 * 2**10  # bytes; git is not asked for the size of a smaller object
_BATCH: Final = 2**20  # bytes inserted by one statement, which takes several times as many
_MOST_ROWS: Final = 2_000  # rows inserted by one statement

_EMPTY: Final = ledger.EMPTY_TREE  # of every ledger entry; not stored, since writers would block each other
# Inserted in the order of ids, so that two writers of the same objects do not deadlock. The contents are one
# binary parameter: an array of them would be dumped value by value, as hexadecimal text.
_INSERT: Final[LiteralString] = """
    insert into gitstore.git_objects (project_id, oid, kind, bytes)
    select %(project)s, oid, kind, substring(%(contents)b::bytea from ends - size + 1 for size)
    from unnest(%(oids)s::text[], %(kinds)s::text[], %(ends)s::integer[], %(sizes)s::integer[])
        as given (oid, kind, ends, size)
    order by oid
    on conflict (project_id, oid) do nothing
"""
# Blobs first, so that all of them are known when the objects that refer to them are read.
_ALL: Final[LiteralString] = """
    select oid, kind, bytes from gitstore.git_objects where project_id = %(project)s
    order by kind <> 'blob'
"""
_DELETE: Final[LiteralString] = """
    delete from gitstore.git_objects where project_id = %(project)s and oid = any(%(oids)s)
"""
_LOAD: Final[LiteralString] = """
    select oid, kind, bytes from gitstore.git_objects
    where project_id = %(project)s and oid = any(%(oids)s) and bytes is not null
"""
_PUBLISHED: Final[LiteralString] = """
    select w.slug, v.ref_oid, exists (
        select from gitstore.git_objects o where o.project_id = v.project_id and o.oid = v.ref_oid)
    from gitstore.workflow_versions v join gitstore.workflows w on w.id = v.workflow_id
    where v.workflow_id = any(%(workflows)s) and v.state = 'published'
    order by v.workflow_id, v.version_number
"""
_LEDGER: Final[LiteralString] = """
    select w.ledger_oid from gitstore.workflows w
    where w.id = any(%(workflows)s) and w.ledger_oid is not null and not exists (
        select from gitstore.git_objects o where o.project_id = w.project_id and o.oid = w.ledger_oid)
"""


@dataclass(frozen=True, slots=True)
class Oversized:
    """A file recorded without its bytes."""

    id: bytes


Item = ShaFile | Oversized


def of_publication(repository: Repository, slug: str, target: str, before: bytes | None) -> Iterator[Item]:
    """Yield the objects that a version adds; its tag holds `target`, and `before` is the previous commit.

    The objects needed to serve the definition come first. Ends early after `MOST_OBJECTS` or `MOST_BYTES`, or
    at an object that cannot be read: a failed copy must not block a publication.
    """
    objects = repository.objects
    left = MOST_BYTES
    try:
        commit, _ = objects.peel(target.encode())
        _, blob, folder = repository.locate(objects.commit(commit), slug)
        first = [target.encode(), commit, objects.commit(commit).tree, folder, blob]
        more = new_objects(objects, commit, before, steps=MOST_OBJECTS, size=MOST_BYTES)
        found = [(oid, is_file) for oid, is_file in islice(more, MOST_OBJECTS) if oid not in first]
        unsure = sizes(repository.path, list(_unsure(repository, found)))
        large = {oid for oid, size in unsure.items() if size > LARGEST}
        for oid in chain(first, (oid for oid, _ in found)):
            if oid in large:
                yield Oversized(oid)
                continue
            item = objects.get(oid)
            most = repository.limits.definition if oid == blob else LARGEST
            if isinstance(item, Blob) and item.raw_length() > most:
                yield Oversized(oid)
                continue
            left -= item.raw_length()
            yield item
            if left < 0:
                return
    except GitstoreError:
        return


def _unsure(repository: Repository, found: Iterable[tuple[bytes, bool]]) -> Iterator[bytes]:
    """Yield the files that may be large: those in large packs, and others above `_SURELY_SMALL`."""
    for oid, is_file in found:
        size = repository.objects.size(oid) if is_file else 0
        if size is None or size > _SURELY_SMALL:
            yield oid


def of_ledger(repository: Repository, tip: str | None, known: str | None) -> Iterator[ShaFile]:
    """Yield the ledger entries from `tip` back to `known` (excluded), or to the first damaged one."""
    try:
        for entry in repository.ledger_from(tip.encode() if tip else None):
            if entry.oid == known:
                return
            yield repository.objects.get(entry.oid.encode())
    except GitstoreError:
        return


def keep(tx: Transaction, project: UUID, objects: Iterable[Item]) -> int:
    """Insert the `objects` not yet stored, in as few statements as size permits; return how many were new."""
    new = 0
    batch: dict[str, tuple[str, bytes | None]] = {}
    size = 0
    for found in objects:
        if isinstance(found, Oversized):
            batch[found.id.decode()] = ("blob", None)
        else:
            # `of_publication` has already left large files out.
            is_kept = isinstance(found, Blob) or found.raw_length() <= LARGEST
            content = found.as_raw_string() if is_kept else None
            batch[found.id.decode()] = (found.type_name.decode(), content)
            size += len(content or b"")
        if size > _BATCH or len(batch) == _MOST_ROWS:
            new += _insert(tx, project, batch)
            batch, size = {}, 0
    return new + (_insert(tx, project, batch) if batch else 0)


def keep_missing(tx: Transaction, repository: Repository, slugs: Collection[str]) -> int:
    """Insert the missing objects of the versions and ledgers of `slugs`; return how many versions had any."""
    workflows = [repository.identity(slug) for slug in slugs]
    stored: set[str] = set()
    keep(tx, repository.project, _missing(repository, tx.tuples(_PUBLISHED, workflows=workflows), stored))
    tips = tx.tuples(_LEDGER, workflows=workflows)
    keep(tx, repository.project, chain.from_iterable(of_ledger(repository, tip, None) for (tip,) in tips))
    return len(stored)


def _missing(
    repository: Repository, published: Iterable[tuple[str, str, bool]], stored: set[str]
) -> Iterator[Item]:
    """Yield the objects of those versions in `published` that are not kept; add their targets to `stored`."""
    slug_before, target_before = "", ""
    for slug, target, is_kept in published:
        if not is_kept:
            before = None
            if slug == slug_before:
                with suppress(GitstoreError):
                    before = repository.objects.peel(target_before.encode())[0]
            for item in of_publication(repository, slug, target, before):
                stored.add(target)
                yield item
        slug_before, target_before = slug, target


def _insert(tx: Transaction, project: UUID, batch: dict[str, tuple[str, bytes | None]]) -> int:
    kinds, contents = zip(*batch.values(), strict=True)
    lengths = [None if content is None else len(content) for content in contents]
    return tx.run(
        _INSERT,
        project=project,
        oids=list(batch),
        kinds=list(kinds),
        contents=b"".join(content or b"" for content in contents),
        ends=list(accumulate(length or 0 for length in lengths)),
        sizes=lengths,
    )


def load(tx: Transaction, project: UUID, oids: Collection[bytes]) -> dict[bytes, ShaFile]:
    """Return the objects among `oids` that are stored with their bytes and match their id, by id."""
    rows = tx.tuples(_LOAD, project=project, oids=[oid.decode() for oid in oids])
    found = {oid.encode(): object_of(oid, kind, content) for oid, kind, content in rows}
    if _EMPTY.id in oids:
        found[_EMPTY.id] = _EMPTY
    return {oid: item for oid, item in found.items() if item is not None}


def missing_below(tx: Transaction, repository: Repository, tip: bytes) -> list[ShaFile]:
    """Return the objects reachable from `tip` that Git lacks, each after the objects that it refers to.

    Objects in the repository are assumed complete, except those of the version `tip` itself, which are
    checked. Raises `objects_missing` if an object is not stored in the database either.
    """
    found: dict[bytes, ShaFile] = {}
    seen = {tip}
    waiting = [tip]
    while waiting:
        held = [oid for oid in waiting if oid in repository.objects]
        loaded = load(tx, repository.project, set(waiting) - set(held))
        if absent := [oid for oid in waiting if oid not in loaded and oid not in held]:
            oid = absent[0].decode()
            message = f"object {oid} is missing in Git, and not kept in the database"
            raise ObjectsMissingError(message, oid=oid)
        found |= loaded
        needed = [other for item in loaded.values() for other in references(item)]
        needed += [other for oid in held for other in _of_version(repository.objects.get(oid))]
        waiting = [oid for oid in dict.fromkeys(needed) if oid not in seen]
        seen.update(waiting)
    below = {oid: [other for other in references(item) if other in found] for oid, item in found.items()}
    return [found[oid] for oid in TopologicalSorter(below).static_order()]


def _of_version(item: ShaFile) -> list[bytes]:
    """Return the references of an object in Git, except a commit's parents, which are assumed complete."""
    return references(item)[:1] if item.type_name == b"commit" else references(item)


@dataclass(frozen=True, slots=True)
class Kept:
    """The stored objects of a project: those whose bytes do not match their id, and the gaps below each."""

    damaged: list[str]
    _below: dict[bytes, list[bytes]]
    _lacks: dict[bytes, str]

    def lacks(self, tip: str) -> str | None:
        """Return why `tip` and the objects reachable from it cannot be restored, or None if they can."""
        waiting = [(tip.encode(), False)]
        while waiting:
            oid, below_done = waiting.pop()
            if oid in self._lacks:
                continue
            below = self._below.get(oid)
            if below is None:
                self._lacks[oid] = f"object {oid.decode()} is not kept"
            elif below_done:
                # All objects below are recorded by now; those that lack nothing are skipped.
                self._lacks[oid] = next((why for one in below if (why := self._lacks[one])), "")
            else:
                waiting.append((oid, True))
                waiting.extend((one, False) for one in below)
        return self._lacks[tip.encode()] or None


def survey(tx: Transaction, project: UUID) -> Kept:
    """Read every stored object of a project, and check its bytes against its id."""
    damaged: list[str] = []
    below: dict[bytes, list[bytes]] = {}
    lacks: dict[bytes, str] = {_EMPTY.id: ""}
    with tx.connection.cursor(name="git_objects") as cursor:
        for oid, kind, content in cursor.execute(_ALL, {"project": project}):
            key = str(oid).encode()
            if content is None:
                lacks[key] = f"object {oid} was too large to be kept"
            elif (item := object_of(oid, kind, content)) is None:
                damaged.append(oid)
                lacks[key] = f"the bytes of object {oid} are damaged"
            elif kind == "blob":
                lacks[key] = ""
            else:
                # Files that are stored need no further check.
                below[key] = [other for other in references(item) if lacks.get(other) != ""]
    return Kept(damaged, below, lacks)


def renew(tx: Transaction, repository: Repository, damaged: Collection[str]) -> None:
    """Replace the bytes of `damaged` objects by those in Git. Requires the tables' owner, during upkeep."""
    tx.run(_DELETE, project=repository.project, oids=list(damaged))
    found = (oid.encode() for oid in damaged)
    keep(tx, repository.project, (repository.objects.get(oid) for oid in found if oid in repository.objects))
