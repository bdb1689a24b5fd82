"""What is published here goes upstream, never by force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gitstore.upstream.importer import Layout
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
def test_a_tag_and_an_open_draft_go_upstream(
    follow: Follow, upstream: Upstream, house: House, direction: Direction
) -> None:
    """As they are here: the same ids; a draft that was published already stays away."""
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


def test_both_sides_take_turns(follow: Follow, upstream: Upstream, house: House) -> None:
    """v1 there, v2 here on top of it, v3 there on top of that."""
    upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    assert house.publish("order-sync", "https://two.example/") == 2
    assert following.sync().pushed == ["refs/tags/order-sync/v2"]
    upstream.git("fetch", "-q", str(upstream.bare), "refs/tags/order-sync/v2:refs/tags/order-sync/v2")
    upstream.git("reset", "-q", "--hard", "order-sync/v2")
    upstream.version("order-sync", 3)
    assert following.sync().published == {"order-sync": [3]}
    assert following.open() == {}


def test_an_older_draft_upstream_is_fast_forwarded(follow: Follow, upstream: Upstream, house: House) -> None:
    """And no other is touched."""
    upstream.draft("order-sync", flow())
    following = follow()
    following.sync()
    ours = house.save("order-sync", "https://ours.example/")
    assert following.sync().pushed == ["refs/heads/drafts/order-sync"]
    assert upstream.refs()["refs/heads/drafts/order-sync"] == ours


def test_a_draft_that_went_another_way_upstream_is_never_forced(
    follow: Follow, upstream: Upstream, house: House
) -> None:
    """Also where ours was kept."""
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
def test_only_tags_go_to_a_repository_of_folders(
    follow: Follow, upstream: Upstream, house: House, layout: Layout
) -> None:
    """Its branches are the team's own."""
    house.publish("order-sync")
    house.save("refunds")
    pushed = follow(layout=layout).sync().pushed
    assert ("refs/heads/drafts/refunds" in pushed) is (layout is Layout.REFS)
    assert "refs/tags/order-sync/v1" in pushed


def test_what_the_upstream_refuses_is_shown_and_not_repeated(
    follow: Follow, upstream: Upstream, house: House
) -> None:
    """With its own words, until a side moves or somebody asks for it."""
    upstream.hook("update", REFUSE)
    house.publish("order-sync")
    following = follow()
    following.sync()
    one = following.open()["order-sync/v1"]
    assert (one.code, one.theirs) == ("push_refused", None)
    assert "hook declined" in one.reason
    upstream.requests.clear()
    following.sync()
    assert not [line for line in upstream.requests if "receive-pack" in line]
    assert following.open()["order-sync/v1"].id == one.id
    (upstream.bare / "hooks" / "update").unlink()
    assert following.sync(full=True).pushed == ["refs/tags/order-sync/v1"]
    assert following.open() == {}


def test_a_tag_deleted_upstream_is_not_pushed_again(follow: Follow, upstream: Upstream, house: House) -> None:
    """They deleted it on purpose; that is told, here it stays."""
    house.publish("order-sync")
    following = follow()
    following.sync()
    upstream.in_bare("update-ref", "-d", "refs/tags/order-sync/v1")
    for _ in range(2):
        assert following.sync().pushed == []
    assert following.open()["order-sync/v1"].code == "deleted_upstream"
    assert "refs/tags/order-sync/v1" not in upstream.refs()


def test_an_upstream_that_takes_no_pushes_fails_and_still_brings_what_it_has(
    follow: Follow, upstream: Upstream, house: House
) -> None:
    """A credential that may only read: the versions come, the failure is told in words."""
    upstream.in_bare("config", "http.receivepack", "false")
    upstream.version("refunds", 1)
    house.publish("order-sync")
    following = follow()
    result = following.sync()
    assert result.published == {"refunds": [1]}
    assert "403" in (following.row().last_error or "")
    assert following.row().failures == 1


def test_a_source_that_only_pushes_takes_nothing(follow: Follow, upstream: Upstream, house: House) -> None:
    """A tag that differs there, or a draft that is not behind ours, is told; nothing comes."""
    upstream.version("order-sync", 1)
    upstream.version("refunds", 1)
    theirs = upstream.draft("order-sync", flow("https://theirs.example/"))
    house.publish("order-sync")
    house.save("order-sync", "https://ours.example/")
    following = follow(Direction.PUSH)
    for _ in range(2):
        result = following.sync()
        assert (result.published, result.pushed) == ({}, [])
        codes = {ref: one.code for ref, one in following.open().items()}
        assert codes == {"order-sync/v1": "version_immutable", "order-sync": "not_fast_forward"}
    assert upstream.refs()["refs/heads/drafts/order-sync"] == theirs
    assert not house.store.exists("refunds")
