"""The mirror: makes the rows of a workflow equal to its refs and its ledger.

It converges: it compares the rows with the refs and adds the missing rows and their events in the caller's
transaction. Running it twice changes nothing more. Its cost depends on the new ledger entries, not on the
number of versions. It never changes a published row. Where rows and Git contradict each other (a tag that is
gone or moved, a ledger that was rewritten), it raises `integrity` and writes nothing.

The caller holds the workflow's lock (unit_of_work.py), so that a `MirroredState` stays true until the write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import Final, LiteralString
from uuid import UUID

from gitstore import names
from gitstore.model import LedgerEntry, LedgerKind, WorkflowState
from gitstore.names import version_id
from gitstore.repository import Repository, message_of
from sync import audit, derive, environments, events, git_objects, rows, states
from sync.audit import WORKER, AuditRow, Origin
from sync.db import Transaction
from sync.derive import LedgerDelta, Titles
from sync.environments import EnvironmentRow, PointerMove
from sync.events import Fact
from sync.rows import NumberMark, VersionRow, WorkflowRow
from sync.states import Annotation, Yank


@dataclass(frozen=True, slots=True)
class MirroredState(WorkflowRow):
    """The row of a workflow, with the numbers and refs of its current, newest and draft versions."""

    current_number: int | None
    top_number: int | None
    top_ref: str | None
    draft_number: int | None
    draft_row_commit: str | None


MIRRORED_STATES: Final[LiteralString] = (
    rows.select(WorkflowRow, "w.")  # noqa: S608 - of constants
    + """,
        current.version_number as current_number,
        top.version_number as top_number, top.ref_oid as top_ref,
        draft.version_number as draft_number, draft.commit_sha as draft_row_commit
    from gitstore.workflows w
    left join gitstore.workflow_versions current on current.id = w.current_version_id
    left join gitstore.workflow_versions draft on draft.workflow_id = w.id and draft.state = 'draft'
    left join lateral (
        select v.version_number, v.ref_oid from gitstore.workflow_versions v
        where v.workflow_id = w.id and v.state = 'published' order by v.version_number desc limit 1
    ) top on true
    where w.project_id = %(project)s and w.id = any(%(ids)s)
"""
)
# Writes a batch of rows with their events and audit rows. The returned ids are of the versions written.
_WRITE: Final[LiteralString] = (
    "with workflow as (" + rows.UPSERT_WORKFLOWS + "), "  # noqa: S608 - of constants
    "version as (" + rows.UPSERT_VERSIONS + " returning stored.id), "
    "marked as (" + rows.RAISE_MARKS + "), "
    "audited as (" + audit.INSERT + "), " + events.MADE + " "
    "select (select array_agg(id) from version), (select count(*) from notified)"
)
_DISCARD_DRAFT: Final[LiteralString] = """
    update gitstore.workflow_versions set state = 'discarded'
    where workflow_id = %(workflow)s and state = 'draft'
