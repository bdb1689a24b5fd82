"""Browser sessions: signing in and out, the cookie, the CSRF token of its forms, and the `Visit` of a view.

The cookie is signed and encrypted (Fernet). It holds the SHA-256 of the access token that signed in, never
the token, or the user whom a host handed over (`handover.py`): it grants nothing by itself, and at each
request Postgres checks whether the token is still active, or the user still a member, and the role. It is
sealed with the key that seals all other secrets (`service/run/secret_key.py`). The server stores only which
sessions were ended by signing out: an empty file each, in the data folder.

SameSite is Lax, so that the URL that a push prints works from a mail or a chat, too. No GET changes anything,
and every form carries the session's own token against forgery (CSRF).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Request, Response, after_this_request, redirect, request

from gitstore.errors import ForbiddenError, GitstoreError, NotFoundError, TemporaryError
from gitstore.git.files import write_atomically
from gitstore.model import Limits, Permission
from service import assets, logs
from service.access import Identity, Principal, authorize, digest, may
from service.caller import Caller
from service.context import Services, admit, caller_of, client_address, note, services
from service.errors import UnauthenticatedError
from service.issuers import User
from service.logs import Event
from service.ui import rendering
from service.ui.rendering import THEME_COOKIE, THEMES, blueprint
from webhooks import subscriptions

SECONDS: Final = 7 * 24 * 3600
"""Length of a session after its last request."""
USER_SECONDS: Final = 12 * 3600
LONGEST_USER_SECONDS: Final = 7 * 24 * 3600
"""Maximum length of a user's session, however active: the host may have closed the account since."""
_RENEWALS: Final = 24  # in the length of a session
PATH: Final = "/ui"
SLACK: Final = 64 * 1024
"""Bytes of a form in addition to a definition."""
_FIELD: Final = "csrf"
_HEADER: Final = "X-CSRF-Token"
_PURPOSE: Final = "session of the page"
_NAME: Final = "gitstore-session"
_NOTICE: Final = "notice of the page"
_NOTICE_SECONDS: Final = 60
_YEAR: Final = 31_536_000


# Cookie


@dataclass(frozen=True, slots=True)
class Session:
    """`csrf` is the forms' token. Of who signed in, `secret` is the digest of the token, or `user` the user.

    `project` is the id of the project that the user's session is in. The session `began` when its user signed
    in, and ends a time after it was `renewed`, in seconds of the clock.
    """

    csrf: str
    secret: bytes | None = None
    user: User | None = None
    project: str | None = None
    began: int = 0
    renewed: int = 0

    @property
    def is_signed_in(self) -> bool:
        return self.secret is not None or self.user is not None

    @property
    def seconds(self) -> int:
        """Length of the session without a request."""
        return SECONDS if self.user is None else USER_SECONDS

    def is_over(self, now: float) -> bool:
        return self.renewed + self.seconds <= now or (
            self.user is not None and self.began + LONGEST_USER_SECONDS <= now
        )

    @classmethod
    def new(cls, secret: bytes | None = None) -> Session:
        """Return a session with a fresh CSRF token: signing in creates a new one."""
        now = int(time.time())
        return cls(secrets.token_urlsafe(24), secret, began=now, renewed=now)


def read(request: Request, here: Services) -> Session | None:
    """Return the session of a request; None if it is missing, ended, or not issued by this service."""
    sealed = request.cookies.get(_cookie_name(here), "")
    if not sealed.isascii() or not sealed:
        return None
    sealer = here.sealer()
    with suppress(GitstoreError, ValueError):
        times, csrf, secret, *of_user = sealer.open(_PURPOSE, sealed).split(" ", 4)
        renewed, _, began = times.partition(":")
        session = Session(
            csrf, bytes.fromhex(secret) or None, began=int(began or renewed), renewed=int(renewed)
        )
        if of_user:
            session = replace(session, project=of_user[0], user=User.parse(of_user[1]))
        if not session.is_over(time.time()) and not _end_of(csrf, here).exists():
            return session
    return None


