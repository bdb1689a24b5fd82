"""POST /hooks/<source id>: webhook endpoint for an upstream's forge.

The signature alone authenticates the sender; one that cannot sign sends the secret itself. The answer is fast
and short; the payload is not trusted, but marks the source as due, and the worker fetches. A client cannot
distinguish an unknown source from a wrong signature or password; the log has the reason.
"""

from __future__ import annotations

import time
from typing import Final

from flask import Blueprint, Response, jsonify, request

from gitstore.errors import TooLargeError
from gitstore.system import now
from service import logs
from service.context import admit, note, read_body, request_id, services
from service.errors import REALM, problem
from service.logs import Event
from service.lookup import uuid_of
from webhooks import source_queue
from webhooks.forges import MOST_BYTES, Kind
from webhooks.secrets import BadSignatureError, bad_signature

_STATUS: Final = {Kind.CHANGED: "accepted", Kind.PING: "pong", Kind.IGNORED: "ignored"}

_REFUSED: Final = (
    "there is no such source, or the signature or password does not match: check that the webhook's URL is "
    "complete, and that both sides have the same secret"
)

blueprint = Blueprint("hooks", __name__)


@blueprint.errorhandler(BadSignatureError)
def refuse(error: BadSignatureError) -> Response:
    """Answer 401 with the challenge of basic authentication: some senders send a password only then."""
    answer = problem(error, request_id())
    answer.headers["WWW-Authenticate"] = f"Basic {REALM}"
    return answer


@blueprint.post("/hooks/<source>")
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
