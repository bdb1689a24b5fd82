"""What is old is forgotten: deliveries that have ended, with their attempts, and receipts."""

from __future__ import annotations

from datetime import timedelta
from typing import LiteralString

import pytest

from gitstore.errors import GitstoreError
from tests.sync.conftest import House
from tests.webhooks.followed_project import Following
from tests.webhooks.receiver import Receiver
from tests.webhooks.subscribed_project import Post
from tests.webhooks.test_sender import happen
from tests.webhooks.test_source_loop import ring
from webhooks import delivery_log, subscriptions
from webhooks.retention import Pruned, prune

MONTH = timedelta(days=30)


def run(post: Post | Following, query: LiteralString) -> None:
    with post.database.as_owner() as tx:
        tx.run(query)


def age(post: Post) -> None:
    """Let every delivery be 31 days older."""
    query: LiteralString = """
        update gitstore.deliveries set created_at = created_at - interval '31 days',
            ended_at = ended_at - interval '31 days'
    """
    run(post, query)


def test_what_has_ended_is_forgotten_with_its_attempts(post: Post, receiver: Receiver) -> None:
    """In slices, until nothing is left; what is younger stays, and so does the event."""
    post.subscribe(receiver.url())
    happen(post.house, 7)
    post.once()
    age(post)
    happen(post.house, 2)
    post.once()
    assert prune(post.database, MONTH, slice_=3) == Pruned(deliveries=7, receipts=0, held=0)
    assert len(post.deliveries()) == 2
    assert len(post.attempts()) == 2
    assert len(post.rows("events")) >= 9
    assert not prune(post.database, MONTH)


def test_what_is_still_to_be_sent_stays_however_old(post: Post, receiver: Receiver) -> None:
    """As one that somebody wants to be sent again."""
    post.subscribe(receiver.url())
    happen(post.house, 1)
    post.once()
    age(post)
    (row,) = post.deliveries()
    with post.database.as_user(post.house.claims) as tx:
        assert delivery_log.redeliver(tx, post.house.project, row["id"])
    assert not prune(post.database, MONTH)
    assert [row["state"] for row in post.deliveries()] == ["pending"]


def test_what_is_held_for_ever_ends(post: Post, receiver: Receiver) -> None:
    """What waits for a subscription that stays paused does not grow without bound."""
    made, _ = post.subscribe(receiver.url())
    with post.database.as_user(post.house.claims) as tx:
        assert subscriptions.change(tx, post.house.project, made.id, state="paused")
    happen(post.house, 2)
    post.once()
    age(post)
    assert prune(post.database, MONTH) == Pruned(deliveries=0, receipts=0, held=2)
    (row, _) = post.deliveries()
    assert (row["state"], row["last_error"]) == (
        "failed", "it was held for 30 days, as its subscription is paused",
    )  # fmt: skip
    assert receiver.got == []


def test_nobody_forgets_what_ended_today(post: Post, receiver: Receiver) -> None:
    """Not the worker by a wrong setting, and not the tables' owner by mistake."""
    post.subscribe(receiver.url())
    happen(post.house, 1)
    post.once()
    assert not prune(post.database, timedelta(0))
    with pytest.raises(GitstoreError), post.database.as_owner() as tx:
        tx.run("delete from gitstore.delivery_attempts")
    assert len(post.attempts()) == 1


def test_a_worker_that_is_to_stop_leaves_the_rest(post: Post, receiver: Receiver) -> None:
    """After the slice that it is at."""
    post.subscribe(receiver.url())
    happen(post.house, 6)
    post.once()
    age(post)
    looks = iter([False, False, False, True, True, True])
    assert prune(post.database, MONTH, lambda: next(looks), slice_=2).deliveries == 4


def test_old_receipts_are_forgotten(house: House) -> None:
    """The others stay: a replay of those does nothing."""
    following = Following(house, "http://127.0.0.1:1/team.git")
    ring(following, "d-1")
    ring(following, "d-2")
    run(
        following,
        "update gitstore.receipts set received_at = now() - interval '31 days' where delivery = 'd-1'",
    )
    assert prune(house.database, MONTH) == Pruned(deliveries=0, receipts=1, held=0)
    assert [row["delivery"] for row in following.ask("select delivery from gitstore.receipts")] == ["d-2"]
