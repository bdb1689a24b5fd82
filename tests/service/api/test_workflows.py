"""/workflows: list, create, read, validate."""

from __future__ import annotations

from contextlib import closing
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest

from gitstore.drafts import Content
from gitstore.model import Person
from gitstore.names import workflow_id
from gitstore.store import Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from service.projects import Projects
from sync.db import Database
from sync.integrity import verify
from tests.service.api.conftest import Client, House, definition, problem, yaml

DRAFT = "/workflows/order-sync/versions/draft"
WORKFLOW_KEYS = {
    "id", "project", "slug", "name", "description", "held", "archived", "latest_version", "current", "draft",
    "blocked", "created_at", "updated_at", "url",
}  # fmt: skip
VERSION_KEYS = {
    "id", "workflow_id", "workflow", "version_number", "state", "is_current", "valid", "commit", "digest",
    "node_count", "edge_count", "message", "author", "published_by", "external_id", "created_at",
    "published_at", "url", "yanked", "title", "notes",
}  # fmt: skip


def test_a_workflow_is_created_with_a_draft(owner: Client, house: House) -> None:
    """The answer is the workflow; its ETag is the draft's."""
    made = owner.post("/workflows", json={"slug": "order-sync", "name": "Orders", "definition": definition()})
    assert made.status_code == 201
    assert made.headers["Location"] == "https://gitstore.example/workflows/order-sync"
    assert made.headers["ETag"] == f'"{made.json["draft"]["commit"]}"'
    assert set(made.json) == WORKFLOW_KEYS | {"problems", "problems_total"}
    assert set(made.json["draft"]) == VERSION_KEYS
    assert made.json["id"] == str(workflow_id(house.project.id, "order-sync"))
    assert made.json["project"] == "default"
    assert made.json["name"] == "Orders"
    assert made.json["current"] is None
    assert made.json["latest_version"] is None
    assert made.json["problems"] == []
    assert made.json["draft"]["version_number"] == 1
    assert made.json["draft"]["state"] == "draft"
    assert made.json["draft"]["url"] == "https://gitstore.example/ui/workflows/order-sync/versions/draft"
    assert made.json["url"] == "https://gitstore.example/ui/workflows/order-sync"
    assert made.json["created_at"].endswith("Z")


def test_without_a_definition_the_draft_is_a_starter_that_can_be_published(owner: Client) -> None:
    """One node, no problems."""
    made = owner.post("/workflows", json={"slug": "hello"})
    assert made.status_code == 201
    assert made.json["problems"] == []
    assert made.json["draft"]["valid"] is True
    assert owner.publish("hello").status_code == 201


def test_a_description_is_kept_and_searched(owner: Client) -> None:
    owner.create("a", description="Copies paid orders")
    owner.create("b", name="Paid, too")
    owner.create("c")
    found = owner.get("/workflows?q=PAID").json
    assert [row["slug"] for row in found["workflows"]] == ["a", "b"]
    assert found["workflows"][0]["description"] == "Copies paid orders"
    assert owner.get("/workflows?q=%25").json["workflows"] == []


def test_a_definition_that_breaks_rules_is_saved_with_its_problems(owner: Client) -> None:
    """All problems are listed, with their places."""
    broken = definition("")
    broken["nodes"][1]["data"]["config"]["method"] = ""
    made = owner.post("/workflows", json={"slug": "broken", "definition": broken})
    assert made.status_code == 201
    assert made.json["draft"]["valid"] is False
    found = {(p["code"], p["pointer"], p["node"], p["severity"]) for p in made.json["problems"]}
    assert {("http_url_missing", "call", "error"), ("http_method_missing", "call", "error")} == {
        (code, node, severity) for code, _, node, severity in found
    }
    assert all(p["line"] > 0 and p["column"] > 0 for p in made.json["problems"])


