"""Inbound deliveries: one sample for each forge, and hostile headers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Code, GitstoreError
from webhooks.forges import Forge, Kind, Received, detect, receive
from webhooks.secrets import sign

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "It's-a-secret-to-everybody"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True)
class Sample:
    """A delivery that reports a pushed tag, as a forge sends it. `{mac}` stands for the HMAC of the body,
    and `{basic}` for the secret as a password.
    """

    headers: dict[str, str]
    payload: dict[str, Any]


PUSH = {"ref": "refs/tags/order-sync/v1", "before": "0" * 40, "after": "a" * 40}
BITBUCKET = {"push": {"changes": [{"old": None, "new": {"type": "tag", "name": "order-sync/v1"}}]}}
AZURE = {"refUpdates": [{"name": "refs/tags/order-sync/v1", "newObjectId": "a" * 40}]}

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
    Forge.AZURE: Sample({"Authorization": "{basic}"}, {"eventType": "git.push", "resource": AZURE}),
    Forge.BASIC: Sample({"Authorization": "{basic}"}, PUSH),
    Forge.HEADER: Sample({"X-Gitstore-Token": SECRET}, PUSH),
    Forge.ANY: Sample({"webhook-id": "d-1"}, {"resource": {"refUpdates": []}}),
}


def signed(
    forge: Forge, body: bytes, event: str | None = None, delivery: str = "d-1", *, secret: str = SECRET
) -> tuple[list[tuple[str, str]], str]:
    """Return the headers with which a forge sends `body`, and the secret that signed it."""
    if forge is Forge.ANY:
        return list(sign([STANDARD], delivery, NOW, body).items()), STANDARD
    mac = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    basic = "Basic " + base64.b64encode(f"gitstore:{secret}".encode()).decode()
    values = {"{mac}": mac, "{basic}": basic, SECRET: secret, "d-1": delivery}
    headers = dict(SAMPLES[forge].headers)
    for name, (old, new) in product(headers, values.items()):
        headers[name] = headers[name].replace(old, new)
    if event is not None and forge.profile.event_headers:
        (name,) = [name for name in headers if "event" in name.lower() and "uuid" not in name.lower()]
        headers[name] = event
    return [("Content-Type", "application/json"), *headers.items()], secret


def read(forge: Forge, body: bytes, event: str | None = None) -> Received:
    headers, secret = signed(forge, body, event)
    return receive(headers, body, (secret,), forge, NOW)


@pytest.mark.parametrize("forge", Forge)
def test_each_forge_has_a_sample_that_reports_a_change(forge: Forge) -> None:
    """A pushed tag is a change, in the form in which each forge sends it, with the delivery's id if any."""
    received = read(forge, json.dumps(SAMPLES[forge].payload).encode())
    delivery = "d-1" if forge.profile.delivery_headers else None
    assert (received.forge, received.kind, received.delivery) == (forge, Kind.CHANGED, delivery)


@pytest.mark.parametrize(
    ("host", "forge"),
    [
        ("github.com", Forge.GITHUB), ("gitlab.acme.example", Forge.GITLAB), ("codeberg.org", Forge.FORGEJO),
        ("dev.azure.com", Forge.AZURE), ("acme.visualstudio.com", Forge.AZURE), ("azure.example", Forge.ANY),
    ],
)  # fmt: skip
def test_the_host_names_the_forge(host: str, forge: Forge) -> None:
    assert detect(f"https://{host}/acme/github.git") is forge


def test_each_forge_is_documented() -> None:
    """In the table of api.md that says how it proves itself."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    (table,) = re.findall(r"\| `forge` \|.*?\n\n", text, re.DOTALL)
    assert sorted(re.findall(r"`([a-z]+)`(?=[, ])", table.split("\n", 2)[2])) == sorted(Forge)


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
