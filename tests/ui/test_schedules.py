"""Pages of schedules: a time in a form, the list on the workflow's page, and the button that cancels."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser

from tests.service.api.conftest import House, definition
from tests.stories.instance import Caller
from tests.ui import browser
from tests.ui.browser import Tab, needs_chromium
from tests.ui.visitor import Visitor

ONE = "/ui/workflows/order-sync"
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).replace(hour=22, minute=0, second=0, microsecond=0)
TYPED = TOMORROW.strftime("%Y-%m-%dT%H:%M")


def listed(ann: Visitor) -> list[tuple[str, str, str]]:
    rows = ann.api.get("/workflows/order-sync/schedules").json["schedules"]
    return [(row["kind"], row["at"], row["state"]) for row in rows]


@pytest.mark.usefixtures("published")
def test_a_draft_is_scheduled_shown_and_cancelled(ann: Visitor) -> None:
    """Without a script, the time is in UTC."""
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    page = ann.get(ONE).page
    wrong = ann.post(f"{ONE}/publish", etag=page.value("etag"), message="Fourth", at="tonight")
    assert (wrong.status, listed(ann)) == (400, [])
    assert "The time is none such as 2030-01-31T22:00" in wrong.page.text
    assert wrong.page.value("message") == "Fourth"
    done = ann.post(f"{ONE}/publish", etag=page.value("etag"), message="Fourth", activate="yes", at=TYPED)
    assert done.location == ONE
    at = TOMORROW.isoformat().replace("+00:00", "Z")
    assert listed(ann) == [("publish", at, "waiting")]
    page = ann.get(ONE).page
    assert "Publish the draft" in page.text
    assert "Fourth" in page.text
    chosen = page.value("schedule")
    assert ann.post(f"{ONE}/cancel-schedule", schedule=chosen).location == ONE
    assert listed(ann) == [("publish", at, "cancelled")]
    assert not ann.get(ONE).page.all("input", name="schedule")


@pytest.mark.usefixtures("published")
def test_a_version_and_a_promotion_are_scheduled(ann: Visitor, house: House) -> None:
    """The page shows why one was stopped."""
    later = ann.post(f"{ONE}/versions/1/current", seen="3", message="Back", at=TYPED)
    assert later.location == ONE
    refused = ann.post(f"{ONE}/versions/1/current", seen="3", message="Back", at="2020-01-01T00:00")
    assert (refused.status, "must be in the future" in refused.page.text) == (400, True)
    assert "current to v1" in ann.get(ONE).page.text
    ann.api.put("/environments", json={"environments": [{"name": "qa"}]})
    fields = {"from": "current", "to": "qa", "workflow": "order-sync", "message": "", "at": TYPED}
    assert ann.post("/ui/promote", None, **fields).location == "/ui/environments"
    assert sorted(kind for kind, _, _ in listed(ann)) == ["move", "promote"]
    assert "qa to v3 from current" in ann.get(ONE).page.text
    with house.database.as_owner() as tx:
        tx.run(
            "update gitstore.schedules set due_at = null, reason = 'the pointer <b>moved</b>', "
            "state = case kind when 'move' then 'stopped' else 'done' end"
        )
    text = ann.get(ONE).page.text
    assert "stopped The pointer <b>moved</b>." in text
    assert "done" in text


# In a browser


@pytest.fixture
def tokyo(chromium: Browser, owner: Caller) -> Iterator[Tab]:
    with browser.tab(chromium, owner, timezone_id="Asia/Tokyo") as opened:
        yield opened


@pytest.mark.slow
@needs_chromium
def test_a_time_is_typed_and_shown_in_the_zone_of_the_reader(tokyo: Tab, owner: Caller) -> None:
    owner.call("POST", "/workflows", {"slug": "order-sync", "definition": definition()})
    tokyo.go("/ui/workflows/order-sync")
    page = tokyo.page
    page.get_by_label("Later, at a time in Asia/Tokyo; empty: now").fill(TYPED)
    page.get_by_role("button", name="Publish v1").click()
    page.get_by_role("heading", name="Scheduled").wait_for()
    (row,) = owner.get("/workflows/order-sync/schedules").json["schedules"]
    assert row["at"] == (TOMORROW - timedelta(hours=9)).isoformat().replace("+00:00", "Z")
    assert "10:00 PM" in page.locator("time.moment").first.inner_text()
