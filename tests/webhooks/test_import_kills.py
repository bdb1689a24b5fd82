"""Imports that are killed at any moment: the next one completes them."""

from __future__ import annotations

import random
import time
from typing import LiteralString

import pytest

from gitstore.git.cleanup import DAY, sweep
from sync import reconcile
from sync.integrity.verify import verify
from tests.sync.conftest import House
from tests.webhooks.followed_project import Following
from tests.webhooks.sync_process import sync_in_process
from tests.webhooks.upstream import Upstream


@pytest.mark.parametrize(
    ("tags", "kills"), [(60, 2), pytest.param(1000, 60, marks=pytest.mark.soak)], ids=["short", "soak"]
)
@pytest.mark.timeout(1800)
def test_a_killed_import_is_completed_once(house: House, upstream: Upstream, tags: int, kills: int) -> None:
    """Every version is imported once, with one event, and verify finds no difference.

    Small workflows are imported together, large ones in parts.
    """
    sizes = {"few": 3, "many": tags - 13, "more": 10}
    for slug, count in sizes.items():
        upstream.many(slug, count)
    following = Following(house, upstream.url)
    dice = random.Random(tags)  # noqa: S311
    died = 0
    for _ in range(kills):
        died += sync_in_process(following, dies_at=dice.randint(1, min(tags, 130))).killed
        recover(house, following)
    assert died > 0
    assert not sync_in_process(following).killed
    recover(house, following)
    for slug, count in sizes.items():
        assert sorted(house.store.version_tags(slug)) == list(range(1, count + 1))
    assert list(verify(house.database, house.store)) == []
    published: LiteralString = """
        select count(*) as events, count(distinct (workflow_id, data ->> 'version_number')) as versions
        from gitstore.events where type = 'workflow.version.published'
    """
    assert following.query(published) == [{"events": tags, "versions": tags}]
    objects = house.store.path / "objects"
    assert [path for path in house.store.path.rglob("*.lock") if path.name != "writers.lock"] == []
    assert [*objects.glob("tmp_*"), *objects.glob("pack/tmp_*")] == []
    following.sync()
    assert following.open_divergences() == {}
    assert not house.writes.markers.pending()


def recover(house: House, following: Following) -> None:
    """Recover as the next worker does at its start, after the lease has expired."""
    with house.database.as_owner() as tx:
        tx.run("update gitstore.sources set claimed_until = now() where claimed_until > now()")
    # A day later: what a killed process wrote half is left alone until then.
    sweep(house.store.path, house.writes.maintenance, time.time() + 2 * DAY, None)
    report = reconcile.reconcile(house.writes)
    assert report.failures == {}
    house.store.close()
    assert following.row()
