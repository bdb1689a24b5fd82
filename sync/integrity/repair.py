"""Repair of a repository that has lost refs or objects.

The ledger records the target of each tag, rows record the tips of the ledger as well, and the database has
the objects of every publication (sync/git_objects.py). A ref is restored if these records agree and its
objects exist or can be restored; a contradiction is left for a person to decide. Nothing is deleted: a
ledger that replaced the one recorded in the database is kept as a superseded ref. A version recorded as
`lost` is published again as it was. Finally, the rows are mirrored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

from gitstore import changes, names
from gitstore.changes import Authorship, ChangeSet
from gitstore.errors import GitstoreError, MalformedError, ObjectsMissingError
from gitstore.git.packed_refs import repair_packed_refs
from gitstore.git.refs import RefUpdate
from gitstore.model import LedgerEntry, LedgerKind, Person
from gitstore.names import HIGHEST_NUMBER, is_slug
from gitstore.repository import WritableRepository
from gitstore.system import now
from sync import audit, derive, git_objects, releases, rows
from sync.audit import Origin
from sync.db import Transaction
from sync.integrity import rebuild
from sync.integrity.differences import contradictions, presumed
from sync.reconcile import Progress, full_pass, tracked
from sync.rows import VersionRecord
from sync.unit_of_work import MirrorUnitOfWork, locks_of

_MANY: Final = 50  # objects; more than this are written as one pack, not as loose files


def repair(unit_of_work: MirrorUnitOfWork, progress: Progress | None = None) -> Iterator[str]:
    """Restore all recoverable versions and refs of a project; yield a line for each action."""
    repository, database = unit_of_work.repository, unit_of_work.database
    with unit_of_work.maintenance():
        damaged_file = repair_packed_refs(repository.path, f"{now():%Y%m%dT%H%M%S%f}")
    if damaged_file is not None:
        yield f"removed the damaged part of packed-refs; the original is kept as {damaged_file.name}"
    with database.upkeep() as tx:
        if damaged := git_objects.survey(tx, repository.project).damaged:
            git_objects.renew(tx, repository, damaged)
        slugs = [slug for slug in rows.slugs(tx, repository) if is_slug(slug)]
    for oid in damaged:
        yield f"object {oid}: its bytes in the database were damaged, and were replaced where Git has them"
    with closing(WritableRepository.of(repository)) as writable:
        for slug in tracked(slugs, progress):
            with database.upkeep(locks_of(writable, [slug])) as tx:
                rows.load_marks(tx, writable, [slug])
                lines = list(_Repair(tx, writable, slug).carry_out())
            yield from lines
        with database.upkeep(locks_of(writable, [])) as tx:
            lines = list(releases.restore(tx, writable))
        yield from lines
    report = full_pass(unit_of_work)
    for slug in sorted({fact.slug for fact in report.facts}):
        yield f"{slug}: its rows were behind Git, and were updated"
    for slug, error in report.failures.items():
        yield f"{slug}: its rows could not be updated: {error.message}"


def start_above(unit_of_work: MirrorUnitOfWork, slug: str, number: int, origin: Origin) -> int:
    """Raise the number mark of `slug` to `number`; return the number of its next version, which is higher.

    For versions that neither Git nor the database records, since both were restored to an older state. Raises
    `malformed` for an invalid slug or number.
    """
    if not is_slug(slug) or not 0 < number < HIGHEST_NUMBER:
        message = f"expected the slug of a workflow and a number from 1 to {HIGHEST_NUMBER - 1}"
        raise MalformedError(message)
    repository = unit_of_work.repository
    with unit_of_work.database.upkeep(locks_of(repository, [slug])) as tx:
        rows.load_marks(tx, repository, [slug])
        rows.raise_mark(tx, repository, slug, number)
        if not any(contradictions(repository, rows.recorded(tx, repository, slug))):
            rebuild.correct(tx, repository, [slug])  # the number of an open draft has changed
        audit.note(tx, repository.project, origin, "workflow.numbers_raised", slug, {"above": number})
        return derive.consistent_state(repository, slug).next_number


class _Repair:
    """Repair of one workflow, under its lock. The ledger is restored first: it records the tags' targets."""

    def __init__(self, tx: Transaction, repository: WritableRepository, slug: str) -> None:
        self._tx = tx
        self._repository = repository
        self._slug = slug
        self._recorded = rows.recorded(tx, repository, slug)
        self._row = self._recorded.workflow

    def carry_out(self) -> Iterator[str]:
        yield from self._restore_ledger()
        try:
            entries = list(self._repository.ledger(self._slug))
        except GitstoreError:
            return  # without the ledger, the intended state is unknown
        lost = self._recorded.numbers("lost")
        for number, oid in sorted(self._targets(entries).items()):
            if number not in lost:
                yield from self._restore(self._repository.tag(self._slug, number), oid)
        yield from self._restore_draft(entries)
        if lost and not any(contradictions(self._repository, self._recorded)):
            yield from self._publish_again(
                [self._recorded.versions[number] for number in sorted(lost)], entries
            )
        if count := git_objects.keep_missing(self._tx, self._repository, [self._slug]):
            yield f"{self._slug}: stored the objects of {count} version{'s'[: count != 1]} in the database"

    def _restore_ledger(self) -> Iterator[str]:
        name, held = names.ledger(self._slug), self._read(names.ledger(self._slug))
        recorded = self._row.ledger_oid if self._row else None
        if recorded is None or self._contains(held, recorded):
            return
        try:
            yield from self._restore_objects(name, recorded.encode())
        except GitstoreError:
            return  # the ledger that the database records cannot be read either
        if not self._contains(recorded.encode(), recorded):
            return
        if held:
            superseded = self._repository.superseded(self._slug, now())
            self._repository.refs.restore(superseded, held)
            yield f"{names.show(name)}: its previous value is kept as {names.show(superseded)}"
        yield from self._restore(name, recorded)

    def _contains(self, tip: bytes | None, entry: str) -> bool:
        """Return whether the whole ledger at `tip` is readable and contains `entry`."""
        try:
            return entry in {each.oid for each in self._repository.ledger_from(tip or None)}
        except GitstoreError:
            return False

    def _targets(self, entries: list[LedgerEntry]) -> dict[int, str]:
        """Return the target that each version's tag must hold, by number.

        This is the target that its row (or its existing tag) and the ledger agree on; without either, the
        target in the ledger, if a later entry presupposes the publication.
        """
        tags = self._repository.version_tags(self._slug)
        published = self._recorded.numbers("published")
        targets: dict[int, str] = {}
        newer: LedgerEntry | None = None
        for entry in entries:
            number, target = entry.version, entry.target
            if entry.kind is LedgerKind.PUBLISHED and number is not None and target is not None:
                known = self._recorded.versions[number].ref_oid if number in published else tags.get(number)
                if known is None and number not in targets and presumed(number, newer):
                    known = target
                if known != target:
                    continue  # left by a killed process, or a conflict for a person to decide
                targets.setdefault(number, target)
            newer = entry
        return targets

    def _restore_draft(self, entries: Sequence[LedgerEntry]) -> Iterator[str]:
        """Restore the draft's branch if it is missing, damaged, or behind the commit that the row records."""
        name, known = names.draft(self._slug), self._row.draft_commit if self._row else None
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
        """Restore the ref `name` to `oid`, after restoring the objects that Git lacks."""
        held = self._read(name)
        try:
            yield from self._restore_objects(name, oid.encode())
            if held == oid.encode():
                return
            commit = self._repository.objects.peel(oid.encode())[0]
            if not name.startswith(names.LEDGERS):
                self._repository.snapshot(self._slug, commit.decode())
        except GitstoreError as error:
            yield f"{names.show(name)}: not restored: {error.message}"
            return
        if held == b"":
            self._repository.refs.restore(name, oid.encode())
        elif self._repository.refs.update([RefUpdate(name, held, oid.encode())]):
            raise changes.concurrent_update([name])
        if name.startswith(names.DRAFTS) and self._read(self._repository.refs.head() or b"") is None:
            self._repository.refs.point_head(name)
        before = "was missing" if held is None else f"held {held.decode() or 'no object id'}"
        yield f"{names.show(name)}: restored to {oid} ({before})"

    def _restore_objects(self, name: bytes, tip: bytes) -> Iterator[str]:
        """Write the objects of `tip` that Git lacks from the database. Raises `objects_missing`."""
        if self._is_whole(tip):
            return
        missing = git_objects.missing_below(self._tx, self._repository, tip)
        if not missing:
            return
        objects = self._repository.objects
        (objects.write_pack if len(missing) > _MANY else objects.write)(missing)
        count = f"{len(missing)} object{'s'[: len(missing) != 1]}"
        yield f"{names.show(name)}: {count} restored from the database"

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

    def _publish_again(self, lost: Sequence[VersionRecord], entries: Sequence[LedgerEntry]) -> Iterator[str]:
        """Publish the recoverable versions among `lost` again, as they were.

        This corrects rows, so the caller must have checked for contradictions, which it would hide.
        """
        recorded = {(entry.version, entry.target) for entry in entries if entry.kind is LedgerKind.PUBLISHED}
        republished = False
        for version in lost:
            name, oid = self._repository.tag(self._slug, version.version_number), version.ref_oid
            held = self._read(name)
            try:
                if held is None:
                    yield from self._restore_objects(name, oid.encode())
                    self._republish(version, in_ledger=(version.version_number, oid) in recorded)
                elif held != oid.encode():
                    continue
            except GitstoreError as error:
                yield f"{names.show(name)}: still lost: {error.message}"
                continue
            republished = True
            by, on = version.published_by, f"{version.published_at:%Y-%m-%d}"
            yield f"{names.show(name)}: published again as {oid}, by {by}, as it was on {on}"
        if republished:
            rebuild.correct(self._tx, self._repository, [self._slug])

    def _republish(self, version: VersionRecord, *, in_ledger: bool) -> None:
        """Restore the version's tag and its ledger entry, with the original actor and time."""
        assert version.published_by is not None  # noqa: S101 - of a lost version
        assert version.published_at is not None  # noqa: S101
        number, target = version.version_number, version.ref_oid
        commit = self._repository.objects.peel(target.encode())[0]
        self._repository.snapshot(self._slug, commit.decode())  # raises if it cannot be served
        authorship = Authorship(Person(version.published_by, ""), version.published_at, version.message)
        change = ChangeSet(self._repository, self._slug, authorship)
        if not in_ledger:
            row = self._row
            change.create_unless_there(*((row.given_name, row.given_description) if row else (None, None)))
            before = change.newest.latest if change.newest else 0
            change.append(
                LedgerKind.PUBLISHED,
                version=number,
                target=target,
                latest=max(before, number),
                after=before if number != before + 1 else None,
            )
        change.move(self._repository.tag(self._slug, number), None, target.encode())
        changes.write_one(self._repository, change)

    def _read(self, name: bytes) -> bytes | None:
        """Return the object id that the ref holds, None if it is missing, b"" if it is damaged."""
        try:
            return self._repository.refs.read(name)
        except GitstoreError:
            return b""
