"""Signing in to the page from a host's front end, which has its user's JWT and not an access token.

    POST /ui/handover          the host's script, with the JWT in Authorization: answers a code
    POST /ui/handover/enter    the browser, by a form of the host's page: the code becomes a session

A code can be used once, within a minute, and from the origin that it was made for: a page of another origin
can neither use a code that it saw nor sign the user in as another user. The code is sealed and holds the
user; the server stores which codes were used.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from typing import Final

from flask import Response, request

from gitstore.errors import ForbiddenError, GitstoreError
from service import errors, logs
from service.context import Services, client_address, note, request_id, services
from service.cors import HANDOVER
from service.errors import UnauthenticatedError
from service.issuers import User
from service.logs import Event
from service.ui import session, sign_in
from service.ui.rendering import blueprint
from service.ui.session import Session

SECONDS: Final = 60
_PURPOSE: Final = "handover to the page"
_ENTER: Final = f"{HANDOVER}/enter"
_LONGEST: Final = 16 * 1024  # bytes of a form with a code


@blueprint.post(HANDOVER)
def hand_over() -> Response:
    """Answer a code for the user of a JWT, for the project in `?project=`, or else the user's only one."""
    here = services()
    try:
        origin = _allowed_origin(here)
        identity = here.auth.bearer(request.headers.get("Authorization"), client_address())
        if identity.user is None:
            raise UnauthenticatedError("only users are handed over: send the JWT of a user")
        principal = here.auth.in_project(identity, request.args.get("project"))
    except GitstoreError as error:
        return errors.problem(error, request_id())
    note(principal=principal.name, project=principal.project.slug)
    text = f"{time.time()} {secrets.token_urlsafe(24)} {origin} {principal.project.id} {identity.user}"
    body = {
        "code": here.sealer().seal(_PURPOSE, text),
        "expires_in": SECONDS,
        "url": f"{here.config.public_url}{_ENTER}",
    }
    return Response(
        json.dumps(body) + "\n", 201, {"Cache-Control": "no-store"}, content_type="application/json"
    )


@blueprint.post(_ENTER)
def enter_by_code() -> Response:
    """Begin the session of a code, and show the page at `next`."""
    here = services()
    request.max_content_length = request.max_form_memory_size = _LONGEST
    new = _session_of(here, request.form.get("code", ""), _allowed_origin(here))
    principal = session.principal(here, new, client_address())
    note(principal=principal.name, project=principal.project.slug)
    logs.action(Event.SIGNED_IN, principal=principal.name, project=principal.project.slug)
    return sign_in.begin(here, new, request.form.get("next", ""))


def _allowed_origin(here: Services) -> str:
    """Return the origin that sent this request; raises `forbidden` unless GITSTORE_CORS_ORIGINS names it."""
    origin, allowed = request.headers.get("Origin", ""), here.config.cors_origins
    if allowed is None or origin not in allowed.names:
        raise ForbiddenError("only pages of an origin that GITSTORE_CORS_ORIGINS names can hand over a user")
    return origin


def _session_of(here: Services, code: str, origin: str) -> Session:
    """Return a new session for the user of a code, and use the code up; raises `unauthenticated`."""
    if code.isascii() and code:
        with suppress(GitstoreError, ValueError):
            begun, number, made_for, project, user = here.sealer().open(_PURPOSE, code).split(" ", 4)
            is_valid = made_for == origin and float(begun) + SECONDS > time.time()
            if is_valid and session.end(number, here):
                return replace(Session.new(), user=User.parse(user), project=project)
    raise UnauthenticatedError("the code is invalid, expired, used, or of another origin: get a new one")
