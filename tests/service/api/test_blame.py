"""/workflows/{id}/blame: which version last changed each node, edge and field."""

from __future__ import annotations

from typing import Any

import pytest

from service import comparison
from tests.service.api.conftest import Client, House

BLAME = "/workflows/order-sync/blame"


def node(name: str, x: int = 0, **config: Any) -> dict[str, Any]:
    return {
        "id": name,
        "type": "httpCall",
        "position": {"x": x, "y": 0},
        "data": {"label": name, "config": config},
    }


EDGES = [{"source": "a", "target": "b"}]
HISTORY: list[dict[str, Any]] = [
    {"name": "One", "nodes": [node("a", url="1"), node("b", url="1")], "edges": []},
    {"name": "One", "nodes": [node("b", url="1"), node("a", url="2")], "edges": []},
    {"name": "One", "nodes": [node("b", 50, url="1"), node("a", url="2")], "edges": EDGES},
    {"name": "One", "nodes": [node("b", 50, url="1", retry=1), node("a", url="1")],
     "edges": EDGES},
    {"name": "Two", "nodes": [node("b", 50, url="1"), node("a", url="1")], "edges": EDGES},
]  # fmt: skip


@pytest.fixture
def owner(house: House) -> Client:
    client = house.client(project=house.other)  # its rules accept any definition
    client.post("/workflows", json={"slug": "order-sync", "definition": HISTORY[0]})
    client.publish()
    for definition in HISTORY[1:]:
        client.post("/workflows/order-sync/versions", json={"definition": definition})
        assert client.publish().status_code == 201
    return client


def told(page: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each["version"] for each in page["elements"]}


def fields(page: dict[str, Any], name: str) -> dict[str, Any]:
    (each,) = [each for each in page["elements"] if each["name"] == name]
    return {field["pointer"].removeprefix(each["pointer"]): field["version"] for field in each["fields"]}


def test_each_element_names_the_version_that_last_changed_it(owner: Client) -> None:
    """Not its order or its layout; a removed field and a value that came back are changes."""
    page = owner.get(BLAME).json
    assert told(page) == {"name": 5, "a": 4, "b": 5, "a → b": 3}
    assert fields(page, "b")["/position/x"] == 3
    assert fields(page, "b")["/data/config/url"] == 1
    assert fields(page, "a") == {"/id": 1, "/type": 1, "/position/x": 1, "/position/y": 1, "/data/label": 1,
                                 "/data/config/url": 4}  # fmt: skip
    assert [row["version_number"] for row in page["versions"]] == [5, 4, 3, 1]
    assert page["next_cursor"] is None


def test_an_earlier_version_and_a_single_node_can_be_asked_for(owner: Client) -> None:
    assert told(owner.get(f"{BLAME}?version=2").json) == {"name": 1, "a": 2, "b": 1}
    assert told(owner.get(f"{BLAME}?version=3&node=a").json) == {"a": 2}
    assert owner.get(f"{BLAME}?node=none").json["code"] == "not_found"
    assert owner.get(f"{BLAME}?version=9").status_code == 404


@pytest.mark.parametrize("most", [1, 2, 3])
def test_pages_of_versions_tell_the_same(owner: Client, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """What is not known yet is null; the first page that tells of a field is right."""
    whole = owner.get(BLAME).json
    monkeypatch.setattr(comparison, "MOST_VERSIONS", most)
    found: dict[str, int | None] = {}
    cursor = ""
    while True:
        page = owner.get(f"{BLAME}?{cursor}").json
        for each in page["elements"]:
            for field in [*each["fields"], {"pointer": each["name"], "version": each["version"]}]:
                if found.get(field["pointer"]) is None:
                    found[field["pointer"]] = field["version"]
        if page["next_cursor"] is None:
            break
        cursor = f"cursor={page['next_cursor']}"
    expected = {each["name"]: each["version"] for each in whole["elements"]}
    expected |= {field["pointer"]: field["version"] for each in whole["elements"] for field in each["fields"]}
    assert found == expected


def test_a_cursor_of_another_history_is_malformed(owner: Client) -> None:
    for cursor in ("OTk", "NQ", "x"):  # 99, 5
        assert owner.get(f"{BLAME}?cursor={cursor}").json["code"] == "malformed", cursor
