"""What a worker died of is tried again alone, and given up; what it did not die of is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from tests.webhooks.test_sender import PUBLISHED, happen
from tests.webhooks.upstream import Upstream
from webhooks import crashes, delivery_log, delivery_queue, pulse, source_leases, sources
from webhooks.delivery_queue import Due
from webhooks.sender import DeliveryLoop
from webhooks.source_loop import SyncLoop

pytestmark = pytest.mark.slow

# Sources


@pytest.fixture
def following(house: House, upstream: Upstream) -> Following:
    return Following(house, upstream.url)


def let_lease_end(following: Following) -> None:
    """As where the worker that had it was killed a minute ago."""
    with following.database.as_owner() as tx:
        tx.run("update gitstore.sources set claimed_until = now() where claim is not null")


def let_pause_end(following: Following) -> None:
    with following.database.as_owner() as tx:
        tx.run("update gitstore.sources set due_at = now()")


def claim_and_die(following: Following) -> None:
    claim = following.follower.claim()
    assert claim is not None
    let_lease_end(following)
    following.follower.note_ended_leases()


def test_a_source_is_given_up_after_three_crashes(following: Following) -> None:
    """Retried at once, then after a pause; it says why, and the log does."""
    for count in range(1, crashes.MOST + 1):
        let_pause_end(following)
        claim_and_die(following)
        assert following.row().failures == count
    row = following.row()
    assert row.state == "poison"
    assert row.last_error is not None
    assert "was killed or stopped responding" in row.last_error
    assert "given up after 3 crashes in a row: sync it, or change it, to try again" in row.last_error
    let_pause_end(following)
    assert following.follower.claim() is None
    assert [event for event, _ in following.told] == ["sync_crashed", "sync_crashed", "source_poisoned"]
    with following.database.as_mirror() as tx:
        assert source_leases.seconds_to_next(tx) is None
        assert source_leases.lag(tx) == 0


def test_the_second_retry_waits(following: Following) -> None:
    """A minute; the first follows the end of the lease."""
    claim_and_die(following)
    assert following.due()
    claim_and_die(following)
    assert not following.due()


@pytest.mark.parametrize("way", ["ask", "change", "by hand"])
def test_an_owner_lets_a_poisoned_source_try_again(
    following: Following, upstream: Upstream, way: str
) -> None:
    """By a sync that is asked for, by a change, or at the terminal; with three more crashes to go."""
    for _ in range(crashes.MOST):
        let_pause_end(following)
        claim_and_die(following)
    upstream.version("order-sync", 1)
    if way == "ask":
        with following.database.as_user(following.house.claims) as tx:
            assert sources.ask(tx, following.house.project, following.source.id)
    elif way == "change":
        following.change(poll_seconds=60)
    else:
        assert following.sync().published == {"order-sync": [1]}
        assert following.row().state == "ok"
        return
    assert following.row().state == "failing"
    claim_and_die(following)
    assert following.row().state == "failing"
    claim = following.follower.claim()
    assert claim is not None
    assert following.follower.sync(claim).published == {"order-sync": [1]}
    assert following.row().state == "ok"


def test_a_recorded_failure_ends_a_run_of_crashes(following: Following, upstream: Upstream) -> None:
    """An upstream that answers 500 has ended no process."""
    upstream.broken = 500
    for _ in range(3):
        for _ in range(crashes.MOST - 1):
            let_pause_end(following)
            claim_and_die(following)
        following.sync()
    assert following.row().state == "failing"


def test_a_crash_of_the_child_is_counted_at_once(following: Following) -> None:
    """With its own reason, and not again when the lease would have ended; nor by who has lost the lease."""
    claim = following.follower.claim()
    assert claim is not None
    following.follower.record_crash(claim, "the sync needed more than 1024 MiB of memory")
    following.follower.record_crash(claim, "the sync needed more than 1024 MiB of memory")
    row = following.row()
    assert (row.failures, row.last_error) == (1, "the sync needed more than 1024 MiB of memory")
    let_lease_end(following)
    following.follower.note_ended_leases()
    assert following.row().failures == 1


def test_a_worker_that_stops_has_not_crashed(following: Following) -> None:
    """Its claim is given back."""
    claim = following.follower.claim()
    assert claim is not None
    following.follower.release(claim)
    let_lease_end(following)
    following.follower.note_ended_leases()
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


def let_deliveries_be_due(house: House) -> None:
    house.tamper("update gitstore.deliveries set due_at = now() where state = 'pending'")


class Alone:
    """What the courier sends by itself, how it goes, and which crashes it tells of."""

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
    def courier(self) -> Iterator[DeliveryLoop]:
        stop = threading.Event()
        means = replace(
            self.post.means(),
            send_alone=self.send,
            crashed=lambda item, count, _reason: self.crashed.append((item.id, count)),
        )
        courier = DeliveryLoop(means, stop, threads=4)
        thread = threading.Thread(target=courier.run)
        thread.start()
        try:
            yield courier
        finally:
            stop.set()
            courier.wake()
            thread.join()


def test_what_a_worker_died_of_is_sent_alone(house: House, post: Post, receiver: Receiver) -> None:
    """One by one, while what came since is sent as ever."""
    happen(house, 5)
    lost = {item.id for item in claim_deliveries(house.database)}
    assert len(lost) == 5
    let_deliveries_be_due(house)
    new = happen(house, 5)
    alone = Alone(post)
    with alone.courier():
        until(lambda: len(alone.sent) == 5 and len(receiver.got) == 5)
    assert set(alone.sent) == lost
    assert {got.id for got in receiver.got} == new
    assert {count for _, count in alone.crashed} == {1}
    assert post.troubles == []


def test_a_delivery_is_given_up_after_three_crashes(house: House, post: Post) -> None:
    """Sent alone it ends its process again: with the reason, until somebody sends it again."""
    happen(house, 1)
    claim_deliveries(house.database)
    alone = Alone(post)
    alone.dies = True
    with alone.courier() as courier:
        for _ in range(crashes.MOST):
            let_deliveries_be_due(house)
            courier.wake()
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
    assert [told.ending for told in post.once()] == ["succeeded"]


def test_a_failed_attempt_ends_a_run_of_crashes(house: House) -> None:
    """Its process lives: it is sent among the others again."""
    post = Post(house, "127.0.0.1:1")
    post.subscribe("http://127.0.0.1:1/", PUBLISHED)
    happen(house, 1)
    claim_deliveries(house.database)
    let_deliveries_be_due(house)
    (lost,) = claim_deliveries(house.database)
    assert lost.crashed
    with house.database.as_mirror() as tx:
        assert delivery_queue.crash(tx, lost, crashes.WORKER_ENDED) == 1
        assert delivery_queue.crash(tx, lost, crashes.WORKER_ENDED) is None
    assert claim_deliveries(house.database) == []
    with post.courier(threads=1):
        until(lambda: bool(post.told))
    (row,) = post.rows("deliveries")
    assert (row["state"], row["crashes"], row["claimed"]) == ("pending", 0, False)


def test_a_courier_that_stops_has_not_crashed(house: House) -> None:
    """What it was sending is sent again by the next, among the others."""
    with receiving(hang) as bad:
        post = Post(house, bad.allow)
        post.subscribe(bad.url(), PUBLISHED)
        happen(house, 3)
        with post.courier(threads=2, seconds=20.0):
            bad.wait(1)
        assert not any(row["claimed"] for row in post.rows("deliveries"))
        let_deliveries_be_due(house)
        assert [item.crashed for item in claim_deliveries(house.database)] == [False] * 3


# Heartbeats


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.02)


def loop_of(kind: str, following: Following, beats: list[float]) -> tuple[Any, threading.Event]:
    stop = threading.Event()

    def beat() -> None:
        beats.append(time.monotonic())

    if kind == "sync":
        return SyncLoop(following.follower, following.database, stop, beat=beat), stop
    means = Post(following.house, "127.0.0.1:1").means()
    return DeliveryLoop(means, stop, threads=2, beat=beat), stop


@pytest.mark.parametrize("kind", ["sync", "delivery"])
@pytest.mark.usefixtures("quick_beats")
def test_a_loop_beats_while_it_is_idle_and_stops_with_its_lock(following: Following, kind: str) -> None:
    """What beats is the loop itself: a lock that is never released stops it."""
    beats: list[float] = []
    loop, stop = loop_of(kind, following, beats)
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    try:
        until(lambda: len(beats) > 20)
        idle = len(beats)
        until(lambda: len(beats) > idle + 5)
        with loop._lock:
            loop.wake()
            time.sleep(0.1)
            stopped = len(beats)
            time.sleep(0.3)
            assert len(beats) == stopped
        until(lambda: len(beats) > stopped)
    finally:
        stop.set()
        loop.wake()
        thread.join()


@pytest.mark.usefixtures("quick_beats")
def test_a_courier_whose_thread_is_stuck_does_not_beat(
    house: House, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    """Beyond what an attempt may take: the loop goes on, and yet the worker is of no use."""
    monkeypatch.setattr("webhooks.sender._STUCK_SECONDS", 0.2)
    receiver.answers = hang
    post = Post(house, receiver.allow)
    post.subscribe(receiver.url(), PUBLISHED)
    happen(house, 1)
    beats: list[float] = []
    with post.courier(threads=1, beat=lambda: beats.append(time.monotonic())):
        receiver.wait(1)
        time.sleep(0.3)
        stopped = len(beats)
        time.sleep(0.2)
        assert len(beats) == stopped
