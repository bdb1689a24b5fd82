"""The courier: nobody waits for somebody else's subscriber, and no kill loses or renames anything."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from sync import events
from sync.events import EventType
from tests.helpers import until
from tests.sync.conftest import House
from tests.webhooks.receiver import (
    Handler,
    Receiver,
    drip,
    flood,
    free_port,
    hang,
    receiving,
    say,
)
from tests.webhooks.subscribed_project import Post
from webhooks.secrets import Sealer, new_key

ROOT = Path(__file__).parents[2]
PUBLISHED = EventType.PUBLISHED.value


def happen(house: House, count: int) -> set[str]:
    """Events, as if so many versions had been published; their ids."""
    ids = [uuid4() for _ in range(count)]
    with house.database.as_mirror() as tx:
        events.insert(
            tx,
            [
                {
                    "id": one,
                    "project_id": house.project,
                    "workflow_id": uuid4(),
                    "type": PUBLISHED,
                    "created_at": "2026-01-01T00:00:00Z",
                    "data": {"number": number},
                }
                for number, one in enumerate(ids)
            ],
        )
    return {str(one) for one in ids}


def test_what_is_published_arrives_by_itself(house: House, receiver: Receiver) -> None:
    """The courier is woken; it need not look."""
    post = Post(house, receiver.allow)
    post.subscribe(receiver.url(), PUBLISHED)
    with post.courier(threads=2):
        for number in range(3):
            house.publish("order-sync", f"https://{number}.example/")
            receiver.wait(number + 1, seconds=5)
    assert post.troubles == []


def rebinding() -> Callable[[str, int], Sequence[str]]:
    """A name that is public when somebody checks it, and loopback the next time."""
    asked = []

    def resolve(_host: str, _port: int) -> list[str]:
        asked.append(1)
        return ["127.0.0.1"] if len(asked) % 2 == 0 else ["192.0.2.1"]

    return resolve


@pytest.mark.parametrize("kind", ["hang", "drip", "flood", "redirect", "rebind"])
def test_one_bad_subscriber_delays_nobody_else(house: House, kind: str) -> None:
    """It hangs, drips, sends a gigabyte, redirects to the metadata service, resolves to loopback: with 30
    deliveries due to it, the others' arrive as if it were not there, and nothing internal is reached."""
    answers: dict[str, Callable[[Handler], None]] = {
        "hang": hang,
        "drip": drip,
        "flood": flood,
        "redirect": say(302, Location="http://169.254.169.254/latest/meta-data/"),
    }
    with receiving(answers.get(kind)) as bad, receiving() as good:
        post = Post(house, f"{bad.allow},{good.allow}", resolve=rebinding())
        url = f"http://rebind.example:{bad.port}/" if kind == "rebind" else bad.url()
        troublesome, _ = post.subscribe(url, PUBLISHED)
        happen(house, 30)
        with post.courier(seconds=3.0):
            time.sleep(0.5)
            post.subscribe(good.url(), PUBLISHED)
            for number in range(5):
                started = time.monotonic()
                ids = happen(house, 1)
                got = good.wait(number + 1, seconds=10)
                assert ids == {got[-1].id}
                assert got[-1].at - started < 1.0
        statuses = {status for url, status in post.attempts() if url != good.url()}
        if kind == "rebind":
            assert bad.got == []
        if kind == "redirect":
            assert statuses == {302}
        assert post.state(troublesome).state == "active"
    assert post.troubles == []


def test_many_bad_subscribers_leave_room_for_the_good(house: House) -> None:
    """More of them than there are threads, once it is known how they are."""
    with receiving(hang) as bad, receiving() as good:
        post = Post(house, f"{bad.allow},{good.allow}")
        for number in range(12):
            post.subscribe(bad.url(f"/{number}"), PUBLISHED)
        happen(house, 5)
        house.tamper("update gitstore.subscriptions set failing_since = now()")
        with post.courier(threads=8, seconds=8.0):
            until(lambda: len(bad.got) >= 4)
            post.subscribe(good.url(), PUBLISHED)
            started = time.monotonic()
            happen(house, 1)
            assert good.wait(1)[0].at - started < 1.0
            assert len(bad.got) == 4


