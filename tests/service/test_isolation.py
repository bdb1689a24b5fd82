"""Work in child processes: limits that end it, and what the process that waits learns of that."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gitstore.errors import Code, GitstoreError
from service.run.isolation import CrashError, Isolation, Limits, StopError, Work
from tests.service import isolated_tasks

LIMITS = Limits(memory=2**29, step=1, whole=30)


def run(
    work: Work, *arguments: object, limits: Limits = LIMITS, stop: threading.Event | None = None
) -> list[Any]:
    """Do it; what it told."""
    heard: list[Any] = []
    Isolation(limits).run(work, *arguments, stop=stop or threading.Event(), heard=heard.append)
    return heard


def test_arguments_reach_a_child_unseen() -> None:
    """A secret among them is in no command line and no environment, where other users might read it."""
    secret = "correct-horse-battery-staple"
    assert run(isolated_tasks.answer, secret) == [(len(secret), False)]


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (isolated_tasks.hog, "needed more than 512 MiB of memory"),
        (isolated_tasks.match, "without progress|no progress for 1 seconds"),
        (isolated_tasks.wait_for_lock, "made no progress for 1 seconds"),
        (isolated_tasks.fail, r"failed by an internal error \(ZeroDivisionError\)"),
    ],
)
def test_a_child_beyond_its_limits_is_ended(work: Work, reason: str) -> None:
    """By whatever it is that it exceeds them, and the reason names the limit."""
    with pytest.raises(CrashError, match=reason):
        run(work)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGSTOP"])
def test_a_child_that_a_signal_ends_is_noticed(name: str) -> None:
    """Also one that is stopped, which ends by itself never."""
    with pytest.raises(CrashError, match="no progress" if name == "SIGSTOP" else name):
        run(isolated_tasks.kill, name)


def test_work_that_makes_progress_may_take_longer_than_a_step() -> None:
    """A long import is no stall; the limit of the whole bounds it all the same."""
    assert run(isolated_tasks.advance, 2.5) == []
    with pytest.raises(CrashError, match="took longer than 1 seconds"):
        run(isolated_tasks.advance, 30.0, limits=Limits(2**29, 1, 1))


def test_a_refusal_passes_through() -> None:
    """With its code: Postgres that is away is no crash."""
    with pytest.raises(GitstoreError, match="not now") as raised:
        run(isolated_tasks.refuse)
    assert raised.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("work", [isolated_tasks.obey, isolated_tasks.ignore])
def test_a_child_ends_when_it_is_asked_to(work: Work) -> None:
    """Within moments, whether it obeys or has to be killed."""
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    started = time.monotonic()
    with pytest.raises(StopError):
        run(work, limits=Limits(2**29, 30, 30), stop=stop)
    assert time.monotonic() - started < 10


def test_children_of_many_threads_disturb_none_of_the_others() -> None:
    """One that dies beside those that work is told apart from them."""

    def one(number: int) -> str:
        try:
            run(isolated_tasks.kill, "SIGKILL") if number % 2 else run(isolated_tasks.advance, 0.2)
        except CrashError as error:
            return str(error)
        return "done"

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(one, range(12)))
    assert found == ["done", "was ended by the signal SIGKILL"] * 6


def test_the_thread_that_waits_goes_on_beating() -> None:
    """As the loop of upkeep does while its child works."""
    beats: list[float] = []
    Isolation(LIMITS).run(
        isolated_tasks.advance,
        1.5,
        stop=threading.Event(),
        heard=lambda _: None,
        beat=lambda: beats.append(time.monotonic()),
    )
    assert len(beats) >= 3
