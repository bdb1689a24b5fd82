"""/workflows: list, create, read, validate; the current version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal
from uuid import UUID

from flask import Response, request
from pydantic import Field

from gitstore.definition.quoting import clip
from gitstore.environments import CURRENT
from gitstore.errors import InvalidDefinitionError, MalformedError
from gitstore.model import Permission
from gitstore.names import version_id
from service import lookup
from service.actions import schedules
from service.actions import versions as version_actions
from service.actions import workflows as actions
from service.activity import SeenState, changes_since
from service.api.drafts import content_of, read_draft
from service.api.http import (
    CHANGING,
    Answer,
    Judged,
    answer,
    answer_page,
    no_content,
    not_modified,
    problems_of,
    read_json,
    unchanged,
    url,
)
from service.api.openapi import PageQuery, Query, WorkflowPath, declares, new_blueprint
from service.api.schedules import AT, SCHEDULED, scheduled
from service.api.versions import PublishedVersion, Version
from service.caller import Caller
from service.context import enter
from service.inputs import Body, CreateWorkflow, Definition, Moment, RenameWorkflow, Text, UpdateWorkflow
from sync import catalog, listing
from sync.db import Transaction

blueprint = new_blueprint("workflows", "Named definitions of a project, each with a draft and versions.")
current = new_blueprint("current", "The version to run.")


class WorkflowsQuery(PageQuery):
    q: str | None = Field(
        None,
        description="beginnings of words of the slug, the name, the description or the labels of nodes",
        max_length=200,
    )
    sort: listing.Sort = "slug"
    filter: listing.Filter | None = Field(
        None,
        description="`idle`: with neither a current version nor a draft; `mine`: that the caller changed",
    )
    archived: listing.Archived = Field(
        "false", description="`true`: archived workflows, too; `only`: these alone"
    )


class Blocked(Answer):
    """A version that is newer than the current one and did not become current, because it is invalid."""

    version_number: int
    reason: str


class Workflow(Answer):
    id: UUID
    project: str = Field(description="the project's slug")
    slug: str
    name: str
    description: str
    held: bool = Field(description="whether publishing leaves the current version unchanged")
    archived: bool = Field(description="whether nothing runs, and nothing may be changed")
    latest_version: int | None
    current: Version | None = Field(description="the version to run")
    draft: Version | None
    blocked: Blocked | None = Field(description="the latest version, if it is invalid and thus not current")
    created_at: datetime
    updated_at: datetime
    url: str


class CreatedWorkflow(Judged, Workflow):
    """The workflow as it was created, with its first draft."""


class WorkflowPage(Answer):
    workflows: list[Workflow]
    total: int = Field(description="number of workflows on all pages")
    next_cursor: str | None


class ChangesQuery(Query):
    since: str | None = Field(None, description="`token` of the previous answer", max_length=200)


class WorkflowChange(Answer):
    """Something that happened to the workflow."""

    kind: Literal["draft_saved", "draft_discarded", "published", "current_changed", "held", "released"]
    by: str | None
    at: datetime | None
    version: int | None = Field(description="the version, or the number that the draft would be published as")


class WorkflowChanges(Answer):
    token: str
    changes: list[WorkflowChange] = Field(
        description="since the token that was sent, or none without one; of several saves, the newest alone"
    )


class Validate(Body):
    """Without `definition`: the draft as it is saved."""

    definition: Definition = None


class Validation(Judged):
    valid: bool
    digest: str | None


@blueprint.get("/workflows", **declares(200, WorkflowPage, "Link"))
def list_workflows(query: WorkflowsQuery) -> Response:
    """List workflows of the project, with their current versions and drafts."""
    caller = enter(Permission.READ, "listing workflows", project=query.project)
    wanted = lookup.listed(caller, query.q, query.filter, query.sort, query.archived)
    after = lookup.place_in(query.cursor, wanted.parse_place)
    with caller.reading() as tx:
        rows, place = listing.workflows(tx, caller.project_id, wanted, after=after, limit=query.limit)
        is_only = after is None and place is None
        total = listing.count(tx, caller.project_id, wanted, rows if is_only else None)
        workflows = _described(tx, caller, rows)
    return answer_page(caller, WorkflowPage, "/workflows", place, workflows=workflows, total=total)


@blueprint.post(
    "/workflows",
    **declares(201, CreatedWorkflow, "ETag", "Location", errors=(409, 422), body=CreateWorkflow),
)
def create_workflow(query: Query) -> Response:
    """Create a workflow with its first draft."""
    caller = enter(Permission.EDIT, "creating a workflow", project=query.project)
    body = read_json(caller, CreateWorkflow)
    saved = actions.create(
        caller,
        body.slug,
        content_of(caller, body.definition),
        author=body.person,
        name=body.name,
        description=body.description or "",
    )
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, body.slug)
        (made,) = _described(tx, caller, [workflow], CreatedWorkflow, **problems_of(saved.problems))
    location = url(caller, f"/workflows/{body.slug}")
    return answer(made, HTTPStatus.CREATED, etag=f'"{saved.commit}"', location=location)


@blueprint.get("/workflows/<id>", **declares(200, Workflow))
def read_workflow(path: WorkflowPath, query: Query) -> Response:
    """Read a workflow, with its current version and its draft."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    return _answer(caller, path.id)