def principal(here: Services, session: Session, address: str) -> Principal:
    """Return who signed in, with the present role; raises `unauthenticated`."""
    if session.secret is not None:
        return here.auth.session(session.secret, address)
    if session.user is None:
        raise UnauthenticatedError("sign in first")
    try:
        return here.auth.in_project(Identity.of(session.user), session.project)
    except NotFoundError:
        raise UnauthenticatedError("you are no longer a member of the project: sign in again") from None


def _end_of(csrf: str, here: Services) -> Path:
    """Return the file that exists if the session with this CSRF token was ended by signing out."""
    return here.config.ended_sessions / hashlib.sha256(csrf.encode()).hexdigest()


def end(csrf: str, here: Services) -> bool:
    """End a session for every copy of its cookie, or use up a code; return False if that was done before.

    Ends that have expired with their cookies are forgotten.
    """
    folder = here.config.ended_sessions
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        write_atomically(_end_of(csrf, here), "", replace=False)
    except FileExistsError:
        return False
    for known in folder.iterdir():
        with suppress(FileNotFoundError):  # another process was first
            if known.stat().st_mtime + SECONDS < time.time():
                known.unlink()
    return True


def _write(response: Response, here: Services, session: Session) -> None:
    secret = (session.secret or b"").hex()
    of_user = f" {session.project} {session.user}" if session.user else ""
    sealed = here.sealer().seal(
        _PURPOSE, f"{session.renewed}:{session.began} {session.csrf} {secret}{of_user}"
    )
    response.set_cookie(_cookie_name(here), sealed, max_age=session.seconds, **_flags(here))


def _slide(here: Services, session: Session) -> None:
    """Renew the session with this answer, if it was not renewed a while ago."""
    now = int(time.time())
    if session.renewed + session.seconds / _RENEWALS < now:
        renewed = replace(session, renewed=now)

        @after_this_request
        def write(response: Response) -> Response:
            if "Set-Cookie" not in response.headers:  # such as of signing out
                _write(response, here, renewed)
            return response


# Notices: what the form before did, shown by the next page, once. They are sealed for one session.


def _keep_notice(response: Response, name: str, values: dict[str, Any]) -> None:
    here = services()
    session = read(request, here)
    if session is not None:
        text = json.dumps({"csrf": session.csrf, "name": name, "version": None, "current": None, **values})
        sealed = here.sealer().seal(_NOTICE, text)
        response.set_cookie(_notice_name(here), sealed, max_age=_NOTICE_SECONDS, **_flags(here))


def take_notice(csrf: str) -> dict[str, Any] | None:
    """Return the notice for the session with this CSRF token, with its `name`; it is not shown again."""
    here = services()
    sealed = request.cookies.get(_notice_name(here), "")
    if not sealed or not sealed.isascii():
        return None

    @after_this_request
    def forget(response: Response) -> Response:
        response.delete_cookie(_notice_name(here), **_flags(here))
        return response

    with suppress(GitstoreError, ValueError):
        notice: dict[str, Any] = json.loads(here.sealer().open(_NOTICE, sealed))
        if hmac.compare_digest(notice.pop("csrf").encode(), csrf.encode()):
            return notice
    return None


def _notice_name(here: Services) -> str:
    return _cookie_name(here).replace(_NAME, "gitstore-notice")


def _cookie_name(here: Services) -> str:
    """Return the cookie's name. Browsers accept the secure prefix over HTTPS only."""
    return f"__Secure-{_NAME}" if _is_secure(here) else _NAME


def _flags(here: Services) -> dict[str, Any]:
    return {"path": PATH, "secure": _is_secure(here), "httponly": True, "samesite": "Lax"}


def _is_secure(here: Services) -> bool:
    return here.config.public_url.startswith("https:")


# Forms


def _check_csrf(session: Session | None) -> None:
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


def _limit_form() -> None:
    """Limit the size of this request's form, before it is read."""
    request.max_content_length = request.max_form_memory_size = most_form(services().config.limits)


