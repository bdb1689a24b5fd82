"""Repair of a repository that has lost refs or objects.

The ledger records the target of each tag, rows record the tips of the ledger as well, and the database has
the objects of every publication (sync/git_objects.py). A ref is restored if these records agree and its
objects exist or can be written back; a contradiction is left for a person to decide. Nothing is deleted: a
ledger that replaced the one recorded in the database is kept as a superseded ref. A version recorded as
`lost` is published again as it was. Finally, the rows are mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

from gitstore import changes, names
from gitstore.changes import Authorship, ChangeSet
from gitstore.errors import GitstoreError, MalformedError, ObjectsMissingError
from gitstore.git.packed_refs import repair_packed_refs
from gitstore.git.refs import RefUpdate
from gitstore.model import LedgerEntry, LedgerKind, Person
from gitstore.names import HIGHEST_NUMBER, is_slug, workflow_id
from gitstore.repository import WritableRepository
from sync import audit, derive, git_objects, marks
from sync.audit import Origin
from sync.db import Transaction
from sync.integrity import rebuild, verify
from sync.reconcile import full_pass
from sync.unit_of_work import MirrorUnitOfWork, locks_of

Progress = Callable[[int, int], None]

_MANY: Final = 50  # objects; more than this are written as one pack, not as loose files

_WORKFLOW: Final[LiteralString] = """
    select draft_commit, ledger_oid, given_name, given_description from gitstore.workflows
    where project_id = %(project)s and slug = %(slug)s
"""
_PUBLISHED: Final[LiteralString] = """
    select version_number, ref_oid from gitstore.workflow_versions
    where workflow_id = %(workflow)s and state = 'published'
"""
_LOST: Final[LiteralString] = """
    select version_number, ref_oid, message, published_by, published_at from gitstore.workflow_versions
    where workflow_id = %(workflow)s and state = 'lost' order by version_number
