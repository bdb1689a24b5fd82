"""Inbound deliveries: one sample for each forge, and hostile headers."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Code, GitstoreError
from webhooks import standard_webhooks
from webhooks.forges import Forge, Kind, Received, receive

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "It's-a-secret-to-everybody"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True)
class Sample:
    """A delivery that reports a pushed tag, as a forge sends it. `{mac}` stands for the HMAC of the body."""

    headers: dict[str, str]
    payload: dict[str, Any]


PUSH = {"ref": "refs/tags/order-sync/v1", "before": "0" * 40, "after": "a" * 40}
BITBUCKET = {"push": {"changes": [{"old": None, "new": {"type": "tag", "name": "order-sync/v1"}}]}}

SAMPLES = {
    Forge.GITHUB: Sample(
        {"X-Hub-Signature-256": "sha256={mac}", "X-GitHub-Event": "push", "X-GitHub-Delivery": "d-1"}, PUSH
    ),
    Forge.GITEA: Sample(
        {"X-Gitea-Signature": "{mac}", "X-Gitea-Event": "push", "X-Gitea-Delivery": "d-1"}, PUSH
    ),
    Forge.FORGEJO: Sample(
        {"X-Forgejo-Signature": "{mac}", "X-Forgejo-Event": "push", "X-Forgejo-Delivery": "d-1"}, PUSH
    ),
    Forge.GITLAB: Sample(
        {"X-Gitlab-Token": SECRET, "X-Gitlab-Event": "Tag Push Hook", "X-Gitlab-Event-UUID": "d-1"}, PUSH
    ),
    Forge.BITBUCKET: Sample(
        {"X-Hub-Signature": "sha256={mac}", "X-Event-Key": "repo:push", "X-Request-UUID": "d-1"}, BITBUCKET
    ),
    Forge.ANY: Sample({"webhook-id": "d-1"}, {"resource": {"refUpdates": []}}),
}


def signed(
    forge: Forge, body: bytes, event: str | None = None, delivery: str = "d-1", *, secret: str = SECRET
) -> tuple[list[tuple[str, str]], str]:
    """Return the headers with which a forge sends `body`, and the secret that signed it."""
    if forge is Forge.ANY:
        return list(standard_webhooks.sign([STANDARD], delivery, NOW, body).items()), STANDARD
    mac = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    headers = {
        name: value.replace("{mac}", mac).replace(SECRET, secret).replace("d-1", delivery)
        for name, value in SAMPLES[forge].headers.items()
    }
    if event is not None:
        (name,) = [name for name in headers if "event" in name.lower() and "uuid" not in name.lower()]
        headers[name] = event
    return [("Content-Type", "application/json"), *headers.items()], secret


def read(forge: Forge, body: bytes, event: str | None = None) -> Received:
    headers, secret = signed(forge, body, event)
    return receive(headers, body, (secret,), forge, NOW)


@pytest.mark.parametrize("forge", Forge)
def test_each_forge_has_a_sample_that_reports_a_change(forge: Forge) -> None:
    """A pushed tag is a change, with the id of its delivery, in the form in which each forge sends it."""
    received = read(forge, json.dumps(SAMPLES[forge].payload).encode())
    assert (received.forge, received.kind, received.delivery) == (forge, Kind.CHANGED, "d-1")


@pytest.mark.parametrize(
    ("forge", "event", "kind"),
    [
        *((forge, event, Kind.CHANGED) for forge in Forge for event in sorted(forge.profile.ref_events)),
        (Forge.GITHUB, "ping", Kind.PING),
        (Forge.BITBUCKET, "diagnostics:ping", Kind.PING),
        (Forge.GITHUB, "issues", Kind.IGNORED),
        (Forge.GITHUB, "", Kind.IGNORED),
        (Forge.GITLAB, "Merge Request Hook", Kind.IGNORED),
    ],
)
def test_the_event_header_decides_the_kind(forge: Forge, event: str, kind: Kind) -> None:
    """Pings only test the webhook, and events that do not concern refs are ignored."""
    assert read(forge, b'{"zen": "Design for failure."}', event).kind is kind


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b"payload=%7B%7D"]
)
def test_a_signed_body_is_not_parsed(body: bytes) -> None:
    """The signature alone decides, so that no body can break the reader."""
    assert read(Forge.GITHUB, body).kind is Kind.CHANGED


def test_bytes_are_verified_before_anything_is_read() -> None:
    headers, secret = signed(Forge.GITHUB, b"{}", "push")
    with pytest.raises(GitstoreError) as refused:
        receive(headers, b"{", (secret,), Forge.GITHUB, NOW)
    assert refused.value.code is Code.BAD_SIGNATURE


def test_an_unprintable_or_long_delivery_id_is_stored_as_its_digest() -> None:
    for odd in ("x" * 1000, "caf\xe9", "a b"):
        headers, secret = signed(Forge.GITHUB, b"{}", "push", odd)
        delivery = receive(headers, b"{}", (secret,), Forge.GITHUB, NOW).delivery
        assert delivery is not None
        assert len(delivery) == 64
    headers, secret = signed(Forge.GITHUB, b"{}", "push", "")
    assert receive(headers, b"{}", (secret,), Forge.GITHUB, NOW).delivery is None


@given(body=st.binary(max_size=200), headers=st.lists(st.tuples(st.text(max_size=20), st.text(max_size=50))))
def test_any_bytes_raise_only_coded_errors(body: bytes, headers: list[tuple[str, str]]) -> None:
    for forge in Forge:
        sent, secret = signed(forge, body, "push") if forge is not Forge.ANY else ([], STANDARD)
        for given_headers in (headers, [*headers, *sent]):
            try:
                receive(given_headers, body, (secret,), forge, NOW)
            except GitstoreError:
                continue
