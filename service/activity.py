"""What happened: to a workflow, from Git; in a project, from its events. One form for API and pages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from gitstore import activity
from gitstore.activity import Happening, Kind, Place, Topic
from gitstore.environments import weighted
from gitstore.errors import IntegrityError, NotFoundError, ObjectsMissingError
from gitstore.model import Actor, Environment, Person
from gitstore.repository import Repository
from service import lookup
from service.access import Who, who
from service.caller import Caller
from sync import catalog, events
from sync.catalog import Workflow
from sync.db import Transaction
from sync.events import EventType, Recorded

_NONE: Final = "-"
_OID: Final = re.compile(r"[0-9a-f]{40}|-")


@dataclass(frozen=True, slots=True)
class Activity:
    """One thing that happened to a workflow. The fields from `version` on are as in `Happening`.

    `weights` are those of two versions, in percent; None with one version.
    """

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
    environment: str | None
    weights: dict[str, int] | None
    held: bool
    release: str | None
    promoted_from: str | None


@dataclass(frozen=True, slots=True)
class ActivityPage:
    rows: Sequence[Activity]
    next: str | None


# Of a workflow


def of_workflow(
    caller: Caller, name: str, cursor: str | None, limit: int, topic: Topic | None = None
) -> tuple[catalog.Workflow, ActivityPage]:
    """Return the workflow and what happened to it, newest first; with a `topic`, only what is about it."""
    begins = lookup.place_in(cursor, _parse_place)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, name)
        rows: list[Recorded] = []
        if topic in (None, Topic.VERSIONS) and (begins is None or begins.other is not None):
            first = UUID(begins.other) if begins and begins.other else None
            rows = events.divergences(tx, workflow.id, first=first, limit=limit + 1)
    others = [_of_event(row) for row in rows]
    with caller.opened(shown=True) as repository:
        place = begins or activity.beginning(repository, workflow.slug)
        try:
            found, following = activity.read(repository, workflow.slug, place, limit, others, topic)
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


_TYPES: Final = {
    Topic.DRAFTS: (EventType.DRAFT_UPDATED,),
    Topic.VERSIONS: (
        EventType.PUBLISHED, EventType.YANKED, EventType.UNYANKED, EventType.ANNOTATED, EventType.DIVERGED,
    ),
    Topic.POINTERS: (
        EventType.CURRENT_CHANGED, EventType.ENVIRONMENT_CHANGED, EventType.SCHEDULE_STOPPED,
    ),
    Topic.WORKFLOWS: (
        EventType.UPDATED, EventType.RENAMED, EventType.ARCHIVED, EventType.UNARCHIVED,
    ),
}  # fmt: skip
_KINDS: Final[dict[str, Kind]] = {
    EventType.UPDATED: Kind.DESCRIBED,
    EventType.DIVERGED: Kind.DIVERGED,
    EventType.YANKED: Kind.YANKED,
    EventType.UNYANKED: Kind.UNYANKED,
    EventType.ANNOTATED: Kind.ANNOTATED,
    EventType.RENAMED: Kind.RENAMED,
    EventType.ARCHIVED: Kind.ARCHIVED,
    EventType.UNARCHIVED: Kind.UNARCHIVED,
}


def of_project(caller: Caller, cursor: str | None, limit: int, topic: Topic | None = None) -> ActivityPage:
    """Return what happened to the workflows of the caller's project, what was recorded last first."""
    before = lookup.moment_in(cursor)
    with caller.reading() as tx:
        types = _TYPES[topic] if topic is not None else None
        rows = events.of_project(tx, caller.project_id, before=before, types=types, limit=limit + 1)
    more, shown = len(rows) > limit, rows[:limit]
    following = f"{shown[-1].recorded_at.isoformat()} {shown[-1].id}" if more else None
    return ActivityPage([_shown(_of_event(row), row.slug, row.name) for row in shown], following)


def _of_event(row: Recorded) -> Happening:
    data, previous = row.data, row.data.get("previous")
    environment = data.get("environment")
    return Happening(
        id=str(row.id),
        kind=_kind(row, data),
        at=row.created_at,
        actor=Person(_actor(data), ""),
        reason=data.get("reason") or data.get("message") or "",
        version=data.get("version_number"),
        previous=previous.get("version_number") if isinstance(previous, dict) else previous,
        activated=bool(data.get("activated")),
        commit=data.get("commit"),
        environment=environment,
        pointer=_pointer(environment, data) if environment is not None else None,
        release=data.get("release"),
        promoted_from=data.get("promoted_from"),
    )


