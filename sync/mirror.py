"""The mirror: makes the rows of a workflow equal to its refs and its ledger.

It converges: it compares the rows with the refs and adds the missing rows and their events in the caller's
transaction. Running it twice changes nothing more. Its cost depends on the new ledger entries, not on the
number of versions. It never changes a published row. Where rows and Git contradict each other (a tag that is
gone or moved, a ledger that was rewritten), it raises `integrity` and writes nothing.

The caller holds the workflow's lock (unit_of_work.py), so that a `MirroredState` stays true until the write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Final, LiteralString
from uuid import UUID

from gitstore import names
from gitstore.model import LedgerEntry, LedgerKind, WorkflowState
from gitstore.names import version_id
from gitstore.repository import Repository
from sync import audit, derive, events, git_objects, marks, rows
from sync.audit import WORKER, Origin
from sync.db import Transaction
from sync.derive import LedgerDelta, Titles, VersionRow, WorkflowRow
from sync.events import Fact


@dataclass(frozen=True, slots=True)
class MirroredState(WorkflowRow):
    """The row of a workflow, with the numbers and refs of its current, newest and draft versions."""

    current_number: int | None
    top_number: int | None
    top_ref: str | None
    draft_number: int | None
    draft_row_commit: str | None

    def row(self) -> WorkflowRow:
        return WorkflowRow(**{field.name: getattr(self, field.name) for field in fields(WorkflowRow)})


STANDINGS: Final[LiteralString] = """
    select w.id, w.project_id, w.slug, w.name, w.description, w.current_version_id, w.held, w.created_at,
        w.updated_at, w.latest_number, w.given_name, w.given_description, w.draft_commit, w.ledger_oid,
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
    where w.project_id = %(project)s and w.slug = any(%(slugs)s)
"""
# Writes a batch of rows with their events and audit rows. The returned ids are of the versions written.
_WRITE: Final[LiteralString] = (
    "with workflow as (" + rows.UPSERT_WORKFLOWS + "), "  # noqa: S608 - of constants
    "version as (" + rows.UPSERT_VERSIONS + " returning v.id), "
    "marked as (" + marks.RAISE + "), "
    "noted as (" + audit.INSERT + "), " + events.MADE + " "
    "select (select array_agg(id) from version), (select count(*) from told)"
)
_DISCARD_DRAFT: Final[LiteralString] = """
    update gitstore.workflow_versions set state = 'discarded'
    where workflow_id = %(workflow)s and state = 'draft'
"""
_COMMIT_OF: Final[LiteralString] = "select commit_sha from gitstore.workflow_versions where id = %(id)s"


def mirrored_states(
    tx: Transaction, repository: Repository, slugs: Collection[str]
) -> dict[str, MirroredState]:
    """Return the mirrored state of each of `slugs` that has a row."""
    found = tx.rows(MirroredState, STANDINGS, project=repository.project, slugs=list(slugs))
    return {standing.slug: standing for standing in found}


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
        self._noted: list[dict[str, object]] = []
        self._objects: list[Iterator[git_objects.Item]] = []
        self._size = 0

    def add_workflow(
        self, row: WorkflowRow, facts: Sequence[Fact], noted: Sequence[dict[str, object]]
    ) -> None:
        self._workflows[row.id] = row
        self._facts += facts
        self._noted += noted

    def add_version(self, workflow: WorkflowRow, version: VersionRow) -> None:
        self._workflows[workflow.id] = workflow
        self._versions.append(version)
        self._size += len(self._repository.objects.blob(version.blob_sha.encode()))
        if len(self._versions) >= derive.BATCH or self._size > derive.LARGEST_BATCH:
            self.flush()

    def add_objects(self, objects: Iterator[git_objects.Item]) -> None:
        """Add Git objects to store in Postgres. They are read when the batch is written."""
        self._objects.append(objects)

    def flush(self) -> None:
        """Write the batch. Raises `integrity` where a version's row is published already."""
        git_objects.keep(self.tx, self._repository.project, chain.from_iterable(self._objects))
        if self._workflows:
            written = self.tx.value(
                _WRITE,
                workflows=rows.of(list(self._workflows.values())),
                versions=rows.of(self._versions),
                marks=marks.values(self._repository, self._highest()),
                events=rows.as_json(events.values(self._facts)),
                noted=rows.as_json(self._noted),
            )
            known = {row.id for row in self._versions} - set(written or ())
            for version in self._versions:
                if version.id in known:
                    raise derive.contradiction(
                        self._workflows[version.workflow_id].slug,
                        f"the database holds v{version.version_number}, which the ledger has only now",
                    )
        self._clear()

    def _highest(self) -> dict[str, int]:
        """Return the highest published number of each slug in the batch."""
        highest: dict[str, int] = {}
        for version in self._versions:
            if version.published_at is not None:
                slug = self._workflows[version.workflow_id].slug
                highest[slug] = max(highest.get(slug, 0), version.version_number)
        return highest


