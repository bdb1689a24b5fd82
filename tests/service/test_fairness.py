"""Heavy requests: one at a time for each credential, round-robin between tenants, beside light requests."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from gitstore.errors import GitstoreError
from service import fairness
from service.errors import HttpCode
from service.fairness import ANONYMOUS, FairShares, Lease
from tests.service.serve_process import ROOT, until

HOLD = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from service.fairness import FairShares
FairShares(4, Path(sys.argv[1]), lambda outcome: None).admit("a", "a1")
print("held", flush=True)
sys.stdin.read()
"""


class Process:
    """Requests of one serving process, each in a thread of its own."""

    def __init__(self, folder: Path | None = None, threads: int = 2, **seconds: float) -> None:
        self.counted: Counter[str] = Counter()
        self.shares = FairShares(threads, folder, lambda outcome: self.counted.update([outcome]), **seconds)
        self.order: list[str] = []
        self.gone: set[str] = set()
        self._pool = ThreadPoolExecutor(64)

    def ask(self, credential: str, tenant: str | None = None) -> Future[Lease]:
        """Start a heavy request; return when it is running or queued. "a1" is of the tenant "a"."""
        before = self.waiting() + sum(self.counted.values())

        def work() -> Lease:
            self.shares.places.acquire()
            try:
                is_gone = lambda: credential in self.gone  # noqa: E731
                lease = self.shares.admit(tenant or credential[0], credential, is_gone)
            finally:
                self.shares.places.release()
            self.order.append(credential)
            return lease

        asked = self._pool.submit(work)
        until(lambda: self.waiting() + sum(self.counted.values()) > before or asked.done())
        return asked

    def waiting(self) -> int:
        return sum(map(len, self.shares._waiting.values()))

    def finish(self) -> None:
        """End the request that has been running for the longest time."""
        self.shares._running[0].release()

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture
def process() -> Iterator[Process]:
    """A process that runs one heavy request at a time."""
    made = Process()
    yield made
    made.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    """Two processes of one service, which run two heavy requests each."""
    made = Process(tmp_path, 4), Process(tmp_path, 4)
    yield made
    for each in made:
        each.close()


def refused(asked: Future[Lease]) -> GitstoreError:
    with pytest.raises(GitstoreError) as caught:
        asked.result(10)
    assert caught.value.code is HttpCode.TOO_MANY_REQUESTS
    assert caught.value.data["retry_after"] > 0
    return caught.value


def test_heavy_by_route_body_or_definitions() -> None:
    """A size at the bound is light, one byte more is heavy."""
    most = fairness.LARGE
    assert not fairness.is_heavy("workflows.validate_definition", most, most)
    assert fairness.is_heavy("workflows.validate_definition", most + 1, 0)
    assert fairness.is_heavy(None, most + 1, 0)
    assert fairness.is_heavy("diff.read_diff", 0, most + 1)
    assert all(fairness.is_heavy(route, 0, 0) for route in ("git.info_refs", "git.fetch", "git.push"))


def test_tenants_take_turns(process: Process) -> None:
    """A tenant with many queued requests does not delay one with few, even if those came later."""
    process.ask("x1").result()
    for name in ("a1", "a2", "a3", "b1", "a4", "c1", "b2"):
        process.ask(name)
    for served in range(1, 9):
        until(lambda wanted=served: len(process.order) == wanted)
        process.finish()
    assert process.order == ["x1", "a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    assert process.counted == {"immediate": 1, "queued": 7}


def test_a_credential_has_one_running_request_in_all_processes(two: tuple[Process, Process]) -> None:
    """Its second one waits, in any process; that of another credential does not."""
    here, there = two
    first = here.ask("a1").result()
    second, third = here.ask("a1"), there.ask("a1")
    assert there.ask("a2").result()
    assert (here.waiting(), there.waiting()) == (1, 1)
    first.release()
    until(lambda: second.done() or third.done())
    assert not (second.done() and third.done())
    (second if second.done() else third).result().release()
    assert second.result() is not third.result()


def test_a_process_that_ends_releases_its_credentials(tmp_path: Path) -> None:
    """After a kill, another process runs a request of the same credential."""
    process = Process(tmp_path, 4)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        asked = process.ask("a1")
        assert process.waiting() == 1
        other.kill()
        asked.result(10).release()
    assert process.ask("a1").result()
    process.close()


def test_half_of_the_places_stay_for_light_requests() -> None:
    """Running and queued heavy requests leave two of four places free."""
    process = Process(threads=4)
    for number in range(20):
        process.ask(f"a{number}")
    assert len(process.shares._running) == 2
    for _ in range(2):
        process.shares.places.acquire()
    while process.waiting():
        process.finish()
    process.close()


def test_the_queue_is_bounded(process: Process) -> None:
    """When it is full, a tenant with few requests displaces one of the tenant with the most."""
    process.ask("x1").result()
    for number in range(fairness.QUEUED):
        process.ask(f"a{number % 3}")
    refused(process.ask("a9"))
    kept = [process.ask(name) for name in ("b1", "b2", "c1")]
    assert process.waiting() == fairness.QUEUED
    assert process.counted == {"immediate": 1, "refused": 4}
    refused(process.ask("a0"))
    while process.waiting():
        process.finish()
    assert all(lease.result() for lease in kept)
    until(lambda: process.counted["queued"] == fairness.QUEUED)


def test_one_credential_does_not_fill_the_queue(process: Process) -> None:
    process.ask("a1").result()
    for _ in range(fairness.QUEUED_EACH):
        process.ask("a1")
    refused(process.ask("a1"))
    assert process.waiting() == fairness.QUEUED_EACH
    while process.waiting():
        process.finish()


def test_a_wait_times_out() -> None:
    """With 429; the queue is empty then, and the next request is served."""
    process = Process(wait_seconds=0.1)
    first = process.ask("a1").result()
    refused(process.ask("b1"))
    assert process.waiting() == 0
    first.release()
    assert process.ask("b1").result()
    process.close()


def test_a_client_that_disconnects_leaves_the_queue(process: Process) -> None:
    process.ask("x1").result()
    asked = process.ask("a1")
    process.gone.add("a1")
    refused(asked)
    assert process.waiting() == 0


def test_a_slow_answer_does_not_delay_others() -> None:
    """A clone with a slow reader is not counted after the lease; its late end releases nothing twice."""
    process = Process(lease_seconds=0.1)
    slow = process.ask("a1").result()
    other = process.ask("b1").result(10)
    slow.release()
    slow.release()
    assert process.shares._running == [other]
    process.close()


def test_one_anonymous_request_runs_at_a_time(two: tuple[Process, Process]) -> None:
    """Of all addresses in a process, and of one address in all processes."""
    here, there = two
    first = here.ask("192.0.2.1", ANONYMOUS).result()
    other, same = here.ask("192.0.2.2", ANONYMOUS), there.ask("192.0.2.1", ANONYMOUS)
    assert (here.waiting(), there.waiting()) == (1, 1)
    assert here.ask("a1").result()
    first.release()
    assert other.result(10)
    assert same.result(10)
