"""POST /hooks/<source id>: webhook endpoint for an upstream's forge.

The signature alone authenticates the sender. The answer is fast and short; the payload is not trusted, but
marks the source as due, and the worker fetches.
"""

from __future__ import annotations

import time
from typing import Final

from flask import Blueprint, Response, jsonify, request

from gitstore.errors import Code, NotFoundError
from gitstore.system import now
from service import logs
from service.api.bodies import read_body
from service.context import admit, note, services
from service.logs import Event
from service.lookup import uuid_of
from webhooks import receipts
from webhooks.inbound import MOST_BYTES, Kind

_SAID: Final = {Kind.CHANGED: "accepted", Kind.PING: "pong", Kind.IGNORED: "ignored"}

blueprint = Blueprint("hooks", __name__)


@blueprint.post("/hooks/<source>")
def ring(source: str) -> Response:
    """Verify and record the delivery, and mark the source as due.

    A repeated delivery gets the same answer and has no effect.
    """
    started = time.perf_counter()
    here = services()
    named = uuid_of(source)
    bell = receipts.bell(here.database, named) if named is not None else None
    if bell is None:
        raise NotFoundError(Code.NOT_FOUND, "there is no source of that id: is the webhook's URL whole?")
    note(project=bell.project, source=str(bell.id))
    admit(None)
    body = read_body(request, MOST_BYTES)
    received, new = receipts.take(here.database, here.sealer(), bell, request.headers.items(), body, now())
    logs.action(
        Event.HOOK_RECEIVED,
        project=bell.project,
        source=str(bell.id),
        kind=received.kind.value,
        type=received.event or None,
        delivery=received.delivery,
        again=None if new else True,
        duration_ms=round((time.perf_counter() - started) * 1000, 1),
    )
    answer = jsonify(status=_SAID[received.kind])
    answer.status_code = 202
    answer.headers["Cache-Control"] = "no-store"
    return answer
