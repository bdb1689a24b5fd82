"""How sources and deliveries stand, in figures."""

from __future__ import annotations

from collections.abc import Callable

from tests.sync.conftest import House
from tests.webhooks.followed_project import Following
from tests.webhooks.receiver import Receiver, say
from tests.webhooks.subscribed_project import Post
from tests.webhooks.test_sender import happen
from tests.webhooks.upstream import Upstream, flow
from webhooks import subscriptions
from webhooks.gauges import Gauges, gauges


def told(house: House) -> Gauges:
    with house.database.as_mirror() as tx:
        return gauges(tx)


def test_without_any_all_are_nought(house: House) -> None:
    """Each state is named all the same: a figure that appears only when it hurts is no use to an alarm."""
    found = told(house)
    assert found.sources == {"new": 0, "ok": 0, "failing": 0, "paused": 0, "poison": 0}
    assert found.subscriptions == {"active": 0, "failing": 0, "paused": 0, "disabled": 0}
    assert (found.since_success, found.divergences, found.pending) == (0.0, 0, 0)


def test_sources_tell_who_fails_and_for_how_long(
    make_house: Callable[..., House], upstream: Upstream
) -> None:
    """The age is of the last success, of the worst; who is paused does not count."""
    one, other = (Following(make_house(name), upstream.url) for name in ("one", "other"))
    upstream.version("order-sync", 1)
    one.sync()
    assert one.counted == [("ok", [])]
    assert told(one.house).sources == {"new": 1, "ok": 1, "failing": 0, "paused": 0, "poison": 0}
    with one.database.as_owner() as tx:
        tx.run(
            "update gitstore.sources set created_at = now() - interval '1 hour' where succeeded_at is null"
        )
    assert 3600 <= told(one.house).since_success < 3700
    upstream.broken = 500
    other.sync()
    assert other.counted == [("upstream_failed", [])]
    assert told(one.house).sources["failing"] == 1
    other.change(paused=True)
    assert told(one.house).sources == {"new": 0, "ok": 1, "failing": 0, "paused": 1, "poison": 0}
    assert told(one.house).since_success < 600


def test_divergences_are_counted_once_and_stand_until_resolved(house: House, upstream: Upstream) -> None:
    """A tag that moved upstream, seen by two syncs."""
    following = Following(house, upstream.url)
    upstream.version("order-sync", 1)
    following.sync()
    upstream.commit("workflow.yaml", flow("https://moved.example/"))
    upstream.tag("order-sync/v1", "--force")
    following.sync()
    following.sync()
    assert following.counted == [("ok", []), ("ok", ["version_immutable"]), ("ok", [])]
    assert told(house).divergences == 1


def test_subscriptions_tell_who_fails_and_what_waits(house: House, receiver: Receiver) -> None:
    """One that is failing is still active, and is told apart."""
    post = Post(house, receiver.allow)
    made, _ = post.subscribe(receiver.url())
    receiver.answers = say(500)
    happen(house, 2)
    post.once()
    found = told(house)
    assert found.subscriptions == {"active": 0, "failing": 1, "paused": 0, "disabled": 0}
    assert found.pending == 2
    with house.database.as_user(house.claims) as tx:
        subscriptions.change(tx, house.project, made.id, state="paused")
    assert told(house).subscriptions["paused"] == 1