def test_a_definition_that_does_not_parse_creates_nothing(owner: Client) -> None:
    """422 with line and column; the slug is still free."""
    body = {"slug": "bad", "definition": "nodes: [\n  a\nb: c"}
    refused = problem(owner.post("/workflows", json=body), 422, "definition_unparsable")
    assert refused["problems"][0]["line"] >= 1
    problem(owner.get("/workflows/bad"), 404, "workflow_not_found")
    owner.create("bad")


@pytest.mark.parametrize(
    "slug",
    ["", "A", "a_b", "-a", "a-", "a" * 64, "f006bb46-fe48-4d75-9eed-9f211fa75bee", "ä", "a b", "a/b", "a.b"],
)
def test_an_invalid_slug_is_refused(owner: Client, slug: str) -> None:
    problem(owner.post("/workflows", json={"slug": slug}), 422, "invalid_name")


def test_a_workflow_is_read_by_its_slug_and_by_its_id(owner: Client) -> None:
    made = owner.create().json
    by_slug, by_id = owner.get("/workflows/order-sync"), owner.get(f"/workflows/{made['id']}")
    assert by_slug.status_code == by_id.status_code == 200
    assert by_slug.json == by_id.json
    assert owner.get(f"/workflows/{made['id'].upper()}").json == by_id.json
    assert set(by_slug.json) == WORKFLOW_KEYS


def test_a_workflow_has_its_current_version_and_its_draft(owner: Client) -> None:
    owner.create()
    owner.publish()
    owner.publish(url="https://b.example/", activate=False)
    owner.post("/workflows/order-sync/versions", json={"definition": definition("https://c.example/")})
    found = owner.get("/workflows/order-sync").json
    assert found["latest_version"] == 2
    assert (found["current"]["version_number"], found["current"]["is_current"]) == (1, True)
    assert (found["draft"]["version_number"], found["draft"]["state"]) == (3, "draft")
    listed = owner.get("/workflows").json["workflows"]
    assert listed == [found]


def test_the_list_continues_by_cursor_and_link(owner: Client) -> None:
    """The other parameters of the query are kept."""
    slugs = [f"w-{n}" for n in range(5)]
    for slug in slugs:
        owner.create(slug)
    seen: list[str] = []
    path: str | None = "/workflows?limit=2&q=w"
    while path:
        page = owner.get(path)
        seen += [row["slug"] for row in page.json["workflows"]]
        link = page.headers.get("Link")
        assert (link is None) == (page.json["next_cursor"] is None)
        path = None
        if link:
            target, _, rel = link.partition("; ")
            assert rel == 'rel="next"'
            parts = urlsplit(target.strip("<>"))
            assert parts.netloc == "gitstore.example"
            assert "limit=2" in parts.query
            assert "q=w" in parts.query
            path = f"{parts.path}?{parts.query}"
    assert seen == slugs


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=-1", "limit=x", "limit=" + "9" * 5000, "limit=1.5", "cursor=!", "cursor=",
     "cursor=YQ==", "cursor=QQ", "cursor=%00", "cursor=w6Q", "cursor=" + "A" * 999,
     "q=%00", "q=" + "a" * 201],
)  # fmt: skip
def test_an_invalid_query_is_malformed(owner: Client, query: str) -> None:
    problem(owner.get(f"/workflows?{query}"), 400, "malformed")


def test_a_definition_is_validated_without_saving_it(owner: Client, house: House) -> None:
    """200 with its problems, and nothing has changed."""
    owner.create()
    before = owner.get("/workflows/order-sync").json
    check = "/workflows/order-sync/validate"
    fine = owner.post(check, data=yaml(), type="application/yaml")
    assert fine.status_code == 200
    assert fine.json["valid"] is True
    assert fine.json["digest"].startswith("sha256:")
    broken = owner.post(check, json={"definition": definition("")})
    assert broken.status_code == 200
    assert broken.json["valid"] is False
    assert broken.json["problems"][0]["code"] == "http_url_missing"
    unparsable = owner.post(check, data=b"a: [", type="text/yaml")
    assert unparsable.status_code == 200
    assert unparsable.json == {"valid": False, "digest": None, "problems": unparsable.json["problems"],
                               "problems_total": 1}  # fmt: skip
    assert unparsable.json["problems"][0]["line"] == 1
    assert owner.get("/workflows/order-sync").json == before


