"""A first workflow, by an author without knowledge of YAML, while a colleague edits it too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.stories.instance import Caller, Service
from tests.ui import browser
from tests.ui.browser import Tab, needs_chromium
from tests.ui.editor import WIDE, drag, node

pytestmark = [needs_chromium, pytest.mark.slow]

ONE = "/ui/workflows/order-sync"


def ready(page: Page) -> None:
    expect(page.locator("#state")).to_have_text(re.compile("valid|problem"))


def add(page: Page, kind: str, label: str, **settings: str) -> None:
    """Add a node after the selected one, and fill in its form."""
    before = page.locator(".svelte-flow__node").count()
    page.get_by_text("Add node").click()
    page.get_by_role("button", name=re.compile(f"^{kind} ")).click()
    expect(page.locator(".svelte-flow__node")).to_have_count(before + 1)
    form = page.get_by_role("complementary", name="Selected node")
    for name, value in {"Label": label, **settings}.items():
        field = form.get_by_label(name, exact=False).first
        if field.evaluate("element => element.matches('select')"):
            field.select_option(value)
        else:
            field.fill(value)
            field.press("Tab")
    expect(node(page, label)).to_be_visible()
    ready(page)


def save(page: Page, summary: str) -> None:
    page.get_by_label("Summary of your changes").fill(summary)
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("status").filter(has_text="Draft saved.")).to_be_visible()


def publish(page: Page, number: int) -> None:
    page.get_by_role("button", name=f"Publish v{number}").click()
    expect(page.get_by_text(f"current: v{number}")).to_be_visible()


def set_url(tab: Tab, label: str, url: str) -> None:
    tab.go(f"{ONE}/edit")
    ready(tab.page)
    node(tab.page, label).click()
    field = tab.page.get_by_role("complementary", name="Selected node").get_by_label("URL")
    field.fill(url)
    field.press("Tab")
    expect(tab.page.locator(".cm-content")).to_contain_text(url)
    ready(tab.page)


def test_a_workflow_from_the_sign_in_to_a_roll_back_without_yaml(
    chromium: Browser, owner: Caller, service: Service, tmp_path: Path
) -> None:
    """Five nodes on the canvas, repairs, two versions compared, a conflict merged, and a roll back.

    Typed text survives when its author leaves the page; a moved node changes only its position in Git.
    """
    bob = service.caller(owner.project, "editor")
    with browser.tab(chromium, owner, **WIDE) as ann, browser.tab(chromium, bob, **WIDE) as colleague:
        page = ann.page
        page.get_by_role("link", name="New workflow").click()
        page.get_by_label("Name", exact=True).fill("Order sync")
        page.get_by_role("button", name="Create workflow").click()
        ready(page)
        page.locator(".svelte-flow__node").first.click()
        add(page, "HTTP call", "Fetch order", URL="https://shop.example/orders", Method="GET")
        add(page, "Delay", "Wait a while", Duration="5000")
        add(page, "HTTP call", "Ship it")
        expect(page.locator("#problems")).to_contain_text("url is required")
        page.get_by_role("link", name="Cancel").click()
        page.wait_for_url(f"**{ONE}")
        page.get_by_role("link", name="Edit", exact=True).first.click()
        page.get_by_role("button", name="Restore").click()
        expect(page.locator(".svelte-flow__node")).to_have_count(4)
        ready(page)
        node(page, "Ship it").click()
        form = page.get_by_role("complementary", name="Selected node")
        form.get_by_label("URL").fill("https://warehouse.example/")
        form.get_by_label("URL").press("Tab")
        form.get_by_label("Method").select_option("POST")
        expect(page.locator("#problems")).to_contain_text("No problems")
        add(page, "End", "Done")
        expect(page.locator("#problems")).to_contain_text("No problems")
        expect(page.locator(".svelte-flow__edge")).to_have_count(4)
        save(page, "Build it")
        publish(page, 1)

        page.get_by_role("link", name="Edit", exact=True).first.click()
        ready(page)
        drag(page, node(page, "Wait a while"), 0, 80)
        expect(page.get_by_role("button", name="Undo")).to_be_enabled()
        ready(page)
        save(page, "Move a node")
        publish(page, 2)
        author = owner.author(tmp_path / "clone")
        changed = author.git("diff", "-U0", "order-sync/v1", "order-sync/v2").splitlines()
        lines = [line for line in changed if re.match(r"[-+](?![-+])", line)]
        assert lines
        assert all(re.search(r"\b[xy]: -?\d+", line) and "label" not in line for line in lines), lines

        set_url(ann, "Fetch order", "https://ann.example/")
        set_url(colleague, "Fetch order", "https://bob.example/")
        save(colleague.page, "Of Bob")
        page.get_by_label("Summary of your changes").fill("Of Ann")
        page.get_by_role("button", name="Save draft").click()
        expect(page.get_by_role("heading", name="Merge your changes")).to_be_visible()
        page.get_by_role("group").get_by_label("You").check()
        page.get_by_role("button", name="Show the result").click()
        expect(page.get_by_label("Summary of your changes")).to_have_value("Of Ann")
        page.get_by_role("button", name="Save draft").click()
        publish(page, 3)
        page.get_by_role("link", name="Compare", exact=True).click()
        expect(page.locator("del")).to_contain_text("https://shop.example/orders")
        expect(page.locator("ins")).to_contain_text("https://ann.example/")

        page.get_by_role("link", name="Overview").click()
        page.get_by_role("link", name="Roll back").click()
        page.get_by_role("button", name="Make v2 current").click()
        expect(page.get_by_text("current: v2")).to_be_visible()
    assert owner.get("/workflows/order-sync").json["current"]["version_number"] == 2
