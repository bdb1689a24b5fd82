"""Scheduling of sources: leases, webhooks, polls, and the sync loop."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString

import pytest

from sync import notifications, projects
from tests.helpers import until
from tests.sync.conftest import House
from tests.webhooks.followed_project import SECRET, Following, versions
from tests.webhooks.test_forges import signed
from tests.webhooks.upstream import Upstream, upstream_in
from webhooks import source_queue
from webhooks.forges import Forge
from webhooks.housekeeping import gauges
from webhooks.source_sync import StoppingError, SyncLoop
from webhooks.sources import Direction


@pytest.fixture
def following(house: House, upstream: Upstream) -> Following:
    return Following(house, upstream.url)


def run(following: Following, query: LiteralString) -> None:
    with following.database.as_owner() as tx:
        tx.run(query)


def receive_webhook(following: Following, delivery: str) -> None:
    """Receive a webhook of the upstream's forge."""
    body = json.dumps({"ref": "refs/tags/order-sync/v1", "ref_type": "tag"}).encode()
    headers, secret = signed(Forge.GITHUB, body, "create", delivery)
    assert secret == SECRET
    target, now = following.hook_target(), datetime.now(UTC)
    source_queue.accept(following.database, following.sealer, target, headers, body, now)


@contextmanager
def syncing(following: Following, **options: Any) -> Iterator[SyncLoop]:
    """Run the sync loop until the block ends; it stops promptly, without errors."""
    errors: list[BaseException] = []
    loop = SyncLoop(following.syncs, report=errors.append, **options)
    with ExitStack() as stack:
        stack.enter_context(loop.running())
        yield loop
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 10
    assert errors == []


# Leases


def test_a_source_has_one_lease_at_a_time(following: Following) -> None:
    first = following.syncs.claim()
    assert first is not None
    assert following.syncs.claim() is None
    assert following.syncs.claim(following.source.id) is None
    run(following, "update gitstore.sources set claimed_until = now(), due_at = now()")
    second = following.syncs.claim()
    assert second is not None
    assert second.claim != first.claim


def test_a_source_can_be_claimed_while_a_receipt_is_inserted(following: Following) -> None:
    """A skipped source would not cause another notification."""
    insert: LiteralString = """
        insert into gitstore.receipts (source_id, project_id, delivery, event)
        select id, project_id, 'd-1', 'push' from gitstore.sources
    """
    with following.database.as_mirror() as tx:
        tx.run(insert)
        assert following.syncs.claim() is not None


def test_concurrent_claims_get_a_source_once(following: Following) -> None:
    with ThreadPoolExecutor(8) as pool:
        claims = [claim for claim in pool.map(lambda _: following.syncs.claim(), range(8)) if claim]
    assert len(claims) == 1


def test_a_sync_without_its_lease_records_no_result(following: Following, upstream: Upstream) -> None:
    """Its imported versions are kept."""
    upstream.version("order-sync", 1)
    late = following.syncs.claim()
    assert late is not None
    run(following, "update gitstore.sources set claimed_until = now(), due_at = now()")
    assert following.syncs.claim() is not None
    following.syncs.sync(late)
    assert following.row().succeeded_at is None
    assert versions(following, "order-sync") == [1]


def test_a_webhook_during_a_sync_makes_the_source_due_again(following: Following) -> None:
    claim = following.syncs.claim()
    assert claim is not None
    assert not following.due()
    receive_webhook(following, "d-1")
    following.syncs.sync(claim)
    assert following.due()
    following.sync()
    assert not following.due()


def test_a_paused_source_is_claimed_only_by_its_id(following: Following) -> None:
    following.change(paused=True)
    assert following.syncs.claim() is None
    assert following.syncs.claim(following.source.id) is not None


def test_the_sources_of_an_archived_project_wait(following: Following) -> None:
    """They count as paused, and are late for nobody; they are due again with the project."""
    database, project = following.database, following.house.project
    with database.as_owner() as tx:
        projects.change(tx, project, archived=True)
    assert following.due()
    assert following.syncs.claim() is None
    with database.as_mirror() as tx:
        assert source_queue.lag(tx) == 0
        assert source_queue.seconds_to_next(tx) is None
        assert gauges(tx).sources["paused"] == 1
    with database.as_owner() as tx:
        projects.change(tx, project, archived=False)
    assert following.syncs.claim() is not None


