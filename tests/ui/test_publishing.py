"""Publish, roll back, revert and discard in the pages; a stale form changes nothing."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from gitstore import changes, ledger, names
from gitstore.drafts import Content, put_file, to_file
from gitstore.git.commits import new_commit
from gitstore.model import Person
from gitstore.policy import Command, judge
from gitstore.policy_facts import RepositoryFacts
from service.context import EXTENSION
from sync import catalog
from tests.service.api.conftest import House, definition
from tests.ui.visitor import Visitor

ONE = "/ui/workflows/order-sync"


def current(ann: Visitor) -> Any:
    return ann.api.get("/workflows/order-sync").json["current"]["version_number"]


# Publishing


@pytest.mark.usefixtures("published")
def test_the_workflow_page_shows_what_publishing_would_change(ann: Visitor) -> None:
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    page = ann.get(ONE).page
    assert "url of call changed since v3 (current)" in page.text
    answer = ann.post(f"{ONE}/publish", etag=page.value("etag"), message="Fourth", activate="yes")
    assert answer.location == ONE
    assert current(ann) == 4
    assert ann.api.get("/workflows/order-sync/versions/4").json["message"] == "Fourth"


@pytest.mark.usefixtures("published")
def test_publishing_without_making_it_current(ann: Visitor) -> None:
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    ann.post(f"{ONE}/publish", etag=ann.get(ONE).page.value("etag"), message="")
    assert current(ann) == 3
    assert "latest: v4" in ann.get("/ui/workflows").page.text


@pytest.mark.usefixtures("published")
def test_a_draft_saved_meanwhile_is_not_published(ann: Visitor) -> None:
    """The answer is 412 with the present page."""
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    form = ann.get(ONE).page
    ann.api.put(
        "/workflows/order-sync/versions/draft",
        json={"definition": definition("https://x.example/")},
        match="*",
    )
    answer = ann.post(f"{ONE}/publish", etag=form.value("etag"), message="")
    assert answer.status == 412
    assert "saved the draft just now, after you opened this page: url of call changed" in answer.page.text
    assert current(ann) == 3


@pytest.mark.usefixtures("published")
def test_a_draft_behind_the_latest_version_is_merged_in_the_editor(ann: Visitor) -> None:
    """The workflow page says so; the editor shows both texts, and saves on top."""
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://mine.example/")})
    publish_beside_the_draft(ann)
    page = ann.get(ONE).page
    assert "v4 was published after this draft was started." in page.text
    answer = ann.post(f"{ONE}/publish", etag=page.value("etag"), message="")
    assert answer.status == 409
    form = ann.get(f"{ONE}/edit").page
    mine = form.value("definition")
    fields = {"etag": form.value("etag"), "base": form.value("base"), "definition": mine}
    conflict = ann.post(f"{ONE}/edit", **fields)
    assert conflict.status == 409
    assert "theirs.example" in conflict.html
    assert "Bob published v4 just now" in conflict.page.text
    fields = {name: conflict.page.value(name) for name in ("etag", "base", "began", "theirs", "definition")}
    result = ann.post(f"{ONE}/merge", **fields, **{"/nodes/call/data/config/url": "ours"})
    fields = {name: result.page.value(name) for name in ("etag", "base", "began", "definition")}
    assert "mine.example" in fields["definition"]
    assert ann.post(f"{ONE}/edit", **fields).status == 303
    assert "was published after" not in ann.get(ONE).page.text
    assert ann.api.post("/workflows/order-sync/versions/publish").json["version_number"] == 5


def publish_beside_the_draft(ann: Visitor) -> None:
    """Publish v4 beside the open draft, as a pushed tag does."""
    here = ann.client.application.extensions[EXTENSION]
    with here.database.as_owner() as tx:
        project = catalog.project(tx, "default")
    with (
        closing(here.projects.writer(project, here.database)) as store,
        store.unit_of_work.begin(["order-sync"]),
    ):
        state = store.state("order-sync")
        file = to_file(Content(value=definition("https://theirs.example/")), None, store.rules, store.limits)
        objects = put_file(store.objects, None, [], file)
        commit = new_commit(
            tree=objects[-1].id, parents=[state.latest_commit.encode()], author=Person("Bob", "b@x.y"),
            committer=ledger.COMMITTER, when=datetime.now(UTC), message="Theirs",
        )  # fmt: skip
        store.objects.write([*objects, commit])
        (verdict,) = judge([Command(names.tag("order-sync", 4), None, commit.id)], RepositoryFacts(store))
        assert verdict.refusal is None
        authorship = changes.Authorship(Person("Bob", "b@x.y"), datetime.now(UTC), "", True)
        assert not changes.write(store, [changes.record(store, [verdict], authorship)])


# Rolling back


@pytest.mark.usefixtures("published")
def test_a_rollback_takes_two_clicks_from_the_first_page(ann: Visitor) -> None:
    """The form shows both versions, and has a default reason."""
    (link,) = [link for link in ann.get("/ui/workflows").page.links() if link.endswith("/roll-back")]
    page = ann.get(link).page
    assert "Make v2 current?" in page.text
    assert "From v3 Third" in page.text
    assert "To v2 Second" in page.text
    assert "url of call changed" in page.text
    (action,) = [action for method, action in page.forms() if action.endswith("/current")]
    answer = ann.post(action, seen=page.value("seen"), message=page.value("message"))
    assert answer.location == ONE
    assert current(ann) == 2
    assert "v2 is the current version." in ann.get(answer.location or "").page.text


@pytest.mark.usefixtures("published")
def test_a_held_version_stays_current(ann: Visitor) -> None:
    page = ann.get(f"{ONE}/versions/1/current").page
    ann.post(f"{ONE}/versions/1/current", seen=page.value("seen"), message="v3 fails", hold="yes")
    ann.api.publish(url="https://four.example/")
    assert current(ann) == 1
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://five.example/")})
    assert "v1 is held: publishing does not change the current version" in ann.get(ONE).page.text


@pytest.mark.usefixtures("published")
def test_a_form_about_an_outdated_current_version_changes_nothing(ann: Visitor) -> None:
    page = ann.get(f"{ONE}/versions/1/current").page
    ann.api.put("/workflows/order-sync/current", json={"version": 2})
    answer = ann.post(f"{ONE}/versions/1/current", seen=page.value("seen"), message="")
    assert answer.status == 412
    assert "v2 is current now" in answer.page.text
    assert current(ann) == 2


@pytest.mark.usefixtures("published")
def test_reverting_changes_the_draft_and_not_the_current_version(ann: Visitor) -> None:
    page = ann.get(f"{ONE}/versions/1/revert").page
    assert "v3 stays current until you publish" in page.text
    answer = ann.post(f"{ONE}/versions/1/revert", etag=page.value("etag"), message=page.value("message"))
    assert answer.location == ONE
    assert current(ann) == 3
    draft = ann.api.get("/workflows/order-sync/versions/draft").json
    assert draft["message"] == "Revert to v1"
    assert draft["definition"] == ann.api.get("/workflows/order-sync/versions/1").json["definition"]


@pytest.mark.usefixtures("published")
def test_reverting_does_not_overwrite_an_unseen_draft(ann: Visitor) -> None:
    form = ann.get(f"{ONE}/versions/1/revert").page
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    answer = ann.post(f"{ONE}/versions/1/revert", etag=form.value("etag"), message="")
    assert answer.status == 412
    assert "A draft is open" in answer.page.text
    again = ann.post(f"{ONE}/versions/1/revert", etag=answer.page.value("etag"), message="")
    assert again.status == 303


@pytest.mark.usefixtures("published")
def test_discarding_asks_for_confirmation(ann: Visitor) -> None:
    assert ann.get(f"{ONE}/discard").status == 404
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    page = ann.get(f"{ONE}/discard").page
    assert "v3 stays current" in page.text
    assert ann.post(f"{ONE}/discard", etag=page.value("etag")).location == ONE
    assert ann.api.get("/workflows/order-sync/versions/draft").status_code == 404


@pytest.mark.usefixtures("published")
def test_a_discarded_draft_is_restored(ann: Visitor) -> None:
    """Offered until a version is published, and refused if a draft is open."""
    draft = "/workflows/order-sync/versions/draft"
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    ann.post(f"{ONE}/discard", etag=ann.get(f"{ONE}/discard").page.value("etag"))
    page = ann.get(ONE).page
    assert "Discarded draft of" in page.text
    ref = page.value("ref")
    assert ann.post(f"{ONE}/restore", ref=ref).location == ONE
    assert ann.api.get(draft).status_code == 200
    again = ann.post(f"{ONE}/restore", ref=ref)
    assert again.status == 409
    assert "A draft is open" in again.page.text
    assert "Discarded draft of" not in again.page.text
    ann.api.publish()
    assert "Discarded draft of" not in ann.get(ONE).page.text


def test_discarding_the_only_draft_leads_to_the_list(ann: Visitor) -> None:
    ann.api.create()
    answer = ann.post(f"{ONE}/discard", etag=ann.get(f"{ONE}/discard").page.value("etag"))
    assert answer.status == 303
    assert ann.get(answer.location or "").status == 200


# Lost versions


@pytest.fixture
def lost(house: House, published: None) -> None:
    with house.database.as_owner() as tx:
        tx.run("select set_config('gitstore.upkeep', 'on', true)")
        tx.run("update gitstore.workflow_versions set state = 'lost' where version_number = 1")


@pytest.mark.usefixtures("lost")
def test_a_lost_version_is_marked_in_the_history_and_on_its_page(ann: Visitor) -> None:
    assert "lost" in ann.get(f"{ONE}/versions").page.text
    page = ann.get(f"{ONE}/versions/1")
    assert page.status == 200
    assert "v1 is lost" in page.page.text
    for action in ("revert", "current"):
        assert f"/versions/1/{action}" not in page.html
        refused = ann.get(f"{ONE}/versions/1/{action}")
        assert (refused.status, "v1 is lost" in refused.page.text) == (404, True)
