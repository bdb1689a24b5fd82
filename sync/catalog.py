"""Queries of the API: projects, workflows and versions that row-level security lets the caller see.

Each function takes an open transaction (`Database.reading(claims)`) and returns frozen rows. None or an
empty page means either "not found" or "not permitted". `history` never reads definitions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Literal, LiteralString, TypeVar
from uuid import UUID

from gitstore.definition.elements import mapping
from gitstore.model import Rules
from gitstore.names import HIGHEST_NUMBER
from sync import rows
from sync.db import SingleReading, Transaction
from sync.rows import VersionInfo, VersionRow, WorkflowRow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InEnvironment:
    """The version in the environment `name`; of two, the one that the caller `key` gets."""

    name: str
    key: str | None = None


Which = int | UUID | Literal["draft", "current", "latest"] | InEnvironment
"""A version: its number, its id here or in the system that it was imported from, or a word."""
State = Literal["draft", "published", "lost"]
"""States visible to callers; rows of discarded drafts are never returned."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project. One with `archived_at` accepts no writes.

    `rules` are those of drafts and of new versions, `first_rules` those at its creation.
    `file_names` are names of definitions besides `workflow.*`, and `file_name` that of new ones.
    `activate_invalid`: whether versions of sources with an invalid definition become current.
    """

    id: UUID
    slug: str
    name: str
    owner: UUID | None
    rules: str
    created_at: datetime
    archived_at: datetime | None
    first_rules: str
    file_name: str | None
    file_names: Sequence[str]
    activate_invalid: bool


@dataclass(frozen=True, slots=True)
class Workflow(WorkflowRow):
    """A workflow with the numbers of its current version and its draft; None without one.

    `blocked_number` is the latest version if it did not become current because it is invalid, and
    `blocked_reason` the errors.
    """

    current_number: int | None
    draft_number: int | None
    blocked_number: int | None
    blocked_reason: str | None

    @property
    def deleted(self) -> bool:
        """Whether it was deleted, as `WorkflowState.deleted`."""
        return self.archived and not self.latest_number and self.draft_commit is None


@dataclass(frozen=True, slots=True)
class Version(VersionInfo):
    """A version without its definition. A `lost` version was published but is missing from Git.

    `archived`: whether its workflow is. `yanked_at` is None unless it is yanked.
    """

    state: State
    slug: str
    is_current: bool
    archived: bool
    yanked_at: datetime | None
    title: str | None
    notes: str | None
    node_count: int | None
    edge_count: int | None

    @property
    def yanked(self) -> bool:
        return self.yanked_at is not None

    @classmethod
    def of(cls, row: VersionRow, slug: str, *, is_current: bool) -> Version:
        """Make a version from `row`, for a caller that has just written the row and derived it from Git."""
        nodes, edges = (mapping(row.definition).get(key) for key in ("nodes", "edges"))
        return cls(
            **rows.values(row, VersionInfo),
            slug=slug,
            is_current=is_current,
            archived=False,
            yanked_at=None,
            title=None,
            notes=None,
            node_count=len(nodes) if isinstance(nodes, list) else None,
            edge_count=len(edges) if isinstance(edges, list) else None,
        )


@dataclass(frozen=True, slots=True)
class FullVersion(Version):
    """A version with its definition, which is None if it was imported and does not parse."""

    definition: dict[str, Any] | list[Any] | None


@dataclass(frozen=True, slots=True)
class StoredVersion(Version):
    """A version with its definition as was asked: as JSON `text`, or as the bytes `stored` in its file.

    `text` is None if it was imported and does not parse, `stored` if Git alone has the bytes.
    """

    text: str | None
    stored: bytes | None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of rows. `next` is the key of the next page (a slug or a version number), or None."""

    rows: Sequence[T]
    next: str | int | None


# Projects

