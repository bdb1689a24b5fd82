"""Rows of the mirror: their columns, and the statements that write them.

The fields of a shape are the columns of its table, and each list of columns in SQL is made from them. To add
a column: write a migration, add the field here, and derive its value in derive.py.

A set of rows is one JSON parameter, keyed by column. A write of any number of versions is therefore one
statement and one round trip, and neither the driver nor Postgres' planner handles sixty parameters (which
took 1.7 ms of a save).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from gitstore import names
from gitstore.names import is_slug, workflow_id
from gitstore.repository import Repository
from sync.db import Transaction

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Shapes


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """A row of gitstore.workflows. `external_ids` are ids of its imported drafts in another system.

    `yanked` are numbers of versions.
    """

    id: UUID
    project_id: UUID
    slug: str
    name: str
    description: str
    current_version_id: UUID | None
    held: bool
    created_at: datetime
    updated_at: datetime
    latest_number: int
    given_name: str | None
    given_description: str | None
    draft_commit: str | None
    ledger_oid: str | None
    external_ids: list[UUID]
    yanked: list[int]
    archived: bool


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """The columns of gitstore.workflow_versions, except those of the definition.

    `ref_oid` is the object id that the version's tag or the draft's branch holds. `invalid_reason` describes
    the errors of an imported version's definition, `external_id` is its id in the system that it is from.
    """

    id: UUID
    workflow_id: UUID
    project_id: UUID
    version_number: int
    state: str
    created_at: datetime
    published_at: datetime | None
    commit_sha: str
    ref_oid: str
    tree_sha: str
    blob_sha: str
    file_name: str
    digest: str | None
    valid: bool
    invalid_reason: str | None
    message: str
    author_name: str
    author_email: str
    published_by: str | None
    external_id: UUID | None


@dataclass(frozen=True, slots=True)
class VersionRow(VersionInfo):
    """A row of gitstore.workflow_versions. `definition` is None if the file does not parse.

    `definition_text` is the same as JSON text, which keeps the order of the file.
    """

    definition: dict[str, Any] | list[Any] | None
    definition_text: str | None


@dataclass(frozen=True, slots=True)
class NumberMark:
    """A row of gitstore.number_marks: the highest version number ever assigned in a workflow."""

    workflow_id: UUID
    project_id: UUID
    highest: int


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """The columns of a version that can be checked against refs and the ledger, without reading objects."""

    id: UUID
    version_number: int
    state: str
    ref_oid: str
    message: str
    published_by: str | None
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The row of the workflow `slug`, or None, and those of its versions by number, in ascending order."""

    slug: str
    workflow: WorkflowRow | None
    versions: dict[int, VersionRecord]

    def numbers(self, *states: str) -> set[int]:
        return {number for number, version in self.versions.items() if version.state in states}


@cache
def column_names(shape: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(shape))


def values(row: DataclassInstance, shape: type[DataclassInstance] | None = None) -> dict[str, Any]:
    """Return column -> value, for the columns of `shape`; unlike `asdict`, without copying a definition."""
    return {name: getattr(row, name) for name in column_names(shape or type(row))}


_dumps = partial(json.dumps, default=str, ensure_ascii=False)


def as_json(
    rows: Iterable[DataclassInstance | Mapping[str, Any]], shape: type[DataclassInstance] | None = None
) -> Jsonb:
    """Return `rows` as one JSON parameter. UUIDs and times are serialized as text that Postgres parses."""
    return Jsonb([row if isinstance(row, Mapping) else values(row, shape) for row in rows], dumps=_dumps)


# Statements, made at import: the names of fields are all that these functions add to constants


def columns(shape: type[DataclassInstance], prefix: LiteralString = "") -> LiteralString:
    """Return the columns of `shape` as a list in SQL, each after `prefix`."""
    return ", ".join(prefix + name for name in column_names(shape))


def select(shape: type[DataclassInstance], prefix: LiteralString = "") -> LiteralString:
    return "select " + columns(shape, prefix)


def insert(table: LiteralString, shape: type[DataclassInstance], parameter: LiteralString) -> LiteralString:
    """Return the insert of the rows in a JSON parameter, called `given`, into `table`, called `stored`."""
    listed = columns(shape)
    return (
        f"insert into gitstore.{table} as stored ({listed}) select {listed} "  # noqa: S608 - of constants
        f"from jsonb_populate_recordset(null::gitstore.{table}, %({parameter})s) given "
    )


def update(shape: type[DataclassInstance], *constant: str, key: LiteralString = "id") -> LiteralString:
    """Return the update of a row that exists, by `key`, except of its `constant` columns."""
    changed = ", ".join(f"{name} = excluded.{name}" for name in column_names(shape) if name not in constant)
    return f"on conflict ({key}) do update set {changed} "


def _unless_equal(table: LiteralString, shape: type[DataclassInstance]) -> LiteralString:
    """Return the condition that skips equal rows, so that they fire no trigger of the host."""
    same, given = columns(shape, "same."), columns(shape, "given.")
    return (
        f"where not exists (select from gitstore.{table} same "  # noqa: S608 - of constants
        f"where same.id = given.id and ({same}) is not distinct from ({given})) "
    )