"""
_COMMIT_OF: Final[LiteralString] = "select commit_sha from gitstore.workflow_versions where id = %(id)s"


def mirrored_states(
    tx: Transaction, repository: Repository, slugs: Collection[str]
) -> dict[str, MirroredState]:
    """Return the mirrored state of each of `slugs` that has a row, perhaps with a former name in it."""
    ids = {slug: repository.identity(slug) for slug in slugs}
    found = tx.rows(MirroredState, MIRRORED_STATES, project=repository.project, ids=list(set(ids.values())))
    return by_slug(found, ids)


def by_slug(found: Iterable[MirroredState], ids: Mapping[str, UUID]) -> dict[str, MirroredState]:
    """Return what `MIRRORED_STATES` found of the workflows `ids`, by slug."""
    states = {state.id: state for state in found}
    return {slug: states[identity] for slug, identity in ids.items() if identity in states}


def tips(repository: Repository, slug: str) -> tuple[str | None, str | None]:
    """Return the tips of the draft and the ledger of `slug`. Every change of a workflow moves one of them."""
    draft, ledger = (repository.refs.read(name) for name in (names.draft(slug), names.ledger(slug)))
    return draft.decode() if draft else None, ledger.decode() if ledger else None


class Batch:
    """Rows of one or several workflows, with their events, that are written in one statement.

    It is written when it is full (`derive.BATCH` rows, or as many bytes of definitions as may be in memory)
    and by `flush`, which the caller calls last.
    """

    def __init__(self, tx: Transaction, repository: Repository) -> None:
        self.tx = tx
        self._repository = repository
        self._clear()

    def _clear(self) -> None:
        self._workflows: dict[UUID, WorkflowRow] = {}
        self._versions: list[VersionRow] = []
        self._facts: list[Fact] = []
        self._audit: list[AuditRow] = []
        self._objects: list[Iterator[git_objects.Item]] = []
        self._pointers: dict[UUID, Mapping[str, EnvironmentRow | None]] = {}
        self._states: list[Yank | Annotation] = []
        self._size = 0

    def add_workflow(self, row: WorkflowRow, facts: Sequence[Fact], audit: Sequence[AuditRow]) -> None:
        self._workflows[row.id] = row
        self._facts += facts
        self._audit += audit

    def add_version(self, workflow: WorkflowRow, version: VersionRow) -> None:
        self._workflows[workflow.id] = workflow
        self._versions.append(version)
        self._size += len(self._repository.objects.blob(version.blob_sha.encode()))
        if len(self._versions) >= derive.BATCH or self._size > derive.LARGEST_BATCH:
            self.flush()

    def add_objects(self, objects: Iterator[git_objects.Item]) -> None:
        """Add Git objects to store in Postgres. They are read when the batch is written."""
        self._objects.append(objects)

    def add_pointers(self, workflow: UUID, pointers: Mapping[str, EnvironmentRow | None]) -> None:
        """Add the pointers that moved, by environment; None for one that was removed."""
        if pointers:
            self._pointers[workflow] = pointers

    def add_states(self, changes: Sequence[Yank | Annotation]) -> None:
        """Add what changed about versions after their publication."""
        self._states += changes

    def flush(self) -> None:
        """Write the batch. Raises `integrity` where a version's row is published already."""
        git_objects.keep(self.tx, self._repository.project, chain.from_iterable(self._objects))
        if self._workflows:
            written = self.tx.value(
                _WRITE,
                workflows=rows.as_json(self._workflows.values()),
                versions=rows.as_json(self._versions),
                marks=rows.as_json(self._marks()),
                events=events.as_json(self._facts),
                audit=rows.as_json(self._audit),
            )
            known = {row.id for row in self._versions} - set(written or ())
            for version in self._versions:
                if version.id in known:
                    raise derive.contradiction(
                        self._workflows[version.workflow_id].slug,
                        f"the database holds v{version.version_number}, which the ledger has only now",
                    )
        for workflow, pointers in self._pointers.items():
            environments.write(self.tx, workflow, pointers)
        states.write(self.tx, self._states)
        self._clear()

    def _marks(self) -> list[NumberMark]:
        """Return the mark of each workflow that the batch publishes a version of."""
        marks: dict[UUID, NumberMark] = {}
        for row in sorted(self._versions, key=attrgetter("version_number")):
            if row.published_at is not None:
                marks[row.workflow_id] = NumberMark(row.workflow_id, row.project_id, row.version_number)
        return list(marks.values())


