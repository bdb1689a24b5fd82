"""Read-only verification: tags against the ledger and their objects, and rows against both.

A difference is checked again under the workflow's lock before it is reported, so that a concurrent write is
not reported as damage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, Final, LiteralString

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from gitstore import names
from gitstore.definition.quoting import quote
from gitstore.errors import GitstoreError, IntegrityError
from gitstore.git.maintenance import fsck
from gitstore.git.packed_refs import packed_refs_damaged
from gitstore.model import LedgerEntry, LedgerKind
from gitstore.names import VersionRef, is_slug
from gitstore.repository import Repository
from sync import derive, git_objects, marks
from sync.db import Database, Transaction
from sync.derive import VersionRow, WorkflowRow
from sync.unit_of_work import locks_of

Progress = Callable[[int, int], None]

REBUILD: Final = "gitstore rebuild makes the rows again from Git"
ACCEPT: Final = (
    "Run gitstore repair, which puts back what is remembered; to take what Git and its ledger agree on "
    "instead: gitstore rebuild --accept-git"
)
RECONCILE: Final = "Run gitstore repair, which adds it now; a running gitstore does so within a day"
RESTORE: Final = (
    "Run gitstore repair, which restores refs, and the objects that the database keeps; get others from a "
    "clone or a backup (git fetch), then run gitstore verify again"
)
RENEW: Final = "Run gitstore repair, which stores it anew from Git"

REPOSITORY: Final = "(repository)"
BATCH: Final = 100
_OID: Final = re.compile(r"\b[0-9a-f]{40}\b")

SLUGS: Final[LiteralString] = "select slug from gitstore.workflows where project_id = %(project)s"
_WORKFLOW: Final[LiteralString] = """
    select * from gitstore.workflows where project_id = %(project)s and slug = %(slug)s
"""
_NUMBERS: Final[LiteralString] = """
    select v.version_number, v.state, v.ref_oid
    from gitstore.workflow_versions v join gitstore.workflows w on w.id = v.workflow_id
    where w.project_id = %(project)s and w.slug = %(slug)s
"""
_TO_KEEP: Final[LiteralString] = """
    select w.slug, v.version_number, v.ref_oid
    from gitstore.workflow_versions v join gitstore.workflows w on w.id = v.workflow_id
    where w.project_id = %(project)s and v.state in ('published', 'lost') order by w.slug, v.version_number
"""
_TIPS: Final[LiteralString] = """
    select draft_commit, ledger_oid from gitstore.workflows where project_id = %(project)s and slug = %(slug)s