_PROJECT: Final[LiteralString] = rows.select(Project) + " from gitstore.projects "
_ACTIVATES_INVALID: Final[LiteralString] = "select activate_invalid from gitstore.projects where id = %(id)s"
_OLDEST_PROJECTS: Final[LiteralString] = (
    "select id from gitstore.projects order by created_at limit %(count)s"
)
_CREATE_PROJECT: Final[LiteralString] = """
    insert into gitstore.projects (id, slug, name, owner, rules, first_rules, checked_rules)
    values (%(id)s, %(slug)s, %(name)s, %(owner)s, %(rules)s, %(rules)s, %(rules)s)
    returning """ + rows.columns(Project)  # noqa: S608 - of constants


def projects(tx: Transaction) -> list[Project]:
    """Return every project that the transaction sees: all of them for the mirror and the owner."""
    return tx.rows(Project, _PROJECT + "order by slug")


def some_projects(tx: Transaction, count: int) -> list[UUID]:
    """Return the ids of the `count` oldest projects."""
    return [identity for (identity,) in tx.tuples(_OLDEST_PROJECTS, count=count)]


def project(tx: Transaction, slug: str) -> Project | None:
    return tx.row(Project, _PROJECT + "where slug = %(slug)s", slug=slug)


def project_by_id(tx: Transaction | SingleReading, project_id: UUID) -> Project | None:
    return tx.row(Project, _PROJECT + "where id = %(id)s", id=project_id)


def activates_invalid(tx: Transaction, project_id: UUID) -> bool:
    """Return whether versions of sources with an invalid definition become current in a project."""
    return bool(tx.value(_ACTIVATES_INVALID, id=project_id))


def create_project(
    tx: Transaction, project_id: UUID, slug: str, name: str, rules: Rules, owner: UUID | None = None
) -> Project:
    """Insert a project. Requires the tables' owner, since slugs of projects are unique across tenants.

    Raises `project_exists` when the transaction ends.
    """
    values = {"id": project_id, "slug": slug, "name": name, "owner": owner, "rules": rules.value}
    return tx.rows(Project, _CREATE_PROJECT, **values)[0]


# Workflows

WORKFLOW_COLUMNS: Final[LiteralString] = (
    rows.select(WorkflowRow, "w.")
    + """,
        current.version_number as current_number, draft.version_number as draft_number,
        blocked.version_number as blocked_number, blocked.invalid_reason as blocked_reason
"""
)
WORKFLOW_FROM: Final[LiteralString] = """
    from gitstore.workflows w
    left join gitstore.workflow_versions current on current.id = w.current_version_id
    left join gitstore.workflow_versions draft on draft.workflow_id = w.id and draft.state = 'draft'
    left join gitstore.workflow_versions blocked on blocked.workflow_id = w.id
        and blocked.version_number = w.latest_number and blocked.state = 'published' and not blocked.valid
        and blocked.id is distinct from w.current_version_id and not w.held
"""
_WORKFLOW: Final[LiteralString] = WORKFLOW_COLUMNS + WORKFLOW_FROM
_WORKFLOW_BY_SLUG: Final[LiteralString] = _WORKFLOW + "where w.project_id = %(project)s and w.slug = %(slug)s"
_WORKFLOWS_AFTER: Final[LiteralString] = (
    _WORKFLOW + "where w.project_id = %(project)s and w.slug > %(after)s and not w.archived"
)
_WORKFLOW_OF_ID: Final[LiteralString] = (
    _WORKFLOW  # noqa: S608 - of constants
    + """
    where w.project_id = %(project)s and (
        w.external_ids <> '{}' and w.external_ids @> array[%(id)s]::uuid[]
        or w.id in (select v.workflow_id from gitstore.workflow_versions v
                    where v.project_id = %(project)s and (v.id = %(id)s or v.external_id = %(id)s)))
    order by w.id limit 1
"""
)
_BY_SLUG: Final[LiteralString] = " order by w.slug limit %(limit)s"


def workflow(tx: Transaction | SingleReading, workflow_id: UUID) -> Workflow | None:
    return tx.row(Workflow, _WORKFLOW + "where w.id = %(id)s", id=workflow_id)


def workflow_by_slug(tx: Transaction | SingleReading, project_id: UUID, slug: str) -> Workflow | None:
    return tx.row(Workflow, _WORKFLOW_BY_SLUG, project=project_id, slug=slug)


