"""Files of other engines over HTTP and on the pages, in a project with the rules `any`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.api.conftest import Client, House, opened, problem
from tests.ui.visitor import visitor

FLOWS: list[Any] = [
    {"id": "t1", "type": "tab", "label": "Flow 1"},
    {"id": "n1", "type": "inject", "z": "t1", "x": 100, "wires": [["n2"]]},
]


@pytest.fixture(scope="module")
def shared(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    with opened(postgres_admin_conninfo, migrated_template) as house:
        yield house


@pytest.fixture
def other(shared: House) -> Client:
    return shared.client("owner", shared.other)


def pages(house: House, slug: str) -> None:
    """Every page of a workflow with two versions and a draft is shown."""
    ann = visitor(house, project=house.other)
    for page in ("", "/versions", "/versions/1", "/versions/draft", "/versions/1/download", "/edit"):
        assert ann.get(f"/ui/workflows/{slug}{page}").status == 200, page
    for sides in ("from=1&to=2", "from=2&to=draft"):
        assert ann.get(f"/ui/workflows/{slug}/compare?{sides}").status == 200, sides


def test_a_list_is_served_and_compared(shared: House, other: Client) -> None:
    made = other.post("/workflows", json={"slug": "red", "definition": FLOWS})
    assert made.status_code == 201, made.text
    assert other.publish("red").status_code == 201
    raw = json.dumps([FLOWS[0], {**FLOWS[1], "x": 7}]).encode()
    file = "application/vnd.gitstore.definition+json"
    assert other.post("/workflows/red/versions", data=raw, type=file).status_code == 201
    assert other.publish("red").json["node_count"] is None
    saved = other.post("/workflows/red/versions", data=b"- a\n", type="application/yaml")
    assert saved.json["problems"] == []
    assert other.get("/workflows/red/versions/1").json["definition"] == FLOWS
    bytes_of = "/workflows/red/versions/2/definition"
    assert other.get(bytes_of).data == raw
    json_only = {"Accept": "application/json"}
    assert other.get(bytes_of.replace("2", "1"), headers=json_only).json == FLOWS
    found = other.get("/workflows/red/diff?from=1&to=2").json
    assert (found["summary"], found["other"][0]["pointer"]) == ("x of n1 changed", "/1/x")
    assert other.post("/workflows/red/validate", json=FLOWS).json["valid"]
    listed = other.get("/api/workflows/red/versions").json["versions"]
    assert [row["definition"] for row in listed][-1] == FLOWS
    problem(other.put("/api/workflows/red", json={"nodes": []}), 400, "malformed")
    pages(shared, "red")


def test_meshhooks_rules_take_no_list(shared: House) -> None:
    owner = shared.client()
    refused = owner.post("/workflows", json={"slug": "red", "definition": FLOWS})
    found = problem(refused, 422, "definition_unparsable")
    assert [each["code"] for each in found["problems"]] == ["not_a_mapping"]
    owner.create("mesh")
    sent = owner.put("/workflows/mesh/versions/draft", data=b"[]", type="application/json", match="*")
    problem(sent, 400, "malformed")


def test_versions_stay_when_the_rules_change(shared: House) -> None:
    """A list and a graph are compared as values, and shown."""
    owner = shared.client("owner", shared.other)
    owner.post("/workflows", json={"slug": "mixed", "definition": FLOWS})
    owner.publish("mixed")
    try:
        assert owner.patch("/projects/other", json={"rules": "meshhook"}).status_code == 200
        owner = shared.client("owner", shared.other)
        assert owner.post("/workflows/mixed/versions", json={"definition": {"nodes": []}}).status_code == 201
        assert owner.get("/workflows/mixed/diff").json["other"]
        assert visitor(shared, project=shared.other).get("/ui/workflows/mixed/compare").status == 200
    finally:
        owner.patch("/projects/other", json={"rules": "any"})


def test_a_definition_of_four_mebibytes_is_taken(other: Client) -> None:
    text = ("text: " + "x" * (2**22 - 7) + "\n").encode()
    made = other.post("/workflows", json={"slug": "large", "definition": text.decode()})
    assert made.status_code == 201, made.text
    assert other.publish("large").status_code == 201
    assert other.get("/workflows/large/versions/1/definition").data == text
    sent = other.post("/workflows/large/versions", data=text + b"x", type="application/yaml")
    problem(sent, 413, "too_large")


TEMPLATE = "Resources:\n  Name: !Sub 'x-${Env}'\n---\na: 12345678901234567890\n"


def test_a_file_without_json_is_served_as_its_bytes(shared: House, other: Client) -> None:
    made = other.post("/workflows", json={"slug": "aws", "definition": TEMPLATE})
    assert [(p["code"], p["severity"], p["line"]) for p in made.json["problems"]] == [
        ("tag_not_supported", "warning", 2)
    ]
    assert other.publish("aws").status_code == 201
    changed = TEMPLATE.replace("Env", "Stage")
    saved = other.post("/workflows/aws/versions", data=changed, type="application/yaml")
    assert saved.json["message"] == "text changed, 1 line"
    other.publish("aws")
    other.post("/workflows/aws/versions", data=changed + "b: 1\n", type="application/yaml")
    version = other.get("/workflows/aws/versions/2").json
    assert version["definition"] is None
    assert version["valid"]
    assert version["digest"].startswith("sha256-bytes:")
    path = "/workflows/aws/versions/2/definition"
    assert other.get(path).text == changed
    refused = problem(other.get(path, headers={"Accept": "application/json"}), 406, "no_json")
    assert [(p["code"], p["line"], p["column"]) for p in refused["problems"]] == [("tag_not_supported", 2, 9)]
    found = other.get("/workflows/aws/diff?from=1&to=2").json
    assert (found["summary"], found["empty"], found["other"]) == ("text changed, 1 line", False, [])
    assert other.get("/workflows/aws/diff?from=2&to=2").json["empty"]
    assert "-  Name" in other.get("/workflows/aws/diff?from=1&to=2", headers={"Accept": "text/x-diff"}).text
    assert other.post("/workflows/aws/validate", data=TEMPLATE, type="application/yaml").json["valid"]
    problem(other.put("/api/workflows/aws", json={"nodes": []}), 400, "malformed")
    edit = {"patch": [{"op": "remove", "path": "/a"}]}
    problem(other.post("/workflows/aws/versions/draft/edit", json=edit), 406, "no_json")
    pages(shared, "aws")
    ann = visitor(shared, project=shared.other)
    assert "text changed, 1 line" in ann.get("/ui/workflows/aws/versions").html
    assert "!Sub" in ann.get("/ui/workflows/aws/versions/2").html


def test_integers_beyond_json_are_kept_in_json_text(other: Client) -> None:
    """JSON text has no limit of its own, so its bytes are served as JSON. An envelope must not have them."""
    raw = b'{"kind": "x", "a": 12345678901234567890}'
    other.post("/workflows", json={"slug": "big", "definition": raw.decode()})
    saved = other.put("/workflows/big/versions/draft", data=raw + b"\n", type="application/json", match="*")
    assert saved.status_code == 200, saved.text
    path = "/workflows/big/versions/draft"
    assert other.get(path).json["definition"] is None
    assert other.get(path + "/definition", headers={"Accept": "application/json"}).data == raw + b"\n"
    envelope = b'{"definition": ' + raw + b"}"
    sent = other.put(path, data=envelope, type="application/json", match="*")
    problem(sent, 422, "definition_unparsable")


def test_a_project_names_its_files(shared: House) -> None:
    """Whoever reads the project, and whoever writes, knows the names at once."""
    owner = shared.client("owner", shared.other)
    assert owner.get("/projects/other").json["file_name"] is None
    changed = owner.patch("/projects/other", json={"file_name": "flows.json"})
    assert (changed.status_code, changed.json["file_name"]) == (200, "flows.json")
    owner.post("/workflows", json={"slug": "named", "definition": json.dumps(FLOWS)})
    assert owner.publish("named").status_code == 201
    owner.patch("/projects/other", json={"file_name": "template.yaml"})
    assert owner.get("/workflows/named/versions/1/definition").json == FLOWS
    owner.patch("/projects/other", json={"file_name": "workflow.yaml"})
    for name in ("../x.yaml", ".x.yaml", "x.txt", "a/b.json", "x" * 99 + ".json", ""):
        problem(owner.patch("/projects/other", json={"file_name": name}), 400, "malformed")
    problem(
        shared.client("editor", shared.other).patch("/projects/other", json={"file_name": "a.json"}),
        403,
        "forbidden",
    )
    for number in range(18):
        last = owner.patch("/projects/other", json={"file_name": f"f{number}.json"})
    problem(last, 409, "limit_reached")
    assert owner.patch("/projects/other", json={"file_name": "workflow.yaml"}).status_code == 200
