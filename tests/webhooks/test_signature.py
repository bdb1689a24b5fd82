"""Signatures of deliveries: genuine ones of every forge are accepted, and all others are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from gitstore.errors import Code, GitstoreError
from tests.conftest import examples
from webhooks.forges import Forge, Headers, verify
from webhooks.secrets import is_secret, new_secret, sign

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BODY = '{"ref": "refs/tags/a/v1", "name": "Ä"}'.encode()
PLAIN = "It's a Secret to Everybody"
HELLO_MAC = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def mac(secret: str = PLAIN, body: bytes = BODY) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def standard(secret: str = STANDARD, at: datetime = NOW, changed: Mapping[str, str] | None = None) -> Headers:
    return list({**sign([secret], "msg_1", at, BODY), **(changed or {})}.items())


Case = tuple[Forge, str, Headers]
"""A forge, the secret of a source, and the headers of a delivery."""


def github(value: str) -> Case:
    return Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", value)]


def gitea(value: str) -> Case:
    return Forge.GITEA, PLAIN, [("X-Gitea-Signature", value)]


def forgejo(value: str) -> Case:
    return Forge.FORGEJO, PLAIN, [("X-Forgejo-Signature", mac()), ("X-Gitea-Signature", value)]


def gitlab(token: str, secret: str = PLAIN) -> Case:
    return Forge.GITLAB, secret, [("X-Gitlab-Token", token)]


def basic(value: str, forge: Forge = Forge.BASIC) -> Case:
    return forge, PLAIN, [("Authorization", value)]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def header(value: str) -> Case:
    return Forge.HEADER, PLAIN, [("X-Gitstore-Token", value)]


def changed(**headers: str) -> Case:
    """Return a delivery per Standard Webhooks, with these headers after the signature."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Forge.ANY, STANDARD, standard(changed=named)


