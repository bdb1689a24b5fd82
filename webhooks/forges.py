"""Forges: one entry each for the signature scheme, event names and token authentication.

To add a forge, add a member of `Forge` here and a sample delivery to tests/webhooks/test_forges.py.

`receive` verifies a delivery and classifies it by its headers. The payload is not parsed: a delivery only
marks its source as due, and the refs themselves are fetched. Bytes are verified before anything is read, in
constant time. A sender that cannot sign sends the secret itself in a header. A header that is sent twice is
refused: two programs may disagree on which value counts.

Sources: https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries,
https://docs.gitea.com/usage/webhooks, https://forgejo.org/docs/latest/user/webhooks/,
https://docs.gitlab.com/user/project/integrations/webhooks/,
https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/,
https://learn.microsoft.com/azure/devops/service-hooks/services/webhooks, and, for `any`, Standard Webhooks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from webhooks.secrets import (
    ID,
    SIGNATURE,
    TIMESTAMP,
    BadSignatureError,
    bad_signature,
    is_secret,
    verify_signature,
)

MOST_BYTES: Final = 3 * 2**20
"""Largest body. GitHub sends 25 MB at most, but a missed delivery is recovered by the poll."""

_AUTHORIZATION: Final = "authorization"
_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}")
_DELIVERY_ID: Final = re.compile(r"[!-~]{1,128}")
_LONGEST_EVENT: Final = 200

Headers = Iterable[tuple[str, str]]
"""Names in any case, and values as WSGI gives them: bytes as Latin-1."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The properties of a forge. Header names are in lower case.

    A forge without `hmac_headers`, `token_header` and `basic` signs per Standard Webhooks.

    `title`              the display name
    `hosts`              words that identify the forge in a host's name
    `hmac_headers`       header -> the prefix before the hex HMAC-SHA256 of the raw body
    `token_header`       the header that holds the secret itself, unless signed per Standard Webhooks
    `basic`              whether the secret is the password of HTTP basic authentication, with any user name
    `enter_as`           how the secret is entered where the forge has no field for it
    `event_headers`      headers that name the event; the first one present counts
    `delivery_headers`   headers that identify the delivery, the same for every retry
    `ref_events`         events that report changed refs; without `event_headers`, every delivery does
    `ping_events`        events that only test the webhook
    `subscribe_to`       the events to select in the forge's settings, if named otherwise than `ref_events`
    `token_user`         the user name that goes with an access token
    """

    title: str
    hosts: tuple[str, ...] = ()
    hmac_headers: Mapping[str, str] = field(default_factory=dict)
    token_header: str | None = None
    basic: bool = False
    enter_as: str | None = None
    event_headers: tuple[str, ...] = ()
    delivery_headers: tuple[str, ...] = ()
    ref_events: tuple[str, ...] = ()
    ping_events: tuple[str, ...] = ()
    subscribe_to: tuple[str, ...] = ()
    token_user: str = "git"  # noqa: S105 - a user name

    @property
    def events(self) -> tuple[str, ...]:
        """The events to select in the forge's settings, by the names used there."""
        return self.subscribe_to or self.ref_events


