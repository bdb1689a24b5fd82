"""Number marks: the highest version number ever assigned in each workflow.

A mark is raised in the transaction that writes the published row and is never lowered, so that a repository
restored from a backup does not assign a number twice. The store takes the mark as a floor
(`Repository.floors`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from gitstore.names import workflow_id
from gitstore.repository import Repository
from sync.db import Transaction
from sync.rows import as_json

RAISE: Final[LiteralString] = """
    insert into gitstore.number_marks as m (workflow_id, project_id, highest)
    select workflow_id, project_id, highest
    from jsonb_populate_recordset(null::gitstore.number_marks, %(marks)s)
    on conflict (workflow_id) do update set highest = excluded.highest where m.highest < excluded.highest
"""
_RAISE_TO_ROWS: Final[LiteralString] = """
    insert into gitstore.number_marks as m (workflow_id, project_id, highest)
    select workflow_id, project_id, max(version_number) from gitstore.workflow_versions
    where workflow_id = %(workflow)s and state in ('published', 'lost') group by workflow_id, project_id
    on conflict (workflow_id) do update set highest = excluded.highest where m.highest < excluded.highest
"""
_MARKS: Final[LiteralString] = """
    select workflow_id, highest from gitstore.number_marks where workflow_id = any(%(ids)s)
"""


def load(tx: Transaction, repository: Repository, slugs: Collection[str]) -> None:
    """Load the marks of `slugs` into `reading.floors`."""
    ids = {workflow_id(repository.project, slug): slug for slug in slugs}
    for identity, highest in tx.tuples(_MARKS, ids=list(ids)):
        repository.floors[ids[identity]] = highest


def values(repository: Repository, highest: Mapping[str, int]) -> Jsonb:
    """Return the parameter `marks` of `RAISE`. `highest` maps slug -> number; 0 leaves the mark unchanged."""
    project = repository.project
    return as_json(
        [
            {"workflow_id": workflow_id(project, slug), "project_id": project, "highest": number}
            for slug, number in highest.items()
            if number
        ]
    )


def raise_to_rows(tx: Transaction, workflow: UUID) -> None:
    """Raise the mark of a workflow to the highest number among its published and lost rows."""
    tx.run(_RAISE_TO_ROWS, workflow=workflow)


def raise_to(tx: Transaction, repository: Repository, slug: str, number: int) -> None:
    """Raise the mark of `slug` to `number`, unless it is already as high."""
    tx.run(RAISE, marks=values(repository, {slug: number}))
    repository.floors[slug] = max(repository.floors.get(slug, 0), number)
