"""/api/workflows: the calls of MeshHook's own front end, so that it works with gitstore unchanged.

A workflow is returned as a row of MeshHook's table: its draft if one is open, else its current version, else
its latest. MeshHook saves `nodes` and `edges`; other keys of the definition are kept. Errors also have a
member `error`, the text that MeshHook's pages show.

A deleted workflow is archived: its draft is discarded and no version is current. Lists leave it out; its
versions stay readable, and a save opens it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, Literal
from uuid import UUID

from flask import Response, request
from pydantic import Field

from gitstore.definition.elements import mapping
from gitstore.definition.quoting import clip
from gitstore.drafts import Content
from gitstore.errors import Code, ConflictError, GitstoreError, MalformedError
from gitstore.model import Permission, Rules
from gitstore.names import version_id
from gitstore.store import ANY
from service import errors, lookup
from service.access import Identity, authorize
from service.actions import drafts, projects, versions, workflows
from service.api import http
from service.api.openapi import LONGEST_PAGE, PageQuery, Query, WorkflowPath, declares, new_blueprint
from service.caller import Caller
from service.context import enter, enter_user, origin, request_id, services
from service.inputs import Body, Text, WorkflowName
from sync import catalog
from sync.db import Transaction
from sync.projects import visible

blueprint = new_blueprint("meshhook", "MeshHook's own endpoints, for its front end.")

MOST_BYTES: Final = 8 * 2**20
"""Total size of the definitions in one answer, beyond which a list continues on the next page."""
_ATTEMPTS: Final = 3
_FIRST_PROJECT: Final = "Default Project"


class MeshHookWorkflow(http.Answer):
    id: UUID
    project_id: UUID
    slug: str
    name: str
    description: str
    status: Literal["draft", "published"]
    user_id: UUID | None = Field(description="the owner of the project")
    version: int
    definition: dict[str, Any] | list[Any] | None
    created_at: datetime
    updated_at: datetime


class MeshHookVersion(http.Answer):
    id: UUID
    version: int
    status: Literal["draft", "published", "lost"]
    is_current: bool
    description: str
    created_at: datetime
    definition: dict[str, Any] | list[Any] | None


class WorkflowAnswer(http.Answer):
    workflow: MeshHookWorkflow


class WorkflowsAnswer(http.Answer):
    workflows: list[MeshHookWorkflow]
    next_cursor: str | None


class VersionAnswer(http.Answer):
    version: MeshHookVersion


class VersionsAnswer(http.Answer):
    versions: list[MeshHookVersion]
    next_cursor: str | None


class Success(http.Answer):
    success: bool = True


class SaveWorkflow(Body):
    """Absent keys are left unchanged."""

    name: WorkflowName | None = None
    description: Text | None = None
    nodes: list[Any] | None = None
    edges: list[Any] | None = None
    status: Literal["draft", "published"] = "draft"


class NewWorkflow(SaveWorkflow):
    slug: str | None = Field(None, description="made from the name by default")


class Rollback(Body):
    version_id: UUID = Field(strict=False)
    description: Text | None = None
    force: bool = Field(False, description="discard an open draft, which Git keeps, instead of refusing")


class ListQuery(PageQuery):
    limit: int = Field(LONGEST_PAGE, ge=1, le=LONGEST_PAGE)


@blueprint.errorhandler(GitstoreError)
def refuse(error: GitstoreError) -> Response:
    """Return a problem with the additional member `error`."""
    response = errors.problem(error, request_id())
    body = json.loads(response.get_data())
    response.set_data(json.dumps({**body, "error": body["detail"]}, ensure_ascii=False) + "\n")
    return response


# Workflows


@blueprint.get("/api/workflows", **declares(200, WorkflowsAnswer, "Link"))
def list_meshhook_workflows(query: ListQuery) -> Response:
    """List the workflows that are not archived, with their definitions; none for a user without a project."""
    if query.project is None and _newcomer() is not None:
        return http.answer(WorkflowsAnswer(workflows=[], next_cursor=None))
    caller = enter(Permission.READ, "listing workflows", project=query.project)
    with caller.reading() as tx:
        page = catalog.workflows(tx, caller.project_id, after=lookup.slug_in(query.cursor), limit=query.limit)
        live = [row for row in page.rows if _shown_number(row) is not None]
        shown = _fitting(tx, [(row, _version_of(row)) for row in live])
        rest = live[len(shown) :]
        rows = _described(tx, caller, shown)
    after = shown[-1].slug if rest and shown else page.next
    return http.answer_page(caller, WorkflowsAnswer, "/api/workflows", after, workflows=rows)


@blueprint.post("/api/workflows", **declares(201, WorkflowAnswer, errors=(409, 422), body=NewWorkflow))
def create_meshhook_workflow(query: Query) -> Response:
    """Create a workflow from a name, nodes and edges; its slug is made from the name.

    A user without a project gets one, as in MeshHook, where GITSTORE_USER_PROJECTS lets users create some.
    """
    newcomer = _newcomer() if query.project is None and services().config.user_projects else None
    if newcomer is not None:
        projects.create(services(), newcomer, origin(newcomer, "http"), _FIRST_PROJECT)
    caller = enter(Permission.EDIT, "creating a workflow", project=query.project)
    body = http.read_json(caller, NewWorkflow)
    if not body.name:
        raise MalformedError("name is required")
    if body.status == "published":
        authorize(caller.principal, Permission.PUBLISH, f"publishing {clip(body.name)}")
    slug = body.slug if body.slug is not None else workflows.free_slug(caller, body.name)
    value = {"nodes": body.nodes or [], "edges": body.edges or []}
    content = Content(value=value) if body.nodes is not None or body.edges is not None else None
    workflows.create(caller, slug, content, name=body.name, description=body.description or "")
    if body.status == "published":
        versions.publish(caller, slug)
    return _answer(caller, slug, HTTPStatus.CREATED)


@blueprint.get("/api/workflows/<id>", **declares(200, WorkflowAnswer, "ETag"))
def read_meshhook_workflow(path: WorkflowPath, query: Query) -> Response:
    """Read a workflow with the definition that the editor opens."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    return _answer(caller, path.id)


