"""The audit log over HTTP: filters, pages and JSON lines."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests.service.api.conftest import Client, House, problem


@pytest.fixture
def owner(house: House) -> Client:
    """An owner who created two workflows, published one, and created and revoked a token."""
    owner = house.client("owner")
    owner.create()
    owner.publish()
    owner.create("other")
    token = owner.post("/tokens", json={"name": "ci", "role": "viewer"}).json["id"]
    owner.delete(f"/tokens/{token}")
    return owner


def audit(owner: Client, query: str = "") -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = owner.get(f"/audit{query}").json["audit"]
    return entries


def test_entries_name_actor_action_object_and_request(owner: Client) -> None:
    revoked, created, *_ = audit(owner, "?action=token")
    assert [revoked["action"], created["action"]] == ["token.revoked", "token.created"]
    assert created["actor_name"].startswith("owner")
    assert (created["door"], created["remote"]) == ("http", "127.0.0.1")
    assert created["request_id"]
    assert created["object"] == revoked["object"]


def test_filters_combine(owner: Client) -> None:
    every = audit(owner)
    assert [entry["at"] for entry in every] == sorted((entry["at"] for entry in every), reverse=True)
    one = every[len(every) // 2]
    actor, name = quote(one["actor_id"]), quote(one["object"])
    found = audit(owner, f"?action={one['action']}&actor={actor}&object={name}")
    assert one in found
    assert all(entry["object"] == one["object"] for entry in found)
    assert audit(owner, "?actor=nobody") == audit(owner, "?action=tok") == []
    middle = quote(one["at"])
    later, earlier = audit(owner, f"?since={middle}"), audit(owner, f"?until={middle}")
    assert later + earlier == every
    assert later[-1] == one


def test_pages_and_lines_have_the_same_entries(owner: Client) -> None:
    every, query, paged = audit(owner), "?limit=2", []
    while True:
        page = owner.get(f"/audit{query}", headers={"Accept": "application/x-ndjson"})
        assert page.mimetype == "application/x-ndjson"
        paged += [json.loads(line) for line in page.text.splitlines()]
        if "Link" not in page.headers:
            break
        query = page.headers["Link"].partition("/audit")[2].partition(">")[0]
    assert paged == every


@pytest.mark.parametrize(
    "query", ["since=yesterday", "since=2026-01-01T00:00:00", "limit=0", "cursor=x", "actor=%00"]
)
def test_malformed_filters_are_refused(owner: Client, query: str) -> None:
    problem(owner.get(f"/audit?{query}"), 400, "malformed")


def test_another_project_is_not_seen(house: House, owner: Client) -> None:
    other = house.client("owner", house.other)
    assert not any("order-sync" in entry["object"] for entry in audit(other))
    since = datetime.fromisoformat(audit(owner)[0]["at"]) + timedelta(days=1)
    assert audit(owner, f"?since={quote(since.isoformat())}") == []
