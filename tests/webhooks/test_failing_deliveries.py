"""Failing deliveries are retried until they succeed or are given up; failing subscriptions are disabled."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta

import pytest

from sync.events import EventType
from tests.sync.conftest import House
from tests.webhooks.receiver import Receiver, receiving, respond
from tests.webhooks.subscribed_project import Clock, Post
from webhooks import delivery_log
from webhooks.attempts import DELAYS, Ending
from webhooks.subscriptions import DISABLED, SUBSCRIBABLE

PUBLISHED = EventType.PUBLISHED.value


def test_a_failed_delivery_is_retried_on_schedule_with_the_same_id(house: House, receiver: Receiver) -> None:
    """Ten attempts with the same body, each signed anew and recorded with its response."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    receiver.answers = respond(500, b"\xff\x00out of order")
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    house.publish("order-sync")
    assert [verdict.ending for verdict in post.send_due()] == [Ending.RETRY]
    for delay in DELAYS:
        clock.advance(delay - timedelta(milliseconds=1))
        assert post.send_due() == []
        clock.advance(timedelta(milliseconds=1))
        assert len(post.send_due()) == 1
    clock.advance(timedelta(days=1))
    assert post.send_due() == []
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


def test_16_kib_of_a_response_are_stored(post: Post, receiver: Receiver) -> None:
    receiver.answers = respond(200, b"x" * 100_000)
    post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("order-sync")
    post.send_due()
    with post.database.reading(post.house.claims) as tx:
        (attempt,) = delivery_log.attempts(tx, post.deliveries()[0]["id"])
    assert attempt.response == "x" * 16384


def test_a_success_makes_the_subscription_healthy(house: House, receiver: Receiver) -> None:
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    receiver.answers = respond(503)
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    house.publish("order-sync")
    post.send_due()
    assert post.state(subscription).failing_since == clock.time
    receiver.answers = None
    clock.advance(timedelta(seconds=5))
    assert [verdict.ending for verdict in post.send_due()] == [Ending.SUCCEEDED]
    assert post.state(subscription).failing_since is None


def test_retry_after_applies_to_all_deliveries_of_the_subscription(house: House, receiver: Receiver) -> None:
    """Other subscriptions do not wait."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    receiver.answers = respond(429, Retry_After="600")
    post.subscribe(receiver.url("/busy"), PUBLISHED)
    house.publish("a")
    post.send_due()
    with receiving() as other:
        post.allow = f"{receiver.allow},{other.allow}"
        post.subscribe(other.url(), PUBLISHED)
        house.publish("b")
        post.send_due()
        assert (len(receiver.got), len(other.got)) == (1, 1)
    clock.advance(timedelta(seconds=599))
    assert post.send_due() == []
    clock.advance(timedelta(seconds=1))
    receiver.answers = None
    post.send_due()
    assert len(receiver.got) == 3


def test_410_disables_the_subscription(post: Post, receiver: Receiver) -> None:
    """Its other deliveries are held, and an event reports it to other subscriptions."""
    receiver.answers = lambda handler: respond(410 if handler.path == "/gone" else 200)(handler)
    gone, _ = post.subscribe(receiver.url("/gone"), *SUBSCRIBABLE)
    watch, _ = post.subscribe(receiver.url("/watch"), DISABLED)
    post.house.publish("order-sync")
    verdicts = post.send_due()
    assert sum(verdict.disabled for verdict in verdicts) == 1
    state = post.state(gone)
    assert (state.state, state.reason) == ("disabled", "it answered 410 Gone")
    states = Counter((row["state"], row["due_at"]) for row in post.deliveries(gone.id))
    assert states == {("failed", None): 1, ("pending", None): len(verdicts) - 2}
    assert DISABLED not in {row["type"] for row in post.deliveries(gone.id)}
    (notice,) = (got for got in receiver.got if got.path == "/watch")
    data = json.loads(notice.body)["data"]
    assert (data["subscription_id"], data["reason"]) == (str(gone.id), "it answered 410 Gone")
    before = len(receiver.got)
    post.house.publish("order-sync", "https://b.example/")
    post.send_due()
    assert len(receiver.got) == before
    assert [row["action"] for row in post.rows("audit_log")].count("subscription.disabled") == 1
    assert post.state(watch).state == "active"


def test_five_days_of_failures_disable_the_subscription(house: House, receiver: Receiver) -> None:
    """An event reports it."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    receiver.answers = lambda handler: respond(500 if handler.path == "/dead" else 200)(handler)
    dead, _ = post.subscribe(receiver.url("/dead"), PUBLISHED)
    post.subscribe(receiver.url("/watch"), DISABLED)
    for day in range(5):
        house.publish("order-sync", f"https://{day}.example/")
        for _ in range(6):
            post.send_due()
            assert post.state(dead).state == "active"
            clock.advance(timedelta(hours=4))
    for _ in range(6):
        post.send_due()
        clock.advance(timedelta(hours=4))
    state = post.state(dead)
    assert (state.state, state.reason) == ("disabled", "all deliveries failed for 5 days")
    assert [json.loads(got.body)["type"] for got in receiver.got if got.path == "/watch"] == [DISABLED]


def test_two_isolated_failures_do_not_disable_a_subscription(house: House, receiver: Receiver) -> None:
    """A delivery has four attempts before it can disable its subscription."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    receiver.answers = respond(500)
    quiet, _ = post.subscribe(receiver.url(), PUBLISHED)
    house.publish("order-sync")
    post.send_due()
    for delay in DELAYS:
        clock.advance(delay)
        post.send_due()
    clock.advance(timedelta(days=30))
    house.publish("order-sync", "https://b.example/")
    for delay in DELAYS[:3]:
        post.send_due()
        assert post.state(quiet).state == "active"
        clock.advance(delay)
    post.send_due()
    assert post.state(quiet).state == "disabled"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://10.0.0.1/"])
def test_a_refused_address_is_retried_like_any_failure(post: Post, url: str) -> None:
    """The attempt has the reason; the name may be corrected."""
    post.subscribe(url, PUBLISHED)
    post.house.publish("order-sync")
    (verdict,) = post.send_due()
    assert verdict.ending is Ending.RETRY
    assert "not a public address" in (verdict.error or "")
