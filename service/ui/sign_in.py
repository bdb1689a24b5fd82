"""Signing in and out, the theme, and static files: pages that work without a session.

A host's front end has its user's JWT and not an access token:

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

from gitstore.errors import ForbiddenError, GitstoreError, TemporaryError
from service import assets, errors, logs
from service.access import digest
from service.context import Services, client_address, note, request_id, services
from service.cors import HANDOVER
from service.errors import UnauthenticatedError
from service.issuers import User
from service.logs import Event
from service.ui import rendering, session
from service.ui.rendering import THEME_COOKIE, THEMES, blueprint
from service.ui.session import PATH, Session
from service.ui.visits import back, check_csrf, go, limit_form

_YEAR: Final = 31_536_000


@blueprint.get("/ui/")
@blueprint.get("/ui")
@blueprint.get("/")
def first_page() -> Response:
    return go("list_workflows")


@blueprint.get("/ui/sign-in")
def sign_in() -> Response:
    """Show the form.

    It has a session of its own, so that a foreign form cannot sign the user in as another user (login CSRF).
    """
    return _sign_in_form(request.args.get("next", ""))


@blueprint.post("/ui/sign-in")
def signed_in() -> Response:
    here = services()
    limit_form()
    following = request.form.get("next", "")
    try:
        check_csrf(session.read(request, here))
        token = request.form.get("token", "").strip()
        visitor = here.auth.token(token, client_address())
    except GitstoreError as error:
        return _sign_in_form(following, error)
    note(principal=visitor.name, project=visitor.project.slug)
    logs.action(Event.SIGNED_IN, principal=visitor.name, project=visitor.project.slug)
    return begin(here, Session.new(digest(token)), following)


def begin(here: Services, new: Session, following: str) -> Response:
    """Begin a session in this browser, and show the page at `following`."""
    response = back(following)
    session.write(response, here, new)
    return response


def _sign_in_form(following: str, error: GitstoreError | None = None) -> Response:
    here = services()
    known = session.read(request, here)
    shown = known or Session.new()
    name = ""
    if known is not None and known.is_signed_in:
        with suppress(GitstoreError):  # the token was revoked
            name = session.principal(here, known, client_address()).name
    response = rendering.page("sign_in.html", error, csrf=shown.csrf, following=following, name=name)
    response.headers["Cache-Control"] = "no-store"
    if isinstance(error, TemporaryError) and error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if known is None:
        session.write(response, here, shown)
    return response


@blueprint.post("/ui/sign-out")
def sign_out() -> Response:
    """End the session. The token stays active: revoking it ends all of its sessions."""
    here = services()
    limit_form()
    known = session.read(request, here)
    check_csrf(known)
    if known is not None and known.is_signed_in:
        session.end(known.csrf, here)
    response = go("sign_in")
    response.delete_cookie(session.cookie_name(here), **session.flags(here))
    # With the copies of unsaved text that the editor kept in this browser.
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


@blueprint.post("/ui/theme")
def choose_theme() -> Response:
    """Set the theme: light, dark, or the system's. It is no secret, and needs no CSRF token."""
    limit_form()
    chosen = request.form.get("theme", "")
    theme = chosen if chosen in THEMES else THEMES[0]
    response = back(request.form.get("next", ""))
    response.set_cookie(THEME_COOKIE, theme, max_age=_YEAR, path=PATH, httponly=True, samesite="Lax")
    return response


@blueprint.get("/ui/static/<path:file>")
def static_file(file: str) -> Response:
    """Return a file of service/static, as gzip for clients that accept it.

    The scripts that Vite built have their hash in the name; others have it in the query `v`.
    """
    is_fixed = file.startswith("built/assets/") or request.args.get("v") is not None
    return assets.served(file, assets.FOREVER if is_fixed else "no-cache")


# Signing in from a host's front end

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
    return begin(here, new, request.form.get("next", ""))


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