@blueprint.get(
    "/workflows/<id>/changes",
    **declares(200, WorkflowChanges, "ETag", also={304: {"description": "Not Modified"}}),
)
def read_changes(path: WorkflowPath, query: ChangesQuery) -> Response:
    """Ask what has changed since a token; 304 if nothing has, for the price of one row."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    row = lookup.workflow(caller.reading_once(), caller, path.id)
    now, seen = SeenState.of(row), SeenState.parse(query.since)
    tag = f'"{now}"'
    if seen == now or not_modified(request, tag):
        return unchanged(etag=tag, cache_control=CHANGING)
    found = changes_since(caller, row, seen) if seen is not None else []
    listed = [WorkflowChange.from_row(change) for change in found]
    return answer(WorkflowChanges.model_construct(token=str(now), changes=listed), etag=tag)


@blueprint.patch("/workflows/<id>", **declares(200, Workflow, body=UpdateWorkflow))
def update_workflow(path: WorkflowPath, query: Query) -> Response:
    """Change the name or the description of a workflow. The ledger records it; no version changes."""
    caller = enter(Permission.EDIT, f"describing {clip(path.id)}", project=query.project)
    body = read_json(caller, UpdateWorkflow)
    slug = lookup.slug_of(caller, path.id)
    actions.describe(caller, slug, body.model_dump(include=body.model_fields_set))
    return _answer(caller, slug)


@blueprint.post(
    "/workflows/<id>/rename", **declares(200, Workflow, "Location", errors=(409, 422), body=RenameWorkflow)
)
def rename_workflow(path: WorkflowPath, query: Query) -> Response:
    """Give the workflow another slug. Its id and its versions stay; its former addresses redirect."""
    caller = enter(Permission.PUBLISH, f"renaming {clip(path.id)}", project=query.project)
    body = read_json(caller, RenameWorkflow)
    actions.rename(caller, lookup.slug_of(caller, path.id), body.slug, message=body.message or "")
    with caller.reading() as tx:
        (workflow,) = _described(tx, caller, [lookup.workflow(tx, caller, body.slug)])
    return answer(workflow, location=url(caller, f"/workflows/{body.slug}"))


class Archive(Body):
    reason: Text | None = None


@blueprint.post(
    "/workflows/<id>/archive",
    **declares(200, Workflow, errors=(409, 422), body=Archive, required=False),
)
def archive_workflow(path: WorkflowPath, query: Query) -> Response:
    """Archive a workflow: nothing runs, nothing may be changed, and lists leave it out. Nothing is lost."""
    caller = enter(Permission.PUBLISH, f"archiving {clip(path.id)}", project=query.project)
    body, slug = read_json(caller, Archive), lookup.slug_of(caller, path.id)
    actions.archive(caller, slug, reason=body.reason or "")
    return _answer(caller, slug)


@blueprint.delete("/workflows/<id>/archive", **declares(200, Workflow, errors=(409,)))
def unarchive_workflow(path: WorkflowPath, query: Query) -> Response:
    """Let an archived workflow run again. A deleted one, named by its slug, exists again without a draft."""
    caller = enter(Permission.PUBLISH, f"archiving {clip(path.id)}", project=query.project)
    slug = lookup.slug_of(caller, path.id)
    actions.unarchive(caller, slug)
    return _answer(caller, slug)


@blueprint.delete("/workflows/<id>", **declares(204, errors=(409,)))
def delete_workflow(path: WorkflowPath, query: Query) -> Response:
    """Delete a workflow that was never published. Its slug is free; Git keeps its draft."""
    caller = enter(Permission.PUBLISH, f"deleting {clip(path.id)}", project=query.project)
    actions.delete(caller, lookup.slug_of(caller, path.id))
    return no_content()


@blueprint.post(
    "/workflows/<id>/validate",
    **declares(200, Validation, errors=(422,), body=Validate, required=False, with_definition=True),
)
def validate_definition(path: WorkflowPath, query: Query) -> Response:
    """Validate a definition or, without one, the saved draft. Nothing is changed."""
    caller = enter(Permission.READ, f"checking {clip(path.id)}", project=query.project)
    content, unreadable = None, None
    try:
        content, _ = read_draft(caller, Validate)
    except InvalidDefinitionError as error:
        unreadable = actions.Validation.failed(error)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, path.id)
    if content is None and unreadable is None:
        lookup.admit(caller, workflow.slug, workflow.draft_number)
    with caller.opened() as repository:
        validation = unreadable or actions.validate(repository, workflow.slug, content)
    return answer(Validation.from_row(validation, **problems_of(validation.problems)))


def _answer(caller: Caller, name: str) -> Response:
    with caller.reading() as tx:
        (workflow,) = _described(tx, caller, [lookup.workflow(tx, caller, name)])
    return answer(workflow)


def _described(
    tx: Transaction,
    caller: Caller,
    rows: Sequence[catalog.Workflow],
    model: type[Workflow] = Workflow,
    **values: Any,
) -> list[Workflow]:
    """Return the workflows of the rows, with their current versions and drafts."""
    drafts = {row.id: version_id(row.id, row.draft_number) for row in rows if row.draft_number is not None}
    current_ids = [row.current_version_id for row in rows if row.current_version_id is not None]
    versions = {
        version: Version.of(row, caller)
        for version, row in catalog.versions(tx, [*drafts.values(), *current_ids]).items()
    }
    return [
        model.from_row(
            row,
            project=caller.project.slug,
            latest_version=row.latest_number or None,
            current=versions.get(row.current_version_id) if row.current_version_id else None,
            draft=versions.get(drafts[row.id]) if row.id in drafts else None,
            blocked=_blocked(row),
            url=url(caller, f"/ui/workflows/{row.slug}"),
            **values,
        )
        for row in rows
    ]


def _blocked(row: catalog.Workflow) -> Blocked | None:
    if row.blocked_number is None:
        return None
    return Blocked(version_number=row.blocked_number, reason=row.blocked_reason or "it does not parse")


# The current version


class MoveCurrent(Body):
    version: PublishedVersion
    message: Text | None = None
    hold: bool | None = Field(False, description="whether publishing leaves the current version unchanged")
    at: Moment = Field(None, description=AT)


@current.put(
    "/workflows/<id>/current",
    **declares(200, Workflow, errors=(409, 412, 422), body=MoveCurrent, also=SCHEDULED),
)
def move_current(path: WorkflowPath, query: Query) -> Response:
    """Make a version current. With `hold`, publishing does not change the current version."""
    caller = enter(Permission.PUBLISH, f"moving current of {clip(path.id)}", project=query.project)
    body = read_json(caller, MoveCurrent)
    if body.version is None:
        raise MalformedError("version is required: the version to make current")
    slug, why = lookup.slug_of(caller, path.id), body.message or ""
    if body.at is not None:
        wanted = [(body.version, 100)]
        row = schedules.move(caller, slug, CURRENT, wanted, body.at, message=why, hold=bool(body.hold))
        return scheduled(caller, row)
    version_actions.move_current(caller, slug, body.version, message=why, hold=bool(body.hold))
    return _answer(caller, slug)


@current.delete("/workflows/<id>/current", **declares(204, errors=(409,)))
def clear_current(path: WorkflowPath, query: Query) -> Response:
    """Unset the current version, until a version is published or made current."""
    caller = enter(Permission.PUBLISH, f"clearing current of {clip(path.id)}", project=query.project)
    version_actions.clear_current(caller, lookup.slug_of(caller, path.id))
    return no_content()
