"""Renames of workflows: ids stay, addresses redirect, and pushes to the old name report the new one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.api.conftest import Client, House, definition, opened, problem


@pytest.fixture(scope="module")
def house(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    with opened(postgres_admin_conninfo, migrated_template) as house:
        yield house


def test_ids_stay_and_former_addresses_redirect(owner: Client) -> None:
    owner.create("orders")
    before = owner.publish("orders").json
    renamed = owner.post("/workflows/orders/rename", json={"slug": "sales", "message": "Marketing"})
    assert renamed.status_code == 200, renamed.text
    assert (renamed.json["slug"], renamed.json["id"]) == ("sales", before["workflow_id"])
    owner.post("/workflows/sales/rename", json={"slug": "shop"})
    assert owner.publish("shop", "https://two.example/").json["version_number"] == 2
    for former in ("orders", "sales"):
        for path in (
            "",
            "/versions",
            "/versions/1",
            "/versions/current/definition?x=1",
            "/diff",
            "/activity",
        ):
            moved = owner.get(f"/workflows/{former}{path}")
            assert (moved.status_code, moved.headers["Location"]) == (308, f"/workflows/shop{path}"), path
        for path in ("/validate", "/versions", "/versions/publish", "/versions/1/revert"):
            moved = owner.post(f"/workflows/{former}{path}", json={})
            assert (moved.status_code, moved.headers["Location"]) == (308, f"/workflows/shop{path}"), path
        body = {"definition": definition("https://three.example/")}
        moved = owner.put(f"/workflows/{former}/versions/draft", json=body, match="*")
        assert moved.headers["Location"] == "/workflows/shop/versions/draft"
        problem(owner.post("/workflows", json={"slug": former}), 409, "workflow_exists")
    for name in ("shop", before["workflow_id"]):
        one = owner.get(f"/workflows/{name}/versions/1").json
        assert (one["id"], one["workflow"], one["workflow_id"]) == (
            before["id"],
            "shop",
            before["workflow_id"],
        )
        assert owner.get(f"/workflows/{name}/versions/current/definition").status_code == 200
        assert owner.get(f"/workflows/{name}/diff").status_code == 200
        kinds = [row["kind"] for row in owner.get(f"/workflows/{name}/activity").json["activity"]]
        assert kinds.count("renamed") == 2
    assert [row["slug"] for row in owner.get("/workflows").json["workflows"]] == ["shop"]


def test_a_slug_that_is_a_word_of_the_path_redirects_too(owner: Client) -> None:
    owner.create("workflows")
    owner.post("/workflows/workflows/rename", json={"slug": "api"})
    moved = owner.get("/workflows/workflows")
    assert (moved.status_code, moved.headers["Location"]) == (308, "/workflows/api")
    told = problem(owner.get("/api/workflows/workflows"), 404, "workflow_renamed")
    assert told["slug"] == "api"


def test_names_that_are_taken_or_no_slugs_are_refused(owner: Client) -> None:
    owner.create("one")
    owner.create("two")
    problem(owner.post("/workflows/one/rename", json={"slug": "two"}), 409, "workflow_exists")
    problem(owner.post("/workflows/one/rename", json={"slug": "Two"}), 422, "invalid_name")
    problem(owner.post("/workflows/none/rename", json={"slug": "three"}), 404, "workflow_not_found")
    item = {"workflow": "one", "version": 1}
    problem(owner.post("/releases", json={"name": "r", "items": [item]}), 422, "release_refused")


def test_another_tenants_former_slug_is_not_found(owner: Client, house: House) -> None:
    owner.create("theirs")
    owner.post("/workflows/theirs/rename", json={"slug": "theirs-now"})
    stranger = house.client("owner", house.other)
    problem(stranger.get("/workflows/theirs"), 404, "workflow_not_found")
