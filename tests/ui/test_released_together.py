"""Five workflows are released at once and rolled back at night: in stock git, over HTTP, in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.stories.instance import Caller, definition
from tests.ui import browser
from tests.ui.browser import needs_chromium

pytestmark = [needs_chromium, pytest.mark.slow]

SLUGS = ["billing", "invoices", "orders", "prices", "stock"]


def current(owner: Caller) -> list[int | None]:
    rows = owner.get("/workflows").json["workflows"]
    return [row["current"] and row["current"]["version_number"] for row in rows]


def test_five_workflows_at_once_and_back(owner: Caller, chromium: Browser, tmp_path: Path) -> None:
    ann = owner.author(tmp_path / "ann", "Ann")
    for slug in SLUGS[1:]:
        owner.publish(slug, f"{slug} one")
    ann.git("fetch", "-q")
    # Ann pushes five drafts at once, on top of the versions.
    for slug in SLUGS:
        start = (
            ["--orphan", f"drafts/{slug}"] if slug == "billing" else ["-B", f"drafts/{slug}", f"{slug}/v1"]
        )
        ann.git("checkout", "-q", *start)
        (ann.folder / "workflow.yaml").write_text(definition(f"{slug} two"))
        ann.git("add", "workflow.yaml")
        ann.git("commit", "-qm", "Autumn")
    pushed = ann.push("--atomic", *(f"drafts/{slug}" for slug in SLUGS))
    assert pushed.ok, pushed.output

    items = [{"workflow": slug, "draft": True} for slug in SLUGS]
    preview = owner.call("POST", "/releases/preview", {"items": items}).json
    assert preview["refusals"] == []
    assert [bool(item["changes"]) for item in preview["items"]] == [False, True, True, True, True]

    # The release manager chooses them on the page.
    with browser.tab(chromium, owner, viewport={"width": 360, "height": 740}) as tab:
        page = tab.page
        page.get_by_role("link", name="Releases", exact=True).click()
        page.get_by_role("link", name="New release").click()
        assert page.get_by_role("checkbox", checked=True).count() == 5
        page.get_by_label("Name").fill("autumn-1.0")
        page.get_by_label("Reason").fill("The autumn catalogue")
        page.get_by_role("button", name="Show what changes").click()
        expect(page.get_by_text("name changed").first).to_be_visible()
        assert tab.axe() == []
        assert tab.problems() == []
        page.get_by_role("button", name="Release", exact=True).click()
        expect(page.get_by_role("status")).to_contain_text("Released")
        assert tab.axe() == []
        assert tab.problems() == []
    assert current(owner) == [1, 2, 2, 2, 2]

    # Stock git has the whole release as one checkout, and cannot change it.
    ann.git("fetch", "-q", "origin", "refs/releases/autumn-1.0")
    ann.git("checkout", "-q", "FETCH_HEAD")
    for slug in SLUGS:
        assert (ann.folder / "workflows" / slug / "workflow.yaml").read_text() == definition(f"{slug} two")
    for refspec in (
        "HEAD~0:refs/releases/mine",
        "+drafts/stock:refs/releases/autumn-1.0",
        ":refs/releases/autumn-1.0",
    ):
        refused = ann.push(refspec)
        assert not refused.ok
        assert "no push changes one" in refused.output, refused.output
    mirror = tmp_path / "mirror"
    ann.git("clone", "-q", "--mirror", ann.remote, str(mirror), within=tmp_path)
    assert "Everything up-to-date" in ann.git("push", "--mirror", ann.remote, within=mirror)

    # In dark mode, one click restores the former state.
    with browser.tab(chromium, owner, color_scheme="dark") as tab:
        page = tab.page
        tab.go("/ui/releases/autumn-1.0")
        page.get_by_role("link", name="Roll back").click()
        page.get_by_label("Reason").fill("Prices are wrong")
        assert tab.axe() == []
        assert tab.problems() == []
        page.get_by_role("button", name="Roll back").click()
        expect(page.get_by_text("none standing", exact=True)).to_be_visible()
    assert current(owner) == [None, 1, 1, 1, 1]
    ann.git("fetch", "-q", "origin", "refs/ledger/*:refs/ledger/*")
    for slug in SLUGS:
        entry = ann.git("log", "-1", "--format=%B", f"refs/ledger/{slug}")
        assert "Prices are wrong" in entry
        assert "Gitstore-Release: autumn-1.0" in entry
    assert owner.call("POST", "/releases/autumn-1.0/rollback").json == {"returned": []}
