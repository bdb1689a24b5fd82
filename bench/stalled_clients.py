"""The effect of thousands of stalled clients on a healthy one: /livez with and without them.

    uv run python -m bench.stalled_clients [--connections 2000] [--seconds 4] [--url http://...] [kind ...]

Starts a service of its own, unless it is given a URL. The kinds: half a head; half a form and half a git
body, both without a token; whole requests that ask to close, whose clients keep their side open; readers of a
large answer that read nothing. Clients come from 127.0.0.2 to 127.0.0.31.
"""

from __future__ import annotations

import argparse
import http.client
import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

from tests.stories.instance import Service

_HEAD = "{} HTTP/1.1\r\nHost: x\r\n"
_FORM = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\ntoken="
_PACK = (
    "Content-Type: application/x-git-receive-pack-request\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0000\r\n"
)
KINDS = {
    "head": _HEAD.format("GET /livez"),
    "form": _HEAD.format("POST /ui/sign-in") + _FORM,
    "git": _HEAD.format("POST /default.git/git-receive-pack") + _PACK,
    "close": _HEAD.format("GET /livez") + "Connection: close\r\n\r\n",
    "read": _HEAD.format("GET /openapi.json") + "\r\n",
}


@contextmanager
def stalling(kind: str, number: int, address: tuple[str, int]) -> Iterator[list[socket.socket]]:
    """`number` clients that send what the kind has, and then neither send nor read."""
    held = []
    try:
        for client in range(number):
            stalled = socket.socket()
            held.append(stalled)
            if kind == "read":
                stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.settimeout(20)
            stalled.bind((f"127.0.0.{2 + client % 30}", 0))
            stalled.connect(address)
            stalled.sendall(KINDS[kind].encode())
        yield held
    finally:
        for stalled in held:
            stalled.close()


def healthy(address: tuple[str, int], seconds: float, *, every: float = 0.005) -> list[float]:
    """How long each `GET /livez` took, each over a connection of its own, in order. Slow ones are counted."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begun = time.perf_counter()
        with closing(http.client.HTTPConnection(*address, timeout=30)) as connection:
            connection.request("GET", "/livez")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
        times.append(time.perf_counter() - begun)
        time.sleep(every)
    return sorted(times)


def p99(times: list[float]) -> float:
    return times[int(len(times) * 0.99)]


def show(name: str, times: list[float], idle: float) -> None:
    median, worst = times[len(times) // 2], times[-1]
    shown = "".join(f"{1000 * value:>9.2f}" for value in (median, p99(times), worst))
    print(f"{name:<10} {shown}   {p99(times) / idle:>6.2f}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("kinds", nargs="*", default=list(KINDS))
    options.add_argument("--connections", type=int, default=2000)
    options.add_argument("--seconds", type=float, default=4)
    options.add_argument("--url")
    given = options.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with nullcontext(given.url) if given.url else started() as found:
        url = urlsplit(found)
        address = (url.hostname or "", url.port or 80)
        healthy(address, 1)
        quiet = healthy(address, given.seconds)
        print(f"{'':<10} {'median':>9}{'p99':>9}{'worst':>9}   p99 / idle     (milliseconds)")
        show("idle", quiet, p99(quiet))
        for kind in given.kinds:
            begun = time.perf_counter()
            with stalling(kind, given.connections, address):
                healthy(address, 0)  # until what they sent is dealt with
                settled = time.perf_counter() - begun
                show(kind, healthy(address, given.seconds), p99(quiet))
                print(f"{'':<10} {given.connections:,} there after {settled:.1f} s", flush=True)


@contextmanager
def started() -> Iterator[str]:
    """The URL of a service in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="gitstore-bench-") as folder:
        service = Service(Path(folder) / "data", {"GITSTORE_WORKERS": "2"}).start()
        try:
            yield service.url
        finally:
            service.stop()


if __name__ == "__main__":
    main()