def converge(
    batch: Batch, repository: Repository, slug: str, standing: MirroredState | None, origin: Origin
) -> list[Fact]:
    """Add the rows, events and audit rows that `slug` lacks beyond `standing` to `batch`.

    Returns the facts, oldest first; audit rows name `origin`. Raises `integrity` where rows and Git
    contradict each other.
    """
    if standing is not None:
        check(repository, standing)
    known = (standing.draft_commit, standing.ledger_oid) if standing is not None else (None, None)
    if tips(repository, slug) == known or (standing is None and not repository.exists(slug)):
        return []
    state = repository.state(slug)
    if standing is not None and standing.latest_number > state.latest:
        what = f"the database knows v{standing.latest_number}, and the ledger does not"
        raise derive.contradiction(slug, what)
    news = derive.ledger_delta(repository, slug, standing.ledger_oid if standing else None)
    if standing is not None:
        derive.check_draft(standing.draft_commit, state.draft, slug, news)
    if standing is not None and not news.entries and standing.draft_commit == state.draft:
        return []
    return _Change(batch, repository, state, news, standing, origin).carry_out()


def check(repository: Repository, standing: MirroredState) -> None:
    """Raise `integrity` where the rows of a workflow contradict each other or their newest version's tag.

    Constant cost at any number of versions; `gitstore verify` compares all of them.
    """
    slug, latest = standing.slug, standing.latest_number
    if (standing.top_number or 0) != latest:
        raise derive.contradiction(
            slug, f"its row says that v{latest} is the latest, and v{standing.top_number} is"
        )
    if latest:
        held = repository.refs.read(names.tag(slug, latest))
        if held is None or held.decode() != standing.top_ref:
            what = f"its tag holds {held.decode()}" if held else "its tag is gone"
            raise derive.contradiction(
                slug, f"the database knows v{latest} as {standing.top_ref}, and {what}"
            )
    if standing.draft_number is not None and standing.draft_row_commit != standing.draft_commit:
        raise derive.contradiction(slug, "the draft's row is not of the commit that the workflow's row names")


