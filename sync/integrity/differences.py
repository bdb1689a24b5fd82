"""The differences of one workflow: tags against the ledger and their objects, and rows against both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

from gitstore import names
from gitstore.errors import GitstoreError, IntegrityError
from gitstore.model import LedgerEntry, LedgerKind
from gitstore.names import VersionRef
from gitstore.repository import Repository
from sync import derive, rows, states
from sync.db import Transaction
from sync.rows import Recorded, VersionInfo, VersionRow, WorkflowRow
from sync.states import StateRow

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

BATCH: Final = 100

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
