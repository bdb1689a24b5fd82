"""Pushing to an upstream, never by force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gitstore.upstream.refs import Layout
from sync.integrity.verify import verify
from tests.sync.conftest import House
from tests.webhooks.followed_project import Follow, Following
from tests.webhooks.upstream import Upstream, flow
from webhooks.sources import Direction

REFUSE = "#!/bin/sh\necho 'tags are protected here' >&2\nexit 1\n"


@pytest.fixture
def follow(house: House, upstream: Upstream) -> Iterator[Follow]:
    def make(direction: Direction = Direction.BOTH, **options: Any) -> Following:
        return Following(house, upstream.url, direction=direction, **options)

    yield make
    assert [str(finding) for finding in verify(house.database, house.store)] == []


@pytest.mark.parametrize("direction", [Direction.PUSH, Direction.BOTH])
def test_tags_and_open_drafts_are_pushed(
    follow: Follow, upstream: Upstream, house: House, direction: Direction
) -> None:
    """With the same ids; a published draft is not pushed."""
    house.publish("order-sync")
    house.publish("order-sync", "https://b.example/")
    house.save("refunds")
    following = follow(direction)
    result = following.sync()
    assert sorted(result.pushed) == [
        "refs/heads/drafts/refunds", "refs/tags/order-sync/v1", "refs/tags/order-sync/v2",
    ]  # fmt: skip
    here = house.git(
        "for-each-ref", "--format=%(objectname) %(refname)", "refs/tags", "refs/heads/drafts/refunds"
    )
    assert upstream.refs() == {
        name: oid for oid, _, name in (line.partition(" ") for line in here.splitlines())
    }
    upstream.requests.clear()
    assert following.sync().pushed == []
    assert not [line for line in upstream.requests if "receive-pack" in line]


def test_both_sides_publish_in_turn(follow: Follow, upstream: Upstream, house: House) -> None:
    """v1 upstream, v2 here on top of it, v3 upstream on top of that."""
    upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    assert house.publish("order-sync", "https://two.example/") == 2
    assert following.sync().pushed == ["refs/tags/order-sync/v2"]
    upstream.git("fetch", "-q", str(upstream.bare), "refs/tags/order-sync/v2:refs/tags/order-sync/v2")
    upstream.git("reset", "-q", "--hard", "order-sync/v2")
    upstream.version("order-sync", 3)
    assert following.sync().published == {"order-sync": [3]}
    assert following.open_divergences() == {}


def test_an_older_draft_upstream_is_fast_forwarded(follow: Follow, upstream: Upstream, house: House) -> None:
    upstream.draft("order-sync", flow())
    following = follow()
    following.sync()
    ours = house.save("order-sync", "https://ours.example/")
    assert following.sync().pushed == ["refs/heads/drafts/order-sync"]
    assert upstream.refs()["refs/heads/drafts/order-sync"] == ours


def test_a_diverged_draft_is_not_forced(follow: Follow, upstream: Upstream, house: House) -> None:
    """Not even after the decision to keep ours."""
    upstream.draft("order-sync", flow())
    following = follow()
    following.sync()
    house.save("order-sync", "https://ours.example/")
    theirs = upstream.draft("order-sync", flow("https://theirs.example/"))
    assert following.sync().pushed == []
    following.resolve("order-sync", "ours")
    following.sync(full=True)
    assert upstream.refs()["refs/heads/drafts/order-sync"] == theirs


@pytest.mark.parametrize("layout", Layout)
def test_only_tags_are_pushed_in_the_layout_folders(
    follow: Follow, upstream: Upstream, house: House, layout: Layout
) -> None:
    house.publish("order-sync")
    house.save("refunds")
    pushed = follow(layout=layout).sync().pushed
    assert ("refs/heads/drafts/refunds" in pushed) is (layout is Layout.REFS)
    assert "refs/tags/order-sync/v1" in pushed


def test_a_refused_push_is_reported_and_not_repeated(
    follow: Follow, upstream: Upstream, house: House
) -> None:
    """With the upstream's message, until one side moves or an owner requests a sync."""
    upstream.hook("update", REFUSE)
    house.publish("order-sync")
    following = follow()
    following.sync()
    one = following.open_divergences()["order-sync/v1"]
    assert (one.code, one.theirs) == ("push_refused", None)
    assert "hook declined" in one.reason
    upstream.requests.clear()
    following.sync()
    assert not [line for line in upstream.requests if "receive-pack" in line]
    assert following.open_divergences()["order-sync/v1"].id == one.id
    (upstream.bare / "hooks" / "update").unlink()
    assert following.sync(full=True).pushed == ["refs/tags/order-sync/v1"]
    assert following.open_divergences() == {}


def test_an_acknowledged_refusal_of_a_push_is_not_reported_again(
    follow: Follow, upstream: Upstream, house: House
) -> None:
    """A requested sync tries again, and pushes once the upstream allows it."""
    upstream.hook("update", REFUSE)
    house.publish("order-sync")
    following = follow()
    following.sync()
    following.resolve("order-sync/v1", "acknowledge")
    for full in (False, True):
        following.sync(full=full)
        assert following.open_divergences() == {}
    (upstream.bare / "hooks" / "update").unlink()
    assert following.sync(full=True).pushed == ["refs/tags/order-sync/v1"]


def test_a_tag_deleted_upstream_is_not_pushed_again(follow: Follow, upstream: Upstream, house: House) -> None:
    """The deletion is reported."""
    house.publish("order-sync")
    following = follow()
    following.sync()
    upstream.in_bare("update-ref", "-d", "refs/tags/order-sync/v1")
    for _ in range(2):
        assert following.sync().pushed == []
    assert following.open_divergences()["order-sync/v1"].code == "deleted_upstream"
    assert "refs/tags/order-sync/v1" not in upstream.refs()


