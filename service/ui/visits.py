"""Visits of pages: the signed-in user of a view, the fields of its form, and notices of what a form did."""

from __future__ import annotations

import hmac
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Response, after_this_request, redirect, request

from gitstore.errors import ForbiddenError, GitstoreError, MalformedError
from gitstore.model import Limits, Permission
from service.access import Principal, authorize, may
from service.caller import Caller
from service.context import Services, admit, caller_of, client_address, note, services
from service.errors import UnauthenticatedError
from service.ui import rendering, session
from service.ui.session import Session
from webhooks import subscriptions

SLACK: Final = 64 * 1024
"""Bytes of a form in addition to a definition."""
_FIELD: Final = "csrf"
_HEADER: Final = "X-CSRF-Token"
_NOTICE: Final = "notice of the page"
_NOTICE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Visit:
    """Signed-in user with the permission that a view requires."""

    caller: Caller
    session: Session

    @property
    def csrf(self) -> str:
        return self.session.csrf

    @property
    def principal(self) -> Principal:
        return self.caller.principal

    @property
    def edits(self) -> bool:
        return may(self.principal, Permission.EDIT)

    @property
    def publishes(self) -> bool:
        return may(self.principal, Permission.PUBLISH)

    @property
    def owns(self) -> bool:
        return may(self.principal, Permission.OWN)

    @property
    def disabled(self) -> int:
        """The number of the project's disabled subscriptions, of which its owners learn on every page."""
        if not self.owns:
            return 0
        with self.caller.reading() as tx:
            return subscriptions.count_disabled(tx, self.caller.project_id)

    def page(self, template: str, error: GitstoreError | None = None, **values: Any) -> Response:
        notice = take_notice(self.csrf) if request.method == "GET" else None
        return rendering.page(template, error, visit=self, notice=notice, **values)


def enter(permission: Permission, what: str, *, by_itself: bool = False) -> Visit:
    """Authenticate and authorize the sender of this request; `what` as for `context.enter`.

    A request that a page sends `by_itself` does not renew the session.
    Raises `unauthenticated`, and `forbidden` for a form that is not of this session.
    """
    here = services()
    is_form = request.method not in ("GET", "HEAD")
    if is_form:
        limit_form()
    known = session.read(request, here)
    if known is None:
        raise UnauthenticatedError("sign in first")
    visitor = session.principal(here, known, client_address())
    note(principal=visitor.name, project=visitor.project.slug)
    admit(visitor)
    if is_form:
        check_csrf(known)
    authorize(visitor, permission, what)
    if not by_itself:
        session.slide(here, known)
    return Visit(caller_of(visitor, "page"), known)


def go(endpoint: str, *, notice: str = "", about: dict[str, Any] | None = None, **values: Any) -> Response:
    """Redirect to the page at `endpoint` (303, so that a form is not sent twice).

    It shows the `notice` of that name in macros.html, with the values `about` what was done.
    """
    response = _redirect(rendering.url(endpoint, **values))
    if notice:
        _keep_notice(response, notice, {"slug": values.get("slug"), **(about or {})})
    return response


def shown_once(visit: Visit, **values: Any) -> Response:
    """Answer a form that created a secret: only this page shows it, and browsers must not store it."""
    response = visit.page("shown_once.html", **values)
    response.status_code = 201
    response.headers["Cache-Control"] = "no-store"
    return response


def seen_draft() -> set[str] | None:
    """Return the commit of the draft that the form showed."""
    return {commit} if (commit := field("etag")) else None


def back(to: str) -> Response:
    """Redirect to the path `to` of the request if it is one of ours, else to the list of workflows."""
    parts = urlsplit(to)
    ours = to.startswith(session.PATH + "/") and not (parts.scheme or parts.netloc or "\\" in to)
    return _redirect(rendering.prefix() + to) if ours and to.isprintable() else go("list_workflows")


def _redirect(to: str) -> Response:
    response = redirect(to, 303, Response)
    assert isinstance(response, Response)  # noqa: S101 - an instance of our class
    response.headers["Cache-Control"] = "no-store"
    return response


# Forms


def check_csrf(session: Session | None) -> None:
    """Raise `forbidden` unless the form, or the script, was issued to this very session."""
    given = request.headers.get(_HEADER) or request.form.get(_FIELD, "")
    if session is None or not hmac.compare_digest(given.encode(), session.csrf.encode()):
        raise ForbiddenError(
            "this form is not of your session, or is older than it: go back, load the page again, and send "
            "it once more",
        )


def most_form(limits: Limits) -> int:
    """Return the maximum size of a form: each byte of a definition may become three (%0A)."""
    return 3 * limits.largest_definition + SLACK


def limit_form() -> None:
    """Limit the size of this request's form, before it is read."""
    request.max_content_length = request.max_form_memory_size = most_form(services().config.limits)


def field(name: str) -> str:
    """Return a field of the form with LF line ends and without NUL, which Git and Postgres cannot hold."""
    return request.form.get(name, "").replace("\0", "").replace("\r\n", "\n")


def later() -> datetime | None:
    """Return the time `at` of the form, at which it is to be carried out; None for now.

    The script of the page sends the reader's time in UTC. Without it, the time counts as typed in UTC.
    """
    given = field("at").strip()
    if not given:
        return None
    try:
        at = datetime.fromisoformat(given)
        return at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise MalformedError("the time is none such as 2030-01-31T22:00") from None


def upload(most: int) -> bytes:
    """Return the form's `file`, and one byte more than `most` of a larger one; nothing without a file."""
    file = request.files.get("file")
    if file is None or not file.filename:
        return b""
    with file.stream:
        return file.stream.read(most + 1)


# Notices: what the form before did, shown by the next page, once. They are sealed for one session.


def _keep_notice(response: Response, name: str, values: dict[str, Any]) -> None:
    here = services()
    known = session.read(request, here)
    if known is not None:
        text = json.dumps({"csrf": known.csrf, "name": name, "version": None, "current": None, **values})
        sealed = here.sealer().seal(_NOTICE, text)
        response.set_cookie(_notice_name(here), sealed, max_age=_NOTICE_SECONDS, **session.flags(here))


def take_notice(csrf: str) -> dict[str, Any] | None:
    """Return the notice for the session with this CSRF token, with its `name`; it is not shown again."""
    here = services()
    sealed = request.cookies.get(_notice_name(here), "")
    if not sealed or not sealed.isascii():
        return None

    @after_this_request
    def forget(response: Response) -> Response:
        response.delete_cookie(_notice_name(here), **session.flags(here))
        return response

    with suppress(GitstoreError, ValueError):
        notice: dict[str, Any] = json.loads(here.sealer().open(_NOTICE, sealed))
        if hmac.compare_digest(notice.pop("csrf").encode(), csrf.encode()):
            return notice
    return None


def _notice_name(here: Services) -> str:
    return session.cookie_name(here).replace(session.NAME, "gitstore-notice")
