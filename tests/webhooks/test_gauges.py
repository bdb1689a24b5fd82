"""Gauges of sources, divergences, subscriptions and deliveries."""

from __future__ import annotations

from collections.abc import Callable

from tests.sync.conftest import House
from tests.webhooks.followed_project import Following
from tests.webhooks.receiver import Receiver, respond
from tests.webhooks.subscribed_project import Post
from tests.webhooks.test_sender import insert_events
from tests.webhooks.upstream import Upstream, flow
from webhooks import subscriptions
from webhooks.housekeeping import Gauges, gauges


def current(house: House) -> Gauges:
    with house.database.as_mirror() as tx:
        return gauges(tx)


def test_every_state_has_a_gauge(house: House) -> None:
    """An alarm needs the series before there is a failure."""
    gauges_now = current(house)
    assert gauges_now.sources == {"new": 0, "ok": 0, "failing": 0, "paused": 0, "poison": 0}
    assert gauges_now.subscriptions == {"active": 0, "failing": 0, "paused": 0, "disabled": 0}
    assert (gauges_now.since_success, gauges_now.divergences, gauges_now.pending) == (0.0, 0, 0)


def test_sources_are_counted_by_state_with_the_longest_time_since_success(
    make_house: Callable[..., House], upstream: Upstream
) -> None:
    """Paused sources do not count for the time."""
    one, other = (Following(make_house(name), upstream.url) for name in ("one", "other"))
    upstream.version("order-sync", 1)
    one.sync()
    assert one.counted == [("ok", [])]
    assert current(one.house).sources == {"new": 1, "ok": 1, "failing": 0, "paused": 0, "poison": 0}
    with one.database.as_owner() as tx:
        tx.run(
            "update gitstore.sources set created_at = now() - interval '1 hour' where succeeded_at is null"
        )
    assert 3600 <= current(one.house).since_success < 3700
    upstream.broken = 500
    other.sync()
    assert other.counted == [("upstream_failed", [])]
    assert current(one.house).sources["failing"] == 1
    other.change(paused=True)
    assert current(one.house).sources == {"new": 0, "ok": 1, "failing": 0, "paused": 1, "poison": 0}
    assert current(one.house).since_success < 600


def test_open_divergences_are_counted(house: House, upstream: Upstream) -> None:
    """A tag that moved upstream counts once, although two syncs saw it."""
    following = Following(house, upstream.url)
    upstream.version("order-sync", 1)
    following.sync()
    upstream.commit("workflow.yaml", flow("https://moved.example/"))
    upstream.tag("order-sync/v1", "--force")
    following.sync()
    following.sync()
    assert following.counted == [("ok", []), ("ok", ["version_immutable"]), ("ok", [])]
    assert current(house).divergences == 1


def test_subscriptions_are_counted_by_state(house: House, receiver: Receiver) -> None:
    """A failing subscription is counted apart from the active ones."""
    post = Post(house, receiver.allow)
    subscription, _ = post.subscribe(receiver.url())
    receiver.answers = respond(500)
    insert_events(house, 2)
    post.send_due()
    gauges_now = current(house)
    assert gauges_now.subscriptions == {"active": 0, "failing": 1, "paused": 0, "disabled": 0}
    assert gauges_now.pending == 2
    with house.database.as_user(house.claims) as tx:
        subscriptions.change(tx, house.project, subscription.id, state="paused")
    assert current(house).subscriptions["paused"] == 1
