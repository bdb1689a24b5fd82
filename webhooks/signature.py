"""Webhook signatures: sign our deliveries per Standard Webhooks, and verify those of each forge.

`webhooks.forges` has the headers. The HMAC-SHA256 covers the raw body; per Standard Webhooks it covers
`<id>.<timestamp>.<raw body>`, and the timestamp must be within 5 minutes of now. GitLab may send the secret
itself.

Bytes are verified before they are parsed, in constant time. A header that is sent twice is refused, because
two programs may disagree on which value counts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from standardwebhooks import Webhook

from gitstore.errors import Code, GitstoreError
from webhooks.forges import WEBHOOK_ID, Forge

TOLERANCE: Final = timedelta(minutes=5)
ID: Final = WEBHOOK_ID
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"

_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = 32
_MOST_SIGNATURES: Final = 16
_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}")
_SECONDS: Final = re.compile(r"0|[1-9][0-9]{0,11}")
_SENT_ID: Final = re.compile(r"[!-~]{1,256}")

_SIGNING: Final = frozenset(
    {SIGNATURE}
    | {header for forge in Forge for header in forge.profile.hmac_headers}
    | {forge.profile.token_header for forge in Forge if forge.profile.token_header}
)

Headers = Iterable[tuple[str, str]]
"""Names in any case, and values as WSGI gives them: bytes as Latin-1."""


# Standard Webhooks


def new_secret(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a new secret in the form of Standard Webhooks: `whsec_` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(random(_KEY_BYTES)).decode()


def is_standard_secret(secret: str) -> bool:
    """Return whether `secret` has the form of Standard Webhooks: `whsec_` and base64."""
    return _key(secret) is not None


def sign(keys: Sequence[str], message_id: str, now: datetime, body: bytes) -> dict[str, str]:
    """Return the headers of a delivery, signed with each of `keys` (several while a secret rotates).

    `now` is the time of this attempt, and `body` is UTF-8.
    """
    at, text = now.astimezone(UTC), body.decode()  # the library reads every time as UTC
    signatures = [Webhook(key).sign(message_id, at, text) for key in keys]
    return {ID: message_id, TIMESTAMP: str(int(now.timestamp())), SIGNATURE: " ".join(signatures)}


# Forges


def verify(forge: Forge, headers: Headers, body: bytes, secret: str | None, now: datetime) -> None:
    """Raise `bad_signature` unless a holder of `secret` signed this delivery.

    Without a secret, a signed delivery is refused: its sender believes that the signature is checked.
    """
    sent, profile = _Sent(headers), forge.profile
    if not secret:
        if sent.names & _SIGNING:
            raise _bad("it is signed, and this source has no secret: set its webhook secret")
    elif profile.hmac_headers:
        _verify_body(sent, profile.hmac_headers, body, secret)
    elif profile.token_header and (SIGNATURE not in sent.names or not is_standard_secret(secret)):
        _verify_token(sent, profile.token_header, secret)
    else:
        _verify_standard(sent, body, secret, now)


class _Sent:
    """The headers of a request. Raises `bad_signature` for one that is missing or sent twice."""

    def __init__(self, headers: Headers) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in headers:
            self._values.setdefault(name.lower(), []).append(value)
        self.names = self._values.keys()

    def one(self, name: str) -> str:
        values = self._values.get(name, [])
        if len(values) != 1 or not values[0].strip():
            raise _bad(f"the header {name} is " + ("sent more than once" if len(values) > 1 else "missing"))
        return values[0].strip()


def _verify_body(sent: _Sent, headers: Mapping[str, str], body: bytes, secret: str) -> None:
    wanted = hmac.digest(secret.encode(), body, hashlib.sha256)
    present = [name for name in headers if name in sent.names] or list(headers)[:1]
    for name in present:
        value, prefix = sent.one(name), headers[name]
        if not value.startswith(prefix) or not _HEX.fullmatch(value[len(prefix) :]):
            raise _bad(f"the header {name} is not {prefix}<64 hex digits>")
        if not hmac.compare_digest(bytes.fromhex(value[len(prefix) :]), wanted):
            raise _bad(f"{name} does not match: check that both sides have the same secret")


def _verify_token(sent: _Sent, header: str, secret: str) -> None:
    try:
        given = sent.one(header).encode("latin-1")
    except UnicodeEncodeError:
        raise _bad(f"the header {header} has characters that HTTP does not allow") from None
    # Comparing digests keeps the time independent of the length, too.
    ours, theirs = (hashlib.sha256(value).digest() for value in (secret.encode(), given))
    if not hmac.compare_digest(ours, theirs):
        raise _bad(f"{header} does not match: check that both sides have the same secret")


def _verify_standard(sent: _Sent, body: bytes, secret: str, now: datetime) -> None:
    """Verify by our clock and with strict forms; the library computes the signature."""
    if not is_standard_secret(secret):
        raise _bad("the secret of this source does not have the form of Standard Webhooks, whsec_<base64>")
    message_id, seconds, signatures = (sent.one(name) for name in (ID, TIMESTAMP, SIGNATURE))
    if not _SENT_ID.fullmatch(message_id) or not _SECONDS.fullmatch(seconds):
        raise _bad(f"{ID} or {TIMESTAMP} is malformed")
    if abs(int(seconds) - now.timestamp()) > TOLERANCE.total_seconds():
        raise _bad(f"{TIMESTAMP} is more than 5 minutes from now: check the clocks of both sides")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _bad("the body is not UTF-8, as Standard Webhooks require") from None
    wanted = Webhook(secret).sign(message_id, datetime.fromtimestamp(int(seconds), UTC), text)
    given = [found.encode("latin-1", "replace") for found in signatures.split(" ", _MOST_SIGNATURES)]
    # Comparing all signatures keeps the time independent of the position of a match.
    if not sum(hmac.compare_digest(found, wanted.encode()) for found in given[:_MOST_SIGNATURES]):
        raise _bad(f"no {SIGNATURE} matches: check that both sides have the same secret")


def _key(secret: str) -> bytes | None:
    if not secret.startswith(_PREFIX):
        return None
    encoded = secret.removeprefix(_PREFIX)
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _bad(message: str) -> GitstoreError:
    return GitstoreError(Code.BAD_SIGNATURE, message)
