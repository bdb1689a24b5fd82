"""Who serves a request, and when: slots are had in turn, connections go to the process with the fewest."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]

from service import gthread
from service.gthread import Loads, Slots, Worker
from tests.service.running import until


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def process() -> Iterator[Worker]:
    """A process that serves, and a second one, without any connection."""
    kind = gthread.worker(1)
    kind.loads.tell(2, 0)
    made = kind(1, os.getpid(), [], None, 30, Config(), logging.getLogger())
    made.enqueue_req = lambda connection: connection.close()
    yield made
    made.tmp._tmp.close()


def worker(slots: Slots, order: list[int], number: int) -> threading.Thread:
    """Somebody who wants a slot, to note that it had one."""

    def work() -> None:
        with slots.working():
            order.append(number)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def waiting(slots: Slots, order: list[int], number: int) -> threading.Thread:
    """As `worker`, and in the line for it when this returns."""
    before = len(slots._line)
    thread = worker(slots, order, number)
    until(lambda: len(slots._line) > before)
    return thread


def test_slots_are_had_in_turn() -> None:
    """Who came first is served first, also before somebody who comes just when one is free."""
    slots, order = Slots(1), list[int]()
    with slots.working():
        threads = [waiting(slots, order, number) for number in range(5)]
    with slots.working():  # at once, but last in the line
        order.append(5)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4, 5]


def test_who_waits_for_a_client_has_no_slot() -> None:
    """Somebody else works meanwhile; afterwards it has one again, in turn."""
    slots, order = Slots(1), list[int]()
    with slots.working():
        order.append(1)
        with slots.waiting():
            with slots.waiting(), slots.waiting():  # it has none to let go of
                pass
            thread = worker(slots, order, 2)
            thread.join()
        order.append(3)
    with slots.working():
        order.append(4)
    assert order == [1, 2, 3, 4]


def test_the_process_with_the_fewest_connections_is_known() -> None:
    """Of those that live, however many there have been."""
    loads = Loads()
    loads.tell(1, 5)
    loads.tell(2, 3)
    assert loads.fewest() == 3
    loads.leave(2)
    assert loads.fewest() == 5
    loads.tell(70_003, 100_000)
    loads.leave(1)
    assert loads.fewest() == 0xFFFE


@pytest.mark.parametrize(
    ("mine", "others", "taken"), [(0, 0, True), (3, 3, True), (3, 4, True), (3, 2, False), (1, 0, False)]
)
def test_a_connection_is_left_to_who_has_fewer(
    process: Worker,
    listener: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    mine: int,
    others: int,
    taken: bool,
) -> None:
    """The other process, woken by the same connection, takes it while this one waits a moment."""
    process.nr_conns = mine
    process.loads.tell(2, others)
    monkeypatch.setattr("service.gthread.time.sleep", other_accepts(listener))
    with closing(socket.create_connection(listener.getsockname())):
        process.accept(listener)
    assert process.nr_conns == mine + taken


def test_a_connection_that_nobody_takes_is_not_left_waiting(
    process: Worker, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other is busy: after that moment, the process that has more takes it."""
    process.nr_conns = 3
    moments: list[float] = []
    monkeypatch.setattr("service.gthread.time.sleep", moments.append)
    with closing(socket.create_connection(listener.getsockname())):
        process.accept(listener)
    assert process.nr_conns == 4
    assert moments == [gthread.POLITE]


def other_accepts(listener: socket.socket) -> Callable[[float], None]:
    def accept(_seconds: float) -> None:
        listener.accept()[0].close()

    return accept