def workflow_of_id(tx: Transaction | SingleReading, project_id: UUID, identity: UUID) -> Workflow | None:
    """Return the workflow of which a version or an imported draft has this id, here or where it is from."""
    return tx.row(Workflow, _WORKFLOW_OF_ID, project=project_id, id=identity)


def workflows(tx: Transaction, project_id: UUID, *, after: str = "", limit: int = 20) -> Page[Workflow]:
    """Return workflows in the order of slugs, after `after`, without archived ones."""
    query = _WORKFLOWS_AFTER + _BY_SLUG
    page = tx.rows(Workflow, query, project=project_id, after=after, limit=limit + 1)
    return Page(page[:limit], page[limit - 1].slug if len(page) > limit else None)


# Versions

_COLUMNS: Final[LiteralString] = (
    rows.select(VersionInfo, "v.")
    + """, w.slug, (v.id = w.current_version_id) is true as is_current,
        w.archived, s.yanked_at, s.title, s.notes,
        v.node_count, v.edge_count"""
)
_FROM: Final[LiteralString] = """
    from gitstore.workflow_versions v join gitstore.workflows w on w.id = v.workflow_id
    left join gitstore.version_states s
        on s.workflow_id = v.workflow_id and s.version_number = v.version_number
"""
_OF_WORKFLOW: Final[LiteralString] = _FROM + "where v.workflow_id = %(workflow)s and w.id = %(workflow)s"
VERSION: Final[LiteralString] = _COLUMNS + _OF_WORKFLOW
_VISIBLE: Final[LiteralString] = VERSION + " and v.version_number < %(before)s and v.state "
_NEWEST: Final[LiteralString] = " order by v.version_number desc limit %(limit)s"
_HISTORY: Final[dict[State | None, LiteralString]] = {
    None: _VISIBLE + "<> 'discarded'" + _NEWEST,  # the draft sorts first: it has the highest number
    "published": _VISIBLE + "= 'published'" + _NEWEST,
    "draft": _VISIBLE + "= 'draft'" + _NEWEST,
    "lost": _VISIBLE + "= 'lost'" + _NEWEST,
}
# In the order of the file; rows of older releases have jsonb's.
_TEXT: Final[LiteralString] = (
    "case when definition is not null then coalesce(definition_text, definition::text) end"
)
_ORDERED: Final[LiteralString] = "(" + _TEXT + ")::json as definition"
_AS_TEXT: Final[LiteralString] = ", " + _TEXT + " as text, null::bytea as stored"
_AS_STORED: Final[LiteralString] = """
    , null as text, (select o.bytes from gitstore.git_objects o
                     where o.project_id = v.project_id and o.oid = v.blob_sha and o.kind = 'blob') as stored
"""
_DEFINITIONS: Final[LiteralString] = (
    "select id, " + _ORDERED + " from gitstore.workflow_versions where id = any(%(ids)s)"  # noqa: S608
)
_HOLDING: Final[LiteralString] = """
    select blob_sha, version_number, published_at, commit_sha from gitstore.workflow_versions
    where workflow_id = %(workflow)s and state = 'published' and blob_sha = any(%(blobs)s)
    order by version_number
"""
_DEFINITION_SIZES: Final[LiteralString] = """
    select id, coalesce(octet_length(coalesce(definition_text, definition::text)), 0)
    from gitstore.workflow_versions where id = any(%(ids)s)
"""
_CONDITIONS: Final[dict[str, LiteralString]] = {
    "number": " and v.version_number = %(number)s and v.state in ('published', 'lost')",
    # An imported draft is known by its id elsewhere until it is published or discarded.
    "id": """
        and v.state <> 'discarded' and (v.id = %(number)s or v.external_id = %(number)s or v.state = 'draft'
            and exists (select from gitstore.workflows n
                        where n.id = %(workflow)s and %(number)s = any (n.external_ids)))
    """,
    "environment": """
        and v.version_number = gitstore.version_in(%(workflow)s, %(number)s, %(key)s)
        and v.state in ('published', 'lost')
    """,
    "draft": " and v.state = 'draft'",
    # A subquery looks one row up by its key; a join may scan all versions.
    "current": """
        and v.id = (select n.current_version_id from gitstore.workflows n where n.id = %(workflow)s)
    """,
    "latest": """
        and v.version_number = (
            select case when n.latest_number <> all (n.yanked) then n.latest_number else (
                select max(u.version_number) from gitstore.workflow_versions u
                where u.workflow_id = n.id and u.state = 'published'
                    and u.version_number <> all (n.yanked)) end
            from gitstore.workflows n where n.id = %(workflow)s)
    """,
}


