"""Withdraw a version without breaking pinned runs, and describe versions after publication."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.service.api.conftest import Client, House, definition, opened

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
