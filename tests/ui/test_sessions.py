"""Signing in and out, the cookie, forms of others, and the headers of every page."""

from __future__ import annotations

import time
from http.cookies import SimpleCookie

import pytest

from service.context import EXTENSION
from service.ui import session
from service.ui.rendering import POLICY
from tests.service.api.conftest import House
from tests.ui.visitor import HOST, Visitor, secret_in, visitor


def cookie_of(visitor: Visitor) -> str:
    found = visitor.client.get_cookie("__Secure-gitstore-session", "gitstore.example", "/ui")
    assert found is not None
    return str(found.value)


def test_a_token_opens_the_page_and_the_cookie_tells_nothing(house: House) -> None:
    """HttpOnly, Secure where the service is, SameSite, for /ui alone; neither token nor digest is in it."""
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
def test_what_is_no_token_in_force_is_refused_in_the_words_of_http(house: House, token: str) -> None:
    """And what was typed is not shown again."""
    ann = Visitor(house.app.test_client(), house.client())
    answer = ann.sign_in(token or " ")
    assert answer.status == 401
    assert "access token" in answer.page.text
    assert token not in answer.html or len(token) < 5


def test_a_revoked_token_ends_its_sessions_at_once(house: House, ann: Visitor) -> None:
    """The next request of the session is a stranger's."""
    bob = visitor(house, "editor")
    tokens = ann.api.get("/tokens").json["tokens"]
    bobs = max(tokens, key=lambda token: token["created_at"])
    assert ann.api.delete(f"/tokens/{bobs['id']}").status_code == 204
    answer = bob.get("/ui/workflows?q=a b")
    assert (answer.status, answer.location) == (303, "/ui/sign-in?next=/ui/workflows?q%3Da+b")
    assert bob.post("/ui/new-workflow", slug="a").status == 401


def test_signing_out_forgets_the_session(ann: Visitor) -> None:
    answer = ann.post("/ui/sign-out")
    assert (answer.status, answer.location) == (303, "/ui/sign-in")
    assert ann.get("/ui/workflows").status == 303


