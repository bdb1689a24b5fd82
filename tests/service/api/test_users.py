"""Users: who they are by their JWT, and which project a request of theirs is about."""

from __future__ import annotations

import base64
import json
import subprocess
from collections import defaultdict
from uuid import uuid4

import pytest

from service.access import Identity, Principal, Role
from service.auth import Authenticator
from tests.service.api.conftest import Client, House, definition, problem
from tests.service.api.test_access import EVERY, LATER
from tests.service.users import ISSUER, SECRET, add_member, jwt_of


@pytest.fixture
def settings() -> dict[str, str]:
    return {"GITSTORE_JWT_ISSUERS": json.dumps([{"issuer": ISSUER, "secret": SECRET}])}


def test_a_member_has_its_role_in_the_project_that_the_request_names(house: House) -> None:
    """By slug or by id, else the project of the workflow in the path, else the only one; never another's."""
    ada = uuid4()
    user = Client(house.app, jwt_of(ada))
    refused = problem(user.get("/workflows"), 400, "project_required")
    assert "not a member of any project" in refused["detail"]
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


def entries(house: House, slug: str = "order-sync") -> str:
    """The messages of the ledger, newest first."""
    command = ["git", "-C", str(house.repository()), "log", "--format=%an <%ae>%n%B", f"refs/ledger/{slug}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_ledger_keeps_who_published_by_issuer_and_subject(house: House) -> None:
    """By the page of the host or by git; the name is what the user calls themselves."""
    ada = uuid4()
    add_member(house.database, house.project.id, ada, "publisher")
    user = Client(house.app, jwt_of(ada))
    user.create()
    assert user.publish().json["published_by"] == "Ada Lovelace"
    newest = entries(house).partition("Created")[0]
    assert newest.startswith("Ada Lovelace <ada@example.com>\nPublished order-sync v1\n")
    assert f'Gitstore-Issuer: "{ISSUER}"\nGitstore-Subject: "{ada}"\n' in newest
    nameless = Client(house.app, jwt_of(ada, email=None, user_metadata={"name": "token:ci\n<x>"}))
    assert nameless.publish(url="https://2.example/").json["published_by"] == "tokencix"
    with house.database.as_owner() as tx:
        actors = tx.tuples(
            "select distinct actor_id, actor_name from gitstore.audit_log where door = 'http' order by 2"
        )
    assert actors == [(str(ada), "Ada Lovelace"), (str(ada), "tokencix")]


def test_a_program_may_say_for_which_user_it_acts_if_it_may_publish(house: House) -> None:
    header = {"Gitstore-On-Behalf-Of": "auth0|eve"}
    author = {"name": "Eve", "email": "eve@example.com"}
    publisher = house.client("publisher")
    publisher.create(author=author)
    done = publisher.post("/workflows/order-sync/versions/publish", json={"author": author}, headers=header)
    assert done.status_code == 201, done.text
    newest = entries(house).partition("Created")[0]
    assert newest.startswith("token:publisher-")
    assert 'Gitstore-On-Behalf-Of: "auth0|eve"\n' in newest
    assert "Gitstore-Subject" not in newest
    ada = uuid4()
    add_member(house.database, house.project.id, ada, "owner")
    draft = {"definition": definition("https://3.example/")}
    for client in (house.client("editor"), Client(house.app, jwt_of(ada))):
        refused = client.post("/workflows/order-sync/versions", json=draft, headers=header)
        problem(refused, 403, "forbidden")
    for strange in ("", "a b", "x" * 201, "\N{LATIN SMALL LETTER E WITH ACUTE}"):
        refused = publisher.get("/workflows", headers={"Gitstore-On-Behalf-Of": strange})
        problem(refused, 400, "malformed")


def test_row_level_security_hides_a_tenants_rows_from_an_application_that_authorizes_everybody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application takes a stranger for an owner of the project, at every endpoint."""
    owner = house.client("owner")
    owner.create("order-sync", name="Secret name", description="Secret description")
    owner.publish(message="Secret message")
    workflow = owner.get("/workflows/order-sync").json["id"]
    token = owner.post("/tokens", json={"name": "Secret token", "role": "viewer"}).json["id"]
    hook = {"url": "https://secret.example/hook"}
    subscription = owner.post("/subscriptions", json=hook).json["id"]
    delivery = owner.post(f"/subscriptions/{subscription}/test").json["id"]
    source = owner.post("/sources", json={"url": "https://secret.example/a.git"}).json["id"]
    owner.put("/environments", json={"environments": [{"name": "qa"}]})
    owner.put("/workflows/order-sync/environments/qa", json={"version": 1, "message": "Secret reason"})
    items = [{"workflow": "order-sync", "version": 1}]
    owner.post("/releases", json={"name": "r-0", "items": items, "message": "Secret release"})
    later = owner.put("/workflows/order-sync/current", json={**LATER, "message": "Secret plan"}).json["id"]
    names = {
        "environment": "qa",
        "release": "r-0",
        "schedule": later,
        "id": workflow,
        "token": token,
        "subscription": subscription,
        "delivery": delivery,
        "source": source,
        "unknown": str(uuid4()),
        "project": str(house.project.id),
        "user": str(uuid4()),
    }

    def everybody_is_owner(
        _here: Authenticator, identity: Identity, *_named: object, **_more: object
    ) -> Principal:
        return Principal(identity.id, identity.name, "user", house.project, Role.OWNER, user=identity.user)

    monkeypatch.setattr(Authenticator, "in_project", everybody_is_owner)
    stranger = Client(house.app, jwt_of(uuid4()))
    assert stranger.get("/workflows").json["workflows"] == []
    read = set()
    for call in EVERY:
        answer = call.by(stranger, **defaultdict(lambda: names["unknown"], names))
        assert "ecret" not in answer.text, (call, answer.text)
        assert answer.status_code < 500, call
        if call.method == "GET" and "{" in call.path and answer.status_code == 200:
            read.add((call.path, str(answer.json.get("members"))))
    # The project is the one of the patch, and no row.
    assert read == {("/projects/{project}", "None"), ("/projects/{project}/members", "[]")}
