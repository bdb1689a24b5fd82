"""/workflows/{id}/diff and `gitstore diff`: the choice of versions, and the forms of a difference."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.cli.main import commands
from tests.service.api.conftest import Client, House, definition, problem, yaml

DIFF = "/workflows/order-sync/diff"


@pytest.fixture
def history(owner: Client) -> Client:
    """v1, v2 (current) and a draft, each with its own URL."""
    owner.create()
    owner.publish(url="https://v1.example/")
    owner.publish(url="https://v2.example/")
    draft = definition("https://draft.example/", name="Orders")
    owner.post("/workflows/order-sync/versions", json={"definition": draft})
    return owner


def ends(answer: Any) -> tuple[str, ...]:
    """The versions compared, and both values of the one URL that differs."""
    (call,) = answer["nodes"]["changed"]
    (change,) = call["changes"]
    assert (call["id"], change["op"], change["pointer"]) == ("call", "replace", "/data/config/url")
    shown = [
        "draft" if side["state"] == "draft" else f"v{side['version_number']}"
        for side in (answer["from"], answer["to"])
    ]
    assert [change["before"], change["after"]] == [f"https://{side}.example/" for side in shown]
    return tuple(shown)


QUERIES = {
    "": ("v2", "draft"),
    "?from=1": ("v1", "draft"),
    "?from=v1&to=2": ("v1", "v2"),
    "?from=2&to=1": ("v2", "v1"),
    "?to=2": ("v1", "v2"),
    "?to=v2": ("v1", "v2"),
    "?to=current": ("v1", "v2"),
    "?to=latest": ("v1", "v2"),
    "?from=draft&to=current": ("draft", "v2"),
    "?from=latest": ("v2", "draft"),
}


@pytest.mark.parametrize("query", QUERIES)
def test_versions_are_chosen_by_name_or_default(history: Client, query: str) -> None:
    assert ends(history.get(DIFF + query).json) == QUERIES[query]


def test_without_a_draft_the_latest_version_is_compared(history: Client) -> None:
    """With the version before it, or with the current version if that is another."""
    history.delete("/workflows/order-sync/versions/draft", match="*")
    assert ends(history.get(DIFF).json) == ("v1", "v2")
    history.publish(url="https://v3.example/", activate=False)
    assert ends(history.get(DIFF).json) == ("v2", "v3")
    history.put("/workflows/order-sync/current", json={"version": 1})
    assert ends(history.get(DIFF).json) == ("v1", "v3")
    assert ends(history.get(DIFF + "?to=3").json) == ("v2", "v3")


def test_a_difference_lists_every_change(history: Client) -> None:
    """Added, removed and changed elements, each with its pointer, and a summary."""
    draft = definition("https://draft.example/", name="Orders")
    draft["nodes"].append({"id": "end", "type": "terminate", "position": {"x": 1, "y": 2}, "data": {}})
    draft["edges"] = [{"source": "hook", "target": "end", "sourceHandle": "yes"}]
    history.put("/workflows/order-sync/versions/draft", json={"definition": draft}, match="*")
    response = history.get(DIFF)
    assert (response.status_code, response.content_type) == (200, "application/json")
    assert response.headers["Vary"] == "Accept"
    found = response.json
    assert set(found) == {"from", "to", "layout", "empty", "summary", "nodes", "edges", "other"}
    assert found["summary"] == "1 node added, url of call changed, 1 edge added, 1 edge removed, name added"
    assert found["empty"] is False
    end = {"id": "end", "type": "terminate", "data": {}}
    assert found["nodes"]["added"] == [{"id": "end", "pointer": "/nodes/2", "value": end}]
    (edge,) = found["edges"]["added"]
    assert (edge["source"], edge["source_handle"], edge["target"], edge["target_handle"]) == (
        "hook", "yes", "end", None,
    )  # fmt: skip
    assert found["other"] == [{"op": "add", "pointer": "/name", "before": None, "after": "Orders"}]
    placed = history.get(DIFF + "?layout=true").json
    assert placed["layout"] is True
    assert placed["nodes"]["added"][0]["value"]["position"] == {"x": 1, "y": 2}


def test_renames_and_layout_are_reported_as_such(history: Client) -> None:
    draft = definition("https://v2.example/")
    draft["nodes"][1]["id"] = draft["edges"][0]["target"] = "ship"
    draft["nodes"][0]["position"] = {"x": 1, "y": 2}
    history.put("/workflows/order-sync/versions/draft", json={"definition": draft}, match="*")
    found = history.get(DIFF).json
    assert found["summary"] == "call renamed to ship"
    assert found["nodes"]["renamed"] == [
        {"before": "call", "after": "ship", "old_pointer": "/nodes/1", "pointer": "/nodes/1"}
    ]
    assert (found["nodes"]["changed"], found["edges"]["added"]) == ([], [])
    assert history.get(DIFF + "?layout=1").json["summary"] == "call renamed to ship, layout changed"


def test_a_save_without_a_message_is_summarized(history: Client) -> None:
    """So the history of a draft is readable. A given message is kept."""
    draft = "/workflows/order-sync/versions/draft"
    assert history.get(draft).json["message"] == "url of call changed, name added"
    saved = history.put(draft, json={"definition": definition("https://v2.example/")}, match="*")
    assert saved.json["message"] == "url of call changed, name removed"
    saved = history.put(draft, json={"definition": definition(), "message": "Mine"}, match="*")
    assert saved.json["message"] == "Mine"


def test_the_text_form_is_the_output_of_git_diff(owner: Client) -> None:
    """The stored lines, by Accept; a client that accepts neither form gets JSON."""
    for url in ("https://one.example/", "https://two.example/"):
        sent = {"data": yaml(url), "type": "application/yaml"}
        if url == "https://one.example/":
            owner.create()
            owner.put("/workflows/order-sync/versions/draft", match="*", **sent)
        else:
            owner.post("/workflows/order-sync/versions", **sent)
        owner.publish()
    response = owner.get(DIFF, headers={"Accept": "text/x-diff, application/json;q=0.5"})
    assert response.content_type == "text/x-diff; charset=utf-8"
    lines = response.text.splitlines()
    assert lines[:3] == [
        "diff --git a/workflow.yaml b/workflow.yaml", "--- a/workflow.yaml", "+++ b/workflow.yaml",
    ]  # fmt: skip
    changed = [line[0] + line[1:].strip() for line in lines[3:] if line[0] in "-+"]
    assert changed == [
        '-data: {label: Call, config: {url: "https://one.example/", method: POST}}',
        '+data: {label: Call, config: {url: "https://two.example/", method: POST}}',
    ]
    for accept in ("application/json", "*/*", "image/png", ""):
        assert owner.get(DIFF, headers={"Accept": accept}).content_type == "application/json"


def test_every_form_has_the_values_of_the_files(owner: Client, house: House) -> None:
    """Also those that look like secrets: the same reader may download the files."""
    owner.create(definition=definition("https://user:SECRET-1@a.example/"))
    owner.publish()
    content = definition("https://user:SECRET-2@a.example/")
    owner.post("/workflows/order-sync/versions", json={"definition": content})
    shown = (
        owner.get(DIFF).text,
        owner.get(DIFF, headers={"Accept": "text/x-diff"}).text,
        gitstore(house, "diff", "order-sync").output,
        gitstore(house, "diff", "order-sync", "--text").output,
    )
    assert all("SECRET-1" in each and "SECRET-2" in each for each in shown)


def test_missing_versions_are_not_compared(history: Client, house: House) -> None:
    """404, as for another tenant's workflow."""
    for query in ("?from=9", "?to=v9", "?from=draft&to=nine", "?to=1", "?from="):
        problem(history.get(DIFF + query), 404, "version_not_found")
    problem(history.get("/workflows/nothing/diff"), 404, "workflow_not_found")
    problem(house.client("viewer", house.other).get(DIFF), 404, "workflow_not_found")
    problem(Client(house.app, "").get(DIFF), 401, "unauthenticated")
    problem(history.get(DIFF + "?layout=perhaps"), 400, "malformed")
    history.create("fresh")
    problem(history.get("/workflows/fresh/diff"), 404, "version_not_found")
    problem(history.get("/workflows/fresh/diff?from=current"), 404, "not_published")
    problem(history.get("/workflows/fresh/diff?from=latest"), 404, "version_not_found")
    assert house.client("viewer").get(DIFF).status_code == 200


