"""Rows of what may change about a version after its publication, derived from the ledger.

A row exists for each version that was yanked, titled or given notes, even if all of it was taken back. The
mirror derives the changed columns from the new ledger entries alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from gitstore.model import LedgerEntry, LedgerKind
from sync import rows
from sync.db import Transaction


@dataclass(frozen=True, slots=True)
class _Key:
    workflow_id: UUID
    version_number: int
    project_id: UUID


@dataclass(frozen=True, slots=True)
class Yank(_Key):
    """The columns that a yank sets; None where it was taken back."""

    yanked_at: datetime | None = None
    yanked_by: str | None = None
    yank_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Annotation(_Key):
    """The columns that a title and notes set."""

    title: str | None = None
    notes: str | None = None
    annotated_at: datetime | None = None
    annotated_by: str | None = None


@dataclass(frozen=True, slots=True)
class StateRow(_Key):
    """A row of gitstore.version_states."""

    yanked_at: datetime | None = None
    yanked_by: str | None = None
    yank_reason: str | None = None
    title: str | None = None
    notes: str | None = None
    annotated_at: datetime | None = None
    annotated_by: str | None = None


_CONFLICT: Final[LiteralString] = "workflow_id, version_number"
_CONSTANT: Final = ("workflow_id", "version_number", "project_id")
_YANK: Final = rows.insert("version_states", Yank, "states") + rows.update(Yank, *_CONSTANT, key=_CONFLICT)
_ANNOTATE: Final = rows.insert("version_states", Annotation, "states") + rows.update(
    Annotation, *_CONSTANT, key=_CONFLICT
)
_PUT: Final = rows.insert("version_states", StateRow, "states") + rows.update(
    StateRow, *_CONSTANT, key=_CONFLICT
)
_STORED: Final[LiteralString] = (
    rows.select(StateRow)
    + " from gitstore.version_states where workflow_id = %(workflow)s order by version_number"
)
_DELETE: Final[LiteralString] = """
    delete from gitstore.version_states
    where workflow_id = %(workflow)s and version_number = any(%(numbers)s)
"""


def changes(project: UUID, workflow: UUID, entries: Iterable[LedgerEntry]) -> list[Yank | Annotation]:
    """Return the columns that `entries`, oldest first, set: the newest of each version."""
    yanks: dict[int, Yank] = {}
    annotations: dict[int, Annotation] = {}
    for entry in entries:
        if entry.version is None:
            continue
        key, by = (workflow, entry.version, project), entry.actor.name
        if entry.kind is LedgerKind.YANKED:
            yanks[entry.version] = Yank(*key, entry.when, by, entry.message)
        elif entry.kind is LedgerKind.UNYANKED:
            yanks[entry.version] = Yank(*key)
        elif entry.kind is LedgerKind.ANNOTATED:
            annotations[entry.version] = Annotation(*key, entry.title, entry.notes, entry.when, by)
    return [*yanks.values(), *annotations.values()]


def derive(project: UUID, workflow: UUID, entries: Iterable[LedgerEntry]) -> list[StateRow]:
    """Return the rows of a workflow from all entries of its ledger, by version number."""
    found: dict[int, dict[str, object]] = {}
    for change in changes(project, workflow, entries):
        found.setdefault(change.version_number, {}).update(rows.values(change))
    return [StateRow(**found[number]) for number in sorted(found)]  # type: ignore[arg-type]


def write(tx: Transaction, changed: Sequence[Yank | Annotation]) -> None:
    """Write what the mirror has derived from new ledger entries."""
    for shape, statement in ((Yank, _YANK), (Annotation, _ANNOTATE)):
        if given := [change for change in changed if isinstance(change, shape)]:
            tx.run(statement, states=rows.as_json(given))


def stored(tx: Transaction, workflow: UUID) -> list[StateRow]:
    """Return the rows of a workflow by version number."""
    return tx.rows(StateRow, _STORED, workflow=workflow)


def correct(tx: Transaction, derived: Mapping[UUID, Sequence[StateRow]]) -> None:
    """Make the rows of workflows equal to those derived. During upkeep."""
    for workflow, expected in derived.items():
        if (present := stored(tx, workflow)) != expected:
            numbers = {row.version_number for row in present} - {row.version_number for row in expected}
            tx.run(_DELETE, workflow=workflow, numbers=list(numbers))
            tx.run(_PUT, states=rows.as_json(expected))
