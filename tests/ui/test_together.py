"""Two people at one workflow, in a real browser: who did what, and nothing that was typed is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, expect

from tests.stories.instance import Caller, Service, definition
from tests.ui import browser
from tests.ui.browser import SCREENSHOTS, Tab, needs_chromium

pytestmark = [needs_chromium, pytest.mark.slow]

WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
ONE = "/ui/workflows/order-sync"


@pytest.fixture
def owner(service: Service) -> Caller:
    """A project in which order-sync has v1, which is current, and a draft."""
    made = service.project(f"p-{uuid4().hex[:12]}")
    made.call("POST", "/workflows", {"slug": "order-sync", "definition": definition("A")})
    made.call("POST", "/workflows/order-sync/versions/publish", {"message": "First"})
    made.call("POST", "/workflows/order-sync/versions", {"definition": definition("B")})
    return made


@pytest.fixture
def bob(service: Service, owner: Caller) -> Caller:
    return service.caller(owner.project, "editor")


@pytest.fixture
def ann(chromium: Browser, owner: Caller) -> Iterator[Tab]:
    with browser.tab(chromium, owner, **WIDE) as opened:
        yield opened


def save(who: Caller, text: str) -> None:
    body = {"definition": text}
    saved = who.call("PUT", "/workflows/order-sync/versions/draft", body, headers={"If-Match": "*"})
    assert saved.status == 200, saved.raw


def shots(tab: Tab, name: str) -> None:
    """Keep pictures of the present page: narrow and wide, light and dark."""
    SCREENSHOTS.mkdir(exist_ok=True)
    for scheme, width in (("light", 1280), ("dark", 360), ("light", 360), ("dark", 1900)):
        tab.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # one of its literals
        tab.page.set_viewport_size({"width": width, "height": 860})
        tab.page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}-{width}.png", full_page=True)
    tab.page.emulate_media(color_scheme="light")
    tab.page.set_viewport_size(WIDE["viewport"])


def test_a_refused_publish_keeps_the_note_and_does_not_start_the_version(
    ann: Tab, owner: Caller, bob: Caller
) -> None:
    """The page says who saved what; the button says whose draft it would now publish."""
    page = ann.page
    ann.go(ONE)
    page.get_by_label("Release note").fill("Do not start yet")
    page.get_by_label("Make it the current version").uncheck()
    save(bob, definition("C", "https://bob.example/"))
    page.get_by_role("button", name="Publish v2").click()
    expect(page.get_by_role("alert")).to_contain_text("editor")
    expect(page.get_by_role("alert")).to_contain_text("saved the draft just now, after you opened this page")
    expect(page.get_by_role("alert")).to_contain_text("url of")
    expect(page.get_by_label("Release note")).to_have_value("Do not start yet")
    expect(page.get_by_label("Make it the current version")).not_to_be_checked()
    assert ann.problems() == []
    shots(ann, "publish-refused")
    page.get_by_role("button", name="draft as v2").click()
    expect(page.get_by_role("status").first).to_contain_text(
        "v2 is published. The current version is unchanged."
    )
    expect(page.get_by_text("current: v1")).to_be_visible()
    assert owner.get("/workflows/order-sync").json["latest_version"] == 2


@pytest.mark.parametrize("scripts", [True, False])
def test_two_changes_of_a_field_are_chosen_and_others_merge(
    chromium: Browser, owner: Caller, bob: Caller, scripts: bool
) -> None:
    """With the value before; the result is shown before it is saved. It works without JavaScript."""
    with browser.tab(chromium, owner, java_script_enabled=scripts, **WIDE) as ann:
        page = ann.page
        ann.go(f"{ONE}/edit")
        ann.type(definition("Ours", "https://ann.example/"))
        page.get_by_label("Summary of your changes").fill("Ann <3")
        save(bob, definition("B", "https://bob.example/").replace("label: Paid", "label: Ordered"))
        page.get_by_role("button", name="Save draft").click()
        expect(page.get_by_role("heading", name="Merge your changes")).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text("saved the draft just now, while you were editing")
        group = page.get_by_role("group", name="Node call-1: config / url")
        expect(group).to_contain_text("https://warehouse.example/shipments")
        shots(ann, "merge-choices")
        if not scripts:
            group.get_by_label("You").check()
            page.get_by_role("button", name="Show the result").click()
        else:
            page.get_by_role("button", name="Show the result").click()
            assert page.evaluate("document.activeElement.type") == "radio"  # the browser asks to choose
            group.get_by_label("You").check()
            assert ann.problems() == []
            page.get_by_role("button", name="Show the result").click()
        result = page.get_by_label("Definition")
        expect(result).to_have_value(
            definition("Ours", "https://ann.example/").replace("label: Paid", "label: Ordered")
        )
        expect(page.get_by_label("Summary of your changes")).to_have_value("Ann <3")
        shots(ann, "merge-result")
        if scripts:
            assert ann.problems() == []
        page.get_by_role("button", name="Save draft").click()
        expect(page.get_by_role("status").first).to_contain_text("saved")
    assert owner.get("/workflows/order-sync/versions/draft").json["message"] == "Ann <3"


def test_an_open_page_tells_what_others_do(ann: Tab, bob: Caller, owner: Caller) -> None:
    """Within two seconds, with who and a link, on each page of the workflow; never while it is hidden."""
    page = ann.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/changes?" in request.url else None)
    for path in (ONE, f"{ONE}/edit"):
        ann.go(path)
        with page.expect_response(lambda response: "/changes?" in response.url):
            pass
        save(bob, definition("B", f"https://{len(asked)}.example/"))
        notice = page.locator("#live p")
        expect(notice).to_contain_text("saved the draft · View the change", timeout=2500)
    shots(ann, "live")
    assert ann.problems() == []
    notice.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Changes", exact=False).first).to_be_visible()
    owner.call("POST", "/workflows/order-sync/versions/publish")
    expect(page.locator("#live p")).to_contain_text("You published v2 · View v2", timeout=2500)
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator("#live p")).to_have_count(0)
    page.evaluate(_HIDE)
    page.wait_for_timeout(1600)
    asked.clear()
    page.wait_for_timeout(3200)
    assert asked == []


_HIDE = """() => {
  Object.defineProperty(document, "visibilityState", { value: "hidden" });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_what_is_typed_is_kept_and_restored_on_another_device(
    ann: Tab, chromium: Browser, owner: Caller
) -> None:
    """A moment after the last change, visibly; a draft that is saved leaves nothing to restore."""
    page = ann.page
    ann.go(f"{ONE}/edit")
    with page.expect_response(lambda response: response.url.endswith("/autosave")):
        ann.type(definition("Ours", "https://ann.example/"))
        page.get_by_label("Summary of your changes").fill("Ann <3")
    expect(page.locator("#saved")).to_contain_text("Saved · ")
    shots(ann, "autosaved")
    assert ann.problems() == []
    for scripts in (False, True):
        with browser.tab(chromium, owner, java_script_enabled=scripts, **WIDE) as phone:
            phone.go(f"{ONE}/edit")
            expect(phone.page.get_by_text("You have unsaved changes from").first).to_be_visible()
            shots(phone, "unsaved")
            if not scripts:
                phone.page.get_by_role("link", name="Resume").click()
                text = phone.page.get_by_label("Definition", exact=True)
                expect(text).to_have_value(definition("Ours", "https://ann.example/"))
                expect(phone.page.get_by_label("Summary of your changes")).to_have_value("Ann <3")
                continue
            phone.page.get_by_role("button", name="Restore").click()
            expect(phone.page.get_by_label("Summary of your changes")).to_have_value("Ann <3")
            phone.page.get_by_role("button", name="Save draft").click()
            expect(phone.page.get_by_role("heading", name="Draft").first).to_be_visible()
    saved = owner.get("/workflows/order-sync/versions/draft").json
    assert saved["message"] == "Ann <3"
    assert b"https://ann.example/" in owner.definition("order-sync", "draft")


def test_what_is_typed_into_the_plain_form_is_kept(ann: Tab, bob: Caller, owner: Caller) -> None:
    """Where the editor's scripts are missing; it stops on a conflict, also while its result is edited."""
    page = ann.page
    page.route("**/built/**/*.js", lambda route: route.fulfill(content_type="text/javascript", body=""))
    ann.go(f"{ONE}/edit")
    area, kept = page.get_by_label("Definition", exact=True), page.locator(".autosaved")

    def answered() -> AbstractContextManager[object]:
        return page.expect_response(lambda response: response.url.endswith("/autosave"))

    with answered():
        area.fill(definition("Ours", "https://ann.example/"))
    expect(kept).to_have_text(re.compile(r"Saved · \d s ago"))
    shots(ann, "plain-form")
    assert ann.problems() == []
    save(bob, definition("B").replace("label: Paid", "label: Ordered"))
    with answered():
        area.press_sequentially(" ")
    expect(page.get_by_role("alert")).to_contain_text("Saving shows both changes and merges them.")
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("heading", name="Merge your changes")).to_be_visible()
    with answered():
        area.fill(definition("Merged", "https://ann.example/"))
    expect(kept).to_have_text(re.compile(r"Saved · \d s ago"))
    page.context.clear_cookies()
    with answered():
        area.press_sequentially("#")
    expect(page.locator("#result").get_by_role("alert")).to_contain_text("You're signed out")
    page.get_by_role("button", name="Save draft").click()
    text = page.get_by_label("Your text")
    expect(text).to_have_value(definition("Merged", "https://ann.example/") + "#")
    assert ann.problems() == []
    with browser.tab(page.context.browser, owner) as phone:  # type: ignore[arg-type] # it has one
        phone.go(f"{ONE}/edit")
        phone.page.get_by_role("button", name="Restore").click()
        expect(phone.page.locator(".cm-line").first).to_have_text("name: Merged")


def test_the_plain_form_takes_over_where_the_editor_fails(ann: Tab, owner: Caller) -> None:
    page = ann.page
    page.add_init_script("ResizeObserver = undefined")
    ann.go(f"{ONE}/edit")
    area = page.get_by_label("Definition", exact=True)
    with page.expect_response(lambda response: response.url.endswith("/autosave")):
        area.fill(definition("Plain"))
    expect(page.locator(".autosaved")).to_have_text(re.compile(r"Saved · \d s ago"))
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("status").first).to_contain_text("saved")
    assert b"name: Plain" in owner.definition("order-sync", "draft")
    assert [each.partition(": ")[2] for each in ann.complaints] == ["ResizeObserver is not a constructor"]
    ann.complaints.clear()
