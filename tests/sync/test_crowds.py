"""Concurrency: eight processes that publish, during git's maintenance, and races for one tag."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from gitstore.git.maintenance import collect
from sync.integrity import verify
from tests.sync.conftest import House
from tests.sync.kill_points import Killer, push_request

pytestmark = pytest.mark.slow

PUBLISHES = int(os.environ.get("GITSTORE_TEST_PUBLISHES", "1000"))
RACES = int(os.environ.get("GITSTORE_TEST_RACES", "1000"))


@pytest.fixture
def tmp_path(ram_path: Path) -> Path:
    return ram_path


@pytest.fixture
def crowd(house: House, conninfo: str) -> Iterator[list[Killer]]:
    """Eight processes that write to the house."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(closing(Killer(house.store.path, house.project, conninfo))) for _ in range(8)
        ]


def check_sound(house: House) -> None:
    with closing(house.unmirrored()) as store:
        assert list(verify.verify(house.database, store)) == []
    house.git("fsck", "--strict", "--no-dangling")


def publish_all(house: House, crowd: list[Killer], count: int) -> float:
    """Let all processes publish `count` versions of one workflow; return the seconds of the slowest."""
    house.store.create_workflow("a", None, house.who)
    writes = [
        {"kind": "publish many", "slug": "a", "label": f"p{number}", "count": count // len(crowd)}
        for number in range(len(crowd))
    ]
    with ThreadPoolExecutor(len(crowd)) as pool:
        answers = list(pool.map(lambda pair: pair[0].write(pair[1]), zip(crowd, writes, strict=True)))
    for answer in answers:
        assert isinstance(answer["ended"], dict), answer
    numbers = sorted(number for answer in answers for number in answer["ended"]["numbers"])
    assert numbers == list(range(1, len(crowd) * (count // len(crowd)) + 1))
    assert sorted(house.store.version_tags("a")) == numbers
    rows = [row for row in house.rows("workflow_versions") if row["state"] == "published"]
    assert sorted(row["version_number"] for row in rows) == numbers
    events = Counter(row["type"] for row in house.rows("events"))
    assert events["workflow.version.published"] == len(numbers)
    check_sound(house)
    return max(float(answer["ended"]["slowest"]) for answer in answers)


class Gc(threading.Thread):
    """Run git's maintenance repeatedly, with almost no grace period."""

    def __init__(self, house: House) -> None:
        super().__init__()
        self.house = house
        self.runs = 0
        self.failed: Exception | None = None
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                collect(self.house.store.path, self.house.writes, grace=1.0, slice_size=50)
                self.runs += 1
            except Exception as error:
                self.failed = error
                return
            time.sleep(0.05)


def test_eight_processes_publish_contiguous_versions(house: House, crowd: list[Killer]) -> None:
    publish_all(house, crowd, 40)


def test_concurrent_maintenance_loses_nothing(house: House, crowd: list[Killer]) -> None:
    gc = Gc(house)
    gc.start()
    try:
        publish_all(house, crowd, 48)
    finally:
        gc.stop.set()
        gc.join()
    assert gc.failed is None
    assert gc.runs > 0
    check_sound(house)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside gc"])
def test_a_thousand_publishes(
    house: House, crowd: list[Killer], beside: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    gc, started = Gc(house), time.monotonic()
    if beside:
        gc.start()
    try:
        slowest = publish_all(house, crowd, PUBLISHES)
    finally:
        gc.stop.set()
        if beside:
            gc.join()
    assert gc.failed is None
    with capsys.disabled():
        took = time.monotonic() - started
        print(f"\n  {PUBLISHES} publishes, {took:.0f} s, slowest {slowest:.2f} s, {gc.runs} runs of gc")


def race(house: House, crowd: list[Killer], folder: Path, slug: str) -> None:
    """All push different content under the same tags: one wins, the others are refused with a reason."""
    requests = [push_request(folder, slug, f"p{number}") for number in range(len(crowd))]
    writes = [{"kind": "push", "slug": slug, "request": str(path)} for path in requests]
    with ThreadPoolExecutor(len(crowd)) as pool:
        answers = list(pool.map(lambda pair: pair[0].write(pair[1]), zip(crowd, writes, strict=True)))
    won = [answer["ended"] for answer in answers if answer["ended"] == ["ok"] * 3]
    assert len(won) == 1, answers
    for answer in answers:
        if answer["ended"] not in won:
            assert all("v1 is published" in result or "v2 is published" in result or "moved" in result
                       for result in answer["ended"]), answer  # fmt: skip
    assert sorted(house.store.version_tags(slug)) == [1, 2]


def test_a_race_for_a_tag_has_one_winner(house: House, crowd: list[Killer], tmp_path: Path) -> None:
    for number in range(5):
        race(house, crowd, tmp_path / "scratch", f"r{number}")
    check_sound(house)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_races(
    house: House, crowd: list[Killer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    for number in range(RACES):
        race(house, crowd[:4], tmp_path / "scratch", f"r{number}")
        if number % 50 == 49:
            with capsys.disabled():
                print(f"\n  {number + 1} races, one winner each, {time.monotonic() - started:.0f} s", end="")
    check_sound(house)
