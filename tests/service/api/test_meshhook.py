"""MeshHook's own calls, as its pages and components make them."""

from __future__ import annotations

from typing import Any

import pytest

from service.api import meshhook
from tests.service.api.conftest import Client, House, definition, problem

WORKFLOWS = "/api/workflows"
GRAPH = {key: definition()[key] for key in ("nodes", "edges")}


def graph(url: str) -> dict[str, Any]:
    return {key: definition(url)[key] for key in ("nodes", "edges")}


@pytest.fixture
def made(owner: Client) -> dict[str, Any]:
    """A workflow made as MeshHook's page makes one, published once, with another draft open."""
    row = owner.post(WORKFLOWS, json={"name": "Order Sync!", "description": "", **GRAPH}).json["workflow"]
    path = f"{WORKFLOWS}/{row['id']}"
    owner.put(path, json={**GRAPH, "status": "published"})
    return {**owner.put(path, json=graph("https://b.example/")).json["workflow"], "path": path}


def test_a_workflow_is_created_from_its_name(owner: Client) -> None:
    """201 with the row; a second one of the same name gets a slug of its own."""
    sent = {"name": "Order Sync!", "description": "Copies", **GRAPH, "status": "draft"}
    first = owner.post(WORKFLOWS, json=sent)
    assert first.status_code == 201
    row = first.json["workflow"]
    assert (row["slug"], row["name"], row["description"]) == ("order-sync", "Order Sync!", "Copies")
    assert (row["status"], row["version"], row["definition"]) == ("draft", 1, GRAPH)
    again = owner.post(WORKFLOWS, json={"name": "Order Sync!", **GRAPH}).json["workflow"]
    assert again["slug"] == "order-sync-2"
    assert owner.post(WORKFLOWS, json={"name": "受注"}).json["workflow"]["slug"] == "workflow"
    problem(owner.post(WORKFLOWS, json={"nodes": []}), 400, "malformed")
    problem(owner.post(WORKFLOWS, json={"name": "x", "slug": "order-sync"}), 409, "workflow_exists")


def test_a_save_opens_a_draft_where_none_is_open(owner: Client, made: dict[str, Any]) -> None:
    """And with the status published, it publishes; the row is always what the editor opens."""
    assert (made["status"], made["version"]) == ("draft", 2)
    sent = {**graph("https://c.example/"), "status": "published"}
    published = owner.put(made["path"], json=sent).json["workflow"]
    assert (published["status"], published["version"]) == ("published", 2)
    assert published["definition"] == graph("https://c.example/")
    saved = owner.put(made["path"], json=GRAPH)
    assert (saved.json["workflow"]["status"], saved.json["workflow"]["version"]) == ("draft", 3)
    assert owner.get(made["path"]).json == saved.json
    current = owner.get(f"/workflows/{made['slug']}/versions/current").json
    assert current["version_number"] == 2


def test_a_save_keeps_what_it_does_not_send(owner: Client) -> None:
    """Other keys of the definition, the name, and the nodes where only edges are sent."""
    owner.create("sync", definition={**definition(), "settings": {"timeout": 5}, "name": "Stated"})
    owner.put(f"{WORKFLOWS}/sync", json={"edges": []})
    kept = owner.get("/workflows/sync/versions/draft").json["definition"]
    assert (kept["settings"], kept["nodes"], kept["edges"]) == ({"timeout": 5}, definition()["nodes"], [])
    renamed = owner.put(f"{WORKFLOWS}/sync", json={"name": "Other"}).json["workflow"]
    assert (renamed["name"], renamed["definition"]["name"]) == ("Other", "Stated")


def test_if_match_refuses_to_overwrite(owner: Client, made: dict[str, Any]) -> None:
    seen = owner.get(made["path"]).headers["ETag"]
    assert owner.put(made["path"], json=GRAPH, match=seen).status_code == 200
    stale = problem(owner.put(made["path"], json=graph("https://d.example/"), match=seen), 412, "stale_draft")
    assert stale["error"] == stale["detail"]
    assert owner.get(made["path"]).json["workflow"]["definition"] == GRAPH


def test_the_history_has_what_the_component_shows(owner: Client, made: dict[str, Any]) -> None:
    """Newest first, with status, description, whether it is current, and the definition."""
    versions = owner.get(f"{made['path']}/versions").json["versions"]
    assert [(v["version"], v["status"], v["is_current"]) for v in versions] == [
        (2, "draft", False),
        (1, "published", True),
    ]
    assert [len(v["definition"]["nodes"]) for v in versions] == [2, 2]
    assert versions[1]["definition"] == GRAPH
    assert all(v["created_at"].endswith("Z") and isinstance(v["description"], str) for v in versions)


