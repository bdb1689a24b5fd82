"""Imports near the limits of size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.integrity.verify import verify
from tests.sync.conftest import House
from tests.webhooks.followed_project import Following, versions
from tests.webhooks.sync_process import sync_in_process
from tests.webhooks.upstream import Upstream, upstream_in

MIB = 2**20
MOST = 6  # MiB that it may grow by: never by the pack, nor by a file of it


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """On the disk, as the large one does not fit into memory."""
    with upstream_in(tmp_path / "upstream") as made:
        yield made


@pytest.mark.parametrize(
    ("tags", "each", "limit", "most"),
    [(3, 3 * MIB, 12 * MIB, MOST), pytest.param(700, MIB, 1024 * MIB, 8 * MOST, marks=pytest.mark.soak)],
    ids=["9 MiB", "700 MiB"],
)
@pytest.mark.timeout(1800)
def test_a_large_import_needs_bounded_memory(
    house: House, upstream: Upstream, tags: int, each: int, limit: int, most: int
) -> None:
    """The memory does not grow with the pack; progress is reported."""
    upstream.many("large", tags, padding=each)
    following = Following(house, upstream.url)
    done = sync_in_process(following, size=limit, seconds=1500)
    assert done.error is None
    assert versions(following, "large") == list(range(1, tags + 1))
    assert (done.progress[0], done.progress[-1]) == ((0, tags), (tags, tags))
    assert done.grown < most, done
    house.store.close()
    assert list(verify(house.database, house.store)) == []


@pytest.mark.parametrize(
    ("tags", "each", "limit"),
    [(3, MIB, 2 * MIB), pytest.param(36, 30 * MIB, 1024 * MIB, marks=pytest.mark.soak)],
    ids=["3 MiB", "1080 MiB"],
)
@pytest.mark.timeout(1800)
def test_an_import_over_the_limit_is_refused(
    house: House, upstream: Upstream, tags: int, each: int, limit: int
) -> None:
    """Each version has the reason with the limit, and is not fetched again and again."""
    upstream.many("large", tags, padding=each)
    following = Following(house, upstream.url)
    done = sync_in_process(following, size=limit, seconds=1500)
    assert done.grown < 2 * MOST, done
    refused = following.open_divergences()
    assert {one.code for one in refused.values()} == {"too_large"}
    assert all(f"{limit:,}" in one.reason for one in refused.values()), refused
    assert (len(refused), versions(following, "large")) == (tags, [])
    asked = len(upstream.requests)
    assert following.sync().error is None
    assert len(upstream.requests) - asked <= 2  # what is there; it is as it was, so no pack is asked for
    assert [path.name for path in (house.store.path / "objects").glob("tmp_*")] == []
