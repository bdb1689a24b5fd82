"""Deliveries: one per event and subscription, signed, and claimed by one sender at a time."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from gitstore.errors import GitstoreError
from gitstore.system import rfc3339
from sync import events
from sync.events import EventType
from sync.replication import Position
from tests.sync.conftest import House
from tests.webhooks.receiver import Receiver, respond
from tests.webhooks.subscribed_project import Clock, Post
from webhooks import delivery_queue, sources
from webhooks.attempts import Ending

PUBLISHED = EventType.PUBLISHED.value


def test_a_publication_is_delivered_per_standard_webhooks(post: Post, receiver: Receiver) -> None:
    """The reference library verifies it; its id is the event's."""
    subscription, secret = post.subscribe(receiver.url("/hook?x=1"), PUBLISHED)
    post.house.publish("order-sync")
    (verdict,) = post.send_due()
    assert verdict.ending is Ending.SUCCEEDED
    (got,) = receiver.got
    message = got.verified(secret)
    (event,) = (row for row in post.rows("events") if row["type"] == PUBLISHED)
    assert set(message) == {"type", "timestamp", "data"}
    assert message["type"] == PUBLISHED
    assert message["timestamp"] == rfc3339(event["created_at"])
    assert message["data"] == {
        **event["data"],
        "project_id": str(post.house.project),
        "workflow_id": str(post.house.workflow_id("order-sync")),
    }
    assert got.id == str(event["id"])
    assert got.path == "/hook?x=1"
    assert got.headers["content-type"] == "application/json"
    assert Position.parse(got.headers["gitstore-position"]).lsn > 0
    (row,) = post.deliveries(subscription.id)
    assert (row["state"], row["attempts"], row["last_status"], row["due_at"]) == ("succeeded", 1, 200, None)


def test_a_subscription_receives_its_event_types(post: Post, receiver: Receiver) -> None:
    """But no events from before it was created."""
    post.house.publish("early")
    post.subscribe(receiver.url("/all"))
    post.subscribe(receiver.url("/published"), PUBLISHED)
    post.house.publish("order-sync")
    post.send_due()
    seen = Counter((got.path, json.loads(got.body)["type"]) for got in receiver.got)
    assert seen == {
        ("/all", PUBLISHED): 1,
        ("/all", EventType.DRAFT_UPDATED.value): 1,
        ("/all", EventType.CURRENT_CHANGED.value): 1,
        ("/published", PUBLISHED): 1,
    }
    assert {json.loads(got.body)["data"]["workflow"] for got in receiver.got} == {"order-sync"}


def test_events_of_other_projects_are_not_queued(
    make_house: Callable[..., House], receiver: Receiver
) -> None:
    ours, theirs = make_house("ours"), make_house("theirs")
    post = Post(ours, receiver.allow)
    post.subscribe(receiver.url())
    theirs.publish("payroll")
    assert post.send_due() == []
    assert receiver.got == []
    theirs.store.close()
    ours.store.close()


