"""Rows of the pointers in environments, derived from the ledger: written, read, compared and corrected.

A row has the newest move of a pointer. The mirror derives it from the new entries alone, since each entry has
the whole state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from gitstore.errors import GitstoreError
from gitstore.model import Environment, LedgerEntry
from gitstore.repository import Repository
from sync import rows
from sync.db import Transaction
from sync.derive import LedgerDelta, ledger_delta


@dataclass(frozen=True, slots=True)
class EnvironmentRow:
    """A row of gitstore.environments."""

    workflow_id: UUID
    name: str
    project_id: UUID
    version_number: int
    weight: int
    second_number: int | None
    held: bool
    moved_at: datetime
    moved_by: str
    message: str
    ledger_oid: str

    @property
    def pointer(self) -> Environment:
        return Environment(self.name, self.version_number, self.weight, self.second_number, self.held)


@dataclass(frozen=True, slots=True)
class ShownPointer(EnvironmentRow):
    """A pointer with the slug and the name of its workflow."""

    slug: str
    workflow_name: str


@dataclass(frozen=True, slots=True)
class PointerMove:
    """A change of a pointer by a ledger entry; `after` is None where it was removed."""

    entry: LedgerEntry
    name: str
    before: Environment | None
    after: Environment | None


_UPSERT: Final[LiteralString] = rows.insert("environments", EnvironmentRow, "pointers") + rows.update(
    EnvironmentRow, "workflow_id", "name", "project_id", key="workflow_id, name"
)
_DELETE: Final[LiteralString] = """
    delete from gitstore.environments where workflow_id = %(workflow)s and name = any(%(names)s)
"""
_OF_WORKFLOWS: Final[LiteralString] = (
    rows.select(EnvironmentRow) + " from gitstore.environments where workflow_id = any(%(workflows)s)"
)
_SHOWN: Final[LiteralString] = (
    rows.select(EnvironmentRow, "e.")
    + """, w.slug, w.name as workflow_name
    from gitstore.environments e join gitstore.workflows w on w.id = e.workflow_id
"""
)
_OF_WORKFLOW: Final[LiteralString] = _SHOWN + " where e.workflow_id = %(workflow)s order by e.name"
_SHOWN_OF_PROJECT: Final[LiteralString] = (
    _SHOWN + " where e.project_id = %(project)s and w.slug = any(%(slugs)s) order by w.slug, e.name"
)


# Deriving


def moves(delta: LedgerDelta) -> Iterator[PointerMove]:
    """Yield the moves of pointers in the new entries of a ledger, oldest first."""
    before = _by_name(delta.base)
    for entry in delta.entries:
        after = _by_name(entry)
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                yield PointerMove(entry, name, before.get(name), after.get(name))
        before = after


def derive(project: UUID, workflow: UUID, delta: LedgerDelta) -> dict[str, EnvironmentRow | None]:
    """Return the row of each pointer that the new entries move, by name; None for a removed one."""
    found: dict[str, EnvironmentRow | None] = {}
    for move in moves(delta):
        entry, pointer = move.entry, move.after
        found[move.name] = (
            EnvironmentRow(
                workflow_id=workflow,
                name=move.name,
                project_id=project,
                version_number=pointer.version,
                weight=pointer.weight,
                second_number=pointer.second,
                held=pointer.held,
                moved_at=entry.when,
                moved_by=entry.actor.name,
                message=entry.message,
                ledger_oid=entry.oid,
            )
            if pointer is not None
            else None
        )
    return found


def write(tx: Transaction, workflow: UUID, found: Mapping[str, EnvironmentRow | None]) -> None:
    """Write the rows `found`, and delete those that are None."""
    kept = [row for row in found.values() if row is not None]
    gone = [name for name, row in found.items() if row is None]
    if kept:
        tx.run(_UPSERT, pointers=rows.as_json(kept))
    if gone:
        tx.run(_DELETE, workflow=workflow, names=gone)


# Comparing and correcting


def differences(tx: Transaction, repository: Repository, slugs: Sequence[str]) -> Iterator[str]:
    """Yield those of `slugs` whose rows differ from their ledgers."""
    stored = _stored(tx, repository, slugs)
    for slug in slugs:
        found = stored.get(repository.identity(slug), {})
        try:
            newest = repository.newest_counting(slug)
            if (found or (newest is not None and newest.environments)) and found != _derived(
                repository, slug
            ):
                yield slug
        except GitstoreError:
            continue  # damage, which the comparison of versions reports


def correct(tx: Transaction, repository: Repository, slugs: Sequence[str]) -> None:
    """Write the rows that differ, and delete those of pointers that the ledgers lack. During upkeep."""
    stored = _stored(tx, repository, slugs)
    for slug in list(differences(tx, repository, slugs)):
        workflow = repository.identity(slug)
        write(tx, workflow, {**dict.fromkeys(stored.get(workflow, {})), **_derived(repository, slug)})


def _derived(repository: Repository, slug: str) -> dict[str, EnvironmentRow]:
    project, delta = repository.project, ledger_delta(repository, slug, None)
    found = derive(project, repository.identity(slug), delta)
    return {name: row for name, row in found.items() if row is not None}


def _stored(
    tx: Transaction, repository: Repository, slugs: Sequence[str]
) -> dict[UUID, dict[str, EnvironmentRow]]:
    found: dict[UUID, dict[str, EnvironmentRow]] = {}
    workflows = [repository.identity(slug) for slug in slugs]
    for row in tx.rows(EnvironmentRow, _OF_WORKFLOWS, workflows=workflows):
        found.setdefault(row.workflow_id, {})[row.name] = row
    return found


def _by_name(entry: LedgerEntry | None) -> dict[str, Environment]:
    return {pointer.name: pointer for pointer in entry.environments} if entry is not None else {}


# Reading


def of_workflow(tx: Transaction, workflow: UUID) -> Sequence[ShownPointer]:
    """Return the pointers of a workflow by name."""
    return tx.rows(ShownPointer, _OF_WORKFLOW, workflow=workflow)


def of_workflows(tx: Transaction, project: UUID, slugs: Sequence[str]) -> Sequence[ShownPointer]:
    """Return the pointers of some workflows of a project, by slug and name."""
    return tx.rows(ShownPointer, _SHOWN_OF_PROJECT, project=project, slugs=list(slugs))
