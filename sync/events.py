"""Events of workflows: rows that are inserted in the transaction of the fact itself.

An event's id is uuid5(workflow id, "<type> <source>"), where <source> is the ledger entry that records the
fact or, for a draft, the tips of its branch and of the ledger. A fact therefore has one event, however often
it is processed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, LiteralString
from uuid import UUID, uuid5

from psycopg.types.json import Jsonb

from gitstore.masking import masked
from gitstore.model import Environment, LedgerEntry, LedgerKind
from gitstore.names import version_id
from gitstore.states import pointers_on
from sync import rows
from sync.db import Transaction
from sync.rows import VersionRow, WorkflowRow


class EventType(StrEnum):
    PUBLISHED = "workflow.version.published"
    DRAFT_UPDATED = "workflow.draft.updated"
    CURRENT_CHANGED = "workflow.current.changed"
    YANKED = "workflow.version.yanked"
    UNYANKED = "workflow.version.unyanked"
    ANNOTATED = "workflow.version.annotated"
    ARCHIVED = "workflow.archived"
    UNARCHIVED = "workflow.unarchived"
    UPDATED = "workflow.updated"
    RENAMED = "workflow.renamed"
    ENVIRONMENT_CHANGED = "workflow.environment.changed"
    SCHEDULE_STOPPED = "workflow.schedule.stopped"
    DIVERGED = "workflow.version.diverged"
    RELEASED = "release.created"


@dataclass(frozen=True, slots=True)
class EventRow:
    """The columns of gitstore.events that a write sets. `data` is JSON-serializable."""

    id: UUID
    project_id: UUID
    workflow_id: UUID | None
    type: str
    created_at: datetime
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fact(EventRow):
    """An event of a workflow. `created_at` is the time of the fact, `actor` the name of its actor in Git.

    `version_number` is None if the current version was cleared; for a draft it is the number that publishing
    would assign.
    """

    workflow_id: UUID
    type: EventType
    slug: str
    version_number: int | None
    actor: str

    @property
    def object(self) -> str:
        """The object of the event as git names it: a draft, a version, or a slug."""
        if self.type is EventType.DRAFT_UPDATED:
            return f"drafts/{self.slug}"
        return f"{self.slug}/v{self.version_number}" if self.version_number else self.slug


CHANNEL: Final = "gitstore_events"
"""The NOTIFY channel on which the id of each event is sent when it is committed."""

# Engines that listen are notified of each event. The worker has channels of its own and is notified only of
# work: deliveries to the project's subscribers (one small row here, however many there are), or a source to
# which published versions are pushed.
MADE: Final[LiteralString] = (
    "made as ("  # noqa: S608 - of constants
    + rows.insert("events", EventRow, "events")
    + """
        on conflict (id) do nothing
        returning id, project_id
    ), queued as (
        insert into gitstore.event_queue (event_id)
        select made.id from made
        where exists (select from gitstore.subscriptions s where s.project_id = made.project_id)
        returning event_id
    ), notified as materialized (
        select pg_notify('gitstore_events', made.id::text) from made
        union all
        select pg_notify('gitstore_deliveries', '') from (select from queued limit 1) one
        union all
        select pg_notify('gitstore_sources', made.id::text) from made where exists (
            select from gitstore.sources s
            where s.project_id = made.project_id and s.direction <> 'pull' and not s.paused)
    )
"""
)
_INSERT: Final[LiteralString] = "with " + MADE + " select count(*) from notified"  # noqa: S608 - of constants


def insert(tx: Transaction, events: Iterable[EventRow | Mapping[str, object]]) -> None:
    """Insert `events`; skip those that exist already."""
    tx.run(_INSERT, events=as_json(events))


def as_json(events: Iterable[EventRow | Mapping[str, object]]) -> Jsonb:
    """Return the parameter `events` of `MADE`, without secrets: subscribers are outside access control."""
    return rows.as_json(map(_without_secrets, events), EventRow)


def _without_secrets(event: EventRow | Mapping[str, object]) -> EventRow | Mapping[str, object]:
    if isinstance(event, EventRow):
        return replace(event, data=masked(event.data))
    return {**event, "data": masked(event["data"])}


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as it is stored, with the present slug and name of its workflow, and when that was created."""

    id: UUID
    type: str
    created_at: datetime
    recorded_at: datetime
    data: dict[str, Any]
    slug: str
    name: str
    begun: datetime


