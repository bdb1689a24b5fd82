"""Standard Webhooks: secrets, and signatures over `<id>.<timestamp>.<raw body>` with HMAC-SHA256.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. The
standard's library computes ours. Verification uses our clock and strict forms.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from standardwebhooks import Webhook

from gitstore.errors import Code, GitstoreError

TOLERANCE: Final = timedelta(minutes=5)
ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"

_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = 32
_MOST_SIGNATURES: Final = 16
_SECONDS: Final = re.compile(r"0|[1-9][0-9]{0,11}")
_SENT_ID: Final = re.compile(r"[!-~]{1,256}")


def new_secret() -> str:
    """Return a new secret: `whsec_` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Return whether `text` has the form of a secret: `whsec_` and base64."""
    encoded = text.removeprefix(_PREFIX)
    try:
        return encoded != text and bool(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
    except (binascii.Error, ValueError):
        return False


def sign(keys: Sequence[str], message_id: str, now: datetime, body: bytes) -> dict[str, str]:
    """Return the headers of a delivery, signed with each of `keys` (several while a secret rotates).

    `now` is the time of this attempt, and `body` is UTF-8.
    """
    at, text = now.astimezone(UTC), body.decode()  # the library reads every time as UTC
    signatures = [Webhook(key).sign(message_id, at, text) for key in keys]
    return {ID: message_id, TIMESTAMP: str(int(now.timestamp())), SIGNATURE: " ".join(signatures)}


def verify(message_id: str, seconds: str, signatures: str, body: bytes, secret: str, now: datetime) -> None:
    """Verify a delivery with these values of its headers. Raises `bad_signature`."""
    if not is_secret(secret):
        raise bad_signature(
            "the secret of this source does not have the form of Standard Webhooks, whsec_<base64>"
        )
    if not _SENT_ID.fullmatch(message_id) or not _SECONDS.fullmatch(seconds):
        raise bad_signature(f"{ID} or {TIMESTAMP} is malformed")
    if abs(int(seconds) - now.timestamp()) > TOLERANCE.total_seconds():
        raise bad_signature(f"{TIMESTAMP} is more than 5 minutes from now: check the clocks of both sides")
    # Not by the library, which accepts text only: a sender's body may be any bytes.
    encoded = secret.removeprefix(_PREFIX)
    key = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    digest = hmac.digest(key, f"{message_id}.{seconds}.".encode() + body, "sha256")
    expected = f"v1,{base64.b64encode(digest).decode()}"
    sent = [one.encode("latin-1", "replace") for one in signatures.split(" ", _MOST_SIGNATURES)]
    # Comparing all signatures keeps the time independent of the position of a match.
    if not sum(hmac.compare_digest(one, expected.encode()) for one in sent[:_MOST_SIGNATURES]):
        raise bad_signature(f"no {SIGNATURE} matches: check that both sides have the same secret")


class BadSignatureError(GitstoreError):
    """A delivery that no holder of the secret signed."""


def bad_signature(message: str) -> BadSignatureError:
    return BadSignatureError(Code.BAD_SIGNATURE, message)
