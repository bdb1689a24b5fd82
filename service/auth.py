"""Authentication: access token in the Authorization header, or browser session -> Principal.

The token is a Bearer token (RFC 6750) for the API, and the password of HTTP Basic (RFC 7617, any user name)
for git. The API does not accept Basic: browsers send it automatically, for pages of other sites, too.
"""

from __future__ import annotations

import base64
import binascii

from gitstore.errors import GitstoreError
from service.access import Principal, Role, digest, is_token
from service.errors import HttpCode
from sync import tokens
from sync.db import Database


def bearer(database: Database, authorization: str | None) -> Principal:
    """Return the principal of an Authorization header with a Bearer token; raises `unauthenticated`."""
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        raise _unknown("send an access token: Authorization: Bearer <token>")
    return _holder(database, credentials.strip())


def basic(database: Database, authorization: str | None) -> Principal:
    """Return the principal of an Authorization header with Basic credentials; raises `unauthenticated`."""
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        raise _unknown("an access token is required: send it as the password, with any user name")
    try:
        _, _, password = base64.b64decode(credentials.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        raise _unknown("invalid HTTP Basic credentials") from None
    return _holder(database, password.decode("utf-8", "replace"))


def session(database: Database, secret: bytes) -> Principal:
    """Return the principal of a browser session, which stores the token's digest; raises `unauthenticated`.

    Called at every request, so that a session ends when its token does.
    """
    holder = tokens.authenticate(database, secret)
    if holder is None:
        raise _unknown("the access token is unknown, revoked or expired")
    return Principal(holder.id, holder.name, "token", holder.project, Role(holder.role))


def _holder(database: Database, token: str) -> Principal:
    if not is_token(token):
        raise _unknown("invalid access token: expected gst_ and 43 characters")
    return session(database, digest(token))


def _unknown(message: str) -> GitstoreError:
    return GitstoreError(HttpCode.UNAUTHENTICATED, message)
