"""What happened: to a workflow, from Git; in a project, from its events. One form for API and pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from gitstore import activity
from gitstore.activity import Happening, Kind, Place
from gitstore.errors import IntegrityError, NotFoundError, ObjectsMissingError
from gitstore.model import Actor, Person
from service import lookup
from service.access import Who, who
from service.caller import Caller
from sync import catalog, events
from sync.events import EventType, Recorded

_NONE: Final = "-"
_OID: Final = re.compile(r"[0-9a-f]{40}|-")


@dataclass(frozen=True, slots=True)
class Activity:
    """One thing that happened to a workflow. `version`, `previous` and `commit` as in `Happening`."""

    id: str
    kind: str
    at: datetime
    actor: Who
    on_behalf_of: str | None
    reason: str
    workflow: str
    workflow_name: str
    version: int | None
    previous: int | None
    activated: bool
    commit: str | None


@dataclass(frozen=True, slots=True)
class ActivityPage:
    rows: Sequence[Activity]
    next: str | None


# Of a workflow


def of_workflow(
    caller: Caller, name: str, cursor: str | None, limit: int
) -> tuple[catalog.Workflow, ActivityPage]:
    """Return the workflow and what happened to it, newest first."""
    begins = lookup.place_in(cursor, _parse_place)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, name)
        rows: list[Recorded] = []
        if begins is None or begins.other is not None:
            first = UUID(begins.other) if begins and begins.other else None
            rows = events.divergences(tx, workflow.id, first=first, limit=limit + 1)
    others = [_of_event(row) for row in rows]
    with caller.opened(shown=True) as repository:
        place = begins or activity.beginning(repository, workflow.slug)
        try:
            found, following = activity.read(repository, workflow.slug, place, limit, others)
        except (IntegrityError, NotFoundError, ObjectsMissingError):
            if begins is None:
                raise
            raise lookup.invalid_cursor() from None
    with caller.reading() as tx:
        known = catalog.versions_with(tx, workflow.id, {row.blob for row in found if row.blob})
    rows_ = [_shown(_named(row, known), workflow.slug, workflow.name) for row in found]
    return workflow, ActivityPage(rows_, _written(following) if following else None)


def _named(row: Happening, known: Sequence[tuple[str, int, datetime, str]]) -> Happening:
    """Return a save of what an earlier version holds as the reverting that it was."""
    if row.kind is not Kind.SAVED:
        return row
    held = [
        number
        for blob, number, at, commit in known
        if blob == row.blob and at.replace(microsecond=0) <= row.at and commit != row.id
    ]
    return replace(row, kind=Kind.REVERTED, version=held[-1]) if held else row


def _written(place: Place) -> str:
    return " ".join(each or _NONE for each in (place.ledger, place.draft, place.other))


def _parse_place(text: str) -> Place | None:
    ledger, draft, other = text.split(" ")
    if not (_OID.fullmatch(ledger) and _OID.fullmatch(draft) and (other == _NONE or lookup.uuid_of(other))):
        return None
    return Place(*(None if each == _NONE else each for each in (ledger, draft, other)))


# Of a project


def of_project(caller: Caller, cursor: str | None, limit: int) -> ActivityPage:
    """Return what happened to the workflows of the caller's project, what was recorded last first."""
    before = lookup.moment_in(cursor)
    with caller.reading() as tx:
        rows = events.of_project(tx, caller.project_id, before=before, limit=limit + 1)
    more, shown = len(rows) > limit, rows[:limit]
    following = f"{shown[-1].recorded_at.isoformat()} {shown[-1].id}" if more else None
    return ActivityPage([_shown(_of_event(row), row.slug, row.name) for row in shown], following)


def _of_event(row: Recorded) -> Happening:
    data = row.data
    return Happening(
        id=str(row.id),
        kind=_kind(row, data),
        at=row.created_at,
        actor=Person(_actor(data), ""),
        reason=data.get("reason") or data.get("message") or "",
        version=data.get("version_number"),
        previous=data.get("previous"),
        activated=bool(data.get("activated")),
        commit=data.get("commit"),
    )


def _kind(row: Recorded, data: dict[str, Any]) -> Kind | str:
    match row.type:
        case EventType.PUBLISHED:
            return Kind.IMPORTED if who(data.get("published_by") or "").kind == "source" else Kind.PUBLISHED
        case EventType.DRAFT_UPDATED if data.get("discarded"):
            return Kind.DISCARDED
        case EventType.DRAFT_UPDATED:
            return Kind.CREATED if row.created_at <= row.begun else Kind.SAVED
        case EventType.CURRENT_CHANGED if data.get("version_number") is None:
            return Kind.CLEARED
        case EventType.CURRENT_CHANGED if data.get("held"):
            return Kind.HELD
        case EventType.CURRENT_CHANGED:
            return Kind.RELEASED if data.get("previous") == data["version_number"] else Kind.CURRENT
        case EventType.UPDATED:
            return Kind.DESCRIBED
        case EventType.DIVERGED:
            return Kind.DIVERGED
    return row.type


def _actor(data: dict[str, Any]) -> str:
    for key in ("published_by", "by"):
        if data.get(key):
            return str(data[key])
    author = data.get("author")
    return str(author.get("name", "")) if isinstance(author, dict) else ""


def _shown(row: Happening, slug: str, name: str) -> Activity:
    return Activity(
        id=row.id,
        kind=row.kind,
        at=row.at,
        actor=who(row.actor.name),
        on_behalf_of=row.actor.on_behalf_of if isinstance(row.actor, Actor) else None,
        reason=row.reason,
        workflow=slug,
        workflow_name=name,
        version=row.version,
        previous=row.previous,
        activated=row.activated,
        commit=row.commit,
    )
