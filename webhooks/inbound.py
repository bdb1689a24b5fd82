"""Inbound webhooks: (headers, body, secret, forge) -> a classified delivery. Pure.

The signature over the raw bytes is verified, and the event is read from its header. The payload is not
parsed: a delivery only marks its source as due, and the refs themselves are fetched. A forged delivery could
therefore cause a fetch and nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from webhooks import signature
from webhooks.forges import Forge
from webhooks.signature import Headers

MOST_BYTES: Final = 3 * 2**20
"""Largest body. GitHub sends 25 MB at most, but a missed delivery is recovered by the poll."""

_DELIVERY_ID: Final = re.compile(r"[!-~]{1,128}")
_LONGEST_EVENT: Final = 200


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


def receive(headers: Headers, body: bytes, secret: str | None, forge: Forge, now: datetime) -> Received:
    """Verify a delivery and classify it. Raises `bad_signature`."""
    sent = [(name.lower(), value) for name, value in headers]
    signature.verify(forge, sent, body, secret, now)
    first: dict[str, str] = {}
    for name, value in sent:
        first.setdefault(name, value.strip())
    event = next((first[name] for name in forge.profile.event_headers if first.get(name)), "")
    return Received(forge, _kind(forge, event), _printable(event), _delivery_id(forge, first))


def _kind(forge: Forge, event: str) -> Kind:
    profile = forge.profile
    if event in profile.ping_events:
        return Kind.PING
    return Kind.CHANGED if not profile.event_headers or event in profile.ref_events else Kind.IGNORED


def _delivery_id(forge: Forge, headers: Mapping[str, str]) -> str | None:
    """Return the id; an id that is too long or not printable is replaced by its SHA-256."""
    sent = next((headers[name] for name in forge.profile.delivery_headers if headers.get(name)), None)
    if sent is None or _DELIVERY_ID.fullmatch(sent):
        return sent
    return hashlib.sha256(sent.encode("utf-8", "surrogatepass")).hexdigest()


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:_LONGEST_EVENT])
