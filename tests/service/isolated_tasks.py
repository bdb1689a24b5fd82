"""What children do in tests of isolation: well and badly. A module of its own, as children load it."""

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
from service.incoming import sync_in_child
from service.run.isolation import Channel, StopError
from webhooks.source_leases import Claim


def answer(channel: Channel, _stop: threading.Event, secret: str) -> None:
    """Tell the command line and the environment of this process, and whether `secret` arrived."""
    command = Path("/proc/self/cmdline").read_text()
    channel.tell((len(secret), secret in command or secret in str(os.environ)))


def advance(channel: Channel, _stop: threading.Event, seconds: float) -> None:
    """Take long, with signs of progress."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        channel.alive()
        time.sleep(0.01)


def hog(_channel: Channel, _stop: threading.Event) -> None:
    """Use up all memory."""
    held = []
    while True:
        held.append(bytearray(2**24))


def match(_channel: Channel, _stop: threading.Event) -> None:
    """Hold Python's lock in C code, for longer than anyone lives."""
    re.match(r"(a*)*b", "a" * 60)


def wait_for_lock(_channel: Channel, _stop: threading.Event) -> None:
    """Wait for a lock that is never released."""
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


def obey(_channel: Channel, stop: threading.Event) -> None:
    """Stop when that is asked for."""
    while not stop.wait(0.01):
        pass
    raise StopError


def ignore(_channel: Channel, _stop: threading.Event) -> None:
    """Start a child of its own, and ignore that it is to stop."""
    subprocess.run(["/bin/sleep", "60"], check=False)


def sync_badly(channel: Channel, stop: threading.Event, config: Config, claim: Claim) -> None:
    """Sync a source, except one whose URL tells how it ends the process."""
    harm = claim.url.rpartition("?")[2]
    if harm in ("hog", "match"):
        globals()[harm](channel, stop)
    sync_in_child(channel, stop, config, claim)
