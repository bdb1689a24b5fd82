"""/sources: the repositories that the project pulls from, or pushes to. For its owners."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, request

from gitstore.model import Permission
from service.actions import sources as owning
from service.api.answers import answer, nothing
from service.api.bodies import read_json
from service.api.inputs import Query
from service.api.openapi import new_blueprint, says, says_nothing, takes
from service.api.source_schemas import (
    ChangeSource,
    CreateSource,
    Divergence,
    DivergencePath,
    FullSource,
    NewSource,
    Resolve,
    Source,
    SourceList,
    SourcePath,
    Webhook,
)
from service.context import Caller, enter
from webhooks import divergence_decisions, sources

blueprint = new_blueprint("sources", "Other repositories: followed, and pushed to.")


@blueprint.get("/sources", responses=says(200, SourceList))
def list_sources(query: Query) -> Response:
    """Every source of the project, the oldest first."""
    caller = enter(Permission.OWN, "listing sources", project=query.project)
    with caller.reading() as tx:
        found = sources.sources(tx, caller.project_id)
    return answer(SourceList.model_construct(sources=[_shown(caller, row) for row in found]))


@blueprint.post(
    "/sources",
    responses=says(201, NewSource, "Location", refuses=(409, 413, 415, 422)),
    openapi_extensions=takes(CreateSource, required=True),
)
def create_source(query: Query) -> Response:
    """Follow a repository. The answer alone says what to paste into its forge, the secret included."""
    caller = enter(Permission.OWN, "adding a source", project=query.project)
    body = read_json(request, CreateSource, caller.services.config.limits)
    made, secret = owning.create(caller, body)
    public_url = caller.services.config.public_url
    told = NewSource.of(made, public_url, webhook=Webhook.of(made, public_url, secret))
    response = answer(told, HTTPStatus.CREATED, location=f"{public_url}/sources/{made.id}")
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/sources/<id>", responses=says(200, FullSource))
def get_source(path: SourcePath, query: Query) -> Response:
    """One source, with where it and this project differ."""
    caller = enter(Permission.OWN, "reading a source", project=query.project)
    with caller.reading() as tx:
        row = owning.named(tx, caller, path.id)
        open_ = divergence_decisions.open_divergences(tx, caller.project_id, row.id)
    told = [Divergence.of(one) for one in open_]
    return answer(FullSource.of(row, caller.services.config.public_url, divergences=told))


@blueprint.patch(
    "/sources/<id>",
    responses=says(200, Source, refuses=(413, 415, 422)),
    openapi_extensions=takes(ChangeSource, required=True),
)
def change_source(path: SourcePath, query: Query) -> Response:
    """Change how it is followed; give it another credential or secret; pause it, or go on."""
    caller = enter(Permission.OWN, "changing a source", project=query.project)
    body = read_json(request, ChangeSource, caller.services.config.limits)
    return answer(_shown(caller, owning.change(caller, path.id, body)))


@blueprint.delete("/sources/<id>", responses=says_nothing())
def delete_source(path: SourcePath, query: Query) -> Response:
    """Follow it no more. What it brought stays."""
    caller = enter(Permission.OWN, "removing a source", project=query.project)
    owning.delete(caller, path.id)
    return nothing()


@blueprint.post("/sources/<id>/sync", responses=says(202, Source, refuses=(409,)))
def sync_source(path: SourcePath, query: Query) -> Response:
    """Sync it now, and look again at what is known to differ. The worker does, in a moment."""
    caller = enter(Permission.OWN, "syncing a source", project=query.project)
    return answer(_shown(caller, owning.sync(caller, path.id)), HTTPStatus.ACCEPTED)


@blueprint.post(
    "/sources/<id>/divergences/<divergence>/resolve",
    responses=says(200, Divergence, refuses=(409, 413, 415)),
    openapi_extensions=takes(Resolve, required=True),
)
def resolve_divergence(path: DivergencePath, query: Query) -> Response:
    """Decide about a draft that has gone different ways. A version is never overwritten, on neither side."""
    caller = enter(Permission.OWN, "resolving a divergence", project=query.project)
    body = read_json(request, Resolve, caller.services.config.limits)
    return answer(Divergence.of(owning.resolve(caller, path.id, path.divergence, body.take)))


def _shown(caller: Caller, row: sources.Source) -> Source:
    return Source.of(row, caller.services.config.public_url)
