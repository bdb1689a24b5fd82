"""Withdraw a version without breaking pinned runs, and describe versions after publication."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

import pytest
from click.testing import CliRunner

from service.cli.main import commands
from tests.service.api.conftest import Client, House, definition, opened, problem
from tests.service.serve_process import environment

VERSIONS = "/workflows/order-sync/versions"


@pytest.fixture(scope="module")
def house(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    with opened(postgres_admin_conninfo, migrated_template) as house:
        owner = house.client("owner")
        owner.create("order-sync", definition=definition("https://one.example/"))
        owner.publish("order-sync")
        owner.post(VERSIONS, json={"definition": definition("https://two.example/")})
        owner.publish("order-sync")
        yield house


def test_a_yanked_version_is_read_by_its_number_and_selected_by_nothing_new(owner: Client) -> None:
    pinned = owner.get(f"{VERSIONS}/2/definition").data
    etag = owner.get(f"{VERSIONS}/2").headers["ETag"]
    yanked = owner.post(f"{VERSIONS}/2/yank", json={"reason": "It loses orders"})
    assert yanked.status_code == 200, yanked.text
    assert yanked.json["yanked"]["reason"] == "It loses orders"
    assert yanked.json["yanked"]["pointers"] == ["current"]
    again = owner.get(f"{VERSIONS}/2", headers={"If-None-Match": etag})
    assert (again.status_code, again.json["yanked"]) == (200, True)
    found = owner.get(f"{VERSIONS}/2/definition")
    assert found.data == pinned
    at = datetime.fromisoformat(yanked.json["yanked"]["at"])
    assert found.headers["Deprecation"] == again.headers["Deprecation"] == f"@{int(at.timestamp())}"
    listed = {row["version_number"]: row["yanked"] for row in owner.get(VERSIONS).json["versions"]}
    assert listed == {1: False, 2: True}
    assert owner.get(f"{VERSIONS}/current").json["version_number"] == 2
    assert owner.get(f"{VERSIONS}/latest").json["version_number"] == 1
    assert owner.put("/workflows/order-sync/current", json={"version": "latest"}).status_code == 200
    refused = owner.put("/workflows/order-sync/current", json={"version": 2})
    assert (refused.status_code, refused.json["code"]) == (409, "version_unusable")
    assert "It loses orders" in refused.text
    assert owner.delete(f"{VERSIONS}/2/yank").json["yanked"] is None
    assert "Deprecation" not in owner.get(f"{VERSIONS}/2").headers
    assert owner.put("/workflows/order-sync/current", json={"version": 2}).status_code == 200
    assert owner.post(f"{VERSIONS}/2/yank", json={"reason": ""}).status_code == 400
    assert owner.post(f"{VERSIONS}/9/yank", json={"reason": "x"}).status_code == 404


def test_a_version_is_described_after_its_publication(owner: Client) -> None:
    """The history names each change; the version's message stays."""
    before = owner.get(f"{VERSIONS}/1").json["message"]
    owner.patch(f"{VERSIONS}/1", json={"title": "Spring", "notes": "First"})
    now = owner.patch(f"{VERSIONS}/1", json={"notes": None}).json
    assert (now["title"], now["notes"]) == ("Spring", None)
    assert [each["notes"] for each in now["history"]] == [None, "First"]
    assert owner.get(f"{VERSIONS}/1/state").json == now
    read = owner.get(f"{VERSIONS}/1").json
    assert (read["message"], read["title"], read["notes"]) == (before, "Spring", None)


def test_yanking_needs_the_right_to_publish_and_describing_that_to_edit(house: House) -> None:
    editor, viewer = house.client("editor"), house.client("viewer")
    assert editor.post(f"{VERSIONS}/1/yank", json={"reason": "x"}).status_code == 403
    assert viewer.patch(f"{VERSIONS}/1", json={"title": "x"}).status_code == 403
    assert viewer.get(f"{VERSIONS}/1/state").status_code == 200


@pytest.fixture(scope="module")
def archived(house: House) -> str:
    """The path of an archived workflow with a version in `current` and in `qa`, and an open draft."""
    owner = house.client("owner")
    owner.put("/environments", json={"environments": [{"name": "qa"}]}, match="*")
    owner.create("stock", name="Stock")
    owner.publish("stock")
    at = "/workflows/stock"
    assert owner.put(f"{at}/environments/qa", json={"version": 1}).status_code == 200
    owner.post(f"{at}/versions", json={"definition": definition("https://two.example/")})
    done = owner.post(f"{at}/archive", json={"reason": "Replaced by order-sync"})
    assert (done.status_code, done.json["archived"]) == (200, True)
    return at


def test_an_archived_workflow_runs_nothing_and_pinned_runs_still_read_it(
    house: House, owner: Client, archived: str
) -> None:
    """The engines' short way and Flask's refuse alike; numbers, ids and the draft stay readable."""
    versions, identity = f"{archived}/versions", owner.get(archived).json["id"]
    engine = house.client("viewer")
    for name in ("current", "latest", "qa"):
        for path in (f"{versions}/{name}", f"{versions}/{name}/definition"):
            for query in ("", "?key=order-1", "?project=default"):
                problem(engine.get(path + query), 410, "not_running")
    problem(engine.get(f"/workflows/{identity}/versions/current"), 410, "not_running")
    problem(engine.get(f"{archived}/environments/qa?key=order-1"), 410, "not_running")
    pinned = engine.get(f"{versions}/1")
    assert pinned.status_code == 200
    for path in ("/1/definition", f"/{pinned.json['id']}", "/draft", ""):
        assert engine.get(f"{versions}{path}").status_code == 200
    (pointer,) = owner.get(f"{archived}/environments").json["environments"]
    assert pointer["version_number"] == 1