SIGNATURE = dict(standard())["webhook-signature"]
GENUINE: dict[str, Case] = {
    "github": github("sha256=" + mac()),
    "github, beside SHA-1": (
        Forge.GITHUB,
        PLAIN,
        [("X-Hub-Signature", "sha1=" + "0" * 40), ("X-Hub-Signature-256", "sha256=" + mac())],
    ),
    "gitea": gitea(mac()),
    "forgejo": forgejo(mac()),
    "forgejo, older": (Forge.FORGEJO, PLAIN, [("X-Gitea-Signature", mac())]),
    "bitbucket": (Forge.BITBUCKET, PLAIN, [("X-Hub-Signature", "sha256=" + mac())]),
    "gitlab": gitlab(PLAIN),
    "gitlab, newer": (Forge.GITLAB, STANDARD, standard()),
    "gitlab, any token": gitlab(STANDARD, STANDARD),
    "azure": basic("Basic " + encoded(f"gitstore:{PLAIN}"), Forge.AZURE),
    "basic, without a user": basic("basic  " + encoded(f":{PLAIN}")),
    "basic, any user": basic("BASIC " + encoded(f"\u00e4:{PLAIN}")),
    "header": header(PLAIN),
    "any": changed(),
    "header names in another case": (Forge.GITHUB, PLAIN, [("x-HUB-signature-256", "sha256=" + mac())]),
    "hex in capitals": gitea(mac().upper()),
    "one of several signatures": changed(webhook_signature="v1,AAAA v1a,BBBB " + SIGNATURE),
}
TOKENS = {"X-Gitlab-Token", "X-Gitstore-Token", "Authorization"}
SHA1 = "sha1=" + hmac.new(PLAIN.encode(), BODY, hashlib.sha1).hexdigest()
FORGED: dict[str, Case] = {
    "no signature": (Forge.GITHUB, PLAIN, []),
    "SHA-1 alone": (Forge.GITHUB, PLAIN, [("X-Hub-Signature", SHA1)]),
    "another forge's header": (Forge.GITHUB, PLAIN, [("X-Gitea-Signature", mac())]),
    "no prefix": github(mac()),
    "an unexpected prefix": gitea("sha256=" + mac()),
    "another prefix": github("sha512=" + mac()),
    "too short": github("sha256=" + mac()[:-2]),
    "too long": github("sha256=" + mac() + "00"),
    "not hex": github("sha256=" + "g" * 64),
    "digits outside of ASCII": gitea("\u0663" * 64),
    "sent twice": (Forge.GITHUB, PLAIN, [("X-Hub-Signature-256", "sha256=" + mac())] * 2),
    "two in one header": github(f"sha256={mac()},sha256={mac()}"),
    "one valid and one invalid": forgejo(mac("other")),
    "another secret": github("sha256=" + mac("other")),
    "another body": github("sha256=" + mac(body=b"{}")),
    "an empty signature": github(""),
    "another token": gitlab(PLAIN + "!"),
    "an empty token": gitlab(""),
    "a token that is not Latin-1": gitlab("\u20ac"),
    "a valid token beside an invalid signature": (
        Forge.GITLAB,
        STANDARD,
        [*standard(new_secret()), ("X-Gitlab-Token", STANDARD)],
    ),
    "a hash of the token": gitlab(mac()),
    "another password": basic("Basic " + encoded(f"gitstore:{PLAIN}!")),
    "no password": basic("Basic " + encoded("gitstore:")),
    "the secret as the user": basic("Basic " + encoded(f"{PLAIN}:")),
    "the secret without a colon": basic("Basic " + encoded(PLAIN)),
    "a password that is not base64": basic("Basic ***"),
    "a password that is not ASCII": basic("Basic \u20ac"),
    "a password outside of base64": basic("Basic " + encoded(f"gitstore:{PLAIN}") + "*"),
    "the scheme alone": basic("Basic"),
    "another scheme": basic("Bearer " + PLAIN),
    "a bearer token in base64": basic("Bearer " + encoded(f"gitstore:{PLAIN}")),
    "basic authentication twice": (
        Forge.BASIC,
        PLAIN,
        [("Authorization", "Basic " + encoded(f"gitstore:{PLAIN}"))] * 2,
    ),
    "another secret header": header(PLAIN + "!"),
    "a password for a secret header": (Forge.HEADER, PLAIN, basic("Basic " + encoded(f"a:{PLAIN}"))[2]),
    "too old": (Forge.ANY, STANDARD, standard(at=NOW - timedelta(seconds=301))),
    "too new": (Forge.ANY, STANDARD, standard(at=NOW + timedelta(seconds=301))),
    "another time": changed(webhook_timestamp=str(int(NOW.timestamp()) - 1)),
    "another id": changed(webhook_id="msg_2"),
    "no id": changed(webhook_id=""),
    "another version": changed(webhook_signature=SIGNATURE.replace("v1,", "v2,")),
    "not base64": changed(webhook_signature="v1,***"),
    "no comma": changed(webhook_signature="v1"),
    "a secret in another form": (Forge.ANY, PLAIN, standard()),
    **{
        f"the time {text!r}": changed(webhook_timestamp=text)
        for text in ("", "now", "1e9", "-1", "+1767268800", "01767268800", "1767268800.0", "9" * 30, "nan")
    },
}


def refused(forge: Forge, headers: Headers, body: bytes, *secrets: str) -> str:
    with pytest.raises(GitstoreError) as caught:
        verify(forge, headers, body, secrets, NOW)
    assert caught.value.code is Code.BAD_SIGNATURE
    assert not any(secret in caught.value.message for secret in secrets)
    return caught.value.message


def test_signatures_equal_those_of_openssl() -> None:
    """`openssl dgst -sha256 -hmac` over the same bytes: hexadecimal for forges, base64 in the standard."""
    assert mac() == "9a754a4107b95b3713904f62d7d0ad0bddb337639d0a9a39ae1587438ca05f6b"
    assert dict(standard())["webhook-signature"] == "v1,Koues7ORVXGKBd4W3AK6B++laufH/nAQwhowtiNRYcU="


