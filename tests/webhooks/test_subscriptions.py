"""Subscriptions: pausing, rotation of secrets, redelivery, tests, deletion."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID

import pytest

from sync.events import EventType
from tests.sync.conftest import House
from tests.webhooks.receiver import Receiver, respond
from tests.webhooks.subscribed_project import Post
from webhooks import delivery_log, delivery_queue, subscriptions
from webhooks.attempts import Ending
from webhooks.secrets import Sealer, new_key
from webhooks.subscriptions import Subscription

PUBLISHED = EventType.PUBLISHED.value


def change(post: Post, subscription: Subscription, **changes: object) -> None:
    with post.database.as_user(post.house.claims) as tx:
        assert subscriptions.change(tx, post.house.project, subscription.id, **changes)  # type: ignore[arg-type]


def test_deliveries_of_a_paused_subscription_are_held(post: Post, receiver: Receiver) -> None:
    """Its activation sends them."""
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    with post.database.as_mirror() as tx:
        delivery_queue.fan_out(tx)
    change(post, subscription, state="paused")
    post.house.publish("b")
    assert post.send_due() == []
    assert len(post.deliveries()) == 2
    change(post, subscription, state="active")
    assert len(post.send_due()) == 2
    assert {json.loads(got.body)["data"]["workflow"] for got in receiver.got} == {"a", "b"}


def test_a_failure_during_the_pause_stays_held(post: Post, receiver: Receiver) -> None:
    """The attempt is recorded and makes nothing due."""
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)

    def pause_and_fail(handler: object) -> None:
        change(post, subscription, state="paused")
        respond(500)(handler)  # type: ignore[arg-type]

    receiver.answers = pause_and_fail
    post.house.publish("a")
    post.send_due()
    (row,) = post.deliveries()
    assert (row["state"], row["due_at"], row["attempts"]) == ("pending", None, 1)


def test_an_activated_subscription_receives_new_events(post: Post, receiver: Receiver) -> None:
    """Missed ones can be redelivered."""
    receiver.answers = respond(410)
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    post.send_due()
    receiver.answers = None
    change(post, subscription, state="active")
    post.house.publish("b")
    post.send_due()
    assert (post.state(subscription).state, post.state(subscription).reason) == ("active", None)
    assert [row["state"] for row in sorted(post.deliveries(), key=lambda r: r["created_at"])] == [
        "failed",
        "succeeded",
    ]


# Secrets


def test_a_rotated_secret_signs_beside_the_old_one(post: Post, receiver: Receiver) -> None:
    """Until the overlap has passed; two rotations in a row are possible."""
    subscription, first = post.subscribe(receiver.url(), PUBLISHED)
    second, third = rotate(post, subscription), rotate(post, subscription)
    post.house.publish("a")
    post.send_due()
    for secret in (first, second, third):
        receiver.got[0].verified(secret)
    fourth = rotate(post, subscription, timedelta())
    post.house.publish("b")
    post.send_due()
    receiver.got[1].verified(fourth)
    assert len(receiver.got[1].headers["webhook-signature"].split()) == 1


def rotate(post: Post, subscription: Subscription, overlap: timedelta = timedelta(hours=1)) -> str:
    with post.database.as_user(post.house.claims) as tx:
        secret = subscriptions.rotate(tx, post.sealer, post.house.project, subscription.id, overlap)
    assert secret is not None
    return secret


def test_the_number_of_signing_secrets_is_limited(post: Post) -> None:
    subscription, _ = post.subscribe("https://example.com/")
    for _ in range(10):
        rotate(post, subscription)
    assert len(post.rows("subscription_secrets")) == subscriptions.MOST_SECRETS


def test_secrets_are_sealed_in_the_database(post: Post) -> None:
    """An owner cannot read even the sealed form by SQL."""
    _, secret = post.subscribe("https://example.com/")
    rows = [str(row) for table in ("subscriptions", "subscription_secrets") for row in post.rows(table)]
    assert not any(secret.removeprefix("whsec_") in row for row in rows)
    with (
        pytest.raises(Exception, match="denied permission"),
        post.database.reading(post.house.claims) as tx,
    ):
        tx.value("select sealed from gitstore.subscription_secrets")


def test_without_the_key_a_delivery_fails_and_is_retried(post: Post, receiver: Receiver) -> None:
    """Nothing is sent unsigned."""
    post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    post.sealer = Sealer([new_key()])
    (verdict,) = post.send_due()
    assert verdict.error == "the signing secret cannot be decrypted: rotate it"
    assert receiver.got == []
    assert post.errors


# Sending again, and no more


def test_an_ended_delivery_can_be_redelivered(house: House, receiver: Receiver) -> None:
    """With the same id; earlier attempts are kept."""
    post = Post(house, receiver.allow)
    post.subscribe(receiver.url(), PUBLISHED)
    house.publish("a")
    post.send_due()
    (row,) = post.deliveries()
    receiver.answers = respond(500)
    again(post, row["id"])
    assert [verdict.ending for verdict in post.send_due()] == [Ending.RETRY]
    receiver.answers = None
    again(post, row["id"])
    assert [verdict.ending for verdict in post.send_due()] == [Ending.SUCCEEDED]
    assert len({got.id for got in receiver.got}) == 1
    with post.database.reading(house.claims) as tx:
        assert [attempt.status for attempt in delivery_log.attempts(tx, row["id"])] == [200, 500, 200]


def again(post: Post, delivery: UUID) -> None:
    with post.database.as_user(post.house.claims) as tx:
        assert delivery_log.redeliver(tx, post.house.project, delivery)


def test_a_test_event_is_sent_to_one_subscription(post: Post, receiver: Receiver) -> None:
    """Even to a paused one; it is no event of the project."""
    subscription, secret = post.subscribe(receiver.url("/one"))
    post.subscribe(receiver.url("/two"))
    change(post, subscription, state="paused")
    with post.database.as_user(post.house.claims) as tx:
        delivery = delivery_log.test(tx, post.state(subscription))
    post.send_due()
    (got,) = receiver.got
    assert (got.path, got.id) == ("/one", str(delivery.event_id))
    assert got.verified(secret)["type"] == subscriptions.TEST
    assert post.rows("events") == []


def test_a_deleted_subscription_receives_nothing(post: Post, receiver: Receiver) -> None:
    """Its due deliveries fail, its history is kept, and its secrets are deleted."""
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    with post.database.as_mirror() as tx:
        delivery_queue.fan_out(tx)
    with post.database.as_user(post.house.claims) as tx:
        assert subscriptions.delete(tx, post.house.project, subscription.id)
        assert not subscriptions.delete(tx, post.house.project, subscription.id)
        assert subscriptions.subscriptions(tx, post.house.project) == []
    post.house.publish("b")
    assert post.send_due() == []
    (row,) = post.deliveries()
    assert (row["state"], row["last_error"]) == ("failed", "the subscription was deleted")
    assert post.rows("subscription_secrets") == []
    with post.database.as_user(post.house.claims) as tx:
        assert delivery_log.redeliver(tx, post.house.project, row["id"]) is None