def converge(
    batch: Batch, repository: Repository, slug: str, mirrored: MirroredState | None, origin: Origin
) -> list[Fact]:
    """Add the rows, events and audit rows that `slug` lacks beyond `mirrored` to `batch`.

    Returns the facts, oldest first; audit rows name `origin`. Raises `integrity` where rows and Git
    contradict each other.
    """
    if tips(repository, slug) == (None, None) and repository.renamed_to(slug) is not None:
        return []  # a former name
    if mirrored is not None:
        check(repository, slug, mirrored)
    known = (mirrored.draft_commit, mirrored.ledger_oid) if mirrored is not None else (None, None)
    moved = tips(repository, slug) != known
    if mirrored is None and not (moved and repository.exists(slug)):
        return []
    edited = mirrored is not None and not follows_ledger(
        repository, slug, mirrored.current_number, held=mirrored.held
    )
    if not moved and not edited:
        return []
    state = repository.state(slug)
    if mirrored is not None and mirrored.latest_number > state.latest:
        problem = f"the database records v{mirrored.latest_number}, which the ledger lacks"
        raise derive.contradiction(slug, problem)
    delta = derive.ledger_delta(repository, slug, mirrored.ledger_oid if mirrored else None)
    if mirrored is not None:
        derive.check_draft(mirrored.draft_commit, state.draft, slug, delta)
    if mirrored is not None and not delta.entries and not edited and mirrored.draft_commit == state.draft:
        return []
    return _Change(batch, repository, state, delta, mirrored, origin).carry_out()


def follows_ledger(repository: Repository, slug: str, current: int | None, *, held: bool) -> bool:
    """Return whether the row of a workflow has the current version that the ledger names, and `held` so.

    A row that differs, though no ref has moved, was changed by SQL.
    """
    entry = repository.newest_counting(slug)
    return (current, held) == ((entry.current, entry.held) if entry else (None, False))


def check(repository: Repository, slug: str, mirrored: MirroredState) -> None:
    """Raise `integrity` where the rows of a workflow contradict each other or their newest version's tag.

    Constant cost at any number of versions; `gitstore verify` compares all of them.
    """
    latest = mirrored.latest_number
    problem = None
    if (mirrored.top_number or 0) != latest:
        problem = (
            f"its row records v{latest} as the latest version, but the newest row is v{mirrored.top_number}"
        )
    elif latest:
        held = repository.refs.read(repository.tag(slug, latest))
        if held is None or held.decode() != mirrored.top_ref:
            tag = f"its tag holds {held.decode()}" if held else "its tag is missing"
            problem = f"the database records v{latest} as {mirrored.top_ref}, but {tag}"
    if problem is None and mirrored.draft_number and mirrored.draft_row_commit != mirrored.draft_commit:
        problem = "the rows of the workflow and of its draft record different commits"
    if problem is not None:
        raise derive.contradiction(slug, problem)


