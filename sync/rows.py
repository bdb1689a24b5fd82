"""Upserts of workflow and version rows: each set of rows is one JSON parameter, keyed by column.

A write of any number of versions is therefore one statement and one round trip, and neither the driver nor
Postgres' planner handles sixty parameters (which took 1.7 ms of a save).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, LiteralString

from psycopg.types.json import Jsonb

from sync.derive import VersionRow, WorkflowRow

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

UPSERT_WORKFLOWS: Final[LiteralString] = """
    insert into gitstore.workflows (id, project_id, slug, name, description, current_version_id, held,
        created_at, updated_at, latest_number, given_name, given_description, draft_commit, ledger_oid)
    select id, project_id, slug, name, description, current_version_id, held,
        created_at, updated_at, latest_number, given_name, given_description, draft_commit, ledger_oid
    from jsonb_populate_recordset(null::gitstore.workflows, %(workflows)s) given
    where not exists (select from gitstore.workflows w where w.id = given.id and w is not distinct from given)
    on conflict (id) do update set name = excluded.name, description = excluded.description,
        current_version_id = excluded.current_version_id, held = excluded.held,
        created_at = excluded.created_at, updated_at = excluded.updated_at,
        latest_number = excluded.latest_number, given_name = excluded.given_name,
        given_description = excluded.given_description, draft_commit = excluded.draft_commit,
        ledger_oid = excluded.ledger_oid
"""
_PUT_VERSIONS: Final[LiteralString] = """
    insert into gitstore.workflow_versions as v (id, workflow_id, project_id, version_number, state,
        created_at, published_at, commit_sha, ref_oid, tree_sha, blob_sha, file_name, digest, definition,
        valid, message, author_name, author_email, published_by)
    select id, workflow_id, project_id, version_number, state,
        created_at, published_at, commit_sha, ref_oid, tree_sha, blob_sha, file_name, digest, definition,
        valid, message, author_name, author_email, published_by
    from jsonb_populate_recordset(null::gitstore.workflow_versions, %(versions)s) given
"""
_ON_CONFLICT: Final[LiteralString] = """
    on conflict (id) do update set state = excluded.state, created_at = excluded.created_at,
        published_at = excluded.published_at, commit_sha = excluded.commit_sha, ref_oid = excluded.ref_oid,
        tree_sha = excluded.tree_sha, blob_sha = excluded.blob_sha, file_name = excluded.file_name,
        digest = excluded.digest, definition = excluded.definition, valid = excluded.valid,
        message = excluded.message, author_name = excluded.author_name,
        author_email = excluded.author_email, published_by = excluded.published_by
"""
# A draft's row becomes the published one; it is replaced when another commit takes its number.
UPSERT_VERSIONS: Final[LiteralString] = (
    _PUT_VERSIONS + _ON_CONFLICT + " where v.state in ('draft', 'discarded')"
)
# Correct rows are filtered out before the insert: they are not written and fire no trigger of the host.
CORRECT_VERSIONS: Final[LiteralString] = (
    _PUT_VERSIONS  # noqa: S608 - of constants
    + """
    where not exists (
        select from gitstore.workflow_versions x where x.id = given.id and x is not distinct from given)
"""
    + _ON_CONFLICT
)

_dumps = partial(json.dumps, default=str, ensure_ascii=False)


def as_json(rows: Sequence[Mapping[str, Any]]) -> Jsonb:
    """Return `rows` as one JSON parameter. UUIDs and times are serialized as text that Postgres parses."""
    return Jsonb(rows, dumps=_dumps)


def of(rows: Sequence[WorkflowRow | VersionRow]) -> Jsonb:
    """Return rows of one table as one JSON parameter, with a key for each column."""
    return as_json([columns(row) for row in rows])


def columns(row: DataclassInstance) -> dict[str, Any]:
    """Return column -> value. Unlike `asdict`, it does not copy the contents of a definition."""
    return {name: getattr(row, name) for name in _names(type(row))}


@cache
def _names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