@pytest.mark.parametrize("case", GENUINE)
def test_a_genuine_signature_is_accepted(case: str) -> None:
    forge, secret, headers = GENUINE[case]
    verify(forge, headers, BODY, (secret,), NOW)


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_signature_is_refused(case: str) -> None:
    """The message does not disclose the secret."""
    forge, secret, headers = FORGED[case]
    refused(forge, headers, BODY, secret)


@pytest.mark.parametrize("case", GENUINE)
def test_either_of_two_secrets_may_sign(case: str) -> None:
    """As while a secret is rotated; a third one may not, and two signatures must be of one secret."""
    forge, secret, headers = GENUINE[case]
    for secrets in ((secret, PLAIN + "2"), (new_secret(), secret), ("x" * 20, secret)):
        verify(forge, headers, BODY, secrets, NOW)
    refused(forge, headers, BODY, new_secret(), PLAIN + "2")
    mixed = forgejo(mac("another one"))[2]
    refused(Forge.FORGEJO, mixed, BODY, PLAIN, "another one")


@pytest.mark.parametrize("case", GENUINE)
def test_a_signed_delivery_to_a_source_without_a_secret_is_refused(case: str) -> None:
    """Its sender believes that it is verified."""
    forge, _, headers = GENUINE[case]
    assert "secret" in refused(forge, headers, BODY)


@pytest.mark.parametrize("forge", Forge)
def test_an_unsigned_delivery_is_refused(forge: Forge) -> None:
    for secret in (PLAIN, STANDARD):
        refused(forge, [("Content-Type", "application/json")], BODY, secret)


@pytest.mark.parametrize("forge", Forge)
def test_an_unsigned_delivery_to_a_source_without_a_secret_is_accepted(forge: Forge) -> None:
    """Other code decides whether a source may lack a secret."""
    verify(forge, [("X-GitHub-Event", "push")], BODY, (), NOW)


@given(data=st.data(), case=st.sampled_from(sorted(GENUINE)))
@examples(300)
def test_a_flipped_bit_is_refused(data: st.DataObject, case: str) -> None:
    """In the body, the signature or the secret. (A token does not cover the body.)"""
    forge, secret, headers = GENUINE[case]
    signed = dict(headers)
    covers = ["signature", "secret"] + ([] if TOKENS & set(signed) else ["body"])
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
    """Return the key that a secret encodes: some bits of its last character have no meaning."""
    if not is_secret(secret):
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
def test_any_headers_are_refused_with_the_same_code(
    headers: list[tuple[str, str]], forge: Forge, secret: str, body: bytes
) -> None:
    refused(forge, headers, body, secret)


def test_the_reference_library_verifies_our_signatures() -> None:
    """With each secret during a rotation, and in any time zone."""
    old, new = new_secret(), new_secret()
    now = datetime.now(UTC).astimezone()
    headers = sign([new, old], "evt-1", now, BODY)
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)
    assert headers["webhook-id"] == "evt-1"
    assert len(headers["webhook-signature"].split()) == 2


def test_a_new_secret_has_the_form_of_the_standard() -> None:
    """32 bytes; the standard asks for 24 to 64."""
    secret = new_secret()
    assert is_secret(secret)
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != new_secret()


@pytest.mark.parametrize(
    ("forge", "headers", "body", "secret", "seconds"),
    [
        pytest.param(
            Forge.GITHUB,
            {"X-Hub-Signature-256": f"sha256={HELLO_MAC}"},
            b"Hello, World!",
            PLAIN,
            0,
            id="docs.github.com",
        ),
        pytest.param(
            Forge.ANY,
            {
                "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
                "webhook-timestamp": "1614265330",
                "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            },
            b'{"test": 2432232314}',
            STANDARD,
            1614265330,
            id="standard-webhooks",
        ),
    ],
)
def test_published_vectors(
    forge: Forge, headers: dict[str, str], body: bytes, secret: str, seconds: int
) -> None:
    verify(forge, headers.items(), body, (secret,), datetime.fromtimestamp(seconds, UTC))
