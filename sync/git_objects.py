"""Raw Git objects in Postgres: enough to write every publication back to a repository that lost it.

Each publication's commits, trees, blobs and tag are inserted in the transaction of its row, and each ledger
entry in that of its fact. Drafts are not kept: Git alone has them. A file larger than `LARGEST` is
recorded without its bytes, and is not read; a very large publication is kept in part. `gitstore verify` names
the versions that can't be restored from here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import chain, islice
from typing import Final, LiteralString
from uuid import UUID

from gitstore import ledger
from gitstore.errors import Code, GitstoreError
from gitstore.git.process import larger
from gitstore.git.quarantine import references
from gitstore.git.raw import ShaFile, object_of
from gitstore.git.reach import new_objects
from gitstore.repository import Repository
from gitstore.versions import workflow_id
from sync.db import Transaction

LARGEST: Final = 2**20  # bytes of one object
MOST_OBJECTS: Final = 20_000  # of one publication
MOST_BYTES: Final = 64 * 2**20  # of one publication
_SURELY_SMALL: Final = 64 * 2**10  # bytes of a loose object on disk, below which its size is not asked for
_BATCH: Final = 4 * 2**20  # bytes that one statement inserts
_MOST_ROWS: Final = 2_000  # that one statement inserts

_EMPTY: Final = ledger.EMPTY_TREE  # of every ledger entry; not kept, as writers would wait for each other's
# In the order of ids, so that two writers with objects in common do not deadlock.
_INSERT: Final[LiteralString] = """
    insert into gitstore.git_objects (project_id, oid, kind, bytes)
    select %(project)s, oid, kind, bytes
    from unnest(%(oids)s::text[], %(kinds)s::text[], %(contents)s::bytea[]) as given (oid, kind, bytes)
    order by oid
    on conflict (project_id, oid) do nothing
"""
# Blobs first: what refers to them is looked at with all of them known.
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
    select v.ref_oid, exists (
        select from gitstore.git_objects o where o.project_id = v.project_id and o.oid = v.ref_oid)
    from gitstore.workflow_versions v
    where v.workflow_id = %(workflow)s and v.state = 'published' order by v.version_number
"""
_LEDGER: Final[LiteralString] = """
    select w.ledger_oid from gitstore.workflows w
    where w.id = %(workflow)s and w.ledger_oid is not null and not exists (
        select from gitstore.git_objects o where o.project_id = w.project_id and o.oid = w.ledger_oid)
"""


@dataclass(frozen=True, slots=True)
class Oversized:
    """A file that is recorded without its bytes."""

    id: bytes


Item = ShaFile | Oversized


def of_publication(reading: Repository, slug: str, target: str, before: bytes | None) -> Iterator[Item]:
    """Yield the objects that a version adds: `target` is what its tag holds, `before` the previous commit.

    What it takes to serve the definition comes first. Ends early, after `MOST_OBJECTS` or `MOST_BYTES`, and
    where an object can't be read: keeping a copy must not stop a publication.
    """
    objects = reading.objects
    left = MOST_BYTES
    try:
        commit, _ = objects.peel(target.encode())
        _, blob, folder = reading.locate(objects.commit(commit), slug)
        first = [target.encode(), commit, objects.commit(commit).tree, folder, blob]
        more = new_objects(objects, commit, before, steps=MOST_OBJECTS, size=MOST_BYTES)
        found = [(oid, is_file) for oid, is_file in islice(more, MOST_OBJECTS) if oid not in first]
        large = larger(reading.path, list(_unsure(reading, found)), LARGEST)
        for oid in chain(first, (oid for oid, _ in found)):
            if oid in large:
                yield Oversized(oid)
                continue
            item = objects.get(oid)
            left -= item.raw_length()
            yield item
            if left < 0:
                return
    except GitstoreError:
        return


def _unsure(reading: Repository, found: Iterable[tuple[bytes, bool]]) -> Iterator[bytes]:
    """Yield the files that may be large: those in packs, and loose ones that take some space on disk."""
    for oid, is_file in found:
        size = reading.objects.loose_size(oid) if is_file else 0
        if size is None or size > _SURELY_SMALL:
            yield oid


def of_ledger(reading: Repository, tip: str | None, known: str | None) -> Iterator[ShaFile]:
    """Yield the ledger entries from `tip` back to `known`, itself left out, or to one that is damaged."""
    try:
        for entry in reading.ledger_from(tip.encode() if tip else None):
            if entry.oid == known:
                return
            yield reading.objects.get(entry.oid.encode())
    except GitstoreError:
        return


def keep(tx: Transaction, project: UUID, objects: Iterable[Item]) -> int:
    """Insert `objects`, unless they are there; return how many were new. One statement, but for very much."""
    new = 0
    batch: dict[str, tuple[str, bytes | None]] = {}
    size = 0
    for found in objects:
        if isinstance(found, Oversized):
            batch[found.id.decode()] = ("blob", None)
        else:
            content = found.as_raw_string() if found.raw_length() <= LARGEST else None
            batch[found.id.decode()] = (found.type_name.decode(), content)
            size += len(content or b"")
        if size > _BATCH or len(batch) == _MOST_ROWS:
            new += _insert(tx, project, batch)
            batch, size = {}, 0
    return new + (_insert(tx, project, batch) if batch else 0)