def test_versions_are_kept_if_the_source_is_deleted_during_its_sync(
    following: Following, upstream: Upstream
) -> None:
    upstream.version("order-sync", 1)
    claim = following.syncs.claim()
    assert claim is not None
    run(following, "delete from gitstore.sources")
    following.syncs.sync(claim)
    assert versions(following, "order-sync") == [1]


def test_a_stopping_worker_leaves_the_source_to_the_next(following: Following, upstream: Upstream) -> None:
    """Without counting a failure."""
    upstream.version("order-sync", 1)
    claim = following.syncs.claim()
    assert claim is not None
    following.stop.set()
    with pytest.raises(StoppingError):
        following.syncs.sync(claim)
    following.stop.clear()
    row = following.row()
    assert (row.failures, row.last_error) == (0, None)
    again = following.syncs.claim()
    assert again is not None
    assert again.full_sync
    assert following.syncs.sync(again).published == {"order-sync": [1]}


# The loop


def test_a_webhook_is_followed_by_a_sync_at_once(following: Following, upstream: Upstream) -> None:
    with syncing(following):
        until(lambda: following.row().succeeded_at, "the first sync did not insert_events")
        upstream.version("order-sync", 1)
        started = time.monotonic()
        receive_webhook(following, "d-1")
        until(lambda: versions(following, "order-sync") == [1], "the version did not come")
        assert time.monotonic() - started < 10


def test_the_poll_makes_up_for_lost_webhooks(following: Following, upstream: Upstream) -> None:
    """GitHub sends none for ten tags in one push."""
    following.change(poll_seconds=10)
    following.sync()
    (row,) = following.query("select extract(epoch from due_at - succeeded_at) as wait from gitstore.sources")
    assert row["wait"] == 10
    for number in range(1, 11):
        upstream.commit("workflow.yaml", f"# {number}\n{FLOW}")
        upstream.git("tag", f"order-sync/v{number}")
    upstream.push("--tags")
    run(following, "update gitstore.sources set due_at = now() + interval '1 second'")
    with syncing(following):
        until(lambda: versions(following, "order-sync") == list(range(1, 11)), "the poll found nothing")


@pytest.mark.parametrize("shared", [False, True])
def test_a_local_publication_is_pushed_at_once(
    house: House, upstream: Upstream, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a notification, or by the poll that replaces it where connections share backends."""
    monkeypatch.setattr(notifications, "shares_backends", lambda _: shared)
    following = Following(house, upstream.url, direction=Direction.BOTH)
    with syncing(following):
        until(lambda: following.row().succeeded_at, "the first sync did not insert_events")
        house.publish("order-sync")
        until(lambda: "refs/tags/order-sync/v1" in upstream.refs(), "the tag was not pushed")


def test_a_slow_upstream_does_not_delay_another(house: House, upstream: Upstream, ram_path: Path) -> None:
    with upstream_in(ram_path / "slow") as slow:
        slow.delay = 5.0
        following = Following(house, slow.url)
        quick = Following(house, upstream.url)
        quick.syncs, quick.sealer = following.syncs, following.sealer
        upstream.version("order-sync", 1)
        started = time.monotonic()
        with syncing(following):
            until(lambda: versions(quick, "order-sync") == [1], "the quick one waited")
            assert time.monotonic() - started < slow.delay
            slow.delay = 0.0


def test_many_hanging_upstreams_leave_room_for_others(
    make_house: Callable[..., House], upstream: Upstream, ram_path: Path
) -> None:
    """The syncs of a project are limited, and slow ones have their own lane."""
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
        with syncing(good, quick=2, slow=4, slow_seconds=0.3):
            until(lambda: versions(good, "order-sync") == [1], "it waited for those that hang")
            busy: LiteralString = """
                select count(*) as busy from gitstore.sources where claimed_until > now() group by project_id
            """
            claimed = good.query(busy)
            assert claimed
            assert max(row["busy"] for row in claimed) <= 3
            hanging.delay = 0.0


def test_shuffled_and_repeated_webhooks_end_in_the_same_rows(
    make_house: Callable[..., House], upstream: Upstream
) -> None:
    """100 deliveries for 10 tags, in any order, compared with one sync."""
    rng = random.Random(11)  # noqa: S311
    for number in range(1, 11):
        upstream.version("order-sync", number)
    calm = Following(make_house("calm"), upstream.url)
    calm.sync()
    stormy = Following(make_house("stormy"), upstream.url)
    deliveries = [f"d-{number}" for number in range(50)] * 2
    rng.shuffle(deliveries)
    with syncing(stormy), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda delivery: receive_webhook(stormy, delivery), deliveries))
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