class Forge(StrEnum):
    """The sender of a source's webhooks. The value is the name in the API and in the database."""

    profile: Profile

    def __new__(cls, name: str, profile: Profile | None = None) -> Forge:
        # The default is for type checkers: Forge("github") looks a member up and creates none.
        member = str.__new__(cls, name)
        member._value_ = name
        member.profile = profile or Profile(name)
        return member

    GITHUB = (
        "github",
        Profile(
            "GitHub",
            hosts=("github",),
            hmac_headers={"x-hub-signature-256": "sha256="},
            event_headers=("x-github-event",),
            delivery_headers=("x-github-delivery",),
            ref_events=("push", "create", "delete"),
            ping_events=("ping",),
            token_user="x-access-token",  # noqa: S106 - a user name
        ),
    )
    GITLAB = (
        "gitlab",
        Profile(
            "GitLab",
            hosts=("gitlab",),
            token_header="x-gitlab-token",  # noqa: S106 - the name of a header
            event_headers=("x-gitlab-event",),
            # Idempotency-Key is the same for every retry; several hooks share the UUID of an event.
            delivery_headers=(ID, "idempotency-key", "x-gitlab-event-uuid"),
            ref_events=("Push Hook", "Tag Push Hook", "System Hook"),
            subscribe_to=("Push events", "Tag push events"),
            token_user="oauth2",  # noqa: S106 - a user name
        ),
    )
    GITEA = (
        "gitea",
        Profile(
            "Gitea",
            hosts=("gitea",),
            hmac_headers={"x-gitea-signature": ""},
            event_headers=("x-gitea-event",),
            delivery_headers=("x-gitea-delivery",),
            ref_events=("push", "create", "delete"),
        ),
    )
    FORGEJO = (
        "forgejo",
        Profile(
            "Forgejo",
            hosts=("forgejo", "codeberg"),
            hmac_headers={"x-forgejo-signature": "", "x-gitea-signature": ""},
            event_headers=("x-forgejo-event", "x-gitea-event"),
            delivery_headers=("x-forgejo-delivery", "x-gitea-delivery"),
            ref_events=("push", "create", "delete"),
        ),
    )
    BITBUCKET = (
        "bitbucket",
        Profile(
            "Bitbucket",
            hosts=("bitbucket",),
            hmac_headers={"x-hub-signature": "sha256="},
            event_headers=("x-event-key",),
            delivery_headers=("x-request-uuid", "x-request-id"),
            ref_events=("repo:push", "repo:refs_changed"),
            ping_events=("diagnostics:ping",),
            subscribe_to=("repo:push",),
            token_user="x-token-auth",  # noqa: S106 - a user name
        ),
    )
    AZURE = (
        "azure",
        Profile(
            "Azure DevOps",
            hosts=("dev.azure", "visualstudio"),
            basic=True,
            enter_as="the password of HTTP basic authentication, with any user name",
            subscribe_to=("Code pushed",),
        ),
    )
    BASIC = (
        "basic",
        Profile(
            "another sender, by HTTP basic authentication",
            basic=True,
            enter_as="the password of HTTP basic authentication, with any user name",
            subscribe_to=("every push",),
        ),
    )
    HEADER = (
        "header",
        Profile(
            "another sender, by a secret header",
            token_header="x-gitstore-token",  # noqa: S106 - the name of a header
            enter_as="the value of the header X-Gitstore-Token",
            subscribe_to=("every push",),
        ),
    )
    ANY = (
        "any",
        Profile(
            "another sender, signed per Standard Webhooks",
            delivery_headers=(ID,),
            subscribe_to=("every push",),
        ),
    )


_SIGNING: Final = frozenset(
    {SIGNATURE, _AUTHORIZATION}
    | {header for forge in Forge for header in forge.profile.hmac_headers}
    | {forge.profile.token_header for forge in Forge if forge.profile.token_header}
)


def detect(url: str) -> Forge:
    """Return the forge that the host of `url` is named after, or `any`."""
    host = url.partition("://")[2].partition("/")[0].lower()
    return next((forge for forge in Forge if any(word in host for word in forge.profile.hosts)), Forge.ANY)


