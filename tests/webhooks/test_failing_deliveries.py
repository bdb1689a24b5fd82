"""Deliveries that fail: each is tried again until it is heard or given up, and so is who never answers."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from sync.events import EventType
from tests.sync.conftest import House
from tests.webhooks.receiver import Receiver, receiving, say
from tests.webhooks.subscribed_project import Clock, Post
from webhooks import delivery_log, payload
from webhooks.retry import DELAYS, Ending

PUBLISHED = EventType.PUBLISHED.value


def test_a_failure_is_tried_again_on_schedule_under_the_same_id(house: House, receiver: Receiver) -> None:
    """Ten attempts, each kept with what was answered; each signed anew, with the same body."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    receiver.answers = say(500, b"\xff\x00out of order")
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    house.publish("order-sync")
    assert [told.ending for told in post.once()] == [Ending.RETRY]
    for delay in DELAYS:
        clock.pass_(delay - timedelta(milliseconds=1))
        assert post.once() == []
        clock.pass_(timedelta(milliseconds=1))
        assert len(post.once()) == 1
    clock.pass_(timedelta(days=1))
    assert post.once() == []
    assert len(receiver.got) == 10
    assert len({(got.id, got.body) for got in receiver.got}) == 1
    assert len({got.headers["webhook-timestamp"] for got in receiver.got}) == 10
    (row,) = post.deliveries(subscription.id)
    assert (row["state"], row["attempts"], row["due_at"]) == ("failed", 10, None)
    assert row["last_error"] == "answered 500; that was the last attempt"
    with post.database.reading(house.claims) as tx:
        kept = delivery_log.attempts(tx, row["id"])
    assert [attempt.number for attempt in kept] == list(range(1, 11))
    assert {(a.status, a.error, a.response) for a in kept[:9]} == {
        (500, "answered 500", "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}out of order")
    }


def test_of_an_answer_16_kib_are_kept(post: Post, receiver: Receiver) -> None:
    """And no more."""
    receiver.answers = say(200, b"x" * 100_000)
    post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("order-sync")
    post.once()
    with post.database.reading(post.house.claims) as tx:
        (attempt,) = delivery_log.attempts(tx, post.deliveries()[0]["id"])
    assert attempt.response == "x" * 16384


def test_a_success_ends_the_failing(house: House, receiver: Receiver) -> None:
    """The subscription is well again."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    receiver.answers = say(503)
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    house.publish("order-sync")
    post.once()
    assert post.state(subscription).failing_since == clock.time
    receiver.answers = None
    clock.pass_(timedelta(seconds=5))
    assert [told.ending for told in post.once()] == [Ending.SUCCEEDED]
    assert post.state(subscription).failing_since is None


def test_who_asks_to_be_left_alone_is(house: House, receiver: Receiver) -> None:
    """Retry-After holds for all that the subscriber would get; nobody else waits for it."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    receiver.answers = say(429, Retry_After="600")
    post.subscribe(receiver.url("/busy"), PUBLISHED)
    house.publish("a")
    post.once()
    with receiving() as other:
        post.allow = f"{receiver.allow},{other.allow}"
        post.subscribe(other.url(), PUBLISHED)
        house.publish("b")
        post.once()
        assert (len(receiver.got), len(other.got)) == (1, 1)
    clock.pass_(timedelta(seconds=599))
    assert post.once() == []
    clock.pass_(timedelta(seconds=1))
    receiver.answers = None
    post.once()
    assert len(receiver.got) == 3


def test_gone_disables_at_once(post: Post, receiver: Receiver) -> None:
    """What else was due to it fails, the others are told, and it gets nothing more."""
    receiver.answers = lambda handler: say(410 if handler.path == "/gone" else 200)(handler)
    gone, _ = post.subscribe(receiver.url("/gone"))
    watch, _ = post.subscribe(receiver.url("/watch"), payload.DISABLED)
    post.house.publish("order-sync")
    told = post.once()
    assert sum(one.disabled for one in told) == 1
    state = post.state(gone)
    assert (state.state, state.reason) == ("disabled", "it answered 410 Gone")
    assert {row["state"] for row in post.deliveries(gone.id)} == {"failed"}
    (notice,) = (got for got in receiver.got if got.path == "/watch")
    data = json.loads(notice.body)["data"]
    assert (data["subscription_id"], data["reason"]) == (str(gone.id), "it answered 410 Gone")
    before = len(receiver.got)
    post.house.publish("order-sync", "https://b.example/")
    post.once()
    assert len(receiver.got) == before
    assert [row["action"] for row in post.rows("audit_log")].count("subscription.disabled") == 1
    assert post.state(watch).state == "active"


def test_five_days_of_failure_disable(house: House, receiver: Receiver) -> None:
    """With an event that says so; one success in between, and they begin anew."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    receiver.answers = lambda handler: say(500 if handler.path == "/dead" else 200)(handler)
    dead, _ = post.subscribe(receiver.url("/dead"), PUBLISHED)
    post.subscribe(receiver.url("/watch"), payload.DISABLED)
    for day in range(5):
        house.publish("order-sync", f"https://{day}.example/")
        for _ in range(6):
            post.once()
            assert post.state(dead).state == "active"
            clock.pass_(timedelta(hours=4))
    for _ in range(6):
        post.once()
        clock.pass_(timedelta(hours=4))
    state = post.state(dead)
    assert (state.state, state.reason) == ("disabled", "nothing could be delivered for 5 days")
    assert [json.loads(got.body)["type"] for got in receiver.got if got.path == "/watch"] == [
        payload.DISABLED
    ]


def test_two_failures_with_nothing_between_are_not_five_days_of_failure(
    house: House, receiver: Receiver
) -> None:
    """A subscriber that hears little has its first four attempts before it is given up."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    receiver.answers = say(500)
    quiet, _ = post.subscribe(receiver.url(), PUBLISHED)
    house.publish("order-sync")
    post.once()
    for delay in DELAYS:
        clock.pass_(delay)
        post.once()
    clock.pass_(timedelta(days=30))
    house.publish("order-sync", "https://b.example/")
    for delay in DELAYS[:3]:
        post.once()
        assert post.state(quiet).state == "active"
        clock.pass_(delay)
    post.once()
    assert post.state(quiet).state == "disabled"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://10.0.0.1/"])
def test_an_address_that_is_refused_is_a_failure_like_any_other(post: Post, url: str) -> None:
    """It is in the attempt, in words; a name may be put right."""
    post.subscribe(url, PUBLISHED)
    post.house.publish("order-sync")
    (told,) = post.once()
    assert (told.ending, told.status) == (Ending.RETRY, None)
    assert told.error is not None
    assert "not a public address" in told.error
