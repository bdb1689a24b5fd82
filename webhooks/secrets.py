"""Secrets of subscriptions and sources: encryption at rest, and signatures per Standard Webhooks.

Fernet (github.com/fernet/spec) encrypts with AES-128-CBC and authenticates with HMAC-SHA256. The purpose is
encrypted together with the secret, so that an attacker with write access to the rows but no key cannot move a
secret from one row to another.

Standard Webhooks sign `<id>.<timestamp>.<raw body>` with HMAC-SHA256:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. The standard's
library computes our signatures. Verification uses our clock and strict forms.
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

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from standardwebhooks import Webhook

from gitstore.errors import Code, ConfigError, GitstoreError


def new_key() -> str:
    """Return a new key: 32 random bytes in URL-safe base64."""
    return Fernet.generate_key().decode()


def keys_in(text: str) -> tuple[str, ...]:
    """Return the keys of a comma-separated setting. Raises ValueError for an invalid key."""
    keys = tuple(part.strip() for part in text.split(","))
    for key in keys:
        Fernet(key)
    return keys


class Sealer:
    """Encryption with the first key and decryption with any of them, so that keys rotate without downtime."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, purpose: str, secret: str) -> str:
        """Encrypt `secret`. `purpose` names the row, as "subscription <id>", and contains no newline."""
        return self._fernet.encrypt(f"{purpose}\n{secret}".encode()).decode()

    def open(self, purpose: str, sealed: str) -> str:
        """Decrypt a secret. Raises `config` if it was sealed with another key or for another purpose."""
        try:
            sealed_for, _, secret = self._fernet.decrypt(sealed).decode().partition("\n")
        except InvalidToken:
            sealed_for, secret = "", ""
        if sealed_for != purpose:
            raise ConfigError(
                f"the secret of {purpose} cannot be decrypted: GITSTORE_SECRET_KEY (or the file secret-key "
                "in the data folder) is not the key that sealed it"
            )
        return secret


# Standard Webhooks

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


def verify_signature(
    message_id: str, seconds: str, signatures: str, body: bytes, secret: str, now: datetime
) -> None:
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
