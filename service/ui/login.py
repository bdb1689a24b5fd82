"""/ui/sign-in and out, the theme, and the static files: all that works without a session."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from flask import Blueprint, Response, request, send_from_directory

from gitstore.errors import GitstoreError
from service import auth, errors, logs
from service.context import note, services
from service.credentials import digest
from service.logs import Event
from service.ui import rendering, sessions
from service.ui.rendering import THEME_COOKIE, THEMES
from service.ui.sessions import Session
from service.ui.visit import back, go, limit_form

_STATIC: Final = str(files("service") / "static")
_YEAR: Final = 31_536_000


def register(blueprint: Blueprint) -> None:
    blueprint.add_url_rule("/ui/sign-in", view_func=sign_in)
    blueprint.add_url_rule("/ui/sign-in", view_func=signed_in, methods=["POST"])
    blueprint.add_url_rule("/ui/sign-out", view_func=sign_out, methods=["POST"])
    blueprint.add_url_rule("/ui/theme", view_func=choose_theme, methods=["POST"])
    blueprint.add_url_rule("/ui/static/<path:file>", view_func=static_file)


def sign_in() -> Response:
    """Show the form.

    It has a session of its own, so that a foreign form cannot sign the user in as another user (login CSRF).
    """
    return _form(request.args.get("next", ""), 200)


def signed_in() -> Response:
    here = services()
    limit_form()
    session, following = sessions.read(request, here), request.form.get("next", "")
    try:
        sessions.check(request, session)
        token = request.form.get("token", "").strip()
        principal = auth.bearer(here.database, f"Bearer {token}")
    except GitstoreError as error:
        return _form(following, int(errors.STATUS[error.code]), error)
    note(principal=principal.name, project=principal.project.slug)
    logs.action(Event.SIGNED_IN, principal=principal.name, project=principal.project.slug)
    response = back(following)
    sessions.write(response, here, Session.new(digest(token)))
    return response


def sign_out() -> Response:
    """Delete the session here. The token stays active: revoking it ends all of its sessions."""
    here = services()
    limit_form()
    sessions.check(request, sessions.read(request, here))
    response = go("sign_in")
    sessions.forget(response, here)
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


def choose_theme() -> Response:
    """Set the theme: light, dark, or the system's. It is no secret, and needs no CSRF token."""
    limit_form()
    chosen = request.form.get("theme", "")
    response = back(request.form.get("next", ""))
    response.set_cookie(
        THEME_COOKIE,
        chosen if chosen in THEMES else THEMES[0],
        max_age=_YEAR,
        path=sessions.PATH,
        httponly=True,
        samesite="Lax",
    )
    return response


def static_file(file: str) -> Response:
    known = request.args.get("v") is not None
    return send_from_directory(_STATIC, file, conditional=True, max_age=_YEAR if known else 0)


def _form(following: str, status: int, error: GitstoreError | None = None) -> Response:
    here = services()
    known = sessions.read(request, here)
    session = known or Session.new()
    response = rendering.page("sign_in.html", status, csrf=session.csrf, following=following, error=error)
    response.headers["Cache-Control"] = "no-store"
    if known is None:
        sessions.write(response, here, session)
    return response
