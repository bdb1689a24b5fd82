"""Authorization: every endpoint for every role, without a token, and for another tenant."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gitstore.model import Permission
from service import access
from service.access import Role
from service.context import EXTENSION
from tests.service.api.conftest import Client, House, definition, problem

ROLES = ["viewer", "editor", "publisher", "owner"]


@dataclass(frozen=True)
class Call:
    """An endpoint, the permission that it requires, and its status for a caller with it."""

    method: str
    path: str
    needs: str
    status: int
    body: Any = None
    match: str | None = None

    def by(self, client: Client, **names: str) -> Any:
        return client(self.method, self.path.format(**names), json=self.body, match=self.match)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


UNKNOWN = "f006bb46-fe48-4d75-9eed-9f211fa75bee"
HOST = "http://git.example"
DRAFT = {"definition": definition("https://new.example/")}
LATER = {"version": 1, "at": f"{datetime.now(UTC).year + 1}-01-01T00:00:00Z"}
RELEASE = {"name": "r-1", "items": [{"workflow": "order-sync", "draft": True}]}
CALLS = [
    Call("GET", "/workflows", "viewer", 200),
    Call("POST", "/workflows", "editor", 201, {"slug": "another"}),
    Call("GET", "/workflows/{id}", "viewer", 200),
    Call("GET", "/workflows/{id}/changes", "viewer", 200),
    Call("PATCH", "/workflows/{id}", "editor", 200, {"name": "Another"}),
    Call("POST", "/workflows/{id}/rename", "publisher", 200, {"slug": "renamed"}),
    Call("POST", "/workflows/{id}/archive", "publisher", 200, {"reason": "Replaced"}),
    Call("DELETE", "/workflows/{id}/archive", "publisher", 200),
    Call("DELETE", "/workflows/{id}", "publisher", 409),
    Call("GET", "/api/workflows", "viewer", 200),
    Call("POST", "/api/workflows", "editor", 201, {"name": "One more"}),
    Call("GET", "/api/workflows/{id}", "viewer", 200),
    Call("PUT", "/api/workflows/{id}", "editor", 200, {"nodes": [], "edges": []}),
    Call("GET", "/api/workflows/{id}/versions", "viewer", 200),
    Call("POST", "/api/workflows/{id}/versions", "editor", 404, {"version_id": UNKNOWN}),
    Call("DELETE", "/api/workflows/{id}", "publisher", 200),
    Call("POST", "/workflows/{id}/validate", "viewer", 200, DRAFT),
    Call("GET", "/workflows/{id}/versions", "viewer", 200),
    Call("POST", "/workflows/{id}/versions", "editor", 409, DRAFT),
    Call("GET", "/workflows/{id}/versions/1", "viewer", 200),
    Call("GET", "/workflows/{id}/versions/draft", "viewer", 200),
    Call("GET", "/workflows/{id}/versions/current", "viewer", 200),
    Call("GET", "/workflows/{id}/versions/1/definition", "viewer", 200),
    Call("GET", "/workflows/{id}/versions/1/state", "viewer", 200),
    Call("PATCH", "/workflows/{id}/versions/1", "editor", 200, {"title": "First"}),
    Call("POST", "/workflows/{id}/versions/1/yank", "publisher", 200, {"reason": "wrong"}),
    Call("DELETE", "/workflows/{id}/versions/1/yank", "publisher", 200),
    Call("PUT", "/workflows/{id}/versions/draft", "editor", 200, DRAFT, "*"),
    Call("DELETE", "/workflows/{id}/versions/draft", "editor", 204),
    Call("GET", "/workflows/{id}/versions/draft/superseded", "viewer", 200),
    Call("POST", "/workflows/{id}/versions/draft/restore", "editor", 409),
    Call("POST", "/workflows/{id}/versions/draft/edit", "editor", 200, {"patch": []}),
    Call("POST", "/workflows/{id}/versions/draft/merge", "editor", 200, {"base": 1, "definition": {}}),
    Call("POST", "/workflows/{id}/versions/1/revert", "editor", 201, {}, "*"),
    Call("POST", "/workflows/{id}/versions/publish", "publisher", 201),
    Call("PUT", "/workflows/{id}/current", "publisher", 200, {"version": 1}),
    Call("DELETE", "/workflows/{id}/current", "publisher", 204),
    Call("GET", "/environments", "viewer", 200),
    Call("PUT", "/environments", "owner", 428, {"environments": []}),
    Call("GET", "/workflows/{id}/environments", "viewer", 200),
    Call("GET", "/workflows/{id}/environments/{environment}", "viewer", 200),
    Call("PUT", "/workflows/{id}/environments/{environment}", "editor", 200, {"version": 1}),
    Call("DELETE", "/workflows/{id}/environments/{environment}", "editor", 204),
    Call("GET", "/workflows/{id}/environments/{environment}/history", "viewer", 200),
    Call("POST", "/workflows/{id}/promote", "editor", 200, {"from": "current", "to": "qa"}),
    Call("POST", "/promote", "editor", 200, {"from": "current", "to": "qa", "workflows": ["order-sync"]}),
    Call(
        "POST",
        "/promote/preview",
        "viewer",
        200,
        {"from": "qa", "to": "current", "workflows": ["order-sync"]},
    ),
    Call("GET", "/releases", "viewer", 200),
    Call("POST", "/releases", "publisher", 201, RELEASE),
    Call("POST", "/releases/preview", "viewer", 200, {"items": RELEASE["items"]}),
    Call("GET", "/releases/{release}", "viewer", 200),
    Call("POST", "/releases/{release}/rollback", "publisher", 200, {}),
    Call("GET", "/schedules", "viewer", 200),
    Call("GET", "/workflows/{id}/schedules", "viewer", 200),
    Call("GET", "/schedules/{schedule}", "viewer", 200),
    Call("DELETE", "/schedules/{schedule}", "editor", 204),
    Call("GET", "/audit", "owner", 200),
    Call("GET", "/tokens", "owner", 200),
    Call("POST", "/tokens", "owner", 201, {"name": "x", "role": "viewer"}),
    Call("DELETE", "/tokens/{token}", "owner", 204),
    Call("GET", "/workflows/{id}/diff", "viewer", 200),
    Call("GET", "/workflows/{id}/activity", "viewer", 200),
    Call("GET", "/activity", "viewer", 200),
    Call("GET", "/workflows/{id}/blame", "viewer", 200),
    Call("GET", "/sources", "owner", 200),
    Call("POST", "/sources", "owner", 201, {"url": f"{HOST}/b.git"}),
    Call("GET", "/sources/{source}", "owner", 200),
    Call("PATCH", "/sources/{source}", "owner", 200, {}),
    Call("DELETE", "/sources/{source}", "owner", 204),
    Call("POST", "/sources/{source}/sync", "owner", 202),
    Call("POST", "/sources/{source}/rotate", "owner", 200, {}),
    Call("POST", "/sources/{source}/divergences/{unknown}/resolve", "owner", 404, {"take": "ours"}),
    Call("GET", "/subscriptions", "owner", 200),
    Call("POST", "/subscriptions", "owner", 201, {"url": HOST}),
    Call("GET", "/subscriptions/{subscription}", "owner", 200),
    Call("PATCH", "/subscriptions/{subscription}", "owner", 200, {}),
    Call("DELETE", "/subscriptions/{subscription}", "owner", 204),
    Call("POST", "/subscriptions/{subscription}/rotate", "owner", 200, {}),
    Call("POST", "/subscriptions/{subscription}/test", "owner", 202),
    Call("POST", "/subscriptions/{subscription}/replay", "owner", 202, {"since": "2100-01-01T00:00:00Z"}),
    Call("GET", "/deliveries", "owner", 200),
    Call("GET", "/deliveries/{delivery}", "owner", 200),
    Call("POST", "/deliveries/{delivery}/redeliver", "owner", 202),
]
OF_PROJECTS = [
    Call("GET", "/projects", "viewer", 200),
    Call("GET", "/projects/{project}", "viewer", 200),
    Call("PATCH", "/projects/{project}", "owner", 200, {}),
    Call("DELETE", "/projects/{project}", "owner", 400),
    Call("GET", "/projects/{project}/schema", "viewer", 404),
    Call("PUT", "/projects/{project}/schema", "owner", 204, {}),
    Call("DELETE", "/projects/{project}/schema", "owner", 404),
    Call("GET", "/projects/{project}/members", "owner", 200),
    Call("GET", "/projects/{project}/members/{user}", "owner", 200),
    Call("PUT", "/projects/{project}/members/{user}", "owner", 200, {"role": "editor"}),
    Call("DELETE", "/projects/{project}/members/{user}", "owner", 204),
]
EVERY = [*CALLS, *OF_PROJECTS]
USERS_ONLY = {("POST", "/projects")}
"""Endpoints that refuse every access token."""


@pytest.fixture
def settings() -> dict[str, str]:
    return {"GITSTORE_EGRESS_ALLOW": f"{HOST.removeprefix('http://')}:80"}


@pytest.fixture
def names(house: House) -> dict[str, str]:
    """order-sync with v1, current, and another draft open; and the ids of an object of each kind."""
    owner = house.client("owner")
    owner.create()
    owner.publish()
    made = owner.post("/workflows/order-sync/versions", json={"definition": definition("https://2.example/")})
    token = owner.post("/tokens", json={"name": "victim", "role": "viewer"})
    source = owner.post("/sources", json={"url": f"{HOST}/a.git"})
    subscription = owner.post("/subscriptions", json={"url": HOST}).json["id"]
    delivery = owner.post(f"/subscriptions/{subscription}/test")
    user = owner.put(f"/projects/default/members/{UNKNOWN.replace('f', 'a')}", json={"role": "viewer"})
    ids = {"token": token, "source": source, "delivery": delivery}
    owner.put("/environments", json={"environments": [{"name": "qa", "role": "editor"}]})
    old = {"name": "r-0", "items": [{"workflow": "order-sync", "version": 1}]}
    return {
        **{name: answer.json["id"] for name, answer in ids.items()},
        "environment": "qa",
        "release": owner.post("/releases", json=old).json["name"],
        "schedule": owner.put("/workflows/order-sync/environments/qa", json=LATER).json["id"],
        "id": made.json["workflow_id"],
        "project": str(house.project.id),
        "user": user.json["user"],
        "subscription": subscription,
        "unknown": UNKNOWN,
    }


def test_roles_below_the_required_one_are_refused(house: House, names: dict[str, str]) -> None:
    clients = {role: house.client(role) for role in ROLES}
    for call in EVERY:
        for role in ROLES[: ROLES.index(call.needs)]:
            refused = problem(call.by(clients[role], **names), 403, "forbidden")
            assert (refused["needed"], refused["role"]) == (call.needs, role), call


def test_each_role_can_read_what_it_is_for(house: House, names: dict[str, str]) -> None:
    for call in EVERY:
        if call.method == "GET":
            assert call.by(house.client(call.needs), **names).status_code == call.status, call


@pytest.mark.parametrize("call", [call for call in EVERY if call.method != "GET"], ids=str)
def test_each_role_can_do_what_it_is_for(house: House, names: dict[str, str], call: Call) -> None:
    assert call.by(house.client(call.needs), **names).status_code == call.status


def test_every_endpoint_requires_a_token(house: House, names: dict[str, str]) -> None:
    for call in EVERY:
        problem(call.by(Client(house.app, ""), **names), 401, "unauthenticated")


def test_objects_of_another_tenant_are_not_found(house: House, names: dict[str, str]) -> None:
    """By id and by slug, for the owner of another project: 404 as for a missing object, never 403."""
    other = house.client("owner", house.other)
    missing = dict.fromkeys(names, UNKNOWN)
    for call in EVERY:
        if "{" in call.path:
            theirs, nowhere = call.by(other, **names), call.by(other, **missing)
            assert theirs.status_code == nowhere.status_code == 404, call
            assert theirs.json["code"] == nowhere.json["code"]
            detail = re.sub("|".join(names.values()), UNKNOWN, theirs.json["detail"])
            assert detail == nowhere.json["detail"]
        if "{id}" in call.path:
            assert call.by(other, **{**names, "id": "order-sync"}).status_code == 404
    owner = house.client("owner")
    for path in ("/workflows/{id}/versions/draft", "/sources/{source}", "/subscriptions/{subscription}"):
        assert owner.get(path.format(**names)).status_code == 200


@pytest.mark.parametrize("shown", ["x", UNKNOWN, "%00", "{}", "1", "a" * 300])
def test_unknown_ids_are_not_found(house: House, names: dict[str, str], shown: str) -> None:
    owner = house.client("owner")
    for call in CALLS:
        if "{" in call.path and "{id}" not in call.path:
            problem(call.by(owner, **dict.fromkeys(names, shown)), 404, "not_found")


def test_objects_of_another_tenant_are_not_listed(house: House, names: dict[str, str]) -> None:
    other = house.client("owner", house.other)
    assert other.get("/workflows").json == {"workflows": [], "total": 0, "next_cursor": None}
    assert "victim" not in other.get("/tokens").text
    assert other.get("/sources").json == {"sources": []}
    assert other.get("/subscriptions").json == {"subscriptions": []}
    for query in ("", f"?subscription={names['subscription']}"):
        assert other.get(f"/deliveries{query}").json["deliveries"] == []


def test_two_tenants_can_use_the_same_slug(house: House, names: dict[str, str]) -> None:
    other = house.client("owner", house.other)
    made = other.create("order-sync").json
    assert made["id"] != names["id"]
    assert other.publish().json["version_number"] == 1
    assert len(house.client("owner").get("/workflows/order-sync/versions").json["versions"]) == 2


def test_project_must_be_the_callers_own(house: House, names: dict[str, str]) -> None:
    """Another tenant's project and a missing one give the same error."""
    owner = house.client("owner")
    for call in CALLS:
        for project in ("other", str(house.other.id), "nowhere", "", "%00", "default%20"):
            asked = replace(call, path=f"{call.path}?project={project}")
            problem(asked.by(owner, **names), 404, "project_not_found")
        for project in ("default", str(house.project.id)):
            asked = replace(call, path=f"{call.path}?project={project}")
            assert call.method != "GET" or asked.by(owner, **names).status_code == 200, call


