"""Signatures: genuine ones are taken, by every forge's way, and nothing else is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from gitstore.errors import Code, GitstoreError
from tests.conftest import examples
from webhooks.forges import Forge
from webhooks.signature import Headers, is_standard_secret, new_secret, sign, verify

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BODY = '{"ref": "refs/tags/a/v1", "name": "Ä"}'.encode()
PLAIN = "It's a Secret to Everybody"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def mac(secret: str = PLAIN, body: bytes = BODY) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def standard(secret: str = STANDARD, at: datetime = NOW, changed: Mapping[str, str] | None = None) -> Headers:
    return list({**sign([secret], "msg_1", at, BODY), **(changed or {})}.items())


# For each forge: its secret, and the headers that it sends.
GENUINE: dict[str, tuple[Forge, str, Headers]] = {
    "github": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", "sha256=" + mac())]),
    "github, beside SHA-1": (
        Forge.GITHUB,
        PLAIN,
        [("X-Hub-Signature", "sha1=" + "0" * 40), ("X-Hub-Signature-256", "sha256=" + mac())],
    ),
    "gitea": (Forge.GITEA, PLAIN, [("X-Gitea-Signature", mac())]),
    "forgejo": (Forge.FORGEJO, PLAIN, [("X-Forgejo-Signature", mac()), ("X-Gitea-Signature", mac())]),
    "forgejo, older": (Forge.FORGEJO, PLAIN, [("X-Gitea-Signature", mac())]),
    "bitbucket": (Forge.BITBUCKET, PLAIN, [("X-Hub-Signature", "sha256=" + mac())]),
    "gitlab": (Forge.GITLAB, PLAIN, [("X-Gitlab-Token", PLAIN)]),
    "gitlab, newer": (Forge.GITLAB, STANDARD, standard()),
    "gitlab, any token": (Forge.GITLAB, STANDARD, [("X-Gitlab-Token", STANDARD)]),
    "any": (Forge.ANY, STANDARD, standard()),
    "header names in another case": (Forge.GITHUB, PLAIN, [("x-HUB-signature-256", "sha256=" + mac())]),
    "hex in capitals": (Forge.GITEA, PLAIN, [("X-Gitea-Signature", mac().upper())]),
    "one of several signatures": (
        Forge.ANY,
        STANDARD,
        standard(changed={"webhook-signature": "v1,AAAA v1a,BBBB " + dict(standard())["webhook-signature"]}),
    ),
}
FORGED: dict[str, tuple[Forge, str, Headers]] = {
    "no signature": (Forge.GITHUB, PLAIN, []),
    "SHA-1 alone": (
        Forge.GITHUB,
        PLAIN,
        [("X-Hub-Signature", "sha1=" + hmac.new(PLAIN.encode(), BODY, hashlib.sha1).hexdigest())],
    ),
    "another forge's header": (Forge.GITHUB, PLAIN, [("X-Gitea-Signature", mac())]),
    "no prefix": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", mac())]),
    "a prefix where none belongs": (Forge.GITEA, PLAIN, [("X-Gitea-Signature", "sha256=" + mac())]),
    "another prefix": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", "sha512=" + mac())]),
    "cut short": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", "sha256=" + mac()[:-2])]),
    "longer": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", "sha256=" + mac() + "00")]),
    "no hex": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", "sha256=" + "g" * 64)]),
    "digits that are none of ASCII": (Forge.GITEA, PLAIN, [("X-Gitea-Signature", "\u0663" * 64)]),
    "sent twice": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", "sha256=" + mac())] * 2),
    "twice in one": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", f"sha256={mac()},sha256={mac()}")]),
    "one right and one wrong": (
        Forge.FORGEJO,
        PLAIN,
        [("X-Forgejo-Signature", mac()), ("X-Gitea-Signature", mac("other"))],
    ),
    "another secret": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", "sha256=" + mac("other"))]),
    "another body": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", "sha256=" + mac(body=b"{}"))]),
    "an empty signature": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", "")]),
    "another token": (Forge.GITLAB, PLAIN, [("X-Gitlab-Token", PLAIN + "!")]),
    "an empty token": (Forge.GITLAB, PLAIN, [("X-Gitlab-Token", "")]),
    "a token of no server": (Forge.GITLAB, PLAIN, [("X-Gitlab-Token", "\u20ac")]),
    "a right token beside a wrong signature": (
        Forge.GITLAB,
        STANDARD,
        [*standard(new_secret()), ("X-Gitlab-Token", STANDARD)],
    ),
    "a hash of the token": (Forge.GITLAB, PLAIN, [("X-Gitlab-Token", mac())]),
    "too old": (Forge.ANY, STANDARD, standard(at=NOW - timedelta(seconds=301))),
    "too new": (Forge.ANY, STANDARD, standard(at=NOW + timedelta(seconds=301))),
    "another time": (
        Forge.ANY,
        STANDARD,
        standard(changed={"webhook-timestamp": str(int(NOW.timestamp()) - 1)}),
    ),
    "another id": (Forge.ANY, STANDARD, standard(changed={"webhook-id": "msg_2"})),
    "no id": (Forge.ANY, STANDARD, standard(changed={"webhook-id": ""})),
    "another version": (
        Forge.ANY,
        STANDARD,
        standard(changed={"webhook-signature": dict(standard())["webhook-signature"].replace("v1,", "v2,")}),
    ),
    "not base64": (Forge.ANY, STANDARD, standard(changed={"webhook-signature": "v1,***"})),
    "no comma": (Forge.ANY, STANDARD, standard(changed={"webhook-signature": "v1"})),
    "a secret that is none of the standard": (Forge.ANY, PLAIN, standard()),
    **{
        f"the time {text!r}": (Forge.ANY, STANDARD, standard(changed={"webhook-timestamp": text}))
        for text in ("", "now", "1e9", "-1", "+1767268800", "01767268800", "1767268800.0", "9" * 30, "nan")
    },
}


def refused(forge: Forge, headers: Headers, body: bytes, secret: str | None) -> str:
    with pytest.raises(GitstoreError) as caught:
        verify(forge, headers, body, secret, NOW)
    assert caught.value.code is Code.BAD_SIGNATURE
    assert not secret or secret not in caught.value.message
    return caught.value.message


def test_signatures_equal_those_of_openssl() -> None:
    """`openssl dgst -sha256 -hmac` over the same bytes: hexadecimal for forges, base64 in the standard."""
    assert mac() == "9a754a4107b95b3713904f62d7d0ad0bddb337639d0a9a39ae1587438ca05f6b"
    assert dict(standard())["webhook-signature"] == "v1,Koues7ORVXGKBd4W3AK6B++laufH/nAQwhowtiNRYcU="


@pytest.mark.parametrize("case", GENUINE)
def test_a_genuine_one_is_taken(case: str) -> None:
    """As each forge sends it, over the raw bytes."""
    forge, secret, headers = GENUINE[case]
    verify(forge, headers, BODY, secret, NOW)


@pytest.mark.parametrize("case", FORGED)
def test_what_is_forged_is_refused(case: str) -> None:
    """Whatever is wrong with it, it is a refusal, which does not tell the secret."""
    forge, secret, headers = FORGED[case]
    refused(forge, headers, BODY, secret)


@pytest.mark.parametrize("case", GENUINE)
def test_a_signature_without_a_secret_is_an_error(case: str) -> None:
    """Its sender believes that it is checked."""
    forge, _, headers = GENUINE[case]
    for none in (None, ""):
        assert "secret" in refused(forge, headers, BODY, none)


@pytest.mark.parametrize("forge", Forge)
def test_a_secret_without_a_signature_is_an_error(forge: Forge) -> None:
    """Nobody gets past by leaving the header out."""
    for secret in (PLAIN, STANDARD):
        refused(forge, [("Content-Type", "application/json")], BODY, secret)


@pytest.mark.parametrize("forge", Forge)
def test_without_both_there_is_nothing_to_check(forge: Forge) -> None:
    """Whether a source may do without a secret is not decided here."""
    verify(forge, [("X-GitHub-Event", "push")], BODY, None, NOW)


@given(data=st.data(), case=st.sampled_from(sorted(GENUINE)))
@examples(300)
def test_a_flipped_bit_is_refused(data: st.DataObject, case: str) -> None:
    """Any bit of the body, of the signature or of the secret. (A token does not cover the body.)"""
    forge, secret, headers = GENUINE[case]
    signed = dict(headers)
    covers = ["signature", "secret"] + (["body"] if "X-Gitlab-Token" not in signed else [])
    what = data.draw(st.sampled_from(covers))
    if what == "body":
        refused(forge, headers, flipped(data, BODY), secret)
    elif what == "secret":
        raw = flipped(data, secret.encode())
        try:
            other = raw.decode()
        except UnicodeDecodeError:
            return
        if other.strip() and base64_key(other) != base64_key(secret):
            refused(forge, headers, BODY, other)
    else:
        names = {"X-Hub-Signature-256", "X-Gitea-Signature", "X-Gitlab-Token", "webhook-signature"}
        name = next((n for n in signed if n in names), "X-Hub-Signature" if forge is Forge.BITBUCKET else "")
        if name and "," not in signed[name][3:]:
            value = flipped(data, signed[name].encode()).decode("latin-1")
            if value.strip().lower() != signed[name].lower():
                refused(forge, list({**signed, name: value}.items()), BODY, secret)


def flipped(data: st.DataObject, raw: bytes) -> bytes:
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def base64_key(secret: str) -> bytes:
    """What a secret means: the last character of base64 has bits that mean nothing."""
    if not is_standard_secret(secret):
        return secret.encode()
    encoded = secret.removeprefix("whsec_")
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4))


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "webhook-id",
                    "webhook-timestamp",
                    "webhook-signature",
                    "X-Gitlab-Token",
                    "X-Hub-Signature-256",
                ]
            ),
            st.text(max_size=40),
        )
    ),
    forge=st.sampled_from(Forge),
    secret=st.sampled_from([PLAIN, STANDARD, "whsec_====", "whsec_!"]),
    body=st.binary(max_size=40),
)
@examples(300)
def test_nonsense_is_a_refusal_and_nothing_else(
    headers: list[tuple[str, str]], forge: Forge, secret: str, body: bytes
) -> None:
    """Whatever a stranger sends, no other error comes of it."""
    refused(forge, headers, body, secret)


def test_what_we_sign_the_reference_library_verifies() -> None:
    """With each of the secrets while they rotate; in whatever zone the clock is."""
    old, new = new_secret(), new_secret()
    now = datetime.now(UTC).astimezone()
    headers = sign([new, old], "evt-1", now, BODY)
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)
    assert headers["webhook-id"] == "evt-1"
    assert len(headers["webhook-signature"].split()) == 2


def test_a_new_secret_is_one_of_the_standard() -> None:
    """`whsec_` and 32 bytes, which is between the 24 and 64 that the standard asks for."""
    secret = new_secret()
    assert is_standard_secret(secret)
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != new_secret()


def test_every_vector(vectors: Path) -> None:
    """The published vectors: those that are signed with SHA-256 hold, SHA-1 is refused."""
    found: list[dict[str, Any]] = json.loads((vectors / "vectors.json").read_text())
    checked = {vector["name"]: check(vector, vectors) for vector in found}
    assert sorted(name for name, held in checked.items() if held is None) in ([], ["jenkins-github-ping"])
    assert all(held is not False for held in checked.values()), checked


def check(vector: dict[str, Any], folder: Path) -> bool | None:
    """Whether a vector is judged as it should be; None where the body that it names is not there."""
    secret = vector["secret"]
    if "webhook-signature" in vector["scheme"]:
        good: dict[str, Any] = (
            vector if "id" in vector else {"id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "timestamp": 1614265330}
        )
        headers = [
            ("webhook-id", good["id"]),
            ("webhook-timestamp", str(good["timestamp"])),
            ("webhook-signature", vector["header"]),
        ]
        body = vector.get("body", '{"test": 2432232314}').encode()
        at = datetime.fromtimestamp(good["timestamp"], UTC)
        return judged(Forge.ANY, headers, body, secret, at) is (vector.get("expect") != "reject")
    body = body_of(vector, folder)
    if body is None:
        return None
    header = vector.get("header", "sha256=" + mac(secret, body))
    match vector["scheme"].split()[0]:
        case "X-Gitea-Signature":
            return judged(Forge.GITEA, [("X-Gitea-Signature", header)], body, secret, NOW)
        case "X-Hub-Signature":
            assert hmac.new(secret.encode(), body, hashlib.sha1).hexdigest() == header.removeprefix("sha1=")
            return not judged(Forge.GITHUB, [("X-Hub-Signature", header)], body, secret, NOW)
    return judged(Forge.GITHUB, [("X-Hub-Signature-256", header)], body, secret, NOW)


def body_of(vector: dict[str, Any], folder: Path) -> bytes | None:
    if "body" in vector:
        return str(vector["body"]).encode()
    named = vector["body_file"]
    beside = folder / named
    copies = {
        "drone/go-scm scm/driver/github/testdata/webhooks/push.json": "go-scm-github-push.json",
        "drone/go-scm scm/driver/gitea/testdata/webhooks/pull_request_edited.json": (
            "go-scm-gitea-pull_request_edited.json"
        ),
    }
    file = folder / "data" / copies[named] if named in copies else beside
    return file.read_bytes() if file.is_file() else None


def judged(forge: Forge, headers: Headers, body: bytes, secret: str, at: datetime) -> bool:
    try:
        verify(forge, headers, body, secret, at)
    except GitstoreError:
        return False
    return True
