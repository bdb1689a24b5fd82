"""Deliveries: what happens is told to whom it concerns, once, and claimed by one sender at a time."""

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
from sync import events
from sync.events import EventType
from tests.sync.conftest import House
from tests.webhooks.receiver import Receiver, say
from tests.webhooks.subscribed_project import Clock, Post
from webhooks import delivery_queue, payload, sources
from webhooks.retry import Ending

PUBLISHED = EventType.PUBLISHED.value


def test_a_publication_is_told_signed_and_in_the_standard_s_shape(post: Post, receiver: Receiver) -> None:
    """The reference library verifies it; the event's id is its id."""
    subscription, secret = post.subscribe(receiver.url("/hook?x=1"), PUBLISHED)
    post.house.publish("order-sync")
    (told,) = post.once()
    assert (told.ending, told.status, told.attempt) == (Ending.SUCCEEDED, 200, 1)
    (got,) = receiver.got
    message = got.verified(secret)
    (event,) = (row for row in post.rows("events") if row["type"] == PUBLISHED)
    assert set(message) == {"type", "timestamp", "data"}
    assert message["type"] == PUBLISHED
    assert message["timestamp"] == payload.timestamp(event["created_at"])
    assert message["data"] == {
        **event["data"],
        "project_id": str(post.house.project),
        "workflow_id": str(post.house.workflow_id("order-sync")),
    }
    assert got.id == str(event["id"])
    assert got.path == "/hook?x=1"
    assert got.headers["content-type"] == "application/json"
    (row,) = post.deliveries(subscription.id)
    assert (row["state"], row["attempts"], row["last_status"], row["due_at"]) == ("succeeded", 1, 200, None)


def test_each_gets_what_it_subscribed_to(post: Post, receiver: Receiver) -> None:
    """By type; and nothing of before it subscribed, nor of another project."""
    post.house.publish("early")
    post.subscribe(receiver.url("/all"))
    post.subscribe(receiver.url("/published"), PUBLISHED)
    post.house.publish("order-sync")
    post.once()
    seen = Counter((got.path, json.loads(got.body)["type"]) for got in receiver.got)
    assert seen == {
        ("/all", PUBLISHED): 1,
        ("/all", EventType.DRAFT_UPDATED.value): 1,
        ("/all", EventType.CURRENT_CHANGED.value): 1,
        ("/published", PUBLISHED): 1,
    }
    assert {json.loads(got.body)["data"]["workflow"] for got in receiver.got} == {"order-sync"}


def test_another_project_is_not_told(make_house: Callable[..., House], receiver: Receiver) -> None:
    """Its events are not even queued."""
    ours, theirs = make_house("ours"), make_house("theirs")
    post = Post(ours, receiver.allow)
    post.subscribe(receiver.url())
    theirs.publish("payroll")
    assert post.once() == []
    assert receiver.got == []
    theirs.store.close()
    ours.store.close()


def test_an_event_is_queued_in_its_own_transaction_and_taken_out_once(post: Post, receiver: Receiver) -> None:
    """Four fan out at once, two of them are undone: each event has one delivery, and none is lost."""
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


def test_without_a_subscription_nothing_is_queued(post: Post) -> None:
    """A project that tells nobody leaves nothing to clear away."""
    post.house.publish("order-sync")
    with post.database.as_owner() as tx:
        assert tx.value("select count(*) from gitstore.event_queue") == 0


def test_engines_are_notified_of_the_event_s_id_when_it_is_committed(post: Post) -> None:
    """LISTEN gitstore_events: by whatever way the event came."""
    with psycopg.connect(post.database.conninfo, autocommit=True) as engine:
        engine.execute("listen gitstore_events")
        post.house.publish("order-sync")
        post.house.publish("order-sync")  # the same content: nothing happens
        told = [notice.payload for notice in engine.notifies(timeout=1)]
    assert sorted(told) == sorted(str(row["id"]) for row in post.rows("events"))
    assert events.CHANNEL == "gitstore_events"


def test_the_worker_is_woken_only_where_somebody_is_to_be_told(post: Post) -> None:
    """Most projects tell nobody, and a worker that looks at each save costs as much as the save."""
    channels = (events.CHANNEL, delivery_queue.CHANNEL, sources.CHANNEL)
    with psycopg.connect(post.database.conninfo, autocommit=True) as worker:
        for channel in channels:
            worker.execute(f"listen {channel}")
        post.house.publish("order-sync")
        assert {notice.channel for notice in worker.notifies(timeout=0.2)} == {events.CHANNEL}
        post.subscribe("https://a.example/")
        list(worker.notifies(timeout=0.2))
        post.house.publish("order-sync", "https://2.example/")
        told = {notice.channel for notice in worker.notifies(timeout=0.2)}
        assert told == {events.CHANNEL, delivery_queue.CHANNEL}


# Claims


def test_what_is_claimed_is_nobody_else_s_until_the_lease_ends(house: House, receiver: Receiver) -> None:
    """Then it is due again, under the same id: its worker was killed, or took too long."""
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
    clock.pass_(lease)
    assert claimed() == first


def test_a_claim_takes_few_of_each_and_keeps_room_for_those_that_are_well(
    house: House, receiver: Receiver
) -> None:
    """However much is due to one, or to those that failed before."""
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


def test_a_success_that_comes_late_is_the_end_all_the_same(house: House, receiver: Receiver) -> None:
    """A failure that comes late changes nothing but the history."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    post.subscribe(receiver.url(), PUBLISHED)
    house.publish("a")

    def lose_the_lease(handler: object, status: int) -> None:
        house.tamper("update gitstore.deliveries set due_at = due_at + interval '1 minute'")
        say(status)(handler)  # type: ignore[arg-type]

    receiver.answers = lambda handler: lose_the_lease(handler, 500)
    post.once()
    (row,) = post.deliveries()
    assert (row["state"], row["attempts"]) == ("pending", 1)
    assert row["due_at"] == clock.time + timedelta(minutes=2)
    clock.pass_(timedelta(minutes=2))
    receiver.answers = lambda handler: lose_the_lease(handler, 200)
    post.once()
    assert [(row["state"], row["attempts"]) for row in post.deliveries()] == [("succeeded", 2)]


def test_the_lag_is_that_of_the_oldest_that_is_due(post: Post, receiver: Receiver) -> None:
    """From the event on; none where nothing is due, or only later."""

    def lag() -> float:
        with post.database.as_mirror() as tx:
            return delivery_queue.lag(tx)

    assert lag() == 0
    post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    assert lag() > 0
    receiver.answers = say(500)
    post.once()
    assert lag() == 0
    post.house.tamper("update gitstore.deliveries set due_at = now() - interval '1 hour'")
    assert lag() == pytest.approx(3600, abs=60)
