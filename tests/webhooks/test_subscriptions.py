"""What an owner does with a subscription: pausing, rotating its secret, sending again, testing, deleting."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID

import pytest

from sync.events import EventType
from tests.sync.conftest import House
from tests.webhooks.receiver import Receiver, say
from tests.webhooks.subscribed_project import Post
from webhooks import delivery_log, delivery_queue, payload, subscriptions
from webhooks.retry import Ending
from webhooks.secrets import Sealer, new_key
from webhooks.subscriptions import Subscription

PUBLISHED = EventType.PUBLISHED.value


def change(post: Post, subscription: Subscription, **changes: object) -> None:
    with post.database.as_user(post.house.claims) as tx:
        assert subscriptions.change(tx, post.house.project, subscription.id, **changes)  # type: ignore[arg-type]


def test_while_paused_deliveries_are_held(post: Post, receiver: Receiver) -> None:
    """Made active, it gets them all."""
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    with post.database.as_mirror() as tx:
        delivery_queue.fan_out(tx)
    change(post, subscription, state="paused")
    post.house.publish("b")
    assert post.once() == []
    assert len(post.deliveries()) == 2
    change(post, subscription, state="active")
    assert len(post.once()) == 2
    assert {json.loads(got.body)["data"]["workflow"] for got in receiver.got} == {"a", "b"}


def test_a_failure_while_it_is_being_paused_stays_held(post: Post, receiver: Receiver) -> None:
    """The attempt under way is kept, and makes nothing due."""
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)

    def pause_and_fail(handler: object) -> None:
        change(post, subscription, state="paused")
        say(500)(handler)  # type: ignore[arg-type]

    receiver.answers = pause_and_fail
    post.house.publish("a")
    post.once()
    (row,) = post.deliveries()
    assert (row["state"], row["due_at"], row["attempts"]) == ("pending", None, 1)


def test_a_disabled_one_is_made_active_by_a_person(post: Post, receiver: Receiver) -> None:
    """It hears what happens from then on; what it missed can be sent again."""
    receiver.answers = say(410)
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    post.once()
    receiver.answers = None
    change(post, subscription, state="active")
    post.house.publish("b")
    post.once()
    assert (post.state(subscription).state, post.state(subscription).reason) == ("active", None)
    assert [row["state"] for row in sorted(post.deliveries(), key=lambda r: r["created_at"])] == [
        "failed",
        "succeeded",
    ]


# Secrets


def test_a_rotated_secret_signs_beside_the_old_one(post: Post, receiver: Receiver) -> None:
    """Until the overlap is over; to rotate twice in a row breaks nothing."""
    subscription, first = post.subscribe(receiver.url(), PUBLISHED)
    second, third = rotate(post, subscription), rotate(post, subscription)
    post.house.publish("a")
    post.once()
    for secret in (first, second, third):
        receiver.got[0].verified(secret)
    fourth = rotate(post, subscription, timedelta())
    post.house.publish("b")
    post.once()
    receiver.got[1].verified(fourth)
    assert len(receiver.got[1].headers["webhook-signature"].split()) == 1


def rotate(post: Post, subscription: Subscription, overlap: timedelta = timedelta(hours=1)) -> str:
    with post.database.as_user(post.house.claims) as tx:
        secret = subscriptions.rotate(tx, post.sealer, post.house.project, subscription.id, overlap)
    assert secret is not None
    return secret


def test_however_often_somebody_rotates_few_secrets_sign(post: Post) -> None:
    """The oldest are forgotten."""
    subscription, _ = post.subscribe("https://example.com/")
    for _ in range(10):
        rotate(post, subscription)
    assert len(post.rows("subscription_secrets")) == subscriptions.MOST_SECRETS


def test_no_secret_is_in_the_database_as_it_is(post: Post) -> None:
    """Nor can an owner read the sealed one by SQL."""
    _, secret = post.subscribe("https://example.com/")
    rows = [str(row) for table in ("subscriptions", "subscription_secrets") for row in post.rows(table)]
    assert not any(secret.removeprefix("whsec_") in row for row in rows)
    with (
        pytest.raises(Exception, match="does not allow"),
        post.database.reading(post.house.claims) as tx,
    ):
        tx.value("select sealed from gitstore.subscription_secrets")


def test_without_the_key_it_is_told_and_tried_again(post: Post, receiver: Receiver) -> None:
    """A key that was lost is the operator's trouble; nothing is sent unsigned."""
    post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    post.sealer = Sealer([new_key()])
    (told,) = post.once()
    assert told.error == "its secret can't be opened here: rotate it"
    assert receiver.got == []
    assert post.troubles


# Sending again, and no more


def test_a_delivery_can_be_sent_again(house: House, receiver: Receiver) -> None:
    """Under the same id, whether it succeeded or was given up; the attempts of before stay."""
    post = Post(house, receiver.allow)
    post.subscribe(receiver.url(), PUBLISHED)
    house.publish("a")
    post.once()
    (row,) = post.deliveries()
    receiver.answers = say(500)
    again(post, row["id"])
    assert [told.ending for told in post.once()] == [Ending.RETRY]
    receiver.answers = None
    again(post, row["id"])
    assert [told.ending for told in post.once()] == [Ending.SUCCEEDED]
    assert len({got.id for got in receiver.got}) == 1
    with post.database.reading(house.claims) as tx:
        assert [attempt.status for attempt in delivery_log.attempts(tx, row["id"])] == [200, 500, 200]


def again(post: Post, delivery: UUID) -> None:
    with post.database.as_user(post.house.claims) as tx:
        assert delivery_log.redeliver(tx, post.house.project, delivery)


def test_a_test_goes_to_one_subscription_alone(post: Post, receiver: Receiver) -> None:
    """Even to one that is paused; it is no event, and nobody else hears of it."""
    subscription, secret = post.subscribe(receiver.url("/one"))
    post.subscribe(receiver.url("/two"))
    change(post, subscription, state="paused")
    with post.database.as_user(post.house.claims) as tx:
        made = delivery_log.test(tx, post.state(subscription))
    post.once()
    (got,) = receiver.got
    assert (got.path, got.id) == ("/one", str(made.event_id))
    assert got.verified(secret)["type"] == payload.TEST
    assert post.rows("events") == []


def test_what_is_deleted_gets_nothing_more(post: Post, receiver: Receiver) -> None:
    """What was still due fails; the history can be read, the secrets are gone."""
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    with post.database.as_mirror() as tx:
        delivery_queue.fan_out(tx)
    with post.database.as_user(post.house.claims) as tx:
        assert subscriptions.delete(tx, post.house.project, subscription.id)
        assert not subscriptions.delete(tx, post.house.project, subscription.id)
        assert subscriptions.subscriptions(tx, post.house.project) == []
    post.house.publish("b")
    assert post.once() == []
    (row,) = post.deliveries()
    assert (row["state"], row["last_error"]) == ("failed", "the subscription was deleted")
    assert post.rows("subscription_secrets") == []
    with post.database.as_user(post.house.claims) as tx:
        assert delivery_log.redeliver(tx, post.house.project, row["id"]) is None
