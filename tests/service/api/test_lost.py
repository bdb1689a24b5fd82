"""A version that the repository lost: listed as lost, served from the database, or 410 with its facts."""

from __future__ import annotations

import shutil

import pytest

from gitstore.store import Store
from tests.service.api.conftest import Client, House, definition, problem, yaml

WORKFLOW = "/workflows/order-sync"
VERSIONS = f"{WORKFLOW}/versions"


@pytest.fixture
def lost(house: House, owner: Client) -> Client:
    """v1 and v2 of order-sync are lost with the repository; their rows are marked."""
    raw = {"data": yaml(), "type": "application/yaml"}
    owner.create()
    assert owner.put(f"{VERSIONS}/draft", match="*", **raw).status_code == 200
    owner.publish()
    owner.publish(url="https://b.example/")
    path = house.repository()
    shutil.rmtree(path)
    Store.init(path)
    with house.database.as_owner() as tx:
        tx.run("select set_config('gitstore.upkeep', 'on', true)")
        tx.run("update gitstore.workflow_versions set state = 'lost' where state = 'published'")
        tx.run(
            "update gitstore.workflows set latest_number = 0, current_version_id = null, "
            "draft_commit = null, ledger_oid = null"
        )
    return owner


def drop_objects(house: House) -> None:
    with house.database.as_owner() as tx:
        tx.run("select set_config('gitstore.upkeep', 'on', true)")
        tx.run("delete from gitstore.git_objects")


def test_lost_versions_are_listed_as_lost(lost: Client) -> None:
    found = lost.get(VERSIONS).json["versions"]
    assert [(one["version_number"], one["state"]) for one in found] == [(2, "lost"), (1, "lost")]
    assert [one["version_number"] for one in lost.get(f"{VERSIONS}?state=lost").json["versions"]] == [2, 1]
    for state in ("published", "draft"):
        assert lost.get(f"{VERSIONS}?state={state}").json["versions"] == []
    assert lost.get(WORKFLOW).json["current"] is None


def test_a_lost_version_is_served_from_the_database(house: House, lost: Client) -> None:
    """Byte for byte, also to a viewer."""
    for client in (lost, house.client("viewer")):
        raw = client.get(f"{VERSIONS}/1/definition")
        assert (raw.status_code, raw.data) == (200, yaml())
        assert client.get(f"{VERSIONS}/1").json["definition"]["name"] == "Order sync"
        asked = client.get(f"{VERSIONS}/2/definition", headers={"Accept": "application/json"})
        assert asked.json == definition("https://b.example/")
        assert client.get(f"{WORKFLOW}/diff?from=1&to=2").status_code == 200
        text = client.get(f"{WORKFLOW}/diff?from=1&to=2", headers={"Accept": "text/x-diff"})
        assert (text.status_code, "b.example" in text.text) == (200, True)


@pytest.mark.parametrize("path", ["/1", "/2", "/v1/definition", "/2/definition"])
def test_a_lost_version_without_a_copy_is_gone_with_its_facts(house: House, lost: Client, path: str) -> None:
    listed = {one["version_number"]: one for one in lost.get(VERSIONS).json["versions"]}
    drop_objects(house)
    for accept in ("application/yaml", "application/json"):
        found = problem(lost.get(f"{VERSIONS}{path}", headers={"Accept": accept}), 410, "version_lost")
        known = listed[found["version_number"]]
        for fact in ("commit", "digest", "published_at", "published_by"):
            assert found[fact] == known[fact]


def test_the_text_difference_to_a_version_without_a_copy_is_gone(house: House, lost: Client) -> None:
    drop_objects(house)
    text = lost.get(f"{WORKFLOW}/diff?from=1&to=2", headers={"Accept": "text/x-diff"})
    problem(text, 410, "version_lost")


def test_another_tenant_cannot_read_stored_objects(house: House, lost: Client) -> None:
    stranger = house.client("owner", house.other)
    for path in ("/1", "/1/definition"):
        problem(stranger.get(f"{VERSIONS}{path}"), 404, "workflow_not_found")


def test_a_lost_version_cannot_be_used(lost: Client) -> None:
    """It cannot become current or a draft until an operator restores it."""
    problem(lost.put(f"{WORKFLOW}/current", json={"version": 1}), 404, "workflow_not_found")
    problem(lost.post(f"{VERSIONS}/1/revert"), 404, "workflow_not_found")
    again = lost.post("/workflows", json={"slug": "order-sync", "definition": definition()})
    assert again.status_code == 201
    problem(lost.put(f"{WORKFLOW}/current", json={"version": 1}), 404, "version_not_found")
    assert lost.publish().json["version_number"] == 3


def test_engines_read_definitions_from_postgres_alone(house: House, owner: Client) -> None:
    """Without the repository, in each form of the URL, and also for a client with an older copy."""
    owner.create()
    owner.put(f"{VERSIONS}/draft", match="*", data=yaml(), type="application/yaml")
    identity = owner.publish().json["id"]
    path = house.repository()
    path.rename(path.with_suffix(".away"))
    viewer = house.client("viewer")
    for version in ("1", "v1", "current", "latest", identity):
        for headers in ({}, {"If-None-Match": '"older"'}):
            found = viewer.get(f"{VERSIONS}/{version}/definition", headers=headers)
            assert (found.status_code, found.data) == (200, yaml())
        assert viewer.get(f"{VERSIONS}/{version}").json["definition"]["name"] == "Order sync"
        known = {"If-None-Match": found.headers["ETag"]}
        assert viewer.get(f"{VERSIONS}/{version}/definition", headers=known).status_code == 304


@pytest.mark.parametrize("kept", [b"name: another", None], ids=["damaged", "not kept"])
def test_a_definition_that_postgres_has_not_intact_is_read_from_git(
    house: House, owner: Client, kept: bytes | None
) -> None:
    owner.create()
    owner.put(f"{VERSIONS}/draft", match="*", data=yaml(), type="application/yaml")
    owner.publish()
    with house.database.as_owner() as tx:
        tx.run("select set_config('gitstore.upkeep', 'on', true)")
        tx.run("update gitstore.git_objects set bytes = %(kept)s where kind = 'blob'", kept=kept)
    for headers in ({}, {"If-None-Match": '"older"'}):
        found = owner.get(f"{VERSIONS}/1/definition", headers=headers)
        assert (found.status_code, found.data) == (200, yaml())


def test_a_client_with_a_copy_notices_that_its_version_is_lost(house: House, owner: Client) -> None:
    owner.create()
    published = owner.publish()
    tag = owner.get(f"{VERSIONS}/1").headers["ETag"]
    assert published.headers["ETag"] == tag
    assert owner.get(f"{VERSIONS}/1", headers={"If-None-Match": tag}).status_code == 304
    with house.database.as_owner() as tx:
        tx.run("select set_config('gitstore.upkeep', 'on', true)")
        tx.run("update gitstore.workflow_versions set state = 'lost' where state = 'published'")
    changed = owner.get(f"{VERSIONS}/1", headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json["state"]) == (200, "lost")
