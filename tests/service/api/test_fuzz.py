"""Arbitrary requests: never a 5xx, and errors are problem+json of a declared status (or a page)."""

from __future__ import annotations

import json
import string
from base64 import b64encode
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.test import TestResponse, create_environ, run_wsgi_app
from werkzeug.wrappers import Request

from service.ui import is_page
from tests.service.api.conftest import Client, definition, yaml

REFUSALS = {400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 428}

# Bytes of a path, percent-encoded: every one of them, and often what our own paths are made of.
_OURS = "workflows a versions draft publish 1 v2 current latest definition revert validate tokens ui hooks"
_ODD = "docs default.git info refs .. . %00 %ff %2f %2e%2e %0d%0a %ED%A0%80 %F0%9F%98%80 9999999999999"
_WORDS = ["", *_OURS.split(), *_ODD.split()]
segments = st.one_of(
    st.sampled_from(_WORDS), st.binary(max_size=8).map(lambda raw: "".join(f"%{byte:02x}" for byte in raw))
)
paths = st.lists(segments, max_size=6).map(lambda parts: "/" + "/".join(parts))
printable = string.ascii_letters + string.digits + string.punctuation + " \t"
values = st.one_of(
    st.text(printable, max_size=60), st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)
)
queries = st.lists(
    st.tuples(
        st.sampled_from(["limit", "cursor", "state", "q", "project", "x", "from", "to"]),
        st.one_of(
            st.sampled_from(
                ["1", "0", "-1", "100", "101", "1e3", "٣", "", "%00", "%ff", "draft", "default", "NaN"]
            ),
            st.binary(max_size=6).map(lambda raw: "".join(f"%{byte:02x}" for byte in raw)),
            st.integers().map(str),
        ),
    ),
    max_size=4,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))
headers = st.dictionaries(
    st.sampled_from(
        ["Accept", "Accept-Encoding", "Content-Type", "Content-Encoding", "Content-Length", "Cookie", "Date",
         "Expect", "Forwarded", "Host", "If-Match", "If-None-Match", "If-Modified-Since", "Range", "Origin",
         "Transfer-Encoding", "X-Forwarded-Host", "X-HTTP-Method-Override", "X-Request-Id"]
    ),
    values,
    max_size=4,
)  # fmt: skip
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"])

# What no JSON library lets through and what all of them do.
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.text("\0\ud800\n<>é", max_size=5),
)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["nodes", "edges", "id", "type", "data", "config", "url", "a"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
envelopes = st.dictionaries(
    st.sampled_from(
        ["definition", "from_version", "message", "author", "base_version", "slug", "name", "description",
         "version", "hold", "activate", "role", "expires_at", "nodes", "edges", "email"]
    ),
    documents | st.fixed_dictionaries({"name": scalars, "email": scalars}) | st.just(definition()),
    max_size=5,
)  # fmt: skip
bodies = st.one_of(
    st.binary(max_size=200),
    documents.map(lambda value: json.dumps(value).encode()),
    envelopes.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [b"[" * 70_000, b'{"a":' * 20_000, yaml(), b"&a [*a]", b"a: &a [*a]", b"%TAG ! !\n--- a", b"\xfe\xff"]
    ),
)
types = st.sampled_from(
    ["application/json", "application/yaml", "text/yaml", "application/json; charset=utf-16",
     "application/json;", "text/plain", "multipart/form-data", "multipart/form-data; boundary=x",
     "application/x-www-form-urlencoded", ""]
)  # fmt: skip
basic = st.binary(max_size=60).map(lambda raw: "Basic " + b64encode(raw).decode())
writes = st.sampled_from(
    [
        ("POST", "/workflows"),
        ("POST", "/workflows/a/versions"),
        ("PUT", "/workflows/a/versions/draft"),
        ("POST", "/workflows/a/versions/publish"),
        ("POST", "/workflows/a/versions/1/revert"),
        ("POST", "/workflows/a/validate"),
        ("PUT", "/workflows/a/current"),
        ("POST", "/tokens"),
    ]
)


@pytest.fixture
def there(owner: Client) -> Client:
    """The workflow `a`, with a version and an open draft."""
    owner.create("a")
    owner.publish("a")
    owner.post("/workflows/a/versions", json={"definition": definition("https://2.example/")})
    return owner


def sent(client: Client, method: str, path: str, query: str, headers: dict[str, str]) -> Any:
    """The WSGI environment for a request line and headers, without the normalization of a test client."""
    environ = create_environ(method=method, headers={"Authorization": f"Bearer {client.token}"})
    environ |= {
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.encode().decode("latin-1"),
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return TestResponse(*run_wsgi_app(client.app, environ, buffered=True), request=Request(environ))


def check(response: Any) -> None:
    """No 5xx, and every error has gitstore's form."""
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert response.status_code in REFUSALS, response.text
        if is_page(response.request.path):
            assert response.content_type == "text/html; charset=utf-8"
        elif not response.content_type.startswith("text/plain"):  # git's
            assert response.content_type == "application/problem+json"
    assert response.headers["X-Request-Id"]


@given(method=methods, path=paths, query=queries, headers=headers)
@example(method="GET", path="/workflows/a", query="project=%00", headers={"Host": "a b"})
@example(method="GET", path="/workflows", query="limit=" + "9" * 5000, headers={"Host": "["})
@example(method="GET", path="/workflows", query="", headers={"Content-Length": "x"})
@example(method="POST", path="/workflows", query="", headers={"Content-Length": "-1"})
@example(method="POST", path="/workflows", query="", headers={"Content-Length": "5"})
@example(method="POST", path="/workflows", query="", headers={"Content-Length": "9" * 30})
@example(method="POST", path="/workflows", query="", headers={"Transfer-Encoding": "chunked"})
def test_arbitrary_paths_queries_and_headers(
    there: Client, method: str, path: str, query: str, headers: dict[str, str]
) -> None:
    check(sent(there, method, path, query, headers))


@given(write=writes, body=bodies, media_type=types, match=st.none() | st.just("*") | values)
def test_arbitrary_bodies(
    there: Client, write: tuple[str, str], body: bytes, media_type: str, match: str | None
) -> None:
    method, path = write
    check(there(method, path, data=body, type=media_type, match=match))


@given(authorization=values | basic)
def test_arbitrary_credentials(there: Client, authorization: str) -> None:
    stranger = Client(there.app, "")
    for path in ("/workflows", "/default.git/info/refs?service=git-upload-pack"):
        assert stranger.get(path, headers={"Authorization": authorization}).status_code == 401


@given(accept=values, none_match=values)
def test_arbitrary_accept_and_conditional_headers(there: Client, accept: str, none_match: str) -> None:
    path = "/workflows/a/versions/1/definition"
    response = there.get(path, headers={"Accept": accept, "If-None-Match": none_match})
    assert response.status_code in (200, 304)
