"""Users: verify the JSON Web Tokens (RFC 7519) that a host's identity provider issues.

The operator names the issuers in one setting. A token is verified with a key of its issuer and that key's own
algorithm, which the token's header does not choose. Only then are its claims trusted: `iss` and `sub`
identify the user. Users can edit name and address, which are recorded only.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeGuard
from uuid import NAMESPACE_URL, UUID, uuid5

from gitstore.model import Person
from service.errors import UnauthenticatedError
from service.jwks import PUBLIC, Key, KeySet, fetcher
from sync.db import Claims, user_claims

LONGEST: Final = 8192
"""Maximum length of a token in characters, which bounds the cost of refusing one."""
LEEWAY: Final = 30
"""Seconds by which the clocks of issuer and service may differ."""
_LONGEST_SUBJECT: Final = 255
_SHORTEST_SECRET: Final = 32  # characters: 256 bits, as HS256 wants (RFC 7518 section 3.2)
_PART: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_NOT_USERS: Final = ("anon", "service_role")  # Supabase's keys for programs, signed like users' tokens


@dataclass(frozen=True, slots=True)
class User:
    """A signed-in user: `subject` is the id at the issuer, `id` the one in gitstore."""

    id: UUID
    issuer: str
    subject: str
    role: str
    person: Person

    @property
    def claims(self) -> Claims:
        """Claims that row-level security evaluates."""
        return user_claims(self.id, role=self.role, iss=self.issuer)

    @classmethod
    def parse(cls, text: str) -> User:
        """Parse the text form of a user, for another process of this service."""
        values = json.loads(text)
        return cls(**{**values, "id": UUID(values["id"]), "person": Person(**values["person"])})

    def __str__(self) -> str:
        """Return the text form that `parse` accepts."""
        return json.dumps(asdict(self), default=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An issuer of users' tokens, with its key: a shared secret, the URL of its public keys, or both."""

    issuer: str
    audience: str = "authenticated"
    secret: str | None = None
    jwks_url: str | None = None

    @classmethod
    def of(cls, given: object) -> Issuer:
        """Return the issuer that a JSON object describes. Raises ValueError."""
        if not isinstance(given, dict) or not all(_is_text(value, 1000) for value in given.values()):
            raise ValueError("not an object of strings")
        try:
            issuer = cls(**given)
        except TypeError:
            raise ValueError("unknown keys, or no issuer") from None
        if issuer.secret is None and issuer.jwks_url is None:
            raise ValueError("an issuer without a key")
        if issuer.secret is not None and len(issuer.secret) < _SHORTEST_SECRET:
            raise ValueError("a secret that is too short")
        if issuer.jwks_url is not None:
            fetcher(issuer.jwks_url)
        return issuer


@dataclass(frozen=True, slots=True)
class Issuers:
    """The issuers of a setting. The ids of the first one's users are their subjects."""

    all: tuple[Issuer, ...]

    @classmethod
    def parse(cls, text: str) -> Issuers:
        """Parse a JSON list of issuers. Raises ValueError."""
        try:
            listed = json.loads(text)
        except RecursionError:
            listed = None
        issuers = cls(tuple(map(Issuer.of, listed if isinstance(listed, list) else [])))
        if not issuers.all or len({issuer.issuer for issuer in issuers.all}) != len(issuers.all):
            raise ValueError("no issuer, or one twice")
        return issuers

    def __str__(self) -> str:
        """Return the text form that `parse` accepts."""
        return json.dumps([{k: v for k, v in asdict(one).items() if v is not None} for one in self.all])


def is_jwt(text: str) -> bool:
    """Return whether `text` has the form of a signed JWT; text without it needs no key."""
    return text.startswith("ey") and text.count(".") == 2


