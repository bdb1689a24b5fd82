"""Read-only verification: tags against the ledger and their objects, and rows against both.

A difference is checked again under the workflow's lock before it is reported, so that a concurrent write is
not reported as damage.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Final, LiteralString

from gitstore import names, pending
from gitstore.definition.quoting import quote
from gitstore.errors import GitstoreError, IntegrityError
from gitstore.git.maintenance import fsck
from gitstore.git.packed_refs import packed_refs_damaged
from gitstore.model import LedgerEntry, LedgerKind
from gitstore.names import VersionRef, is_slug
from gitstore.repository import Repository
from sync import derive, environments, git_objects, releases, rows, states
from sync.db import Database, Transaction
from sync.integrity import checks
from sync.integrity.processes import in_groups
from sync.reconcile import Progress
from sync.rows import Recorded, VersionInfo, VersionRow, WorkflowRow
from sync.states import StateRow
from sync.unit_of_work import locks_of

REBUILD: Final = "Run gitstore rebuild, which recreates the rows from Git"
ACCEPT: Final = (
    "Run gitstore repair, which restores the recorded state; to accept the state that Git and its ledger "
    "agree on instead, run gitstore rebuild --accept-git"
)
RECONCILE: Final = "Run gitstore repair, which adds it now; a running gitstore does so within a day"
RESTORE: Final = (
    "Run gitstore repair, which restores refs, and objects that the database stores; get others from a clone "
    "or a backup (git fetch), then run gitstore verify again"
)
RENEW: Final = "Run gitstore repair, which stores it again from Git"

REPOSITORY: Final = "(repository)"
BATCH: Final = 100
_OID: Final = re.compile(r"\b[0-9a-f]{40}\b")

_TO_KEEP: Final[LiteralString] = """
    select w.slug, v.version_number, v.ref_oid
    from gitstore.workflow_versions v join gitstore.workflows w on w.id = v.workflow_id
    where w.project_id = %(project)s and v.state in ('published', 'lost') order by w.slug, v.version_number
"""
# Postgres compares the definitions: 1e2 and 100 are the same jsonb.
_STORED: Final[LiteralString] = (
    rows.select(VersionInfo, "v.")
    + """,
        v.definition is not distinct from nullif(expected.text, 'null')::jsonb
        and coalesce(v.definition_text = expected.text, v.definition_text is null) as same_definition
    from jsonb_to_recordset(%(expected)s) as expected (id uuid, text text)
    join gitstore.workflow_versions v on v.id = expected.id
"""
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference: its place, a description, and advice on how to resolve it."""

    workflow: str
    version: int | None
    problem: str
    advice: str

    def __str__(self) -> str:
        where = self.workflow if self.version is None else f"{self.workflow}/v{self.version}"
        return f"{where}: {self.problem}. {self.advice}"


@dataclass(frozen=True, slots=True)
class _Stored(VersionInfo):
    """A stored version, and whether its definition equals the expected one."""

    same_definition: bool


@dataclass(slots=True)
class Notes:
    """What a full run notices that is no difference, a line for each.

    `unrecoverable` are the versions that could not be restored from the database alone, with the reason;
    `unknown` the ledger entries of an unknown kind, written by a newer gitstore.
    """

    unrecoverable: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Group:
    """The result of a group of workflows."""

    findings: list[Finding]
    unknown: list[str]


def verify(
    database: Database,
    repository: Repository,
    progress: Progress | None = None,
    *,
    full: bool = True,
    notes: Notes | None = None,
) -> Iterator[Finding]:
    """Yield every difference in one project; nothing if there are no differences.

    Unless `full`, workflows that did not change since they were found in order are passed over, and objects
    that nothing changed are not read. A full run continues one that was killed, and adds to `notes`.
    """
    if not full:
        yield from _workflows(database, repository, progress, None, Notes())
        yield from _whole(database, repository)
        return
    notes = notes if notes is not None else Notes()
    with ThreadPoolExecutor(2) as beside:  # both take as long as many groups of workflows
        in_git = beside.submit(lambda: list(fsck(repository.path)))
        in_database = beside.submit(_kept_objects, database, repository)
        with database.as_owner() as tx:
            since = checks.begin(tx, repository, "verify")
        reported = []
        for finding in _workflows(database, repository, progress, since, notes):
            reported.append(finding.problem)
            yield finding
        damaged_refs = yield from _whole(database, repository)
        if not damaged_refs:  # git reads none of the repository otherwise
            yield from _git_problems(in_git.result(), "\n".join(reported))
        damaged, notes.unrecoverable = in_database.result()
    with database.as_owner() as tx:
        checks.end(tx, repository, "verify")
    for oid in damaged:
        yield Finding(REPOSITORY, None, f"the bytes of object {oid} in the database are damaged", RENEW)


