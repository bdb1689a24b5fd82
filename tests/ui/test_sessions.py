"""Signing in and out, the cookie, CSRF, and the headers of every page."""

from __future__ import annotations

import time
from http.cookies import SimpleCookie

import pytest

from service.clients import BURST
from service.context import EXTENSION
from service.ui import session
from service.ui.rendering import POLICY
from tests.service.api.conftest import House
from tests.ui.test_roles import URLS
from tests.ui.visitor import HOST, Visitor, secret_in, visitor


def cookie_of(visitor: Visitor) -> str:
    cookie = visitor.client.get_cookie("__Secure-gitstore-session", "gitstore.example", "/ui")
    assert cookie is not None
    return str(cookie.value)


def test_signing_in_sets_a_cookie_without_the_token(house: House) -> None:
    """HttpOnly, Secure, SameSite and for /ui only; it contains neither the token nor its digest."""
    ann = Visitor(house.app.test_client(), house.client("editor"))
    form = ann.get("/ui/sign-in").page
    data = {"csrf": form.value("csrf"), "token": ann.api.token}
    answer = ann.client.post("/ui/sign-in", base_url=HOST, data=data, buffered=True)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/ui/workflows")
    cookie = SimpleCookie(answer.headers["Set-Cookie"])["__Secure-gitstore-session"]
    assert cookie["httponly"]
    assert cookie["secure"]
    assert (cookie["samesite"], cookie["path"]) == ("Lax", "/ui")
    assert not secret_in(cookie.value)
    assert ann.get("/ui/workflows").status == 200


@pytest.mark.parametrize("token", ["", "gst_", "gst_" + "x" * 43, "gst_" + "é" * 43, "x" * 5000, "a\0b"])
def test_an_invalid_token_is_refused(house: House, token: str) -> None:
    """And not shown again."""
    ann = Visitor(house.app.test_client(), house.client())
    answer = ann.sign_in(token or " ")
    assert answer.status == 401
    assert "access token" in answer.page.text
    assert token not in answer.html or len(token) < 5


def test_guessing_tokens_is_slow(house: House) -> None:
    eve = Visitor(house.app.test_client(), house.client())
    guesses = [eve.sign_in(f"gst_{number:043}").status for number in range(BURST + 1)]
    assert guesses == [401] * BURST + [429]
    refused = eve.sign_in()
    assert (refused.status, int(refused.headers["Retry-After"]) <= 6) == (429, True)
    assert "Too many failed sign-ins" in refused.page.text


def test_revoking_a_token_ends_its_sessions(house: House, ann: Visitor) -> None:
    bob = visitor(house, "editor")
    tokens = ann.api.get("/tokens").json["tokens"]
    bobs = max(tokens, key=lambda token: token["created_at"])
    assert ann.api.delete(f"/tokens/{bobs['id']}").status_code == 204
    answer = bob.get("/ui/workflows?q=a b")
    assert (answer.status, answer.location) == (303, "/ui/sign-in?next=/ui/workflows?q%3Da+b")
    assert bob.post("/ui/new-workflow", slug="a").status == 401


def test_signing_out_ends_the_session(ann: Visitor) -> None:
    answer = ann.post("/ui/sign-out")
    assert (answer.status, answer.location) == (303, "/ui/sign-in")
    assert ann.get("/ui/workflows").status == 303


