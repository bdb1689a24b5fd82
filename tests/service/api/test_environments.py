"""Environments by HTTP and by the command line: rules, pointers, weights and promotion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import unquote_plus
from uuid import UUID

import pytest
from click.testing import CliRunner

from gitstore.environments import choose
from gitstore.model import Environment
from service.cli.main import commands
from service.lookup import cursor_to
from tests.service.api.conftest import Client, House, definition, opened, problem
from tests.service.api.test_engine_reads import counted
from tests.service.serve_process import environment

RULES = [
    {"name": "dev", "role": "editor", "follows": True},
    {"name": "staging"},
    {"name": "prod", "role": "owner", "hours": 24},
]


@pytest.fixture(scope="module")
def house(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    with opened(postgres_admin_conninfo, migrated_template) as house:
        house.client("owner").put("/environments", json={"environments": RULES})
        yield house


def versions(owner: Client, slug: str, count: int = 2) -> str:
    """Return the path of the environments of a new workflow with so many versions."""
    owner.create(slug, definition=definition("https://1.example/"))
    owner.publish(slug)
    for number in range(2, count + 1):
        owner.post(
            f"/workflows/{slug}/versions/publish",
            json={"definition": definition(f"https://{number}.example/")},
        )
    return f"/workflows/{slug}/environments"


def test_a_pointer_is_moved_read_and_removed(owner: Client) -> None:
    at = versions(owner, "moved")
    listed = owner.get(at).json["environments"]
    assert [(each["name"], each["version_number"]) for each in listed] == [
        ("dev", 2), ("staging", None), ("prod", None),
    ]  # fmt: skip
    made = owner.put(f"{at}/staging", json={"version": "latest", "message": "try it"})
    assert (made.status_code, made.json["version_number"], made.json["message"]) == (200, 2, "try it")
    assert made.headers["ETag"] == '"v2"'
    assert owner("GET", f"{at}/staging", headers={"If-None-Match": '"v2"'}).status_code == 304
    held = owner.put(f"{at}/staging", json={"version": 1, "hold": True}, match='"v2"').json
    assert (held["version_number"], held["held"], held["etag"]) == (1, True, "v1,held")
    problem(owner.put(f"{at}/staging", json={"version": 2}, match='"v2"'), 412, "environment_moved")
    assert owner.delete(f"{at}/staging").status_code == 204
    moves = owner.get(f"{at}/staging/history").json["moves"]
    assert [(move["version_number"], move["previous"], move["held"]) for move in moves] == [
        (None, 1, False), (1, 2, True), (2, None, False),
    ]  # fmt: skip
    assert owner.get(f"{at}/staging").json["etag"] == "none"
    page, found = f"{at}/staging/history?limit=2", []
    while page:
        answer = owner.get(page)
        found += answer.json["moves"]
        page = answer.headers["Link"].partition(">")[0].removeprefix("<") if "Link" in answer.headers else ""
    assert found == moves
    for wrong in ("x", cursor_to("0" * 40), cursor_to(owner.get("/environments").json["commit"])):
        problem(owner.get(f"{at}/staging/history?cursor={wrong}"), 400, "malformed")


def test_two_versions_share_the_keys_and_a_key_keeps_its_version(owner: Client) -> None:
    at = f"{versions(owner, 'shared')}/staging"
    assert owner.put(at, json={"weights": {"1": 90, "2": 10}}).json["weights"] == {"2": 10, "1": 90}
    keys = [f"order-{number}" for number in range(200)]
    first = [owner.get(f"{at}?key={key}").json["version_number"] for key in keys]
    assert first == [owner.get(f"{at}?key={key}").json["version_number"] for key in keys]
    assert 5 < first.count(2) < 40
    owner.put(at, json={"weights": {"1": 50, "2": 50}})
    second = [owner.get(f"{at}?key={key}").json["version_number"] for key in keys]
    assert all(after == 2 for before, after in zip(first, second, strict=True) if before == 2)
    assert second.count(2) > first.count(2)


@pytest.mark.parametrize("short", [True, False], ids=["short way", "Flask"])
def test_an_environment_is_read_wherever_a_version_is(house: House, owner: Client, short: bool) -> None:
    """By an engine, in front of Flask and in it, with the same bytes and headers."""
    slug = f"read-{short}".lower()
    at = versions(owner, slug)
    reader = Client(house.app, owner.token, {} if short else {"Content-Length": "0", "X-Any": "1"})
    query = "" if short else "&project=default"
    owner.put(f"{at}/staging", json={"version": 1})
    with counted(reader) as seen:
        assert reader.get(f"/workflows/{slug}/versions/staging{query.replace('&', '?')}").status_code == 200
    assert bool(seen) is not short
    for path in ("", "/definition"):
        by_number = reader.get(f"/workflows/{slug}/versions/1{path}")
        by_name = reader.get(f"/workflows/{slug}/versions/staging{path}{query.replace('&', '?')}")
        assert (by_name.status_code, by_name.data) == (200, by_number.data)
        assert by_name.headers["ETag"] == by_number.headers["ETag"]
        again = reader(
            "GET",
            f"/workflows/{slug}/versions/staging{path}",
            headers={"If-None-Match": by_name.headers["ETag"]},
        )
        assert again.status_code == 304
    owner.put(f"{at}/staging", json={"weights": {"1": 50, "2": 50}})
    problem(reader.get(f"/workflows/{slug}/versions/staging"), 400, "malformed")
    identity = UUID(owner.get(f"/workflows/{slug}").json["id"])
    pointer = Environment("staging", 2, 50, 1)
    chosen = set()
    for number in range(40):
        key = f"key-{number}"
        answer = reader.get(f"/workflows/{slug}/versions/staging?key={key}{query}").json
        assert answer["version_number"] == choose(pointer, identity, key)
        chosen.add(answer["version_number"])
    assert chosen == {1, 2}
    for key in ("Zo%C3%AB", "a+b", "", "x" * 200):
        number = reader.get(f"/workflows/{slug}/versions/staging?key={key}").json["version_number"]
        assert number == choose(pointer, identity, unquote_plus(key))
    problem(reader.get(f"/workflows/{slug}/versions/staging?key={'x' * 201}"), 400, "malformed")
    problem(reader.get(f"/workflows/{slug}/versions/prod"), 404, "not_published")
    problem(reader.get(f"/workflows/{slug}/versions/qa"), 404, "version_not_found")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"weights": {"1": 50, "2": 49}}, 422, "environment_invalid"),
        ({"weights": {"1": 50, "2": 60}}, 422, "environment_invalid"),
        ({"version": 1, "weights": {"1": 100}}, 400, "malformed"),
        ({}, 400, "malformed"),
        ({"version": 9}, 404, "version_not_found"),
        ({"version": "draft"}, 400, "malformed"),
        ({"weights": {"x": 100}}, 404, "version_not_found"),
        ({"version": 1, "what": 1}, 400, "malformed"),
    ],
)
def test_a_move_that_cannot_be_is_refused_in_words(
    owner: Client, body: dict[str, object], status: int, code: str
) -> None:
    if owner.get("/workflows/refused").status_code == 404:
        versions(owner, "refused")
    problem(owner.put("/workflows/refused/environments/staging", json=body), status, code)


def test_an_environment_that_is_not_defined_is_not_found(owner: Client) -> None:
    at = versions(owner, "nowhere")
    for name in ("qa", "current", "V3", "a" * 60):
        for answer in (owner.get(f"{at}/{name}"), owner.get(f"{at}/{name}/history")):
            problem(answer, 404, "environment_not_found")
    problem(owner.get("/workflows/absent/environments/dev"), 404, "workflow_not_found")


def test_the_rule_of_an_environment_names_who_may_move_it_and_after_what_time(
    house: House, owner: Client
) -> None:
    at = versions(owner, "ruled")
    editor, publisher = house.client("editor"), house.client("publisher")
    assert editor.put(f"{at}/dev", json={"version": 1}).status_code == 200
    assert (
        problem(editor.put(f"{at}/staging", json={"version": 1}), 403, "forbidden")["needed"] == "publisher"
    )
    assert publisher.put(f"{at}/staging", json={"version": 1}).status_code == 200
    assert problem(publisher.put(f"{at}/prod", json={"version": 1}), 403, "forbidden")["needed"] == "owner"
    refused = problem(owner.put(f"{at}/prod", json={"version": 1}), 422, "environment_refused")
    assert [(item["workflow"], item["code"]) for item in refused["items"]] == [("ruled", "too_early")]
    problem(
        publisher.post("/workflows/ruled/promote", json={"from": "staging", "to": "prod"}), 403, "forbidden"
    )


def test_several_workflows_are_promoted_in_one_step_after_a_preview(owner: Client) -> None:
    for slug in ("first", "second"):
        versions(owner, slug)
    body = {"from": "dev", "to": "staging", "workflows": ["first", "second"]}
    owner.put("/workflows/first/environments/staging", json={"version": 1})
    preview = owner.post("/promote/preview", json=body).json
    assert preview["refusals"] == []
    assert [(each["before"], each["changes"]) for each in preview["promotions"]] == [
        (1, "url of call changed"), (None, ""),
    ]  # fmt: skip
    promoted = owner.post("/promote", json=body).json["promotions"]
    assert [(each["workflow"], each["version_number"]) for each in promoted] == [("first", 2), ("second", 2)]
    late = owner.post("/promote/preview", json={**body, "from": "staging", "to": "prod"}).json
    assert {each["code"] for each in late["refusals"]} == {"too_early"}
    missing = problem(
        owner.post("/promote", json={**body, "workflows": ["first", "third"]}), 404, "workflow_not_found"
    )
    assert "third" in missing["detail"]
    assert (
        owner.post("/workflows/first/promote", json={"from": "staging", "to": "current"}).status_code == 200
    )


def test_rules_are_replaced_by_those_who_have_seen_them(owner: Client) -> None:
    read = owner.get("/environments")
    assert [rule["name"] for rule in read.json["environments"]] == ["dev", "staging", "prod"]
    body = {"environments": [*RULES, {"name": "dr", "role": "owner"}]}
    problem(owner.put("/environments", json=body), 428, "precondition_required")
    problem(owner.put("/environments", json=body, match='"none"'), 412, "environment_moved")
    changed = owner.put("/environments", json=body, match=read.headers["ETag"])
    assert [rule["name"] for rule in changed.json["environments"]][-1] == "dr"
    problem(
        owner.put("/environments", json={"environments": [{"name": "draft"}, {"name": "v1"}]}, match="*"),
        422,
        "environment_invalid",
    )
    versions(owner, "user")
    used = problem(
        owner.put("/environments", json={"environments": RULES[1:]}, match="*"), 409, "environment_used"
    )
    assert "user" in used["workflows"]
    assert owner.put("/environments", json={"environments": RULES}, match="*").status_code == 200
    assert "environments.changed" in {row["action"] for row in owner.get("/audit?limit=100").json["audit"]}


def test_the_command_line_does_all_of_it(house: House, owner: Client) -> None:
    versions(owner, "by-hand")
    runner, given = (
        CliRunner(),
        environment(DATABASE_URL=house.database.conninfo, GITSTORE_DATA=str(house.config.data)),
    )

    def run(*arguments: str, status: int = 0) -> list[dict[str, object]]:
        done = runner.invoke(commands, ["env", *arguments, "--json"], env=given)
        assert done.exit_code == status, done.output
        rows: list[dict[str, object]] = json.loads(done.stdout)
        return rows

    names = [row["environment"] for row in run("list")]
    assert names[:3] == ["dev", "staging", "prod"]
    assert (
        run("set", "by-hand", "staging", "v2=10", "v1=90", "--message", "canary")[0]["version"]
        == "v2:10,v1:90"
    )
    assert run("set", "by-hand", "staging", "2")[0]["version"] == "v2"
    assert [row["version"] for row in run("history", "by-hand", "staging")] == ["v2", "v2:10,v1:90"]
    page = runner.invoke(commands, ["env", "history", "by-hand", "staging", "--limit", "1"], env=given)
    options = page.stderr.partition("older moves: ")[2].split()
    assert [row["version"] for row in run("history", "by-hand", "staging", *options)] == ["v2:10,v1:90"]
    assert run("promote", "staging", "prod", "by-hand", "--dry-run", status=1)[0]["refused"]
    assert runner.invoke(commands, ["env", "promote", "staging", "prod", "by-hand"], env=given).exit_code == 1
    assert run("unset", "by-hand", "staging")[0]["version"] is None
    assert {row["environment"]: row["version"] for row in run("list", "by-hand")}["dev"] == "v2"
    assert run("define", "dev:role=editor,follows", "staging", "prod:role=owner,hours=24")[2]["hours"] == 24