class Verifier:
    """Verifies users' tokens. Safe to share between threads."""

    def __init__(self, issuers: Issuers | None, *, most_waiting: int = 2) -> None:
        """`most_waiting` is the number of requests that may wait at once for an issuer's keys."""
        self._issuers = {issuer.issuer: issuer for issuer in issuers.all} if issuers else {}
        self._first = next(iter(self._issuers), None)
        self._sets = {
            issuer.issuer: KeySet(issuer.issuer, fetcher(issuer.jwks_url), most_waiting=most_waiting)
            for issuer in self._issuers.values()
            if issuer.jwks_url is not None
        }

    def user(self, token: str) -> User:
        """Return the user of a token; raises `unauthenticated`, or `unavailable` if its keys are unknown."""
        if not self._issuers:
            raise UnauthenticatedError("this gitstore accepts no JWTs: send an access token")
        header, claims = _parsed(token)
        # The claims choose the issuer, and count only once its key has verified them.
        named = claims.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            raise UnauthenticatedError(
                "the token's issuer (iss) is unknown: the operator names issuers in GITSTORE_JWT_ISSUERS"
            )
        if not any(key.signed(token) for key in self._keys(issuer, header)):
            raise UnauthenticatedError("the token is not signed by a key of its issuer")
        return self._checked(issuer, claims)

    def _keys(self, issuer: Issuer, header: dict[str, Any]) -> list[Key]:
        if header["alg"] == "HS256":
            return [Key("HS256", issuer.secret)] if issuer.secret else []
        keys = self._sets.get(issuer.issuer)
        return keys.keys(header["alg"], header.get("kid")) if keys and header["alg"] in PUBLIC else []

    def _checked(self, issuer: Issuer, claims: dict[str, Any]) -> User:
        now = time.time()
        audience, expires, role = claims.get("aud"), claims.get("exp"), claims.get("role", "authenticated")
        subject: Any = claims.get("sub")
        if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
            raise UnauthenticatedError(
                f"the token is not for this audience (aud): expected {issuer.audience!r}"
            )
        if not _is_moment(expires) or now - LEEWAY >= expires:
            raise UnauthenticatedError("the token has expired, or has no time of expiry (exp): sign in again")
        for name in ("nbf", "iat"):
            if name in claims and not (_is_moment(claims[name]) and claims[name] - LEEWAY <= now):
                raise UnauthenticatedError(f"the token is not valid yet ({name})")
        if role in _NOT_USERS:
            raise UnauthenticatedError(
                f"a key with the role {role} belongs to no user: sign in, and send the user's token"
            )
        if not _is_text(role, 63) or not _is_text(subject, _LONGEST_SUBJECT):
            raise UnauthenticatedError("the token names no user (sub), or its role is malformed")
        return User(self._id(issuer, subject), issuer.issuer, subject, role, _person(claims))

    def _id(self, issuer: Issuer, subject: str) -> UUID:
        if issuer.issuer != self._first:
            return uuid5(uuid5(NAMESPACE_URL, issuer.issuer), subject)
        if not _UUID.fullmatch(subject):
            raise UnauthenticatedError("the token's user (sub) must be a UUID for this issuer")
        return UUID(subject)


def _parsed(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token of acceptable form, not verified; raises `unauthenticated`."""
    parts = token.split(".") if len(token) <= LONGEST else []
    if len(parts) != 3 or not all(_is_canonical(part) for part in parts):
        raise UnauthenticatedError(f"malformed token: expected a signed JWT of at most {LONGEST} characters")
    header = _object(_decoded(parts[0]))
    if not isinstance(header.get("alg"), str) or not _is_text(header.get("kid", "-"), _LONGEST_SUBJECT):
        raise UnauthenticatedError("the token's header is malformed")
    if "crit" in header or "b64" in header:
        raise UnauthenticatedError("the token's header has extensions that are not supported (crit, b64)")
    return header, _object(_decoded(parts[1]))


def _is_canonical(part: str) -> bool:
    """Return whether `part` is base64url without padding, in its only spelling."""
    if not _PART.fullmatch(part):
        return False
    try:
        return base64.urlsafe_b64encode(_decoded(part)).rstrip(b"=").decode() == part
    except (binascii.Error, ValueError):
        return False


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object without repeated keys, NaN and Infinity; raises `unauthenticated`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key twice")
        return found

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UnauthenticatedError("malformed token: expected a JSON object with each key once")
    return value


def _is_moment(value: object) -> TypeGuard[float]:
    """Return whether `value` is a NumericDate (RFC 7519 section 2) before the year 10000."""
    return isinstance(value, (int, float)) and type(value) is not bool and 0 <= value < 253402300800


def _is_text(value: object, most: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most and value.isprintable()


def _person(claims: dict[str, Any]) -> Person:
    """Return the user's name and address from the claims, without characters that Git cannot store."""
    metadata = claims.get("user_metadata")
    names = [claims.get("name")]
    if isinstance(metadata, dict):
        names = [metadata.get("full_name"), metadata.get("name"), *names]
    email = _line(claims.get("email"))
    name = next(filter(None, map(_line, names)), "") or email.partition("@")[0]
    return Person(name, email)


def _line(value: object) -> str:
    if not isinstance(value, str):
        return ""
    kept = "".join(c for c in value[:1000] if c.isprintable() and c not in '<>"\\:')
    return " ".join(kept.split())[:100].strip(" .,;:'")