UPSERT_WORKFLOWS: Final[LiteralString] = (
    insert("workflows", WorkflowRow, "workflows")
    + _unless_equal("workflows", WorkflowRow)
    + update(WorkflowRow, "id", "project_id")
)
_PUT_VERSIONS: Final = insert("workflow_versions", VersionRow, "versions")
_UPDATE_VERSION: Final = update(VersionRow, "id", "workflow_id", "project_id", "version_number")
# A draft's row becomes the published one; it is replaced when another commit takes its number.
UPSERT_VERSIONS: Final[LiteralString] = (
    _PUT_VERSIONS + _UPDATE_VERSION + "where stored.state in ('draft', 'discarded')"
)
CORRECT_VERSIONS: Final[LiteralString] = (
    _PUT_VERSIONS + _unless_equal("workflow_versions", VersionRow) + _UPDATE_VERSION
)
RECHECK_DRAFTS: Final[LiteralString] = CORRECT_VERSIONS + "where stored.state = 'draft'"

# Reading

_SLUGS: Final[LiteralString] = "select slug from gitstore.workflows where project_id = %(project)s"
_WORKFLOW: Final[LiteralString] = (
    select(WorkflowRow)
    + """
    from gitstore.workflows where project_id = %(project)s and (id = %(id)s or slug = %(slug)s)
    order by id = %(id)s desc limit 1
"""
)
_VERSIONS: Final[LiteralString] = (
    select(VersionRecord)
    + " from gitstore.workflow_versions where workflow_id = %(workflow)s order by version_number"
)


def slugs(tx: Transaction, repository: Repository) -> list[str]:
    """Return the sorted slugs of all workflows of a project that have a row or refs; no former names."""
    recorded = {slug for (slug,) in tx.tuples(_SLUGS, project=repository.project)}
    renamed = {names.show(ref.removeprefix(names.RENAMED)) for ref in repository.refs.below(names.RENAMED)}
    return sorted((recorded - renamed) | set(repository.slugs()))


def recorded(tx: Transaction, repository: Repository, slug: str) -> Recorded:
    identity = repository.identity(slug) if is_slug(slug) else workflow_id(repository.project, slug)
    row = tx.row(WorkflowRow, _WORKFLOW, project=repository.project, id=identity, slug=slug)
    versions = tx.rows(VersionRecord, _VERSIONS, workflow=row.id) if row else []
    return Recorded(slug, row, {version.version_number: version for version in versions})


# Number marks. A mark is raised in the transaction that writes the published row and is never lowered, so
# that a repository restored from a backup does not assign a number twice. The store takes it as a floor.

_RAISE: Final[LiteralString] = """
    on conflict (workflow_id) do update set highest = excluded.highest where stored.highest < excluded.highest
"""
RAISE_MARKS: Final[LiteralString] = insert("number_marks", NumberMark, "marks") + _RAISE
_RAISE_MARKS_TO_ROWS: Final[LiteralString] = (
    """
    insert into gitstore.number_marks as stored (workflow_id, project_id, highest)
    select workflow_id, project_id, max(version_number) from gitstore.workflow_versions
    where workflow_id = any(%(workflows)s) and state in ('published', 'lost') group by workflow_id, project_id
"""  # noqa: S608 - of constants
    + _RAISE
)
MARKS: Final[LiteralString] = """
    select l.level, m.workflow_id, m.highest from gitstore.feature_level l
    left join gitstore.number_marks m on m.workflow_id = any(%(ids)s)
"""


def load_marks(tx: Transaction, repository: Repository, slugs: Collection[str]) -> None:
    """Load the marks of `slugs` into `repository.floors`, and the feature level."""
    ids = {slug: repository.identity(slug) for slug in slugs}
    take_marks(repository, ids, tx.tuples(MARKS, ids=list(set(ids.values()))))


def take_marks(repository: Repository, ids: Mapping[str, UUID], found: Iterable[tuple[Any, ...]]) -> None:
    """Take over what `MARKS` found of the workflows `ids`, by slug, as `load_marks` does."""
    for level, identity, highest in found:
        repository.level = level
        for slug, other in ids.items():
            if identity == other:
                repository.floors[slug] = highest


def raise_mark(tx: Transaction, repository: Repository, slug: str, number: int) -> None:
    """Raise the mark of `slug` to `number`, unless it is already as high."""
    mark = NumberMark(repository.identity(slug), repository.project, number)
    tx.run(RAISE_MARKS, marks=as_json([mark]))
    repository.floors[slug] = max(repository.floors.get(slug, 0), number)


def raise_marks_to_rows(tx: Transaction, workflows: Collection[UUID]) -> None:
    """Raise the mark of each of `workflows` to the highest number among its published and lost rows."""
    tx.run(_RAISE_MARKS_TO_ROWS, workflows=list(workflows))
