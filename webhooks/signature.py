"""Signatures of webhooks: how ours are made, and how each forge's are checked. The one home of both.

| forge     | header                                     | holds                                       |
|-----------|--------------------------------------------|---------------------------------------------|
| GitHub    | X-Hub-Signature-256: sha256=<hex>          | HMAC-SHA256 of the raw body                 |
| Gitea     | X-Gitea-Signature: <hex>                   | the same                                    |
| Forgejo   | X-Forgejo-Signature: <hex>, or Gitea's     | the same                                    |
| Bitbucket | X-Hub-Signature: sha256=<hex>              | the same                                    |
| GitLab    | X-Gitlab-Token: <the secret>               | the secret itself; newer: Standard Webhooks |
| any       | webhook-id, webhook-timestamp,             | HMAC-SHA256 of <id>.<timestamp>.<raw body>, |
|           | webhook-signature: v1,<base64> v1,<base64> | within 5 minutes of now                     |

(https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries and its like at the others;
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.)

What is checked is bytes, before anybody parses them, in constant time. A header that is sent twice counts as
a wrong one: two programs may disagree on which of them holds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
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
_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}")
_SECONDS: Final = re.compile(r"0|[1-9][0-9]{0,11}")
_SENT_ID: Final = re.compile(r"[!-~]{1,256}")
_GITLAB_TOKEN: Final = "x-gitlab-token"  # noqa: S105 (the name of a header)


class Forge(StrEnum):
    """Who sends: the way in which it signs."""

    GITHUB = "github"
    GITEA = "gitea"
    FORGEJO = "forgejo"
    GITLAB = "gitlab"
    BITBUCKET = "bitbucket"
    ANY = "any"


# The headers with the HMAC of the body, and what stands before it. Where there are several, each one that is
# sent must hold.
_OF_BODY: Final[dict[Forge, dict[str, str]]] = {
    Forge.GITHUB: {"x-hub-signature-256": "sha256="},
    Forge.GITEA: {"x-gitea-signature": ""},
    Forge.FORGEJO: {"x-forgejo-signature": "", "x-gitea-signature": ""},
    Forge.BITBUCKET: {"x-hub-signature": "sha256="},
    Forge.GITLAB: {},
    Forge.ANY: {},
}
_SIGNING: Final = frozenset(
    {SIGNATURE, _GITLAB_TOKEN, "x-hub-signature"}.union(*(names for names in _OF_BODY.values()))
)

Headers = Iterable[tuple[str, str]]
"""Names in any case, and values as WSGI gives them: bytes as Latin-1."""


# Ours, and those of others that use the standard


def new_secret(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """A new secret as Standard Webhooks writes one: `whsec_` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(random(_KEY_BYTES)).decode()


def is_standard_secret(secret: str) -> bool:
    """Whether `secret` is one that Standard Webhooks can sign with: `whsec_` and base64 of something."""
    return _key(secret) is not None


def sign(keys: Sequence[str], message_id: str, now: datetime, body: bytes) -> dict[str, str]:
    """The headers of a message of ours, signed with each of `keys` (more than one while a secret rotates).

    `now` is the time of this attempt; `body` is UTF-8, as our JSON is.
    """
    at, text = now.astimezone(UTC), body.decode()  # the library takes any time for one in UTC
    signatures = [Webhook(key).sign(message_id, at, text) for key in keys]
    return {ID: message_id, TIMESTAMP: str(int(now.timestamp())), SIGNATURE: " ".join(signatures)}


# Theirs


def verify(forge: Forge, headers: Headers, body: bytes, secret: str | None, now: datetime) -> None:
    """Raise `bad_signature` unless somebody who knows `secret` has sent this.

    Without a secret, raises where there is a signature: its sender believes that it is checked.
    """
    sent = _Sent(headers)
    if not secret:
        if sent.names & _SIGNING:
            raise _bad("it is signed, and no secret is known here: give this source its webhook secret")
    elif forge is Forge.GITLAB and (SIGNATURE not in sent.names or not is_standard_secret(secret)):
        _verify_token(sent, secret)
    elif forge in (Forge.GITLAB, Forge.ANY):
        _verify_standard(sent, body, secret, now)
    else:
        _verify_body(sent, _OF_BODY[forge], body, secret)


class _Sent:
    """The headers of a request, each of which may be asked for once."""

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


def _verify_body(sent: _Sent, headers: dict[str, str], body: bytes, secret: str) -> None:
    wanted = hmac.digest(secret.encode(), body, hashlib.sha256)
    present = [name for name in headers if name in sent.names] or list(headers)[:1]
    for name in present:
        value, prefix = sent.one(name), headers[name]
        if not value.startswith(prefix) or not _HEX.fullmatch(value[len(prefix) :]):
            raise _bad(f"the header {name} is not {prefix}<64 hex digits>")
        if not hmac.compare_digest(bytes.fromhex(value[len(prefix) :]), wanted):
            raise _bad(f"{name} does not match: is the secret the same on both sides?")


def _verify_token(sent: _Sent, secret: str) -> None:
    try:
        given = sent.one(_GITLAB_TOKEN).encode("latin-1")
    except UnicodeEncodeError:
        raise _bad(f"the header {_GITLAB_TOKEN} is not what a server passes on") from None
    # Of the digests, so that not even the length shows.
    ours, theirs = (hashlib.sha256(value).digest() for value in (secret.encode(), given))
    if not hmac.compare_digest(ours, theirs):
        raise _bad(f"{_GITLAB_TOKEN} does not match: is the secret the same on both sides?")


def _verify_standard(sent: _Sent, body: bytes, secret: str, now: datetime) -> None:
    """By our clock and on strict forms; what is signed, and how, is the library's."""
    if not is_standard_secret(secret):
        raise _bad("the secret known here is none of Standard Webhooks, which begin with whsec_")
    message_id, seconds, signatures = (sent.one(name) for name in (ID, TIMESTAMP, SIGNATURE))
    if not _SENT_ID.fullmatch(message_id) or not _SECONDS.fullmatch(seconds):
        raise _bad(f"{ID} or {TIMESTAMP} is malformed")
    if abs(int(seconds) - now.timestamp()) > TOLERANCE.total_seconds():
        raise _bad(f"{TIMESTAMP} is more than 5 minutes away from now: is the clock right on both sides?")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _bad("the body is not UTF-8, which Standard Webhooks sign") from None
    wanted = Webhook(secret).sign(message_id, datetime.fromtimestamp(int(seconds), UTC), text)
    given = [found.encode("latin-1", "replace") for found in signatures.split(" ", _MOST_SIGNATURES)]
    # All of them are looked at: which one matched does not show.
    if not sum(hmac.compare_digest(found, wanted.encode()) for found in given[:_MOST_SIGNATURES]):
        raise _bad(f"no {SIGNATURE} matches: is the secret the same on both sides?")


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
