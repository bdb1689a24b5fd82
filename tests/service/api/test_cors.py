"""Pages of other origins: what a browser lets them do with the API, and how failed sign-ins are limited."""

from __future__ import annotations

import pytest

from service.clients import BURST
from service.cors import Origins
from tests.service.api.conftest import Client, House, problem

APP, LOCAL = "https://app.example", "http://localhost:5173"
PREFLIGHT = {
    "Access-Control-Request-Method": "PUT",
    "Access-Control-Request-Headers": "authorization,if-match",
}


@pytest.fixture
def settings() -> dict[str, str]:
    return {
        "GITSTORE_CORS_ORIGINS": f"{APP}, {LOCAL}",
        "GITSTORE_TRUSTED_PROXIES": "127.0.0.1",
    }


def cors(answer: object) -> dict[str, str]:
    headers = answer.headers  # type: ignore[attr-defined]
    return {name: value for name, value in headers if name.startswith("Access-Control-")}


@pytest.mark.parametrize("origin", [APP, LOCAL])
def test_pages_of_the_named_origins_can_call_the_api(house: House, owner: Client, origin: str) -> None:
    asked = Client(house.app, "")(
        "OPTIONS", "/workflows/order-sync/versions/draft", headers={"Origin": origin, **PREFLIGHT}
    )
    assert (asked.status_code, asked.data) == (204, b"")
    assert asked.headers["Access-Control-Allow-Origin"] == origin
    assert "PUT" in asked.headers["Access-Control-Allow-Methods"]
    assert {"Authorization", "If-Match", "If-None-Match", "Content-Type"} <= set(
        asked.headers["Access-Control-Allow-Headers"].split(", ")
    )
    made = owner.post("/workflows", json={"slug": "order-sync"}, headers={"Origin": origin})
    missing = owner.get("/workflows/nothing", headers={"Origin": origin})
    refused = Client(house.app, "").get("/workflows", headers={"Origin": origin})
    for answer, status in ((made, 201), (missing, 404), (refused, 401)):
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert answer.headers["Vary"] == "Origin"
        assert {"ETag", "Link", "Location", "Retry-After"} <= set(
            answer.headers["Access-Control-Expose-Headers"].split(", ")
        )
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", f"{APP}.evil.example", f"{APP}:8443", "http://app.example", ""],
)  # fmt: skip
def test_pages_of_other_origins_cannot(house: House, owner: Client, origin: str) -> None:
    for answer in (
        owner.get("/workflows", headers={"Origin": origin}),
        owner("OPTIONS", "/workflows", headers={"Origin": origin, **PREFLIGHT}),
    ):
        assert (cors(answer), answer.headers["Vary"]) == ({}, "Origin")


@pytest.mark.parametrize("path", ["/ui/sign-in", "/ui", "/default.git/info/refs?service=git-upload-pack",
                                  "/default/git-receive-pack", "/hooks/x"])  # fmt: skip
def test_pages_and_git_are_for_no_other_origin(owner: Client, path: str) -> None:
    for method in ("GET", "OPTIONS"):
        assert cors(owner(method, path, headers={"Origin": APP, **PREFLIGHT})) == {}


@pytest.mark.parametrize("text", ["app.example", "https://app.example/", "https://App.example", "ftp://a",
                                  "https://a:443", "http://a:80", "https://a.example, null", "https://*.a",
                                  "https://u@a", "https://a:99999"])  # fmt: skip
def test_an_origin_that_no_browser_sends_is_no_setting(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Origins.parse(text)


def test_failed_sign_ins_are_limited_by_the_address_that_the_proxy_names(house: House, owner: Client) -> None:
    """By every door; a client that signed in before is let in still."""
    guess, here = Client(house.app, "gst_" + "x" * 43), {"X-Forwarded-For": "203.0.113.7"}
    assert owner.get("/workflows", headers=here).status_code == 200
    for _ in range(BURST):
        problem(guess.get("/workflows", headers=here), 401, "unauthenticated")
    # Without a credential nothing was guessed.
    problem(Client(house.app, "").get("/workflows", headers=here), 401, "unauthenticated")
    limited = guess.get("/workflows", headers={**here, "Origin": APP})
    problem(limited, 429, "too_many_requests")
    assert 1 <= int(limited.headers["Retry-After"]) <= 6
    git = guess(
        "GET",
        "/default.git/info/refs?service=git-upload-pack",
        headers={**here, "Authorization": "Basic eDp5"},
    )
    assert (git.status_code, git.content_type) == (429, "text/plain; charset=utf-8")
    problem(house.client("viewer").get("/workflows", headers=here), 429, "too_many_requests")
    assert owner.get("/workflows", headers=here).status_code == 200
    elsewhere = {"X-Forwarded-For": "203.0.113.8"}
    assert house.client("viewer").get("/workflows", headers=elsewhere).status_code == 200
