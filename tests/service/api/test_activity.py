"""/workflows/{id}/activity and /activity: what happened, who did it, when and why."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.service.api.conftest import Client, House, definition

ONE = "/workflows/order-sync"


def busy(owner: Client) -> None:
    """Do each thing that can happen to a workflow over HTTP, in this order."""
    owner.create(name="Order sync")
    owner.publish(message="Ship it")
    owner.patch(ONE, json={"description": "Copies orders."})
    owner.publish(url="https://two.example/", message="Second", activate=False)
    owner.put(f"{ONE}/current", json={"version": 2, "message": "Go"})
    owner.put(f"{ONE}/current", json={"version": 1, "hold": True, "message": "incident 7"})
    owner.put(f"{ONE}/current", json={"version": 1, "message": "over"})
    owner.delete(f"{ONE}/current")
    owner.post(f"{ONE}/versions/1/revert", json={"message": "Back"})
    draft = owner.get(f"{ONE}/versions/draft").headers["ETag"]
    owner.delete(f"{ONE}/versions/draft", headers={"If-Match": draft})
    owner.post(f"{ONE}/versions/draft/restore")


def pages(client: Client, path: str, limit: int) -> list[dict[str, Any]]:
    rows, cursor = [], ""
    while True:
        page = client.get(f"{path}{'&' if '?' in path else '?'}limit={limit}{cursor}").json
        assert len(page["activity"]) <= limit
        rows += page["activity"]
        if page["next_cursor"] is None:
            return rows
        cursor = f"&cursor={page['next_cursor']}"


def test_a_workflow_tells_all_that_happened_to_it(house: House) -> None:
    """Newest first, with the version, the one before, and the reason."""
    owner = house.client()
    busy(owner)
    rows = owner.get(f"{ONE}/activity?limit=100").json["activity"]
    told = [(row["kind"], row["version"], row["previous"], row["reason"]) for row in rows]
    assert sorted(told, key=str) == sorted([
        ("restored", 3, None, ""),
        ("discarded", 3, None, ""),
        ("reverted", 1, None, "Back"),
        ("cleared", None, 1, ""),
        ("released", 1, 1, "over"),
        ("held", 1, 2, "incident 7"),
        ("current", 2, 1, "Go"),
        ("published", 2, 1, "Second"),
        ("saved", None, None, "url of call changed"),
        ("described", None, 1, ""),
        ("published", 1, None, "Ship it"),
        ("saved", None, None, "Create the draft"),
        ("created", None, None, ""),
    ], key=str)  # fmt: skip
    assert [row["activated"] for row in rows if row["kind"] == "published"] == [False, True]
    assert {(row["actor"]["kind"], row["actor"]["name"].partition("-")[0]) for row in rows} == {
        ("token", "owner")
    }
    assert rows == sorted(rows, key=lambda row: row["at"], reverse=True)


def test_pages_join_without_a_gap_or_a_repetition(house: House) -> None:
    owner = house.client()
    busy(owner)
    owner.create("another")
    for path in (f"{ONE}/activity", "/activity"):
        whole = pages(owner, path, 100)
        for limit in (1, 2, 5):
            assert pages(owner, path, limit) == whole, (path, limit)


def test_a_project_tells_what_happened_to_all_of_its_workflows(house: House) -> None:
    owner = house.client()
    busy(owner)
    owner.create("another")
    rows = owner.get("/activity").json["activity"]
    told = {(row["workflow"], row["kind"]) for row in rows}
    assert told >= {("another", "created"), *(("order-sync", kind) for kind in (
        "created", "published", "described", "current", "held", "cleared", "discarded"))}  # fmt: skip
    assert {row["actor"]["name"].partition("-")[0] for row in rows} == {"owner"}
    assert house.client(project=house.other).get("/activity").json == {"activity": [], "next_cursor": None}


def test_a_forged_cursor_is_malformed(house: House) -> None:
    """A commit that is no ledger entry, one that does not exist, and texts that are no place."""
    owner = house.client()
    owner.create()
    draft = owner.get(f"{ONE}/versions/draft").json["commit"]
    for place in (f"{draft} - -", f"{'0' * 40} - -", f"- {'1' * 40} -", "a b c", "", f"- - {draft}"):
        cursor = base64.urlsafe_b64encode(place.encode()).rstrip(b"=").decode()
        answer = owner.get(f"{ONE}/activity?cursor={cursor}")
        assert (answer.status_code, answer.json["code"]) == (400, "malformed"), place


def test_a_pushed_branch_with_other_workflows_tells_only_of_its_own(house: House) -> None:
    """A commit that leaves the definition alone is not listed, unless it changes nothing at all."""
    owner = house.client()
    owner.create()
    owner.publish()
    before = len(owner.get(f"{ONE}/activity").json["activity"])
    owner.create("another")
    assert len(owner.get(f"{ONE}/activity").json["activity"]) == before


ENVIRONMENTS = {"environments": [{"name": "staging"}, {"name": "prod"}]}


def released(owner: Client) -> None:
    """Do each thing that can happen to versions and pointers after a publication, in this order."""
    owner.put("/environments", json=ENVIRONMENTS)
    owner.create()
    owner.publish(message="One")
    owner.put(f"{ONE}/environments/staging", json={"version": 1, "message": "Try"})
    promotion = {"from": "staging", "to": "prod", "workflows": ["order-sync"], "message": "Tested"}
    assert owner.post("/promote", json=promotion).status_code == 200
    owner.post(f"{ONE}/versions", json={"definition": definition("https://two.example/")})
    release = {"name": "autumn", "items": [{"workflow": "order-sync", "draft": True}], "environment": "prod"}
    assert owner.post("/releases", json=release).status_code == 201
    assert owner.post("/releases/autumn/rollback", json={"message": "Night"}).status_code == 200
    owner.put(f"{ONE}/environments/prod", json={"weights": {"1": 90, "2": 10}, "hold": True})
    owner.delete(f"{ONE}/environments/staging")
    owner.patch(f"{ONE}/versions/1", json={"title": "First"})
    owner.post(f"{ONE}/versions/2/yank", json={"reason": "It loses orders"})
    owner.delete(f"{ONE}/versions/2/yank")
    assert owner.post(f"{ONE}/rename", json={"slug": "orders"}).status_code == 200


WHAT = ("kind", "version", "previous", "environment", "held", "release", "promoted_from")
RELEASED = [
    ("renamed", None, None, None, False, None, None),
    ("unyanked", 2, None, None, False, None, None),
    ("yanked", 2, None, None, False, None, None),
    ("annotated", 1, None, None, False, None, None),
    ("removed", None, 1, "staging", False, None, None),
    ("moved", 2, 1, "prod", True, None, None),
    ("rolled_back", 1, 2, "prod", False, "autumn", None),
    ("promoted", 1, None, "prod", False, None, "staging"),
    ("moved", 1, None, "staging", False, None, None),
]


@pytest.mark.parametrize("path", ["/workflows/orders/activity", "/activity"])
def test_what_happens_to_released_versions_has_its_kind(house: House, path: str) -> None:
    """From Git for a workflow, from events for the project: with the pointer, the release, and its source."""
    owner = house.client()
    released(owner)
    topics = ("workflows", "versions", "pointers")
    rows = [row for topic in topics for row in pages(owner, f"{path}?topic={topic}", 3)]
    # `previous` of what moves no pointer is the current version.
    moves = {"moved", "removed", "promoted", "rolled_back"}
    described = [
        tuple(row[key] if key != "previous" or row["kind"] in moves else None for key in WHAT)
        for row in rows
        # The project has the moves by a publication, too.
        if row["kind"] not in ("published", "current")
        and (row["kind"], row["release"]) != ("moved", "autumn")
    ]
    assert described == RELEASED
    (weighted,) = [row for row in rows if row["weights"]]
    assert weighted["weights"] == {"2": 10, "1": 90}
    assert {row["reason"] for row in rows} >= {"Try", "Tested", "Night", "It loses orders"}
    assert {row["release"] for row in rows if row["kind"] == "published"} == {None, "autumn"}


def test_topics_divide_the_activity(house: House) -> None:
    """Each thing is in one of them; an unknown topic is malformed."""
    owner = house.client()
    released(owner)
    for path in ("/workflows/orders/activity", "/activity"):
        topics = ("drafts", "versions", "pointers", "workflows")
        divided = [row["id"] for topic in topics for row in pages(owner, f"{path}?topic={topic}", 2)]
        assert sorted(divided) == sorted(row["id"] for row in pages(owner, path, 100))
        assert owner.get(f"{path}?topic=weather").status_code == 400
