"""/projects: what owners, members, tokens and strangers may do with a project and its members."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from sync.catalog import Project
from tests.service.api.conftest import Client, House, opened, problem
from tests.service.users import ISSUER, SECRET, add_member, jwt_of

MOST = 3


@pytest.fixture(scope="module")
def house(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    """One application for all tests here; each has users of its own."""
    issuers = json.dumps([{"issuer": ISSUER, "secret": SECRET}])
    settings = {"GITSTORE_JWT_ISSUERS": issuers, "GITSTORE_USER_PROJECTS": str(MOST)}
    with opened(postgres_admin_conninfo, migrated_template, **settings) as house:
        yield house


class User(Client):
    """A client with the JWT of a user of its own."""

    def __init__(self, house: House) -> None:
        self.id = uuid4()
        super().__init__(house.app, jwt_of(self.id))

    def make(self, name: str = "Mine", **body: object) -> str:
        made = self.post("/projects", json={"name": name, **body})
        assert made.status_code == 201, made.text
        return str(made.json["id"])


@pytest.fixture
def ada(house: House) -> User:
    return User(house)


@pytest.fixture
def eve(house: House) -> User:
    return User(house)


def slugs(client: Client) -> list[str]:
    return [row["slug"] for row in client.get("/projects").json["projects"]]


# Projects


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Default Project", r"default-project-[0-9a-f]{6}"),
        ("Żółw", r"w-[0-9a-f]{6}"),
        ("注文", r"project-[0-9a-f]{6}"),
        ("a" * 200, r"a{50}-[0-9a-f]{6}"),
        ("-- x --", r"x-[0-9a-f]{6}"),
    ],
)
def test_a_user_creates_a_project_that_is_theirs(house: House, ada: User, name: str, slug: str) -> None:
    """Without a slug it gets one that nobody has; the user is its owner and begins to work in it."""
    made = ada.post("/projects", json={"name": name})
    assert made.status_code == 201
    assert re.fullmatch(slug, made.json["slug"])
    assert (made.json["name"], made.json["owner"], made.json["role"]) == (name, str(ada.id), "owner")
    assert made.json["git_url"] == f"https://gitstore.example/{made.json['slug']}.git"
    assert made.headers["Location"] == f"https://gitstore.example/projects/{made.json['id']}"
    assert ada.get(f"/projects/{made.json['id']}").json == made.json
    assert ada.get("/projects").json == {
        "user": str(ada.id),
        "projects": [made.json],
        "next_cursor": None,
    }
    ada.create()
    assert ada.publish().status_code == 201


def test_a_taken_slug_is_refused_and_says_no_more(ada: User, eve: User) -> None:
    """Whether or not the one who asks may see the project that has it. Nobody chooses an id."""
    ada.make(slug="ours")
    for user in (ada, eve):
        refused = problem(user.post("/projects", json={"name": "x", "slug": "ours"}), 409, "project_exists")
        assert str(ada.id) not in str(refused)
        assert set(refused) <= {"type", "title", "status", "detail", "code", "instance"}
    problem(eve.post("/projects", json={"name": "x", "slug": "Not A Slug"}), 422, "invalid_name")
    problem(eve.post("/projects", json={"name": "x", "slug": str(uuid4())}), 422, "invalid_name")
    problem(eve.post("/projects", json={"name": "x", "id": str(uuid4())}), 400, "malformed")
    problem(eve.post("/projects", json={"name": "\u202e"}), 400, "malformed")
    assert slugs(eve) == []


def test_users_own_as_many_projects_as_the_setting_says(house: House, ada: User) -> None:
    """Tokens create none."""
    for number in range(MOST):
        ada.make(f"Project {number}")
    problem(ada.post("/projects", json={"name": "One more"}), 409, "limit_reached")
    assert len(slugs(ada)) == MOST
    problem(house.client("owner").post("/projects", json={"name": "x"}), 403, "forbidden")


def test_projects_are_listed_with_the_role_in_each(house: House, ada: User) -> None:
    add_member(house.database, house.other.id, ada.id, "viewer")
    ada.make(slug="zz-own")
    roles = {row["slug"]: row["role"] for row in ada.get("/projects").json["projects"]}
    assert roles == {"other": "viewer", "zz-own": "owner"}
    token = house.client("editor")
    assert token.get("/projects").json["user"] is None
    assert [(row["slug"], row["role"]) for row in token.get("/projects").json["projects"]] == [
        ("default", "editor")
    ]
    assert token.get("/projects/default").json["id"] == str(house.project.id)
    problem(token.get("/projects/other"), 404, "project_not_found")


def test_owners_rename_a_project_and_others_do_not(house: House, ada: User) -> None:
    path = f"/projects/{ada.make()}"
    changed = ada.patch(path, json={"name": "Renamed", "slug": "renamed"}).json
    assert (changed["name"], changed["slug"]) == ("Renamed", "renamed")
    bob = User(house)
    add_member(house.database, UUID(changed["id"]), bob.id, "publisher")
    problem(bob.patch(path, json={"name": "x"}), 403, "forbidden")
    problem(ada.patch(path, json={"slug": "other"}), 409, "project_exists")
    problem(ada.patch(path, json={"owner": "bob"}), 400, "malformed")
    assert bob.get("/projects/renamed").json["name"] == "Renamed"


def test_an_owner_lets_invalid_versions_of_sources_become_current(ada: User) -> None:
    path = f"/projects/{ada.make()}"
    assert ada.get(path).json["activate_invalid"] is False
    assert ada.patch(path, json={"activate_invalid": True}).json["activate_invalid"] is True
    assert ada.patch(path, json={"name": "x"}).json["activate_invalid"] is True
    assert ada.get(path).json["activate_invalid"] is True


def test_projects_are_listed_by_pages(ada: User) -> None:
    made = [ada.make(slug=f"paged-{number}") for number in range(MOST)]
    first = ada.get("/projects?limit=2")
    rest = ada.get(f"/projects?limit=2&cursor={first.json['next_cursor']}")
    assert [row["id"] for page in (first, rest) for row in page.json["projects"]] == made
    assert first.headers["Link"] == (
        f'<https://gitstore.example/projects?limit=2&cursor={first.json["next_cursor"]}>; rel="next"'
    )
    assert rest.json["next_cursor"] is None
    problem(ada.get("/projects?cursor=x"), 400, "malformed")


def test_meshhook_makes_the_first_project_of_a_user(house: House, ada: User) -> None:
    """With the first workflow; until then, there are none. A user who has a project gets no other one."""
    assert ada.get("/api/workflows").json == {"workflows": [], "next_cursor": None}
    assert slugs(ada) == []
    assert ada.post("/api/workflows", json={"name": "One"}).status_code == 201
    assert ada.post("/api/workflows", json={"name": "Two"}).status_code == 201
    (made,) = ada.get("/projects").json["projects"]
    assert (made["name"], made["owner"]) == ("Default Project", str(ada.id))
    assert len(ada.get("/api/workflows").json["workflows"]) == 2
    member = User(house)
    add_member(house.database, UUID(made["id"]), member.id, "viewer")
    problem(member.post("/api/workflows", json={"name": "Three"}), 403, "forbidden")
    problem(Client(house.app, "x.y.z").get("/api/workflows"), 401, "unauthenticated")


def test_rules_are_changed_and_drafts_judged_again(ada: User) -> None:
    project = ada.make(rules="any")
    query = f"?project={project}"
    ada.post(f"/workflows{query}", json={"slug": "loose", "definition": {"nodes": 5}})
    draft = f"/workflows/loose/versions/draft{query}"
    assert ada.post(f"/workflows/loose/versions/publish{query}", json={}).status_code == 201
    ada.post(f"/workflows/loose/versions{query}", json={"definition": {"nodes": 6}})
    assert ada.get(draft).json["valid"] is True
    ada.patch(f"/projects/{project}", json={"rules": "meshhook"})
    assert ada.get(draft).json["valid"] is False
    assert ada.get(f"/workflows/loose/versions/1{query}").json["valid"] is True
    problem(ada.post(f"/workflows/loose/versions/publish{query}", json={}), 422, "definition_invalid")
    ada.patch(f"/projects/{project}", json={"rules": "any"})
    assert ada.get(draft).json["valid"] is True


def test_an_archived_project_is_read_only(house: House, ada: User) -> None:
    """Also for its tokens, which can still be revoked; until it is taken out of the archive."""
    path = f"/projects/{ada.make()}"
    ada.create()
    assert ada.publish().status_code == 201
    token = ada.post("/tokens", json={"name": "engine", "role": "publisher"}).json
    engine = Client(house.app, token["token"])
    assert ada.patch(path, json={"archived": True}).json["archived_at"]
    assert engine.get("/workflows/order-sync/versions/current").status_code == 200
    problem(engine.post("/workflows/order-sync/versions", json={}), 409, "project_archived")
    problem(ada.post("/workflows", json={"slug": "new"}), 409, "project_archived")
    problem(ada.patch(path, json={"rules": "any"}), 409, "project_archived")
    login = b64encode(f"git:{token['token']}".encode()).decode()
    basic = {"Authorization": f"Basic {login}"}
    slug = ada.get(path).json["slug"]
    refs = f"/{slug}.git/info/refs?service=git-"
    assert engine.get(refs + "upload-pack", headers=basic).status_code == 200
    push = engine.get(refs + "receive-pack", headers=basic)
    refusal = f"the project {slug} is archived: it is read-only until an owner unarchives it\n"
    assert (push.status_code, push.text) == (409, refusal)
    assert ada.delete(f"/tokens/{token['id']}").status_code == 204
    assert ada.patch(path, json={"archived": False}).json["archived_at"] is None
    ada.create("new")


def test_a_project_is_deleted_when_archived_and_named(house: House, ada: User) -> None:
    """It is gone for everyone at once, its tokens too; the slug is free, and the repository is kept."""
    made = ada.post("/projects", json={"name": "Short-lived", "slug": "short"}).json
    path = f"/projects/{made['id']}"
    ada.create()
    ada.publish()
    engine = Client(house.app, ada.post("/tokens", json={"name": "engine", "role": "owner"}).json["token"])
    problem(ada.delete(f"{path}?confirm=short"), 409, "project_not_archived")
    ada.patch(path, json={"archived": True})
    for query in ("", "?confirm=", "?confirm=other", f"?confirm={made['id']}"):
        problem(ada.delete(path + query), 400, "malformed")
    assert ada.delete(f"{path}?confirm=short").status_code == 204
    problem(ada.delete(f"{path}?confirm=short"), 404, "project_not_found")
    problem(engine.get("/workflows"), 401, "unauthenticated")
    assert slugs(ada) == []
    assert ada.make(slug="short") != made["id"]
    assert [kept.name[17:] for kept in (house.config.data / "trash").iterdir()] == [f"{made['id']}.git"]


# Members


def test_owners_manage_members_and_members_leave(house: House, ada: User, eve: User) -> None:
    path = f"/projects/{ada.make(slug='with-members')}/members"
    added = ada.put(f"{path}/{eve.id}", json={"role": "viewer"})
    assert (added.status_code, added.json["user"], added.json["role"]) == (200, str(eve.id), "viewer")
    listed = [(row["user"], row["role"]) for row in ada.get(path).json["members"]]
    assert listed == [(str(ada.id), "owner"), (str(eve.id), "viewer")]
    assert eve.get(f"{path}/{eve.id}").json["role"] == "viewer"
    for refused in (
        eve.get(path),
        eve.get(f"{path}/{ada.id}"),
        eve.put(f"{path}/{eve.id}", json={"role": "owner"}),
        eve.delete(f"{path}/{ada.id}"),
    ):
        problem(refused, 403, "forbidden")
    assert ada.put(f"{path}/{eve.id}", json={"role": "editor"}).json["role"] == "editor"
    eve.create()
    assert eve.delete(f"{path}/{eve.id}").status_code == 204
    problem(eve.get("/projects/with-members"), 404, "project_not_found")
    problem(ada.get(f"{path}/{eve.id}"), 404, "not_found")
    problem(ada.delete(f"{path}/{eve.id}"), 404, "not_found")


def test_a_project_never_loses_its_last_owner(ada: User, eve: User) -> None:
    project = ada.make()
    path = f"/projects/{project}/members"
    problem(ada.delete(f"{path}/{ada.id}"), 409, "last_owner")
    problem(ada.put(f"{path}/{ada.id}", json={"role": "viewer"}), 409, "last_owner")
    ada.put(f"{path}/{eve.id}", json={"role": "owner"})
    assert ada.delete(f"{path}/{ada.id}").status_code == 204
    assert eve.get(f"/projects/{project}").json["owner"] == str(eve.id)
    problem(eve.delete(f"{path}/{eve.id}"), 409, "last_owner")


def test_a_project_is_transferred_and_its_owner_before_stays(ada: User, eve: User) -> None:
    project = ada.make()
    moved = ada.patch(f"/projects/{project}", json={"owner": str(eve.id)}).json
    assert moved["owner"] == str(eve.id)
    members = ada.get(f"/projects/{project}/members").json["members"]
    assert {row["user"]: row["role"] for row in members} == {str(ada.id): "owner", str(eve.id): "owner"}


@pytest.mark.parametrize("body", [{}, {"role": "root"}, {"role": None}, {"role": "viewer", "since": 1}, []])
def test_a_role_is_one_of_four(ada: User, eve: User, body: object) -> None:
    project = ada.make()
    problem(ada.put(f"/projects/{project}/members/{eve.id}", json=body), 400, "malformed")
    problem(ada.put(f"/projects/{project}/members/eve", json={"role": "viewer"}), 400, "malformed")


def test_what_is_done_is_in_the_audit_log(house: House, ada: User, eve: User) -> None:
    """With the user as the actor, by id."""
    project = ada.make()
    ada.put(f"/projects/{project}/members/{eve.id}", json={"role": "viewer"})
    ada.patch(f"/projects/{project}", json={"name": "Renamed"})
    eve.delete(f"/projects/{project}/members/{eve.id}")
    query = "select action, actor_id, door from gitstore.audit_log where project_id = %(id)s order by at"
    with house.database.as_owner() as tx:
        rows = tx.tuples(query, id=UUID(project))
    assert rows == [
        ("project.created", str(ada.id), "http"),
        ("member.changed", str(ada.id), "http"),
        ("project.changed", str(ada.id), "http"),
        ("member.removed", str(eve.id), "http"),
    ]


# Strangers


def test_the_project_of_another_tenant_does_not_exist(house: House, eve: User) -> None:
    """For users without a role, members of another project, and tokens of one, as for a made-up id."""

    def project_of(row: Project) -> list[str]:
        return [row.slug, str(row.id)]

    add_member(house.database, house.other.id, eve.id, "owner")
    calls = [
        ("GET", "", None), ("PATCH", "", {"name": "x"}), ("DELETE", "?confirm=default", None),
        ("GET", "/members", None), ("GET", f"/members/{eve.id}", None),
        ("PUT", f"/members/{eve.id}", {"role": "owner"}), ("DELETE", f"/members/{eve.id}", None),
    ]  # fmt: skip
    for client in (User(house), eve, house.client("owner", house.other)):
        for name in (*project_of(house.project), "no-such-project", str(uuid4())):
            for method, rest, body in calls:
                refused = problem(
                    client(method, f"/projects/{name}{rest}", json=body), 404, "project_not_found"
                )
                assert refused["detail"] == f"there is no project {name!r}"