"""
# Postgres compares the definitions: 1e2 and 100 are the same jsonb.
_VERSIONS: Final[LiteralString] = """
    select v.id, v.workflow_id, v.project_id, v.version_number, v.state, v.created_at, v.published_at,
        v.commit_sha, v.ref_oid, v.tree_sha, v.blob_sha, v.file_name, v.digest, v.valid, v.message,
        v.author_name, v.author_email, v.published_by,
        v.definition is not distinct from expected.definition as same_definition
    from unnest(%(ids)s::uuid[], %(definitions)s::jsonb[]) as expected (id, definition)
    join gitstore.workflow_versions v on v.id = expected.id
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference: its place, a description, and advice on how to resolve it."""

    workflow: str
    version: int | None
    what: str
    advice: str

    def __str__(self) -> str:
        where = self.workflow if self.version is None else f"{self.workflow}/v{self.version}"
        return f"{where}: {self.what}. {self.advice}"


def verify(database: Database, repository: Repository, progress: Progress | None = None) -> Iterator[Finding]:
    """Yield every difference in one project; nothing if there are no differences."""
    with database.as_owner() as tx:
        known = {slug for (slug,) in tx.tuples(SLUGS, project=repository.project)}
    slugs = sorted(known | set(repository.slugs()))
    said: list[str] = []
    for done, slug in enumerate(slugs):
        if progress is not None:
            progress(done, len(slugs))
        for finding in _verify_one(database, repository, slug):
            said.append(finding.what)
            yield finding
    yield from _by_git(repository, "\n".join(said))
    with database.as_owner() as tx:
        damaged = git_objects.survey(tx, repository.project).damaged
    for oid in damaged:
        yield Finding(REPOSITORY, None, f"the bytes of object {oid} in the database are damaged", RENEW)
    if progress is not None:
        progress(len(slugs), len(slugs))


def unrecoverable(database: Database, repository: Repository) -> Iterator[str]:
    """Yield a line for each version that could not be restored from the database alone, with the reason.

    These lines are not differences.
    """
    with database.as_owner() as tx:
        kept = git_objects.survey(tx, repository.project)
        for slug, number, ref in tx.tuples(_TO_KEEP, project=repository.project):
            if why := kept.lacks(ref):
                yield f"{slug}/v{number}: {why}"


def unknown_entries(repository: Repository) -> Iterator[str]:
    """Yield a line for each ledger entry of an unknown kind, written by a newer gitstore. Not differences."""
    for slug in repository.slugs():
        with suppress(GitstoreError):  # damage, which `verify` reports
            for entry in repository.ledger(slug):
                if not isinstance(entry.kind, LedgerKind):
                    kind = quote(entry.kind)
                    yield f"{slug}: ledger entry {entry.oid} is of the unknown kind {kind}; its state is used"


def _by_git(repository: Repository, said: str) -> Iterator[Finding]:
    """Yield errors in refs and objects that git reports, except those of objects named in `said`."""
    if packed_refs_damaged(repository.path):
        yield Finding(REPOSITORY, None, "packed-refs is damaged, and git reads none of it", RESTORE)
        return
    for line in fsck(repository.path):
        oids = _OID.findall(line)
        if not oids or not any(oid in said for oid in oids):
            yield Finding(REPOSITORY, None, f"git fsck: {line}", RESTORE)


def _verify_one(database: Database, repository: Repository, slug: str) -> list[Finding]:
    if not is_slug(slug):
        return [Finding(slug, None, "has refs, but no workflow may be called so", "delete those refs")]
    with database.as_owner() as tx:
        if not list(differences(tx, repository, slug)):
            return []
    with database.as_owner(locks_of(repository, [slug])) as tx:
        return list(differences(tx, repository, slug))


def differences(tx: Transaction, repository: Repository, slug: str) -> Iterator[Finding]:
    """Yield the differences between Git, its ledger and the rows of one workflow."""
    marks.load(tx, repository, [slug])
    contradicting = list(contradictions(tx, repository, slug))
    yield from contradicting
    # A contradiction about a version (or, without a number, the ledger) explains other differences about it.
    explained = {finding.version for finding in contradicting}
    for finding in _against_git(tx, repository, slug):
        if not contradicting or (finding.version is not None and finding.version not in explained):
            yield finding


def contradictions(tx: Transaction, repository: Repository, slug: str) -> Iterator[Finding]:
    """Yield contradictions of Git with its ledger or with recorded rows, which a rebuild must not hide."""
    damaged = _damaged_tags(repository, slug)
    given_up = _given_up(tx, repository, slug)
    for number in sorted(damaged):
        yield Finding(slug, number, "its tag is damaged on disk", ACCEPT)
    said: set[str] = set()
    for differences in (_git_against_ledger(repository, slug), _git_against_rows(tx, repository, slug)):
        try:
            for finding in differences:
                if finding.version not in damaged | given_up:
                    yield finding
        except GitstoreError as error:
            if error.message not in said:
                yield Finding(slug, None, error.message, RESTORE)
            said.add(error.message)


def _given_up(tx: Transaction, repository: Repository, slug: str) -> set[int]:
    """Return the versions already recorded as lost; their missing tags are not reported again."""
    numbers = tx.tuples(_NUMBERS, project=repository.project, slug=slug)
    lost = {number for number, state, _ in numbers if state == "lost"}
    return lost - set(repository.version_tags(slug)) if lost else set()


def _damaged_tags(repository: Repository, slug: str) -> set[int]:
    _, damaged = repository.refs.survey(names.tags_of(slug))
    return {ref.number for ref in map(names.parse, damaged) if isinstance(ref, VersionRef)}


def _git_against_ledger(repository: Repository, slug: str) -> Iterator[Finding]:
    """Yield tags that the ledger lacks or records with another target, and publications without their tag."""
    tags = repository.version_tags(slug)
    said: dict[int, LedgerEntry] = {}
    newer: LedgerEntry | None = None
    for entry in repository.ledger(slug):
        number = entry.version if entry.kind is LedgerKind.PUBLISHED else None
        counts = number is None or tags.get(number) == entry.target
        if number is not None and (counts or number not in said):
            if not counts and number not in tags and presumed(number, newer):
                what = f"is published by the ledger ({entry.oid}), and its tag is gone"
                yield Finding(slug, number, what, ACCEPT)
                counts = True
            said[number] = entry
        if counts:
            newer = entry
    for number, oid in tags.items():
        if number not in said:
            yield Finding(slug, number, f"has a tag ({oid}) that the ledger does not know", ACCEPT)
        elif said[number].target != oid:
            what = f"its tag holds {oid}, and the ledger says {said[number].target}"
            yield Finding(slug, number, what, ACCEPT)


def presumed(number: int, newer: LedgerEntry | None) -> bool:
    """Return whether `newer`, the next entry that counts, presupposes that v<number> was published.

    Otherwise the process was killed between the publishing entry and its tag, and nothing was published.
    """
    if newer is None:
        return False
    if newer.kind is not LedgerKind.PUBLISHED:
        return newer.latest >= number
    return number in (newer.after, (newer.version or 0) - 1)  # an import may leave a gap


def _git_against_rows(tx: Transaction, repository: Repository, slug: str) -> Iterator[Finding]:
    """Yield published rows that record another tag, and workflow rows that record another ledger or draft."""
    tags = repository.version_tags(slug)
    for number, state, ref in tx.tuples(_NUMBERS, project=repository.project, slug=slug):
        if state == "published" and tags.get(number) != ref:
            now = f"its tag holds {tags[number]}" if number in tags else "it has no tag"
            yield Finding(slug, number, f"the database knows it as {ref}, and {now}", ACCEPT)
    for draft, entry in tx.tuples(_TIPS, project=repository.project, slug=slug):
        try:
            news = derive.ledger_delta(repository, slug, entry)
            held = repository.refs.read(names.draft(slug))
            derive.check_draft(draft, held.decode() if held else None, slug, news)
        except GitstoreError as error:
            contradicts = isinstance(error, IntegrityError) and error.workflow
            yield Finding(slug, None, error.message, ACCEPT if contradicts else RESTORE)


def _against_git(tx: Transaction, repository: Repository, slug: str) -> Iterator[Finding]:
    """Yield rows that differ from those derived from Git, that is from what tags and ledger agree on."""
    with tx.connection.cursor(row_factory=dict_row) as cursor:
        there = cursor.execute(_WORKFLOW, {"project": repository.project, "slug": slug}).fetchone()
    numbers = {n: state for n, state, _ in tx.tuples(_NUMBERS, project=repository.project, slug=slug)}
    published = [number for number, state in numbers.items() if state in ("published", "lost")]
    if max(published, default=0) > (mark := repository.floors.get(slug, 0)):
        held = f"v{mark}" if mark else "missing"
        what = f"v{max(published)} was published, and the mark of its numbers is {held}"
        yield Finding(slug, None, what, REBUILD)
    try:
        derived = derive.everything(repository, slug, derive.agreed(repository, slug))
    except GitstoreError as error:
        yield Finding(slug, None, error.message, RESTORE)
        return
    if derived is None:
        # After `rebuild --accept-git`, the row names no refs and its versions are lost.
        if there is not None and (there["ledger_oid"] or there["draft_commit"] or there["latest_number"]):
            yield Finding(slug, None, "has rows, and Git knows no such workflow", ACCEPT)
        return
    row, entries, draft = derived
    if there is None:
        yield Finding(slug, None, "has no row", RECONCILE)
    elif (there["ledger_oid"], there["draft_commit"]) != (row.ledger_oid, row.draft_commit):
        yield Finding(slug, None, "its rows are behind Git", RECONCILE)
        return
    else:
        yield from _compare(slug, None, row, there)
    for start in range(0, len(entries), BATCH):
        batch, unreadable = _readable(repository, slug, entries[start : start + BATCH])
        yield from unreadable
        yield from _compare_versions(tx, slug, batch, numbers)
    if draft is not None:
        yield from _compare_versions(tx, slug, [draft], numbers)
    expected = {entry.version for entry in entries} | ({draft.version_number} if draft else set())
    kept = {number for number, state in numbers.items() if state in ("lost", "discarded")}
    for number in sorted(set(numbers) - expected - kept):
        yield Finding(slug, number, f"has a row ({numbers[number]}) that nothing in Git calls for", REBUILD)


def _readable(
    repository: Repository, slug: str, entries: Sequence[LedgerEntry]
) -> tuple[list[VersionRow], list[Finding]]:
    """Return the rows derived from `entries`, and a finding for each entry whose objects cannot be read."""
    rows, unreadable = [], []
    for entry in entries:
        try:
            rows.append(derive.published_row(repository, slug, entry))
        except GitstoreError as error:
            unreadable.append(Finding(slug, entry.version, error.message, RESTORE))
    return rows, unreadable


def _compare_versions(
    tx: Transaction, slug: str, batch: Sequence[VersionRow], numbers: Mapping[int, str]
) -> Iterator[Finding]:
    definitions = [Jsonb(row.definition) if row.definition is not None else None for row in batch]
    with tx.connection.cursor(row_factory=dict_row) as cursor:
        values = {"ids": [row.id for row in batch], "definitions": definitions}
        there = {row["id"]: row for row in cursor.execute(_VERSIONS, values)}
    for row in batch:
        if row.id in there:
            yield from _compare(slug, row.version_number, row, there[row.id])
        elif row.version_number in numbers:
            yield Finding(slug, row.version_number, "its row has another id than it should", REBUILD)
        else:
            yield Finding(slug, row.version_number, "has no row", RECONCILE)


def _compare(
    slug: str, number: int | None, row: WorkflowRow | VersionRow, there: Mapping[str, Any]
) -> Iterator[Finding]:
    for field in fields(row):
        if field.name == "definition":
            if not there["same_definition"]:
                what = "the definition in the database is not the one that its tag holds"
                yield Finding(slug, number, what, REBUILD)
        elif there[field.name] != getattr(row, field.name):
            by_git = getattr(row, field.name)
            what = f"{field.name} is {there[field.name]!s} in the database, and {by_git!s} by Git"
            yield Finding(slug, number, what, REBUILD)