_RECORDED: Final[LiteralString] = """
    select e.id, e.type, e.created_at, e.recorded_at, e.data, w.slug, w.name, w.created_at as begun
    from gitstore.events e join gitstore.workflows w on w.id = e.workflow_id
"""
_OF_PROJECT: Final[LiteralString] = (
    _RECORDED
    + """
    where e.project_id = %(project)s and (e.recorded_at, e.id) < (%(at)s, %(id)s)
        and (%(types)s::text[] is null or e.type = any(%(types)s))
    order by e.recorded_at desc, e.id desc limit %(limit)s
"""
)
_DIVERGED: Final[LiteralString] = (
    _RECORDED  # noqa: S608 - of constants
    + """
    where e.workflow_id = %(workflow)s and e.type = 'workflow.version.diverged'
        and (%(first)s::uuid is null or (e.created_at, e.id) <= (
            select f.created_at, f.id from gitstore.events f where f.id = %(first)s))
    order by e.created_at desc, e.id desc limit %(limit)s
"""
)
_END: Final = (datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))


def of_project(
    tx: Transaction,
    project: UUID,
    *,
    before: tuple[datetime, UUID] | None = None,
    types: Iterable[EventType] | None = None,
    limit: int,
) -> list[Recorded]:
    """Return the events of a project's workflows, those recorded last first; only those `before` a row.

    With `types`, only events of these.
    """
    at, last = before or _END
    names = None if types is None else [each.value for each in types]
    return tx.rows(Recorded, _OF_PROJECT, project=project, at=at, id=last, types=names, limit=limit)


def divergences(tx: Transaction, workflow: UUID, *, first: UUID | None = None, limit: int) -> list[Recorded]:
    """Return the divergences of a workflow, newest first, from the event `first` on."""
    return tx.rows(Recorded, _DIVERGED, workflow=workflow, first=first, limit=limit)


def published(workflow: WorkflowRow, row: VersionRow, entry: LedgerEntry) -> Fact:
    data = {
        **_version(workflow, row),
        "published_by": row.published_by,
        "activated": entry.current == row.version_number,
        **_cause(entry),
    }
    return _of_entry(EventType.PUBLISHED, workflow, row.version_number, entry, data)


def draft_updated(workflow: WorkflowRow, row: VersionRow) -> Fact:
    source = f"{row.commit_sha} {workflow.ledger_oid}"
    data = {**_version(workflow, row), "discarded": False}
    number, actor = row.version_number, row.author_name
    return _fact(EventType.DRAFT_UPDATED, workflow, number, source, row.created_at, actor, data)


def draft_discarded(workflow: WorkflowRow, entry: LedgerEntry) -> Fact:
    data = {
        "workflow": workflow.slug,
        "commit": None,
        "discarded": True,
        "message": entry.message,
        "by": entry.actor.name,
    }
    return _of_entry(EventType.DRAFT_UPDATED, workflow, workflow.latest_number + 1, entry, data)


def current_changed(workflow: WorkflowRow, previous: int | None, entry: LedgerEntry) -> Fact:
    number = entry.current
    data = {
        "workflow": workflow.slug,
        "version_number": number,
        "version_id": str(version_id(workflow.id, number)) if number is not None else None,
        "previous": previous,
        "held": entry.held,
        "message": entry.message,
        "by": entry.actor.name,
        **_cause(entry),
    }
    return _of_entry(EventType.CURRENT_CHANGED, workflow, number, entry, data)


def environment_changed(
    workflow: WorkflowRow,
    entry: LedgerEntry,
    name: str,
    before: Environment | None,
    after: Environment | None,
) -> Fact:
    """Return the event of the move of a pointer, which `entry` may make beside others."""
    data = {
        "workflow": workflow.slug,
        "environment": name,
        **_pointer(workflow.id, after),
        "previous": _pointer(workflow.id, before) if before is not None else None,
        "message": entry.message,
        "by": entry.actor.name,
        **_cause(entry),
    }
    number = after.version if after is not None else None
    kind, source = EventType.ENVIRONMENT_CHANGED, f"{entry.oid} {name}"
    return _fact(kind, workflow, number, source, entry.when, entry.actor.name, data)