def _pointer(name: str, data: dict[str, Any]) -> Environment | None:
    """Return the pointer that an event has."""
    version = data.get("version_number")
    if version is None:
        return None
    weights = {int(number): weight for number, weight in (data.get("weights") or {version: 100}).items()}
    return weighted(name, weights, held=bool(data.get("held")))


def _kind(row: Recorded, data: dict[str, Any]) -> Kind | str:
    if data.get("promoted_from") is not None:
        return Kind.PROMOTED
    if data.get("rolled_back"):
        return Kind.ROLLED_BACK
    match row.type:
        case EventType.ENVIRONMENT_CHANGED:
            return Kind.MOVED if data.get("version_number") is not None else Kind.REMOVED
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
    return _KINDS.get(row.type, row.type)


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
        environment=row.environment,
        weights=_weights(row.pointer),
        held=row.kind is Kind.HELD or (row.pointer is not None and row.pointer.held),
        release=row.release,
        promoted_from=row.promoted_from,
    )


def _weights(pointer: Environment | None) -> dict[str, int] | None:
    if pointer is None or pointer.second is None:
        return None
    return {str(number): weight for number, weight in pointer.weights.items()}


# Changes since a page or a program last looked. A client that polls with the state that it has seen gets 304
# for the price of reading one row.

_TOKEN: Final = re.compile(r"([0-9a-f]{0,40})\.([0-9]{1,10})\.([0-9]{1,10})\.([01])\.([0-9a-f]{0,40})")


@dataclass(frozen=True, slots=True)
class SeenState:
    """The state that was seen: the open draft's commit or "", version numbers or 0, and the ledger's tip.

    Its text is opaque to callers; one that is not understood counts as a state in which nothing is known.
    """

    draft: str
    latest: int
    current: int
    held: bool
    ledger: str

    @classmethod
    def of(cls, row: Workflow) -> Self:
        draft = row.draft_commit if row.draft_number and row.draft_commit else ""
        return cls(draft, row.latest_number, row.current_number or 0, row.held, row.ledger_oid or "")

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        found = _TOKEN.fullmatch(text or "")
        if found is None:
            return None
        return cls(found[1], int(found[2]), int(found[3]), found[4] == "1", found[5])

    def __str__(self) -> str:
        return f"{self.draft}.{self.latest}.{self.current}.{int(self.held)}.{self.ledger}"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened: `kind`, for programs; by whom and when, if that is known."""

    kind: str
    text: str
    by: str | None
    at: datetime | None
    version: int | None = None

    def described_to(self, name: str) -> str:
        """Return the text for someone of that name: "You published v3"."""
        return self.text.format(who="You" if self.by == name else (self.by or "Someone"))


def changes_since(caller: Caller, row: Workflow, seen: SeenState) -> list[Change]:
    """Return what happened since `seen`: of several saves, or publications, the newest alone."""
    with caller.reading() as tx, caller.opened(shown=True) as repository:
        return list(_changes(tx, repository, row, seen, SeenState.of(row)))


def _changes(
    tx: Transaction, repository: Repository, row: Workflow, seen: SeenState, now: SeenState
) -> Iterator[Change]:
    if now.draft != seen.draft and now.draft:
        draft = catalog.version(tx, row.id, "draft")
        if draft is not None:
            verb = "saved the draft" if seen.draft else "started a draft"
            by = _name(draft.author_name)
            yield Change("draft_saved", f"{{who}} {verb}", by, draft.created_at, draft.version_number)
    if now.latest > seen.latest:
        latest = catalog.version(tx, row.id, now.latest)
        if latest is not None:
            by, number = _name(latest.published_by), latest.version_number
            yield Change("published", f"{{who}} published v{number}", by, latest.published_at, number)
    if now.ledger == seen.ledger:
        return
    entry = next(iter(repository.ledger(row.slug)), None)
    by, at = (_name(entry.actor.name), entry.when) if entry else (None, None)
    if seen.draft and not now.draft and now.latest == seen.latest:
        yield Change("draft_discarded", "{who} discarded the draft", by, at)
    if now.current != seen.current and not (now.latest > seen.latest and now.current == now.latest):
        verb = f"made v{now.current} current" if now.current else "stopped the workflow"
        yield Change("current_changed", f"{{who}} {verb}", by, at, now.current or None)
    if now.held != seen.held and now.current:
        verb = f"held v{now.current}" if now.held else f"released v{now.current}"
        yield Change("held" if now.held else "released", f"{{who}} {verb}", by, at, now.current)


def _name(name: str | None) -> str | None:
    return who(name).name if name else None
