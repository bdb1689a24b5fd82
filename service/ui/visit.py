"""Page requests: session -> Visit, with which a view renders. Each view begins with `enter`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flask import Response, redirect, request

from gitstore.errors import GitstoreError
from gitstore.model import Limits, Permission
from service import auth
from service.access import authorize, may
from service.caller import Caller
from service.context import admit, caller_of, note, services
from service.errors import HttpCode
from service.ui import rendering, sessions
from service.ui.sessions import Session

SLACK = 64 * 1024
"""Bytes of a form in addition to a definition."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Signed-in user with the permission that a view requires."""

    caller: Caller
    session: Session

    @property
    def csrf(self) -> str:
        return self.session.csrf

    @property
    def name(self) -> str:
        return self.caller.principal.name

    @property
    def role(self) -> str:
        return self.caller.principal.role.value

    @property
    def project(self) -> str:
        return self.caller.principal.project.slug

    @property
    def edits(self) -> bool:
        return may(self.caller.principal, Permission.EDIT)

    @property
    def publishes(self) -> bool:
        return may(self.caller.principal, Permission.PUBLISH)

    @property
    def owns(self) -> bool:
        return may(self.caller.principal, Permission.OWN)

    def page(self, template: str, code: int = 200, **values: Any) -> Response:
        return rendering.page(template, code, visit=self, **values)


def enter(permission: Permission, what: str) -> Visit:
    """Authenticate and authorize the sender of this request; `what` as for `context.enter`.

    Raises `unauthenticated`, and `forbidden` for a form that is not of this session.
    """
    here = services()
    session = sessions.read(request, here)
    if session is None or session.secret is None:
        raise GitstoreError(HttpCode.UNAUTHENTICATED, "sign in first")
    principal = auth.session(here.database, session.secret)
    note(principal=principal.name, project=principal.project.slug)
    admit(principal)
    if request.method == "POST":
        limit_form()
        sessions.check(request, session)
    authorize(principal, permission, what)
    return Visit(caller_of(principal, "page"), session)


def most_form(limits: Limits) -> int:
    """Return the maximum size of a form: each byte of a definition may become three (%0A)."""
    return 3 * limits.definition + SLACK


def limit_form() -> None:
    """Limit the size of this request's form, before it is read."""
    most = most_form(services().config.limits)
    request.max_content_length = request.max_form_memory_size = most


def field(name: str) -> str:
    """Return a field of the form with LF line ends and without NUL, which Git and Postgres cannot hold."""
    return request.form.get(name, "").replace("\0", "").replace("\r\n", "\n")


def go(endpoint: str, **values: Any) -> Response:
    """Redirect to the page at `endpoint` (303, so that a form is not sent twice)."""
    return _redirect(rendering.url(endpoint, **values))


def back(to: str) -> Response:
    """Redirect to the path `to` of the request if it is one of ours, else to the list of workflows."""
    parts = urlsplit(to)
    ours = to.startswith(sessions.PATH + "/") and not (parts.scheme or parts.netloc or "\\" in to)
    return _redirect(rendering.prefix() + to) if ours and to.isprintable() else go("list_workflows")


def shown_once(
    visit: Visit,
    area: str,
    title: str,
    text: str,
    values: Mapping[str, str],
    *,
    to: tuple[str, Mapping[str, str]],
    about: str = "",
) -> Response:
    """Answer a form that created a secret: it is shown only here, and browsers must not store it."""
    shown = {"title": title, "text": text, "values": values, "to": to, "about": about}
    made = visit.page("shown_once.html", 201, area=area, **shown)
    made.headers["Cache-Control"] = "no-store"
    return made


def _redirect(to: str) -> Response:
    made = redirect(to, 303, Response)
    assert isinstance(made, Response)  # noqa: S101 - an instance of our class
    made.headers["Cache-Control"] = "no-store"
    return made