def history(
    tx: Transaction | SingleReading,
    workflow_id: UUID,
    *,
    state: State | None = None,
    before: int | None = None,
    limit: int = 20,
) -> Page[Version]:
    """Return the open draft, then the versions, newest first; only numbers below `before`."""
    below = before if before is not None else HIGHEST_NUMBER + 1
    page = tx.rows(Version, _HISTORY[state], workflow=workflow_id, before=below, limit=limit + 1)
    return Page(page[:limit], page[limit - 1].version_number if len(page) > limit else None)


def version(tx: Transaction | SingleReading, workflow_id: UUID, which: Which) -> Version | None:
    """Return a version without its definition, or None. A number matches published and lost versions only."""
    query = _COLUMNS + _OF_WORKFLOW + _condition(which)
    return tx.row(Version, query, workflow=workflow_id, **_values(which))


def versions(tx: Transaction, ids: Collection[UUID]) -> dict[UUID, Version]:
    """Return the existing versions among `ids`, without their definitions, by id."""
    existing = tx.rows(Version, _COLUMNS + _FROM + "where v.id = any(%(ids)s)", ids=list(ids)) if ids else []
    return {version.id: version for version in existing}


def versions_with(
    tx: Transaction, workflow_id: UUID, blobs: Collection[str]
) -> list[tuple[str, int, datetime, str]]:
    """Return (blob, number, time of publication, commit) of the versions that hold one of `blobs`."""
    return tx.tuples(_HOLDING, workflow=workflow_id, blobs=list(blobs)) if blobs else []


def definitions(tx: Transaction, ids: Collection[UUID]) -> dict[UUID, dict[str, Any] | list[Any] | None]:
    """Return the definitions of the existing versions among `ids`, by id; None if one does not parse."""
    return dict(tx.tuples(_DEFINITIONS, ids=list(ids))) if ids else {}


def definition_sizes(tx: Transaction, ids: Collection[UUID]) -> dict[UUID, int]:
    """Return the sizes in bytes, as JSON, of the definitions of the existing versions among `ids`, by id."""
    return dict(tx.tuples(_DEFINITION_SIZES, ids=list(ids))) if ids else {}


def full_version(tx: Transaction | SingleReading, workflow_id: UUID, which: Which) -> FullVersion | None:
    """Return a version as `version` does, with its definition."""
    query = _COLUMNS + ", " + _ORDERED + _OF_WORKFLOW + _condition(which)
    return tx.row(FullVersion, query, workflow=workflow_id, **_values(which))


def stored_version(
    tx: Transaction | SingleReading, workflow_id: UUID, which: Which, *, as_text: bool
) -> StoredVersion | None:
    """Return a version as `version` does, with its definition as JSON text, or as the bytes of its file."""
    query = _COLUMNS + (_AS_TEXT if as_text else _AS_STORED) + _OF_WORKFLOW + _condition(which)
    return tx.row(StoredVersion, query, workflow=workflow_id, **_values(which))


def _condition(which: Which) -> LiteralString:
    if isinstance(which, UUID):
        return _CONDITIONS["id"]
    if isinstance(which, InEnvironment):
        return _CONDITIONS["environment"]
    return _CONDITIONS["number" if isinstance(which, int) else which]


def _values(which: Which) -> dict[str, object]:
    """Return the parameters of the condition on a version."""
    if isinstance(which, InEnvironment):
        return {"number": which.name, "key": which.key}
    return {"number": which}
