"""/audit: the audit log of the project, as pages or as JSON lines. For its owners."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from flask import Response, request
from pydantic import AwareDatetime, Field

from gitstore.model import Permission
from service import lookup
from service.api import http
from service.api.openapi import Query, declares, new_blueprint
from service.context import enter
from sync import audit
from sync.audit import AuditFilter

blueprint = new_blueprint("audit", "The audit log: who changed what, when, how and from where.")

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


@blueprint.get("/audit", **declares(200, AuditPage, "Link"))
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
