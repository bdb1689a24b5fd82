"""Retention: old ended deliveries, with their attempts, and old receipts are deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import LiteralString

import pytest

from gitstore.errors import GitstoreError
from tests.sync.conftest import House
from tests.webhooks.followed_project import Following
from tests.webhooks.receiver import Receiver
from tests.webhooks.subscribed_project import Post
from tests.webhooks.test_sender import insert_events
from tests.webhooks.test_source_loop import receive_webhook
from webhooks import delivery_log, sources, subscriptions
from webhooks.housekeeping import Pruned, prune

MONTH = timedelta(days=30)


def run(post: Post | Following, query: LiteralString) -> None:
    with post.database.as_owner() as tx:
        tx.run(query)


def age(post: Post) -> None:
    """Make every delivery 31 days older."""
    query: LiteralString = """
        update gitstore.deliveries set created_at = created_at - interval '31 days',
            ended_at = ended_at - interval '31 days'
    """
    run(post, query)


def test_old_ended_deliveries_are_deleted_with_their_attempts(post: Post, receiver: Receiver) -> None:
    """In slices; younger ones and the events are kept."""
    post.subscribe(receiver.url())
    insert_events(post.house, 7)
    post.send_due()
    age(post)
    insert_events(post.house, 2)
    post.send_due()
    assert prune(post.database, MONTH, slice_=3) == Pruned(deliveries=7, receipts=0, held=0)
    assert len(post.deliveries()) == 2
    assert len(post.attempts()) == 2
    assert len(post.rows("events")) >= 9
    assert not prune(post.database, MONTH)


def test_a_due_delivery_is_kept_at_any_age(post: Post, receiver: Receiver) -> None:
    """For example, one that is redelivered."""
    post.subscribe(receiver.url())
    insert_events(post.house, 1)
    post.send_due()
    age(post)
    (row,) = post.deliveries()
    with post.database.as_user(post.house.claims) as tx:
        assert delivery_log.redeliver(tx, post.house.project, row["id"])
    assert not prune(post.database, MONTH)
    assert [row["state"] for row in post.deliveries()] == ["pending"]


def test_an_old_held_delivery_fails(post: Post, receiver: Receiver) -> None:
    made, _ = post.subscribe(receiver.url())
    with post.database.as_user(post.house.claims) as tx:
        assert subscriptions.change(tx, post.house.project, made.id, state="paused")
    insert_events(post.house, 2)
    post.send_due()
    age(post)
    assert prune(post.database, MONTH) == Pruned(deliveries=0, receipts=0, held=2)
    (row, _) = post.deliveries()
    assert (row["state"], row["last_error"]) == (
        "failed", "held for 30 days because its subscription is paused or disabled",
    )  # fmt: skip
    assert receiver.got == []


def test_a_delivery_that_ended_today_cannot_be_deleted(post: Post, receiver: Receiver) -> None:
    """Neither with a wrong setting nor by the tables' owner by mistake."""
    post.subscribe(receiver.url())
    insert_events(post.house, 1)
    post.send_due()
    assert not prune(post.database, timedelta(0))
    with pytest.raises(GitstoreError), post.database.as_owner() as tx:
        tx.run("delete from gitstore.delivery_attempts")
    assert len(post.attempts()) == 1


def test_pruning_stops_with_the_worker(post: Post, receiver: Receiver) -> None:
    """After the current slice."""
    post.subscribe(receiver.url())
    insert_events(post.house, 6)
    post.send_due()
    age(post)
    looks = iter([False, False, False, True, True, True])
    assert prune(post.database, MONTH, lambda: next(looks), slice_=2).deliveries == 4


def test_old_receipts_are_deleted(house: House) -> None:
    """A repetition of a younger delivery still has no effect."""
    following = Following(house, "http://127.0.0.1:1/team.git")
    receive_webhook(following, "d-1")
    receive_webhook(following, "d-2")
    run(
        following,
        "update gitstore.receipts set received_at = now() - interval '31 days' where delivery = 'd-1'",
    )
    assert prune(house.database, MONTH) == Pruned(deliveries=0, receipts=1, held=0)
    assert [row["delivery"] for row in following.query("select delivery from gitstore.receipts")] == ["d-2"]


def test_the_previous_secret_of_a_source_is_erased_after_its_rotation(house: House) -> None:
    following = Following(house, "http://127.0.0.1:9/team.git")
    with following.database.as_user(house.claims) as tx:
        for overlap in (timedelta(hours=2), timedelta(hours=1)):
            sources.replace_secret(
                tx, following.sealer, house.project, following.source.id, "a-new-secret", overlap
            )
    erased: LiteralString = "select sealed_previous_secret is null as erased from gitstore.sources"
    prune(following.database, MONTH)
    assert following.query(erased) == [{"erased": False}]
    run(following, "update gitstore.sources set previous_secret_until = now() - interval '1 second'")
    prune(following.database, MONTH)
    assert following.query(erased) == [{"erased": True}]
