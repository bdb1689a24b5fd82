"""Pages of what happened: to a workflow, and in the project."""

from __future__ import annotations

from typing import Final

from flask import Response, request

from gitstore.activity import Topic
from gitstore.definition.quoting import clip
from gitstore.model import Permission
from service import activity, lookup
from service.activity import ActivityPage
from service.ui.rendering import blueprint
from service.ui.visits import Visit, enter
from sync import catalog

PAGE: Final = 50


@blueprint.get("/ui/workflows/<slug>/activity")
def show_activity(slug: str) -> Response:
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    workflow, page = activity.of_workflow(visit.caller, slug, request.args.get("cursor"), PAGE, _topic())
    return _page(visit, page, workflow)


@blueprint.get("/ui/activity")
def show_all_activity() -> Response:
    visit = enter(Permission.READ, "reading the activity")
    return _page(visit, activity.of_project(visit.caller, request.args.get("cursor"), PAGE, _topic()))


def _topic() -> Topic | None:
    """Return the topic that the query names; None for all, and for an unknown one."""
    chosen = request.args.get("topic")
    return Topic(chosen) if chosen in set(Topic) else None


def _page(visit: Visit, page: ActivityPage, workflow: catalog.Workflow | None = None) -> Response:
    return visit.page(
        "activity.html",
        workflow=workflow,
        page=page,
        topic=_topic(),
        topics=list(Topic),
        following=lookup.cursor_to(page.next) if page.next is not None else None,
        later=request.args.get("cursor") is not None,
    )
