"""/workflows/{id}/versions/{version}: withdraw a version, and describe it after its publication."""

from __future__ import annotations

from datetime import datetime

from flask import Response
from pydantic import Field

from gitstore import states
from gitstore.definition.quoting import clip
from gitstore.model import Permission
from service import lookup
from service.actions import versions as actions
from service.api.http import Answer, answer, read_json
from service.api.openapi import Query, declares, new_blueprint
from service.api.versions import VersionPath
from service.caller import Caller
from service.context import enter
from service.inputs import Annotate, Body, Text

_MOST_ANNOTATIONS = 100

blueprint = new_blueprint("version states", "What may change about a published version.")


class Yank(Body):
    reason: Text = Field(description="readers of the version see it")


class YankedState(Answer):
    reason: str
    by: str
    at: datetime
    pointers: list[str] = Field(description="the pointers on the version, which stay, such as `current`")


class Annotation(Answer):
    title: str | None
    notes: str | None
    by: str
    at: datetime


class VersionState(Answer):
    workflow: str = Field(description="the workflow's slug")
    version_number: int
    yanked: YankedState | None
    title: str | None
    notes: str | None
    history: list[Annotation] = Field(description="titles and notes, newest first; at most 100")


@blueprint.get("/workflows/<id>/versions/<version>/state", **declares(200, VersionState))
def read_version_state(path: VersionPath, query: Query) -> Response:
    """Read what may change about a version: whether it is yanked and why, its title and its notes."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    slug = lookup.slug_of(caller, path.id)
    with caller.opened() as repository:
        number = lookup.number_of(repository, slug, path.version)
    return _answer(caller, slug, number)


@blueprint.post(
    "/workflows/<id>/versions/<version>/yank", **declares(200, VersionState, errors=(409, 422), body=Yank)
)
def yank_version(path: VersionPath, query: Query) -> Response:
    """Withdraw a version: nothing new selects it, and what names it by its number still reads it."""
    caller = enter(Permission.PUBLISH, f"yanking a version of {clip(path.id)}", project=query.project)
    body, slug = read_json(caller, Yank), lookup.slug_of(caller, path.id)
    return _answer(caller, slug, actions.yank(caller, slug, path.version, reason=body.reason))


@blueprint.delete("/workflows/<id>/versions/<version>/yank", **declares(200, VersionState, errors=(409,)))
def unyank_version(path: VersionPath, query: Query) -> Response:
    """Take back the yank of a version."""
    caller = enter(Permission.PUBLISH, f"yanking a version of {clip(path.id)}", project=query.project)
    slug = lookup.slug_of(caller, path.id)
    return _answer(caller, slug, actions.unyank(caller, slug, path.version))


@blueprint.patch(
    "/workflows/<id>/versions/<version>", **declares(200, VersionState, errors=(409, 422), body=Annotate)
)
def annotate_version(path: VersionPath, query: Query) -> Response:
    """Give a published version a title or notes. Its definition and its message never change."""
    caller = enter(Permission.EDIT, f"describing a version of {clip(path.id)}", project=query.project)
    body, slug = read_json(caller, Annotate), lookup.slug_of(caller, path.id)
    given = body.model_dump(include=body.model_fields_set)
    return _answer(caller, slug, actions.annotate(caller, slug, path.version, given))


def _answer(caller: Caller, slug: str, number: int) -> Response:
    """Answer with the state of a version, from the ledger; raises `version_not_found`."""
    with caller.opened() as repository:
        if repository.refs.read(repository.tag(slug, number)) is None:
            raise lookup.no_version(slug, number)
        state = repository.state(slug)
        found = states.of_versions(repository, slug, {number}).get(number, states.VersionState())
    yanked = found.yank
    history = [
        Annotation.model_construct(title=entry.title, notes=entry.notes, by=entry.actor.name, at=entry.when)
        for entry in found.annotations[:_MOST_ANNOTATIONS]
    ]
    shown = yanked and YankedState.model_construct(
        reason=yanked.message,
        by=yanked.actor.name,
        at=yanked.when,
        pointers=states.pointers_on(state, number),
    )
    return answer(
        VersionState.model_construct(
            workflow=slug,
            version_number=number,
            yanked=shown,
            title=found.title,
            notes=found.notes,
            history=history,
        )
    )