def _workflows(
    database: Database,
    repository: Repository,
    progress: Progress | None,
    since: datetime | None,
    notes: Notes,
) -> Iterator[Finding]:
    """Yield the differences of all workflows but those that were found in order, and are unchanged."""
    with database.as_owner() as tx:
        passed = checks.checked(tx, repository, "verify", since)
        slugs = [slug for slug in rows.slugs(tx, repository) if slug not in passed]
    for group in in_groups(_verify_group, database, repository, slugs, progress):
        notes.unknown += group.unknown
        yield from group.findings


def _whole(database: Database, repository: Repository) -> Generator[Finding, None, bool]:
    """Yield the differences of no single workflow; return whether packed-refs is damaged."""
    yield from _incomplete(database, repository)
    yield from _releases(database, repository)
    if damaged := packed_refs_damaged(repository.path):
        yield Finding(REPOSITORY, None, "packed-refs is damaged, and git reads none of it", RESTORE)
    return damaged


def unknown_entries(repository: Repository, slugs: Iterable[str]) -> Iterator[str]:
    """Yield a line for each ledger entry of an unknown kind, written by a newer gitstore. Not differences."""
    for slug in slugs:
        with suppress(GitstoreError):  # damage, which `verify` reports
            for entry in repository.ledger(slug):
                if not isinstance(entry.kind, LedgerKind):
                    kind = quote(entry.kind)
                    yield f"{slug}: ledger entry {entry.oid} is of the unknown kind {kind}; its state is used"


def unrecoverable(database: Database, repository: Repository) -> Iterator[str]:
    """Yield a line for each version that could not be restored from the database alone, with the reason.

    These lines are not differences.
    """
    _, lines = _kept_objects(database, repository)
    yield from lines


def _kept_objects(database: Database, repository: Repository) -> tuple[list[str], list[str]]:
    """Return the damaged objects in the database, and the lines of `unrecoverable`."""
    with database.as_owner() as tx:
        stored = git_objects.survey(tx, repository.project)
        versions = tx.tuples(_TO_KEEP, project=repository.project)
    lacking = ((f"{slug}/v{number}", stored.lacks(ref)) for slug, number, ref in versions)
    return stored.damaged, [f"{version}: {reason}" for version, reason in lacking if reason]


def _git_problems(lines: Iterable[str], reported: str) -> Iterator[Finding]:
    """Yield errors in refs and objects that git reports, except those of objects named in `reported`."""
    for line in lines:
        oids = _OID.findall(line)
        if not any(oid in reported for oid in oids):
            yield Finding(REPOSITORY, None, f"git fsck: {line}", RESTORE)


def _releases(database: Database, repository: Repository) -> Iterator[Finding]:
    """Yield the differences of releases, those that remain once their writers have finished."""
    with database.as_owner() as tx:
        named = [name for name, _, _ in releases.differences(tx, repository)]
    for start in range(0, len(named), BATCH):
        part = named[start : start + BATCH]
        with database.as_owner(locks_of(repository, [], part)) as tx:
            for name, problem, is_lost in releases.differences(tx, repository):
                if name in part:
                    yield Finding(f"release {name}", None, problem, ACCEPT if is_lost else REBUILD)


def _incomplete(database: Database, repository: Repository) -> Iterator[Finding]:
    """Yield the writes to several workflows that no process is completing."""
    try:
        for operation in pending.listed(repository):
            with database.as_owner(locks_of(repository, operation.slugs, operation.releases)):
                if repository.refs.read(operation.ref) is not None:
                    shown = f"{names.show(operation.ref)} is decided and not complete"
                    yield Finding(REPOSITORY, None, shown, RECONCILE)
    except IntegrityError as error:
        yield Finding(REPOSITORY, None, error.message, RESTORE)


def _verify_group(database: Database, repository: Repository, slugs: Sequence[str]) -> _Group:
    misnamed = [slug for slug in slugs if not is_slug(slug)]
    findings = [
        Finding(slug, None, "has refs, but is not a valid slug", "Delete those refs") for slug in misnamed
    ]
    # Tags are read once for the whole group, as of its beginning: a difference is looked at again.
    with database.as_owner() as tx, repository.refs.cached_reads():
        seen = checks.fingerprints(tx, repository, slugs)
        named = list(filter(is_slug, slugs))
        repository.preload(named)
        suspects = [slug for slug in named if any(differences(tx, repository, slug))]
        moved = list(environments.differences(tx, repository, _existing(repository, named)))
        unknown = {slug: list(unknown_entries(repository, [slug])) for slug in named}
        # A workflow with an unknown entry is compared each time, so that each run notes it.
        sound = {
            slug: fingerprint
            for slug, fingerprint in seen.items()
            if slug not in suspects and slug not in moved and not unknown.get(slug)
        }
        checks.record(tx, repository, "verify", sound)
    for slug in suspects:
        with database.as_owner(locks_of(repository, [slug])) as tx:
            findings += differences(tx, repository, slug)
    for slug in moved:
        with database.as_owner(locks_of(repository, [slug])) as tx:
            for _ in environments.differences(tx, repository, [slug]):
                shown = "its environments in the database differ from its ledger"
                findings.append(Finding(slug, None, shown, REBUILD))
    return _Group(findings, list(chain.from_iterable(unknown.values())))