"""


def repair(writes: MirrorUnitOfWork, progress: Progress | None = None) -> Iterator[str]:
    """Restore all recoverable versions and refs of a project; yield a sentence for each action."""
    with closing(WritableRepository.of(writes.repository)) as repository:
        yield from _repair(writes, repository, progress)


def _repair(
    writes: MirrorUnitOfWork, repository: WritableRepository, progress: Progress | None
) -> Iterator[str]:
    with writes.maintenance():
        kept = repair_packed_refs(repository.path, f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    if kept is not None:
        yield f"cut what is damaged out of packed-refs; it is kept as {kept.name}"
    yield from _renew_objects(writes)
    with writes.database.as_owner() as tx:
        known = {slug for (slug,) in tx.tuples(verify.SLUGS, project=repository.project)}
    slugs = sorted(slug for slug in known | set(repository.slugs()) if is_slug(slug))
    for done, slug in enumerate(slugs):
        if progress is not None:
            progress(done, len(slugs))
        with writes.database.as_owner(locks_of(repository, [slug])) as tx:
            rebuild.begin_upkeep(tx)
            marks.load(tx, repository, [slug])
            said = [*_Repair(tx, repository, slug).carry_out()]
        yield from said
    if progress is not None:
        progress(len(slugs), len(slugs))
    report = full_pass(writes)
    for slug in sorted({fact.slug for fact in report.facts}):
        yield f"{slug}: its rows were behind Git, and follow now"
    for slug, error in report.failures.items():
        yield f"{slug}: its rows can't follow yet: {error.message}"


def start_above(writes: MirrorUnitOfWork, slug: str, number: int, origin: Origin) -> int:
    """Raise the number mark of `slug` to `number`; return the number of its next version, which is higher.

    For versions that neither Git nor the database records, since both were restored to an older state. Raises
    `malformed` for an invalid slug or number.
    """
    if not is_slug(slug) or not 0 < number < HIGHEST_NUMBER:
        message = f"a workflow's slug and a number from 1 to {HIGHEST_NUMBER - 1} are needed"
        raise MalformedError(message)
    repository = writes.repository
    with writes.database.as_owner(locks_of(repository, [slug])) as tx:
        rebuild.begin_upkeep(tx)
        marks.load(tx, repository, [slug])
        marks.raise_to(tx, repository, slug, number)
        if not list(verify.contradictions(tx, repository, slug)):
            rebuild.correct(tx, repository, slug)  # the number of an open draft has changed
        audit.note(tx, repository.project, origin, "workflow.numbers_raised", slug, {"above": number})
        return derive.agreed(repository, slug).next_number


def _renew_objects(writes: MirrorUnitOfWork) -> Iterator[str]:
    """Replace damaged objects in the database by those in Git."""
    with writes.database.as_owner() as tx:
        damaged = git_objects.survey(tx, writes.repository.project).damaged
        if damaged:
            rebuild.begin_upkeep(tx)
            git_objects.renew(tx, writes.repository, damaged)
    for oid in damaged:
        yield f"object {oid}: its bytes in the database were damaged, and were replaced where Git has them"


class _Repair:
    """Repair of one workflow, under its lock. The ledger is restored first: it records the tags' targets."""

    def __init__(self, tx: Transaction, repository: WritableRepository, slug: str) -> None:
        self._tx = tx
        self._repository = repository
        self._slug = slug
        self._workflow = workflow_id(repository.project, slug)
        row = tx.tuples(_WORKFLOW, project=repository.project, slug=slug)
        self._draft, self._ledger, *self._given = row[0] if row else (None, None, None, None)
        self._rows = dict(tx.tuples(_PUBLISHED, workflow=self._workflow))

    def carry_out(self) -> Iterator[str]:
        yield from self._restore_ledger()
        try:
            entries = list(self._repository.ledger(self._slug))
        except GitstoreError:
            return  # without the ledger, the intended state is unknown
        lost = self._tx.tuples(_LOST, workflow=self._workflow)
        given_up = {number for number, *_ in lost}
        for number, oid in sorted(self._tags(entries).items()):
            if number not in given_up:
                yield from self._restore(names.tag(self._slug, number), oid)
        yield from self._restore_draft(entries)
        if lost and not any(verify.contradictions(self._tx, self._repository, self._slug)):
            yield from self._publish_again(lost, entries)
        if count := git_objects.keep_missing(self._tx, self._repository, self._slug):
            yield f"{self._slug}: stored the objects of {count} version{'s'[: count != 1]} in the database"

    def _restore_ledger(self) -> Iterator[str]:
        name, held = names.ledger(self._slug), self._read(names.ledger(self._slug))
        if self._ledger is None or self._knows(held, self._ledger):
            return
        try:
            yield from self._write_back(name, self._ledger.encode())
        except GitstoreError:
            return  # the ledger that the database records cannot be read either
        if not self._knows(self._ledger.encode(), self._ledger):
            return
        if held:
            beside = self._repository.superseded(self._slug, datetime.now(UTC))
            self._repository.refs.restore(beside, held)
            yield f"{names.show(name)}: what stood there is kept as {names.show(beside)}"
        yield from self._restore(name, self._ledger)

    def _knows(self, tip: bytes | None, entry: str) -> bool:
        """Return whether the whole ledger at `tip` is readable and contains `entry`."""
        try:
            return entry in {found.oid for found in self._repository.ledger_from(tip or None)}
        except GitstoreError:
            return False

    def _tags(self, entries: list[LedgerEntry]) -> dict[int, str]:
        """Return the target that each version's tag must hold, by number.

        This is the target that its row (or its existing tag) and the ledger agree on; without either, the
        target in the ledger, if a later entry presupposes the publication.
        """
        tags = self._repository.version_tags(self._slug)
        found: dict[int, str] = {}
        newer: LedgerEntry | None = None
        for entry in entries:
            number, target = entry.version, entry.target
            if entry.kind is LedgerKind.PUBLISHED and number is not None and target is not None:
                known = self._rows.get(number, tags.get(number))
                if known is None and number not in found and verify.presumed(number, newer):
                    known = target
                if known != target:
                    continue  # left by a killed process, or a conflict for a person to decide
                found.setdefault(number, target)
            newer = entry
        return found

    def _restore_draft(self, entries: Sequence[LedgerEntry]) -> Iterator[str]:
        """Restore the draft's branch if it is missing, damaged, or behind the commit that the row records."""
        name, known = names.draft(self._slug), self._draft
        held = self._read(name)
        ends = (LedgerKind.DISCARDED, LedgerKind.RESTORED)
        newest = next((e.kind for e in entries if e.kind in ends and e.target == known), None)
        if known is None or newest is LedgerKind.DISCARDED:
            return
        if not held or self._is_behind(held, known.encode()):
            yield from self._restore(name, known)

    def _is_behind(self, held: bytes, known: bytes) -> bool:
        try:
            return held != known and self._repository.objects.is_ancestor(held, known)
        except GitstoreError:
            return False  # one of the two is missing in Git

    def _restore(self, name: bytes, oid: str) -> Iterator[str]:
        """Restore the ref `name` to `oid`, after writing back the objects that Git lacks."""
        held = self._read(name)
        try:
            yield from self._write_back(name, oid.encode())
            if held == oid.encode():
                return
            commit = self._repository.objects.peel(oid.encode())[0]
            if not name.startswith(names.LEDGERS):
                self._repository.snapshot(self._slug, commit.decode())
        except GitstoreError as error:
            yield f"{names.show(name)}: not put back: {error.message}"
            return
        if held == b"":
            self._repository.refs.restore(name, oid.encode())
        elif self._repository.refs.update([RefUpdate(name, held, oid.encode())]):
            raise changes.concurrent_update([name])
        if name.startswith(names.DRAFTS) and self._read(self._repository.refs.head() or b"") is None:
            self._repository.refs.point_head(name)
        before = "it was gone" if held is None else f"it held {held.decode() or 'no object id'}"
        yield f"{names.show(name)}: put back to {oid} ({before})"

    def _write_back(self, name: bytes, tip: bytes) -> Iterator[str]:
        """Write the objects of `tip` that Git lacks from the database. Raises `objects_missing`."""
        if self._is_whole(tip):
            return
        missing = git_objects.missing_below(self._tx, self._repository, tip)
        if not missing:
            return
        objects = self._repository.objects
        (objects.write_pack if len(missing) > _MANY else objects.write)(missing)
        count = f"{len(missing)} object{'s'[: len(missing) != 1]}"
        yield f"{names.show(name)}: {count} written back from the database"

    def _is_whole(self, tip: bytes) -> bool:
        """Return whether Git has `tip` and, if that is a version or a draft, its definition."""
        objects = self._repository.objects
        if tip not in objects:
            return False
        try:
            commit = objects.commit(objects.peel(tip)[0])
            return self._repository.locate(commit, self._slug)[1] in objects
        except GitstoreError as error:
            # Damage or a missing definition: no object to write back.
            return not isinstance(error, ObjectsMissingError)

    def _publish_again(
        self, lost: Sequence[tuple[Any, ...]], entries: Sequence[LedgerEntry]
    ) -> Iterator[str]:
        """Publish the recoverable versions among `lost` again, as they were.

        This corrects rows, so the caller must have checked for contradictions, which it would hide.
        """
        recorded = {(entry.version, entry.target) for entry in entries if entry.kind is LedgerKind.PUBLISHED}
        found = False
        for number, oid, message, by, at in lost:
            name = names.tag(self._slug, number)
            held = self._read(name)
            try:
                if held is None:
                    yield from self._write_back(name, oid.encode())
                    self._repository.snapshot(
                        self._slug, self._repository.objects.peel(oid.encode())[0].decode()
                    )
                    recorder = ChangeSet(
                        self._repository, self._slug, Authorship(Person(by, ""), at, message)
                    )
                    if (number, oid) not in recorded:
                        self._record(recorder, number, oid)
                    recorder.move(name, None, oid.encode())
                    changes.write_one(self._repository, recorder)
                elif held != oid.encode():
                    continue
            except GitstoreError as error:
                yield f"{names.show(name)}: still lost: {error.message}"
                continue
            found = True
            yield f"{names.show(name)}: published again as {oid}, by {by}, as it was on {at:%Y-%m-%d}"
        if found:
            rebuild.correct(self._tx, self._repository, self._slug)

    def _record(self, recorder: ChangeSet, number: int, oid: str) -> None:
        """Append the publication of the version to the ledger, with its original actor and time."""
        recorder.create_unless_there(*self._given)
        before = recorder.newest.latest if recorder.newest else 0
        recorder.append(
            LedgerKind.PUBLISHED,
            version=number,
            target=oid,
            latest=max(before, number),
            after=before if number != before + 1 else None,
        )

    def _read(self, name: bytes) -> bytes | None:
        """Return the object id that the ref holds, None if it is missing, b"" if it is damaged."""
        try:
            return self._repository.refs.read(name)
        except GitstoreError:
            return b""
