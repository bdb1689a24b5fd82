"""Invalid and oversized bodies: refused with the place and the reason, and nothing is saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.service.api.conftest import Client, House, problem, yaml

DRAFT = "/workflows/order-sync/versions/draft"
VERSIONS = "/workflows/order-sync/versions"


@pytest.fixture
def published(owner: Client) -> Client:
    """order-sync with v1 published and no draft open."""
    owner.create()
    assert owner.publish().status_code == 201
    return owner


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code", "kind"),
    [
        (b"nodes: [", "application/yaml", 422, "definition_unparsable", "syntax"),
        (b"[" * 60_000, "application/yaml", 422, "definition_unparsable", "too_deep"),
        (b"a: 1\na: 2\n", "application/yaml", 422, "definition_unparsable", None),
        (b"a: \xff\n", "application/yaml", 422, "definition_unparsable", "not_utf8"),
        (b"a: b\0c\n", "application/yaml", 422, "definition_unparsable", "character_not_allowed"),
        (b"- a\n", "application/yaml", 422, "definition_unparsable", "not_a_mapping"),
        (b'{"nodes": [', "application/json", 422, "definition_unparsable", "syntax"),
        (b'{"nodes": NaN}', "application/json", 422, "definition_unparsable", "syntax"),
        (b'{"nodes": "\xff"}', "application/json", 422, "definition_unparsable", "not_utf8"),
        (b"[" * 60_000, "application/json", 422, "definition_unparsable", "too_deep"),
        (b'{"nodes": [], "nodes": []}', "application/json", 422, "definition_unparsable", None),
        (b'{"nodes": "\\ud800"}', "application/json", 422, "definition_unparsable", "character_not_allowed"),
        (b'{"name": "\\u0000"}', "application/json", 422, "definition_unparsable", "character_not_allowed"),
        (b'{"nodes": 1e999}', "application/json", 422, "definition_unparsable", None),
        (b'{"nodes": %s}' % (b"9" * 5000), "application/json", 422, "definition_unparsable", None),
        (b"[]", "application/json", 400, "malformed", None),
        (b"null", "application/json", 400, "malformed", None),
        (b'"nodes: []"', "application/json", 400, "malformed", None),
        (b"5", "application/json", 400, "malformed", None),
        (b"nodes: []", "text/plain", 415, "unsupported_media_type", None),
        (b"nodes: []", "", 415, "unsupported_media_type", None),
        (b"definition=a", "application/x-www-form-urlencoded", 415, "unsupported_media_type", None),
        (b"{}", "application/problem+json", 415, "unsupported_media_type", None),
    ],
)  # fmt: skip
def test_an_invalid_body_is_refused(
    published: Client, body: bytes, media_type: str, status: int, code: str, kind: str | None
) -> None:
    """A body that cannot be read is unparsable in every format; JSON that is no object is malformed."""
    refused = problem(published.post(VERSIONS, data=body, type=media_type), status, code)
    if kind is not None:
        assert refused["problems"][0]["code"] == kind
        assert refused["problems"][0]["line"] is not None
    problem(published.get(DRAFT), 404, "version_not_found")


def text(value: dict[str, Any]) -> str:
    return json.dumps(value)


def nested(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


DEEPEST, MOST_NODES = 64, 50_000
TOO_MUCH = {
    "too_deep": ({"nodes": [], "a": nested(DEEPEST)}, "more than 64 levels deep"),
    "too_many_nodes": ({"nodes": [], "a": [0] * MOST_NODES}, "more than 50,000 nodes"),
    "far too many nodes": ({"nodes": [], "a": [0] * (2 * MOST_NODES)}, "more than 50,000 nodes"),
    "too_large": ({"nodes": [], "a": ["a" * 1000] * 1100}, "the limit is 1,048,576"),
}
DOORS: dict[str, Callable[[Client, dict[str, Any]], TestResponse]] = {
    "create": lambda by, value: by.post("/workflows", json={"slug": "a", "definition": value}),
    "create, as text": lambda by, value: by.post("/workflows", json={"slug": "a", "definition": text(value)}),
    "open a draft": lambda by, value: by.post(VERSIONS, json={"definition": value}),
    "open a draft, as text": lambda by, value: by.post(VERSIONS, json={"definition": text(value)}),
    "open a draft with a file": lambda by, value: by.post(VERSIONS, json=value),
    "open a draft with YAML": lambda by, value: by.post(VERSIONS, data=text(value), type="application/yaml"),
    "MeshHook's editor": lambda by, value: by.post("/api/workflows", json={"name": "a", "nodes": [value]}),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_a_limit_has_one_status_and_one_wording_through_all_doors(published: Client, kind: str) -> None:
    """It names the limit of a definition, without the envelope of a body."""
    value, words = TOO_MUCH[kind]
    status, code = (413, "too_large") if kind == "too_large" else (422, "definition_unparsable")
    for door, send in DOORS.items():
        refused = problem(send(published, value), status, code)
        assert words in refused["detail"], (door, refused["detail"])
    for body in ({"definition": value}, value):
        answer = published.post("/workflows/order-sync/validate", json=body)
        if kind == "too_large":
            problem(answer, status, code)
        else:
            assert (answer.status_code, answer.json["valid"]) == (200, False)
            assert words in answer.json["problems"][0]["message"]


def test_an_alias_bomb_is_refused(published: Client) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    body = "\n".join(lines).encode()
    problem(published.post(VERSIONS, data=body, type="application/yaml"), 422, "definition_unparsable")


def test_an_oversized_body_is_refused_before_it_is_read(published: Client, house: House) -> None:
    most = house.config.limits.definition
    refused = problem(
        published.post(VERSIONS, data=b"#" * (most + 1), type="application/yaml"), 413, "too_large"
    )
    assert refused["limit"] == most
    text = {"definition": "#" * (most + 1)}
    assert problem(published.post(VERSIONS, json=text), 413, "too_large")["limit"] == most
    huge = b'{"nodes": []' + b" " * (2 * most + 70_000) + b"}"
    problem(published.post(VERSIONS, data=huge, type="application/json"), 413, "too_large")
    long = b'{"nodes": []' + b" " * most + b"}"
    problem(published.post(VERSIONS, data=long, type="application/json"), 413, "too_large")


def test_a_definition_of_the_size_of_the_limit_is_accepted(published: Client, house: House) -> None:
    most = house.config.limits.definition
    body = yaml() + b"#" * (most - len(yaml()))
    assert published.post(VERSIONS, data=body, type="application/yaml").status_code == 201
    assert published.get(f"{DRAFT}/definition").data == body


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity", "x"])
def test_an_encoded_body_is_refused(published: Client, encoding: str) -> None:
    headers = {"Content-Encoding": encoding}
    refused = published.post(VERSIONS, data=b"x", type="application/yaml", headers=headers)
    problem(refused, 415, "unsupported_media_type")
