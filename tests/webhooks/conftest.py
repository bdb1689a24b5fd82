"""The database, and a project with a repository in it, as tests of `sync` have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sync.conftest import House, conninfo, database, house, make_house
from tests.webhooks.receiving import Receiver, receiving
from tests.webhooks.sending import Post

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
def vectors() -> Path:
    """The folder of signed vectors, which is not part of the repository."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "hmac-vectors"
    if not folder.is_dir():
        pytest.skip(f"needs the signed vectors in {folder}, which are not part of the repository")
    return folder
