"""Versions are promoted and taken back at night, and withdrawn: in a browser, over HTTP and in stock git."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from tests.stories.instance import Caller, definition
from tests.ui import browser
from tests.ui.browser import Tab, needs_chromium

pytestmark = [needs_chromium, pytest.mark.slow]

RULES = {"environments": [{"name": "staging", "follows": True}, {"name": "prod"}]}


def follow(page: Page, name: str) -> None:
    """Click on a link until its page comes: a loaded browser may drop a click during its first paint."""
    link = page.get_by_role("link", name=name, exact=True)
    target = link.get_attribute("href") or ""
    for _ in range(3):
        link.click()
        with suppress(PlaywrightTimeoutError):
            page.wait_for_url(f"**{target}", timeout=5_000)
            return
    pytest.fail(f"the link {name} does not lead to {target}")


def press(tab: Tab, name: str) -> None:
    """Press a button of a page without problems."""
    assert tab.axe() == []
    assert tab.problems() == []
    tab.page.get_by_role("button", name=name, exact=True).click()


def promote(tab: Tab, reason: str, *slugs: str) -> None:
    page = tab.page
    tab.go("/ui/releases")
    follow(page, "Environments")
    for slug in slugs:
        page.locator(f"input[name=workflow][value={slug}]").check()  # named by its definition
    page.get_by_role("button", name="Promote…").click()
    page.get_by_label("Reason").fill(reason)
    press(tab, "Promote")
    expect(page.get_by_role("status").filter(has_text="Promoted.")).to_be_visible()


def in_prod(owner: Caller, *slugs: str) -> list[bytes]:
    return [owner.definition(slug, "prod") for slug in slugs]


def test_a_promotion_at_noon_is_taken_back_at_night(owner: Caller, chromium: Browser, tmp_path: Path) -> None:
    """On a phone, and without scripts at night; the pointer is held through the next promotion."""
    owner.call("PUT", "/environments", RULES)
    for slug in ("orders", "stock"):
        owner.publish(slug, "one")
    with browser.tab(chromium, owner, viewport={"width": 360, "height": 740}) as tab:
        promote(tab, "Noon", "orders", "stock")
        assert in_prod(owner, "orders", "stock") == [definition("one").encode()] * 2
        owner.publish("orders", "two")
        promote(tab, "Evening", "orders")
    assert in_prod(owner, "orders", "stock") == [definition(label).encode() for label in ("two", "one")]

    with browser.tab(chromium, owner, java_script_enabled=False, color_scheme="dark") as tab:
        page = tab.page
        tab.go("/ui/environments")
        follow(page, "Move… orders in prod")
        page.get_by_label("Version", exact=True).fill("v1")
        page.get_by_label("Reason").fill("v2 fails at night")
        page.get_by_label("Hold").check()
        page.get_by_role("button", name="Show what changes").click()
        expect(page.get_by_role("status")).to_contain_text("v2 → v1")
        page.get_by_role("button", name="Move", exact=True).click()
        expect(page.get_by_role("status").filter(has_text="Moved.")).to_be_visible()
        expect(page.get_by_role("cell", name="v2 fails at night")).to_be_visible()
        tab.go("/ui/workflows/orders/activity?topic=pointers")
        expect(page.get_by_role("listitem").filter(has_text="promoted v2 from staging")).to_contain_text(
            "Evening"
        )
    assert in_prod(owner, "orders") == [definition("one").encode()]
    ann = owner.author(tmp_path / "ann")
    ann.git("fetch", "-q", "origin", "refs/ledger/*:refs/ledger/*")
    entries = ann.git("log", "--format=%s%n%(trailers:key=Gitstore-From)", "refs/ledger/orders").splitlines()
    assert entries[0] == "Held prod of orders to v1"
    assert "Gitstore-From: staging" in entries


def test_a_bad_version_is_withdrawn_without_breaking_pinned_runs(
    owner: Caller, chromium: Browser, tmp_path: Path
) -> None:
    owner.call("PUT", "/environments", RULES)
    for label in ("one", "two"):
        owner.publish("orders", label)
    ann = owner.author(tmp_path / "ann")
    tagged = ann.git("rev-parse", "orders/v2")
    pinned = str(owner.get("/workflows/orders/versions/2").json["id"])
    with browser.tab(chromium, owner, viewport={"width": 360, "height": 740}) as tab:
        page = tab.page
        tab.go("/ui/workflows/orders/versions")
        follow(page, "v2")
        follow(page, "Withdraw…")
        page.get_by_label("Reason").fill("It loses orders")
        press(tab, "Withdraw v2")
        expect(page.get_by_text("Still on it: current, staging.")).to_be_visible()
        tab.go("/ui/workflows/orders")
        page.get_by_role("link", name="Roll back").first.click()
        press(tab, "Make v1 current")
        expect(page.get_by_text("current: v1")).to_be_visible()

    # What names it by its id or its number goes on; nothing new gets it.
    for version in (pinned, 2):
        assert owner.definition("orders", version) == definition("two").encode()
    assert owner.get("/workflows/orders/versions/2").json["yanked"] is True
    assert owner.definition("orders", "current") == owner.definition("orders", "latest")
    promotion = {"from": "staging", "to": "prod", "workflows": ["orders"]}
    for method, path, body in (
        ("PUT", "/workflows/orders/current", {"version": 2}),
        ("POST", "/promote", promotion),
        ("PUT", "/workflows/orders/environments/prod", {"version": 2}),
    ):
        refused = owner.call(method, path, body)
        assert refused.status in (409, 422), path
        assert b"It loses orders" in refused.raw, path
    ann.git("fetch", "-q", "--tags", "origin", "refs/ledger/*:refs/ledger/*")
    assert ann.git("rev-parse", "orders/v2") == tagged
    assert "It loses orders" in ann.git("log", "--format=%B", "refs/ledger/orders")

    with browser.tab(chromium, owner, java_script_enabled=False, color_scheme="dark") as tab:
        page = tab.page
        tab.go("/ui/workflows/orders/versions")
        expect(page.get_by_role("row").filter(has_text="It loses orders")).to_contain_text("yanked")
        follow(page, "v2")
        follow(page, "Take back")
        page.get_by_label("Reason").fill("The engine lost them")
        page.get_by_role("button", name="Offer v2 again").click()
        expect(page.get_by_role("status").filter(has_text="offered again")).to_be_visible()
    assert owner.call("POST", "/promote", promotion).status == 200
    assert in_prod(owner, "orders") == [definition("two").encode()]
