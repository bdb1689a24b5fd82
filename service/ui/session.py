"""Browser sessions: the cookie, who signed in with it, and its end.

The cookie is signed and encrypted (Fernet). It holds the SHA-256 of the access token that signed in, never
the token, or the user whom a host handed over (`sign_in.py`): it grants nothing by itself, and at each
request Postgres checks whether the token is still active, or the user still a member, and the role. It is
sealed with the key that seals all other secrets (`service/run/secret_key.py`). The server stores only which
sessions were ended by signing out: an empty file each, in the data folder.

SameSite is Lax, so that the URL that a push prints works from a mail or a chat, too. No GET changes anything,
and every form carries the session's own token against forgery (CSRF, `visits.py`).
"""

from __future__ import annotations

import hashlib
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from flask import Request, Response, after_this_request

from gitstore.errors import GitstoreError, NotFoundError
from gitstore.git.files import write_atomically
from service.access import Identity, Principal
from service.context import Services
from service.errors import UnauthenticatedError
from service.issuers import User

SECONDS: Final = 7 * 24 * 3600
"""Length of a session after its last request."""
USER_SECONDS: Final = 12 * 3600
LONGEST_USER_SECONDS: Final = 7 * 24 * 3600
"""Maximum length of a user's session, however active: the host may have closed the account since."""
_RENEWALS: Final = 24  # in the length of a session
PATH: Final = "/ui"
_PURPOSE: Final = "session of the page"
NAME: Final = "gitstore-session"


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
    sealed = request.cookies.get(cookie_name(here), "")
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


def write(response: Response, here: Services, session: Session) -> None:
    secret = (session.secret or b"").hex()
    of_user = f" {session.project} {session.user}" if session.user else ""
    sealed = here.sealer().seal(
        _PURPOSE, f"{session.renewed}:{session.began} {session.csrf} {secret}{of_user}"
    )
    response.set_cookie(cookie_name(here), sealed, max_age=session.seconds, **flags(here))


def slide(here: Services, session: Session) -> None:
    """Renew the session with this answer, if it was not renewed a while ago."""
    now = int(time.time())
    if session.renewed + session.seconds / _RENEWALS < now:
        renewed = replace(session, renewed=now)

        @after_this_request
        def renew(response: Response) -> Response:
            if "Set-Cookie" not in response.headers:  # such as of signing out
                write(response, here, renewed)
            return response


def cookie_name(here: Services) -> str:
    """Return the cookie's name. Browsers accept the secure prefix over HTTPS only."""
    return f"__Secure-{NAME}" if _is_secure(here) else NAME


def flags(here: Services) -> dict[str, Any]:
    return {"path": PATH, "secure": _is_secure(here), "httponly": True, "samesite": "Lax"}


def _is_secure(here: Services) -> bool:
    return here.config.public_url.startswith("https:")