@blueprint.put(
    "/api/workflows/<id>",
    **declares(200, WorkflowAnswer, "ETag", errors=(409, 412, 422), body=SaveWorkflow, match=False),
)
def save_meshhook_workflow(path: WorkflowPath, query: Query) -> Response:
    """Save the draft, or open one; publish it if the status is `published`.

    If-Match prevents overwriting a newer draft. Without it, the last save wins; Git keeps the others.
    """
    caller = enter(Permission.EDIT, f"saving {clip(path.id)}", project=query.project)
    body = http.read_json(caller, SaveWorkflow)
    if body.status == "published":
        authorize(caller.principal, Permission.PUBLISH, f"publishing {clip(path.id)}")
    with caller.reading() as tx:
        before = lookup.workflow(tx, caller, path.id)
    slug = before.slug
    sent = {key: value for key in ("nodes", "edges") if (value := getattr(body, key)) is not None}
    given = {"name": body.name, "description": body.description}
    changed = {key: text for key, text in given.items() if text not in (None, getattr(before, key))}
    at_once = body.status == "published" and not changed
    if sent:
        _save(caller, slug, sent, publish=at_once)
    if changed:
        workflows.describe(caller, slug, changed)
    if body.status == "published" and not (sent and at_once):
        versions.publish(caller, slug)
    return _answer(caller, slug)


@blueprint.delete("/api/workflows/<id>", **declares(200, Success, errors=(409,)))
def archive_meshhook_workflow(path: WorkflowPath, query: Query) -> Response:
    """Archive a workflow: discard its draft, and leave no version current. Git keeps everything."""
    caller = enter(Permission.PUBLISH, f"archiving {clip(path.id)}", project=query.project)
    workflows.set_aside(caller, lookup.slug_of(caller, path.id))
    return http.answer(Success())


# Versions