def test_it_ends_at_once_though_a_subscriber_hangs(house: House) -> None:
    """What was under way is sent again by another, when its lease is over."""
    with receiving(hang) as bad:
        post = Post(house, bad.allow)
        post.subscribe(bad.url(), PUBLISHED)
        with post.courier(seconds=20.0):
            happen(house, 1)
            bad.wait(1)
            started = time.monotonic()
        assert time.monotonic() - started < 6
        (row,) = post.rows("deliveries")
        assert (row["state"], row["attempts"]) == ("pending", 0)


def test_it_waits_for_a_database_that_is_away(house: House, receiver: Receiver) -> None:
    """It tells so once, and goes on when it is back."""
    post = Post(house, receiver.allow)
    post.subscribe(receiver.url(), PUBLISHED)
    with post.courier(threads=2):
        happen(house, 1)
        receiver.wait(1)
        house.database.close()  # its connections are gone; it opens others
        happen(house, 1)
        receiver.wait(2)


SENDER = """
import sys, threading
from datetime import timedelta
from sync.db import Database
from webhooks.addresses import Allowed
from webhooks.sender import DeliveryLoop, Means
from webhooks.egress import Egress
from webhooks.secrets import Sealer
conninfo, allow, key = sys.argv[1:]
means = Means(Database(conninfo, max_connections=4), Egress(Allowed.parse(allow)), Sealer([key]))
DeliveryLoop(means, threading.Event(), threads=4, lease=timedelta(seconds=1)).run()
"""


@pytest.mark.parametrize(
    "kills", [pytest.param(4, id="4"), pytest.param(100, id="100", marks=pytest.mark.soak)]
)
@pytest.mark.timeout(1200)
def test_a_sender_that_is_killed_loses_nothing(house: House, receiver: Receiver, kills: int) -> None:
    """Killed in the middle of deliveries, again and again: each event arrives, under its own id, whole."""
    dice = random.Random(kills)  # noqa: S311
    receiver.answers = take_a_moment
    post = Post(house, receiver.allow)
    key = new_key()
    post.sealer = Sealer([key])
    _, secret = post.subscribe(receiver.url(), PUBLISHED)
    wanted: set[str] = set()
    checked = 0
    command = [sys.executable, "-c", SENDER, post.database.conninfo, receiver.allow, key]
    with ExitStack() as stack:
        for _ in range(kills):
            wanted |= happen(house, 10)
            before = len(receiver.got)
            child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
            stack.callback(end, child)
            receiver.wait(before + 1, seconds=60)
            time.sleep(dice.uniform(0, 0.1))
            child.send_signal(signal.SIGKILL)
            child.wait()
            for got in receiver.got[checked:]:
                got.verified(secret)  # now: a signature is good for five minutes
                checked += 1
        child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        stack.callback(end, child)
        until(lambda: {row["state"] for row in post.rows("deliveries")} == {"succeeded"}, seconds=120)
    bodies: dict[str, set[bytes]] = {}
    for got in receiver.got:
        bodies.setdefault(got.id, set()).add(got.body)
    assert set(bodies) == wanted
    assert all(len(same) == 1 for same in bodies.values())
    assert len(post.rows("deliveries")) == len(wanted)


def take_a_moment(handler: Handler) -> None:
    time.sleep(0.02)
    say(200)(handler)


def end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def test_the_next_attempt_is_made_in_its_time(house: House) -> None:
    """Nobody has to wake the courier."""
    port = free_port()
    post = Post(house, f"127.0.0.1:{port}")
    post.subscribe(f"http://127.0.0.1:{port}/", PUBLISHED)
    with post.courier(threads=2):
        happen(house, 1)
        until(lambda: bool(post.told))
        house.tamper("update gitstore.deliveries set due_at = now() + interval '1 second'")
        until(lambda: len(post.told) >= 2, seconds=15)
    assert {told.error for told in post.told} == {"the connection was refused"}
