"""Users of a host: JWTs as an identity provider issues them, and memberships."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

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


def jwk(key: EllipticCurvePublicKey | RSAPublicKey, kid: str | None, **more: Any) -> dict[str, Any]:
    """A public key as an issuer lists it."""
    text = RSAAlgorithm.to_jwk(key) if isinstance(key, RSAPublicKey) else ECAlgorithm.to_jwk(key)
    named = {} if kid is None else {"kid": kid}
    return {**json.loads(text), **named, "use": "sig", **more}


def signed_with(key: EllipticCurvePrivateKey | RSAPrivateKey, payload: object, **header: Any) -> str:
    """A token signed with ES256 or RS256, or an ES256 signature by another curve."""
    ec = isinstance(key, EllipticCurvePrivateKey)
    header = {"alg": "ES256" if ec else "RS256", "typ": "JWT", **header}
    text = f"{as_part(header)}.{as_part(payload)}".encode()
    if isinstance(key, EllipticCurvePrivateKey):
        size = (key.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(text, ECDSA(SHA256())))
        return f"{text.decode()}.{base64url(r.to_bytes(size, 'big') + s.to_bytes(size, 'big'))}"
    return f"{text.decode()}.{base64url(key.sign(text, PKCS1v15(), SHA256()))}"