@blueprint.get("/api/workflows/<id>/versions", **declares(200, VersionsAnswer, "Link"))
def list_meshhook_versions(path: WorkflowPath, query: ListQuery) -> Response:
    """List the open draft and the versions, newest first, with their definitions."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    before = lookup.number_in(query.cursor)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, path.id)
        page = catalog.history(tx, workflow.id, before=before, limit=query.limit)
        shown = _fitting(tx, [(row, row.id) for row in page.rows])
        rows = _versions(tx, shown)
    place = shown[-1].version_number if shown and len(shown) < len(page.rows) else page.next
    return http.answer_page(
        caller, VersionsAnswer, f"/api/workflows/{workflow.slug}/versions", place, versions=rows
    )


@blueprint.post(
    "/api/workflows/<id>/versions", **declares(201, VersionAnswer, errors=(409, 422), body=Rollback)
)
def roll_back(path: WorkflowPath, query: Query) -> Response:
    """Open a draft with the content of a version. With `force`, an open draft is discarded; otherwise 409."""
    caller = enter(Permission.EDIT, f"rolling {clip(path.id)} back", project=query.project)
    body = http.read_json(caller, Rollback)
    slug = lookup.slug_of(caller, path.id)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        version = catalog.version(tx, workflow.id, body.version_id)
    if version is None or version.state == "draft":
        raise lookup.not_found("version", str(body.version_id), f" of {slug}")
    message = body.description or f"Rolled back to v{version.version_number}"
    if body.force:
        with caller.opened() as repository:
            draft = repository.state(slug)
        if draft.draft_open and draft.draft is not None:
            drafts.discard(caller, slug, expected={draft.draft})
    saved = drafts.create(caller, slug, message=message, from_version=version.version_number)
    with caller.reading() as tx:
        (made,) = _versions(tx, [saved.version])
    return http.answer(VersionAnswer.model_construct(version=made), HTTPStatus.CREATED)


def _newcomer() -> Identity | None:
    """Return the sender of this request if it is a user without a project."""
    identity = enter_user()
    if identity.kind != "user":
        return None
    with services().database.reading(identity.claims) as tx:
        return None if visible(tx, limit=1).rows else identity


def _save(caller: Caller, slug: str, sent: dict[str, Any], *, publish: bool) -> None:
    """Save `sent` on top of the open draft, or open one on top of the current version; or publish that."""
    expected = http.expected(request)
    for _ in range(_ATTEMPTS):
        with caller.reading() as tx:
            row = lookup.workflow(tx, caller, slug)
            version = _version_of(row)
            before = catalog.definitions(tx, [version])[version] if version is not None else None
        if version is not None and not isinstance(before, dict) and caller.rules is not Rules.MESHHOOK:
            message = f"the definition of {slug} is not a mapping, so nodes and edges have no place in it"
            raise MalformedError(f"{message}: save it at /workflows/{slug}/versions/draft")
        content = Content(value={**mapping(before), **sent})
        seen = expected or ({ANY} if row.draft_number is not None else None)
        try:
            if publish:
                versions.publish(caller, slug, content, expected=seen)
            else:
                drafts.put(caller, slug, content, expected=seen)
        except ConflictError as error:  # another save opened a draft in the meantime
            if error.code is not Code.DRAFT_EXISTS:
                raise
        else:
            return
    raise ConflictError(Code.DRAFT_EXISTS, f"the draft of {slug} is being changed by others: try again")


# Rows


def _shown_number(row: catalog.Workflow) -> int | None:
    """Return the number of the version that the editor opens; None for an archived workflow."""
    return row.draft_number if row.draft_number is not None else row.current_number


def _version_of(row: catalog.Workflow) -> UUID | None:
    """Return the id of the version to edit: the draft, else the current, else the latest; or None."""
    number = _shown_number(row) or row.latest_number
    return version_id(row.id, number) if number else None


def _fitting(tx: Transaction, rows: Sequence[tuple[Any, UUID | None]]) -> list[Any]:
    """Return the first of `rows`, at least one, whose definitions have at most MOST_BYTES in total."""
    sizes = catalog.definition_sizes(tx, [version for _, version in rows if version is not None])
    fitting: list[Any] = []
    total = 0
    for row, version in rows:
        total += sizes.get(version, 0) if version is not None else 0
        if fitting and total > MOST_BYTES:
            break
        fitting.append(row)
    return fitting


def _described(tx: Transaction, caller: Caller, rows: Iterable[catalog.Workflow]) -> list[MeshHookWorkflow]:
    listed = list(rows)
    shown = {row.id: version for row in listed if (version := _version_of(row)) is not None}
    definitions = catalog.definitions(tx, shown.values())
    return [
        MeshHookWorkflow.from_row(
            row,
            status="published" if row.draft_number is None else "draft",
            user_id=caller.project.owner,
            version=_shown_number(row) or row.latest_number,
            definition=definitions.get(shown[row.id]) if row.id in shown else None,
        )
        for row in listed
    ]


def _versions(tx: Transaction, rows: Iterable[catalog.Version]) -> list[MeshHookVersion]:
    listed = list(rows)
    definitions = catalog.definitions(tx, [row.id for row in listed])
    return [
        MeshHookVersion.from_row(
            row,
            version=row.version_number,
            status=row.state,
            description=row.message,
            definition=definitions.get(row.id),
        )
        for row in listed
    ]


def _answer(caller: Caller, name: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, name)
        (row,) = _described(tx, caller, [workflow])
    etag = f'"{workflow.draft_commit}"' if workflow.draft_number is not None else None
    return http.answer(WorkflowAnswer.model_construct(workflow=row), status, etag=etag)
