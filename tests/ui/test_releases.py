"""Pages of releases: chosen from open drafts, refused with a reason beside each workflow, and rolled back."""

from __future__ import annotations

import pytest

from tests.service.api.conftest import definition
from tests.ui.visitor import Page, Visitor


@pytest.fixture
def drafts(ann: Visitor) -> list[str]:
    """Three workflows with v1 and an open draft."""
    slugs = ["orders", "prices", "stock"]
    for slug in slugs:
        ann.api.create(slug)
        ann.api.publish(slug)
        ann.api.post(f"/workflows/{slug}/versions", json={"definition": definition("https://two.example/")})
    return slugs


def items(page: Page) -> list[str]:
    return [each.attributes["value"] for each in page.all("input", name="item")]


def current(ann: Visitor, slug: str) -> int:
    return int(ann.api.get(f"/workflows/{slug}").json["current"]["version_number"])


def test_chosen_drafts_are_released_and_rolled_back(ann: Visitor, drafts: list[str]) -> None:
    form = ann.get("/ui/new-release").page
    assert [each.partition(" ")[0] for each in items(form)] == drafts
    chosen = [each for each in items(form) if not each.startswith("stock ")]
    shown = ann.post("/ui/new-release", item=chosen, name="night", message="Night", check="yes").page
    assert shown.text.count("url of call changed") == 2
    checked = [each for each in shown.all("input", name="item") if "checked" in each.attributes]
    assert [each.attributes["value"] for each in checked] == chosen
    assert current(ann, "orders") == 1
    made = ann.post("/ui/new-release", item=chosen, name="night", message="Night")
    assert (made.status, made.location) == (303, "/ui/releases/night")
    assert [current(ann, slug) for slug in drafts] == [2, 2, 1]
    assert "all standing" in ann.get("/ui/releases").page.text
    page = ann.get("/ui/releases/night").page
    assert "refs/releases/night" in page.text
    assert "/ui/releases/night/roll-back" in page.links()
    ask = ann.get("/ui/releases/night/roll-back").page
    assert "v2 → v1" in ask.text
    back = ann.post("/ui/releases/night/roll-back", message="Too early")
    assert back.location == "/ui/releases/night"
    assert [current(ann, slug) for slug in drafts] == [1, 1, 1]
    assert "none standing" in ann.get("/ui/releases").page.text


def test_a_refusal_stands_beside_its_workflow(ann: Visitor, drafts: list[str]) -> None:
    """A draft that was saved since the form was shown, and an invalid one; nothing is released."""
    chosen = items(ann.get("/ui/new-release").page)
    for slug, content in (("orders", definition("https://new.example/")), ("prices", {"nodes": [{}]})):
        ann.api.put(f"/workflows/{slug}/versions/draft", json={"definition": content}, match="*")
    refused = ann.post("/ui/new-release", item=chosen, name="night")
    assert refused.status == 409
    assert "the draft of orders moved since you read it" in refused.page.text
    again = ann.post("/ui/new-release", item=items(refused.page), name="night")
    assert again.status == 422
    assert "prices can't be published" in again.page.text
    assert [current(ann, slug) for slug in drafts] == [1, 1, 1]
    assert ann.post("/ui/new-release", name="night").status == 400


def test_what_moved_on_since_returns_only_if_ticked(ann: Visitor, drafts: list[str]) -> None:
    chosen = items(ann.get("/ui/new-release").page)
    ann.post("/ui/new-release", item=chosen, name="night")
    ann.api.publish("stock", "https://hotfix.example/")
    refused = ann.post("/ui/releases/night/roll-back")
    assert refused.status == 409
    assert "stock is on v3 by now" in refused.page.text
    assert "that moved on since: stock" in refused.page.text
    ann.post("/ui/releases/night/roll-back", force="yes")
    assert [current(ann, slug) for slug in drafts] == [1, 1, 1]


def test_without_drafts_or_releases_the_pages_say_so(ann: Visitor) -> None:
    assert "No draft is open" in ann.get("/ui/new-release").page.text
    assert "No releases yet" in ann.get("/ui/releases").page.text
    assert ann.get("/ui/releases/none").status == 404
