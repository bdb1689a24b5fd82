"""Fixtures: the project and database of the tests of `sync`, a subscriber, and an upstream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.integrity.verify import verify
from tests.sync.conftest import House, conninfo, database, house, make_house
from tests.webhooks.followed_project import Follow, Following
from tests.webhooks.receiver import Receiver, receiving
from tests.webhooks.subscribed_project import Post
from tests.webhooks.upstream import Upstream, upstream_in

__all__ = ["conninfo", "database", "house", "make_house"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A subscriber on loopback."""
    with receiving() as made:
        yield made


@pytest.fixture
def post(house: House, receiver: Receiver) -> Post:
    """The project, with deliveries to that subscriber."""
    return Post(house, receiver.allow)


@pytest.fixture
def upstream(ram_path: Path) -> Iterator[Upstream]:
    """An upstream on loopback."""
    with upstream_in(ram_path / "upstream") as made:
        yield made


@pytest.fixture
def follow(house: House, upstream: Upstream) -> Iterator[Follow]:
    """Make the project follow the upstream. After the test, rows and Git agree."""

    def make(**options: Any) -> Following:
        return Following(house, upstream.url, **options)

    yield make
    assert [str(finding) for finding in verify(house.database, house.store)] == []