def test_without_a_definition_the_draft_is_validated(owner: Client) -> None:
    owner.create(definition=definition(""))
    checked = owner.post("/workflows/order-sync/validate")
    assert [p["code"] for p in checked.json["problems"]] == ["http_url_missing"]
    owner.delete("/workflows/order-sync/versions/draft")
    problem(owner.post("/workflows/order-sync/validate"), 404, "version_not_found")


def test_a_project_with_the_rules_any_accepts_every_mapping(house: House) -> None:
    other = house.client("owner", house.other)
    made = other.post("/workflows", json={"slug": "argo", "definition": {"kind": "Workflow", "spec": {}}})
    assert made.status_code == 201
    assert made.json["problems"] == []
    assert other.publish("argo").status_code == 201


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/slug"),
        ({"slug": 1}, "/slug"),
        ({"slug": None}, "/slug"),
        ({"slug": "a", "definition": 5}, "/definition"),
        ({"slug": "a", "name": " "}, "/name"),
        ({"slug": "a", "name": "a\nb"}, "/name"),
        ({"slug": "a", "name": "x" * 201}, "/name"),
        ({"slug": "a", "description": "x" * 10_001}, "/description"),
        ({"slug": "a", "author": {"name": "Ada"}}, "/author/email"),
        ({"slug": "a", "author": {"name": "A<b>", "email": "a@b"}}, "/author/name"),
        ({"slug": "a", "author": {"name": "A\nb", "email": "a@b"}}, "/author/name"),
        ({"slug": "a", "author": {"name": "A", "email": "a@b>\nx"}}, "/author/email"),
        ({"slug": "a", "a/b~c": 1}, "/a~1b~0c"),
    ],
)
def test_an_invalid_body_is_malformed(owner: Client, body: Any, pointer: str) -> None:
    """Every problem has a pointer to its place."""
    refused = problem(owner.post("/workflows", json=body), 400, "malformed")
    assert pointer in [found["pointer"] for found in refused["problems"]]


def test_the_next_write_mirrors_what_a_kill_left_unmirrored(owner: Client, house: House) -> None:
    """The workflow is in Git but not in Postgres: it cannot be created again, and can be saved."""
    store = Store(house.repository(), house.project.id, FileUnitOfWork)
    ada = Person("Ada", "ada@example.com")
    store.create_workflow("left", Content(value=definition()), Actors(ada, ada))
    store.close()
    problem(owner.get("/workflows/left"), 404, "workflow_not_found")
    problem(owner.post("/workflows", json={"slug": "left"}), 409, "workflow_exists")
    assert owner.get("/workflows/left").status_code == 200


def test_a_workflow_is_renamed_and_described(owner: Client, house: House) -> None:
    """The newest name counts, whichever gave it; null returns to the definition's. Verify agrees with Git."""
    owner.post("/workflows", json={"slug": "sync", "name": "First", "definition": definition(name="Stated")})
    named = owner.patch("/workflows/sync", json={"name": " Second "})
    assert (named.status_code, named.json["name"], named.json["description"]) == (200, "Second", "")
    described = owner.patch("/workflows/sync", json={"description": "Copies\norders"})
    assert (described.json["name"], described.json["description"]) == ("Second", "Copies\norders")
    tips = house.repository() / "refs" / "ledger" / "sync"
    entry = tips.read_text()
    again = owner.patch("/workflows/sync", json={"name": "Second", "description": "Copies\norders"})
    assert (again.status_code, tips.read_text()) == (200, entry)
    returned = owner.patch("/workflows/sync", json={"name": None})
    assert (returned.json["name"], returned.json["description"]) == ("Stated", "Copies\norders")
    assert owner.patch("/workflows/sync", json={}).json == returned.json
    with closing(Projects(house.config).reader(house.project)) as repository:
        assert list(verify.verify(house.database, repository)) == []