class _Change:
    """The rows that one workflow lacks."""

    def __init__(
        self,
        batch: Batch,
        repository: Repository,
        state: WorkflowState,
        news: LedgerDelta,
        standing: MirroredState | None,
        origin: Origin,
    ) -> None:
        self._batch = batch
        self._tx = batch.tx
        self._repository = repository
        self._state = state
        self._news = news
        self._standing = standing
        self._origin = origin
        self._published = news.published()
        self._basis: VersionRow | None = None

    def carry_out(self) -> list[Fact]:
        state, standing = self._state, self._standing
        draft = derive.draft_row(self._repository, state)
        titles = self._titles(draft)
        row = derive.workflow_row(
            self._repository, state, self._news, titles, draft, standing.row() if standing else None
        )
        self._discard_draft([entry.version for entry in self._published], draft)
        happened: dict[str, Fact] = {}
        for version in self._versions(row, happened):
            self._batch.add_version(row, version)
        if draft is not None:
            self._batch.add_version(row, draft)
        self._batch.add_objects(self._new_objects())
        facts = self._facts(row, draft, happened)
        self._batch.add_workflow(row, facts, [self._noted(fact) for fact in facts])
        return facts

    def _new_objects(self) -> Iterator[git_objects.Item]:
        """Yield the objects of new publications and ledger entries; objects of drafts are not stored."""
        standing, newest = self._standing, self._news.newest
        top = standing.top_ref if standing else None
        before = self._repository.objects.peel(top.encode())[0] if top and self._published else None
        for entry in self._published:
            target = entry.target or ""
            yield from git_objects.of_publication(self._repository, self._state.slug, target, before)
            before = self._repository.objects.peel(target.encode())[0]
        known = standing.ledger_oid if standing else None
        yield from git_objects.of_ledger(self._repository, newest.oid if newest else None, known)

    def _versions(self, row: WorkflowRow, happened: dict[str, Fact]) -> Iterator[VersionRow]:
        """Yield the rows of new publications, and add their facts to `happened` by ledger entry."""
        for entry in self._published:
            version = self._derive(entry)
            happened[entry.oid] = events.published(row, version, entry)
            yield version

    def _discard_draft(self, published: Sequence[int | None], draft: VersionRow | None) -> None:
        """Mark the row of a draft as discarded where the draft is gone or has another number."""
        standing = self._standing
        kept = [*published, draft.version_number] if draft else published
        if standing is not None and standing.draft_number not in (None, *kept):
            self._tx.run(_DISCARD_DRAFT, workflow=standing.id)

    def _derive(self, entry: LedgerEntry) -> VersionRow:
        if self._basis is not None and self._basis.version_number == entry.version:
            return self._basis
        return derive.published_row(self._repository, self._state.slug, entry)

    def _titles(self, draft: VersionRow | None) -> Titles:
        """Return the name and description in the definition that supplies the workflow's title."""
        number, standing = derive.basis(self._state), self._standing
        if number is None:
            return derive.titles_of(draft.definition if draft else None)
        if standing is not None and number == (standing.current_number or standing.latest_number):
            # The title comes from the same version as before: a save need not parse it again.
            return Titles(standing.name, standing.description)
        new = next((entry for entry in self._published if entry.version == number), None)
        if new is not None:
            self._basis = derive.published_row(self._repository, self._state.slug, new)
            return derive.titles_of(self._basis.definition)
        # Current moved back to a version that was mirrored earlier.
        commit = self._tx.value(_COMMIT_OF, id=version_id(standing.id, number)) if standing else None
        if commit is None:
            raise derive.contradiction(self._state.slug, f"the database lacks v{number}, which is current")
        parsed = self._repository.snapshot(self._state.slug, commit).definition
        return derive.titles_of(parsed.value if parsed else None)

    def _noted(self, fact: Fact) -> dict[str, object]:
        """Return the audit row of a fact. For a fact that is mirrored later, Git names the actor."""
        by = replace(WORKER, actor_name=fact.actor) if self._origin is WORKER else self._origin
        return audit.values(fact.project_id, by, fact.type.value, fact.object, {"event": str(fact.id)})

    def _facts(self, row: WorkflowRow, draft: VersionRow | None, published: dict[str, Fact]) -> list[Fact]:
        standing = self._standing
        current = standing.current_number if standing else None
        facts: list[Fact] = []
        for entry in self._news.entries:
            if entry.oid in published:
                facts.append(published[entry.oid])
            if entry.current != current:
                facts.append(events.current_changed(row, current, entry))
                current = entry.current
            if entry.kind is LedgerKind.DISCARDED:
                facts.append(events.draft_discarded(row, entry))
        # A draft that was discarded and restored since then has an unchanged commit.
        discarded = any(entry.kind is LedgerKind.DISCARDED for entry in self._news.entries)
        if draft is not None and (standing is None or discarded or standing.draft_commit != draft.commit_sha):
            facts.append(events.draft_updated(row, draft))
        return facts