def test_a_session_is_over_after_a_week(ann: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + session.SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert ann.get("/ui/workflows").status == 303


@pytest.mark.parametrize("damage", ["", "x", "é", "gAAAA", "\0", "a b c"])
def test_a_cookie_that_is_not_ours_is_none(house: House, damage: str) -> None:
    """Nor is one that was sealed for another purpose."""
    client = house.app.test_client()
    client.set_cookie("__Secure-gitstore-session", damage, domain="gitstore.example", path="/ui")
    assert client.get("/ui/workflows", base_url=HOST).status_code == 303
    other = (
        house.app.extensions[EXTENSION].sealer().seal("subscription 1", f"{int(time.time())} a {'0' * 64}")
    )
    client.set_cookie("__Secure-gitstore-session", other, domain="gitstore.example", path="/ui")
    assert client.get("/ui/workflows", base_url=HOST).status_code == 303


def test_over_plain_http_the_cookie_is_not_secure(house: House) -> None:
    """Else nobody could sign in on their own machine."""
    here = house.app.extensions[EXTENSION]
    object.__setattr__(here.config, "given_public_url", "http://127.0.0.1:8080")
    try:
        answer = house.app.test_client().get("/ui/sign-in", buffered=True)
        assert answer.headers["Set-Cookie"].startswith("gitstore-session=")
        assert "Secure" not in answer.headers["Set-Cookie"]
    finally:
        object.__setattr__(here.config, "given_public_url", HOST)


# Forms of others

SOMETHING = "6f1f7b5e-0000-4000-8000-000000000000"
POSTS = [
    "/ui/sign-out",
    "/ui/new-workflow",
    "/ui/workflows/order-sync/edit",
    "/ui/workflows/order-sync/validate",
    "/ui/workflows/order-sync/publish",
    "/ui/workflows/order-sync/discard",
    "/ui/workflows/order-sync/restore",
    "/ui/workflows/order-sync/versions/1/revert",
    "/ui/workflows/order-sync/versions/1/current",
    "/ui/new-source",
    f"/ui/sources/{SOMETHING}",
    f"/ui/sources/{SOMETHING}/sync",
    f"/ui/sources/{SOMETHING}/pause",
    f"/ui/sources/{SOMETHING}/remove",
    f"/ui/sources/{SOMETHING}/divergences/{SOMETHING}",
    "/ui/new-webhook",
    f"/ui/webhooks/{SOMETHING}/edit",
    f"/ui/webhooks/{SOMETHING}/state",
    f"/ui/webhooks/{SOMETHING}/test",
    f"/ui/webhooks/{SOMETHING}/rotate",
    f"/ui/webhooks/{SOMETHING}/delete",
    f"/ui/deliveries/{SOMETHING}/again",
    "/ui/tokens",
    f"/ui/tokens/{SOMETHING}/revoke",
]


def test_every_address_that_changes_something_is_in_the_list(house: House) -> None:
    """Sign-in has a test of its own; the theme is no secret."""
    rules = {
        rule.endpoint for rule in house.app.url_map.iter_rules()
        if rule.endpoint.startswith("ui.") and "POST" in (rule.methods or ())
    }  # fmt: skip
    adapter = house.app.url_map.bind("gitstore.example", url_scheme="https")
    listed = {adapter.match(path, method="POST")[0] for path in POSTS}
    assert rules - listed == {"ui.signed_in", "ui.choose_theme"}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("csrf", ["", "x", "é"])
def test_a_form_without_the_sessions_token_changes_nothing(ann: Visitor, path: str, csrf: str) -> None:
    ann.api.create()
    ann.api.publish()
    before = ann.api.get("/workflows/order-sync").json
    answer = ann.post(path, csrf, slug="other", definition="nodes: []", message="x")
    assert answer.status == 403
    assert "not of your session" in answer.page.text
    assert ann.api.get("/workflows/order-sync").json == before


def test_the_token_of_another_session_is_none(house: House, ann: Visitor) -> None:
    bob = visitor(house)
    assert ann.post("/ui/new-workflow", bob.csrf, slug="a").status == 403


def test_nobody_elses_form_signs_you_in(house: House) -> None:
    """Login CSRF: the form of signing in has a token of its own."""
    ann = Visitor(house.app.test_client(), house.client())
    ann.get("/ui/sign-in")
    assert ann.post("/ui/sign-in", csrf="x", token=ann.api.token).status == 403
    fresh = Visitor(house.app.test_client(), ann.api)
    assert fresh.post("/ui/sign-in", csrf="x", token=ann.api.token).status == 403


def test_signing_in_makes_a_new_token_for_forms(house: House) -> None:
    ann = Visitor(house.app.test_client(), house.client())
    before = ann.get("/ui/sign-in").page.value("csrf")
    ann.sign_in()
    assert ann.csrf not in ("", before)


def test_no_get_changes_anything(ann: Visitor) -> None:
    """Also where the address is one that a form is sent to."""
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
def test_after_signing_in_one_stays_here(house: House, following: str) -> None:
    ann = Visitor(house.app.test_client(), house.client())
    assert ann.sign_in(following=following).location == "/ui/workflows"


def test_after_signing_in_one_goes_where_one_wanted(house: House) -> None:
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
    """No script and no style but from files of ours; no frame around it; nothing kept by others."""
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


def test_static_files_are_kept_by_browsers_until_they_change(ann: Visitor) -> None:
    (link,) = [
        each for each in ann.get("/ui/workflows").page.all("link") if each.attributes["rel"] == "stylesheet"
    ]
    answer = ann.client.get(link.attributes["href"], base_url=HOST, buffered=True)
    assert answer.status_code == 200
    assert "max-age=31536000" in answer.headers["Cache-Control"]
    assert answer.content_type.startswith("text/css")
    assert ann.client.get("/ui/static/../app.py", base_url=HOST).status_code == 404


def test_an_address_below_the_page_is_refused_as_a_page(ann: Visitor) -> None:
    """And others as problem+json, as ever."""
    assert ann.get("/ui/nothing").status == 404
    assert ann.get("/ui/nothing").page.title() == "Not Found"
    assert ann.client.put("/ui/workflows", base_url=HOST).status_code == 405
    assert ann.client.get("/nothing", base_url=HOST).content_type == "application/problem+json"


def test_the_first_page_is_found_from_everywhere(ann: Visitor) -> None:
    for path in ("/", "/ui", "/ui/"):
        assert ann.get(path).location == "/ui/workflows"
