"""What forges send, read: every payload that there is, and small ones of our own."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Code, GitstoreError
from webhooks import signature
from webhooks.inbound import Change, Kind, Received, receive
from webhooks.signature import Forge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "It's-a-secret-to-everybody"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DATA = Path(__file__).parents[3] / "shared" / "data"
ZERO, A, B = "0" * 40, "a" * 40, "b" * 40


def signed(
    forge: Forge, body: bytes, event: str, delivery: str = "d-1", *, secret: str = SECRET
) -> tuple[list[tuple[str, str]], str]:
    """The headers with which a forge sends `body`, and the secret that it was signed with."""
    mac = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    plain = [("Content-Type", "application/json")]
    match forge:
        case Forge.GITHUB:
            own = [
                ("X-Hub-Signature-256", f"sha256={mac}"),
                ("X-GitHub-Event", event),
                ("X-GitHub-Delivery", delivery),
            ]
        case Forge.GITEA:
            own = [("X-Gitea-Signature", mac), ("X-Gitea-Event", event), ("X-Gitea-Delivery", delivery)]
        case Forge.FORGEJO:
            own = [("X-Forgejo-Signature", mac), ("X-Forgejo-Event", event), ("X-Forgejo-Delivery", delivery)]
        case Forge.GITLAB:
            own = [("X-Gitlab-Token", secret), ("X-Gitlab-Event", event), ("X-Gitlab-Event-UUID", delivery)]
        case Forge.BITBUCKET:
            own = [("X-Hub-Signature", f"sha256={mac}"), ("X-Event-Key", event), ("X-Request-UUID", delivery)]
        case Forge.ANY:
            return [*plain, *signature.sign([STANDARD], delivery, NOW, body).items()], STANDARD
    return [*plain, *own], secret


def read(forge: Forge, payload: Any, event: str) -> Received:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    headers, secret = signed(forge, body, event)
    return receive(headers, body, secret, forge, NOW)


# Of our own: the smallest that each forge's documentation allows.

BITBUCKET_TAG = {"push": {"changes": [{"old": None, "new": {"type": "tag", "name": "order-sync/v1"}}]}}
BITBUCKET_GONE = {"push": {"changes": [{"old": {"type": "branch", "name": "main"}, "new": None}]}}
SERVER = {"changes": [{"ref": {"id": "refs/tags/x/v1"}, "fromHash": ZERO, "toHash": A, "type": "ADD"}]}
AZURE = {"resource": {"refUpdates": [{"name": "refs/heads/main", "oldObjectId": A, "newObjectId": B}]}}

CASES = [
    (Forge.GITHUB, "push", {"ref": "refs/tags/x/v1", "before": ZERO, "after": A}, "tag x/v1 created"),
    (Forge.GITHUB, "push", {"ref": "refs/heads/main", "before": A, "after": B}, "branch main updated"),
    (Forge.GITHUB, "push", {"ref": "refs/tags/x/v1", "before": A, "after": ZERO}, "tag x/v1 deleted"),
    (Forge.GITHUB, "push", {"ref": "refs/notes/x", "before": A, "after": B}, "other refs/notes/x updated"),
    (Forge.GITHUB, "create", {"ref": "order-sync/v1", "ref_type": "tag"}, "tag order-sync/v1 created"),
    (Forge.GITHUB, "create", {"ref": "drafts/x", "ref_type": "branch"}, "branch drafts/x created"),
    (Forge.GITHUB, "delete", {"ref": "order-sync/v1", "ref_type": "tag"}, "tag order-sync/v1 deleted"),
    (Forge.GITEA, "create", {"ref": "x/v1", "ref_type": "tag"}, "tag x/v1 created"),
    (Forge.FORGEJO, "delete", {"ref": "x/v1", "ref_type": "tag"}, "tag x/v1 deleted"),
    (Forge.GITLAB, "Tag Push Hook", {"ref": "refs/tags/x/v1", "before": A, "after": B}, "tag x/v1 updated"),
    (Forge.GITLAB, "Push Hook", {"ref": "refs/heads/x", "before": A, "after": ZERO}, "branch x deleted"),
    (Forge.BITBUCKET, "repo:push", BITBUCKET_TAG, "tag order-sync/v1 created"),
    (Forge.BITBUCKET, "repo:push", BITBUCKET_GONE, "branch main deleted"),
    (Forge.BITBUCKET, "repo:refs_changed", SERVER, "tag x/v1 created"),
    (Forge.ANY, "", AZURE, "branch main updated"),
    (Forge.ANY, "", {"ref": {"name": "refs/tags/x/v1"}, "old_sha": ZERO, "sha": A}, "tag x/v1 created"),
]  # fmt: skip


@pytest.mark.parametrize(("forge", "event", "payload", "told"), CASES)
def test_each_forge_tells_tags_from_branches_and_creation_from_deletion(
    forge: Forge, event: str, payload: dict[str, Any], told: str
) -> None:
    """In the shape that it has for each."""
    received = read(forge, payload, event)
    assert received.kind is Kind.CHANGED
    assert [str(change) for change in received.changes] == [told]
    assert received.delivery == "d-1"


@pytest.mark.parametrize(
    ("forge", "event", "kind"),
    [
        (Forge.GITHUB, "ping", Kind.PING),
        (Forge.BITBUCKET, "diagnostics:ping", Kind.PING),
        (Forge.GITHUB, "issues", Kind.IGNORED),
        (Forge.GITHUB, "", Kind.IGNORED),
        (Forge.GITLAB, "Merge Request Hook", Kind.IGNORED),
        (Forge.ANY, "", Kind.CHANGED),
    ],
)
def test_pings_are_known_and_other_events_ignored(forge: Forge, event: str, kind: Kind) -> None:
    """Whatever stands in them. Where there is no header for the event, each delivery is one."""
    received = read(forge, {"zen": "Design for failure."}, event)
    assert (received.kind, received.changes) == (kind, ())


def test_a_form_is_read_as_github_sends_it() -> None:
    """JSON in the field `payload`; the signature is of the form itself."""
    body = urlencode({"payload": json.dumps({"ref": "refs/tags/x/v1", "before": ZERO, "after": A})}).encode()
    headers, secret = signed(Forge.GITHUB, body, "push")
    headers[0] = ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
    assert receive(headers, body, secret, Forge.GITHUB, NOW).changes == (Change("tag", "x/v1", "created"),)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b"{}x",
        b'{"ref":' * 50_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "text/plain", ""])
def test_what_is_signed_and_no_json_object_is_malformed(body: bytes, kind: str) -> None:
    """Coded, whatever it is."""
    headers, secret = signed(Forge.GITHUB, body, "push")
    headers[0] = ("Content-Type", kind)
    with pytest.raises(GitstoreError) as refused:
        receive(headers, body, secret, Forge.GITHUB, NOW)
    assert refused.value.code is Code.MALFORMED


def test_bytes_are_verified_before_anything_is_read() -> None:
    """What is not signed is not looked at, JSON or not."""
    headers, secret = signed(Forge.GITHUB, b"{}", "push")
    with pytest.raises(GitstoreError) as refused:
        receive(headers, b"{", secret, Forge.GITHUB, NOW)
    assert refused.value.code is Code.BAD_SIGNATURE


def test_an_odd_delivery_id_is_kept_as_its_digest() -> None:
    """A thousand characters, or ones that no log should show."""
    for odd in ("x" * 1000, "caf\xe9", "a b"):
        headers, secret = signed(Forge.GITHUB, b"{}", "push", odd)
        found = receive(headers, b"{}", secret, Forge.GITHUB, NOW).delivery
        assert found is not None
        assert len(found) == 64
    headers, secret = signed(Forge.GITHUB, b"{}", "push", "")
    assert receive(headers, b"{}", secret, Forge.GITHUB, NOW).delivery is None


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.sampled_from([ZERO, A, "refs/tags/x/v1", "tag"])
)
KEYS = st.sampled_from(
    ["ref", "ref_type", "before", "after", "push", "changes", "old", "new", "name", "type", "resource",
     "refUpdates", "fromHash", "toHash", "id", "old_sha", "sha", "oldObjectId", "newObjectId"]
)  # fmt: skip
PAYLOADS = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner), max_leaves=8
    ),
)


@given(
    payload=PAYLOADS,
    forge=st.sampled_from(Forge),
    event=st.sampled_from(["push", "create", "repo:push", "x", ""]),
)
def test_no_signed_object_raises(payload: dict[str, Any], forge: Forge, event: str) -> None:
    """A payload is a doorbell: a shape that is not known is passed over."""
    received = read(forge, payload, event)
    assert all(change.what in ("tag", "branch", "other") for change in received.changes)
    assert all(str(change).isprintable() for change in received.changes)


@given(body=st.binary(max_size=200), headers=st.lists(st.tuples(st.text(max_size=20), st.text(max_size=50))))
def test_no_bytes_raise_anything_but_coded_errors(body: bytes, headers: list[tuple[str, str]]) -> None:
    """Signed or not, in any headers."""
    for forge in Forge:
        sent, secret = signed(forge, body, "push") if forge is not Forge.ANY else ([], STANDARD)
        for given_headers in (headers, [*headers, *sent]):
            try:
                receive(given_headers, body, secret, forge, NOW)
            except GitstoreError:
                continue


# Real ones

EVENTS = {
    "branch_create": "create",
    "branch_delete": "delete",
    "tag_create": "create",
    "tag_delete": "delete",
}
FORGES = {"github": Forge.GITHUB, "gitea": Forge.GITEA, "gitlab": Forge.GITLAB, "bitbucket": Forge.BITBUCKET,
          "stash": Forge.BITBUCKET, "gogs": Forge.GITEA, "azure": Forge.ANY, "harness": Forge.ANY,
          "gitee": Forge.ANY}  # fmt: skip


def real(folder: str) -> list[Path]:
    root = DATA / folder / "data"
    if not root.is_dir():
        pytest.skip(f"needs the payloads in {root}, which are not part of the repository")
    return sorted(root.rglob("*.json"))


def event_of(path: Path, forge: Forge, body: bytes) -> str:
    match forge:
        case Forge.GITLAB:
            return "Tag Push Hook" if b'"tag_push"' in body else "Push Hook"
        case Forge.BITBUCKET:
            return "repo:refs_changed" if "stash" in path.parts else "repo:push"
        case Forge.ANY:
            return ""
    return EVENTS.get(path.stem, "push") if b'"ref_type"' in body else "push"


def test_every_payload_of_every_forge_tells_what_its_name_says() -> None:
    """go-scm's: push, tag and branch, created and deleted, of nine forges."""
    seen = 0
    for path in real("webhooks-multi-goscm"):
        forge, body = (
            FORGES[path.relative_to(DATA / "webhooks-multi-goscm" / "data").parts[0]],
            path.read_bytes(),
        )
        received = read(forge, body, event_of(path, forge, body))
        assert received.kind is Kind.CHANGED, path
        if "pull_request" in path.name:
            continue
        (change,) = received.changes
        if "tag" in path.name:
            assert change.what == "tag", path
        elif "branch" in path.name:
            assert change.what == "branch", path
        for word, how in (("create", "created"), ("delete", "deleted"), ("update", "updated")):
            if word in path.name:
                assert change.how == how, path
        seen += 1
    assert seen > 45


def test_every_payload_of_github_is_read() -> None:
    """octokit's examples, with the event that their folder names."""
    seen = 0
    for path in real("webhooks-github-octokit"):
        event = path.parent.name
        received = read(Forge.GITHUB, path.read_bytes(), event)
        seen += 1
        match event:
            case "ping":
                assert received.kind is Kind.PING
            case "push" | "create" | "delete":
                (change,) = received.changes
                how = {"create": "created", "delete": "deleted"}.get(event)
                assert change.what in ("tag", "branch"), path
                assert how is None or change.how == how
            case _:
                assert (received.kind, received.changes) == (Kind.IGNORED, ()), path
    assert seen > 40


def test_every_payload_is_fine_under_every_forge() -> None:
    """Whoever sends whatever: nothing but coded errors, and nothing refused that is signed."""
    payloads: Iterator[Path] = iter([*real("webhooks-multi-goscm"), *real("webhooks-github-octokit")])
    for path in payloads:
        for forge in Forge:
            read(forge, path.read_bytes(), "push")
