"""Pages of environments: their rules, which version is where, and promotion with what it changes."""

from __future__ import annotations

import pytest

from tests.service.api.conftest import House, definition
from tests.ui.visitor import Answer, Visitor, visitor


@pytest.fixture
def flows(ann: Visitor) -> list[str]:
    """Two workflows with v1 and v2, in a project with dev, which follows, and prod."""
    ann.api.put("/environments", json={"environments": [{"name": "dev", "follows": True}, {"name": "prod"}]})
    for slug in ("orders", "stock"):
        ann.api.create(slug)
        ann.api.publish(slug)
        ann.api.put(f"/workflows/{slug}/environments/prod", json={"version": 1, "message": "First"})
        ann.api.post(
            f"/workflows/{slug}/versions/publish", json={"definition": definition("https://two.example/")}
        )
    return ["orders", "stock"]


def prod(ann: Visitor, slug: str) -> int:
    return int(ann.api.get(f"/workflows/{slug}/environments/prod").json["version_number"])


def promote(ann: Visitor, flows: list[str]) -> Answer:
    fields: dict[str, str | list[str]] = {"from": "dev", "to": "prod", "workflow": flows, "message": "Good"}
    return ann.post("/ui/promote", None, **fields)


def test_workflows_are_promoted_after_a_look_at_what_changes(ann: Visitor, flows: list[str]) -> None:
    page = ann.get("/ui/environments").page
    assert [each.attributes["value"] for each in page.all("input", name="workflow")] == flows
    ask = ann.get("/ui/promote?from=dev&to=prod&workflow=orders&workflow=stock").page
    assert ask.text.count("url of call changed") == 2
    assert "/ui/workflows/orders/compare?from=v1&to=v2" in ask.links()
    assert prod(ann, "orders") == 1
    done = promote(ann, flows)
    assert (done.status, done.location) == (303, "/ui/environments")
    assert [prod(ann, slug) for slug in flows] == [2, 2]
    assert "nothing: it is there already" in ann.get("/ui/promote?from=dev&to=prod&workflow=stock").page.text


def test_what_refuses_a_promotion_is_beside_its_workflow(ann: Visitor, flows: list[str]) -> None:
    ann.api.put("/workflows/stock/environments/dev", json={"weights": {"1": 50, "2": 50}})
    for refused in (
        ann.get("/ui/promote?from=dev&to=prod&workflow=orders&workflow=stock"),
        promote(ann, flows),
    ):
        assert "leave one version there first" in refused.page.text
        assert not [each for each in refused.page.all("button") if "Promote" in str(each)]
    assert [prod(ann, slug) for slug in flows] == [1, 1]
    assert "v2 50 %, v1 50 %" in ann.get("/ui/environments").page.text
    assert ann.get("/ui/promote?from=dev&to=dev&workflow=orders").status == 400
    assert ann.get("/ui/promote?from=dev&to=nowhere&workflow=orders").status == 404


def test_the_environments_of_a_project_are_edited_as_rows(ann: Visitor) -> None:
    assert "No environments yet" in ann.get("/ui/environments").page.text
    rows: dict[str, str | list[str]] = {
        "name": ["staging", "", "prod"], "role": ["editor", "editor", "owner"], "hours": ["0", "0", "24"],
        "seen": "",
    }  # fmt: skip
    done = ann.post("/ui/environment-rules", None, **rows, follows="0")
    assert done.location == "/ui/environments"
    saved = ann.api.get("/environments").json["environments"]
    assert [(each["name"], each["role"], each["follows"], each["hours"]) for each in saved] == [
        ("staging", "editor", True, 0), ("prod", "owner", False, 24),
    ]  # fmt: skip
    stale = ann.post("/ui/environment-rules", None, **rows)
    assert stale.status == 412
    wrong = ann.post("/ui/environment-rules", name=["current"], role=["owner"], hours=["0"], seen="")
    assert (wrong.status, wrong.page.text.count("is not the name of an environment") > 0) == (422, True)
    names = [each.attributes.get("value") for each in wrong.page.all("input", name="name")]
    assert names[0] == "current"


