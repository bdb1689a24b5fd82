"""Who syncs which source when: leases, bells, polls, and the loop of the worker."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString

import pytest

from tests.helpers import until
from tests.sync.conftest import House
from tests.webhooks.followed_project import SECRET, Following, versions
from tests.webhooks.test_inbound import signed
from tests.webhooks.upstream import Upstream, upstream_in
from webhooks import receipts
from webhooks.forges import Forge
from webhooks.source_loop import SyncLoop
from webhooks.source_sync import StoppingError
from webhooks.sources import Direction


@pytest.fixture
def following(house: House, upstream: Upstream) -> Following:
    return Following(house, upstream.url)


def run(following: Following, query: LiteralString) -> None:
    with following.database.as_owner() as tx:
        tx.run(query)


def ring(following: Following, delivery: str) -> None:
    """The webhook of the upstream's forge."""
    body = json.dumps({"ref": "refs/tags/order-sync/v1", "ref_type": "tag"}).encode()
    headers, secret = signed(Forge.GITHUB, body, "create", delivery)
    assert secret == SECRET
    receipts.take(following.database, following.sealer, following.bell(), headers, body, datetime.now(UTC))


@contextmanager
def dispatching(following: Following, **options: Any) -> Iterator[SyncLoop]:
    """The loop of a worker; it is gone at the end, within moments."""
    trouble: list[BaseException] = []
    stop = threading.Event()
    dispatcher = SyncLoop(following.follower, following.database, stop, trouble=trouble.append, **options)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    try:
        yield dispatcher
    finally:
        stop.set()
        dispatcher.wake()
        thread.join(10)
    assert not thread.is_alive()
    assert trouble == []


# Leases


def test_a_source_is_one_claimants_at_a_time(following: Following) -> None:
    """Until its lease ends: then the next one has it."""
    first = following.follower.claim()
    assert first is not None
    assert following.follower.claim() is None
    assert following.follower.claim(following.source.id) is None
    run(following, "update gitstore.sources set claimed_until = now(), due_at = now()")
    second = following.follower.claim()
    assert second is not None
    assert second.claim != first.claim


def test_a_delivery_that_is_being_taken_hides_no_source(following: Following) -> None:
    """One that is due already, and whose forge rings again at this very moment: nobody wakes us once more."""
    insert: LiteralString = """
        insert into gitstore.receipts (source_id, project_id, delivery, event)
        select id, project_id, 'd-1', 'push' from gitstore.sources
    """
    with following.database.as_mirror() as tx:
        tx.run(insert)
        assert following.follower.claim() is not None


def test_eight_claimants_get_each_source_once(following: Following) -> None:
    """All at the same moment."""
    with ThreadPoolExecutor(8) as pool:
        found = [claim for claim in pool.map(lambda _: following.follower.claim(), range(8)) if claim]
    assert len(found) == 1


def test_one_that_lost_its_lease_records_nothing(following: Following, upstream: Upstream) -> None:
    """What it brought is in Git and in the rows all the same; the one that has the lease tells of it."""
    upstream.version("order-sync", 1)
    late = following.follower.claim()
    assert late is not None
    run(following, "update gitstore.sources set claimed_until = now(), due_at = now()")
    assert following.follower.claim() is not None
    following.follower.sync(late)
    assert following.row().succeeded_at is None
    assert versions(following, "order-sync") == [1]


def test_a_source_that_was_rung_meanwhile_is_due_again(following: Following) -> None:
    """What the upstream got during the sync is not left to the next poll."""
    claim = following.follower.claim()
    assert claim is not None
    assert not following.due()
    ring(following, "d-1")
    following.follower.sync(claim)
    assert following.due()
    following.sync()
    assert not following.due()


def test_a_paused_source_is_not_claimed(following: Following) -> None:
    """Unless somebody names it."""
    following.change(paused=True)
    assert following.follower.claim() is None
    assert following.follower.claim(following.source.id) is not None


def test_a_source_deleted_while_it_is_synced_leaves_what_it_brought(
    following: Following, upstream: Upstream
) -> None:
    """And nobody stumbles."""
    upstream.version("order-sync", 1)
    claim = following.follower.claim()
    assert claim is not None
    run(following, "delete from gitstore.sources")
    following.follower.sync(claim)
    assert versions(following, "order-sync") == [1]


def test_a_worker_that_is_to_stop_leaves_the_rest_to_the_next(
    following: Following, upstream: Upstream
) -> None:
    """Promptly, and without counting it as a failure."""
    upstream.version("order-sync", 1)
    claim = following.follower.claim()
    assert claim is not None
    following.stop.set()
    with pytest.raises(StoppingError):
        following.follower.sync(claim)
    following.stop.clear()
    row = following.row()
    assert (row.failures, row.last_error) == (0, None)
    again = following.follower.claim()
    assert again is not None
    assert again.full_sync
    assert following.follower.sync(again).published == {"order-sync": [1]}


