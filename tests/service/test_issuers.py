"""Tokens of users: which are accepted, and that no forged, damaged or strange one is."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gitstore.errors import GitstoreError, UnavailableError
from service import jwks
from service.errors import HttpCode
from service.issuers import LONGEST, Issuers, User, Verifier
from service.jwks import FRESH_SECONDS, KEPT_SECONDS, RETRY_SECONDS, KeySet, fetcher, keys_in
from tests.service.users import ISSUER, SECRET, as_part, base64url, claims, hs256, jwk, signed_with

ADA = UUID("8d1c1bd0-6e3f-4b39-9a4c-6d6a7c5b1f00")
KEYS_ISSUER = "https://keys.example"
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
SMALL_RSA_KEY = rsa.generate_private_key(65537, 1024)  # noqa: S505
OTHER_CURVES = [ec.generate_private_key(curve()) for curve in (ec.SECP384R1, ec.SECP256K1)]


class Keys:
    """A server of a set of keys, whose answer a test changes."""

    def __init__(self) -> None:
        self.set: object = {"keys": [jwk(EC_KEY.public_key(), "ec"), jwk(RSA_KEY.public_key(), "rsa")]}
        self.status = 200
        self.requests = 0
        self.open = threading.Event()
        self.open.set()
        keys = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.requests += 1
                keys.open.wait(10)
                body = keys.set if isinstance(keys.set, bytes) else json.dumps(keys.set).encode()
                self.send_response(keys.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def served() -> Iterator[Keys]:
    keys = Keys()
    yield keys
    keys.close()


@pytest.fixture(scope="module")
def verifier(served: Keys) -> Verifier:
    listed = [
        {"issuer": ISSUER, "secret": SECRET},
        {"issuer": KEYS_ISSUER, "jwks_url": served.url, "audience": "flows"},
    ]
    return Verifier(Issuers.parse(json.dumps(listed)))


def of_keys(subject: object = "auth0|ada", **changed: Any) -> dict[str, Any]:
    return claims(str(subject), iss=KEYS_ISSUER, aud=["other", "flows"], **changed)


def refused(verifier: Verifier, token: str) -> str:
    with pytest.raises(GitstoreError) as caught:
        verifier.user(token)
    assert caught.value.code is HttpCode.UNAUTHENTICATED, caught.value
    return caught.value.message


def test_a_user_is_the_subject_of_the_first_issuer_and_a_stable_uuid_of_any_other(
    verifier: Verifier,
) -> None:
    user = verifier.user(hs256(claims(ADA)))
    assert (user.id, user.issuer, user.subject, user.role) == (ADA, ISSUER, str(ADA), "authenticated")
    assert (user.person.name, user.person.email) == ("Ada Lovelace", "ada@example.com")
    assert user.claims == {"sub": str(ADA), "role": "authenticated", "iss": ISSUER}
    assert User.parse(str(user)) == user
    by_ec = verifier.user(signed_with(EC_KEY, of_keys(), kid="ec"))
    by_rsa = verifier.user(signed_with(RSA_KEY, of_keys(), kid="rsa"))
    without_kid = verifier.user(signed_with(RSA_KEY, of_keys()))
    assert by_ec.id == uuid5(uuid5(NAMESPACE_URL, KEYS_ISSUER), "auth0|ada")
    assert by_ec.id == by_rsa.id == without_kid.id != verifier.user(signed_with(EC_KEY, of_keys(ADA))).id
    # Another issuer cannot name a user of the first one.
    assert verifier.user(signed_with(EC_KEY, of_keys(ADA))).id != ADA
    refused(verifier, hs256(claims("auth0|ada")))


def test_clocks_may_differ_by_thirty_seconds(verifier: Verifier) -> None:
    now = time.time()
    for changed in ({"exp": now - 25}, {"nbf": now + 25}, {"iat": now + 25.5}, {"exp": int(now) + 10**9}):
        assert verifier.user(hs256(claims(ADA, **changed))).id == ADA
    for changed in ({"exp": now - 35}, {"nbf": now + 35}, {"iat": now + 40}, {"exp": 0}):
        refused(verifier, hs256(claims(ADA, **changed)))


def test_supabases_keys_for_programs_are_no_users(verifier: Verifier) -> None:
    for role in ("anon", "service_role"):
        for payload in (
            {"role": role, "iss": "supabase", "iat": 1, "exp": 9999999999},
            claims(ADA, role=role),
        ):
            refused(verifier, hs256(payload))
        refused(verifier, hs256(claims(ADA, role=role, sub=None)))


WRONG_CLAIMS: dict[str, list[Any]] = {
    "exp": [None, "9999999999", True, [9999999999], {}, -1, 1e300, 10**400],
    "aud": [None, "Authenticated", "authenticated ", [], ["x"], 7, {"authenticated": 1}, [["authenticated"]]],
    "iss": [None, f"{ISSUER}/", ISSUER.upper(), [ISSUER], 7, KEYS_ISSUER, ""],
    "sub": [None, "", 7, [str(ADA)], f"{ADA}\n", f" {ADA}", "x" * 300, "\0", ADA.hex],
    "role": [[], 7, "", "x" * 64, "a\nb", {"a": 1}],
    "nbf": ["0"],
    "iat": [True, []],
}


@pytest.mark.parametrize("name", WRONG_CLAIMS)
def test_claims_of_a_wrong_value_or_type_are_refused(verifier: Verifier, name: str) -> None:
    for value in WRONG_CLAIMS[name]:
        refused(verifier, hs256(claims(ADA, **{name: value})))


def forged() -> dict[str, str]:
    """Tokens that no one who holds the keys would have made, each by an attack or a defect of its own."""
    good, valid = claims(ADA), hs256(claims(ADA))
    head, payload, signature = valid.split(".")
    by_keys = of_keys()
    es = signed_with(EC_KEY, by_keys, kid="ec")
    es_text, es_signature = es.rsplit(".", 1)
    pem = EC_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    rsa_pem = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    rsa_der = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    der = EC_KEY.sign(es_text.encode(), ec.ECDSA(SHA256()))
    zeros = base64.urlsafe_b64decode(f"{es_signature}==") + bytes(2)
    text = json.dumps(good)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

    def with_signature(r: int, s: int) -> str:
        return f"{es_text}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    tokens = {
        "unsigned": f"{as_part({'alg': 'none'})}.{payload}.",
        "none with a signature": f"{as_part({'alg': 'none'})}.{payload}.{signature}",
        "nOnE": f"{as_part({'alg': 'nOnE'})}.{payload}.{signature}",
        "no signature": f"{head}.{payload}.",
        "two parts": f"{head}.{payload}",
        "four parts": f"{valid}.{signature}",
        "five parts": f"{valid}..",
        "another secret": hs256(good, secret="x" * 40),
        "empty secret": hs256(good, secret=""),
        "HS256 with the EC public key": hs256(by_keys, secret=pem),
        "HS256 with the RSA public key": hs256(by_keys, secret=rsa_pem),
        "HS256 with the RSA public key, stripped": hs256(by_keys, secret=rsa_pem.strip()),
        "HS256 with the RSA public key in DER": hs256(by_keys, secret=rsa_der),
        "HS256 with the set of keys": hs256(by_keys, secret=json.dumps(jwk(RSA_KEY.public_key(), "rsa"))),
        "HS256 of the other issuer": hs256(by_keys),
        "HS512 named": hs256(good, header={"alg": "HS512"}),
        "hs256 named": hs256(good, header={"alg": "hs256"}),
        "RS256 named, HMAC": hs256(good, header={"alg": "RS256"}),
        "PS256 named": signed_with(RSA_KEY, by_keys, alg="PS256", kid="rsa"),
        "RS512 named": signed_with(RSA_KEY, by_keys, alg="RS512", kid="rsa"),
        "ES384 named": signed_with(EC_KEY, by_keys, alg="ES384", kid="ec"),
        "RS256 by the key for ES256": signed_with(RSA_KEY, by_keys, kid="ec"),
        "key of another issuer": signed_with(EC_KEY, good, kid="ec"),
        "unknown kid": signed_with(EC_KEY, by_keys, kid="other"),
        "kid is a path": signed_with(EC_KEY, by_keys, kid="../../../../dev/null"),
        "kid is SQL": signed_with(EC_KEY, by_keys, kid="ec' or '1'='1"),
        "kid is a URL": signed_with(EC_KEY, by_keys, kid="https://evil.example/keys"),
        "kid is no text": signed_with(EC_KEY, by_keys, kid=["ec"]),
        "kid is empty": signed_with(EC_KEY, by_keys, kid=""),
        "kid is long": signed_with(EC_KEY, by_keys, kid="e" * 1000),
        "kid with NUL": signed_with(EC_KEY, by_keys, kid="ec\0"),
        "crit": hs256(good, header={"alg": "HS256", "crit": ["exp"], "exp": 1}),
        "crit of nothing": hs256(good, header={"alg": "HS256", "crit": []}),
        "b64": hs256(good, header={"alg": "HS256", "b64": False, "crit": ["b64"]}),
        "b64 alone": hs256(good, header={"alg": "HS256", "b64": True}),
        "alg is a list": hs256(good, header={"alg": ["HS256"]}),
        "alg is missing": hs256(good, header={"typ": "JWT"}),
        "alg twice": hs256(good, header='{"alg":"none","alg":"HS256"}'),
        "header is a list": hs256(good, header='["HS256"]'),
        "header is deep": hs256(good, header="[" * 3000),
        "header is no UTF-8": hs256(good, header=b'{"alg":"HS256","x":"\xff"}'),
        "header in UTF-16": hs256(good, header='{"alg":"HS256"}'.encode("utf-16")),
        "claim twice": hs256(text[:-1] + f', "sub": "{uuid4()}"}}'),
        "exp is NaN": hs256(text[:-1].replace('"exp"', '"x"') + ', "exp": NaN}'),
        "exp is Infinity": hs256(text[:-1].replace('"exp"', '"x"') + ', "exp": Infinity}'),
        "exp is 1e999": hs256(text[:-1].replace('"exp"', '"x"') + ', "exp": 1e999}'),
        "exp has 5000 digits": hs256(text[:-1].replace('"exp"', '"x"') + f', "exp": {"9" * 5000}}}'),
        "claims are deep": hs256(text[:-1] + ', "x": ' + "[" * 2500 + "]" * 2500 + "}"),
        "claims are a list": hs256([good]),
        "claims are text": hs256('"claims"'),
        "claims are empty": f"{head}..{signature}",
        "claims are a token": hs256(valid),
        "claims end early": hs256(text[:-1]),
        "bytes after the claims": hs256(text + " x"),
        "NUL after the claims": hs256(text.encode() + b"\0"),
        "padding": f"{valid}=",
        "padding within": f"{head}=.{payload}.{signature}",
        "newline at the end": f"{valid}\n",
        "newline within": f"{head}.\n{payload}.{signature}",
        "blank within": f"{head} .{payload}.{signature}",
        "standard alphabet": es.replace("_", "/").replace("-", "+") if set("-_") & set(es) else f"{es}+",
        "non-canonical last character": valid[:-1] + chr(ord(valid[-1]) + 1),
        "percent-encoded": valid.replace(".", "%2E"),
        "signature cut": valid[:-8],
        "signature longer": f"{valid}AAAA",
        "claims of another": f"{head}.{as_part(claims(uuid4()))}.{signature}",
        "zero signature": with_signature(0, 0),
        "zero r": with_signature(0, 1),
        "r and s are the order": with_signature(order, order),
        "short ES256 signature": f"{es_text}.{base64url(bytes(8))}",
        "ES256 signature in DER": f"{es_text}.{base64url(der)}",
        "ES256 signature with zeros": f"{es_text}.{base64url(zeros)}",
        "too long": hs256({**good, "x": "y" * LONGEST}),
        "a megabyte": f"ey{'A' * 2**20}.{'A' * 2**20}.{'A' * 2**20}",
        "only dots": "ey..",
        "not ASCII": f"{valid[:-1]}\N{KELVIN SIGN}",
        "full-width": valid[:-1] + "\N{FULLWIDTH LATIN CAPITAL LETTER A}",
        **{f"curve {key.curve.name}": signed_with(key, by_keys, kid="ec") for key in OTHER_CURVES},
    }  # fmt: skip
    own = {"jwk": jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), "own")}
    for name, key in (("jku", "https://evil.example/keys"), ("x5u", "https://evil.example/c"), ("jwk", own)):
        stranger = ec.generate_private_key(ec.SECP256R1())
        value = jwk(stranger.public_key(), "ec") if name == "jwk" else key
        tokens[f"own key by {name}"] = signed_with(stranger, by_keys, kid="ec", **{name: value})
    return tokens


FORGED = forged()


@pytest.mark.parametrize("name", FORGED)
def test_no_forged_token_is_accepted(verifier: Verifier, name: str) -> None:
    started = time.perf_counter()
    refused(verifier, FORGED[name])
    assert time.perf_counter() - started < 4  # an unknown kid may wait for a fetch


def test_what_users_say_about_themselves_is_cleaned(verifier: Verifier) -> None:
    """It goes into commits, lines of logs and pages."""
    metadata = {"full_name": "Eve\n<x@y>\0\ud800\u202e \t Adams" + "!" * 5000}
    person = verifier.user(hs256(claims(ADA, user_metadata=metadata, email="a<b>\r\n@example.com"))).person
    assert person.name.startswith("Evex@y Adams!!")
    assert (len(person.name), person.email) == (100, "ab@example.com")
    nothing: list[object] = [7, [], {"full_name": ["x"]}, "", None]
    for strange in nothing:
        assert verifier.user(hs256(claims(ADA, user_metadata=strange, email=strange))).person.name == ""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[Keys]:
    keys = Keys()
    yield keys
    keys.close()


def settled(keys: KeySet) -> None:
    """Wait until no fetch is running."""
    deadline = time.monotonic() + 5
    while keys._fetching:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_keys_are_fetched_once_and_again_for_an_unknown_one_but_not_at_the_rate_of_requests(
    server: Keys,
) -> None:
    clock = Clock()
    keys = KeySet("issuer", fetcher(server.url), clock=clock)
    assert [key.kid for key in keys.keys("ES256", "ec")] == ["ec"]
    assert [key.kid for key in keys.keys("RS256", None)] == ["rsa"]
    assert keys.keys("ES256", "rsa") == []
    assert server.requests == 1
    new = ec.generate_private_key(ec.SECP256R1())
    server.set = {"keys": [jwk(new.public_key(), "new")]}
    for _ in range(20):
        assert keys.keys("ES256", "new") == []
    clock.now += RETRY_SECONDS
    assert [key.kid for key in keys.keys("ES256", "new")] == ["new"]
    assert keys.keys("ES256", "ec") == []  # the issuer has removed it
    assert server.requests == 2


def test_removed_keys_are_forgotten_without_an_unknown_one(server: Keys) -> None:
    """An old set is used once more, while it is fetched again in the background."""
    clock = Clock()
    keys = KeySet("issuer", fetcher(server.url), clock=clock)
    assert keys.keys("RS256", "rsa")
    server.set = {"keys": [jwk(EC_KEY.public_key(), "ec")]}
    clock.now += FRESH_SECONDS + 1
    server.open.clear()
    assert keys.keys("RS256", "rsa")
    server.open.set()
    settled(keys)
    assert keys.keys("RS256", "rsa") == []


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, {"keys": []}),
        (302, {"keys": []}),
        (200, {"keys": []}),
        (200, {"keys": {}}),
        (200, []),
        (200, b""),
        (200, b"[" * 100_000),
        (200, b" " * 300_000 + b"{}"),
        (200, {"keys": [7, None, {}, {"kty": "oct", "k": "c2VjcmV0", "kid": "ec"}]}),
        (200, {"keys": [{"kty": ["EC"], "crv": {}}, {"kty": "EC", "crv": "P-256", "x": 1, "y": None}]}),
        (200, {"keys": [jwk(EC_KEY.public_key(), "ec", use="enc")]}),
        (200, {"keys": [jwk(EC_KEY.public_key(), "ec", alg="ES384")]}),
        (200, {"keys": [jwk(OTHER_CURVES[0].public_key(), "ec"), jwk(OTHER_CURVES[1].public_key(), "ec")]}),
        (200, {"keys": [jwk(SMALL_RSA_KEY.public_key(), "rsa")]}),
    ],
)  # fmt: skip
def test_keys_are_kept_for_a_day_while_the_set_cannot_be_fetched(
    server: Keys, status: int, answer: object
) -> None:
    clock = Clock()
    keys = KeySet("issuer", fetcher(server.url), clock=clock)
    assert keys.keys("ES256", "ec")
    server.status, server.set = status, answer
    for passed in (FRESH_SECONDS + 1, KEPT_SECONDS - FRESH_SECONDS - 2):
        clock.now += passed
        assert keys.keys("ES256", "ec")
        settled(keys)
    clock.now += 100
    with pytest.raises(UnavailableError, match="the keys of issuer can't be fetched"):
        keys.keys("ES256", "ec")
    requests = server.requests
    with pytest.raises(UnavailableError):
        keys.keys("ES256", "ec")
    assert server.requests == requests


def test_a_server_that_does_not_answer_holds_up_few_requests_and_briefly(server: Keys) -> None:
    server.open.clear()
    keys = KeySet("issuer", fetcher(server.url), most_waiting=1)
    waited: list[float] = []

    def ask() -> None:
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            keys.keys("ES256", "ec")
        waited.append(time.monotonic() - started)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    *at_once, last = sorted(waited)
    assert max(at_once) < 1
    assert last < jwks.FETCH_SECONDS + 1


def test_keys_are_fetched_once_threads_can_start_again(server: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    keys = KeySet("issuer", fetcher(server.url), clock=lambda: now[0])

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(UnavailableError, match="no thread"):
            keys.keys("ES256", "ec")
    now[0] += RETRY_SECONDS
    assert keys.keys("ES256", "ec")


@pytest.mark.parametrize(
    "listed",
    [
        "", "{}", "[]", "[7]", '"x"', "null", "[" * 5000,
        '[{"issuer": "a"}]',
        '[{"issuer": "", "secret": "a-secret-of-the-host-that-is-long-enough"}]',
        '[{"issuer": "a", "secret": "a-secret-of-the-host-that-is-long-enough", "algorithms": ["none"]}]',
        '[{"issuer": "a", "secret": "short"}]',
        '[{"issuer": "a", "jwks_url": "file:///etc/passwd"}]',
        '[{"issuer": "a", "jwks_url": "https://"}]',
        '[{"issuer": "a", "jwks_url": "https://user:pass@host/keys"}]',
        '[{"issuer": "a", "jwks_url": "https://h/1"}, {"issuer": "a", "jwks_url": "https://h/2"}]',
    ],
)  # fmt: skip
def test_an_issuer_without_a_usable_key_is_no_setting(listed: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Issuers.parse(listed)


def test_the_setting_can_be_passed_on_as_text() -> None:
    text = json.dumps([{"issuer": ISSUER, "secret": SECRET}, {"issuer": "b", "jwks_url": "http://[::1]:1/k"}])
    assert Issuers.parse(str(Issuers.parse(text))) == Issuers.parse(text)
    assert len(keys_in(json.dumps({"keys": [jwk(EC_KEY.public_key(), None)]}).encode())) == 1
