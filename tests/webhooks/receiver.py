"""A subscriber: an HTTP server on loopback that records its requests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

from tests.helpers import PATIENCE, until


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """Return the payload, verified by the reference library."""
        return Webhook(secret).verify(self.body, self.headers)


Answers = Callable[["Handler"], None]


@dataclass
class Receiver:
    """`answers` answers each recorded request; without it, the status is 200."""

    server: ThreadingHTTPServer
    answers: Answers | None = None
    got: list[Received] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def allow(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def wait(self, count: int, seconds: float = PATIENCE) -> list[Received]:
        """Wait for `count` requests. Return them."""
        until(lambda: len(self.got) >= count, lambda: f"{len(self.got)} of {count} came", seconds=seconds)
        return list(self.got)


class Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.receiver.got.append(Received(self.path, headers, body, time.monotonic()))
        with suppress(OSError):
            (self.receiver.answers or respond(200))(self)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def respond(status: int, body: bytes = b"ok", **headers: str) -> Answers:
    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def hang(handler: Handler) -> None:
    """Do not answer until the receiver is closed."""
    handler.receiver.ending.wait(60)


def drip(handler: Handler) -> None:
    """Send a byte a second, in the headers."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 60:
        handler.wfile.write(bytes([byte]))
        if handler.receiver.ending.wait(1):
            return


def flood(handler: Handler) -> None:
    """Send a gigabyte."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(2**30))
    handler.end_headers()
    for _ in range(2**14):
        handler.wfile.write(b"x" * 2**16)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the half request of a sender that was killed."""


@contextmanager
def receiving(answers: Answers | None = None) -> Iterator[Receiver]:
    handler = type("OneHandler", (Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    receiver = handler.receiver = Receiver(server, answers)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ending.set()
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """Return a port on loopback without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