@dataclass(slots=True)
class _Change:
    """The rows that one workflow lacks: `before` is its mirrored state, `delta` its new ledger entries."""

    batch: Batch
    repository: Repository
    state: WorkflowState
    delta: LedgerDelta
    before: MirroredState | None
    origin: Origin
    _titling: VersionRow | None = None

    def carry_out(self) -> list[Fact]:
        draft = derive.draft_row(self.repository, self.state)
        published = self.delta.published()
        titles = self._titles(published, draft)
        row = derive.workflow_row(self.repository, self.state, self.delta, titles, draft, self.before)
        self._discard_draft([entry.version for entry in published], draft)
        publications: dict[str, list[Fact]] = {}  # by ledger entry
        for entry in published:
            version = self._version(entry)
            saved = [self._saved(row, version, entry)] if entry.saved else []
            publications[entry.oid] = [*saved, events.published(row, version, entry)]
            self.batch.add_version(row, version)
        if draft is not None:
            self.batch.add_version(row, draft)
        self.batch.add_objects(self._new_objects(published))
        self.batch.add_pointers(row.id, environments.derive(row.project_id, row.id, self.delta))
        self.batch.add_states(states.changes(row.project_id, row.id, self.delta.entries))
        facts = self._facts(row, draft, publications)
        self.batch.add_workflow(row, facts, [self._audit_row(fact) for fact in facts])
        return facts

    def _saved(self, row: WorkflowRow, version: VersionRow, entry: LedgerEntry) -> Fact:
        """Return the event of the draft that a publication saved, as a save of its own has it."""
        commit = self.repository.objects.commit(version.commit_sha.encode())
        draft = replace(version, message=message_of(commit))
        return events.draft_updated(replace(row, ledger_oid=entry.parent), draft)

    def _new_objects(self, published: Sequence[LedgerEntry]) -> Iterator[git_objects.Item]:
        """Yield the objects of new publications and ledger entries; objects of drafts are not stored."""
        repository, newest = self.repository, self.delta.newest
        top, known = (self.before.top_ref, self.before.ledger_oid) if self.before else (None, None)
        previous = repository.objects.peel(top.encode())[0] if top and published else None
        for entry in published:
            target = entry.target or ""
            yield from git_objects.of_publication(repository, self.state.slug, target, previous)
            previous = repository.objects.peel(target.encode())[0]
        yield from git_objects.of_ledger(repository, newest.oid if newest else None, known)

    def _discard_draft(self, published: Sequence[int | None], draft: VersionRow | None) -> None:
        """Mark the row of a draft as discarded where the draft is gone or has another number."""
        kept = [*published, draft.version_number] if draft else published
        if self.before is not None and self.before.draft_number not in (None, *kept):
            self.batch.tx.run(_DISCARD_DRAFT, workflow=self.before.id)

    def _version(self, entry: LedgerEntry) -> VersionRow:
        if self._titling is not None and self._titling.version_number == entry.version:
            return self._titling
        return derive.published_row(self.repository, self.state.slug, entry)

    def _titles(self, published: Sequence[LedgerEntry], draft: VersionRow | None) -> Titles:
        """Return the name and description in the definition that supplies the workflow's title."""
        number, before, slug = derive.title_number(self.state), self.before, self.state.slug
        if number is None:
            return derive.titles_of(draft.definition if draft else None)
        naming = (LedgerKind.DESCRIBED, LedgerKind.RENAMED)
        described = any(entry.kind in naming for entry in self.delta.entries)
        if before and not described and number == (before.current_number or before.latest_number):
            # The title comes from the same version as before: a save need not parse it again.
            return Titles(before.name, before.description)
        new = next((entry for entry in published if entry.version == number), None)
        if new is not None:
            self._titling = self._version(new)
            return derive.titles_of(self._titling.definition)
        # A version that was mirrored earlier: current moved back to it, or the given title was taken back.
        commit = self.batch.tx.value(_COMMIT_OF, id=version_id(before.id, number)) if before else None
        if commit is None:
            raise derive.contradiction(slug, f"the database lacks v{number}, which is current")
        parsed = self.repository.snapshot(slug, commit).definition
        return derive.titles_of(parsed.value if parsed else None)

    def _audit_row(self, fact: Fact) -> AuditRow:
        """Return the audit row of a fact. For a fact that is mirrored later, Git names the actor."""
        by = replace(WORKER, actor_name=fact.actor) if self.origin is WORKER else self.origin
        return audit.row(fact.project_id, by, fact.type.value, fact.object, {"event": str(fact.id)})

    def _facts(
        self, row: WorkflowRow, draft: VersionRow | None, published: dict[str, list[Fact]]
    ) -> list[Fact]:
        before = self.before
        current = before.current_number if before else None
        facts: list[Fact] = []
        discarded = False
        moved: dict[str, list[PointerMove]] = {}
        for move in environments.moves(self.delta):
            moved.setdefault(move.entry.oid, []).append(move)
        for entry in self.delta.entries:
            facts += published.get(entry.oid, ())
            if entry.current != current:
                facts.append(events.current_changed(row, current, entry))
                current = entry.current
            for move in moved.get(entry.oid, ()):
                facts.append(events.environment_changed(row, entry, move.name, move.before, move.after))
            if entry.kind is LedgerKind.RENAMED:
                facts.append(events.renamed(row, entry))
            if entry.kind is LedgerKind.DESCRIBED:
                facts.append(events.updated(row, entry))
            if (changed := events.state_changed(row, entry)) is not None:
                facts.append(changed)
            if entry.kind is LedgerKind.DISCARDED:
                facts.append(events.draft_discarded(row, entry))
                discarded = True
        # A draft that was discarded and restored since then has an unchanged commit.
        if draft is not None and (before is None or discarded or before.draft_commit != draft.commit_sha):
            facts.append(events.draft_updated(row, draft))
        return facts
