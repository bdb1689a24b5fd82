"""The delivery loop: subscribers do not delay each other, and a kill loses no delivery."""

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
    respond,
)
from tests.webhooks.subscribed_project import Post
from webhooks.secrets import Sealer, new_key

ROOT = Path(__file__).parents[2]
PUBLISHED = EventType.PUBLISHED.value


def insert_events(house: House, count: int) -> set[str]:
    """Insert events as if versions had been published. Return their ids."""
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


def test_a_publication_is_delivered_at_once(house: House, receiver: Receiver) -> None:
    """A notification wakes the loop."""
    post = Post(house, receiver.allow)
    post.subscribe(receiver.url(), PUBLISHED)
    with post.delivering(threads=2):
        for number in range(3):
            house.publish("order-sync", f"https://{number}.example/")
            receiver.wait(number + 1, seconds=5)
    assert post.errors == []


def rebinding() -> Callable[[str, int], Sequence[str]]:
    """Return a resolver whose first address is public and whose second is loopback."""
    asked = []

    def resolve(_host: str, _port: int) -> list[str]:
        asked.append(1)
        return ["127.0.0.1"] if len(asked) % 2 == 0 else ["192.0.2.1"]

    return resolve


@pytest.mark.parametrize("kind", ["hang", "drip", "flood", "redirect", "rebind"])
def test_a_bad_subscriber_does_not_delay_others(house: House, kind: str) -> None:
    """It hangs, drips, floods, redirects to the metadata service or resolves to loopback, with 30 due
    deliveries."""
    answers: dict[str, Callable[[Handler], None]] = {
        "hang": hang,
        "drip": drip,
        "flood": flood,
        "redirect": respond(302, Location="http://169.254.169.254/latest/meta-data/"),
    }
    with receiving(answers.get(kind)) as bad, receiving() as good:
        post = Post(house, f"{bad.allow},{good.allow}", resolve=rebinding())
        url = f"http://rebind.example:{bad.port}/" if kind == "rebind" else bad.url()
        troublesome, _ = post.subscribe(url, PUBLISHED)
        insert_events(house, 30)
        with post.delivering(seconds=3.0):
            time.sleep(0.5)
            post.subscribe(good.url(), PUBLISHED)
            for number in range(5):
                started = time.monotonic()
                ids = insert_events(house, 1)
                got = good.wait(number + 1, seconds=10)
                assert ids == {got[-1].id}
                assert got[-1].at - started < 1.0
        statuses = {status for url, status in post.attempts() if url != good.url()}
        if kind == "rebind":
            assert bad.got == []
        if kind == "redirect":
            assert statuses == {302}
        assert post.state(troublesome).state == "active"
    assert post.errors == []


def test_many_failing_subscribers_leave_room_for_others(house: House) -> None:
    with receiving(hang) as bad, receiving() as good:
        post = Post(house, f"{bad.allow},{good.allow}")
        for number in range(12):
            post.subscribe(bad.url(f"/{number}"), PUBLISHED)
        insert_events(house, 5)
        house.tamper("update gitstore.subscriptions set failing_since = now()")
        with post.delivering(threads=8, seconds=8.0):
            until(lambda: len(bad.got) >= 4)
            post.subscribe(good.url(), PUBLISHED)
            started = time.monotonic()
            insert_events(house, 1)
            assert good.wait(1)[0].at - started < 1.0
            assert len(bad.got) == 4


def test_the_loop_ends_promptly_while_a_subscriber_hangs(house: House) -> None:
    """The delivery is sent again when its lease has expired."""
    with receiving(hang) as bad:
        post = Post(house, bad.allow)
        post.subscribe(bad.url(), PUBLISHED)
        with post.delivering(seconds=20.0):
            insert_events(house, 1)
            bad.wait(1)
            started = time.monotonic()
        assert time.monotonic() - started < 6
        (row,) = post.rows("deliveries")
        assert (row["state"], row["attempts"]) == ("pending", 0)


def test_the_loop_reconnects_to_the_database(house: House, receiver: Receiver) -> None:
    post = Post(house, receiver.allow)
    post.subscribe(receiver.url(), PUBLISHED)
    with post.delivering(threads=2):
        insert_events(house, 1)
        receiver.wait(1)
        house.database.close()  # its connections are gone; it opens others
        insert_events(house, 1)
        receiver.wait(2)


SENDER = """
import sys
from datetime import timedelta
from sync.db import Database
from webhooks.addresses import Allowed
from webhooks.sender import DeliveryLoop, Sender
from webhooks.egress import Egress
from webhooks.secrets import Sealer
conninfo, allow, key = sys.argv[1:]
sender = Sender(Database(conninfo, max_connections=4), Egress(Allowed.parse(allow)), Sealer([key]))
DeliveryLoop(sender, threads=4, lease=timedelta(seconds=1)).run()
"""


@pytest.mark.parametrize(
    "kills", [pytest.param(4, id="4"), pytest.param(100, id="100", marks=pytest.mark.soak)]
)
@pytest.mark.timeout(1200)
def test_repeated_kills_lose_no_delivery(house: House, receiver: Receiver, kills: int) -> None:
    """Each event arrives under its own id, with its whole body."""
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
            wanted |= insert_events(house, 10)
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
    respond(200)(handler)


def end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def test_a_retry_is_sent_at_its_due_time(house: House) -> None:
    """Without a notification."""
    port = free_port()
    post = Post(house, f"127.0.0.1:{port}")
    post.subscribe(f"http://127.0.0.1:{port}/", PUBLISHED)
    with post.delivering(threads=2):
        insert_events(house, 1)
        until(lambda: bool(post.verdicts))
        house.tamper("update gitstore.deliveries set due_at = now() + interval '1 second'")
        until(lambda: len(post.verdicts) >= 2, seconds=15)
    assert {verdict.error for verdict in post.verdicts} == {"the connection was refused"}
