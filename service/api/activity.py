"""/activity and /workflows/{id}/activity: what happened, newest first."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal

from flask import Response
from pydantic import Field

from gitstore.activity import Kind, Topic
from gitstore.definition.quoting import clip
from gitstore.model import Permission
from service import activity
from service.api import http
from service.api.openapi import PageQuery, WorkflowPath, declares, new_blueprint
from service.context import enter

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
