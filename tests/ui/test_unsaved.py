"""What is typed into the visual editor and not saved yet: fields of nodes, and copies of unsaved text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.stories.instance import Caller, Service
from tests.ui.browser import Tab, needs_chromium
from tests.ui.editor import EDIT, TEXT, create, edit, editing, node

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture
def ann(chromium: Browser, owner: Caller) -> Iterator[Tab]:
    """Ann, who edits a workflow of three nodes."""
    with editing(chromium, owner) as opened:
        yield opened


def test_what_is_typed_while_an_earlier_change_is_written_stays(ann: Tab) -> None:
    """The answer to the earlier change neither replaces it in its field, nor undoes it in the text."""
    page = ann.page
    waiting: list[Route] = []
    page.route("**/patch", lambda route: waiting.append(route))
    node(page, "Create shipment").click()
    form = page.get_by_role("complementary", name="Selected node")
    for first, second, field, written in (
        (
            "https://two.example/",
            "https://three.example/",
            form.get_by_label("URL"),
            "url: https://three.example/",
        ),
        ("Ship", "Ship it", form.get_by_label("Label"), "label: Ship it"),
        ("3", "4", form.get_by_label("Attempts"), "maxAttempts: 4"),
        ("Basic", "Basic b25l", form.get_by_label("Header value"), "Basic b25l"),
    ):
        field.fill(first)
        field.press("Tab")
        field.fill(second)
        expect(page.locator("#state")).to_have_text("Updating…")
        answer(page, waiting)
        expect(page.locator(".cm-content")).to_contain_text(first)
        expect(page.locator("#state")).not_to_have_text("Updating…")
        expect(field).to_have_value(second)
        field.press("Tab")
        answer(page, waiting)
        expect(page.locator(".cm-content")).to_contain_text(written)


def test_headers_are_written_one_after_the_other(ann: Tab) -> None:
    """A change of one header does not wait for that of another, and both are in the text."""
    page = ann.page
    waiting: list[Route] = []
    page.route("**/patch", lambda route: waiting.append(route))
    node(page, "Create shipment").click()
    form = page.get_by_role("complementary", name="Selected node")
    form.get_by_label("Header value").fill("Bearer {{two}}")
    form.get_by_role("button", name="Add header").click()
    form.get_by_label("Header value").last.fill("yes")
    form.get_by_label("Header name").last.fill("X-Dry-Run")
    form.get_by_label("Header name").last.press("Tab")
    for _ in range(2):
        answer(page, waiting)
    expect(page.locator(".cm-line", has_text="headers:")).to_contain_text(
        """'{"Authorization":"Bearer {{two}}","X-Dry-Run":"yes"}'"""
    )
    expect(form.get_by_label("Header name")).to_have_count(2)
    page.unroute("**/patch")
    form.get_by_role("button", name="Remove header Authorization").click()
    expect(page.locator(".cm-line", has_text="headers:")).to_contain_text("""'{"X-Dry-Run":"yes"}'""")
    expect(form.get_by_label("Header name")).to_have_value("X-Dry-Run")


def test_saving_writes_the_field_that_was_not_left(ann: Tab, owner: Caller) -> None:
    page = ann.page
    node(page, "Create shipment").click()
    page.get_by_role("complementary", name="Selected node").get_by_label("URL").fill("https://two.example/")
    with page.expect_navigation():
        page.keyboard.press("Control+s")
    draft = owner.call("GET", "/workflows/order-sync/versions/draft").json
    assert draft["definition"]["nodes"][1]["data"]["config"]["url"] == "https://two.example/"


def test_what_is_typed_while_a_draft_is_saved_is_saved_next(ann: Tab, owner: Caller) -> None:
    """The page does not leave it behind, and what was saved first is no conflict."""
    page = ann.page
    waiting: list[Route] = []
    page.route("**/edit", lambda route: waiting.append(route) if is_save(route) else route.continue_())
    ann.type(TEXT.replace("Wait", "Pause"))
    page.locator("#message").fill("Pause first")
    page.keyboard.press("Control+s")
    until(page, lambda: waiting)
    ann.type(TEXT.replace("Wait", "Pause").replace("90000", "60000"))
    waiting.pop().continue_()
    expect(page.get_by_text("Saved. What you typed since then is not saved yet.")).to_be_visible()
    expect(page.locator("#message")).to_have_value("")
    page.unroute("**/edit")
    with page.expect_navigation():
        page.keyboard.press("Control+s")
    saved = owner.call("GET", "/workflows/order-sync/versions/draft").json["definition"]["nodes"][2]["data"]
    assert saved == {"label": "Pause", "config": {"duration": 60000}}
    page.goto(f"{ann.url}{EDIT}")
    expect(page.locator(".cm-content")).to_contain_text("60000")
    expect(page.locator("#kept")).to_have_count(0)


def is_save(route: Route) -> bool:
    return route.request.method == "POST"


def test_leaving_the_page_asks_about_a_field_that_was_not_left(ann: Tab) -> None:
    page = ann.page
    node(page, "Create shipment").click()
    field = page.get_by_role("complementary", name="Selected node").get_by_label("URL")
    field.fill("https://two.example/")
    with page.expect_event("dialog") as asked:
        page.evaluate("() => void setTimeout(() => location.reload())")
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    expect(field).to_have_value("https://two.example/")


def answer(page: Page, waiting: list[Route]) -> None:
    """Let the server answer the change that waits longest."""
    until(page, lambda: waiting)
    waiting.pop(0).continue_()


def until(page: Page, is_true: Callable[[], object]) -> None:
    """Wait while the page goes on."""
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline, "the page sent nothing"
        page.wait_for_timeout(20)


# Copies of unsaved text


def typed(tab: Tab) -> None:
    """Type a comment and a message, and let the copy be kept."""
    tab.type("# mine\n" + TEXT)
    tab.page.get_by_label("Summary of your changes").fill("My summary")
    expect(tab.page.locator("#state")).to_have_text("valid")


def assert_offered(tab: Tab) -> None:
    """What was typed is offered, comes back when asked for, and can be saved."""
    if not tab.page.url.endswith("/edit"):
        edit(tab)
    tab.page.get_by_role("button", name="Restore").click()
    expect(tab.page.locator(".cm-line").first).to_have_text("# mine")
    expect(tab.page.get_by_label("Summary of your changes")).to_have_value("My summary")


def test_cancel_back_a_theme_and_a_closed_tab_lose_nothing(ann: Tab) -> None:
    page = ann.page
    typed(ann)
    page.get_by_role("link", name="Cancel").click()
    page.wait_for_url("**/order-sync")
    assert_offered(ann)
    page.get_by_role("button", name="Light").click()
    page.wait_for_load_state()
    assert_offered(ann)
    ann.go("/ui/workflows")
    page.go_back()
    expect(page.locator("#state")).to_have_text("valid")
    assert_offered(ann)
    other = Tab(page.context.new_page(), ann.url)
    page.close()
    edit(other)
    assert_offered(other)
    other.page.get_by_role("button", name="Save draft").click()
    expect(other.page.get_by_role("status").filter(has_text="Draft saved.")).to_be_visible()
    edit(other)
    expect(other.page.get_by_role("button", name="Restore")).to_have_count(0)
    assert other.complaints == []


def test_a_refused_save_stays_on_the_page_and_is_offered_later(ann: Tab) -> None:
    page = ann.page
    page.get_by_label("Summary of your changes").fill("My summary")
    ann.type("# mine\nx: [unclosed")
    page.get_by_role("button", name="Save draft").click()
    refusal = page.get_by_role("alert")
    expect(refusal).to_contain_text("Not saved.")
    expect(refusal).to_be_focused()
    ann.go("/ui/workflows")
    assert_offered(ann)


def test_an_ended_session_loses_nothing(ann: Tab, owner: Caller) -> None:
    page = ann.page
    typed(ann)
    page.context.clear_cookies()
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_text("You're signed out.")).to_be_visible()
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Access token").fill(owner.token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/edit")
    assert_offered(ann)


def test_a_conflict_loses_nothing(ann: Tab, owner: Caller) -> None:
    """What is restored on a later state of the draft does not overwrite that."""
    page = ann.page
    typed(ann)
    body = {"definition": TEXT + "# theirs\n"}
    saved = owner.call("PUT", "/workflows/order-sync/versions/draft", body, headers={"If-Match": "*"})
    assert saved.status == 200, saved.raw
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("heading", name="Merge your changes")).to_be_visible()
    ann.go("/ui/workflows")
    edit(ann)
    expect(page.get_by_text("made on another state of the draft")).to_be_visible()
    assert_offered(ann)
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("heading", name="Merge your changes")).to_be_visible()
    assert b"# theirs" in owner.definition("order-sync", "draft")


def test_copies_end_with_the_session_and_stay_in_their_project(
    ann: Tab, owner: Caller, service: Service
) -> None:
    page = ann.page
    typed(ann)
    stranger = service.project(f"p-{uuid4().hex[:12]}")
    create(stranger, TEXT)
    page.context.clear_cookies()
    ann.sign_in(stranger.token)
    edit(ann)
    expect(page.get_by_role("button", name="Restore")).to_have_count(0)
    page.context.clear_cookies()
    ann.sign_in(owner.token)
    edit(ann)
    expect(page.get_by_role("button", name="Restore")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    ann.sign_in(owner.token)
    edit(ann)
    expect(page.get_by_role("button", name="Restore")).to_have_count(0)
