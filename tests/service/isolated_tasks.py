"""Tasks for tests of isolation, harmless and harmful ones. Children import this module."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

from gitstore.errors import UnavailableError
from service.config import Config
from service.run.isolation import Channel, StopError
from service.worker import sync_in_child
from webhooks.source_queue import Claim


def check_secret(channel: Channel, _stop: threading.Event, secret: str) -> None:
    """Report whether `secret` arrived, and whether it is in the command line or the environment."""
    command = Path("/proc/self/cmdline").read_text()
    channel.send((len(secret), secret in command or secret in str(os.environ)))


def make_progress(channel: Channel, _stop: threading.Event, seconds: float) -> None:
    """Take long, with signs of progress."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        channel.alive()
        time.sleep(0.01)


def fill_memory(channel: Channel, _stop: threading.Event, size: int) -> None:
    """Fill `size` bytes, and report them."""
    channel.send(len(bytearray(size)))


def exhaust_memory(_channel: Channel, _stop: threading.Event) -> None:
    held = []
    while True:
        held.append(bytearray(2**24))


def match_slowly(_channel: Channel, _stop: threading.Event) -> None:
    """Hold Python's lock (GIL) in C code, practically forever."""
    re.match(r"(a*)*b", "a" * 60)


def wait_for_lock(_channel: Channel, _stop: threading.Event) -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def kill(_channel: Channel, _stop: threading.Event, name: str) -> None:
    os.kill(os.getpid(), signal.Signals[name])
    time.sleep(60)


def fail(_channel: Channel, _stop: threading.Event) -> None:
    raise ZeroDivisionError


def refuse(_channel: Channel, _stop: threading.Event) -> None:
    raise UnavailableError("not now")


def stop_when_asked(_channel: Channel, stop: threading.Event) -> None:
    while not stop.wait(0.01):
        pass
    raise StopError


def ignore_stop(_channel: Channel, _stop: threading.Event) -> None:
    """Start a child process, and ignore `stop`."""
    subprocess.run(["/bin/sleep", "60"], check=False)


def sync_badly(channel: Channel, stop: threading.Event, config: Config, claim: Claim) -> None:
    """Sync a source, except for one whose URL names a harmful task."""
    harm = claim.url.rpartition("?")[2]
    if harm in ("exhaust_memory", "match_slowly"):
        globals()[harm](channel, stop)
    sync_in_child(channel, stop, config, claim)
