"""/workflows/{id}/current: the version that the engine runs."""

from __future__ import annotations

from flask import Response, request

from gitstore.definition.quoting import clip
from gitstore.errors import MalformedError
from gitstore.model import Permission
from service import lookup
from service.api import inputs
from service.api.answers import answer, nothing
from service.api.bodies import read_json
from service.api.openapi import new_blueprint, says, says_nothing, takes
from service.api.schemas import Workflow
from service.api.workflows import shown
from service.context import enter
from service.logs import Event

blueprint = new_blueprint("current", "The version that the engine runs.")


@blueprint.put(
    "/workflows/<id>/current",
    responses=says(200, Workflow, refuses=(409, 413, 415, 422)),
    openapi_extensions=takes(inputs.MoveCurrent, required=True),
)
def move_current(path: inputs.WorkflowPath, query: inputs.Query) -> Response:
    """Let a version run. Held, publishing does not move it."""
    caller = enter(Permission.PUBLISH, f"moving current of {clip(path.id)}", project=query.project)
    body = read_json(request, inputs.MoveCurrent, caller.services.config.limits)
    if body.version is None:
        raise MalformedError("version is needed: the one that shall run")
    slug = lookup.slug_of(caller, path.id)
    with caller.writing() as store, caller.acting(Event.CURRENT_MOVED, slug) as facts:
        lookup.existing(store, slug)
        number = lookup.number_of(store, slug, body.version)
        facts.update(version=number, held=bool(body.hold))
        store.move_current(slug, number, caller.who(None), message=body.message or "", hold=bool(body.hold))
    with caller.reading() as tx:
        return answer(shown(tx, caller, slug))


@blueprint.delete("/workflows/<id>/current", responses=says_nothing(409))
def clear_current(path: inputs.WorkflowPath, query: inputs.Query) -> Response:
    """Let nothing run, until a version is published or made current."""
    caller = enter(Permission.PUBLISH, f"clearing current of {clip(path.id)}", project=query.project)
    slug = lookup.slug_of(caller, path.id)
    with caller.writing() as store, caller.acting(Event.CURRENT_CLEARED, slug):
        lookup.existing(store, slug)
        store.clear_current(slug, caller.who(None))
    return nothing()
