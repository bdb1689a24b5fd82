"""/sources: the repositories that the project follows, or that follow it. For its owners."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, request

from gitstore.errors import Code, GitstoreError
from gitstore.model import Permission
from gitstore.offers import Layout
from service import logs
from service.api import lookup
from service.api.answers import answer, nothing
from service.api.bodies import read_json
from service.api.incoming import (
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
from service.api.inputs import Query
from service.api.openapi import new_blueprint, says, says_nothing, takes
from service.context import Caller, enter
from sync import audit
from sync.db import Transaction
from webhooks import forges, resolving, sources
from webhooks.signature import Forge
from webhooks.sources import POLL_SECONDS, Direction

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
    new = forges.given(
        caller.services.egress, body.url, forge=body.forge, credential=body.credential, secret=body.secret
    )
    with caller.as_user() as tx:
        made, secret = sources.create(
            tx,
            caller.services.sealer(),
            caller.project_id,
            new.url,
            forge=new.forge,
            login=new.login,
            secret=new.secret,
            layout=Layout(body.layout or Layout.REFS),
            direction=Direction(body.direction or Direction.PULL),
            poll_seconds=body.poll_seconds or POLL_SECONDS,
        )
        _note(tx, caller, "source.created", made, {"url": made.url, "direction": made.direction})
    logs.action("source_created", **caller.said, source=str(made.id), url=made.url)
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
        row = _named(tx, caller, path.id)
        open_ = resolving.open_divergences(tx, caller.project_id, row.id)
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
    with caller.as_user() as tx:
        row = _named(tx, caller, path.id)
        forge = Forge(body.forge or row.forge)
        changed = sources.change(
            tx,
            caller.services.sealer(),
            caller.project_id,
            row.id,
            login=forges.login_of(body.credential, forge) if body.credential else None,
            forget_login=body.credential == "",
            secret=forges.check_secret(body.secret, forge) if body.secret else None,
            forge=body.forge,
            layout=body.layout,
            direction=body.direction,
            poll_seconds=body.poll_seconds,
            paused=body.paused,
        )
        if changed is None:
            raise _unknown(path.id)
        _note(tx, caller, "source.changed", changed, {"changed": sorted(body.model_fields_set)})
    logs.action("source_changed", **caller.said, source=str(row.id))
    return answer(_shown(caller, changed))


@blueprint.delete("/sources/<id>", responses=says_nothing())
def delete_source(path: SourcePath, query: Query) -> Response:
    """Follow it no more. What it brought stays."""
    caller = enter(Permission.OWN, "removing a source", project=query.project)
    with caller.as_user() as tx:
        row = _named(tx, caller, path.id)
        if not sources.delete(tx, caller.project_id, row.id):
            raise _unknown(path.id)
        _note(tx, caller, "source.deleted", row, {"url": row.url})
    logs.action("source_deleted", **caller.said, source=str(row.id))
    return nothing()


@blueprint.post("/sources/<id>/sync", responses=says(202, Source))
def sync_source(path: SourcePath, query: Query) -> Response:
    """Sync it now, and look again at what is known to differ. The worker does, in a moment."""
    caller = enter(Permission.OWN, "syncing a source", project=query.project)
    with caller.as_user() as tx:
        row = _named(tx, caller, path.id)
        sources.ask(tx, caller.project_id, row.id)
        return answer(_shown(caller, _named(tx, caller, path.id)), HTTPStatus.ACCEPTED)


@blueprint.post(
    "/sources/<id>/divergences/<divergence>/resolve",
    responses=says(200, Divergence, refuses=(409, 413, 415)),
    openapi_extensions=takes(Resolve, required=True),
)
def resolve_divergence(path: DivergencePath, query: Query) -> Response:
    """Decide about a draft that has gone different ways. A version is never overwritten, on neither side."""
    caller = enter(Permission.OWN, "resolving a divergence", project=query.project)
    body = read_json(request, Resolve, caller.services.config.limits)
    named = lookup.uuid_of(path.divergence)
    with caller.as_user() as tx:
        row = _named(tx, caller, path.id)
        if named is None:
            raise GitstoreError(Code.NOT_FOUND, "there is no open divergence of that id")
        decided = resolving.resolve(tx, caller.project_id, row.id, named, body.take, caller.principal.name)
        _note(tx, caller, "divergence.resolved", row, {"ref": decided.ref, "take": body.take})
    logs.action("resolved", **caller.said, source=str(row.id), ref=decided.ref, take=body.take)
    return answer(Divergence.of(decided))


def _named(tx: Transaction, caller: Caller, shown: str) -> sources.Source:
    found = lookup.uuid_of(shown)
    row = sources.source(tx, caller.project_id, found) if found else None
    if row is None:
        raise _unknown(shown)
    return row


def _unknown(shown: str) -> GitstoreError:
    return GitstoreError(Code.NOT_FOUND, f"there is no source {shown[:80]!r}")


def _shown(caller: Caller, row: sources.Source) -> Source:
    return Source.of(row, caller.services.config.public_url)


def _note(tx: Transaction, caller: Caller, action: str, row: sources.Source, details: dict[str, Any]) -> None:
    audit.note(tx, caller.project_id, caller.origin, action, str(row.id), details)
