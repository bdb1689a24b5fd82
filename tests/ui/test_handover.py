"""Signing in to the page from a host's front end: the code, the session, and its end."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import UUID, uuid4

import pytest

from service.context import EXTENSION
from service.ui import session, sign_in
from tests.service.api.conftest import House, problem
from tests.service.users import ISSUER, SECRET, add_member, jwt_of
from tests.ui.visitor import HOST

APP, OTHER = "https://app.example", "https://other.example"


SETTINGS = {
    "GITSTORE_JWT_ISSUERS": json.dumps([{"issuer": ISSUER, "secret": SECRET}]),
    "GITSTORE_CORS_ORIGINS": f"{APP},{OTHER}",
}


@pytest.fixture
def settings() -> dict[str, str]:
    return SETTINGS


class Browser:
    """A browser that shows the host's page, and then ours."""

    def __init__(self, house: House, user: UUID) -> None:
        self.house = house
        self.client = house.app.test_client()
        self.token = jwt_of(user)

    def code(self, origin: str = APP, project: str = "", token: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token or self.token}", "Origin": origin}
        query = f"?project={project}" if project else ""
        return self.client.post(f"/ui/handover{query}", base_url=HOST, headers=headers, buffered=True)

    def enter(self, code: str, origin: str | None = APP, following: str = "") -> Any:
        headers = {"Origin": origin} if origin is not None else {}
        return self.client.post(
            "/ui/handover/enter",
            base_url=HOST,
            data={"code": code, "next": following},
            headers=headers,
            buffered=True,
        )

    def get(self, path: str = "/ui/workflows") -> Any:
        return self.client.get(path, base_url=HOST, buffered=True)


@pytest.fixture
def ada(house: House) -> Browser:
    user = uuid4()
    add_member(house.database, house.project.id, user, "editor")
    return Browser(house, user)


def test_a_code_becomes_a_session_once_and_from_its_origin_only(ada: Browser) -> None:
    answer = ada.code()
    assert (answer.status_code, answer.json["expires_in"]) == (201, 60)
    assert answer.json["url"] == "https://gitstore.example/ui/handover/enter"
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    code = answer.json["code"]
    assert ada.token not in code
    for origin in (OTHER, "https://evil.example", "null", None):
        assert ada.enter(code, origin).status_code in (401, 403)
    done = ada.enter(code, following="/ui/workflows/order-sync")
    assert (done.status_code, done.headers["Location"]) == (303, "/ui/workflows/order-sync")
    assert "Ada Lovelace" in ada.get().text
    assert ada.enter(code).status_code == 401
    for damaged in ("", "x", code[:-2], f"{code}A", "é", "a b"):
        assert ada.enter(damaged).status_code == 401


def test_a_code_lasts_a_minute_and_its_session_half_a_day_after_a_request_and_a_week_in_all(
    ada: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    code = ada.code().json["code"]
    now += sign_in.SECONDS + 1
    assert ada.enter(code).status_code == 401
    assert ada.enter(ada.code().json["code"]).status_code == 303
    last = now + session.LONGEST_USER_SECONDS
    while now + session.USER_SECONDS < last:
        now += session.USER_SECONDS - 1
        assert ada.get().status_code == 200
    now = last
    assert ada.get().status_code == 303


def test_who_is_no_user_or_at_no_page_of_the_host_gets_no_code(house: House, ada: Browser) -> None:
    problem(ada.code("https://evil.example"), 403, "forbidden")
    problem(ada.code(token=house.client("owner").token), 401, "unauthenticated")
    problem(ada.code(token="x.y.z"), 401, "unauthenticated")
    problem(ada.code(token=jwt_of(uuid4())), 400, "project_required")
    problem(ada.code(project="other"), 404, "project_not_found")
    assert ada.get("/ui/handover").status_code == 405


def test_membership_is_checked_at_every_request(house: House, ada: Browser) -> None:
    assert ada.enter(ada.code(project="default").json["code"]).status_code == 303
    assert ada.get("/ui/new-workflow").status_code == 200
    with house.database.as_owner() as tx:
        tx.run("update gitstore.members set role = 'viewer'")
    assert ada.get("/ui/new-workflow").status_code == 403
    with house.database.as_owner() as tx:
        tx.run("delete from gitstore.members")
    assert ada.get().status_code == 303


def test_signing_out_ends_the_session_on_the_server(house: House, ada: Browser) -> None:
    ada.enter(ada.code().json["code"])
    cookie = ada.client.get_cookie("__Secure-gitstore-session", "gitstore.example", "/ui")
    assert cookie is not None
    here = house.app.extensions[EXTENSION]
    with house.app.test_request_context(headers={"Cookie": f"{cookie.key}={cookie.value}"}) as context:
        known = session.read(context.request, here)
    assert known is not None
    out = ada.client.post("/ui/sign-out", base_url=HOST, data={"csrf": known.csrf}, buffered=True)
    assert out.status_code == 303
    ada.client.set_cookie(cookie.key, cookie.value, domain="gitstore.example", path="/ui", secure=True)
    assert ada.get().status_code == 303
