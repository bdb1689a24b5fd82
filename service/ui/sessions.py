"""Browser sessions: a signed and encrypted cookie (Fernet), and the CSRF token of its forms.

The cookie holds the SHA-256 of the access token that signed in, never the token: it grants nothing by itself,
and at each request Postgres checks whether the token is still active, and its role. It is sealed with the key
that seals all other secrets (`service/run/secret_key.py`). The server stores no session state.

SameSite is Lax, so that the URL that a push prints works from a mail or a chat, too. No GET changes anything,
and every form carries the session's own token against forgery (CSRF).
"""

from __future__ import annotations

import hmac
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from flask import Request, Response

from gitstore.errors import ForbiddenError, GitstoreError
from service.context import Services

SECONDS: Final = 7 * 24 * 3600
FIELD: Final = "csrf"
HEADER: Final = "X-CSRF-Token"
PATH: Final = "/ui"
_PURPOSE: Final = "session of the page"
_NAME: Final = "gitstore-session"


@dataclass(frozen=True, slots=True)
class Session:
    """`secret` is the digest of the token that signed in, None before sign-in; `csrf` is the forms' token."""

    csrf: str
    secret: bytes | None = None

    @classmethod
    def new(cls, secret: bytes | None = None) -> Session:
        """Return a session with a fresh CSRF token: signing in creates a new one."""
        return cls(secrets.token_urlsafe(24), secret)


def read(request: Request, here: Services) -> Session | None:
    """Return the session of a request; None if it is missing, expired, or not issued by this service."""
    sealed = request.cookies.get(name(here), "")
    if not sealed.isascii() or not sealed:
        return None
    sealer = here.sealer()
    with suppress(GitstoreError, ValueError):
        begun, csrf, secret = sealer.open(_PURPOSE, sealed).split(" ")
        if int(begun) + SECONDS > time.time():
            return Session(csrf, bytes.fromhex(secret) or None)
    return None


def write(response: Response, here: Services, session: Session) -> None:
    """Set the session's cookie on `response`."""
    secret = (session.secret or b"").hex()
    sealed = here.sealer().seal(_PURPOSE, f"{int(time.time())} {session.csrf} {secret}")
    response.set_cookie(
        name(here),
        sealed,
        max_age=SECONDS,
        path=PATH,
        secure=_is_secure(here),
        httponly=True,
        samesite="Lax",
    )


def forget(response: Response, here: Services) -> None:
    response.delete_cookie(name(here), path=PATH, secure=_is_secure(here), httponly=True, samesite="Lax")


def check(request: Request, session: Session | None) -> None:
    """Raise `forbidden` unless the form, or the script, was issued to this very session."""
    given = request.headers.get(HEADER) or request.form.get(FIELD, "")
    if session is None or not hmac.compare_digest(given.encode(), session.csrf.encode()):
        raise ForbiddenError(
            "this form is not of your session, or is older than it: go back, load the page again, and send "
            "it once more",
        )


def name(here: Services) -> str:
    """Return the cookie's name. Browsers accept the secure prefix over HTTPS only."""
    return f"__Secure-{_NAME}" if _is_secure(here) else _NAME


def _is_secure(here: Services) -> bool:
    return here.config.public_url.startswith("https:")
