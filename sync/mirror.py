"""The mirror: makes the rows of a workflow equal to its refs and its ledger.

It converges: it compares what the rows say with where Git stands, and adds what they lack, with its
events, in the caller's transaction. Twice is once, and the cost is that of what is new: the newest ledger
entries, never all versions. It never changes a published row. Where rows and Git contradict each other
(a tag that is gone or moved, a ledger that was rewritten), it raises `integrity` and touches nothing.

The caller holds the workflow's lock (sync/writing.py), so that a `Standing` stays true until it writes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, LiteralString

from psycopg.types.json import Jsonb

from gitstore import names
from gitstore.model import LedgerEntry, LedgerKind, WorkflowState
from gitstore.reading import Reading
from gitstore.versions import version_id
from sync import derive, events
from sync.db import Transaction
from sync.derive import Story, Titles, VersionRow, WorkflowRow
from sync.events import Fact

BATCH: Final = 100


@dataclass(frozen=True, slots=True)
class Standing(WorkflowRow):
    """The row of a workflow, and what its versions' rows say of its newest ones."""

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
UPSERT_WORKFLOW: Final[LiteralString] = """
    insert into gitstore.workflows (id, project_id, slug, name, description, current_version_id, held,
        created_at, updated_at, latest_number, given_name, given_description, draft_commit, ledger_oid)
    values (%(id)s, %(project_id)s, %(slug)s, %(name)s, %(description)s, %(current_version_id)s, %(held)s,
        %(created_at)s, %(updated_at)s, %(latest_number)s, %(given_name)s, %(given_description)s,
        %(draft_commit)s, %(ledger_oid)s)
    on conflict (id) do update set name = excluded.name, description = excluded.description,
        current_version_id = excluded.current_version_id, held = excluded.held,
        created_at = excluded.created_at, updated_at = excluded.updated_at,
        latest_number = excluded.latest_number, given_name = excluded.given_name,
        given_description = excluded.given_description, draft_commit = excluded.draft_commit,
        ledger_oid = excluded.ledger_oid
"""
# A draft's row becomes the published one, and is derived anew when another commit takes its number.
UPSERT_VERSION: Final[LiteralString] = """
    insert into gitstore.workflow_versions as v (id, workflow_id, project_id, version_number, state,
        created_at, published_at, commit_sha, ref_oid, tree_sha, blob_sha, file_name, digest, definition,
        valid, message, author_name, author_email, published_by)
    values (%(id)s, %(workflow_id)s, %(project_id)s, %(version_number)s, %(state)s, %(created_at)s,
        %(published_at)s, %(commit_sha)s, %(ref_oid)s, %(tree_sha)s, %(blob_sha)s, %(file_name)s, %(digest)s,
        %(definition)s, %(valid)s, %(message)s, %(author_name)s, %(author_email)s, %(published_by)s)
    on conflict (id) do update set state = excluded.state, created_at = excluded.created_at,
        published_at = excluded.published_at, commit_sha = excluded.commit_sha, ref_oid = excluded.ref_oid,
        tree_sha = excluded.tree_sha, blob_sha = excluded.blob_sha, file_name = excluded.file_name,
        digest = excluded.digest, definition = excluded.definition, valid = excluded.valid,
        message = excluded.message, author_name = excluded.author_name,
        author_email = excluded.author_email, published_by = excluded.published_by
    where v.state = 'draft'
"""
_DELETE_DRAFT: Final[LiteralString] = """
    delete from gitstore.workflow_versions where workflow_id = %(workflow)s and state = 'draft'
        and version_number <> all(%(kept)s)
"""
_COMMIT_OF: Final[LiteralString] = "select commit_sha from gitstore.workflow_versions where id = %(id)s"


def standings(tx: Transaction, reading: Reading, slugs: Collection[str]) -> dict[str, Standing]:
    """What the rows of `slugs` say; those without a row are absent."""
    found = tx.rows(Standing, STANDINGS, project=reading.project, slugs=list(slugs))
    return {standing.slug: standing for standing in found}


def tips(reading: Reading, slug: str) -> tuple[str | None, str | None]:
    """Where the draft and the ledger of `slug` stand: nothing happens to a workflow without one moving."""
    draft, ledger = (reading.refs.read(name) for name in (names.draft(slug), names.ledger(slug)))
    return draft.decode() if draft else None, ledger.decode() if ledger else None


def converge(tx: Transaction, reading: Reading, slug: str, standing: Standing | None) -> list[Fact]:
    """Add to the rows of `slug` what Git says beyond `standing`; returns what happened, oldest first.

    Raises `integrity` where the two contradict each other.
    """
    if standing is not None:
        check(reading, standing)
    known = (standing.draft_commit, standing.ledger_oid) if standing is not None else (None, None)
    if tips(reading, slug) == known or (standing is None and not reading.exists(slug)):
        return []
    state = reading.state(slug)
    if standing is not None and standing.latest_number > state.latest:
        what = f"the database knows v{standing.latest_number}, and the ledger does not"
        raise derive.contradiction(slug, what)
    news = derive.story(reading, slug, standing.ledger_oid if standing else None)
    if standing is not None:
        derive.check_draft(standing.draft_commit, state.draft, slug, news)
    if standing is not None and not news.entries and standing.draft_commit == state.draft:
        return []
    return _Change(tx, reading, state, news, standing).carry_out()