def keep_missing(tx: Transaction, reading: Repository, slug: str) -> int:
    """Insert what is not kept yet of a workflow's versions and ledger; return how many versions that were."""
    workflow, count = workflow_id(reading.project, slug), 0
    before: bytes | None = None
    for target, is_kept in tx.tuples(_PUBLISHED, workflow=workflow):
        if not is_kept:
            count += keep(tx, reading.project, of_publication(reading, slug, target, before)) > 0
        with suppress(GitstoreError):
            before = reading.objects.peel(target.encode())[0]
    for (tip,) in tx.tuples(_LEDGER, workflow=workflow):
        keep(tx, reading.project, of_ledger(reading, tip, None))
    return count


def _insert(tx: Transaction, project: UUID, batch: dict[str, tuple[str, bytes | None]]) -> int:
    kinds, contents = zip(*batch.values(), strict=True)
    return tx.run(_INSERT, project=project, oids=list(batch), kinds=list(kinds), contents=list(contents))


def load(tx: Transaction, project: UUID, oids: Collection[bytes]) -> dict[bytes, ShaFile]:
    """Return those of the objects `oids` whose bytes are kept, and make their id."""
    rows = tx.tuples(_LOAD, project=project, oids=[oid.decode() for oid in oids])
    found = {oid.encode(): object_of(oid, kind, content) for oid, kind, content in rows}
    if _EMPTY.id in oids:
        found[_EMPTY.id] = _EMPTY
    return {oid: item for oid, item in found.items() if item is not None}


def missing_below(tx: Transaction, reading: Repository, tip: bytes) -> list[ShaFile]:
    """Return what Git lacks of what `tip` needs, each object after those that it refers to.

    What is in the repository has all that it needs, but for what belongs to the version `tip` itself, which
    is looked at. Raises `objects_missing` where an object is not kept here either.
    """
    found: dict[bytes, ShaFile] = {}
    seen = {tip}
    waiting = [tip]
    while waiting:
        held = [oid for oid in waiting if oid in reading.objects]
        loaded = load(tx, reading.project, set(waiting) - set(held))
        if absent := [oid for oid in waiting if oid not in loaded and oid not in held]:
            oid = absent[0].decode()
            message = f"object {oid} is missing in Git, and not kept in the database"
            raise GitstoreError(Code.OBJECTS_MISSING, message, oid=oid)
        found |= loaded
        needed = [other for item in loaded.values() for other in references(item)]
        needed += [other for oid in held for other in _of_version(reading.objects.get(oid))]
        waiting = [oid for oid in dict.fromkeys(needed) if oid not in seen]
        seen.update(waiting)
    below = {oid: [other for other in references(item) if other in found] for oid, item in found.items()}
    return [found[oid] for oid in TopologicalSorter(below).static_order()]


def _of_version(item: ShaFile) -> list[bytes]:
    """What an object that Git has refers to, but for a commit's parents, which are whole by themselves."""
    return references(item)[:1] if item.type_name == b"commit" else references(item)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a project: whose bytes do not make their id, and what each object still lacks."""

    damaged: list[str]
    _below: dict[bytes, list[bytes]]
    _lacks: dict[bytes, str]

    def lacks(self, tip: str) -> str | None:
        """Return why the object `tip` and what it needs can't be written back, or None where they can."""
        waiting = [(tip.encode(), False)]
        while waiting:
            oid, below_done = waiting.pop()
            if oid in self._lacks:
                continue
            below = self._below.get(oid)
            if below is None:
                self._lacks[oid] = f"object {oid.decode()} is not kept"
            elif below_done:
                # Those that lack nothing are no longer looked into.
                self._lacks[oid] = next((why for one in below if (why := self._lacks[one])), "")
            else:
                waiting.append((oid, True))
                waiting.extend((one, False) for one in below)
        return self._lacks[tip.encode()] or None


def survey(tx: Transaction, project: UUID) -> Kept:
    """Read every object that is kept of a project, and make its id anew from its bytes."""
    damaged: list[str] = []
    below: dict[bytes, list[bytes]] = {}
    lacks: dict[bytes, str] = {_EMPTY.id: ""}
    with tx.connection.cursor(name="git_objects") as cursor:
        for oid, kind, content in cursor.execute(_ALL, {"project": project}):
            key = str(oid).encode()
            if content is None:
                lacks[key] = f"object {oid} is larger than 1 MiB"
            elif (item := object_of(oid, kind, content)) is None:
                damaged.append(oid)
                lacks[key] = f"the bytes of object {oid} are damaged"
            elif kind == "blob":
                lacks[key] = ""
            else:
                # Files that are there need no second look.
                below[key] = [other for other in references(item) if lacks.get(other) != ""]
    return Kept(damaged, below, lacks)


def renew(tx: Transaction, reading: Repository, damaged: Collection[str]) -> None:
    """Replace the bytes of `damaged` objects by those that Git has. As the owner, during upkeep."""
    tx.run(_DELETE, project=reading.project, oids=list(damaged))
    found = (oid.encode() for oid in damaged)
    keep(tx, reading.project, (reading.objects.get(oid) for oid in found if oid in reading.objects))
