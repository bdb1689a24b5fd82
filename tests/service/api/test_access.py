"""Authorization: every endpoint for every role, without a token, and for another tenant."""

from __future__ import annotations

from dataclasses import dataclass
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


DRAFT = {"definition": definition("https://new.example/")}
CALLS = [
    Call("GET", "/workflows", "viewer", 200),
    Call("POST", "/workflows", "editor", 201, {"slug": "another"}),
    Call("GET", "/workflows/{id}", "viewer", 200),
    Call("POST", "/workflows/{id}/validate", "viewer", 200, DRAFT),
    Call("GET", "/workflows/{id}/versions", "viewer", 200),
    Call("POST", "/workflows/{id}/versions", "editor", 409, DRAFT),
    Call("GET", "/workflows/{id}/versions/1", "viewer", 200),
    Call("GET", "/workflows/{id}/versions/draft", "viewer", 200),
    Call("GET", "/workflows/{id}/versions/current", "viewer", 200),
    Call("GET", "/workflows/{id}/versions/1/definition", "viewer", 200),
    Call("PUT", "/workflows/{id}/versions/draft", "editor", 200, DRAFT, "*"),
    Call("DELETE", "/workflows/{id}/versions/draft", "editor", 204),
    Call("GET", "/workflows/{id}/versions/draft/superseded", "viewer", 200),
    Call("POST", "/workflows/{id}/versions/draft/restore", "editor", 409),
    Call("POST", "/workflows/{id}/versions/1/revert", "editor", 201, {}, "*"),
    Call("POST", "/workflows/{id}/versions/publish", "publisher", 201),
    Call("PUT", "/workflows/{id}/current", "publisher", 200, {"version": 1}),
    Call("DELETE", "/workflows/{id}/current", "publisher", 204),
    Call("GET", "/tokens", "owner", 200),
    Call("POST", "/tokens", "owner", 201, {"name": "x", "role": "viewer"}),
    Call("DELETE", "/tokens/{token}", "owner", 204),
]


@pytest.fixture
def names(house: House) -> dict[str, str]:
    """order-sync with v1, current, and another draft open; and a token to revoke."""
    owner = house.client("owner")
    owner.create()
    owner.publish()
    made = owner.post("/workflows/order-sync/versions", json={"definition": definition("https://2.example/")})
    token = owner.post("/tokens", json={"name": "victim", "role": "viewer"}).json["id"]
    return {"id": made.json["workflow_id"], "slug": "order-sync", "token": token}


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_each_role_has_its_permissions_only(house: House, names: dict[str, str], call: Call) -> None:
    """Roles below the required one are refused, and change nothing."""
    for role in ROLES[: ROLES.index(call.needs)]:
        refused = problem(call.by(house.client(role), **names), 403, "forbidden")
        assert (refused["needed"], refused["role"]) == (call.needs, role)
    assert call.by(house.client(call.needs), **names).status_code == call.status


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_every_endpoint_requires_a_token(house: House, names: dict[str, str], call: Call) -> None:
    problem(call.by(Client(house.app, ""), **names), 401, "unauthenticated")


@pytest.mark.parametrize("call", [call for call in CALLS if "{" in call.path], ids=str)
def test_objects_of_another_tenant_are_not_found(house: House, names: dict[str, str], call: Call) -> None:
    """By id and by slug, for the owner of another project: 404 as for a missing object, never 403."""
    other = house.client("owner", house.other)
    absent = {"id": "f006bb46-fe48-4d75-9eed-9f211fa75bee", "token": "f006bb46-fe48-4d75-9eed-9f211fa75bee"}
    theirs = call.by(other, **names)
    nowhere = call.by(other, **absent)
    assert theirs.status_code == nowhere.status_code == 404
    assert theirs.json["code"] == nowhere.json["code"]
    assert theirs.json["detail"].replace(names["id"], "X").replace(names["token"], "X") == nowhere.json[
        "detail"
    ].replace(absent["id"], "X")
    assert call.by(other, **{**names, "id": "order-sync"}).status_code == 404
    assert house.client("owner").get("/workflows/order-sync/versions/draft").status_code == 200


def test_objects_of_another_tenant_are_not_listed(house: House, names: dict[str, str]) -> None:
    other = house.client("owner", house.other)
    assert other.get("/workflows").json == {"workflows": [], "next_cursor": None}
    assert "victim" not in other.get("/tokens").text


def test_two_tenants_can_use_the_same_slug(house: House, names: dict[str, str]) -> None:
    other = house.client("owner", house.other)
    made = other.create("order-sync").json
    assert made["id"] != names["id"]
    assert other.publish().json["version_number"] == 1
    assert len(house.client("owner").get("/workflows/order-sync/versions").json["versions"]) == 2


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_project_must_be_the_callers_own(house: House, names: dict[str, str], call: Call) -> None:
    """Another tenant's project and a missing one give the same error."""
    owner = house.client("owner")
    for named in ("other", str(house.other.id), "nowhere", "", "%00", "default%20"):
        asked = Call(call.method, f"{call.path}?project={named}", "owner", 404, call.body, call.match)
        problem(asked.by(owner, **names), 404, "project_not_found")
    for named in ("default", str(house.project.id)):
        asked = Call(call.method, f"{call.path}?project={named}", "owner", 200, call.body, call.match)
        assert asked.by(owner, **names).status_code in (
            call.status,
            409,
            404 if call.method == "DELETE" else 200,
        )


def test_every_endpoint_is_in_the_table(house: House) -> None:
    """No endpoint is missing from the tests above."""
    known = {(call.method, call.path.replace("{token}", "{id}")) for call in CALLS}
    known = {
        (m, p.replace("/1", "/{v}").replace("/draft", "/{v}").replace("/current", "/{v}")) for m, p in known
    }
    found = set()
    for rule in house.app.url_map.iter_rules():
        if rule.endpoint.partition(".")[0] in ("workflows", "drafts", "versions", "current", "tokens"):
            path = rule.rule.replace("<id>", "{id}").replace("<version>", "{v}")
            path = path.replace("/draft", "/{v}").replace("/current", "/{v}")
            found |= {(m, path) for m in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    assert found == known


def test_each_role_includes_the_one_before_it() -> None:
    assert [role.value for role in Role] == ROLES
    assert set(access.NEEDED) == set(Permission)


def test_a_missing_repository_is_an_integrity_error(house: House, names: dict[str, str]) -> None:
    """409 integrity, and never an empty history; rows can still be read."""
    owner = house.client("owner")
    house.repository().rename(house.repository().with_suffix(".gone"))
    problem(owner.put("/workflows/order-sync/versions/draft", json=DRAFT, match="*"), 409, "integrity")
    problem(owner.get("/workflows/order-sync/versions/1/definition"), 409, "integrity")
    assert owner.get("/workflows/order-sync/versions/1").status_code == 200
    assert EXTENSION in house.app.extensions