def test_every_endpoint_is_in_the_table(house: House) -> None:
    """No endpoint is missing from the tests above."""
    apart = ("static", "embedding", "docs", "git", "ui", "hooks", "health")
    routes = {
        (method, _pattern(rule.rule))
        for rule in house.app.url_map.iter_rules()
        if rule.endpoint.partition(".")[0] not in apart
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert routes == {(call.method, _pattern(call.path)) for call in EVERY} | USERS_ONLY


def _pattern(path: str) -> str:
    return re.sub(r"/(1|draft|current|\{\w+\}|<\w+>)(?=/|$)", "/{}", path)


def test_each_role_includes_the_one_before_it() -> None:
    assert [role.value for role in Role] == ROLES
    assert set(access.NEEDED) == set(Permission)


def test_a_missing_repository_is_an_integrity_error(house: House, names: dict[str, str]) -> None:
    """409 integrity, and never an empty history; engines still read versions, which Postgres has."""
    owner = house.client("owner")
    house.repository().rename(house.repository().with_suffix(".gone"))
    problem(owner.put("/workflows/order-sync/versions/draft", json=DRAFT, match="*"), 409, "integrity")
    for path in ("1", "1/definition", "current/definition"):
        assert owner.get(f"/workflows/order-sync/versions/{path}").status_code == 200
    assert EXTENSION in house.app.extensions


@pytest.mark.parametrize(
    "path",
    ["/workflows?limit=x", "/workflows/a/versions?limit=-1", "/sources/x", "/tokens?limit=1000&cursor=x"],
)
def test_a_stranger_learns_nothing_about_parameters(house: House, path: str) -> None:
    """Whatever is wrong with them, the credential is checked first."""
    for token in ("", "x", "gst_" + "x" * 43):
        problem(Client(house.app, token).get(path), 401, "unauthenticated")
    assert house.client().get("/workflows?limit=x").status_code == 400
