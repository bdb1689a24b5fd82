"""Deliveries: what happens is told to whom it concerns, once or again, until it is heard or given up."""

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
from tests.webhooks.receiving import Receiver, receiving, say
from tests.webhooks.sending import Clock, Post
from webhooks import deliveries, history, payload, sources, subscriptions
from webhooks.schedule import DELAYS, Ending
from webhooks.sealing import Sealer, new_key
from webhooks.subscriptions import Subscription

PUBLISHED = EventType.PUBLISHED.value


@pytest.fixture
def post(house: House, receiver: Receiver) -> Post:
    return Post(house, receiver.allow)


def types(receiver: Receiver) -> list[str]:
    return [json.loads(got.body)["type"] for got in receiver.got]


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
            deliveries.fan_out(tx)
            if undo:
                tx.value("select 1 / 0")

    threads = [threading.Thread(target=fan_out, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with post.database.as_mirror() as tx:
        deliveries.fan_out(tx)
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
    channels = (events.CHANNEL, deliveries.CHANNEL, sources.CHANNEL)
    with psycopg.connect(post.database.conninfo, autocommit=True) as worker:
        for channel in channels:
            worker.execute(f"listen {channel}")  # type: ignore[arg-type]
        post.house.publish("order-sync")
        assert {notice.channel for notice in worker.notifies(timeout=0.2)} == {events.CHANNEL}
        post.subscribe("https://a.example/")
        list(worker.notifies(timeout=0.2))
        post.house.publish("order-sync", "https://2.example/")
        told = {notice.channel for notice in worker.notifies(timeout=0.2)}
        assert told == {events.CHANNEL, deliveries.CHANNEL}


# Failing


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
        kept = history.attempts(tx, row["id"])
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
        (attempt,) = history.attempts(tx, post.deliveries()[0]["id"])
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


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://10.0.0.1/"])
def test_an_address_that_is_refused_is_a_failure_like_any_other(post: Post, url: str) -> None:
    """It is in the attempt, in words; a name may be put right."""
    post.subscribe(url, PUBLISHED)
    post.house.publish("order-sync")
    (told,) = post.once()
    assert (told.ending, told.status) == (Ending.RETRY, None)
    assert told.error is not None
    assert "not a public address" in told.error


# What an owner does


def change(post: Post, subscription: Subscription, **changes: object) -> None:
    with post.database.as_user(post.house.claims) as tx:
        assert subscriptions.change(tx, post.house.project, subscription.id, **changes)  # type: ignore[arg-type]


def test_while_paused_deliveries_are_held(post: Post, receiver: Receiver) -> None:
    """Made active, it gets them all."""
    subscription, _ = post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    with post.database.as_mirror() as tx:
        deliveries.fan_out(tx)
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
        assert [attempt.status for attempt in history.attempts(tx, row["id"])] == [200, 500, 200]


def again(post: Post, delivery: UUID) -> None:
    with post.database.as_user(post.house.claims) as tx:
        assert history.redeliver(tx, post.house.project, delivery)


def test_a_test_goes_to_one_subscription_alone(post: Post, receiver: Receiver) -> None:
    """Even to one that is paused; it is no event, and nobody else hears of it."""
    subscription, secret = post.subscribe(receiver.url("/one"))
    post.subscribe(receiver.url("/two"))
    change(post, subscription, state="paused")
    with post.database.as_user(post.house.claims) as tx:
        made = history.test(tx, post.state(subscription))
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
        deliveries.fan_out(tx)
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
        assert history.redeliver(tx, post.house.project, row["id"]) is None


# Claims


def test_what_is_claimed_is_nobody_else_s_until_the_lease_ends(house: House, receiver: Receiver) -> None:
    """Then it is due again, under the same id: its worker was killed, or took too long."""
    clock = Clock()
    post = Post(house, receiver.allow, now=clock)
    post.subscribe(receiver.url(), PUBLISHED)
    house.publish("a")
    room = deliveries.Room(10, 10, 10, {})
    lease = timedelta(seconds=60)

    def claimed() -> list[UUID]:
        with post.database.as_mirror() as tx:
            deliveries.fan_out(tx, clock.time)
            return [due.event_id for due in deliveries.claim(tx, room, lease, clock.time)]

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
        deliveries.fan_out(tx)
        taken = deliveries.claim(tx, deliveries.Room(8, 4, 3, {}), timedelta(seconds=60))
    count = Counter(due.subscription_id for due in taken)
    assert count.pop(busy.id) == 3
    assert set(count) <= {one.id for one in failing}
    assert set(count.values()) == {1}
    assert sum(count.values()) == 4
    with post.database.as_mirror() as tx:
        more = deliveries.claim(tx, deliveries.Room(8, 0, 3, {busy.id: 2}), timedelta(seconds=60))
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
            return deliveries.lag(tx)

    assert lag() == 0
    post.subscribe(receiver.url(), PUBLISHED)
    post.house.publish("a")
    assert lag() > 0
    receiver.answers = say(500)
    post.once()
    assert lag() == 0
    post.house.tamper("update gitstore.deliveries set due_at = now() - interval '1 hour'")
    assert lag() == pytest.approx(3600, abs=60)