def field(name: str) -> str:
    """Return a field of the form with LF line ends and without NUL, which Git and Postgres cannot hold."""
    return request.form.get(name, "").replace("\0", "").replace("\r\n", "\n")


def upload(most: int) -> bytes:
    """Return the form's `file`, and one byte more than `most` of a larger one; nothing without a file."""
    file = request.files.get("file")
    if file is None or not file.filename:
        return b""
    with file.stream:
        return file.stream.read(most + 1)


# Views


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
        _limit_form()
    session = read(request, here)
    if session is None:
        raise UnauthenticatedError("sign in first")
    visitor = principal(here, session, client_address())
    note(principal=visitor.name, project=visitor.project.slug)
    admit(visitor)
    if is_form:
        _check_csrf(session)
    authorize(visitor, permission, what)
    if not by_itself:
        _slide(here, session)
    return Visit(caller_of(visitor, "page"), session)


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


def _back(to: str) -> Response:
    """Redirect to the path `to` of the request if it is one of ours, else to the list of workflows."""
    parts = urlsplit(to)
    ours = to.startswith(PATH + "/") and not (parts.scheme or parts.netloc or "\\" in to)
    return _redirect(rendering.prefix() + to) if ours and to.isprintable() else go("list_workflows")


def _redirect(to: str) -> Response:
    response = redirect(to, 303, Response)
    assert isinstance(response, Response)  # noqa: S101 - an instance of our class
    response.headers["Cache-Control"] = "no-store"
    return response


# Pages that work without a session


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
    _limit_form()
    session, following = read(request, here), request.form.get("next", "")
    try:
        _check_csrf(session)
        token = request.form.get("token", "").strip()
        visitor = here.auth.token(token, client_address())
    except GitstoreError as error:
        return _sign_in_form(following, error)
    note(principal=visitor.name, project=visitor.project.slug)
    logs.action(Event.SIGNED_IN, principal=visitor.name, project=visitor.project.slug)
    return begin(here, Session.new(digest(token)), following)


def begin(here: Services, session: Session, following: str) -> Response:
    """Begin a session in this browser, and show the page at `following`."""
    response = _back(following)
    _write(response, here, session)
    return response


def _sign_in_form(following: str, error: GitstoreError | None = None) -> Response:
    here = services()
    known = read(request, here)
    session = known or Session.new()
    name = ""
    if known is not None and known.is_signed_in:
        with suppress(GitstoreError):  # the token was revoked
            name = principal(here, known, client_address()).name
    response = rendering.page("sign_in.html", error, csrf=session.csrf, following=following, name=name)
    response.headers["Cache-Control"] = "no-store"
    if isinstance(error, TemporaryError) and error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if known is None:
        _write(response, here, session)
    return response


@blueprint.post("/ui/sign-out")
def sign_out() -> Response:
    """End the session. The token stays active: revoking it ends all of its sessions."""
    here = services()
    _limit_form()
    session = read(request, here)
    _check_csrf(session)
    if session is not None and session.is_signed_in:
        end(session.csrf, here)
    response = go("sign_in")
    response.delete_cookie(_cookie_name(here), **_flags(here))
    # With the copies of unsaved text that the editor kept in this browser.
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


@blueprint.post("/ui/theme")
def choose_theme() -> Response:
    """Set the theme: light, dark, or the system's. It is no secret, and needs no CSRF token."""
    _limit_form()
    chosen = request.form.get("theme", "")
    theme = chosen if chosen in THEMES else THEMES[0]
    response = _back(request.form.get("next", ""))
    response.set_cookie(THEME_COOKIE, theme, max_age=_YEAR, path=PATH, httponly=True, samesite="Lax")
    return response


@blueprint.get("/ui/static/<path:file>")
def static_file(file: str) -> Response:
    """Return a file of service/static, as gzip for clients that accept it.

    The scripts that Vite built have their hash in the name; others have it in the query `v`.
    """
    is_fixed = file.startswith("built/assets/") or request.args.get("v") is not None
    return assets.served(file, assets.FOREVER if is_fixed else "no-cache")