def test_a_roll_back_opens_a_draft(owner: Client, made: dict[str, Any]) -> None:
    """409 with the open draft, which `force` discards and git keeps."""
    first = owner.get(f"{made['path']}/versions").json["versions"][1]["id"]
    body = {"version_id": first, "description": "It failed at night"}
    refused = problem(owner.post(f"{made['path']}/versions", json=body), 409, "draft_exists")
    open_draft = owner.get(made["path"]).headers["ETag"].strip('"')
    assert refused["etag"] == f'"{open_draft}"'
    rolled = owner.post(f"{made['path']}/versions", json={**body, "force": True})
    assert rolled.status_code == 201
    version = rolled.json["version"]
    shown = (version["version"], version["status"], version["description"])
    assert shown == (2, "draft", "It failed at night")
    assert version["definition"] == GRAPH
    kept = owner.get(f"/workflows/{made['slug']}/versions/draft/superseded").json["superseded"]
    assert [draft["commit"] for draft in kept] == [open_draft]
    forced = owner.post(f"{made['path']}/versions", json={"version_id": first, "force": True}).json["version"]
    assert forced["description"] == "Rolled back to v1"


@pytest.mark.parametrize("wrong", ["00000000-0000-4000-8000-000000000000", "1", None])
def test_a_roll_back_needs_a_version_of_the_workflow(owner: Client, made: dict[str, Any], wrong: Any) -> None:
    """The draft is none."""
    answer = owner.post(f"{made['path']}/versions", json={"version_id": wrong})
    assert answer.status_code == (404 if wrong and len(wrong) > 1 else 400)
    draft = owner.get(f"{made['path']}/versions").json["versions"][0]["id"]
    problem(owner.post(f"{made['path']}/versions", json={"version_id": draft}), 404, "not_found")


def test_a_deleted_workflow_is_archived(owner: Client, made: dict[str, Any]) -> None:
    """It is listed no more and nothing of it runs; its versions stay, and a save opens it again."""
    assert owner.delete(made["path"]).json == {"success": True}
    assert owner.get(WORKFLOWS).json["workflows"] == []
    problem(owner.get(f"/workflows/{made['slug']}/versions/current"), 404, "not_published")
    assert [v["version"] for v in owner.get(f"{made['path']}/versions").json["versions"]] == [1]
    assert owner.put(made["path"], json=GRAPH).status_code == 200
    assert [w["slug"] for w in owner.get(WORKFLOWS).json["workflows"]] == [made["slug"]]


def test_lists_end_at_a_size_and_go_on(owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every workflow and version is listed once, however large their definitions are."""
    names = ["a", "b", "c"]
    for name in names:
        owner.create(name)
    for number in range(3):
        owner.publish("a", f"https://{number}.example/")
    monkeypatch.setattr(meshhook, "MOST_BYTES", 600)
    assert [row["slug"] for row in paged(owner, WORKFLOWS, "workflows")] == names
    assert [row["version"] for row in paged(owner, f"{WORKFLOWS}/a/versions", "versions")] == [3, 2, 1]


def paged(client: Client, path: str, key: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor, pages = "", 0
    while pages == 0 or cursor:
        page = client.get(path + (f"?cursor={cursor}" if cursor else "")).json
        rows, cursor, pages = [*rows, *page[key]], page["next_cursor"], pages + 1
    assert pages > 1
    return rows


def test_roles_and_tenants(house: House) -> None:
    """An editor saves and does not publish; another tenant sees nothing."""
    house.client("owner").create("sync")
    editor = house.client("editor")
    assert editor.put(f"{WORKFLOWS}/sync", json=GRAPH).status_code == 200
    refused = editor.put(f"{WORKFLOWS}/sync", json={**graph("https://z.example/"), "status": "published"})
    problem(refused, 403, "forbidden")
    assert editor.get(f"{WORKFLOWS}/sync").json["workflow"]["definition"] == GRAPH
    problem(editor.delete(f"{WORKFLOWS}/sync"), 403, "forbidden")
    problem(house.client("viewer").put(f"{WORKFLOWS}/sync", json=GRAPH), 403, "forbidden")
    stranger = house.client("owner", house.other)
    assert stranger.get(WORKFLOWS).json["workflows"] == []
    path = f"{WORKFLOWS}/{editor.get(f'{WORKFLOWS}/sync').json['workflow']['id']}"
    problem(stranger.get(path), 404, "workflow_not_found")
    problem(stranger.put(path, json=GRAPH), 404, "workflow_not_found")


def test_the_view_has_mesh_hook_s_columns(house: House, owner: Client, made: dict[str, Any]) -> None:
    """With the rights of the reader: row-level security hides the rows of other tenants."""
    query = """select version, status, is_current, description, definition from gitstore.meshhook_versions
               where workflow_id = %(id)s order by version desc"""
    rows = {}
    for project in (house.project, house.other):
        claims = (
            house.app.extensions["gitstore"]
            .auth.token(house.client("owner", project).token, "127.0.0.1")
            .claims
        )
        with house.database.as_user(claims) as tx:
            rows[project.slug] = tx.tuples(query, id=made["id"])
    assert [row[:3] for row in rows["default"]] == [(2, "draft", False), (1, "published", True)]
    assert rows["default"][1][4] == GRAPH
    assert rows["other"] == []