def _existing(repository: Repository, slugs: Iterable[str]) -> list[str]:
    """Return those of `slugs` that have refs; of the others, the missing refs are reported."""
    found = []
    for slug in slugs:
        with suppress(GitstoreError):  # damage, which the comparison of versions reports
            if repository.exists(slug):
                found.append(slug)
    return found


def differences(tx: Transaction, repository: Repository, slug: str) -> Iterator[Finding]:
    """Yield the differences between Git, its ledger and the rows of one workflow."""
    rows.load_marks(tx, repository, [slug])
    recorded = rows.recorded(tx, repository, slug)
    contradicting = list(contradictions(repository, recorded))
    yield from contradicting
    # A contradiction about a version (or, without a number, the ledger) explains other differences about it.
    explained = {finding.version for finding in contradicting}
    for finding in _rows_against_git(tx, repository, recorded):
        if not contradicting or (finding.version is not None and finding.version not in explained):
            yield finding


def contradictions(repository: Repository, recorded: Recorded) -> Iterator[Finding]:
    """Yield contradictions of Git with its ledger or with recorded rows, which a rebuild must not hide."""
    slug = recorded.slug
    damaged_tags = [
        ref for name in repository.all_names(slug) for ref in repository.refs.survey(names.tags_of(name))[1]
    ]
    damaged = {ref.number for ref in map(names.parse, damaged_tags) if isinstance(ref, VersionRef)}
    for number in sorted(damaged):
        yield Finding(slug, number, "its tag is damaged on disk", ACCEPT)
    # The missing tags of versions that are recorded as lost are not reported again.
    lost = recorded.numbers("lost")
    ignored = damaged | (lost - set(repository.version_tags(slug)) if lost else set())
    reported: set[str] = set()
    for findings in (_git_against_ledger(repository, slug), _git_against_rows(repository, recorded)):
        try:
            for finding in findings:
                if finding.version not in ignored:
                    yield finding
        except GitstoreError as error:
            if error.message not in reported:
                yield Finding(slug, None, error.message, RESTORE)
            reported.add(error.message)


def _git_against_ledger(repository: Repository, slug: str) -> Iterator[Finding]:
    """Yield tags that the ledger lacks or records with another target, and publications without their tag."""
    tags = repository.version_tags(slug)
    publications: dict[int, LedgerEntry] = {}
    newer: LedgerEntry | None = None
    for entry in repository.ledger(slug):
        number = entry.version if entry.kind is LedgerKind.PUBLISHED else None
        counts = number is None or tags.get(number) == entry.target
        if number is not None and (counts or number not in publications):
            if not counts and number not in tags and presumed(number, newer):
                problem = f"the ledger records its publication ({entry.oid}), but its tag is missing"
                yield Finding(slug, number, problem, ACCEPT)
                counts = True
            publications[number] = entry
        if counts:
            newer = entry
    for number, oid in tags.items():
        if number not in publications:
            yield Finding(slug, number, f"the ledger does not record its tag ({oid})", ACCEPT)
        elif publications[number].target != oid:
            problem = f"its tag holds {oid}, but the ledger records {publications[number].target}"
            yield Finding(slug, number, problem, ACCEPT)


def presumed(number: int, newer: LedgerEntry | None) -> bool:
    """Return whether `newer`, the next entry that counts, presupposes that v<number> was published.

    Otherwise the process was killed between the publishing entry and its tag, and nothing was published.
    """
    if newer is None:
        return False
    if newer.kind is not LedgerKind.PUBLISHED:
        return newer.latest >= number
    return number in (newer.after, (newer.version or 0) - 1)  # an import may leave a gap