REFUSED = [{"name": "x" * 201}, {"name": "a\x00b"}, {"slug": "other"}, {"name": 5}, []]


@pytest.mark.parametrize("body", REFUSED)
def test_an_invalid_description_changes_nothing(owner: Client, body: Any) -> None:
    owner.create("sync")
    before = owner.get("/workflows/sync").json
    problem(owner.patch("/workflows/sync", json=body), 400, "malformed")
    assert owner.get("/workflows/sync").json == before


def test_only_editors_describe(house: House) -> None:
    """A viewer gets 403, and another tenant 404."""
    house.client("owner").create("sync")
    problem(house.client("viewer").patch("/workflows/sync", json={"name": "x"}), 403, "forbidden")
    stranger = house.client("owner", house.other)
    problem(stranger.patch("/workflows/sync", json={"name": "x"}), 404, "workflow_not_found")


def test_versions_count_nodes_and_edges(owner: Client, house: House) -> None:
    """In lists and in single answers; null where the definition has no such list."""
    made = owner.post("/workflows", json={"slug": "sync", "definition": definition()})
    listed = owner.get("/workflows").json["workflows"][0]["draft"]
    assert [(v["node_count"], v["edge_count"]) for v in (made.json["draft"], listed)] == [(2, 1), (2, 1)]
    published = owner.publish("sync").json
    assert (published["node_count"], published["edge_count"]) == (2, 1)
    other = house.client("owner", house.other)
    other.post("/workflows", json={"slug": "argo", "definition": {"nodes": {"a": 1}, "edges": []}})
    draft = other.get("/workflows/argo").json["draft"]
    assert (draft["node_count"], draft["edge_count"]) == (None, 0)


def test_changes_since_a_token(owner: Client, house: House) -> None:
    """Each with who did it; 304 while nothing has changed, also by If-None-Match."""
    owner.create()
    path = "/workflows/order-sync/changes"
    ada = house.client("publisher")
    first = owner.get(path).json
    assert first["changes"] == []
    token = first["token"]

    def told(*kinds: str) -> None:
        nonlocal token
        answer = owner.get(f"{path}?since={token}")
        assert answer.status_code == 200, answer.text
        assert [change["kind"] for change in answer.json["changes"]] == list(kinds)
        assert all(
            change["by"].startswith("publisher-") and change["at"] for change in answer.json["changes"]
        )
        token = answer.json["token"]
        assert answer.headers["ETag"] == f'"{token}"'
        for same in (
            owner.get(f"{path}?since={token}"),
            owner.get(path, headers={"If-None-Match": f'"{token}"'}),
        ):
            assert (same.status_code, same.data) == (304, b"")

    ada.put(DRAFT, json={"definition": definition("https://b.example/")}, match="*")
    told("draft_saved")
    ada.publish()
    told("published")
    ada.post("/workflows/order-sync/versions", json={"definition": definition("https://c.example/")})
    ada.delete(DRAFT)
    told()
    ada.post("/workflows/order-sync/versions", json={"definition": definition("https://c.example/")})
    told("draft_saved")
    ada.delete(DRAFT)
    told("draft_discarded")
    ada.publish(url="https://d.example/")
    ada.put("/workflows/order-sync/current", json={"version": 1, "hold": True})
    told("published", "held")
    ada.delete("/workflows/order-sync/current")
    told("current_changed")
    ada.put("/workflows/order-sync/current", json={"version": 2})
    told("current_changed")
    for unknown in ("x", "....", "0" * 200, "a.1.1.2.b"):
        assert owner.get(f"{path}?since={unknown}").json == {"token": token, "changes": []}


def test_a_question_without_changes_reads_one_row(owner: Client, house: House) -> None:
    """No transaction is opened, and no repository."""
    owner.create()
    token = owner.get("/workflows/order-sync/changes").json["token"]
    with (
        patch.object(Database, "reading", side_effect=AssertionError),
        patch.object(Projects, "reader", side_effect=AssertionError),
    ):
        assert owner.get(f"/workflows/order-sync/changes?since={token}").status_code == 304
