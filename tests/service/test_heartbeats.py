"""Supervision of the worker by heartbeats: a stalled one is replaced, a busy one is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.run import heartbeats
from service.run.heartbeats import LOOPS, Heartbeats
from service.run.supervisor import WatchedWorker
from tests.service.serve_process import ROOT, until

# A worker with the heartbeats of the real one, that does harm once a file tells which.
STUB = """
import re, signal, sys, threading, time, os
from pathlib import Path
from service.run.heartbeats import LOOPS, Heartbeats
folder = Path(sys.argv[1])
beats, lock, off = Heartbeats(folder), threading.Lock(), set()

def loop(name):
    while name not in off:
        with lock:
            beats.beat(name)
        time.sleep(0.05)

for name in LOOPS:
    threading.Thread(target=loop, args=(name,), daemon=True).start()
(folder / "ready").touch()
while not (folder / "harm").exists():
    time.sleep(0.02)
harm = (folder / "harm").read_text()
(folder / "harm").unlink()
if harm == "lock":
    lock.acquire()
elif harm == "code":
    re.match(r"(a*)*b", "a" * 60)
elif harm == "stop":
    os.kill(os.getpid(), signal.SIGSTOP)
elif harm == "end":
    sys.exit(3)
elif harm == "off":
    off.add("sync")
    time.sleep(0.2)
    beats.off("sync")
time.sleep(600)
"""
STALL = 1.5


@dataclass
class Watch:
    """A stub of the worker, watched as `serve` does."""

    folder: Path
    beats: Heartbeats

    def __post_init__(self) -> None:
        command = [sys.executable, "-c", STUB, str(self.folder)]
        self.worker = WatchedWorker(lambda: subprocess.Popen(command, cwd=ROOT), self.beats, STALL)

    def until(self, what: Callable[[], bool]) -> None:
        def looked() -> bool:
            self.worker.check(time.monotonic())
            return what()

        until(looked)

    def ready(self) -> int:
        """Wait for its loops. Return its pid."""
        self.until((self.folder / "ready").exists)
        (self.folder / "ready").unlink()
        assert self.worker.process is not None
        return self.worker.process.pid

    def harm(self, how: str) -> None:
        (self.folder / "harm").write_text(how)
        until(lambda: not (self.folder / "harm").exists())

    def replaced(self) -> dict[str, int]:
        state = heartbeats.read(self.folder)
        assert state is not None
        return {reason: count for reason, count in state[1].items() if count}


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    with closing(Heartbeats(tmp_path)) as beats:
        watch = Watch(tmp_path, beats)
        try:
            yield watch
        finally:
            if watch.worker.process is not None:
                watch.worker.process.kill()
                watch.worker.process.wait()


@pytest.mark.parametrize("harm", ["lock", "code", "stop"])
def test_a_worker_that_does_not_respond_is_replaced(watch: Watch, harm: str) -> None:
    """Stopped by a signal, stuck in C code, or blocked by a lock: one log line, one count."""
    first = watch.ready()
    watch.harm(harm)
    started = time.monotonic()
    with capture_logs() as lines:
        assert watch.ready() != first
    assert time.monotonic() - started < STALL + 15
    assert watch.replaced() == {"stalled": 1}
    assert [line["event"] for line in lines] == ["worker_stalled"]
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_worker_that_ends_is_replaced_and_counted(watch: Watch) -> None:
    """As ended, not as stalled."""
    first = watch.ready()
    watch.harm("end")
    assert watch.ready() != first
    assert watch.replaced() == {"ended": 1}


def test_a_worker_whose_loops_beat_is_kept(watch: Watch) -> None:
    """Also if one of its loops is off."""
    first = watch.ready()
    watch.harm("off")
    deadline = time.monotonic() + 1.5 * STALL
    watch.until(lambda: time.monotonic() > deadline)
    assert watch.worker.process is not None
    assert watch.worker.process.pid == first
    assert set(watch.beats.ages()) == set(LOOPS) - {"sync"}


def test_a_suspended_watcher_does_not_replace_the_worker(watch: Watch) -> None:
    """The worker gets its full time after a suspension of the machine or a Ctrl-Z."""
    first = watch.ready()
    assert watch.worker.process is not None
    watch.worker.process.send_signal(signal.SIGSTOP)
    watch.worker.check(time.monotonic() + 60)
    assert watch.worker.process.pid == first
    watch.worker.check(time.monotonic() + 60 + 2 * STALL)
    assert watch.replaced() == {"stalled": 1}


def test_heartbeats_are_shared_between_processes(tmp_path: Path) -> None:
    """Without a watched worker there are none."""
    assert heartbeats.read(None) is None
    assert heartbeats.read(tmp_path) is None
    with closing(Heartbeats(tmp_path)) as watching:
        watching.begin(time.monotonic() - 10)
        with closing(Heartbeats(tmp_path)) as working:
            working.beat("delivery")
        ages = watching.ages()
        assert ages["delivery"] < 5 < 10 <= ages["sync"]
        watching.count("stalled")
        watching.count("stalled")
        assert heartbeats.read(tmp_path) is not None
        assert heartbeats.read(tmp_path)[1] == {"ended": 0, "stalled": 2}  # type: ignore[index]
