"""Work in child processes: its limits, and the errors that its parent gets."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from gitstore.errors import Code, GitstoreError
from service.run import isolation
from service.run.fork_server import ForkServer
from service.run.isolation import CrashError, Isolation, Limits, StopError, Work
from tests.service import isolated_tasks

LIMITS = Limits(memory=2**29, step=1, whole=30)


def run(
    work: Work, *arguments: object, limits: Limits = LIMITS, stop: threading.Event | None = None
) -> list[Any]:
    """Run `work` in a child. Return its messages."""
    messages: list[Any] = []
    Isolation(limits).run(work, *arguments, stop=stop or threading.Event(), on_message=messages.append)
    return messages


def test_arguments_are_in_no_command_line_and_no_environment() -> None:
    """Other users could read a secret there."""
    secret = "correct-horse-battery-staple"
    assert run(isolated_tasks.check_secret, secret) == [(len(secret), False)]


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (isolated_tasks.exhaust_memory, "needed more than 512 MiB of memory"),
        (isolated_tasks.match_slowly, "without progress|no progress for 1 seconds"),
        (isolated_tasks.wait_for_lock, "made no progress for 1 seconds"),
        (isolated_tasks.fail, r"failed by an internal error \(ZeroDivisionError\)"),
    ],
)
def test_a_child_beyond_its_limits_is_ended(work: Work, reason: str) -> None:
    """The reason names the limit."""
    with pytest.raises(CrashError, match=reason):
        run(work)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGSTOP"])
def test_a_child_that_a_signal_ends_or_stops_has_crashed(name: str) -> None:
    with pytest.raises(CrashError, match="no progress" if name == "SIGSTOP" else name):
        run(isolated_tasks.kill, name)


def test_progress_restarts_the_limit_of_a_step() -> None:
    """The limit of the whole still applies."""
    assert run(isolated_tasks.make_progress, 2.5) == []
    with pytest.raises(CrashError, match="took longer than 1 seconds"):
        run(isolated_tasks.make_progress, 30.0, limits=Limits(2**29, 1, 1))


def test_an_error_of_the_work_is_raised_with_its_code() -> None:
    """An unavailable Postgres is not a crash."""
    with pytest.raises(GitstoreError, match="not now") as raised:
        run(isolated_tasks.refuse)
    assert raised.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("work", [isolated_tasks.stop_when_asked, isolated_tasks.ignore_stop])
def test_a_child_ends_soon_after_stop_is_set(work: Work) -> None:
    """Whether it stops by itself or has to be killed."""
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    started = time.monotonic()
    with pytest.raises(StopError):
        run(work, limits=Limits(2**29, 30, 30), stop=stop)
    assert time.monotonic() - started < 10


def test_concurrent_children_are_independent() -> None:
    """A child that dies does not affect the others."""

    def one(number: int) -> str:
        try:
            run(isolated_tasks.kill, "SIGKILL") if number % 2 else run(isolated_tasks.make_progress, 0.2)
        except CrashError as error:
            return str(error)
        return "done"

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(one, range(12)))
    assert outcomes == ["done", "was ended by the signal SIGKILL"] * 6


def test_the_waiting_thread_sends_heartbeats() -> None:
    beats: list[float] = []
    Isolation(LIMITS).run(
        isolated_tasks.make_progress,
        1.5,
        stop=threading.Event(),
        on_message=lambda _: None,
        beat=lambda: beats.append(time.monotonic()),
    )
    assert len(beats) >= 3


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    """A fork server for one test."""
    with closing(ForkServer()) as server:
        monkeypatch.setattr(isolation, "fork_server", lambda: server)
        yield server
    os.waitpid(server.pid, 0)


@pytest.fixture
def large() -> Iterator[bytearray]:
    """Memory of this process, more than a child may use."""
    held = bytearray(LIMITS.memory + 2**20)
    yield held
    held.clear()


@pytest.mark.usefixtures("large", "server")
def test_what_a_child_inherits_is_not_counted() -> None:
    """It may use the limit, give or take what its own work needs."""
    limits, margin = Limits(memory=LIMITS.memory, step=30, whole=60), 2**26
    most = limits.memory - margin
    assert run(isolated_tasks.fill_memory, most, limits=limits) == [most]
    with pytest.raises(CrashError, match="needed more than 512 MiB of memory"):
        run(isolated_tasks.fill_memory, limits.memory + margin, limits=limits)


def test_a_child_ends_with_its_fork_server(server: ForkServer) -> None:
    threading.Timer(0.5, os.kill, (server.pid, signal.SIGKILL)).start()
    with pytest.raises(CrashError):
        run(isolated_tasks.make_progress, 30.0)


def test_a_worker_without_its_fork_server_stops(server: ForkServer) -> None:
    """The supervisor replaces it. The work does not count as crashed."""
    os.kill(server.pid, signal.SIGKILL)
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    stopped = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        with pytest.raises(StopError):
            run(isolated_tasks.make_progress, 0.0)
        assert stopped.wait(10)
    finally:
        signal.signal(signal.SIGTERM, before)