def test_concurrent_fan_outs_create_each_delivery_once(post: Post, receiver: Receiver) -> None:
    """Four at once, of which two roll back."""
    post.subscribe(receiver.url(), PUBLISHED)
    for number in range(20):
        post.house.publish(f"w{number}")
    barrier = threading.Barrier(4)

    def fan_out(undo: bool) -> None:
        with suppress(psycopg.Error, GitstoreError), post.database.as_mirror() as tx:
            barrier.wait()
            delivery_queue.fan_out(tx)
            if undo:
                tx.value("select 1 / 0")

    threads = [threading.Thread(target=fan_out, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with post.database.as_mirror() as tx:
        delivery_queue.fan_out(tx)
    published = {row["id"] for row in post.rows("events") if row["type"] == PUBLISHED}
    assert sorted(row["event_id"] for row in post.rows("deliveries")) == sorted(published)
    with post.database.as_owner() as tx:
        assert tx.value("select count(*) from gitstore.event_queue") == 0


def test_without_a_subscription_no_event_is_queued(post: Post) -> None:
    post.house.publish("order-sync")
    with post.database.as_owner() as tx:
        assert tx.value("select count(*) from gitstore.event_queue") == 0


def test_each_committed_event_notifies_engines_with_its_id(post: Post) -> None:
    """On the channel gitstore_events."""
    with psycopg.connect(post.database.conninfo, autocommit=True) as engine:
        engine.execute("listen gitstore_events")
        post.house.publish("order-sync")
        post.house.publish("order-sync")  # the same content: nothing happens
        notified = [notice.payload for notice in engine.notifies(timeout=1)]
    assert sorted(notified) == sorted(str(row["id"]) for row in post.rows("events"))
    assert events.CHANNEL == "gitstore_events"


def test_the_worker_is_notified_only_if_the_project_has_a_subscription(post: Post) -> None:
    """A wake-up at each save would cost as much as the save."""
    channels = (events.CHANNEL, delivery_queue.CHANNEL, sources.CHANNEL)
    with psycopg.connect(post.database.conninfo, autocommit=True) as worker:
        for channel in channels:
            worker.execute(f"listen {channel}")
        post.house.publish("order-sync")
        assert {notice.channel for notice in worker.notifies(timeout=0.2)} == {events.CHANNEL}
        post.subscribe("https://a.example/")
        list(worker.notifies(timeout=0.2))
        post.house.publish("order-sync", "https://2.example/")
        notified = {notice.channel for notice in worker.notifies(timeout=0.2)}
        assert notified == {events.CHANNEL, delivery_queue.CHANNEL}


# Claims


def test_a_claimed_delivery_is_due_again_when_its_lease_expires(house: House, receiver: Receiver) -> None:
    """Under the same id."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    post.subscribe(receiver.url(), PUBLISHED)
    house.publish("a")
    room = delivery_queue.Room(10, 10, 10, {})
    lease = timedelta(seconds=60)

    def claimed() -> list[UUID]:
        with post.database.as_mirror() as tx:
            delivery_queue.fan_out(tx, clock.time)
            return [due.event_id for due in delivery_queue.claim(tx, room, lease, clock.time)]

    first = claimed()
    assert len(first) == 1
    assert claimed() == []
    clock.advance(lease)
    assert claimed() == first


def test_a_claim_takes_few_of_each_subscription_and_leaves_room_for_healthy_ones(
    house: House, receiver: Receiver
) -> None:
    post = Post(house, receiver.allow)
    busy, _ = post.subscribe(receiver.url("/busy"), PUBLISHED)
    failing = [post.subscribe(receiver.url(f"/{n}"), PUBLISHED)[0] for n in range(6)]
    for number in range(5):
        house.publish(f"w{number}")
    house.tamper("update gitstore.subscriptions set failing_since = now() where id <> %(id)s", id=busy.id)
    with post.database.as_mirror() as tx:
        delivery_queue.fan_out(tx)
        taken = delivery_queue.claim(tx, delivery_queue.Room(8, 4, 3, {}), timedelta(seconds=60))
    count = Counter(due.subscription_id for due in taken)
    assert count.pop(busy.id) == 3
    assert set(count) <= {one.id for one in failing}
    assert set(count.values()) == {1}
    assert sum(count.values()) == 4
    with post.database.as_mirror() as tx:
        more = delivery_queue.claim(tx, delivery_queue.Room(8, 0, 3, {busy.id: 2}), timedelta(seconds=60))
    assert [due.subscription_id for due in more] == [busy.id]


def test_a_late_success_ends_a_delivery(house: House, receiver: Receiver) -> None:
    """A late failure is only recorded in its history."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    post.subscribe(receiver.url(), PUBLISHED)
    house.publish("a")

    def lose_the_lease(handler: object, status: int) -> None:
        house.tamper("update gitstore.deliveries set due_at = due_at + interval '1 minute'")
        respond(status)(handler)  # type: ignore[arg-type]

    receiver.answers = lambda handler: lose_the_lease(handler, 500)
    post.send_due()
    (row,) = post.deliveries()
    assert (row["state"], row["attempts"]) == ("pending", 1)
    assert row["due_at"] == clock.time + timedelta(minutes=2)
    clock.advance(timedelta(minutes=2))
    receiver.answers = lambda handler: lose_the_lease(handler, 200)
    post.send_due()
    assert [(row["state"], row["attempts"]) for row in post.deliveries()] == [("succeeded", 2)]


def test_the_lag_is_the_age_of_the_oldest_due_delivery(post: Post, receiver: Receiver) -> None:
    """It starts with the event, and is 0 if nothing is due."""

    def lag() -> float:
        with post.database.as_mirror() as tx:
            return delivery_queue.lag(tx)

    assert lag() == 0
    post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    assert lag() > 0
    receiver.answers = respond(500)
    post.send_due()
    assert lag() == 0
    post.house.tamper("update gitstore.deliveries set due_at = now() - interval '1 hour'")
    assert lag() == pytest.approx(3600, abs=60)
