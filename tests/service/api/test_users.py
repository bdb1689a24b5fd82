"""Users: who they are by their JWT, and which project a request of theirs is about."""

from __future__ import annotations

import base64
import json
from uuid import uuid4

import pytest

from tests.service.api.conftest import Client, House, problem
from tests.service.users import ISSUER, SECRET, add_member, jwt_of


@pytest.fixture
def settings() -> dict[str, str]:
    return {"GITSTORE_JWT_ISSUERS": json.dumps([{"issuer": ISSUER, "secret": SECRET}])}


def test_a_member_has_its_role_in_the_project_that_the_request_names(house: House) -> None:
    """By slug or by id, else the project of the workflow in the path, else the only one; never another's."""
    ada = uuid4()
    user = Client(house.app, jwt_of(ada))
    refused = problem(user.get("/workflows"), 400, "project_required")
    assert "member of no project" in refused["detail"]
    problem(user.get("/workflows?project=default"), 404, "project_not_found")

    add_member(house.database, house.project.id, ada, "editor")
    made = user.create()
    assert user.get("/workflows").json["workflows"][0]["id"] == made.json["id"]
    problem(user.publish(), 403, "forbidden")

    theirs = house.client("owner", house.other)
    theirs.post("/workflows", json={"slug": "payroll"})
    payroll = theirs.get("/workflows/payroll").json["id"]
    for name in ("payroll", payroll, str(uuid4())):
        problem(user.get(f"/workflows/{name}"), 404, "workflow_not_found")
    for named in ("other", str(house.other.id), "nothing", "%00", "a%0Ab", "\N{SNOWMAN}" * 300):
        problem(user.get(f"/workflows?project={named}"), 404, "project_not_found")

    add_member(house.database, house.other.id, ada, "viewer")
    refused = problem(user.get("/workflows"), 400, "project_required")
    assert "default" not in refused["detail"]
    for named in ("other", str(house.other.id), str(house.other.id).upper()):
        assert [w["slug"] for w in user.get(f"/workflows?project={named}").json["workflows"]] == ["payroll"]
    assert user.get(f"/workflows/{payroll}").json["slug"] == "payroll"
    assert user.get(f"/workflows/{made.json['id']}/versions/draft").status_code == 200
    problem(user.get(f"/workflows/{uuid4()}"), 404, "workflow_not_found")
    problem(user.get(f"/workflows/{payroll}?project=default"), 404, "workflow_not_found")
    problem(user.get("/workflows/payroll"), 400, "project_required")


def test_the_owner_of_a_project_needs_no_membership(house: House) -> None:
    ada = uuid4()
    with house.database.as_owner() as tx:
        tx.run(
            "update gitstore.projects set owner = %(user)s where id = %(id)s", user=ada, id=house.project.id
        )
    user = Client(house.app, jwt_of(ada))
    assert user.get("/tokens").status_code == 200
    add_member(house.database, house.project.id, ada, "viewer")
    assert user.get("/tokens").status_code == 200


def test_git_takes_a_users_token_as_the_password(house: House) -> None:
    ada = uuid4()
    add_member(house.database, house.project.id, ada, "viewer")
    client = house.app.test_client()

    def refs(project: str, service: str, token: str) -> int:
        basic = base64.b64encode(f"ada:{token}".encode()).decode()
        return client.get(
            f"/{project}.git/info/refs?service={service}", headers={"Authorization": f"Basic {basic}"}
        ).status_code

    assert refs("default", "git-upload-pack", jwt_of(ada)) == 200
    assert refs("default", "git-receive-pack", jwt_of(ada)) == 403
    assert refs("other", "git-upload-pack", jwt_of(ada)) == 404
    assert refs("default", "git-upload-pack", jwt_of(ada, exp=1)) == 401
