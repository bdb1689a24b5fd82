"""Versions go through staging to prod and back at night; people follow with HTTP and with stock git."""

from __future__ import annotations

from tests.stories.instance import Author, Caller, definition

RULES = [{"name": "staging", "follows": True}, {"name": "prod"}]


def in_prod(owner: Caller, slug: str) -> bytes:
    return owner.definition(slug, "prod")


def test_a_promotion_at_noon_is_taken_back_at_night(owner: Caller, ann: Author) -> None:
    """Both workflows go to prod in one step; at night one goes back, and is held through the next one."""
    assert (
        owner.call("PUT", "/environments", {"environments": RULES}, headers={"If-Match": "*"}).status == 200
    )
    for slug in ("orders", "stock"):
        owner.publish(slug, "one")
    both = {"from": "staging", "to": "prod", "workflows": ["orders", "stock"]}
    first = owner.call("POST", "/promote", {**both, "message": "Noon"})
    assert (first.status, [each["moves"] for each in first.json["promotions"]]) == (200, [True, True])

    owner.publish("orders", "two")
    assert in_prod(owner, "orders") == definition("one").encode()
    preview = owner.call("POST", "/promote/preview", both).json
    assert preview["refusals"] == []
    moving = [each["workflow"] for each in preview["promotions"] if each["moves"]]
    assert moving == ["orders"]
    assert owner.call("POST", "/promote", {**both, "message": "Evening"}).status == 200
    assert in_prod(owner, "orders") == definition("two").encode()

    pointer = "/workflows/orders/environments/prod"
    back = {"version": 1, "hold": True, "message": "v2 fails at night"}
    stale = owner.call("PUT", pointer, back, headers={"If-Match": '"v1"'})
    assert (stale.status, stale.json["code"]) == (412, "environment_moved")
    seen = owner.get(pointer).headers["ETag"]
    assert owner.call("PUT", pointer, back, headers={"If-Match": seen}).status == 200
    owner.publish("orders", "three")
    assert in_prod(owner, "orders") == definition("one").encode()
    assert owner.definition("orders", "staging") == definition("three").encode()
    moves = owner.get(f"{pointer}/history").json["moves"]
    assert [(move["version_number"], move["message"]) for move in moves] == [
        (1, "v2 fails at night"), (2, "Evening"), (1, "Noon"),
    ]  # fmt: skip

    ann.git("fetch", "origin", "refs/ledger/orders:refs/ledger/orders")
    log = ann.git("log", "--format=%s%n%(trailers:key=Gitstore-Environments)", "refs/ledger/orders")
    assert "Held prod of orders to v1" in log
    assert "Gitstore-Environments: prod=v1,held staging=v3" in log.splitlines()[1]
