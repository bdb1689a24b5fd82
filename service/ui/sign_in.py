"""Pages that work without a session: signing in and out, the theme, and static files."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from flask import Response, request

from gitstore.errors import GitstoreError, TemporaryError
from service import assets, logs
from service.access import digest
from service.context import Services, client_address, note, services
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
