"""/activity and /workflows/{id}/activity: what happened, newest first; /audit: the audit log, for owners."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from flask import Response, request
from pydantic import AwareDatetime, Field

from gitstore.activity import Kind, Topic
from gitstore.definition.quoting import clip
from gitstore.model import Permission
from service import activity, lookup
from service.api import http
from service.api.openapi import PageQuery, Query, WorkflowPath, declares, new_blueprint
from service.context import enter
from sync import audit
from sync.audit import AuditFilter

blueprint = new_blueprint("activity", "What happened to workflows: who did it, when, and why.")

_KINDS: Final = ", ".join(f"`{kind}`" for kind in Kind)


class Doer(http.Answer):
    name: str
    kind: Literal["user", "token", "source", "operator"]


class Activity(http.Answer):
    id: str = Field(description="of the commit or the event that recorded it")
    kind: str = Field(description=f"one of {_KINDS}; later releases may add others")
    at: datetime
    actor: Doer
    on_behalf_of: str | None = Field(description="the user for whom a program claimed to act")
    reason: str
    workflow: str = Field(description="the workflow's slug")
    workflow_name: str
    version: int | None
    previous: int | None = Field(description="the version that was current, or in the environment, before")
    activated: bool = Field(description="whether the published version became current at once")
    commit: str | None = Field(description="of the draft")
    environment: str | None = Field(description="whose pointer moved; null for `current`")
    weights: dict[str, int] | None = Field(description="of two versions, in percent; null with one version")
    held: bool = Field(description="whether publications leave the pointer where it is")
    release: str | None = Field(description="the release that did it, or was rolled back")
    promoted_from: str | None = Field(description="the environment that had the version")


class ActivityQuery(PageQuery):
    topic: Literal["drafts", "versions", "pointers", "workflows"] | None = Field(
        None, description="only what is about it; `pointers` has `current`, too"
    )

    @property
    def about(self) -> Topic | None:
        return Topic(self.topic) if self.topic is not None else None


class ActivityPage(http.Answer):
    activity: list[Activity]
    next_cursor: str | None


@blueprint.get("/workflows/<id>/activity", **declares(200, ActivityPage, "Link"))
def list_activity_of_workflow(path: WorkflowPath, query: ActivityQuery) -> Response:
    """List what happened to a workflow, newest first."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    workflow, page = activity.of_workflow(caller, path.id, query.cursor, query.limit, query.about)
    place = f"/workflows/{workflow.slug}/activity"
    return http.answer_page(caller, ActivityPage, place, page.next, activity=_rows(page.rows))


@blueprint.get("/activity", **declares(200, ActivityPage, "Link"))
def list_activity(query: ActivityQuery) -> Response:
    """List what happened to the workflows of the project, what was recorded last first."""
    caller = enter(Permission.READ, "reading the activity", project=query.project)
    page = activity.of_project(caller, query.cursor, query.limit, query.about)
    return http.answer_page(caller, ActivityPage, "/activity", page.next, activity=_rows(page.rows))


def _rows(rows: Iterable[activity.Activity]) -> list[Activity]:
    return [
        Activity.from_row(row, actor=Doer.model_construct(name=row.actor.name, kind=row.actor.kind))
        for row in rows
    ]


# The audit log

audit_log = new_blueprint("audit", "The audit log: who changed what, when, how and from where.")

LINES: Final = "application/x-ndjson"
_LONGEST: Final = 1_000


class AuditQuery(Query):
    action: str | None = Field(None, description="a name, as `token.created`, or its first part, as `token`")
    actor: str | None = Field(None, description="id or name of an actor")
    object: str | None = Field(None, description="the name of an object, as it is in a row")
    since: AwareDatetime | None = Field(None, description="rows of this time or later (RFC 3339)")
    until: AwareDatetime | None = Field(None, description="rows before this time (RFC 3339)")
    limit: int = Field(100, ge=1, le=_LONGEST)
    cursor: str | None = Field(None, description="`next_cursor` of the previous page")


class AuditEntry(http.Answer):
    id: UUID
    at: datetime
    action: str = Field(examples=["token.created"])
    object: str
    actor_id: str = Field(description="id of a token or a user, or `operator` or `worker`")
    actor_name: str
    door: str = Field(description="`http`, `git`, `page`, `cli` or `worker`")
    remote: str | None = Field(description="the client's address")
    request_id: str | None = Field(description="the X-Request-Id of the request")
    details: dict[str, Any]


class AuditPage(http.Answer):
    audit: list[AuditEntry]
    next_cursor: str | None


@audit_log.get("/audit", **declares(200, AuditPage, "Link"))
def list_audit(query: AuditQuery) -> Response:
    """List the audit log, newest first; with `Accept: application/x-ndjson`, one entry a line."""
    caller = enter(Permission.OWN, "reading the audit log", project=query.project)
    wanted = AuditFilter(query.action, query.actor, query.object, query.since, query.until)
    before = lookup.moment_in(query.cursor)
    with caller.reading() as tx:
        rows = audit.page(tx, caller.project_id, wanted, before=before, limit=query.limit + 1)
    shown = rows[: query.limit]
    place = f"{shown[-1].at.isoformat()} {shown[-1].id}" if len(rows) > query.limit else None
    entries = [AuditEntry.from_row(row) for row in shown]
    page = http.answer_page(caller, AuditPage, "/audit", place, audit=entries)
    if request.accept_mimetypes.best_match([http.JSON, LINES]) == LINES:
        page.set_data("".join(f"{entry.model_dump_json()}\n" for entry in entries))
        page.mimetype = LINES
    return page
