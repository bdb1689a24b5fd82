"""/sources: the repositories that the project pulls from, or pushes to, for its owners; /hooks: their
forges."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, Literal, Self
from uuid import UUID

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from gitstore.errors import TooLargeError
from gitstore.model import Permission
from gitstore.system import now
from service import logs
from service.actions import sources as actions
from service.api.http import Answer, answer, no_content, read_json, url
from service.api.openapi import ObjectPath, Query, declares, new_blueprint
from service.caller import Caller
from service.context import admit, enter, note, read_body, request_id, services
from service.errors import REALM, problem
from service.inputs import ChangeSource, CreateSource, DirectionName, LayoutName, Resolve, RotateSource
from service.logs import Event
from service.lookup import uuid_of
from webhooks import divergences, source_queue, sources
from webhooks.forges import MOST_BYTES, Forge, Kind
from webhooks.secrets import BadSignatureError, bad_signature
from webhooks.subscriptions import OVERLAP

blueprint = new_blueprint("sources", "Upstream repositories to pull from and push to.")


class DivergencePath(ObjectPath):
    divergence: str = Field(json_schema_extra={"format": "uuid"})


class Source(Answer):
    id: UUID
    url: str
    forge: Forge
    layout: LayoutName
    direction: DirectionName
    workflows: list[str] = Field(description="globs of the workflows that are synced")
    drafts: bool = Field(description="whether drafts are synced, too")
    poll_seconds: int
    paused: bool
    has_credential: bool
    previous_secret_until: datetime | None = Field(
        description="until then, deliveries signed with the previous secret are accepted, too"
    )
    webhook_url: str = Field(description="the URL to which the forge sends its webhooks")
    state: sources.State = Field(
        description="`poison`: three syncs in a row crashed; it is not synced until it is changed, or a sync "
        "is requested"
    )
    last_error: str | None = Field(description="null if the last sync succeeded")
    failures: int = Field(description="in a row")
    tried_at: datetime | None
    succeeded_at: datetime | None
    next_sync_at: datetime | None = Field(description="null while it is paused or poison")
    report: dict[str, Any] = Field(
        description="the last sync with changes: `published`, `gaps` (runs of numbers that the upstream "
        "lacks, by workflow), `drafts`, `pushed`, `at`"
    )
    created_at: datetime

    @classmethod
    def of(cls, row: sources.Source, caller: Caller, **values: Any) -> Self:
        values["next_sync_at"] = None
        if row.state not in ("paused", "poison"):
            values["next_sync_at"] = row.due_at
        return cls.from_row(row, forge=Forge(row.forge), webhook_url=actions.hook_url(caller, row), **values)


class Webhook(Answer):
    """Values to enter in the settings of the repository at its forge."""

    url: str
    secret: str = Field(description="shown only once")
    secret_as: str | None = Field(
        description="what to enter the secret as; null if the forge has a field for it"
    )
    content_type: str
    events: list[str] = Field(description="named as at the forge")


class NewSource(Source):
    webhook: Webhook


class Divergence(Answer):
    """A ref that differs on both sides. Neither side is overwritten."""

    id: UUID
    ref: str
    workflow: str = Field(description="the workflow's slug, or the text in its place in the ref's name")
    version_number: int | None = Field(description="null for a draft, and for a ref with a wrong name")
    ours: str | None = Field(description="the ref's commit here; null if it does not exist here")
    theirs: str | None = Field(description="its commit upstream; null if it does not exist there")
    code: str
    reason: str
    first_seen_at: datetime
    last_seen_at: datetime
    decision: Literal["theirs"] | None = Field(description="to be applied by the next sync")
    decided_by: str | None
    resolved_at: datetime | None
    resolution: Literal["theirs", "ours", "gone"] | None = Field(
        description="`ours` also for an acknowledged one; `gone`: both sides agree again"
    )

    @classmethod
    def of(cls, row: divergences.Divergence) -> Self:
        return cls.from_row(row, workflow=row.slug)


class FullSource(Source):
    divergences: list[Divergence] = Field(description="the open ones, by workflow and version; 1000 at most")


class SourceList(Answer):
    sources: list[Source]


@blueprint.get("/sources", **declares(200, SourceList))
def list_sources(query: Query) -> Response:
    """List the sources of the project, oldest first."""
    caller = enter(Permission.OWN, "listing sources", project=query.project)
    with caller.reading() as tx:
        rows = sources.sources(tx, caller.project_id)
    return answer(SourceList.model_construct(sources=[Source.of(row, caller) for row in rows]))


@blueprint.post("/sources", **declares(201, NewSource, "Location", errors=(409, 422), body=CreateSource))
def create_source(query: Query) -> Response:
    """Create a source. Only this answer contains the webhook's secret, to enter at the forge."""
    caller = enter(Permission.OWN, "creating a source", project=query.project)
    row, webhook = actions.create(caller, **read_json(caller, CreateSource).given())
    source = NewSource.of(row, caller, webhook=Webhook.from_row(webhook))
    location = url(caller, f"/sources/{row.id}")
    return answer(source, HTTPStatus.CREATED, location=location, cache_control="no-store")


