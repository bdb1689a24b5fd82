"""/schedules: publications and moves that are carried out later. They are made by `at` of the usual calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Final, Literal, Self
from uuid import UUID

from flask import Response
from pydantic import Field

from gitstore.definition.quoting import clip
from gitstore.model import Permission
from service import lookup
from service.actions import schedules as actions
from service.api.http import Answer, answer, answer_page, no_content, url
from service.api.openapi import (
    ObjectPath,
    PageQuery,
    Query,
    Responses,
    WorkflowPath,
    declares,
    new_blueprint,
    responds,
)
from service.caller import Caller
from service.context import enter
from sync import schedules
from sync.schedules import ShownSchedule

blueprint = new_blueprint("schedules", "Publications and moves of pointers that are carried out later.")

AT: Final = "when to do it: a later time, at most a year away; the answer is then 202, with the schedule"
State = Literal["waiting", "running", "done", "stopped", "cancelled"]


class Schedule(Answer):
    id: UUID
    workflow: str = Field(description="the present slug")
    workflow_id: UUID
    kind: Literal["publish", "move", "promote"]
    at: datetime
    state: State
    environment: str | None = Field(description="whose pointer moves; null for a publication")
    source: str | None = Field(description="of a promotion: the environment from which")
    commit: str | None = Field(description="of a publication: the draft's commit")
    version_number: int | None = Field(description="of a publication: null until it is done")
    weights: dict[str, int] | None = Field(description="of two versions, in percent; null with one version")
    held: bool
    activate: bool = Field(description="of a publication: whether the version becomes current")
    message: str
    scheduled_by: str
    created_at: datetime
    ended_at: datetime | None
    cancelled_by: str | None
    code: str | None = Field(description="of a stopped one: the code of the error")
    reason: str | None = Field(description="of a stopped one: why")
    url: str

    @classmethod
    def of(cls, row: ShownSchedule, caller: Caller) -> Self:
        weights = {str(number): weight for number, weight in row.weights.items()}
        return cls.from_row(
            row,
            workflow=row.slug,
            commit=row.draft_commit,
            weights=weights if row.second_number is not None else None,
            scheduled_by=row.actor_name,
            cancelled_by=row.ended_by,
            url=url(caller, f"/schedules/{row.id}"),
        )


class Schedules(Answer):
    schedules: list[Schedule]


class SchedulePage(Schedules):
    next_cursor: str | None


class ScheduleQuery(PageQuery):
    state: State | None = None


SCHEDULED: Final[Responses] = responds(202, Schedule, "Location")
"""The answer to a call with `at`."""
SCHEDULED_SEVERAL: Final[Responses] = responds(202, Schedules)


def scheduled(caller: Caller, row: ShownSchedule) -> Response:
    """Answer that it will be done."""
    shown = Schedule.of(row, caller)
    return answer(shown, HTTPStatus.ACCEPTED, location=shown.url)


def scheduled_several(caller: Caller, rows: Sequence[ShownSchedule]) -> Response:
    listed = [Schedule.of(row, caller) for row in rows]
    return answer(Schedules.model_construct(schedules=listed), HTTPStatus.ACCEPTED)


@blueprint.get("/schedules", **declares(200, SchedulePage, "Link"))
def list_schedules(query: ScheduleQuery) -> Response:
    """List the schedules of the project, those with the latest time first."""
    caller = enter(Permission.READ, "listing schedules", project=query.project)
    return _page(caller, query, "/schedules")


@blueprint.get("/workflows/<id>/schedules", **declares(200, SchedulePage, "Link"))
def list_workflow_schedules(path: WorkflowPath, query: ScheduleQuery) -> Response:
    """List the schedules of a workflow, those with the latest time first."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    with caller.reading() as tx:
        row = lookup.workflow(tx, caller, path.id)
    return _page(caller, query, f"/workflows/{row.slug}/schedules", row.id)


@blueprint.get("/schedules/<id>", **declares(200, Schedule))
def read_schedule(path: ObjectPath, query: Query) -> Response:
    """Read a schedule: whether it waits, was carried out, or was stopped and why."""
    caller = enter(Permission.READ, "reading a schedule", project=query.project)
    with caller.reading() as tx:
        row = actions.find(tx, caller, path.id)
    return answer(Schedule.of(row, caller))


@blueprint.delete("/schedules/<id>", **declares(204, errors=(409,)))
def cancel_schedule(path: ObjectPath, query: Query) -> Response:
    """Cancel a schedule that waits. It stays listed."""
    caller = enter(Permission.EDIT, "cancelling a schedule", project=query.project)
    actions.cancel(caller, path.id)
    return no_content()


def _page(caller: Caller, query: ScheduleQuery, path: str, workflow: UUID | None = None) -> Response:
    before = lookup.moment_in(query.cursor)
    with caller.reading() as tx:
        rows = schedules.page(
            tx, caller.project_id, workflow=workflow, state=query.state, before=before, limit=query.limit + 1
        )
    last = rows[query.limit - 1] if len(rows) > query.limit else None
    place = f"{last.at.isoformat()} {last.id}" if last is not None else None
    listed = [Schedule.of(row, caller) for row in rows[: query.limit]]
    return answer_page(caller, SchedulePage, path, place, schedules=listed)
