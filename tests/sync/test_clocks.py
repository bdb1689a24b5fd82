"""A clock that jumps: order comes from numbers and the ledger, never from times."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from gitstore.drafts import Content
from sync import catalog
from sync.integrity import verify
from sync.integrity.rebuild import rebuild
from sync.reconcile import full_pass
from tests.sync.conftest import House

JUMPS = [datetime(year, 6, 1, tzinfo=UTC) for year in (2030, 2020, 2030, 1999, 2026, 2026)]


@pytest.fixture
def house(house: House) -> House:
    """Whose clock jumps at every look, ahead and back, and sometimes stands still."""

    def jumping() -> Iterator[datetime]:
        while True:
            yield from JUMPS

    jump = jumping()
    house.store.clock = lambda: next(jump)
    return house


def numbers(house: House) -> list[int]:
    """Of the history, a page at a time."""
    found: list[int] = []
    with house.database.reading(house.claims) as tx:
        while page := catalog.history(
            tx, house.workflow_id("a"), before=found[-1] if found else None, limit=2
        ).rows:
            found += [version.version_number for version in page]
    return found


def test_versions_are_in_the_order_of_their_numbers(house: House) -> None:
    """In the history, as the latest and as the current one; the rows are what Git makes of them."""
    for number in range(1, 8):
        assert house.publish("a", f"https://v{number}.example/") == number
    assert house.store.state("a").latest == house.store.state("a").current == 7
    times = [
        row["published_at"]
        for row in sorted(house.rows("workflow_versions"), key=lambda row: row["version_number"])
    ]
    assert times != sorted(times)
    assert numbers(house) == list(range(7, 0, -1))
    assert list(verify.verify(house.database, house.store)) == []
    before = house.mirrored()
    assert full_pass(house.writes).facts == []
    rebuild(house.database, [house.store])
    assert house.mirrored() == before


def test_what_is_discarded_at_the_same_time_is_kept_all_the_same(house: House) -> None:
    """Each under a name of its own, though the name is made of the time."""
    house.store.clock = lambda: JUMPS[0]
    heads = set()
    house.publish("a")
    for number in range(3):
        content = Content(value=house.definition(f"https://d{number}.example/"))
        heads.add(house.store.create_draft("a", content, house.who).commit.encode())
        house.store.discard_draft("a", house.who)
    assert set(house.store.refs.below(b"refs/superseded/a/").values()) == heads
    assert list(verify.verify(house.database, house.store)) == []
