"""/workflows: list, create, read, validate."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, request

from gitstore.definition import document
from gitstore.definition.quoting import clip
from gitstore.drafts import Content, to_file
from gitstore.errors import InvalidDefinitionError
from gitstore.model import Definition, Permission, Problem, Problems
from gitstore.names import check_slug
from gitstore.repository import Repository
from service import lookup
from service.api import inputs
from service.api.answers import answer, next_link, workflow_url
from service.api.bodies import author_of, content_of, read_draft, read_json
from service.api.openapi import new_blueprint, says, takes, takes_draft
from service.api.schemas import CreatedWorkflow, Validation, Workflow, WorkflowPage, problems_of, summarized
from service.context import Caller, enter
from service.logs import Event
from sync import catalog
from sync.db import Transaction

blueprint = new_blueprint("workflows", "Named definitions of a project, each with a draft and versions.")


@blueprint.get("/workflows", responses=says(200, WorkflowPage, "Link"))
def list_workflows(query: inputs.WorkflowsQuery) -> Response:
    """The project's workflows, by slug, with their current and their draft version."""
    caller = enter(Permission.READ, "listing workflows", project=query.project)
    after = lookup.slug_in(query.cursor)
    with caller.reading() as tx:
        page = catalog.workflows(
            tx, caller.project_id, q=lookup.text(query.q), after=after, limit=query.limit
        )
        versions = catalog.versions(tx, summarized(page.rows))
    project, url = caller.principal.project.slug, caller.services.config.public_url
    rows = [Workflow.of(row, versions, project, url) for row in page.rows]
    following = lookup.cursor_to(page.next) if page.next is not None else None
    found = WorkflowPage.model_construct(workflows=rows, next_cursor=following)
    return answer(found, link=next_link(request, caller, "/workflows", page.next))


@blueprint.post(
    "/workflows",
    responses=says(201, CreatedWorkflow, "ETag", "Location", refuses=(409, 413, 415, 422)),
    openapi_extensions=takes(inputs.CreateWorkflow, required=True),
)
def create_workflow(query: inputs.Query) -> Response:
    """Create a workflow with its first draft."""
    caller = enter(Permission.EDIT, "creating a workflow", project=query.project)
    limits = caller.services.config.limits
    body = read_json(request, inputs.CreateWorkflow, limits)
    slug, content = check_slug(body.slug), content_of(body.definition, limits)
    with caller.writing() as store, caller.acting(Event.CREATED, slug):
        saved = store.create_workflow(
            slug,
            content,
            caller.who(author_of(body)),
            name=body.name,
            description=body.description or "",
        )
    with caller.reading() as tx:
        made = shown(tx, caller, slug, CreatedWorkflow, **problems_of(saved.problems))
    location = workflow_url(caller, slug)
    return answer(made, HTTPStatus.CREATED, etag=f'"{saved.commit}"', location=location)


@blueprint.get("/workflows/<id>", responses=says(200, Workflow))
def read_workflow(path: inputs.WorkflowPath, query: inputs.Query) -> Response:
    """One workflow, with its current and its draft version."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    with caller.reading() as tx:
        return answer(shown(tx, caller, path.id))


@blueprint.post(
    "/workflows/<id>/validate",
    responses=says(200, Validation, refuses=(413, 415, 422)),
    openapi_extensions=takes_draft(inputs.Validate),
)
def validate_definition(path: inputs.WorkflowPath, query: inputs.Query) -> Response:
    """Check a definition, or without one the draft as it is saved. Changes nothing."""
    caller = enter(Permission.READ, f"checking {clip(path.id)}", project=query.project)
    content, _ = read_draft(request, caller.services.config.limits, inputs.Validate)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, path.id)
    slug = workflow.slug
    if content is None:
        lookup.admit(caller, slug, workflow.draft_number)
    with caller.opened() as store:
        return answer(validation(store, slug, content))


def shown(
    tx: Transaction, caller: Caller, name: str, model: type[Workflow] = Workflow, **more: object
) -> Workflow:
    """Return the workflow as the catalog has it."""
    row = lookup.workflow(tx, caller, name)
    versions = catalog.versions(tx, summarized([row]))
    return model.of(row, versions, caller.principal.project.slug, caller.services.config.public_url, **more)


def validation(store: Repository, slug: str, content: Content | None) -> Validation:
    """Validate `content`, or the open draft if None; for the API and the page."""
    try:
        parsed, warnings = _checked(store, slug, content)
    except InvalidDefinitionError as error:
        found = Problems.of(error.problems)
        return Validation(valid=False, digest=None, **problems_of(found))
    return Validation(
        valid=parsed.valid, digest=parsed.digest, **problems_of(parsed.problems.after(warnings))
    )


def _checked(store: Repository, slug: str, content: Content | None) -> tuple[Definition, tuple[Problem, ...]]:
    """Return the definition, and warnings about the form in which it would be saved."""
    if content is None:
        return store.definition(lookup.open_draft(store, slug).encode(), slug), ()
    file = to_file(content, None, store.rules)
    return document.parse(file.raw, file.name, store.rules, store.limits), file.warnings
