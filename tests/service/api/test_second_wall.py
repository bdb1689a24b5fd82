"""Row-level security is the second wall: it holds where the application authorizes nobody.

The tests take the authorization of the application away. Each request is then one of an owner of the project,
with the claims of a user of another project.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from uuid import uuid4

import pytest
from flask import request

from gitstore.model import Person
from service.access import Principal, Role
from service.auth import Authenticator
from service.issuers import User
from tests.helpers import definition
from tests.service.api.conftest import Client, House, opened, problem
from tests.service.api.test_access import EVERY, LATER, USERS_ONLY
from tests.service.users import ISSUER, add_member
from tests.ui.test_roles import FORM, NO_ID, URLS
from tests.ui.visitor import HOST, Visitor

SECRET = "v1ct1m"
"""In each text of the victim that a row holds."""
OPEN = {"static", "embedding", "docs", "hooks", "health"}
"""Groups of endpoints that are about no project, or have a signature instead."""
WITHOUT_ROWS = {
    ("GET", "/"),
    ("GET", "/info/refs"),
    ("GET", "/ui"),
    ("GET", "/ui/"),
    ("GET", "/ui/static/<path:file>"),
    ("POST", "/ui/new-project"),
    ("POST", "/ui/sign-out"),
    ("POST", "/ui/theme"),
}
"""Endpoints that have nothing of any project."""


@pytest.fixture(scope="module")
def house(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    allowed = {"GITSTORE_EGRESS_ALLOW": f"{SECRET}.example:80,new.example:80,git.example:80"}
    with opened(postgres_admin_conninfo, migrated_template, **allowed) as house:
        yield house


@pytest.fixture(scope="module")
def names(house: House) -> dict[str, str]:
    """The ids of an object of each kind that the victim has."""
    owner = house.client("owner")
    owner.create(name=SECRET, description=SECRET, definition=definition(f"https://{SECRET}.example/"))
    owner.publish(message=SECRET)
    draft = {"definition": definition(f"https://{SECRET}.example/2"), "message": SECRET}
    made = owner.post("/workflows/order-sync/versions", json=draft)
    owner.delete("/workflows/order-sync/versions/draft")
    owner.post("/workflows/order-sync/versions", json=draft)
    token = owner.post("/tokens", json={"name": SECRET, "role": "viewer"})
    source = owner.post("/sources", json={"url": f"http://{SECRET}.example/a.git"})
    subscription = owner.post("/subscriptions", json={"url": f"http://{SECRET}.example/"})
    delivery = owner.post(f"/subscriptions/{subscription.json['id']}/test")
    user = owner.put(f"/projects/default/members/{uuid4()}", json={"role": "viewer"})
    ids = {"token": token, "source": source, "subscription": subscription, "delivery": delivery}
    owner.put("/environments", json={"environments": [{"name": "qa"}]})
    owner.put("/workflows/order-sync/environments/qa", json={"version": 1, "message": SECRET})
    old = {"name": f"{SECRET}-0", "items": [{"workflow": "order-sync", "version": 1}]}
    return {
        **{name: answer.json["id"] for name, answer in ids.items()},
        "environment": "qa",
        "release": owner.post("/releases", json=old).json["name"],
        "schedule": owner.put("/workflows/order-sync/current", json={**LATER, "message": SECRET}).json["id"],
        "id": made.json["workflow_id"],
        "project": str(house.project.id),
        "user": user.json["user"],
        "unknown": str(uuid4()),
    }


@pytest.fixture
def intruder(house: House, monkeypatch: pytest.MonkeyPatch) -> Principal:
    """The owner of another project, whom the application takes for an owner of the victim's."""
    user = User(uuid4(), ISSUER, "eve", "authenticated", Person("Eve", "eve@example.com"))
    add_member(house.database, house.other.id, user.id, "owner")
    principal = Principal(user.id, "Eve", "user", house.project, Role.OWNER, user=user)
    for method in ("bearer", "basic", "token", "session", "in_project"):
        assert callable(getattr(Authenticator, method))
        monkeypatch.setattr(Authenticator, method, lambda *_given, **_named: principal)
    return principal


