"""Pages of a version after its publication: withdrawn, offered again, with title and notes."""

from __future__ import annotations

import pytest

from tests.service.api.conftest import House
from tests.ui.visitor import Visitor, visitor

ONE = "/ui/workflows/order-sync"
API = "/workflows/order-sync"


@pytest.mark.usefixtures("published")
def test_a_version_is_withdrawn_for_a_reason_and_offered_again(ann: Visitor) -> None:
    """The version, the history and the activity have the reason; the pointers on it are listed, and stay."""
    ann.api.put("/environments", json={"environments": [{"name": "prod"}]})
    ann.api.put(f"{API}/environments/prod", json={"version": 3})
    ask = ann.get(f"{ONE}/versions/3/withdraw").page
    assert "stay until they are moved: current, prod" in ask.text
    refused = ann.post(f"{ONE}/versions/3/withdraw", message=" ")
    assert (refused.status, "A reason is required" in refused.page.text) == (400, True)
    done = ann.post(f"{ONE}/versions/3/withdraw", message="It loses <b>orders</b>")
    assert (done.status, done.location) == (303, f"{ONE}/versions/3")
    page = ann.get(f"{ONE}/versions/3").page
    assert "v3 was withdrawn: It loses <b>orders</b> by owner" in page.text
    assert "Still on it: current, prod." in page.text
    assert f"{ONE}/versions/3/withdraw" not in page.links()
    history = ann.get(f"{ONE}/versions").page.text
    assert "yanked" in history
    assert "Withdrawn: It loses <b>orders</b> by owner" in history
    assert "withdrew v3" in ann.get(f"{ONE}/activity").page.text
    assert ann.api.get(f"{API}/versions/3/definition").status_code == 200
    assert "because: It loses" in ann.get(f"{ONE}/versions/3/take-back").page.text
    assert ann.post(f"{ONE}/versions/3/take-back", message="Fixed the engine").location == f"{ONE}/versions/3"
    assert "withdrawn:" not in ann.get(f"{ONE}/versions/3").page.text
    assert "Fixed the engine" in ann.get("/ui/activity").page.text


@pytest.mark.usefixtures("published")
def test_nothing_offers_a_withdrawn_version(ann: Visitor) -> None:
    """A rollback passes over it, and pages that would make it current name the reason."""
    ann.post(f"{ONE}/versions/2/withdraw", message="It loses orders")
    assert "Make v1 current" in ann.get(f"{ONE}/roll-back").page.text
    links = [*ann.get(ONE).page.links(), *ann.get(f"{ONE}/versions/2").page.links()]
    assert f"{ONE}/versions/1/current" in links
    assert f"{ONE}/versions/2/current" not in links
    refused = ann.get(f"{ONE}/versions/2/current")
    assert (refused.status, "It loses orders" in refused.page.text) == (409, True)
    ann.post(f"{ONE}/versions/1/withdraw", message="Too old")
    assert ann.get(f"{ONE}/roll-back").status == 404


@pytest.mark.usefixtures("published")
def test_title_and_notes_are_changed_with_their_history(ann: Visitor) -> None:
    form = ann.get(f"{ONE}/versions/2/describe").page
    assert (form.value("title"), form.value("notes")) == ("", "")
    ann.post(f"{ONE}/versions/2/describe", title="Spring", notes="Line one\n\n- line two")
    form = ann.get(f"{ONE}/versions/2/describe").page
    assert (form.value("title"), form.value("notes")) == ("Spring", "Line one\n\n- line two")
    ann.post(f"{ONE}/versions/2/describe", title="Autumn", notes="")
    page = ann.get(f"{ONE}/versions/2").page
    assert page.all("h2")[0].text.strip() == "Autumn"
    assert "1 earlier description" in page.text
    assert "Spring" in page.text
    assert "Second" in page.text
    assert "Autumn" in ann.get(f"{ONE}/versions").page.text
    assert "changed the title or the notes of v2" in ann.get(f"{ONE}/activity?topic=versions").page.text
    refused = ann.post(f"{ONE}/versions/2/describe", title="x" * 201, notes="Kept")
    assert (refused.status, refused.page.value("notes")) == (400, "Kept")
    assert ann.get(f"{ONE}/versions/draft/describe").status == 404


@pytest.mark.usefixtures("published")
def test_readers_see_what_changed_and_no_button(house: House, ann: Visitor) -> None:
    ann.post(f"{ONE}/versions/2/describe", title="Spring", notes="")
    ann.post(f"{ONE}/versions/2/withdraw", message="It loses orders")
    viewer = visitor(house, "viewer")
    page = viewer.get(f"{ONE}/versions/2").page
    assert "It loses orders" in page.text
    assert "Spring" in page.text
    for verb in ("withdraw", "take-back", "describe"):
        assert f"{ONE}/versions/2/{verb}" not in page.links()
        assert viewer.post(f"{ONE}/versions/2/{verb}", message="x").status == 403