def test_definitions_for_the_rules_any_are_compared_by_keys(house: House) -> None:
    """They have no graph."""
    owner = house.client("owner", house.other)
    value: dict[str, Any] = {"steps": [{"name": "one", "n": 1}], "nodes": [{"id": "a", "position": 1}]}
    owner.create("any", definition=value)
    owner.publish("any")
    other = copy.deepcopy(value)
    other["steps"][0]["n"], other["nodes"][0]["position"] = 2, 2
    assert owner.post("/workflows/any/versions", json={"definition": other}).status_code == 201
    found = owner.get("/workflows/any/diff").json
    assert [change["pointer"] for change in found["other"]] == ["/nodes/0/position", "/steps/0/n"]
    assert found["nodes"]["changed"] == []
    assert found["summary"] == "position of a changed, n of one changed"


def gitstore(house: House, *arguments: str, status: int = 0) -> Result:
    """The command, in this process."""
    ours = {"DATABASE_URL": house.config.database_url, "GITSTORE_DATA": str(house.config.data)}
    absent: dict[str, str | None] = {name: None for name in os.environ if name.startswith("GITSTORE_")}
    result = CliRunner(env={**absent, **ours}).invoke(commands, arguments, color=True)
    assert result.exit_code == status, result.output
    return result


def test_the_command_shows_a_difference(history: Client, house: House) -> None:
    """The summary, then each change, in colors on a terminal."""
    shown = gitstore(house, "diff", "order-sync").output
    lines = shown.splitlines()
    assert lines[0] == "order-sync v2 -> draft: url of call changed, name added"
    assert '\x1b[31m-     "https://v2.example/"\x1b[0m' in lines
    assert '\x1b[32m+     "https://draft.example/"\x1b[0m' in lines
    assert gitstore(house, "diff", "order-sync", "v1", "2").output.startswith("order-sync v1 -> v2: url of")
    text = gitstore(house, "diff", "order-sync", "1", "2", "--text").output
    assert "--- a/workflow.yaml" in text
    assert "https://v1.example/" in text
    assert "has no version v9" in gitstore(house, "diff", "order-sync", "9", status=1).output
    assert "no workflow 'x'" in gitstore(house, "diff", "x", status=1).output
    assert "no project 'x'" in gitstore(house, "diff", "order-sync", "--project", "x", status=1).output


