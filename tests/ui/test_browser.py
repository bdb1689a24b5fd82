"""User journeys in a real browser, against a real service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.stories.instance import Caller, definition
from tests.ui import browser
from tests.ui.browser import AXE, SCREENSHOTS, Tab, needs_chromium

pytestmark = [needs_chromium, pytest.mark.slow]

WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}


@pytest.fixture
def ann(chromium: Browser, owner: Caller) -> Iterator[Tab]:
    with browser.tab(chromium, owner, **WIDE) as opened:
        yield opened


def publish(owner: Caller, *urls: str, slug: str = "order-sync") -> None:
    """Publish a version for each URL."""
    for url in urls:
        body = {"definition": definition("Order sync", url)}
        saved = owner.call("POST", f"/workflows/{slug}/versions", body)
        if saved.status == 404:
            saved = owner.call("POST", "/workflows", {"slug": slug, **body})
        assert saved.status == 201, saved.raw
        done = owner.call("POST", f"/workflows/{slug}/versions/publish", {"message": f"Use {url}"})
        assert done.status == 201, done.raw


def urls(count: int) -> list[str]:
    return [f"https://warehouse{number}.example/" for number in range(1, count + 1)]


def test_from_the_sign_in_page_to_a_published_version_and_back(ann: Tab, owner: Caller) -> None:
    """Create, edit, see problems, save, publish, compare two versions, roll back."""
    page = ann.page
    page.get_by_role("link", name="New workflow").click()
    page.get_by_label("Slug").fill("order-sync")
    page.get_by_label("Name", exact=True).fill("Order sync")
    page.get_by_role("button", name="Create workflow").click()
    expect(page.get_by_role("link", name="Edit", exact=True)).to_have_attribute("aria-current", "page")
    ann.type("nodes:\n  - {id: call, type: httpCall, data: {label: Call, config: {method: POST}}}\n")
    expect(page.locator("#problems")).to_contain_text("url is required")
    page.locator("#problems").get_by_role("link", name="line 2").first.click()
    expect(page.locator(".cm-activeLineGutter").first).to_have_text("2")
    ann.type(definition("Order sync", "https://one.example/"))
    expect(page.locator("#state")).to_have_text("valid")
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("status").filter(has_text="Draft saved.")).to_be_visible()
    page.get_by_label("Release note").fill("The first one")
    page.get_by_role("button", name="Publish v1").click()
    expect(page.get_by_text("current: v1")).to_be_visible()

    publish(owner, *urls(4))
    page.get_by_role("link", name="History", exact=True).click()
    page.get_by_role("link", name="Compare… v2 with another").click()
    page.get_by_role("link", name="Compare with v5").click()
    expect(page.locator("ins")).to_contain_text("https://warehouse4.example/")
    expect(page.locator("del")).to_contain_text("https://warehouse1.example/")

    page.get_by_role("link", name="History", exact=True).click()
    page.get_by_role("link", name="v2", exact=True).click()
    page.get_by_role("link", name="Make v2 current").click()
    expect(page.get_by_role("heading", name="Make v2 current?")).to_be_visible()
    page.get_by_role("button", name="Make v2 current").click()
    expect(page.get_by_text("current: v2")).to_be_visible()
    assert owner.get("/workflows/order-sync").json["current"]["version_number"] == 2


def test_a_rollback_takes_two_clicks(ann: Tab, owner: Caller) -> None:
    publish(owner, *urls(3))
    ann.go("/ui/workflows")
    ann.page.get_by_role("link", name="Roll back order-sync").click()
    ann.page.get_by_role("button", name="Make v2 current").click()
    expect(ann.page.get_by_text("current: v2")).to_be_visible()
    assert owner.get("/workflows/order-sync").json["current"]["version_number"] == 2


def test_reverting_keeps_the_current_version(ann: Tab, owner: Caller) -> None:
    publish(owner, *urls(2))
    ann.go("/ui/workflows/order-sync/versions/1")
    ann.page.get_by_role("link", name="Revert the draft to v1").click()
    expect(ann.page.get_by_text("v2 stays current")).to_be_visible()
    ann.page.get_by_role("button", name="Revert the draft to v1").click()
    expect(ann.page.get_by_text("current: v2")).to_be_visible()
    ann.page.get_by_role("link", name="Discard").click()
    ann.page.get_by_role("button", name="Discard the draft").click()
    expect(ann.page.get_by_role("status").filter(has_text="discarded")).to_be_visible()


def test_the_history_has_keys_and_loads_older_versions(ann: Tab, owner: Caller) -> None:
    publish(owner, *urls(30))
    page = ann.page
    ann.go("/ui/workflows/order-sync/versions")
    expect(page.locator("[data-history] tbody tr")).to_have_count(25)
    page.get_by_role("link", name="Older versions").scroll_into_view_if_needed()
    expect(page.locator("[data-history] tbody tr")).to_have_count(30)
    for key in ("j", "j", "j", "k"):
        page.keyboard.press(key)
    expect(page.locator("tr[aria-selected=true]")).to_contain_text("v29")
    page.keyboard.press("d")
    expect(page).to_have_url(re.compile(r"compare\?to=29"))
    page.go_back()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="v30", level=1)).to_be_visible()


def test_a_graph_is_zoomed_and_moved_and_centres_a_node(ann: Tab, owner: Caller) -> None:
    publish(owner, *urls(2))
    page = ann.page
    ann.go("/ui/workflows/order-sync/compare?from=1&to=2")
    svg = page.locator("svg.drawing")
    whole = svg.get_attribute("viewBox")
    page.get_by_role("button", name="Zoom in").click()
    zoomed = svg.get_attribute("viewBox")
    assert zoomed != whole
    svg.focus()
    page.keyboard.press("ArrowRight")
    assert svg.get_attribute("viewBox") != zoomed
    page.get_by_role("button", name="Fit the whole graph").click()
    assert svg.get_attribute("viewBox") == whole
    page.locator(".changes a").first.click()
    expect(page.locator("#n1 .card")).to_have_css("stroke-width", "3px")


def test_editing_and_publishing_work_without_javascript(chromium: Browser, owner: Caller) -> None:
    publish(owner, *urls(2))
    with browser.tab(chromium, owner, java_script_enabled=False, **WIDE) as ann:
        ann.go("/ui/workflows/order-sync/edit")
        field = ann.page.get_by_label("Definition", exact=True).bounding_box()
        assert field is not None
        assert field["height"] > 400
        ann.type(definition("Order sync", "https://three.example/"))
        ann.page.get_by_role("button", name="Save draft").click()
        ann.page.get_by_role("button", name="Publish v3").click()
        expect(ann.page.get_by_text("current: v3")).to_be_visible()


def pages(owner: Caller) -> dict[str, str]:
    """Create one of everything; return the URL of each page by name."""
    publish(owner, *urls(1), slug="closed")
    owner.call("POST", "/workflows/closed/archive", {"reason": "Replaced by order-sync"})
    rules = [{"name": "staging"}, {"name": "qa", "follows": True}]
    owner.call("PUT", "/environments", {"environments": rules})
    publish(owner, *urls(3))
    at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    owner.call("PUT", "/workflows/order-sync/current", {"version": 2, "at": at, "message": "Tomorrow"})
    broken = definition("Order sync", "https://four.example/").replace("https://four.example/", "")
    owner.call("POST", "/workflows/order-sync/versions", {"definition": broken, "message": "Not yet"})
    subscription = owner.call("POST", "/subscriptions", {"url": "https://subscriber.example/hooks"}).json
    sent = owner.call("POST", f"/subscriptions/{subscription['id']}/test").json
    url = "https://git.example/acme/a-rather-long-name-of-a-repository-with-many-flows.git"
    source = owner.call("POST", "/sources", {"url": url}).json
    owner.call("POST", "/workflows", {"slug": "other", "description": "Waits for its first version."})
    one = "/ui/workflows/order-sync"
    notes = {
        "title": "The first warehouse",
        "notes": "Ships on weekdays.\n\nAsk Ann before you change the URL.",
    }
    owner.call("PATCH", "/workflows/order-sync/versions/1", {"title": "Warehouse"})
    owner.call("PATCH", "/workflows/order-sync/versions/1", notes)
    owner.call("PUT", "/workflows/order-sync/environments/staging", {"version": 2, "message": "Try it"})
    weights = {"weights": {"1": 80, "2": 20}, "hold": True, "message": "A few first"}
    owner.call("PUT", "/workflows/order-sync/environments/staging", weights)
    owner.call("POST", "/workflows/order-sync/versions/1/yank", {"reason": "It ships on Sundays, too"})
    return {
        "withdrawn": f"{one}/versions/1",
        "withdraw": f"{one}/versions/2/withdraw",
        "take-back": f"{one}/versions/1/take-back",
        "describe": f"{one}/versions/1/describe",
        "pointer": f"{one}/environments/staging",
        "remove-pointer": f"{one}/environments/staging/remove",
        "versions-activity": f"{one}/activity?topic=versions",
        "workflows": "/ui/workflows",
        "new-workflow": "/ui/new-workflow",
        "workflow": one,
        "edit": f"{one}/edit",
        "discard": f"{one}/discard",
        "history": f"{one}/versions",
        "choose": f"{one}/versions?compare=1",
        "version": f"{one}/versions/2",
        "draft": f"{one}/versions/draft",
        "compare": f"{one}/compare?from=1&to=draft",
        "revert": f"{one}/versions/1/revert",
        "current": f"{one}/versions/2/current",
        "sources": "/ui/sources",
        "source": f"/ui/sources/{source['id']}",
        "new-source": "/ui/new-source",
        "webhooks": "/ui/webhooks",
        "webhook": f"/ui/webhooks/{subscription['id']}",
        "new-webhook": "/ui/new-webhook",
        "delete-webhook": f"/ui/webhooks/{subscription['id']}/delete",
        "delivery": f"/ui/deliveries/{sent['id']}",
        "tokens": "/ui/tokens",
        "members": "/ui/members",
        "project": "/ui/settings",
        "schema": "/ui/schema",
        "roll-back": f"{one}/roll-back",
        "projects": "/ui/projects",
        "all-activity": "/ui/activity",
        "activity": f"{one}/activity",
        "settings": f"{one}/settings",
        "archive": f"{one}/archive",
        "archived": "/ui/workflows/closed",
        "archived-settings": "/ui/workflows/closed/settings",
        "delete": "/ui/workflows/other/delete",
        "archived-list": "/ui/workflows?filter=archived",
        "blame": f"{one}/versions/2/blame",
        "refusal": f"{one}/versions/99",
        "only-draft": "/ui/workflows/other",
        "environments": "/ui/environments",
        "promote": "/ui/promote?from=current&to=staging&workflow=order-sync",
        "environment-rules": "/ui/environment-rules",
        "releases": "/ui/releases",
        "new-release": "/ui/new-release",
    }


WIDTHS = (1440, 768, 360)


def flaws(ann: Tab, name: str, scheme: str) -> list[str]:
    """Return what is wrong with the present page, at each width, and keep its pictures."""
    shift = ann.page.evaluate(_SHIFT)
    found = [f"{name}: it shifts by {shift}"] if shift > 0.02 else []
    # Both themes have one layout: the dark one is checked at the widest and the narrowest.
    for width in WIDTHS if scheme == "light" else (WIDTHS[0], WIDTHS[-1]):
        ann.page.set_viewport_size({"width": width, "height": 800})
        found += [*ann.problems(), *ann.axe()]
        if width == WIDTHS[0]:
            found += [f"{name}: a button as high as {height}" for height in ann.page.evaluate(_HEIGHTS)]
        ann.page.screenshot(path=_file(name, scheme, width), full_page=True)
    ann.page.set_viewport_size({"width": WIDTHS[0], "height": 800})
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible(chromium: Browser, owner: Caller, scheme: str) -> None:
    """By axe-core; contrast in drawings; no console errors, horizontal scrolling or layout shift."""
    SCREENSHOTS.mkdir(exist_ok=True)
    problems: list[str] = []
    shown = {"color_scheme": scheme, "viewport": {"width": WIDTHS[0], "height": 800}}
    with browser.tab(chromium, owner, **shown) as ann:
        for name, path in pages(owner).items():
            ann.go(path)
            if name == "edit":
                expect(ann.page.locator("#state")).not_to_have_text("")
            problems += flaws(ann, name, scheme)
        ann.go("/ui/tokens")
        ann.page.get_by_label("Name").fill("engine")
        ann.page.get_by_role("button", name="Create token").click()
        expect(ann.page.get_by_role("heading", name="New access token")).to_be_visible()
        problems += flaws(ann, "shown-once", scheme)
        ann.page.get_by_role("button", name="Sign out").click()
        expect(ann.page.get_by_role("heading", name="Sign in")).to_be_visible()
        problems += flaws(ann, "sign-in", scheme)
    assert problems == []
    if not AXE.exists():
        pytest.skip("without axe-core: run npm ci in service/frontend")


def test_nodes_are_reached_by_the_keyboard(ann: Tab, owner: Caller) -> None:
    """One tab stop for the graph, arrow keys from node to node, Escape back; edges say what they join."""
    publish(owner, *urls(1))
    ann.go("/ui/workflows/order-sync/versions/1")
    ann.page.locator("svg.drawing").focus()
    titles = []
    for key in ("Enter", "ArrowRight", "ArrowRight", "ArrowLeft"):
        ann.page.keyboard.press(key)
        titles.append(ann.page.evaluate("document.activeElement.querySelector('title')?.textContent"))
    assert [title.split()[-1] for title in titles] == ["(hook-1)", "(call-1)", "(call-1)", "(hook-1)"]
    ann.page.keyboard.press("Escape")
    assert ann.page.evaluate("document.activeElement.classList.contains('drawing')")
    edge = ann.page.locator("svg.drawing .edge")
    expect(edge).to_have_attribute("aria-label", re.compile("^.+ to .+$"))


# The sum of layout shifts since the page began to load (web.dev/cls).
_SHIFT = """() => new Promise((done) => {
  new PerformanceObserver((list) => done(list.getEntries().reduce((sum, entry) => sum + entry.value, 0)))
    .observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(0), 20); // buffered entries arrive at once
})"""


# Heights of buttons and of fields of one line that differ from the one height of all.
_HEIGHTS = """() => [...document.querySelectorAll("main .button, main select, main input:not([type])")]
  .map((each) => Math.round(each.getBoundingClientRect().height))
  .filter((height) => height && height !== 36)"""


def _file(name: str, scheme: str, width: int) -> Path:
    return SCREENSHOTS / f"{name}-{scheme}-{width}.png"


def test_the_chosen_theme_overrides_the_system(ann: Tab) -> None:
    def canvas(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    def choose(theme: str) -> None:
        button = ann.page.get_by_role("button", name=theme)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")

    light = canvas(ann.page)
    choose("dark")
    dark = canvas(ann.page)
    assert dark != light
    assert ann.problems() == []
    ann.page.emulate_media(color_scheme="dark")
    choose("light")
    assert canvas(ann.page) == light


def test_the_first_tab_stop_skips_the_header(ann: Tab) -> None:
    """And the focus is always visible."""
    ann.go("/ui/workflows")
    ann.page.keyboard.press("Tab")
    expect(ann.page.get_by_role("link", name="Skip to content")).to_be_focused()
    ann.page.keyboard.press("Enter")
    order = []
    for _ in range(4):
        ann.page.keyboard.press("Tab")
        order.append(
            ann.page.evaluate("(document.activeElement.textContent || document.activeElement.id).trim()")
        )
        assert ann.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert order[:2] == ["New workflow", "q"]


def test_user_supplied_markup_is_text(ann: Tab, owner: Caller) -> None:
    """In names, messages, ids, labels and authors; no script runs."""
    pwned = "document.title='pwned'"
    evil = f'<img src=x onerror="{pwned}"><script>{pwned}</script>\'"><svg onload=alert(1)>'
    config = {"url": "https://x.example/" + "y" * 300, "method": evil}
    nodes: list[dict[str, Any]] = [
        {"id": evil, "type": "webhook", "data": {"label": evil, "config": {}}},
        {"id": "b", "type": "httpCall", "data": {"label": evil, "config": config}},
    ]
    body = {
        "slug": "evil",
        "name": evil[:200],
        "description": evil,
        "author": {"name": "Eve' onload='", "email": "e@x.y"},
        "definition": {
            "name": evil,
            "nodes": nodes,
            "edges": [{"source": evil, "target": "b", "label": evil}],
        },
    }
    assert owner.call("POST", "/workflows", body).status == 201
    assert owner.call("POST", "/workflows/evil/versions/publish", {"message": evil}).status == 201
    nodes[1]["data"]["label"] = evil + "!"
    changed = {"definition": {"name": evil, "nodes": nodes, "edges": []}, "message": evil}
    assert owner.call("POST", "/workflows/evil/versions", changed).status == 201
    ann.page.on("dialog", lambda dialog: ann.complaints.append(f"a dialog: {dialog.message}"))
    one = "/ui/workflows/evil"
    paths = ("", "/edit", "/versions", "/versions/1", "/versions/draft", "/compare", "/discard",
             "/versions/1/revert", "/versions/1/current", f"/versions/{evil[:30]}")  # fmt: skip
    for path in ("/ui/workflows", f"/ui/workflows?q={evil[:20]}", *(one + path for path in paths)):
        ann.go(path)
        ann.page.wait_for_timeout(100)
        assert "pwned" not in ann.page.title().replace(evil, "").replace(evil[:200], "")
        assert ann.page.locator("img, script:not([src]), [onload], [onerror]").count() == 0
    assert ann.problems() == []
