"""Users of a host: JWTs as an identity provider issues them, and memberships."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any
from uuid import UUID

from sync.db import Database

ISSUER = "https://meshhook.example/auth/v1"
SECRET = "a-secret-of-the-host-that-is-long-enough"


def claims(user: UUID | str, **changed: Any) -> dict[str, Any]:
    """The claims of a user's token as Supabase issues it; None omits a claim."""
    now = int(time.time())
    usual = {
        "iss": ISSUER,
        "sub": str(user),
        "aud": "authenticated",
        "exp": now + 3600,
        "iat": now,
        "role": "authenticated",
        "email": "ada@example.com",
        "user_metadata": {"full_name": "Ada Lovelace"},
    }
    return {name: value for name, value in {**usual, **changed}.items() if value is not None}


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def as_part(value: object) -> str:
    """A part of a token; bytes and text are taken as they are."""
    if isinstance(value, str):
        value = value.encode()
    return base64url(value if isinstance(value, bytes) else json.dumps(value).encode())


def hs256(payload: object, *, header: object = None, secret: str | bytes = SECRET) -> str:
    """A token signed with a shared secret, made without the library that verifies it."""
    text = f"{as_part(header or {'alg': 'HS256', 'typ': 'JWT'})}.{as_part(payload)}"
    key = secret.encode() if isinstance(secret, str) else secret
    return f"{text}.{base64url(hmac.digest(key, text.encode(), hashlib.sha256))}"


def jwt_of(user: UUID | str, **changed: Any) -> str:
    return hs256(claims(user, **changed))


def add_member(database: Database, project: UUID, user: UUID, role: str) -> None:
    with database.as_owner() as tx:
        tx.run(
            "insert into gitstore.members (project_id, user_id, role) "
            "values (%(project)s, %(user)s, %(role)s)",
            project=project,
            user=user,
            role=role,
        )