@blueprint.get("/sources/<id>", **declares(200, FullSource))
def get_source(path: ObjectPath, query: Query) -> Response:
    """Read a source, with its open divergences."""
    caller = enter(Permission.OWN, "reading a source", project=query.project)
    with caller.reading() as tx:
        row = actions.find(tx, caller, path.id)
        open_ = divergences.open_divergences(tx, caller.project_id, row.id)
    return answer(FullSource.of(row, caller, divergences=list(map(Divergence.of, open_))))


@blueprint.patch("/sources/<id>", **declares(200, Source, errors=(422,), body=ChangeSource))
def change_source(path: ObjectPath, query: Query) -> Response:
    """Change a source: its settings, its credential or its secret; pause or resume it."""
    caller = enter(Permission.OWN, "changing a source", project=query.project)
    row = actions.change(caller, path.id, **read_json(caller, ChangeSource).given())
    return answer(Source.of(row, caller))


@blueprint.delete("/sources/<id>", **declares(204))
def delete_source(path: ObjectPath, query: Query) -> Response:
    """Stop following a source. Imported versions are kept."""
    caller = enter(Permission.OWN, "deleting a source", project=query.project)
    actions.delete(caller, path.id)
    return no_content()


@blueprint.post("/sources/<id>/rotate", **declares(200, Webhook, body=RotateSource, required=False))
def rotate_source_secret(path: ObjectPath, query: Query) -> Response:
    """Replace the webhook's secret. The previous one is accepted, too, for `overlap_hours`."""
    caller = enter(Permission.OWN, "rotating a secret", project=query.project)
    body = read_json(caller, RotateSource)
    overlap = OVERLAP if body.overlap_hours is None else timedelta(hours=body.overlap_hours)
    _, webhook = actions.rotate(caller, path.id, overlap, body.secret)
    return answer(Webhook.from_row(webhook), cache_control="no-store")


@blueprint.post("/sources/<id>/sync", **declares(202, Source, errors=(409,)))
def sync_source(path: ObjectPath, query: Query) -> Response:
    """Request a sync, which the worker does within moments, and recheck known divergences."""
    caller = enter(Permission.OWN, "syncing a source", project=query.project)
    return answer(Source.of(actions.sync(caller, path.id), caller), HTTPStatus.ACCEPTED)


@blueprint.post(
    "/sources/<id>/divergences/<divergence>/resolve",
    **declares(200, Divergence, errors=(409,), body=Resolve),
)
def resolve_divergence(path: DivergencePath, query: Query) -> Response:
    """Resolve the divergence of a draft, or acknowledge that of a tag, which is never overwritten."""
    caller = enter(Permission.OWN, "resolving a divergence", project=query.project)
    body = read_json(caller, Resolve)
    return answer(Divergence.of(actions.resolve(caller, path.id, path.divergence, body.take)))


# POST /hooks/<source id>: webhook endpoint for an upstream's forge. The signature alone authenticates the
# sender; one that cannot sign sends the secret itself. The answer is fast and short; the payload is not
# trusted, but marks the source as due, and the worker fetches. A client cannot distinguish an unknown source
# from a wrong signature or password; the log has the reason.

_STATUS: Final = {Kind.CHANGED: "accepted", Kind.PING: "pong", Kind.IGNORED: "ignored"}

_REFUSED: Final = (
    "there is no such source, or the signature or password does not match: check that the webhook's URL is "
    "complete, and that both sides have the same secret"
)

hooks = Blueprint("hooks", __name__)


@hooks.errorhandler(BadSignatureError)
def refuse(error: BadSignatureError) -> Response:
    """Answer 401 with the challenge of basic authentication: some senders send a password only then."""
    answer = problem(error, request_id())
    answer.headers["WWW-Authenticate"] = f"Basic {REALM}"
    return answer


@hooks.post("/hooks/<source>")
def receive_hook(source: str) -> Response:
    """Verify and record the delivery, and mark the source as due.

    A repeated delivery gets the same answer and has no effect.
    """
    started = time.perf_counter()
    here = services()
    source_id = uuid_of(source)
    target = source_queue.hook_target(here.database, source_id) if source_id is not None else None
    admit(None)
    try:
        body = read_body(request, MOST_BYTES)
    except TooLargeError:
        if target is not None or (request.content_length or 0) > MOST_BYTES:
            raise
        body = b""  # the server admits no large body for an unknown source
    if target is None:
        note(reason="no such source")
        raise bad_signature(_REFUSED)
    about = {"project": target.project, "source": str(target.id)}
    note(**about)
    headers = request.headers.items()
    try:
        received, new = source_queue.accept(here.database, here.sealer(), target, headers, body, now())
    except BadSignatureError as error:
        note(reason=error.message)
        raise error.reworded(_REFUSED) from None
    logs.action(
        Event.HOOK_RECEIVED,
        **about,
        kind=received.kind.value,
        type=received.event or None,
        delivery=received.delivery,
        again=None if new else True,
        duration_ms=round((time.perf_counter() - started) * 1000, 1),
    )
    answer = jsonify(status=_STATUS[received.kind])
    answer.status_code = 202
    answer.headers["Cache-Control"] = "no-store"
    return answer
