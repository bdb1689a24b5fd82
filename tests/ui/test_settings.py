"""What a workflow's page can do besides editing: create, import, rename, hold, stop, archive; and members."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from service.ui.workflows import starters
from tests.service.api.conftest import House
from tests.service.users import add_member
from tests.ui import test_handover
from tests.ui.test_handover import Browser
from tests.ui.visitor import HOST, Page, Visitor, visitor

ONE = "/ui/workflows/order-sync"


@pytest.fixture
def settings() -> dict[str, str]:
    return {**test_handover.SETTINGS, "GITSTORE_USER_PROJECTS": "1"}


def workflow(ann: Visitor, slug: str = "order-sync") -> Any:
    return ann.api.get(f"/workflows/{slug}").json


def upload(ann: Visitor, raw: bytes, **fields: str) -> Any:
    parts = [(f'name="{name}"', value.encode()) for name, value in {"csrf": ann.csrf, **fields}.items()]
    parts.append(('name="file"; filename="flow.json"', raw))
    body = b"".join(
        b"--x\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (name.encode(), value)
        for name, value in parts
    )
    return ann.client.post(
        "/ui/new-workflow",
        base_url=HOST,
        data=body + b"--x--\r\n",
        content_type="multipart/form-data; boundary=x",
        buffered=True,
    )


def test_a_slug_is_made_from_the_name(ann: Visitor) -> None:
    """And counted up where it is taken."""
    for name, slug in (("Order sync", "order-sync"), ("Order  Sync!", "order-sync-2"), ("日本", "workflow")):
        answer = ann.post("/ui/new-workflow", name=name)
        assert answer.location == f"/ui/workflows/{slug}/edit"
        assert workflow(ann, slug)["name"] == name
    assert ann.post("/ui/new-workflow").status == 422


@pytest.mark.parametrize("starter", sorted(starters()))
def test_each_starter_can_be_published_as_it_is(ann: Visitor, starter: str) -> None:
    page = ann.get("/ui/new-workflow").page
    assert starters()[starter].title in page.text
    assert ann.post("/ui/new-workflow", name=starter, starter=starter).status == 303
    assert ann.api.post(f"/workflows/{starter}/validate").json["problems"] == []
    assert ann.api.publish(starter).status_code == 201
    assert ann.api.get(f"/workflows/{starter}/versions/1/definition").data == starters()[starter].raw


def test_a_file_is_imported_as_it_is(ann: Visitor) -> None:
    """One that is too large, or does not parse, is refused."""
    raw = b'{ "nodes": [ {"id": "a", "type": "webhook"} ] }'
    assert upload(ann, raw, slug="imported").status_code == 303
    assert ann.api.get("/workflows/imported/versions/draft/definition").data == raw
    assert upload(ann, b"nodes: [", slug="broken").status_code == 422
    assert upload(ann, b"#" * (2**20 + 1), slug="large").status_code == 413
    assert "broken" not in ann.get("/ui/workflows").page.text


@pytest.mark.usefixtures("published")
def test_a_workflow_is_renamed_and_described(ann: Visitor) -> None:
    """An empty name is that of the definition again."""
    assert ann.post(f"{ONE}/settings", name="New name", description="New text").location == f"{ONE}/settings"
    assert (workflow(ann)["name"], workflow(ann)["description"]) == ("New name", "New text")
    assert ann.post(f"{ONE}/settings", name="", description="New text").status == 303
    assert (workflow(ann)["name"], workflow(ann)["description"]) == ("order-sync", "New text")
    refused = ann.post(f"{ONE}/settings", name="x" * 201, description="New text")
    assert (refused.status, refused.page.value("name")) == (400, "x" * 201)


@pytest.mark.usefixtures("published")
def test_the_current_version_is_held_and_released(ann: Visitor) -> None:
    """With a reason, which the activity shows; not if it has changed since the page was shown."""
    seen = ann.get(f"{ONE}/settings").page.value("seen")
    assert ann.post(f"{ONE}/hold", seen=seen, hold="yes", message="incident 7").status == 303
    assert workflow(ann)["held"] is True
    assert "v3 is the current version and held" in ann.get(f"{ONE}/settings").page.text
    assert ann.post(f"{ONE}/hold", seen="2", hold="no").status == 412
    assert ann.post(f"{ONE}/hold", seen=seen, hold="no").status == 303
    assert workflow(ann)["held"] is False
    text = ann.get(f"{ONE}/activity").page.text
    assert "held v3" in text
    assert "incident 7" in text
    assert "released v3 from its hold" in text


@pytest.mark.usefixtures("published")
def test_a_workflow_is_stopped(ann: Visitor) -> None:
    assert "v3" in ann.get(f"{ONE}/stop").page.text
    assert ann.post(f"{ONE}/stop").status == 303
    assert workflow(ann)["current"] is None


@pytest.mark.usefixtures("published")
def test_an_archived_workflow_is_hidden_and_cannot_be_changed_until_it_returns(
    house: House, ann: Visitor
) -> None:
    """Its pages stay, with their history; nothing on them offers a change, except the way back."""
    ann.api.post("/workflows/order-sync/versions", json={"from_version": 1})
    ann.api.put("/environments", json={"environments": [{"name": "qa"}]})
    ann.api.put("/workflows/order-sync/environments/qa", json={"version": 2})
    assert "Archive the workflow?" in ann.get(f"{ONE}/archive").page.text
    assert ann.post(f"{ONE}/archive", message="Replaced").location == ONE
    assert "order-sync" not in ann.get("/ui/workflows").page.text
    assert ONE in ann.get("/ui/workflows?filter=archived").page.links()
    assert "order-sync" not in ann.get("/ui/environments").page.text
    for path in (ONE, f"{ONE}/settings"):
        page = ann.get(path).page
        assert "This workflow is archived" in page.text
        assert [action for method, action in page.forms() if ONE in action] == [f"{ONE}/unarchive"]
    pointer = ann.get(f"{ONE}/environments/qa").page
    assert not [action for _, action in pointer.forms() if action.startswith(ONE)]
    links = [*ann.get(f"{ONE}/versions/2").page.links(), *pointer.links()]
    assert not [
        link for link in links if link.endswith(("/edit", "/revert", "/current", "/withdraw", "/remove"))
    ]
    assert "Replaced" in ann.get(f"{ONE}/activity?topic=workflows").page.text
    assert ann.post(f"{ONE}/publish", etag=workflow(ann)["draft"]["commit"]).status == 409
    viewer = visitor(house, "viewer")
    assert "Take out of the archive" not in viewer.get(ONE).page.text
    assert viewer.post(f"{ONE}/unarchive").status == 403
    assert ann.post(f"{ONE}/unarchive").location == ONE
    assert workflow(ann)["draft"]["version_number"] == 4
    assert ONE in ann.get("/ui/workflows").page.links()


def test_a_workflow_that_was_never_published_is_deleted(ann: Visitor) -> None:
    """Its slug must be typed, and is free then. One with versions can be archived only."""
    ann.api.create()
    assert f"{ONE}/delete" in ann.get(f"{ONE}/settings").page.links()
    assert "Type order-sync to confirm" in ann.get(f"{ONE}/delete").page.text
    assert ann.post(f"{ONE}/delete", typed="order").status == 400
    assert ann.post(f"{ONE}/delete", typed="order-sync", message="A trial").location == "/ui/workflows"
    for path in ("/ui/workflows", "/ui/workflows?filter=archived"):
        assert ONE not in ann.get(path).page.links()
    assert ann.get(ONE).status == 404
    ann.api.create()
    ann.api.publish()
    assert ann.post(f"{ONE}/delete", typed="order-sync").status == 409
    assert f"{ONE}/delete" not in ann.get(f"{ONE}/settings").page.links()


def test_owners_manage_members_on_the_page(ann: Visitor, house: House) -> None:
    user = uuid4()
    assert ann.post("/ui/members", user=str(user), role="editor").location == "/ui/members"
    assert str(user) in ann.get("/ui/members").page.text
    assert ann.post("/ui/members", user=str(user), role="owner").status == 303
    refused = ann.post("/ui/members", user="somebody", role="viewer")
    assert (refused.status, refused.page.value("user")) == (400, str(user))
    assert ann.post("/ui/members", user=str(user), role="king").status == 400
    ann.post("/ui/members", user=str(uuid4()), role="owner")
    assert str(user) in ann.get(f"/ui/members/{user}/remove").page.text
    assert ann.post(f"/ui/members/{user}/remove").location == "/ui/members"
    assert str(user) not in ann.get("/ui/members").page.text


def test_a_user_switches_between_projects(house: House) -> None:
    """Only to those in which they have a role."""
    user = uuid4()
    for project in (house.project, house.other):
        add_member(house.database, project.id, user, "editor")
    ada = Browser(house, user)
    ada.enter(ada.code(project="default").json["code"])
    page = Page(ada.get("/ui/projects").text)
    assert page.value("project") == str(house.other.id)
    csrf = page.value("csrf")

    def switch(project: object) -> int:
        data = {"csrf": csrf, "project": str(project)}
        return int(ada.client.post("/ui/projects", base_url=HOST, data=data, buffered=True).status_code)

    assert switch(uuid4()) == 404
    assert switch("") == 404
    assert switch(house.other.id) == 303
    assert "other" in Page(ada.get().text).all("header")[0].text


def test_a_user_creates_projects_and_goes_on_in_them(house: House) -> None:
    """As many as a user may own; a token has one project alone."""
    user = uuid4()
    add_member(house.database, house.project.id, user, "viewer")
    ada = Browser(house, user)
    ada.enter(ada.code(project="default").json["code"])
    page = Page(ada.get("/ui/projects").text)
    assert "New project" in page.text

    def create(name: str) -> Any:
        data = {"csrf": page.value("csrf"), "name": name}
        return ada.client.post("/ui/new-project", base_url=HOST, data=data, buffered=True)

    assert create(" ").status_code == 400
    assert create("Nightly jobs").status_code == 303
    assert "nightly-jobs-" in Page(ada.get().text).all("header")[0].text
    refused = create("Another")
    assert (refused.status_code, Page(refused.text).value("name")) == (409, "Another")


def test_only_users_create_projects(ann: Visitor) -> None:
    assert "New project" not in ann.get("/ui/projects").page.text
    assert ann.post("/ui/new-project", name="x").status == 403


@pytest.mark.usefixtures("published")
def test_the_address_of_a_refused_form_leads_back_to_its_page(ann: Visitor) -> None:
    """As it stays in the address bar."""
    assert ann.get(f"{ONE}/publish").location == ONE
    assert ann.get(f"{ONE}/hold").location == ONE
    assert ann.get("/ui/webhooks/x/replay").location == "/ui/webhooks/x"


def test_a_project_without_graphs_shows_texts(ann: Visitor) -> None:
    """The overview has the beginning of them, and links to all."""
    assert ann.post("/ui/settings", name="Flows", rules="any").status == 303
    assert ann.api.create("free", definition="steps:\n" + "- a: 1\n" * 50).status_code == 201
    page = ann.get("/ui/workflows/free").page
    assert "Text of the draft" in page.text
    assert page.text.count("a: 1") == 29
    assert "The beginning only" in page.text


@pytest.mark.usefixtures("published")
def test_a_new_slug_leads_on_from_the_former_one(ann: Visitor) -> None:
    assert ann.get(f"{ONE}/settings").page.value("new") == "order-sync"
    taken = ann.post(f"{ONE}/rename", new="Order Sync")
    assert taken.status == 422
    renamed = ann.post(f"{ONE}/rename", new="shipments", message="Marketing")
    assert renamed.location == "/ui/workflows/shipments/settings"
    moved = ann.get(f"{ONE}/versions/2?x=1")
    assert (moved.status, moved.location) == (301, "/ui/workflows/shipments/versions/2?x=1")
    assert ann.post(f"{ONE}/discard", etag="0" * 40).status == 308
    assert "v3" in ann.get("/ui/workflows/shipments").page.text