def _git_against_rows(repository: Repository, recorded: Recorded) -> Iterator[Finding]:
    """Yield published rows that record another tag, and workflow rows that record another ledger or draft."""
    slug, row = recorded.slug, recorded.workflow
    tags = repository.version_tags(slug)
    for number, version in recorded.versions.items():
        if version.state == "published" and tags.get(number) != version.ref_oid:
            tag = f"its tag holds {tags[number]}" if number in tags else "it has no tag"
            yield Finding(slug, number, f"the database records it as {version.ref_oid}, but {tag}", ACCEPT)
    if row is None:
        return
    try:
        delta = derive.ledger_delta(repository, slug, row.ledger_oid)
        held = repository.refs.read(names.draft(slug))
        derive.check_draft(row.draft_commit, held.decode() if held else None, slug, delta)
    except GitstoreError as error:
        contradicts = isinstance(error, IntegrityError) and error.workflow
        yield Finding(slug, None, error.message, ACCEPT if contradicts else RESTORE)


def _rows_against_git(tx: Transaction, repository: Repository, recorded: Recorded) -> Iterator[Finding]:
    """Yield rows that differ from those derived from Git, that is from what tags and ledger agree on."""
    slug, stored = recorded.slug, recorded.workflow
    highest = max(recorded.numbers("published", "lost"), default=0)
    if highest > (mark := repository.floors.get(slug, 0)):
        problem = f"v{highest} was published, but the number mark is {f'v{mark}' if mark else 'missing'}"
        yield Finding(slug, None, problem, REBUILD)
    try:
        derived = derive.workflow_rows(repository, slug)
    except GitstoreError as error:
        yield Finding(slug, None, error.message, RESTORE)
        return
    if derived is None:
        # After `rebuild --accept-git`, the row names no refs and its versions are lost.
        if stored is not None and (stored.ledger_oid or stored.draft_commit or stored.latest_number):
            yield Finding(slug, None, "has rows, but its refs are missing", ACCEPT)
        return
    row, entries, draft = derived.workflow, derived.entries, derived.draft
    if stored is None:
        yield Finding(slug, None, "has no row", RECONCILE)
    elif (stored.ledger_oid, stored.draft_commit) != (row.ledger_oid, row.draft_commit):
        yield Finding(slug, None, "its rows are behind Git", RECONCILE)
        return
    else:
        yield from _compare(slug, None, row, stored, rows.column_names(WorkflowRow))
        yield from _compare_states(slug, derived.states, states.stored(tx, row.id))
    for start in range(0, len(entries), BATCH):
        versions: list[VersionRow] = []
        for entry in entries[start : start + BATCH]:
            try:
                versions.append(derived.published_row(repository, entry))
            except GitstoreError as error:
                yield Finding(slug, entry.version, error.message, RESTORE)
        yield from _compare_versions(tx, recorded, versions)
    if draft is not None:
        yield from _compare_versions(tx, recorded, [draft])
    expected = {entry.version for entry in entries} | ({draft.version_number} if draft else set())
    for number in sorted(recorded.numbers("published", "draft") - expected):
        problem = f"has a row ({recorded.versions[number].state}) without a counterpart in Git"
        yield Finding(slug, number, problem, REBUILD)


def _compare_versions(
    tx: Transaction, recorded: Recorded, derived: Sequence[VersionRow]
) -> Iterator[Finding]:
    expected = rows.as_json({"id": row.id, "text": row.definition_text} for row in derived)
    matching = tx.rows(_Stored, _STORED, expected=expected)
    stored = {row.id: row for row in matching}
    for row in derived:
        if row.id in stored:
            yield from _compare(
                recorded.slug, row.version_number, row, stored[row.id], rows.column_names(VersionInfo)
            )
            if not stored[row.id].same_definition:
                problem = "its definition in the database differs from the one in Git"
                yield Finding(recorded.slug, row.version_number, problem, REBUILD)
        elif row.version_number in recorded.versions:
            yield Finding(recorded.slug, row.version_number, "its row has a wrong id", REBUILD)
        else:
            yield Finding(recorded.slug, row.version_number, "has no row", RECONCILE)


def _compare_states(slug: str, derived: Sequence[StateRow], stored: Sequence[StateRow]) -> Iterator[Finding]:
    """Yield the versions about which the database has another yank, title or notes than the ledger."""
    numbers = {row.version_number for row in set(derived) ^ set(stored)}
    for number in sorted(numbers):
        problem = "its yank, title or notes in the database differ from its ledger"
        yield Finding(slug, number, problem, REBUILD)


def _compare(
    slug: str, number: int | None, derived: object, stored: object, columns: Iterable[str]
) -> Iterator[Finding]:
    for name in columns:
        expected, value = getattr(derived, name), getattr(stored, name)
        if value != expected:
            problem = f"{name} is {value!s} in the database, but {expected!s} in Git"
            yield Finding(slug, number, problem, REBUILD)