def test_signing_out_ends_every_copy_of_the_cookie(
    house: House, ann: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other sessions of the same token go on. The end is remembered for as long as the cookie is valid."""
    thief = Visitor(house.app.test_client(), ann.api, ann.csrf)
    domain = "gitstore.example"
    thief.client.set_cookie("__Secure-gitstore-session", cookie_of(ann), domain=domain, path="/ui")
    other = Visitor(house.app.test_client(), ann.api)
    assert other.sign_in().status == 303
    assert thief.get("/ui/workflows").status == 200
    assert ann.post("/ui/sign-out").status == 303
    assert thief.get("/ui/workflows").status == 303
    assert thief.post("/ui/new-workflow", slug="a").status == 401
    assert other.get("/ui/workflows").status == 200
    (end,) = house.config.ended_sessions.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(session, "SECONDS", -1)
        session.end("another", house.app.extensions[EXTENSION])
    assert not end.exists()


def test_a_session_expires_a_week_after_its_last_request(
    ann: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of a copy of the cookie from before it was renewed."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    first = cookie_of(ann)
    for _ in range(3):
        now += session.SECONDS - 3600
        assert ann.get("/ui/workflows").status == 200
    copy = Visitor(ann.client.application.test_client(), ann.api)
    copy.client.set_cookie("__Secure-gitstore-session", first, domain="gitstore.example", path="/ui")
    assert copy.get("/ui/workflows").status == 303
    now += session.SECONDS + 1
    assert ann.get("/ui/workflows").status == 303


@pytest.mark.usefixtures("published")
def test_a_notice_is_shown_once_and_cannot_be_forged(ann: Visitor, house: House) -> None:
    """It names the version and links to it. Neither a URL nor the cookie of another session makes one."""
    ann.post("/ui/workflows/order-sync/versions/2/current", seen="3", message="Back")
    cookie = ann.client.get_cookie("__Secure-gitstore-notice", "gitstore.example", "/ui")
    assert cookie is not None
    first, again = (ann.get("/ui/workflows/order-sync").page for _ in range(2))
    assert "v2 is the current version." in first.text
    assert "v2 is the current version." not in again.text
    bob = visitor(house)
    bob.client.set_cookie(
        "__Secure-gitstore-notice", str(cookie.value), domain="gitstore.example", path="/ui"
    )
    for path in ("/ui/workflows/order-sync", "/ui/workflows/order-sync?notice=moved&version=2"):
        assert not bob.get(path).page.all("div", role="status"), path


@pytest.mark.parametrize("damage", ["", "x", "é", "gAAAA", "\0", "a b c"])
def test_an_invalid_cookie_is_ignored(house: House, damage: str) -> None:
    """Also one that was sealed for another purpose."""
    client = house.app.test_client()
    client.set_cookie("__Secure-gitstore-session", damage, domain="gitstore.example", path="/ui")
    assert client.get("/ui/workflows", base_url=HOST).status_code == 303
    other = (
        house.app.extensions[EXTENSION].sealer().seal("subscription 1", f"{int(time.time())} a {'0' * 64}")
    )
    client.set_cookie("__Secure-gitstore-session", other, domain="gitstore.example", path="/ui")
    assert client.get("/ui/workflows", base_url=HOST).status_code == 303


def test_over_plain_http_the_cookie_is_not_secure(house: House) -> None:
    """Otherwise signing in on a local machine would fail."""
    here = house.app.extensions[EXTENSION]
    object.__setattr__(here.config, "given_public_url", "http://127.0.0.1:8080")
    try:
        answer = house.app.test_client().get("/ui/sign-in", buffered=True)
        assert answer.headers["Set-Cookie"].startswith("gitstore-session=")
        assert "Secure" not in answer.headers["Set-Cookie"]
    finally:
        object.__setattr__(here.config, "given_public_url", HOST)


# CSRF

POSTS = [
    "/ui/sign-out", "/ui/projects", "/ui/new-project",
    "/ui/workflows/order-sync/stop", "/ui/workflows/order-sync/archive",
    *(path for method, path, _, _ in URLS if method == "POST"),
]  # fmt: skip


def test_every_post_is_in_the_list(house: House) -> None:
    """Except signing in, which has its own tests, and the theme, which needs no token."""
    rules = {
        rule.endpoint for rule in house.app.url_map.iter_rules()
        if rule.endpoint.startswith("ui.") and "POST" in (rule.methods or ())
    }  # fmt: skip
    adapter = house.app.url_map.bind("gitstore.example", url_scheme="https")
    listed = {adapter.match(path, method="POST")[0] for path in POSTS}
    assert rules - listed == {"ui.signed_in", "ui.choose_theme", "ui.hand_over", "ui.enter_by_code"}


@pytest.mark.parametrize("csrf", ["", "x", "é"])
def test_a_form_with_an_invalid_token_changes_nothing(ann: Visitor, csrf: str) -> None:
    ann.api.create()
    ann.api.publish()
    before = ann.api.get("/workflows/order-sync").json
    for path in POSTS:
        answer = ann.post(path, csrf, slug="other", definition="nodes: []", message="x")
        assert answer.status == 403, path
        assert "not of your session" in answer.page.text
        assert ann.api.get("/workflows/order-sync").json == before, path


def test_the_token_of_another_session_is_invalid(house: House, ann: Visitor) -> None:
    bob = visitor(house)
    assert ann.post("/ui/new-workflow", bob.csrf, slug="a").status == 403


def test_a_foreign_form_cannot_sign_in(house: House) -> None:
    """The sign-in form has a token of its own (login CSRF)."""
    ann = Visitor(house.app.test_client(), house.client())
    ann.get("/ui/sign-in")
    assert ann.post("/ui/sign-in", csrf="x", token=ann.api.token).status == 403
    fresh = Visitor(house.app.test_client(), ann.api)
    assert fresh.post("/ui/sign-in", csrf="x", token=ann.api.token).status == 403


def test_signing_in_changes_the_csrf_token(house: House) -> None:
    ann = Visitor(house.app.test_client(), house.client())
    before = ann.get("/ui/sign-in").page.value("csrf")
    ann.sign_in()
    assert ann.csrf not in ("", before)


def test_no_get_changes_anything(ann: Visitor) -> None:
    """Also at URLs of forms."""
    ann.api.create()
    ann.api.publish()
    before = ann.api.get("/workflows/order-sync/versions").json
    for path in POSTS:
        ann.get(path)
    assert ann.api.get("/workflows/order-sync/versions").json == before


@pytest.mark.parametrize(
    "following",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "/ui/../\\evil", "javascript:alert(1)",
     "/workflows", "/ui/a\r\nSet-Cookie: a=b", "", "http:/ui/"],
)  # fmt: skip
def test_signing_in_never_redirects_elsewhere(house: House, following: str) -> None:
    ann = Visitor(house.app.test_client(), house.client())
    assert ann.sign_in(following=following).location == "/ui/workflows"


def test_signing_in_continues_to_the_requested_page(house: House) -> None:
    ann = Visitor(house.app.test_client(), house.client())
    wanted = "/ui/workflows/order-sync/versions/3"
    assert ann.get(wanted).location == f"/ui/sign-in?next={wanted}"
    assert ann.sign_in(following=wanted).location == wanted


def test_the_theme_is_remembered(ann: Visitor) -> None:
    assert ann.get("/ui/workflows").page.all("html")[0].attributes["data-theme"] == "system"
    assert ann.post("/ui/theme", theme="dark", next="/ui/new-workflow").location == "/ui/new-workflow"
    assert ann.get("/ui/workflows").page.all("html")[0].attributes["data-theme"] == "dark"
    ann.post("/ui/theme", theme='"><script>', next="/ui/new-workflow")
    assert ann.get("/ui/workflows").page.all("html")[0].attributes["data-theme"] == "system"


# Headers


@pytest.mark.parametrize(
    "path", ["/ui/sign-in", "/ui/workflows", "/ui/nothing", "/ui/workflows/nope", "/ui/webhooks"]
)
def test_every_page_has_the_policy(ann: Visitor, path: str) -> None:
    """Scripts and styles only from our files, no frames, no shared caching."""
    answer = ann.get(path)
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert "unsafe" not in POLICY
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] in ("private, no-cache", "no-store")
    for element in answer.page.elements:
        assert element.tag != "style"
        assert "style" not in element.attributes
        assert not [name for name in element.attributes if name.startswith("on")]
        if element.tag == "script":
            assert element.attributes["src"].startswith("/ui/static/")
            assert element.text == ""


def test_static_files_are_cached_until_they_change(ann: Visitor) -> None:
    (link,) = [
        each for each in ann.get("/ui/workflows").page.all("link") if each.attributes["rel"] == "stylesheet"
    ]
    answer = ann.client.get(link.attributes["href"], base_url=HOST, buffered=True)
    assert answer.status_code == 200
    assert "max-age=31536000" in answer.headers["Cache-Control"]
    assert answer.content_type.startswith("text/css")
    assert ann.client.get("/ui/static/../app.py", base_url=HOST).status_code == 404


def test_errors_below_ui_are_pages(ann: Visitor) -> None:
    """Elsewhere they are problem+json."""
    assert ann.get("/ui/nothing").status == 404
    assert ann.get("/ui/nothing").page.title() == "Not Found"
    assert ann.client.put("/ui/workflows", base_url=HOST).status_code == 405
    assert ann.client.get("/nothing", base_url=HOST).content_type == "application/problem+json"


def test_the_root_redirects_to_the_first_page(ann: Visitor) -> None:
    for path in ("/", "/ui", "/ui/"):
        assert ann.get(path).location == "/ui/workflows"