def test_an_archived_workflow_is_listed_on_request_alone(owner: Client, house: House, archived: str) -> None:
    """Searches and MeshHook's list leave it out, too, and so does MeshHook's view."""

    def listed(query: str) -> list[str]:
        page = owner.get(f"/workflows?{query}").json
        assert page["total"] == len(page["workflows"])
        return [each["slug"] for each in page["workflows"] if each["slug"] in ("order-sync", "stock")]

    assert listed("") == listed("archived=false") == ["order-sync"]
    assert listed("archived=true") == ["order-sync", "stock"]
    assert listed("archived=only") == listed("archived=only&q=stock") == ["stock"]
    assert listed("q=stock") == listed("filter=draft&q=stock") == []
    assert owner.get("/workflows?archived=yes").status_code == 400
    assert "stock" not in [each["slug"] for each in owner.get("/api/workflows").json["workflows"]]
    with house.database.as_owner() as tx:
        assert (
            tx.value(
                "select count(*) from gitstore.meshhook_versions v join gitstore.workflows w "
                "on w.id = v.workflow_id where w.slug = 'stock'"
            )
            == 0
        )


def test_every_change_of_an_archived_workflow_over_http_is_refused(owner: Client, archived: str) -> None:
    """With the command that unarchives it."""
    draft = {"definition": definition()}
    for method, path, body in (
        ("PATCH", "", {"name": "New"}), ("POST", "/rename", {"slug": "other"}),
        ("POST", "/versions", draft), ("PUT", "/versions/draft", draft),
        ("DELETE", "/versions/draft", None), ("POST", "/versions/publish", {}),
        ("POST", "/versions/1/revert", {}), ("PUT", "/current", {"version": 1}), ("DELETE", "/current", None),
        ("PATCH", "/versions/1", {"title": "x"}), ("POST", "/versions/1/yank", {"reason": "x"}),
        ("DELETE", "/versions/1/yank", None), ("PUT", "/environments/qa", {"version": 1}),
        ("DELETE", "/environments/qa", None),
    ):  # fmt: skip
        refused = owner(method, f"{archived}{path}", json=body, match="*")
        assert refused.status_code in (409, 422), (method, path, refused.text)
        assert "unarchive it first (gitstore unarchive stock)" in refused.text, (method, path, refused.text)
    problem(owner.post("/workflows", json={"slug": "stock"}), 409, "workflow_exists")
    assert owner.post(f"{archived}/archive").status_code == 200
    problem(owner.delete(archived), 409, "workflow_published")


def test_a_workflow_that_was_never_published_is_deleted_and_can_be_restored(owner: Client) -> None:
    """It is found by no read and no list; its slug is free until the deletion is taken back."""
    at = "/workflows/trial"
    draft = owner.create("trial").json["draft"]
    assert owner.delete(at).status_code == 204
    for path in (at, f"{at}/versions", f"{at}/versions/draft", f"/workflows/{draft['workflow_id']}"):
        problem(owner.get(path), 404, "workflow_not_found")
    problem(owner.delete(at), 404, "workflow_not_found")
    assert owner.get("/workflows?archived=true&q=trial").json["total"] == 0
    assert owner.delete(f"{at}/archive").json["archived"] is False
    restored = owner.post(f"{at}/versions/draft/restore")
    assert restored.json["commit"] == draft["commit"]
    owner.delete(at)
    assert owner.create("trial", name="Again").json["name"] == "Again"
    assert owner.publish("trial").status_code == 201
    problem(owner.delete(at), 409, "workflow_published")


def test_workflows_and_versions_are_changed_on_the_command_line(house: House, owner: Client) -> None:
    """Each command prints one line, or an object; a refusal is one line on stderr."""
    given = environment(DATABASE_URL=house.database.conninfo, GITSTORE_DATA=str(house.config.data))
    owner.create("by-hand")
    owner.publish("by-hand")

    def run(*arguments: str, status: int = 0) -> str:
        done = CliRunner(env=given).invoke(commands, arguments)
        assert done.exit_code == status, done.output
        return done.stdout if status == 0 else done.stderr

    yanked = json.loads(run("yank", "by-hand", "v1", "--reason", "It loses orders", "--json"))
    assert (yanked["version"], yanked["pointers"]) == (1, ["current"])
    assert owner.get("/workflows/by-hand/versions/1").json["yanked"] is True
    assert run("unyank", "by-hand", "1") == "v1 of by-hand is not yanked\n"
    assert (
        run("describe", "by-hand", "1", "--title", "First", "--notes", "") == "v1 of by-hand is described\n"
    )
    assert owner.get("/workflows/by-hand/versions/1").json["title"] == "First"
    run("describe", "by-hand", "--name", "By hand")
    assert owner.get("/workflows/by-hand").json["name"] == "By hand"
    assert "--title" in run("describe", "by-hand", "1", "--name", "x", status=2)
    assert run("archive", "by-hand", "--reason", "Replaced") == "by-hand is archived\n"
    refused = run("rename", "by-hand", "by-head", status=1)
    assert refused.splitlines()[0].endswith("unarchive it first (gitstore unarchive by-hand)")
    assert run("unarchive", "by-hand") == "by-hand is not archived\n"
    assert json.loads(run("rename", "by-hand", "by-head", "--json"))["workflow"] == "by-head"
    assert "archive it instead (gitstore archive by-head)" in run("delete", "by-head", status=1)
    run("archive", "by-head")
    owner.create("attempt")
    assert run("delete", "attempt") == "attempt is deleted\n"
    assert owner.get("/workflows/attempt").status_code == 404