def test_control_characters_never_reach_the_terminal(owner: Client, house: House) -> None:
    """They are replaced."""
    owner.create()
    owner.publish()
    wild = definition("https://a.example/\x1b[2J", name="\x1b]0;owned\x07")
    assert owner.post("/workflows/order-sync/versions", json={"definition": wild}).status_code == 201
    for flags in ((), ("--text",)):
        shown = gitstore(house, "diff", "order-sync", *flags).output
        assert "owned" in shown
        assert "\x07" not in shown
        assert "\x1b[2J" not in shown
        assert "\x1b]" not in shown


def test_a_version_that_does_not_parse_is_compared_as_text_only(owner: Client, house: House) -> None:
    """It can be imported; its row has no definition."""
    owner.create()
    owner.publish(url="https://v1.example/")
    owner.publish(url="https://v2.example/")
    with house.database.as_owner() as tx:
        tx.connection.execute("alter table gitstore.workflow_versions disable trigger user")
        tx.connection.execute(
            "update gitstore.workflow_versions set definition = null, digest = null, valid = false"
        )
    refused = problem(owner.get(DIFF), 422, "definition_unparsable")
    assert "v1 of order-sync" in refused["detail"]
    assert owner.get(DIFF, headers={"Accept": "text/x-diff"}).status_code == 200


def test_the_document_describes_the_defaults(owner: Client) -> None:
    """Parameters by their names in the URL, and both forms of the answer."""
    operation = owner.get("/openapi.json").json["paths"]["/workflows/{id}/diff"]["get"]
    parameters = {each["name"]: each for each in operation["parameters"]}
    assert {"id", "from", "to", "layout", "project"} == set(parameters)
    assert "the version before `to`" in parameters["from"]["description"]
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/x-diff"}
