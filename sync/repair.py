"""Bringing refs back from those who remember: the ledger what each tag held, a row what the ledger held, too.

A ref is put back where the witnesses agree and the objects are there; what they contradict each other on is
left for a person. Nothing is deleted: a ledger that was put in the place of the one that the database knows
is kept as a superseded ref. Afterwards the rows catch up, and what still differs is what `verify` finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final, LiteralString

from gitstore import names
from gitstore.disk.mending import mend_packed_refs
from gitstore.errors import Code, GitstoreError
from gitstore.model import LedgerEntry, LedgerKind
from gitstore.reading import Reading
from gitstore.versions import is_slug
from sync import verify
from sync.db import Transaction
from sync.writing import MirroredWrites, locks_of

Progress = Callable[[int, int], None]

_WORKFLOW: Final[LiteralString] = """
    select draft_commit, ledger_oid from gitstore.workflows where project_id = %(project)s and slug = %(slug)s
"""
_PUBLISHED: Final[LiteralString] = """
    select v.version_number, v.ref_oid
    from gitstore.workflow_versions v join gitstore.workflows w on w.id = v.workflow_id
    where w.project_id = %(project)s and w.slug = %(slug)s and v.state = 'published'
"""


def repair(writes: MirroredWrites, progress: Progress | None = None) -> Iterator[str]:
    """Bring back every ref of a project that can be; says what was done, a sentence each."""
    reading = writes.reading
    with writes.maintenance():
        kept = mend_packed_refs(reading.path, f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    if kept is not None:
        yield f"cut what is damaged out of packed-refs; it is kept as {kept.name}"
    with writes.database.as_owner() as tx:
        known = {slug for (slug,) in tx.tuples(verify.SLUGS, project=reading.project)}
    slugs = sorted(slug for slug in known | set(reading.slugs()) if is_slug(slug))
    for done, slug in enumerate(slugs):
        if progress is not None:
            progress(done, len(slugs))
        with writes.database.as_owner(locks_of(reading, [slug])) as tx:
            said = [*_Repair(tx, reading, slug).carry_out()]
        yield from said
        if said:
            yield from _mirrored(writes, slug)
    if progress is not None:
        progress(len(slugs), len(slugs))


def _mirrored(writes: MirroredWrites, slug: str) -> Iterator[str]:
    try:
        writes.mirror_again([slug])
    except GitstoreError as error:
        if error.code is not Code.INTEGRITY:
            raise
        yield f"{slug}: its rows can't follow yet: {error.message}"


class _Repair:
    """One workflow, under its lock. The ledger first: it is the tags' witness."""

    def __init__(self, tx: Transaction, reading: Reading, slug: str) -> None:
        self._reading = reading
        self._slug = slug
        row = tx.tuples(_WORKFLOW, project=reading.project, slug=slug)
        self._draft, self._ledger = row[0] if row else (None, None)
        self._rows = dict(tx.tuples(_PUBLISHED, project=reading.project, slug=slug))

    def carry_out(self) -> Iterator[str]:
        yield from self._restore_ledger()
        try:
            entries = list(self._reading.ledger(self._slug))
        except GitstoreError:
            return  # without it, nobody knows what was meant to be
        for number, oid in sorted(self._tags(entries).items()):
            yield from self._restore(names.tag(self._slug, number), oid)
        ends = (LedgerKind.DISCARDED, LedgerKind.RESTORED)
        newest = next((e.kind for e in entries if e.kind in ends and e.target == self._draft), None)
        held = self._read(names.draft(self._slug))
        if held in (None, b"") and self._draft is not None and newest is not LedgerKind.DISCARDED:
            yield from self._restore(names.draft(self._slug), self._draft)

    def _restore_ledger(self) -> Iterator[str]:
        name, held = names.ledger(self._slug), self._read(names.ledger(self._slug))
        if self._ledger is None or self._knows(held, self._ledger):
            return
        if not self._knows(self._ledger.encode(), self._ledger):
            return  # what the database knows can't be read either
        if held:
            beside = self._reading.superseded(self._slug, datetime.now(UTC))
            self._reading.refs.restore(beside, held)
            yield f"{names.show(name)}: what stood there is kept as {names.show(beside)}"
        yield from self._restore(name, self._ledger)

    def _knows(self, tip: bytes | None, entry: str) -> bool:
        """Whether the whole ledger below `tip` can be read, with `entry` in it."""
        try:
            return entry in {found.oid for found in self._reading.ledger_from(tip or None)}
        except GitstoreError:
            return False

    def _tags(self, entries: list[LedgerEntry]) -> dict[int, str]:
        """What each version's tag is to hold: what its row knows and the ledger does not deny; without a row,
        what entries that came after it were written knowing."""
        tags = self._reading.version_tags(self._slug)
        found: dict[int, str] = {}
        newer: LedgerEntry | None = None
        for entry in entries:
            number, target = entry.version, entry.target
            if entry.kind is LedgerKind.PUBLISHED and number is not None and target is not None:
                known = self._rows.get(number, tags.get(number))
                if known is None and number not in found and verify.presumed(number, newer):
                    known = target
                if known != target:
                    continue  # what a kill left, or what a person has to decide
                found.setdefault(number, target)
            newer = entry
        return found

    def _restore(self, name: bytes, oid: str) -> Iterator[str]:
        held = self._read(name)
        if held == oid.encode():
            return
        try:
            commit = self._reading.objects.peel(oid.encode())[0]
            if not name.startswith(names.LEDGERS):
                self._reading.snapshot(self._slug, commit.decode())
        except GitstoreError as error:
            yield f"{names.show(name)}: not put back: {error.message}"
            return
        self._reading.refs.restore(name, oid.encode())
        before = "it was gone" if held is None else f"it held {held.decode() or 'no object id'}"
        yield f"{names.show(name)}: put back to {oid} ({before})"

    def _read(self, name: bytes) -> bytes | None:
        """What the ref holds; b"" where it is damaged."""
        try:
            return self._reading.refs.read(name)
        except GitstoreError:
            return b""