@pytest.fixture
def called(house: House, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """The method and the rule of each endpoint that a request has reached."""
    seen: set[tuple[str, str]] = set()

    def remember() -> None:
        if request.url_rule is not None:
            seen.add((request.method, request.url_rule.rule))

    functions = house.app.before_request_funcs
    monkeypatch.setitem(functions, None, [*functions[None], remember])
    return seen


def rows(house: House) -> list[str]:
    """Every row of the victim."""
    with house.database.as_owner() as tx:
        tables = tx.tuples(
            "select table_name from information_schema.columns join information_schema.tables "
            "using (table_schema, table_name) where table_schema = 'gitstore' and column_name = 'project_id' "
            "and table_type = 'BASE TABLE'"
        )
        found = []
        for (table,) in tables:
            query = f"select t::text from gitstore.{table} t where project_id = '{house.project.id}'"  # noqa: S608
            found += [f"{table} {row}" for (row,) in tx.connection.execute(query.encode())]
    return sorted(found)


def leak(text: str, names: dict[str, str], sent: str) -> str | None:
    """Return a text of the victim that an answer has, or an id that was not sent."""
    ids = [value for name, value in names.items() if name not in ("project", "unknown")]
    return next((each for each in (SECRET, *ids) if each in text and each not in sent), None)


def every_answer(house: House, names: dict[str, str]) -> Iterator[tuple[str, str | None]]:
    """Call every endpoint, and yield what was called, with what leaks from the answer."""
    client = Client(house.app, "any")
    for known in (names, {**names, "id": "order-sync"}):
        for call in EVERY:
            yield str(call), leak(call.by(client, **known).text, names, call.path.format(**known))
    for method, path in USERS_ONLY:
        yield path, leak(client(method, path, json={"name": "x"}).text, names, path)
    page = Visitor(house.app.test_client(), client)
    page.sign_in("x")
    for method, path, _, _ in URLS:
        for kind in ("source", "subscription", "delivery", "token") if NO_ID in path else ("source",):
            sent = path.replace(NO_ID, names[kind])
            answer = page.get(sent) if method == "GET" else page.post(sent, **FORM)
            yield f"{method} {sent}", leak(answer.html, names, sent)
    one = "/ui/workflows/order-sync"
    for path in (f"{one}/stop", f"{one}/archive", "/ui/projects"):
        yield f"POST {path}", leak(page.post(path, **FORM).html, names, path)
    for method in ("PUT", "DELETE"):
        saved = page.client.open(f"{one}/autosave", method=method, base_url=HOST, json={}, buffered=True)
        yield f"{method} {one}/autosave", leak(saved.text, names, "")
    for path in ("/ui/handover", "/ui/handover/enter"):
        yield path, leak(client.post(path, json={}).text, names, path)
    basic = {"Authorization": f"Basic {b64encode(b'git:any').decode()}"}
    for service in ("git-upload-pack", "git-receive-pack", "git-upload-archive"):
        for method, path in (("GET", f"info/refs?service={service}"), ("POST", service)):
            kind = f"application/x-{service}-request"
            answer = client(method, f"/default.git/{path}", headers=basic, data=b"0000", type=kind)
            yield (
                f"{method} {path}",
                leak(answer.text, names, "") or (re.search("refs/.*", answer.text) and path),
            )


def test_every_endpoint_sees_no_row_of_another_project(
    house: House, names: dict[str, str], intruder: Principal, called: set[tuple[str, str]]
) -> None:
    """Of the API, by id and by slug, the pages and git; none changes one either."""
    before = rows(house)
    assert all(value in str(before) for name, value in names.items() if name != "unknown")
    assert [what for what, leaked in every_answer(house, names) if leaked] == []
    deletion = Client(house.app, "any").delete("/projects/default?confirm=default")
    problem(deletion, 404, "project_not_found")
    assert rows(house) == before
    reachable = {
        (method, rule.rule)
        for rule in house.app.url_map.iter_rules()
        if rule.endpoint.partition(".")[0] not in OPEN
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert reachable - called == WITHOUT_ROWS


def test_the_calls_would_show_what_the_wall_hides(
    house: House, names: dict[str, str], intruder: Principal
) -> None:
    """Once the intruder is a viewer in Postgres, too."""
    add_member(house.database, house.project.id, intruder.id, "viewer")
    assert len([what for what, leaked in every_answer(house, names) if leaked]) > 20
