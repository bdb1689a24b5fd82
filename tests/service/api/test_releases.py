"""/releases: several workflows in one step, by HTTP and by the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from service.cli.main import commands
from tests.service.api.conftest import Client, House, definition, opened, problem
from tests.service.serve_process import environment


@pytest.fixture(scope="module")
def house(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    with opened(postgres_admin_conninfo, migrated_template) as house:
        yield house


def five(owner: Client, prefix: str) -> list[dict[str, Any]]:
    """Five workflows with v1 and an open draft; their items of a release."""
    items = []
    for number in range(5):
        slug = f"{prefix}-{number}"
        owner.create(slug, definition=definition("https://one.example/"))
        owner.publish(slug)
        draft = owner.post(
            f"/workflows/{slug}/versions", json={"definition": definition("https://two.example/")}
        )
        items.append({"workflow": slug, "draft": draft.json["commit"]})
    return items


def currents(owner: Client, items: list[dict[str, Any]]) -> set[int]:
    return {owner.get(f"/workflows/{item['workflow']}").json["current"]["version_number"] for item in items}


def test_five_workflows_are_released_at_once_and_rolled_back(owner: Client) -> None:
    items = five(owner, "a")
    preview = owner.post("/releases/preview", json={"items": items}).json
    assert preview["refusals"] == []
    assert {item["changes"] for item in preview["items"]} == {"url of call changed"}
    assert currents(owner, items) == {1}
    made = owner.post("/releases", json={"name": "2026-48", "items": items, "message": "Autumn"})
    assert made.status_code == 201, made.text
    assert made.headers["Location"] == "https://gitstore.example/releases/2026-48"
    assert {(item["version_number"], item["before"], item["now"]) for item in made.json["items"]} == {
        (2, 1, 2)
    }
    assert currents(owner, items) == {2}
    again = owner.post("/releases", json={"name": "2026-48", "items": items, "message": "Autumn"})
    assert (again.status_code, again.json) == (200, made.json)
    listed = owner.get("/releases").json["releases"][0]
    assert (listed["name"], listed["workflows"], listed["standing"], listed["message"]) == (
        "2026-48", 5, 5, "Autumn",
    )  # fmt: skip
    returned = owner.post("/releases/2026-48/rollback", json={"message": "Wrong"}).json["returned"]
    assert {(each["left"], each["now"]) for each in returned} == {(2, 1)}
    assert currents(owner, items) == {1}
    assert owner.post("/releases/2026-48/rollback").json == {"returned": []}
    assert owner.get("/releases/2026-48").json["standing"] == 0
    actions = [row["action"] for row in owner.get("/audit?limit=100").json["audit"]]
    assert {"release.created", "release.rolled_back"} <= set(actions)


def test_one_answer_lists_every_gate_that_fails(owner: Client) -> None:
    """422 with each; 409 if all that is wrong is that drafts moved."""
    good, moved, broken, *_ = five(owner, "b")
    moved["draft"] = "0" * 40
    worse = {"nodes": [{"id": "a", "type": "httpCall", "data": {"label": "A", "config": {}}}], "edges": []}
    broken["draft"] = owner.put(
        f"/workflows/{broken['workflow']}/versions/draft", json={"definition": worse}, match="*"
    ).json["commit"]
    unknown = {"workflow": "nowhere", "version": 3}
    body = {"name": "b", "items": [good, moved, broken, unknown]}
    refused = problem(owner.post("/releases", json=body), 422, "release_refused")
    codes = {item["workflow"]: item["code"] for item in refused["items"]}
    assert codes == {"b-1": "stale_draft", "b-2": "definition_invalid", "nowhere": "workflow_not_found"}
    (found,) = [item for item in refused["items"] if item["workflow"] == "b-2"]
    assert "http_url_missing" in {each["code"] for each in found["problems"]}
    preview = owner.post("/releases/preview", json={"items": body["items"]}).json
    assert {item["workflow"]: item["code"] for item in preview["refusals"]} == codes
    only = problem(
        owner.post("/releases", json={"name": "b", "items": [good, moved]}), 409, "release_conflict"
    )
    assert [item["workflow"] for item in only["items"]] == ["b-1"]
    assert currents(owner, [good, moved]) == {1}
    problem(owner.get("/releases/b"), 404, "not_found")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x", "items": []}, 400), ({"name": "X!", "items": [{"workflow": "a", "version": 1}]}, 422),
        ({"name": "x", "items": [{"workflow": "a"}]}, 400),
        ({"name": "x", "items": [{"workflow": "a", "version": 1, "draft": True}]}, 400),
        ({"name": "x", "items": [{"workflow": "a", "draft": "abc"}]}, 400),
        ({"name": "x", "items": [{"workflow": "a", "version": 1}] * 2}, 400),
        ({"name": "x", "items": [{"workflow": "a", "version": 1}], "environment": "nowhere"}, 404),
        ({"name": "x", "items": [{"workflow": "no where", "version": 1}]}, 404),
        ({"name": "x", "items": [{"workflow": f"a{n}", "version": 1} for n in range(201)]}, 400),
    ],
)  # fmt: skip
def test_malformed_releases_are_refused(owner: Client, body: dict[str, Any], status: int) -> None:
    assert owner.post("/releases", json=body).status_code == status


def test_words_ids_and_pages(owner: Client) -> None:
    items = five(owner, "c")
    ids = [owner.get(f"/workflows/{item['workflow']}").json["id"] for item in items]
    for number, identity in enumerate(ids[:3]):
        item = {"workflow": identity, "version": "latest"}
        assert owner.post("/releases", json={"name": f"c.{number}", "items": [item]}).status_code == 201
    first = owner.get("/releases?limit=2").json
    second = owner.get(f"/releases?limit=100&cursor={first['next_cursor']}").json
    named = [row["name"] for row in (*first["releases"], *second["releases"])]
    assert sorted(named) == sorted(set(named))
    assert {"c.0", "c.1", "c.2"} <= set(named)
    hotfix = owner.publish("c-0", "https://hotfix.example/")
    assert hotfix.status_code == 201
    refused = problem(owner.post("/releases/c.0/rollback"), 409, "release_conflict")
    assert [item["workflow"] for item in refused["items"]] == ["c-0"]
    forced = owner.post("/releases/c.0/rollback", json={"force": True}).json["returned"]
    assert [(each["left"], each["now"]) for each in forced] == [(2, 1)]


def test_the_command_line_releases_and_rolls_back(owner: Client, house: House) -> None:
    items = five(owner, "d")
    wanted = environment(DATABASE_URL=house.config.database_url or "", GITSTORE_DATA=str(house.config.data))

    def gitstore(*arguments: str, status: int = 0) -> str:
        result = CliRunner(env=wanted).invoke(commands, ["release", *arguments])
        assert result.exit_code == status, result.output
        return result.output

    choices = [f"{item['workflow']}=draft" for item in items]
    assert "url of call changed" in gitstore("create", "night", *choices, "--dry-run")
    shown = json.loads(gitstore("create", "night", *choices, "--message", "Night", "--json"))
    assert {(row["version"], row["how"], row["before"]) for row in shown} == {("v2", "published", "v1")}
    assert "night" in gitstore("list")
    assert json.loads(gitstore("show", "night", "--json")) == shown
    assert currents(owner, items) == {2}
    gitstore("rollback", "night", "--message", "Too early")
    assert currents(owner, items) == {1}
    assert "d-0: d-0 has no version v9" in gitstore("create", "x", "d-0=9", "d-1=v1", status=1)
    gitstore("create", "x", "d-0", status=2)
    gitstore("show", "nothing", status=1)