def _pointer(workflow: UUID, pointer: Environment | None) -> dict[str, Any]:
    if pointer is None:
        return {"version_number": None, "version_id": None, "weights": None, "held": False}
    weights = {str(number): weight for number, weight in pointer.weights.items()}
    return {
        "version_number": pointer.version,
        "version_id": str(version_id(workflow, pointer.version)),
        "weights": weights if len(weights) > 1 else None,
        "held": pointer.held,
    }


def schedule_stopped(
    schedule: UUID, project: UUID, workflow: UUID, at: datetime, data: Mapping[str, object]
) -> EventRow:
    """Return the event of a schedule that could not be carried out; `at` is the time that it was for."""
    kind = EventType.SCHEDULE_STOPPED
    event = uuid5(workflow, f"{kind} {schedule}")
    return EventRow(event, project, workflow, kind, at, {"schedule": str(schedule), **data})


def updated(workflow: WorkflowRow, entry: LedgerEntry) -> Fact:
    """Return the event of a new name or description, as the workflow has them since then."""
    data = {
        "workflow": workflow.slug,
        "name": workflow.name,
        "description": workflow.description,
        "by": entry.actor.name,
    }
    return _of_entry(EventType.UPDATED, workflow, None, entry, data)


def renamed(workflow: WorkflowRow, entry: LedgerEntry) -> Fact:
    """Return the event of a new slug; `before` is the one until then."""
    before = entry.former[-1].slug if entry.former else None
    data = {
        "workflow": entry.renamed,
        "before": before,
        "message": entry.message,
        "by": entry.actor.name,
    }
    return _of_entry(EventType.RENAMED, workflow, None, entry, data)


_CHANGES: Final = {
    LedgerKind.YANKED: EventType.YANKED,
    LedgerKind.UNYANKED: EventType.UNYANKED,
    LedgerKind.ANNOTATED: EventType.ANNOTATED,
    LedgerKind.ARCHIVED: EventType.ARCHIVED,
    LedgerKind.UNARCHIVED: EventType.UNARCHIVED,
}


def state_changed(workflow: WorkflowRow, entry: LedgerEntry) -> Fact | None:
    """Return the event of a version that was yanked or annotated, or of a workflow that was archived.

    None for entries of other kinds.
    """
    kind = _CHANGES.get(entry.kind) if isinstance(entry.kind, LedgerKind) else None
    if kind is None:
        return None
    data: dict[str, Any] = {"workflow": workflow.slug, "message": entry.message, "by": entry.actor.name}
    if entry.version is not None:
        identity = str(version_id(workflow.id, entry.version))
        data |= {"version_number": entry.version, "version_id": identity}
    if kind is EventType.YANKED:
        data["pointers"] = pointers_on(entry, entry.version)
    if kind is EventType.ANNOTATED:
        data |= {"title": entry.title, "notes": entry.notes}
    return _of_entry(kind, workflow, entry.version, entry, data)


def _version(workflow: WorkflowRow, row: VersionRow) -> dict[str, Any]:
    return {
        "workflow": workflow.slug,
        "version_number": row.version_number,
        "version_id": str(row.id),
        "commit": row.commit_sha,
        "digest": row.digest,
        "valid": row.valid,
        "message": row.message,
        "author": {"name": row.author_name, "email": row.author_email},
    }


def _cause(entry: LedgerEntry) -> dict[str, Any]:
    """Return the release and the schedule of an entry, and the environment that a promotion took it from."""
    cause: dict[str, Any] = {}
    if entry.release is not None:
        cause |= {"release": entry.release, "rolled_back": entry.rolled_back}
    if entry.promoted_from is not None:
        cause["promoted_from"] = entry.promoted_from
    if entry.schedule is not None:
        cause["schedule"] = str(entry.schedule)
    return cause


def _of_entry(
    kind: EventType, workflow: WorkflowRow, number: int | None, entry: LedgerEntry, data: dict[str, Any]
) -> Fact:
    return _fact(kind, workflow, number, entry.oid, entry.when, entry.actor.name, data)


def _fact(
    kind: EventType,
    workflow: WorkflowRow,
    number: int | None,
    source: str,
    at: datetime,
    actor: str,
    data: dict[str, Any],
) -> Fact:
    return Fact(
        id=uuid5(workflow.id, f"{kind} {source}"),
        type=kind,
        project_id=workflow.project_id,
        workflow_id=workflow.id,
        slug=workflow.slug,
        version_number=number,
        created_at=at,
        actor=actor,
        data=data,
    )