def test_one_pointer_is_moved_after_a_look_at_what_changes(ann: Visitor, flows: list[str]) -> None:
    """With reason and hold; to two versions with weights; and removed. Its moves are listed."""
    at = "/ui/workflows/orders/environments/prod"
    assert at in ann.get("/ui/environments").page.links()
    assert at in ann.get("/ui/workflows/orders").page.links()
    page = ann.get(f"{at}?version=v2").page
    assert (page.value("version"), page.value("seen")) == ("v2", "v1")
    shown = ann.post(at, version="latest", seen="v1", check="yes", message="Kept").page
    assert "v1 → v2" in shown.text
    assert "url of call changed" in shown.text
    assert shown.value("message") == "Kept"
    assert prod(ann, "orders") == 1
    assert ann.post(at, version="2", seen="v1", message="Good", hold="yes").location == at
    assert ann.api.get("/workflows/orders/environments/prod").json["held"] is True
    stale = ann.post(at, version="1", seen="v1")
    assert (stale.status, "has moved" in stale.page.text) == (412, True)
    assert ann.post(at, version="2", second="1", weight="30", seen="v2,held").status == 303
    assert "v2 30 %, v1 70 %" in ann.get(at).page.text
    removed = ann.post(f"{at}/remove", seen=ann.get(f"{at}/remove").page.value("seen"), message="Closed")
    assert removed.location == at
    moves = [each.text for each in ann.get(at).page.all("td")][::4]
    assert [" ".join(each.split()) for each in moves] == ["removed", "v2 30 %, v1 70 %", "v2 held", "v1"]
    assert "Closed" in ann.get(at).page.text


def test_what_refuses_a_move_is_shown_with_the_form(ann: Visitor, flows: list[str]) -> None:
    at = "/ui/workflows/orders/environments/prod"
    ann.api.post("/workflows/orders/versions/2/yank", json={"reason": "It loses orders"})
    for more in ({}, {"check": "yes"}):
        refused = ann.post(at, version="2", seen="v1", message="Kept", **more)
        assert "It loses orders" in refused.page.text
        assert refused.page.value("message") == "Kept"
    for fields, status in (
        ({"version": ""}, 400), ({"version": "v9"}, 404), ({"version": "draft"}, 400),
        ({"version": "2", "second": "1", "weight": "100"}, 400), ({"version": "1", "second": "1"}, 400),
    ):  # fmt: skip
        assert ann.post(at, seen="v1", **fields).status == status, fields
    assert prod(ann, "orders") == 1
    assert ann.get("/ui/workflows/orders/environments/nowhere").status == 404
    assert ann.get("/ui/workflows/nothing/environments/prod").status == 404


def test_an_environment_offers_moves_to_its_role_alone(house: House, ann: Visitor, flows: list[str]) -> None:
    """Everyone else sees the pointer and its moves."""
    rules = [{"name": "dev", "role": "editor"}, {"name": "prod", "role": "owner"}]
    ann.api.put("/environments", json={"environments": rules}, match="*")
    at = "/ui/workflows/orders/environments"
    for role, moves in (("viewer", []), ("publisher", ["dev"]), ("owner", ["dev", "prod"])):
        person = visitor(house, role)
        for name in ("dev", "prod"):
            page = person.get(f"{at}/{name}").page
            assert ("post", f"{at}/{name}") in list(page.forms()) or name not in moves
            assert (f"{at}/{name}/remove" in page.links()) == (name in moves)
            assert "First" in page.text or name == "dev"
    assert visitor(house, "publisher").post(f"{at}/prod", version="2", seen="v1").status == 403
    assert visitor(house, "publisher").get(f"{at}/prod/remove").status == 403