def check(reading: Reading, standing: Standing) -> None:
    """Raise `integrity` where the rows of a workflow contradict each other or their newest version's tag.

    Costs the same at any number of versions; the whole of them is `gitstore verify`'s.
    """
    slug, latest = standing.slug, standing.latest_number
    if (standing.top_number or 0) != latest:
        raise derive.contradiction(
            slug, f"its row says that v{latest} is the latest, and v{standing.top_number} is"
        )
    if latest:
        held = reading.refs.read(names.tag(slug, latest))
        if held is None or held.decode() != standing.top_ref:
            what = f"its tag holds {held.decode()}" if held else "its tag is gone"
            raise derive.contradiction(
                slug, f"the database knows v{latest} as {standing.top_ref}, and {what}"
            )
    if standing.draft_number is not None and standing.draft_row_commit != standing.draft_commit:
        raise derive.contradiction(slug, "the draft's row is not of the commit that the workflow's row names")


class _Change:
    """What one workflow's rows lack, and the way to add it."""

    def __init__(
        self,
        tx: Transaction,
        reading: Reading,
        state: WorkflowState,
        news: Story,
        standing: Standing | None,
    ) -> None:
        self._tx = tx
        self._reading = reading
        self._state = state
        self._news = news
        self._standing = standing
        self._published = news.published()
        self._basis: VersionRow | None = None

    def carry_out(self) -> list[Fact]:
        state, standing = self._state, self._standing
        draft = derive.draft_row(self._reading, state)
        titles = self._titles(draft)
        row = derive.workflow_row(
            self._reading, state, self._news, titles, draft, standing.row() if standing else None
        )
        kept = [entry.version for entry in self._published] + ([draft.version_number] if draft else [])
        happened: dict[str, Fact] = {}
        facts: list[Fact] = []
        batches = _batches(self._published) or [[]]
        for position, batch in enumerate(batches):
            versions = [self._derive(entry) for entry in batch]
            for entry, version in zip(batch, versions, strict=True):
                happened[entry.oid] = events.published(row, version, entry)
            if position == len(batches) - 1:
                versions += [draft] if draft else []
                facts = self._facts(row, draft, happened)
            self._write(row if position == 0 else None, kept, versions, facts)
            if len(batches) > 1:
                self._reading.forget()
        return facts

    def _derive(self, entry: LedgerEntry) -> VersionRow:
        if self._basis is not None and self._basis.version_number == entry.version:
            return self._basis
        return derive.published_row(self._reading, self._state.slug, entry)

    def _titles(self, draft: VersionRow | None) -> Titles:
        """What the definition that the workflow is called after calls itself."""
        number, standing = derive.basis(self._state), self._standing
        if number is None:
            return derive.titles_of(draft.definition if draft else None)
        if standing is not None and number == (standing.current_number or standing.latest_number):
            # The same version as before, so the same names: a save parses no other version for them.
            return Titles(standing.name, standing.description)
        new = next((entry for entry in self._published if entry.version == number), None)
        if new is not None:
            self._basis = derive.published_row(self._reading, self._state.slug, new)
            return derive.titles_of(self._basis.definition)
        # Moved back to a version that was mirrored long ago.
        commit = self._tx.value(_COMMIT_OF, id=version_id(standing.id, number)) if standing else None
        if commit is None:
            raise derive.contradiction(self._state.slug, f"the database lacks v{number}, which is current")
        parsed = self._reading.snapshot(self._state.slug, commit).definition
        return derive.titles_of(parsed.value if parsed else None)

    def _write(
        self,
        row: WorkflowRow | None,
        kept: Sequence[int | None],
        versions: Sequence[VersionRow],
        facts: Sequence[Fact],
    ) -> None:
        """One round trip. A version that stands there as published already is a contradiction."""
        standing = self._standing
        connection = self._tx.connection
        cursor = connection.cursor()  # outlives the pipeline, in whose end the count arrives
        with connection.pipeline():
            if row is not None:
                connection.execute(UPSERT_WORKFLOW, asdict(row))
                if standing is not None and standing.draft_number not in (None, *kept):
                    connection.execute(_DELETE_DRAFT, {"workflow": row.id, "kept": list(kept)})
            if versions:
                cursor.executemany(UPSERT_VERSION, [version_values(version) for version in versions])
            if facts:
                connection.cursor().executemany(events.INSERT, events.values(facts))
        if versions and cursor.rowcount != len(versions):
            numbers = ", ".join(f"v{version.version_number}" for version in versions)
            raise derive.contradiction(
                self._state.slug, f"of {numbers}, the database holds some that the ledger has only now"
            )

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
        if draft is not None and (standing is None or standing.draft_commit != draft.commit_sha):
            facts.append(events.draft_updated(row, draft))
        return facts


def version_values(row: VersionRow) -> dict[str, Any]:
    """The values of `UPSERT_VERSION`."""
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    values["definition"] = Jsonb(row.definition) if row.definition is not None else None
    return values


def _batches(entries: Sequence[LedgerEntry]) -> list[Sequence[LedgerEntry]]:
    return [entries[start : start + BATCH] for start in range(0, len(entries), BATCH)]
