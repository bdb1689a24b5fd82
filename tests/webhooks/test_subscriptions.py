"""Subscriptions: pausing, disabling, rotation of secrets, redelivery, replay, tests, deletion."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from sync.events import EventType
from tests.sync.conftest import House
from tests.webhooks.receiver import Receiver, respond
from tests.webhooks.subscribed_project import Clock, Post
from tests.webhooks.test_sender import insert_events
from webhooks import delivery_log, delivery_queue, subscriptions
from webhooks.attempts import DELAYS, Ending
from webhooks.delivery_queue import Room
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


@pytest.mark.parametrize("status", [410, 500])
def test_events_while_a_subscription_is_disabled_are_held(
    house: House, receiver: Receiver, status: int
) -> None:
    """However it was disabled. Its activation sends them, and those that were still being retried."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    receiver.answers = respond(status)
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    house.publish("a")
    post.send_due()
    if status == 500:
        clock.advance(timedelta(days=5))
        house.publish("b")
        for delay in DELAYS[:4]:
            post.send_due()
            clock.advance(delay)
    assert post.state(subscription).state == "disabled"
    house.publish("c")
    house.publish("d")
    before = len(receiver.got)
    clock.advance(timedelta(days=1))
    assert post.send_due() == []
    assert [row["due_at"] for row in post.deliveries() if row["state"] == "pending"] == (
        [None, None] if status == 410 else [None] * 4
    )
    receiver.answers = None
    change(post, subscription, state="active")
    assert (post.state(subscription).state, post.state(subscription).reason) == ("active", None)
    assert {verdict.ending for verdict in post.send_due()} == {Ending.SUCCEEDED}
    sent = sorted(json.loads(got.body)["data"]["workflow"] for got in receiver.got[before:])
    assert sent == (["c", "d"] if status == 410 else ["a", "b", "c", "d"])


def test_a_held_delivery_is_retried_by_a_new_schedule(post: Post, receiver: Receiver) -> None:
    """The attempts from before the pause do not count."""
    receiver.answers = respond(500)
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    post.send_due()
    change(post, subscription, state="paused")
    with post.database.as_owner() as tx:
        tx.run("update gitstore.deliveries set tries = 9")
    change(post, subscription, state="active")
    assert [verdict.ending for verdict in post.send_due()] == [Ending.RETRY]


# Replay


def replay(
    post: Post, subscription: Subscription, since: datetime, most: int = delivery_log.MOST_REPLAYED
) -> delivery_log.Replayed:
    with post.database.as_user(post.house.claims) as tx:
        return delivery_log.replay(tx, post.state(subscription), since, most)


def recorded(post: Post, workflow: str) -> datetime:
    """Return when the event of a workflow's publication was recorded."""
    (at,) = (
        row["recorded_at"]
        for row in post.rows("events")
        if (row["type"], row["data"]["workflow"]) == (PUBLISHED, workflow)
    )
    assert isinstance(at, datetime)
    return at


def test_a_replay_sends_every_event_since_a_time_again(post: Post, receiver: Receiver) -> None:
    """Succeeded and failed ones with their ids, and those from before the subscription; to it alone."""
    post.house.publish("a")
    subscription, _ = post.subscribe(receiver.url("/"), PUBLISHED)
    other, _ = post.subscribe(receiver.url("/other"), PUBLISHED)
    for workflow in ("b", "c", "d"):
        post.house.publish(workflow)
    post.send_due()
    first = {got.id for got in receiver.got if got.path == "/"}
    assert len(first) == 3
    with post.database.as_owner() as tx:
        tx.run("update gitstore.deliveries set state = 'failed' where event_id in "
               "(select id from gitstore.events where data ->> 'workflow' = 'd')")  # fmt: skip
    before = len(receiver.got)
    assert replay(post, subscription, recorded(post, "c")) == delivery_log.Replayed(2, None)
    post.send_due()
    again = receiver.got[before:]
    assert [json.loads(got.body)["data"]["workflow"] for got in again] == ["c", "d"]
    assert {got.id for got in again} < first
    assert replay(post, subscription, recorded(post, "a")).deliveries == 4
    assert len(post.send_due()) == 4
    assert replay(post, subscription, datetime.now(UTC) + timedelta(days=1)).deliveries == 0
    assert [row["attempts"] for row in post.deliveries(other.id)] == [1, 1, 1]


def test_a_replay_of_many_events_is_continued(post: Post, receiver: Receiver) -> None:
    """Each part ends between two moments, and the next starts there."""
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    for count in (1, 3, 2):
        insert_events(post.house, count)
    since: datetime | None = datetime.now(UTC) - timedelta(hours=1)
    counts = []
    while since:
        part = replay(post, subscription, since, most=2)
        counts.append(part.deliveries)
        since = part.next_since
    assert counts == [4, 2, 0]
    assert len(post.send_due()) == 6


@pytest.mark.parametrize("state", ["paused", "disabled"])
def test_a_replay_to_a_subscription_that_is_not_active_is_held(
    post: Post, receiver: Receiver, state: str
) -> None:
    """Until it is activated."""
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    insert_events(post.house, 2)
    post.send_due()
    with post.database.as_owner() as tx:
        tx.run("update gitstore.subscriptions set state = %(state)s", state=state)
    assert replay(post, subscription, datetime.now(UTC) - timedelta(hours=1)).deliveries == 2
    assert post.send_due() == []
    change(post, subscription, state="active")
    assert len(post.send_due()) == 2


def test_a_delivery_that_is_being_sent_is_not_replayed(post: Post, receiver: Receiver) -> None:
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    insert_events(post.house, 1)
    with post.database.as_mirror() as tx:
        delivery_queue.fan_out(tx)
        (due,) = delivery_queue.claim(tx, Room(1, 1, 1, {}), timedelta(seconds=60))
    assert replay(post, subscription, datetime.now(UTC) - timedelta(hours=1)).deliveries == 0
    (row,) = post.deliveries()
    assert row["due_at"] == due.lease


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
