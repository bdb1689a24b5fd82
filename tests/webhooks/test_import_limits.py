"""Imports near the limits: what is allowed comes within bounded memory, what is not is refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.integrity.verify import verify
from tests.sync.conftest import House
from tests.webhooks.followed_project import Following, versions
from tests.webhooks.sync_process import work
from tests.webhooks.upstream import Upstream, upstream_in

MIB = 2**20
MOST = 6  # MiB that it may grow by: never by the pack, nor by a file of it


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """On the disk: the large one does not belong into memory."""
    with upstream_in(tmp_path / "upstream") as made:
        yield made


@pytest.mark.parametrize(
    ("tags", "each", "limit", "most"),
    [(3, 3 * MIB, 12 * MIB, MOST), pytest.param(700, MIB, 1024 * MIB, 8 * MOST, marks=pytest.mark.soak)],
    ids=["9 MiB", "700 MiB"],
)
@pytest.mark.timeout(1800)
def test_a_large_upstream_comes_within_bounded_memory(
    house: House, upstream: Upstream, tags: int, each: int, limit: int, most: int
) -> None:
    """Every version, with progress from none to all; the memory does not grow with the pack."""
    upstream.many("large", tags, padding=each)
    following = Following(house, upstream.url)
    done = work(following, size=limit, seconds=1500)
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
def test_one_over_the_limit_is_refused_in_words(
    house: House, upstream: Upstream, tags: int, each: int, limit: int
) -> None:
    """Each version that could not come says why, with the limit; it is not asked for again and again."""
    upstream.many("large", tags, padding=each)
    following = Following(house, upstream.url)
    done = work(following, size=limit, seconds=1500)
    assert done.grown < 2 * MOST, done
    refused = following.open()
    assert {one.code for one in refused.values()} == {"too_large"}
    assert all(f"{limit:,}" in one.reason for one in refused.values()), refused
    assert (len(refused), versions(following, "large")) == (tags, [])
    asked = len(upstream.requests)
    assert following.sync().error is None
    assert len(upstream.requests) - asked <= 2  # what is there; it is as it was, so no pack is asked for
    assert [path.name for path in (house.store.path / "objects").glob("tmp_*")] == []