def test_versions_are_imported_although_the_push_is_refused(
    follow: Follow, upstream: Upstream, house: House
) -> None:
    """As with a credential that may only read."""
    upstream.in_bare("config", "http.receivepack", "false")
    upstream.version("refunds", 1)
    house.publish("order-sync")
    following = follow()
    result = following.sync()
    assert result.published == {"refunds": [1]}
    assert "403" in (following.row().last_error or "")
    assert following.row().failures == 1


def test_a_push_only_source_imports_nothing(follow: Follow, upstream: Upstream, house: House) -> None:
    """Differing tags and drafts that are not behind ours are reported."""
    upstream.version("order-sync", 1)
    upstream.version("refunds", 1)
    theirs = upstream.draft("order-sync", flow("https://theirs.example/"))
    house.publish("order-sync")
    house.save("order-sync", "https://ours.example/")
    following = follow(Direction.PUSH)
    for _ in range(2):
        result = following.sync()
        assert (result.published, result.pushed) == ({}, [])
        codes = {ref: one.code for ref, one in following.open_divergences().items()}
        assert codes == {"order-sync/v1": "version_immutable", "order-sync": "not_fast_forward"}
    assert upstream.refs()["refs/heads/drafts/order-sync"] == theirs
    assert not house.store.exists("refunds")


@pytest.mark.parametrize("layout", Layout)
def test_an_upstream_that_keeps_the_former_slug_is_followed(
    follow: Follow, upstream: Upstream, house: House, layout: Layout
) -> None:
    """Its versions continue the workflow under the present slug, by the rules of any import."""
    path = "workflows/orders/workflow.yaml" if layout is Layout.FOLDERS else "workflow.yaml"
    upstream.version("orders", 1, path=path)
    following = follow(Direction.PULL, layout=layout)
    assert following.sync().published == {"orders": [1]}
    house.store.rename("orders", "sales", house.who)
    assert following.sync().published == {}
    upstream.version("orders", 2, path=path)
    upstream.version("orders", 4, flow("https://four.example/"), path=path)
    result = following.sync()
    assert (result.published, result.gaps) == ({"sales": [2, 4]}, {"sales": [(3, 3)]})
    there, here = upstream.refs(), house.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/tags")
    assert here.splitlines() == [
        f"{there[f'refs/tags/orders/v{number}']} refs/tags/{slug}/v{number}"
        for slug, number in (("orders", 1), ("sales", 2), ("sales", 4))
    ]

    upstream.version("orders", 3, path=path)
    upstream.tag("orders/v1", "-f")
    upstream.tag("orders/v2", "-f")
    assert following.sync().published == {}
    diverged = {ref: (one.code, one.slug) for ref, one in following.open_divergences().items()}
    assert diverged == {
        "orders/v1": ("version_immutable", "sales"),
        "orders/v2": ("version_immutable", "sales"),
        "orders/v3": ("wrong_number", "sales"),
    }
    workflows = following.query("select workflow_id from gitstore.events where type like '%diverged'")
    assert {row["workflow_id"] for row in workflows} == {house.workflow_id("orders")}


def test_both_sides_continue_a_renamed_workflow_under_their_own_slug(
    follow: Follow, upstream: Upstream, house: House
) -> None:
    """What the upstream has under the former slug is updated there, and not pushed under the new one."""
    house.publish("orders")
    house.save("orders", "https://draft.example/")
    following = follow()
    following.sync()
    house.store.rename("orders", "sales", house.who)
    assert following.sync().pushed == []
    draft = house.save("sales", "https://saved.example/")
    assert following.sync().pushed == ["refs/heads/drafts/orders"]
    assert upstream.refs()["refs/heads/drafts/orders"] == draft
    assert house.store.publish("sales", house.who).number == 2
    assert following.sync().pushed == ["refs/tags/sales/v2"]

    upstream.git("fetch", "-q", str(upstream.bare), "refs/tags/sales/v2")
    upstream.git("reset", "-q", "--hard", "FETCH_HEAD")
    upstream.version("orders", 3)
    assert following.sync().published == {"sales": [3]}
    assert following.sync().pushed == []
    theirs = upstream.draft("orders", flow("https://theirs.example/"))
    assert following.sync().saved == ["sales"]
    assert house.store.state("sales").draft == theirs
    upstream.in_bare("update-ref", "-d", "refs/tags/orders/v3")
    for _ in range(2):
        assert following.sync().pushed == []
    assert {ref: one.code for ref, one in following.open_divergences().items()} == {
        "orders/v3": "deleted_upstream"
    }


def test_a_version_upstream_under_two_slugs_of_a_workflow_is_imported_once(
    follow: Follow, upstream: Upstream, house: House
) -> None:
    """The present slug counts where they differ; the other one is a divergence."""
    house.publish("orders")
    house.store.rename("orders", "sales", house.who)
    for slug in ("orders", "sales"):
        upstream.version(slug, 2, flow(f"https://{slug}.example/"))
    upstream.version("sales", 3, lightweight=True)
    upstream.tag("orders/v3", lightweight=True)
    following = follow()
    assert following.sync().published == {"sales": [2, 3]}
    assert house.git("rev-parse", "sales/v2") == upstream.refs()["refs/tags/sales/v2"]
    assert {ref: one.code for ref, one in following.open_divergences().items()} == {
        "orders/v2": "version_immutable"
    }
