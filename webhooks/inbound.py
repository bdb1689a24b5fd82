"""What a forge tells about a repository: (headers, body, secret, forge) -> which refs changed. Pure.

The raw bytes are verified first (webhooks/signature.py), and parsed then. A payload is a doorbell and no
data: what it names goes into the log; what is there is fetched. So whoever can forge one gains nothing but a
fetch, and a shape that is not known is passed over rather than refused.

    forge               header of the event      events that tell of refs
    GitHub              X-GitHub-Event           push, create, delete; ping
    Gitea, Forgejo      X-Gitea-Event, ...       push, create, delete
    GitLab              X-Gitlab-Event           Push Hook, Tag Push Hook, System Hook
    Bitbucket           X-Event-Key              repo:push, repo:refs_changed; diagnostics:ping
    any                 none: each delivery counts

https://docs.github.com/webhooks/webhook-events-and-payloads, https://docs.gitea.com/usage/webhooks,
https://docs.gitlab.com/user/project/integrations/webhook_events,
https://support.atlassian.com/bitbucket-cloud/docs/event-payloads.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import parse_qs

from gitstore import names
from gitstore.errors import Code, GitstoreError
from webhooks import signature
from webhooks.signature import Forge, Headers

MOST_BYTES: Final = 3 * 2**20
"""Of a body: forges send 25 MB at most, and those few do not matter, as everything is fetched anyway."""

_MOST_CHANGES: Final = 100
_SANE_ID: Final = re.compile(r"[!-~]{1,128}")
_NOTHING: Final = re.compile(r"0*")
_FORM: Final = "application/x-www-form-urlencoded"

_HEADERS: Final[Mapping[Forge, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    # forge: (of the event, of the delivery's id), the first that is sent counts
    Forge.GITHUB: (("x-github-event",), ("x-github-delivery",)),
    Forge.GITEA: (("x-gitea-event",), ("x-gitea-delivery",)),
    Forge.FORGEJO: (("x-forgejo-event", "x-gitea-event"), ("x-forgejo-delivery", "x-gitea-delivery")),
    # Idempotency-Key is the same for every retry; Event-UUID is that of an event, with several hooks.
    Forge.GITLAB: (("x-gitlab-event",), (signature.ID, "idempotency-key", "x-gitlab-event-uuid")),
    Forge.BITBUCKET: (("x-event-key",), ("x-request-uuid", "x-request-id")),
    Forge.ANY: ((), (signature.ID,)),
}
_TELLING: Final = frozenset(
    {
        "push",
        "create",
        "delete",
        "Push Hook",
        "Tag Push Hook",
        "System Hook",
        "repo:push",
        "repo:refs_changed",
    }
)
_PINGS: Final = frozenset({"ping", "diagnostics:ping"})


class Kind(StrEnum):
    """What a delivery comes to."""

    PING = "ping"
    CHANGED = "changed"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Change:
    """A ref that changed: `what` is tag, branch or other, `name` without its folder, `how` created, deleted
    or updated."""

    what: str
    name: str
    how: str

    def __str__(self) -> str:
        return f"{self.what} {self.name} {self.how}"


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery whose signature is right. `delivery` is None where the forge gives it no id."""

    forge: Forge
    kind: Kind
    event: str
    delivery: str | None
    changes: tuple[Change, ...]


def receive(headers: Headers, body: bytes, secret: str | None, forge: Forge, now: datetime) -> Received:
    """Read one delivery. Raises `bad_signature`, and `malformed` for what is signed and no JSON object."""
    sent = [(name.lower(), value) for name, value in headers]
    signature.verify(forge, sent, body, secret, now)
    first: dict[str, str] = {}
    for name, value in sent:
        first.setdefault(name, value.strip())
    events, ids = _HEADERS[forge]
    event = next((first[name] for name in events if first.get(name)), "")
    kind = _kind(forge, event)
    payload = _payload(body, first.get("content-type", ""))
    changes = tuple(_changes(payload, event))[:_MOST_CHANGES] if kind is Kind.CHANGED else ()
    return Received(forge, kind, _shown(event), _delivery(first, ids), changes)


def _kind(forge: Forge, event: str) -> Kind:
    if event in _PINGS:
        return Kind.PING
    return Kind.CHANGED if forge is Forge.ANY or event in _TELLING else Kind.IGNORED


def _delivery(headers: Mapping[str, str], ids: tuple[str, ...]) -> str | None:
    """The id, or, of one that is too long or too odd to keep, its digest."""
    found = next((headers[name] for name in ids if headers.get(name)), None)
    if found is None or _SANE_ID.fullmatch(found):
        return found
    return hashlib.sha256(found.encode("utf-8", "surrogatepass")).hexdigest()


def _payload(body: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object in a body, which GitHub may send as a form with the field `payload`."""
    text: bytes | str = body
    try:
        if content_type.partition(";")[0].strip().lower() == _FORM:
            fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=20)
            text = fields.get("payload", [""])[0]
        payload = json.loads(text)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, too deep, a number that is too long
        raise GitstoreError(
            Code.MALFORMED, "the body is not JSON: let the forge send application/json"
        ) from None
    if not isinstance(payload, dict):
        raise GitstoreError(Code.MALFORMED, "the body is JSON, but not an object, as forges send one")
    return payload


# The shapes. Each forge's is recognized by its keys, since servers borrow each other's.


def _changes(payload: dict[str, Any], event: str) -> Iterator[Change]:
    match payload:
        case {"push": {"changes": list(changes)}}:  # Bitbucket Cloud
            for change in changes:
                yield from _of_bitbucket(change)
        case {"changes": list(changes)}:  # Bitbucket Server
            for change in changes:
                match change:
                    case {"ref": {"id": str(ref)}, "fromHash": before, "toHash": after}:
                        yield _change(ref, before, after)
        case {"resource": {"refUpdates": list(updates)}}:  # Azure DevOps
            for update in updates:
                match update:
                    case {"name": str(ref), "oldObjectId": before, "newObjectId": after}:
                        yield _change(ref, before, after)
        case {"ref": {"name": str(ref)}, "old_sha": before, "sha": after}:  # Harness
            yield _change(ref, before, after)
        case {"ref": str(ref), "ref_type": str(what)}:  # create and delete, of GitHub and Gitea
            how = {"create": "created", "delete": "deleted"}.get(event, "updated")
            yield Change(what if what in ("tag", "branch") else "other", _shown(ref), how)
        case {"ref": str(ref), "before": before, "after": after}:  # push, of nearly everybody
            yield _change(ref, before, after)


def _of_bitbucket(change: Any) -> Iterator[Change]:
    match change:
        case {"old": before, "new": after}:
            side = after or before
            if isinstance(side, dict) and isinstance(side.get("name"), str):
                what = side.get("type") if side.get("type") in ("tag", "branch") else "other"
                how = "created" if not before else "updated" if after else "deleted"
                yield Change(str(what), _shown(side["name"]), how)


def _change(ref: str, before: object, after: object) -> Change:
    how = "created" if _is_nothing(before) else "deleted" if _is_nothing(after) else "updated"
    for what, folder in (("tag", names.TAGS.decode()), ("branch", names.HEADS.decode())):
        if ref.startswith(folder):
            return Change(what, _shown(ref.removeprefix(folder)), how)
    return Change("other", _shown(ref), how)


def _is_nothing(oid: object) -> bool:
    return not isinstance(oid, str) or _NOTHING.fullmatch(oid) is not None


def _shown(text: str) -> str:
    """Text of a stranger, for the log and for Postgres."""
    return "".join(char if char.isprintable() else "?" for char in text[:200])
