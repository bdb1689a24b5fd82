"""Crashed work is retried alone and given up; failed or released work is not. Heartbeats of the loops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from sync.db import Database
from tests.helpers import until
from tests.sync.conftest import House
from tests.webhooks.followed_project import Following
from tests.webhooks.receiver import Receiver, hang, receiving
from tests.webhooks.subscribed_project import Post
from tests.webhooks.test_sender import PUBLISHED, insert_events
from tests.webhooks.upstream import Upstream
from webhooks import delivery_log, delivery_queue, lease_loop, source_queue, sources
from webhooks.delivery_queue import Due
from webhooks.lease_loop import MOST_CRASHES, WORKER_ENDED, LeaseLoop
from webhooks.sender import DeliveryLoop
from webhooks.source_sync import SyncLoop

pytestmark = pytest.mark.slow

# Sources


@pytest.fixture
def following(house: House, upstream: Upstream) -> Following:
    return Following(house, upstream.url)


def expire_lease(following: Following) -> None:
    """Expire the lease, as a minute after its worker was killed."""
    with following.database.as_owner() as tx:
        tx.run("update gitstore.sources set claimed_until = now() where claim is not null")


def end_pause(following: Following) -> None:
    with following.database.as_owner() as tx:
        tx.run("update gitstore.sources set due_at = now()")


def claim_and_crash(following: Following) -> None:
    claim = following.syncs.claim()
    assert claim is not None
    expire_lease(following)
    following.syncs.crash_expired()


def test_a_source_is_given_up_after_three_crashes(following: Following) -> None:
    """The reason is stored and logged."""
    for count in range(1, MOST_CRASHES + 1):
        end_pause(following)
        claim_and_crash(following)
        assert following.row().failures == count
    row = following.row()
    assert row.state == "poison"
    assert row.last_error is not None
    assert "was killed or stopped responding" in row.last_error
    assert "given up after 3 crashes in a row: sync it, or change it, to try again" in row.last_error
    end_pause(following)
    assert following.syncs.claim() is None
    assert [event for event, _ in following.logged] == ["sync_crashed", "sync_crashed", "source_poisoned"]
    with following.database.as_mirror() as tx:
        assert source_queue.seconds_to_next(tx) is None
        assert source_queue.lag(tx) == 0


def test_the_second_retry_follows_a_minute_later(following: Following) -> None:
    """The first follows the end of the lease."""
    claim_and_crash(following)
    assert following.due()
    claim_and_crash(following)
    assert not following.due()


@pytest.mark.parametrize("way", ["ask", "change", "by hand"])
def test_an_owner_revives_a_poisoned_source(following: Following, upstream: Upstream, way: str) -> None:
    """By requesting a sync, by a change, or at the terminal; it may crash three more times."""
    for _ in range(MOST_CRASHES):
        end_pause(following)
        claim_and_crash(following)
    upstream.version("order-sync", 1)
    if way == "ask":
        with following.database.as_user(following.house.claims) as tx:
            assert sources.request_sync(tx, following.house.project, following.source.id)
    elif way == "change":
        following.change(poll_seconds=60)
    else:
        assert following.sync().published == {"order-sync": [1]}
        assert following.row().state == "ok"
        return
    assert following.row().state == "failing"
    claim_and_crash(following)
    assert following.row().state == "failing"
    claim = following.syncs.claim()
    assert claim is not None
    assert following.syncs.sync(claim).published == {"order-sync": [1]}
    assert following.row().state == "ok"


def test_a_recorded_failure_of_a_source_resets_its_crashes(following: Following, upstream: Upstream) -> None:
    """A status 500 of the upstream is not a crash."""
    upstream.broken = 500
    for _ in range(3):
        for _ in range(MOST_CRASHES - 1):
            end_pause(following)
            claim_and_crash(following)
        following.sync()
    assert following.row().state == "failing"


def test_a_crash_of_the_child_is_recorded_once(following: Following) -> None:
    """With its own reason; not again when the lease expires, nor by a worker that lost the lease."""
    claim = following.syncs.claim()
    assert claim is not None
    following.syncs.crash(claim, "the sync needed more than 1024 MiB of memory")
    following.syncs.crash(claim, "the sync needed more than 1024 MiB of memory")
    row = following.row()
    assert (row.failures, row.last_error) == (1, "the sync needed more than 1024 MiB of memory")
    expire_lease(following)
    following.syncs.crash_expired()
    assert following.row().failures == 1


def test_a_released_source_has_not_crashed(following: Following) -> None:
    claim = following.syncs.claim()
    assert claim is not None
    following.syncs.release(claim)
    expire_lease(following)
    following.syncs.crash_expired()
    assert following.row().failures == 0


# Deliveries


@pytest.fixture
def post(house: House, receiver: Receiver) -> Post:
    post = Post(house, receiver.allow)
    post.subscribe(receiver.url(), PUBLISHED)
    return post


def claim_deliveries(database: Database) -> list[Due]:
    with database.as_mirror() as tx:
        delivery_queue.fan_out(tx)
        return delivery_queue.claim(tx, delivery_queue.Room(10, 10, 10, {}), timedelta(seconds=60))


def make_deliveries_due(house: House) -> None:
    house.tamper("update gitstore.deliveries set due_at = now() where state = 'pending'")


class AloneDeliveries:
    """Records the deliveries that a loop sends alone, and the crashes that it reports."""

    def __init__(self, post: Post) -> None:
        self.post = post
        self.sent: list[UUID] = []
        self.crashed: list[tuple[UUID, int]] = []
        self.at_a_time = 0
        self.dies = False

    def send(self, item: Due) -> None:
        self.at_a_time += 1
        assert self.at_a_time == 1
        self.sent.append(item.id)
        if self.dies:
            with self.post.database.as_mirror() as tx:
                delivery_queue.crash(tx, item, "the attempt was ended by the signal SIGKILL")
        else:
            with self.post.database.as_mirror() as tx:
                tx.run("update gitstore.deliveries set state = 'succeeded', due_at = null, ended_at = now(), "
                       "crashes = 0, claimed = false where id = %(id)s", id=item.id)  # fmt: skip
        time.sleep(0.02)
        self.at_a_time -= 1

    @contextmanager
    def delivering(self) -> Iterator[DeliveryLoop]:
        loop = DeliveryLoop(
            self.post.sender(),
            send_alone=self.send,
            on_crash=lambda item, count, _reason: self.crashed.append((item.id, count)),
            threads=4,
        )
        with loop.running():
            yield loop


def test_crashed_deliveries_are_sent_one_by_one(house: House, post: Post, receiver: Receiver) -> None:
    """Meanwhile, new ones are sent as usual."""
    insert_events(house, 5)
    lost = {item.id for item in claim_deliveries(house.database)}
    assert len(lost) == 5
    make_deliveries_due(house)
    new = insert_events(house, 5)
    alone = AloneDeliveries(post)
    with alone.delivering():
        until(lambda: len(alone.sent) == 5 and len(receiver.got) == 5)
    assert set(alone.sent) == lost
    assert {got.id for got in receiver.got} == new
    assert {count for _, count in alone.crashed} == {1}
    assert post.errors == []


def test_a_delivery_is_given_up_after_three_crashes(house: House, post: Post) -> None:
    """With the reason, until an owner redelivers it."""
    insert_events(house, 1)
    claim_deliveries(house.database)
    alone = AloneDeliveries(post)
    alone.dies = True
    with alone.delivering() as loop:
        for _ in range(MOST_CRASHES):
            make_deliveries_due(house)
            loop.wake()
            time.sleep(0.2)
            until(lambda: not any(row["claimed"] for row in post.rows("deliveries")))
        until(lambda: [row["state"] for row in post.rows("deliveries")] == ["poison"])
    (row,) = post.rows("deliveries")
    assert row["last_error"] == (
        "the attempt was ended by the signal SIGKILL; given up after 3 crashes in a row: "
        "redeliver it to try again"
    )
    assert (row["due_at"], row["crashes"]) == (None, 3)
    assert len(alone.sent) == 2
    with house.database.as_user(house.claims) as tx:
        again = delivery_log.redeliver(tx, house.project, row["id"])
    assert again is not None
    assert again.state == "pending"
    assert [verdict.ending for verdict in post.send_due()] == ["succeeded"]


def test_a_failed_attempt_resets_the_crashes_of_a_delivery(house: House) -> None:
    """It is then sent among the others again."""
    post = Post(house, "127.0.0.1:1")
    post.subscribe("http://127.0.0.1:1/", PUBLISHED)
    insert_events(house, 1)
    claim_deliveries(house.database)
    make_deliveries_due(house)
    (lost,) = claim_deliveries(house.database)
    assert lost.crashed
    with house.database.as_mirror() as tx:
        assert delivery_queue.crash(tx, lost, WORKER_ENDED) == 1
        assert delivery_queue.crash(tx, lost, WORKER_ENDED) is None
    assert claim_deliveries(house.database) == []
    with post.delivering(threads=1):
        until(lambda: bool(post.verdicts))
    (row,) = post.rows("deliveries")
    assert (row["state"], row["crashes"], row["claimed"]) == ("pending", 0, False)


def test_a_stopped_loop_has_not_crashed(house: House) -> None:
    """The next worker sends its unfinished deliveries among the others."""
    with receiving(hang) as bad:
        post = Post(house, bad.allow)
        post.subscribe(bad.url(), PUBLISHED)
        insert_events(house, 3)
        with post.delivering(threads=2, seconds=20.0):
            bad.wait(1)
        assert not any(row["claimed"] for row in post.rows("deliveries"))
        make_deliveries_due(house)
        assert [item.crashed for item in claim_deliveries(house.database)] == [False] * 3


# Heartbeats


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_loop, "BEAT_SECONDS", 0.02)


def loop_of(kind: str, following: Following, beat: Callable[[], None]) -> LeaseLoop[Any]:
    if kind == "sync":
        return SyncLoop(following.syncs, beat=beat)
    return DeliveryLoop(Post(following.house, "127.0.0.1:1").sender(), threads=2, beat=beat)


@pytest.mark.parametrize("kind", ["sync", "delivery"])
@pytest.mark.usefixtures("quick_beats")
def test_an_idle_loop_beats_and_a_blocked_loop_does_not(following: Following, kind: str) -> None:
    """The loop itself beats: a lock that is never released stops it."""
    beats: list[float] = []
    loop = loop_of(kind, following, lambda: beats.append(time.monotonic()))
    with loop.running():
        until(lambda: len(beats) > 20)
        idle = len(beats)
        until(lambda: len(beats) > idle + 5)
        with loop._lock:
            loop.wake()
            time.sleep(0.5)
            stopped = len(beats)
            time.sleep(0.3)
            assert len(beats) == stopped
        until(lambda: len(beats) > stopped)


@pytest.mark.usefixtures("quick_beats")
def test_a_delivery_loop_with_a_stuck_thread_does_not_beat(
    house: House, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    """An attempt exceeds all limits, although the loop itself continues."""
    monkeypatch.setattr("webhooks.sender._STUCK_SECONDS", 0.2)
    receiver.answers = hang
    post = Post(house, receiver.allow)
    post.subscribe(receiver.url(), PUBLISHED)
    insert_events(house, 1)
    beats: list[float] = []
    with post.delivering(threads=1, beat=lambda: beats.append(time.monotonic())):
        receiver.wait(1)
        time.sleep(0.3)
        stopped = len(beats)
        time.sleep(0.2)
        assert len(beats) == stopped