class Kind(StrEnum):
    """The kind of a delivery."""

    PING = "ping"
    CHANGED = "changed"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery with a valid signature. `delivery` is None where the forge sends no id."""

    forge: Forge
    kind: Kind
    event: str
    delivery: str | None


def receive(headers: Headers, body: bytes, secrets: tuple[str, ...], forge: Forge, now: datetime) -> Received:
    """Verify a delivery, which any of `secrets` may have signed, and classify it. Raises `bad_signature`."""
    sent, profile = list(headers), forge.profile
    verify(forge, sent, body, secrets, now)
    first: dict[str, str] = {}
    for name, value in sent:
        first.setdefault(name.lower(), value.strip())
    event = next((first[name] for name in profile.event_headers if first.get(name)), "")
    if event in profile.ping_events:
        kind = Kind.PING
    else:
        kind = Kind.CHANGED if not profile.event_headers or event in profile.ref_events else Kind.IGNORED
    printable = "".join(char if char.isprintable() else "?" for char in event[:_LONGEST_EVENT])
    return Received(forge, kind, printable, _delivery_id(forge, first))


def _delivery_id(forge: Forge, headers: Mapping[str, str]) -> str | None:
    """Return the id; an id that is too long or not printable is replaced by its SHA-256."""
    sent = next((headers[name] for name in forge.profile.delivery_headers if headers.get(name)), None)
    if sent is None or _DELIVERY_ID.fullmatch(sent):
        return sent
    return hashlib.sha256(sent.encode("utf-8", "surrogatepass")).hexdigest()


# Signatures


def verify(forge: Forge, headers: Headers, body: bytes, secrets: tuple[str, ...], now: datetime) -> None:
    """Raise `bad_signature` unless a holder of one of `secrets` signed this delivery.

    Without a secret, a signed delivery is refused: its sender believes that the signature is checked.
    """
    sent = _Sent(headers)
    if not secrets and sent.names & _SIGNING:
        raise bad_signature("it is signed, but this source has no secret: set its webhook secret")
    refusals = []
    for secret in secrets:  # all of them, so that the time does not depend on the one that matches
        try:
            _verify_with(forge.profile, sent, body, secret, now)
        except BadSignatureError as error:
            refusals.append(error)
    if refusals and len(refusals) == len(secrets):
        raise refusals[0]


def _verify_with(profile: Profile, sent: _Sent, body: bytes, secret: str, now: datetime) -> None:
    if profile.hmac_headers:
        _verify_body(sent, profile.hmac_headers, body, secret)
    elif profile.token_header and (SIGNATURE not in sent.names or not is_secret(secret)):
        _verify_token(profile.token_header, _latin1(sent, profile.token_header), secret)
    elif profile.basic:
        _verify_token(_AUTHORIZATION, _password(sent), secret)
    else:
        message_id, seconds, signatures = (sent.one(name) for name in (ID, TIMESTAMP, SIGNATURE))
        verify_signature(message_id, seconds, signatures, body, secret, now)


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
            problem = "sent more than once" if len(values) > 1 else "missing"
            raise bad_signature(f"the header {name} is {problem}")
        return values[0].strip()


def _verify_body(sent: _Sent, headers: Mapping[str, str], body: bytes, secret: str) -> None:
    expected = hmac.digest(secret.encode(), body, hashlib.sha256)
    present = [name for name in headers if name in sent.names] or list(headers)[:1]
    for name in present:
        value, prefix = sent.one(name), headers[name]
        if not value.startswith(prefix) or not _HEX.fullmatch(value[len(prefix) :]):
            raise bad_signature(f"the header {name} is not {prefix}<64 hex digits>")
        if not hmac.compare_digest(bytes.fromhex(value[len(prefix) :]), expected):
            raise _mismatch(name)


def _latin1(sent: _Sent, header: str) -> bytes:
    try:
        return sent.one(header).encode("latin-1")
    except UnicodeEncodeError:
        raise bad_signature(f"the header {header} has characters that HTTP does not allow") from None


def _password(sent: _Sent) -> bytes:
    scheme, _, encoded = _latin1(sent, _AUTHORIZATION).partition(b" ")
    try:
        if scheme.lower() == b"basic":
            return base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        pass
    raise bad_signature(f"the header {_AUTHORIZATION} is not Basic <base64 of user:password>")


def _verify_token(header: str, token: bytes, secret: str) -> None:
    # Comparing digests keeps the time independent of the length, too.
    ours, theirs = (hashlib.sha256(value).digest() for value in (secret.encode(), token))
    if not hmac.compare_digest(ours, theirs):
        raise _mismatch(header)


def _mismatch(header: str) -> BadSignatureError:
    return bad_signature(f"{header} does not match: check that both sides have the same secret")