# The loop


def test_a_bell_is_answered_within_moments(following: Following, upstream: Upstream) -> None:
    """A tag upstream, a webhook, and the version is readable here."""
    with dispatching(following):
        until(lambda: following.row().succeeded_at, "the first sync did not happen")
        upstream.version("order-sync", 1)
        started = time.monotonic()
        ring(following, "d-1")
        until(lambda: versions(following, "order-sync") == [1], "the version did not come")
        assert time.monotonic() - started < 10


def test_a_lost_webhook_is_made_good_by_the_poll(following: Following, upstream: Upstream) -> None:
    """GitHub tells nothing of ten tags in one push."""
    following.change(poll_seconds=10)
    following.sync()
    (row,) = following.ask("select extract(epoch from due_at - succeeded_at) as wait from gitstore.sources")
    assert row["wait"] == 10
    for number in range(1, 11):
        upstream.commit("workflow.yaml", f"# {number}\n{FLOW}")
        upstream.git("tag", f"order-sync/v{number}")
    upstream.push("--tags")
    run(following, "update gitstore.sources set due_at = now() + interval '1 second'")
    with dispatching(following):
        until(lambda: versions(following, "order-sync") == list(range(1, 11)), "the poll found nothing")


def test_a_publication_here_is_pushed_without_a_poll(house: House, upstream: Upstream) -> None:
    """The event wakes the worker."""
    following = Following(house, upstream.url, direction=Direction.BOTH)
    with dispatching(following):
        until(lambda: following.row().succeeded_at, "the first sync did not happen")
        house.publish("order-sync")
        until(lambda: "refs/tags/order-sync/v1" in upstream.refs(), "the tag was not pushed")


def test_a_slow_upstream_delays_no_other(house: House, upstream: Upstream, ram_path: Path) -> None:
    """Each has a thread of its own."""
    with upstream_in(ram_path / "slow") as slow:
        slow.delay = 5.0
        following = Following(house, slow.url)
        quick = Following(house, upstream.url)
        quick.follower, quick.sealer = following.follower, following.sealer
        upstream.version("order-sync", 1)
        started = time.monotonic()
        with dispatching(following):
            until(lambda: versions(quick, "order-sync") == [1], "the quick one waited")
            assert time.monotonic() - started < slow.delay
            slow.delay = 0.0


def test_many_upstreams_that_hang_leave_room_for_the_others(
    make_house: Callable[..., House], upstream: Upstream, ram_path: Path
) -> None:
    """More of them than threads: those of one project have few, and those that are slow have their own."""
    with upstream_in(ram_path / "hanging") as hanging:
        hanging.delay = 60.0
        for slug in ("first", "second", "third"):
            house = make_house(slug)
            for number in range(3):
                Following(house, f"{hanging.url}?".replace(".git?", f"-{number}.git"))
        good = Following(make_house("good"), upstream.url)
        upstream.version("order-sync", 1)
        query: LiteralString = """
            update gitstore.sources set due_at = due_at - interval '10 s' where strpos(url, '-') > 0
        """
        run(good, query)
        with dispatching(good, quick=2, slow=4, slow_seconds=0.3):
            until(lambda: versions(good, "order-sync") == [1], "it waited for those that hang")
            busy: LiteralString = """
                select count(*) as busy from gitstore.sources where claimed_until > now() group by project_id
            """
            claimed = good.ask(busy)
            assert claimed
            assert max(row["busy"] for row in claimed) <= 3
            hanging.delay = 0.0


def test_shuffled_doubled_replayed_deliveries_end_in_the_same_rows(
    make_house: Callable[..., House], upstream: Upstream
) -> None:
    """100 deliveries for 10 tags, in any order: as one sync at the end."""
    rng = random.Random(11)  # noqa: S311
    for number in range(1, 11):
        upstream.version("order-sync", number)
    calm = Following(make_house("calm"), upstream.url)
    calm.sync()
    stormy = Following(make_house("stormy"), upstream.url)
    deliveries = [f"d-{number}" for number in range(50)] * 2
    rng.shuffle(deliveries)
    with dispatching(stormy), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda delivery: ring(stormy, delivery), deliveries))
        until(
            lambda: not stormy.due() and versions(stormy, "order-sync") == list(range(1, 11)), "not all came"
        )

    def outcome(following: Following) -> list[tuple[Any, ...]]:
        rows = [
            row
            for row in following.house.rows("workflow_versions")
            if row["project_id"] == following.house.project
        ]
        return sorted((row["version_number"], row["ref_oid"], row["digest"], row["message"]) for row in rows)

    assert outcome(stormy) == outcome(calm)
    calm.house.store.close()
    stormy.house.store.close()


FLOW = """\
nodes:
  - {id: hook, type: webhook, data: {label: Hook, config: {}}}
"""
