"""Reads of engines that are answered without Flask: each answer is the one that Flask gives."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import request_started

from tests.service.api.conftest import Client, House, definition, yaml

VERSIONS = "/workflows/order-sync/versions"


@contextmanager
def counted(client: Client) -> Iterator[list[object]]:
    """The requests that Flask answers within the block."""
    seen: list[object] = []

    def note(sender: object, **_: object) -> None:
        seen.append(sender)

    with request_started.connected_to(note, client.app):
        yield seen


def whole(answer: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    """The status, the headers in their order, and the body of an answer."""
    return answer.status_code, list(answer.headers), answer.data


def compared(client: Client, path: str, **headers: str) -> tuple[Any, bool]:
    """The answer, after a comparison with Flask's, and whether it was given without Flask.

    A query is enough for the request to take the long way.
    """
    headers["X-Request-Id"] = "compared"
    with counted(client) as seen:
        found = client.get(path, headers=headers)
        short = not seen
    assert whole(found) == whole(client.get(f"{path}?project=default", headers=headers))
    return found, short


@pytest.fixture
def viewer(house: House, owner: Client) -> Client:
    """A viewer of a project with a version in YAML, and one in JSON with a byte order mark."""
    owner.create()
    owner.put(f"{VERSIONS}/draft", match="*", data=yaml(), type="application/yaml")
    owner.publish(message="The first, caf\u00e9")
    body = codecs.BOM_UTF8 + json.dumps(definition("https://2.example/"), indent=3).encode()
    owner.post(VERSIONS, json={"from_version": 1})
    sent = "application/vnd.gitstore.definition+json"
    assert owner.put(f"{VERSIONS}/draft", match="*", data=body, type=sent).status_code == 200
    assert owner.publish().status_code == 201
    return house.client("viewer")


@pytest.mark.parametrize("suffix", ["", "/definition"])
def test_versions_are_answered_without_flask_as_flask_answers_them(viewer: Client, suffix: str) -> None:
    identity = viewer.get("/workflows/order-sync").json["id"]
    for version in ("1", "2", "current"):
        path = f"/workflows/{identity if version == '2' else 'order-sync'}/versions/{version}{suffix}"
        found, short = compared(viewer, path)
        assert (found.status_code, short) == (200, True)
        tag = found.headers["ETag"]
        for known in (tag, f'W/{tag}, "x"', "*", '"x"', "W/,"):
            again, short = compared(viewer, path, **{"If-None-Match": known})
            assert again.status_code == (304 if tag in known or known == "*" else 200)
            assert short
        found, _ = compared(viewer, path, Accept="application/json")
        assert found.status_code == 200


@pytest.mark.parametrize("suffix", ["", "/definition"])
def test_a_yanked_version_is_answered_without_flask_as_flask_answers_it(
    viewer: Client, owner: Client, suffix: str
) -> None:
    """With the header Deprecation, also where the client has the version already."""
    owner.patch(f"{VERSIONS}/1", json={"title": "Spring", "notes": "caf\u00e9"})
    owner.post(f"{VERSIONS}/1/yank", json={"reason": "It loses orders"})
    found, short = compared(viewer, f"{VERSIONS}/1{suffix}")
    assert (short, found.headers["Deprecation"][:1]) == (True, "@")
    again, short = compared(viewer, f"{VERSIONS}/1{suffix}", **{"If-None-Match": found.headers["ETag"]})
    assert (again.status_code, short, "Deprecation" in again.headers) == (304, True, True)


@pytest.mark.parametrize(
    "query", ["", "?limit=1", "?limit=100", "?limit=2&", "?cursor=Mg", "?limit=1&cursor=Mw"]
)
def test_a_history_is_answered_without_flask_as_flask_answers_it(
    viewer: Client, owner: Client, query: str
) -> None:
    """The versions, with what changed about them, and the open draft, by slug and by id."""
    owner.patch(f"{VERSIONS}/1", json={"title": "Spring", "notes": "caf\u00e9"})
    owner.post(f"{VERSIONS}/1/yank", json={"reason": "It loses orders"})
    owner.post(VERSIONS, json={"from_version": 1})
    with counted(viewer) as seen:
        found = viewer.get(VERSIONS + query, headers={"X-Request-Id": "compared"})
        assert (found.status_code, seen) == (200, [])
        by_id = viewer.get(f"/workflows/{found.json['versions'][0]['workflow_id']}/versions{query}")
        assert (by_id.data, seen) == (found.data, [])
    slow = viewer.get(
        f"{VERSIONS}{query}{'&' if query else '?'}project=default", headers={"X-Request-Id": "compared"}
    )
    assert found.data == slow.data
    link = slow.headers.get("Link")
    assert found.headers.get("Link") == (link and re.sub("project=default&|&project=default", "", link))
    assert [name for name, _ in found.headers] == [name for name, _ in slow.headers]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?limit=0", 400), ("?limit=101", 400), ("?limit=x", 400), ("?limit=1&limit=2", 200),
        ("?cursor=x", 400), ("?state=draft", 200), ("?limit=1cursor=Mg", 400), ("?cursor=MQ", 200),
        ("?x=1", 200), ("?limit=%31", 200),
    ],
)  # fmt: skip
def test_a_history_with_another_query_is_left_to_flask(viewer: Client, query: str, status: int) -> None:
    with counted(viewer) as seen:
        assert viewer.get(VERSIONS + query).status_code == status
        assert len(seen) == 1


def test_the_commit_alone_is_not_the_tag_of_a_version(viewer: Client) -> None:
    commit = viewer.get(f"{VERSIONS}/1").json["commit"]
    found, short = compared(viewer, f"{VERSIONS}/1", **{"If-None-Match": f'"{commit}"'})
    assert (found.status_code, short) == (200, False)


@pytest.mark.parametrize(
    "name",
    ["3", "0", "01", "v1", "latest", "draft", "x", "9" * 30, "\u0663", "1/definition/", "current/"],
)
def test_all_else_is_left_to_flask(viewer: Client, name: str) -> None:
    _, short = compared(viewer, f"{VERSIONS}/{name}")
    assert not short


@pytest.mark.parametrize(
    "slug", ["unknown", "a" * 300, "Order-sync", "x%00", "00000000-0000-0000-0000-000000000000"]
)
def test_an_unknown_workflow_is_left_to_flask(viewer: Client, slug: str) -> None:
    found, short = compared(viewer, f"/workflows/{slug}/versions/current")
    assert (found.status_code, short) == (404, False)


@pytest.mark.parametrize("token", ["", "gst_x", "gst_" + "a" * 43])
def test_an_unknown_token_is_refused(viewer: Client, token: str) -> None:
    stranger = Client(viewer.app, token)
    found, short = compared(stranger, f"{VERSIONS}/1")
    assert (found.status_code, short) == (401, False)


def test_another_tenant_sees_nothing(house: House, viewer: Client) -> None:
    other = house.client("owner", house.other)
    assert viewer.get(f"{VERSIONS}/1").status_code == 200
    for path in (f"{VERSIONS}/1", f"{VERSIONS}/current", f"{VERSIONS}/1/definition", VERSIONS):
        assert other.get(path).status_code == 404


def test_a_revoked_token_ends_at_once(house: House, viewer: Client) -> None:
    assert viewer.get(f"{VERSIONS}/1").status_code == 200
    with house.database.as_owner() as tx:
        tx.run("update gitstore.access_tokens set revoked_at = now() where role = 'viewer'")
    assert viewer.get(f"{VERSIONS}/1").status_code == 401
    assert viewer.get(VERSIONS).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        "update gitstore.workflow_versions set state = 'lost' where state = 'published'",
        "update gitstore.workflow_versions set valid = false, invalid_reason = 'x'",
        "update gitstore.git_objects set bytes = 'damaged' where kind = 'blob'",
    ],
    ids=["lost", "invalid", "damaged"],
)
def test_an_unusual_version_is_answered_as_flask_answers_it(
    house: House, viewer: Client, change: Any
) -> None:
    with house.database.as_owner() as tx:
        tx.run("select set_config('gitstore.upkeep', 'on', true)")
        tx.run(change)
    for path in (f"{VERSIONS}/1", f"{VERSIONS}/current", f"{VERSIONS}/2/definition", VERSIONS):
        compared(viewer, path)


def test_the_use_of_a_token_is_recorded(house: House, viewer: Client) -> None:
    viewer.get(f"{VERSIONS}/1")
    with house.database.as_owner() as tx:
        used = tx.value("select last_used_at is not null from gitstore.access_tokens where role = 'viewer'")
    assert used


def test_nothing_of_a_read_stays_in_the_session(house: House, viewer: Client) -> None:
    assert viewer.get(f"{VERSIONS}/1").status_code == 200
    with house.database.as_owner() as tx:
        names = ("role", "request.jwt.claims", "enable_seqscan")
        settings = [tx.value("select current_setting(%(name)s, true)", name=name) or None for name in names]
    assert settings == ["none", None, "on"]
