"""The web server, with a small WSGI application: stalled clients, limits, and the rules of HTTP."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from bench.stalled_clients import KINDS, stalling
from gitstore.errors import UnavailableError
from service.run import connections
from service.run.bridge import FREE, Allowance
from service.run.web import Server
from tests.service.serve_process import until

PIECE = b"x" * 65_536
CREDENTIAL = "Authorization: known"


@dataclass
class Site:
    """A WSGI application that records its requests."""

    go: threading.Event = field(default_factory=threading.Event)
    order: list[str] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)
    made: int = 0
    closed: int = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.order.append(path)
        self.seen = environ
        if path == "/stream":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return self.stream()
        if path == "/large":
            start_response("200 OK", [("Content-Length", str(64 * len(PIECE)))])
            return [PIECE * 64]
        if path == "/wait":
            self.go.wait(20)
        if path == "/fails":
            raise ValueError(path)
        if path == "/304":
            start_response("304 Not Modified", [("ETag", '"x"')])
            return []
        body = f"{len(environ['wsgi.input'].read()) if path == '/read' else path}".encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    def stream(self) -> Iterator[bytes]:
        try:
            for number in range(10_000):
                if number == 1:
                    self.go.wait(20)
                self.made += 1
                yield PIECE
        finally:
            self.closed += 1


@dataclass
class Client:
    """Raw HTTP to the server."""

    site: Site
    address: tuple[str, int]

    def open(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def send(self, *parts: bytes | str, finish: bool = False) -> bytes:
        """Send the parts; return everything received until the server closes the connection."""
        with self.open() as connection:
            for part in parts:
                connection.sendall(part.encode("latin-1") if isinstance(part, str) else part)
            if finish:
                connection.shutdown(socket.SHUT_WR)
            return rest(connection)

    def get(self, path: str) -> bytes:
        return self.send(request(f"GET {path}"))


def request(line: str, *headers: str, close: bool = True) -> str:
    ends = ["Connection: close"] if close else []
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *headers, *ends, "", ""])


def rest(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


@contextmanager
def serving(*, threads: int = 1, most: int = 1000) -> Iterator[Client]:
    """Run a server in a thread. A client with a credential may send 1 MiB."""
    site = Site()

    def admit(environ: dict[str, Any]) -> Allowance | None:
        credential = environ.get("HTTP_AUTHORIZATION")
        if credential == "unavailable":
            raise UnavailableError(credential)
        return Allowance(2**20, 2**20) if credential == "known" else None

    server = Server(site, admit, threads=threads, most=most)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        serve = server.serve(os.dup(listener.fileno()), lambda: None)
        running = threading.Thread(target=lambda: asyncio.run(serve))
        running.start()
        try:
            yield Client(site, listener.getsockname())
        finally:
            site.go.set()
            server.stop()
            running.join(60)
            assert not running.is_alive()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(connections, "_SWEEP_SECONDS", 0.05)
    with serving() as client:
        yield client


@pytest.mark.parametrize("kind", KINDS)
def test_stalled_clients_do_not_block_others(client: Client, kind: str) -> None:
    """200 of each kind, with a single thread."""
    client.site.go.set()
    with stalling(kind, 200, client.address):
        for number in range(20):
            assert client.get(f"/{number}").endswith(b"\r\n\r\n/%d" % number)


@pytest.mark.parametrize("sent", ["", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_stalled_head_closes_the_connection(
    client: Client, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    """Also a head that trickles, and an idle connection after a request."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    assert client.send(sent) == b""
    with client.open() as connection:
        connection.settimeout(0.01)
        with pytest.raises(OSError, match=r"reset|pipe"):
            trickle(connection)
    assert client.send(request("GET /a", close=False)).endswith(b"/a")


def trickle(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def test_a_stalled_body_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is 400, and the application does not get the request."""
    monkeypatch.setattr("service.run.admission.BODY_SECONDS", 0.2)
    for part in ("Content-Length: 9\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"):
        answer = client.send(f"POST /read HTTP/1.1\r\nHost: x\r\n{part}")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"code": "malformed"' in answer
    assert client.site.order == []


def test_the_longest_waiting_connection_is_evicted() -> None:
    """When there are too many; not one whose request is being handled."""
    with serving(threads=2, most=20) as client, ExitStack() as idle, client.open() as busy:
        busy.sendall(request("GET /wait").encode())
        until(lambda: client.site.order == ["/wait"])
        held = [idle.enter_context(client.open()) for _ in range(60)]
        assert client.get("/a").endswith(b"/a")
        assert held[0].recv(1) == b""
        held[-1].sendall(request("GET /b").encode())
        assert rest(held[-1]).endswith(b"/b")
        client.site.go.set()
        assert rest(busy).endswith(b"/wait")


def test_requests_are_served_in_order_of_arrival(client: Client) -> None:
    """Over all connections."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(client.open()) for _ in range(6)]
        sockets[0].sendall(request("GET /wait").encode())
        until(lambda: client.site.order == ["/wait"])
        for number, connection in enumerate(sockets[1:]):
            connection.sendall(request(f"GET /{number}").encode())
            time.sleep(0.02)  # sockets that become ready at once have no order
        client.site.go.set()
        assert all(rest(connection) for connection in sockets)
    assert client.site.order == ["/wait", "/0", "/1", "/2", "/3", "/4"]


@pytest.mark.parametrize("expect", [[], ["Expect: 100-continue"]])
def test_a_large_body_needs_a_credential(client: Client, expect: list[str]) -> None:
    """Without one, the application gets the head alone, and the client is not asked to continue."""
    size = FREE + 1
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)
    for headers, body in (
        ([f"Content-Length: {size}"], b"x" * size),
        (["Transfer-Encoding: chunked"], chunks),
    ):
        head = request("POST /any", *headers, *expect)
        sent = (head,) if expect and "Length" in headers[0] else (head, body)
        answer = client.send(*sent)
        assert answer.endswith(b"\r\n\r\n/any"), answer
        if "Length" in headers[0]:
            assert b"100 Continue" not in answer
        answer = client.send(request("POST /read", *headers, CREDENTIAL, *expect), body)
        assert answer.endswith(b"\r\n\r\n%d" % size), answer
        assert (b"100 Continue" in answer) == bool(expect)
        assert client.site.seen["CONTENT_LENGTH"] == str(size)
        assert "HTTP_TRANSFER_ENCODING" not in client.site.seen


def test_a_body_beyond_its_allowance_is_discarded(client: Client) -> None:
    """Up to a limit, as the client sends all of it before it reads the answer."""
    size = 3 * 2**19
    answer = client.send(request("POST /read", f"Content-Length: {size}", CREDENTIAL), b"x" * size)
    assert answer.endswith(b"\r\n\r\n%d" % (2**20 + 1))


def test_a_half_closed_client_gets_its_answer(client: Client) -> None:
    """For a complete request; for an incomplete one, an error."""
    assert client.send(request("GET /a", close=False), finish=True).endswith(b"/a")
    answer = client.send(request("POST /read", "Content-Length: 9", close=False), b"abc", finish=True)
    assert b"the body ended after 3 bytes" in answer


def test_an_answer_is_streamed(client: Client) -> None:
    """The first part is sent before the second is produced."""
    with client.open() as connection:
        connection.sendall(request("GET /stream").encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
        assert client.site.made == 1


def test_a_slow_reader_occupies_no_thread(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is produced than the buffers hold; a client that reads nothing is disconnected."""
    client.site.go.set()
    with client.open() as connection:
        connection.sendall(request("GET /stream").encode())
        until(lambda: client.site.made > 10)
        made = -1
        while made != client.site.made:
            made = client.site.made
            time.sleep(0.3)
        assert made < 1000
        assert client.get("/a").endswith(b"/a")
        assert client.site.closed == 0
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
        monkeypatch.setattr(connections, "SLOWEST", 2**20)
        for _ in range(200):
            connection.recv(65_536)
        until(lambda: client.site.closed == 1)


def test_a_disconnect_ends_the_answer(client: Client) -> None:
    client.site.go.set()
    with client.open() as connection:
        connection.sendall(request("GET /stream").encode())
        connection.recv(1)
    until(lambda: client.site.closed == 1)
    assert client.site.made < 1000


def test_unread_answers_are_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all connections of a process; the one that has waited longest is closed."""
    monkeypatch.setattr(connections, "MOST_UNSENT", 5 * 64 * len(PIECE))
    with ExitStack() as stack:
        held = [stack.enter_context(client.open()) for _ in range(12)]
        for connection in held:
            connection.sendall(request("GET /large").encode())
        until(lambda: client.site.order == ["/large"] * 12)
        assert client.get("/a").endswith(b"/a")
        whole = 64 * len(PIECE)
        assert len(rest(held[0])) < whole
        assert len(rest(held[-1])) > whole


def test_a_short_answer_arrives_as_one_piece(client: Client) -> None:
    """Head and body are one system call, and one packet."""
    with client.open() as connection:
        for number in range(20):
            connection.sendall(request(f"GET /{number}", close=False).encode())
            assert connection.recv(65_536).endswith(b"\r\n\r\n/%d" % number)


def test_requests_may_be_pipelined(client: Client) -> None:
    sent = request("GET /a", close=False) + request("GET /b", close=False) + request("GET /c")
    answer = client.send(sent)
    assert [part for part in (b"/a", b"/b", b"/c") if part in answer] == [b"/a", b"/b", b"/c"]
    assert answer.count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize(
    "broken", ["GET / HTTP/1.1\r\n\r\n", "\0", "GET /x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"]
)
def test_requests_before_a_bad_one_are_answered(client: Client, broken: str) -> None:
    answer = client.send(request("GET /a", close=False) + broken)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"\r\nconnection: close\r\n" in answer


def test_pipelined_requests_are_bounded(client: Client) -> None:
    """The first ones are answered; a client sends the others again."""
    answer = client.send(request("GET /a", close=False) * 5 * connections.MOST_PIPELINED)
    assert 0 < answer.count(b"HTTP/1.1 200 OK") <= connections.MOST_PIPELINED + 1
    assert client.get("/b").endswith(b"/b")


def test_trailers_are_no_headers(client: Client) -> None:
    chunks = b"3\r\nabc\r\n0\r\nX-Forwarded-For: 9.9.9.9\r\nA: b\r\n\r\n"
    answer = client.send(request("POST /read", "Transfer-Encoding: chunked", CREDENTIAL), chunks)
    assert answer.endswith(b"\r\n\r\n3")
    assert not {"HTTP_A", "HTTP_X_FORWARDED_FOR"} & set(client.site.seen)


@pytest.mark.parametrize("endless", [b"0\r\nA: ", b"3;"])
def test_an_endless_trailer_or_extension_is_refused(client: Client, endless: bytes) -> None:
    head = request("POST /read", "Transfer-Encoding: chunked", CREDENTIAL)
    with client.open() as connection:
        connection.sendall(head.encode() + b"3\r\nabc\r\n" + endless)
        with suppress(OSError):
            for _ in range(100):
                connection.sendall(b"x" * 65_536)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            assert rest(connection).startswith(b"HTTP/1.1 400 ")
    assert client.site.order == []


def test_some_answers_have_no_body(client: Client) -> None:
    for line in ("HEAD /a", "GET /304"):
        head, _, body = client.send(request(line)).partition(b"\r\n\r\n")
        assert head
        assert body == b""


def test_an_exception_is_500(client: Client) -> None:
    answer = client.get("/fails")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"ValueError" not in answer
    assert client.get("/a").endswith(b"/a")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("GET\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: x\n\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        (f"GET / HTTP/1.1\r\nHost: x\r\nX: {'a' * 100_000}\r\nConnection: close\r\n\r\n", 431),
        (f"GET /{'a' * 900_000}", 414),
        (f"GET /{'a' * 66_000} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 414),
    ],
)
def test_a_bad_request_is_refused(client: Client, sent: str, status: int) -> None:
    answer = client.send(sent, finish=status == 400)
    assert answer.startswith(b"HTTP/1.1 4")
    assert status in (int(answer[9:12]), 400)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: application/problem+json\r\n" in head.lower() + b"\r\n"
    assert b"\r\nconnection: close" in head.lower()
    assert json.loads(body)["status"] == int(answer[9:12])
    assert client.site.order == []


def test_headers_of_a_client_are_not_trusted(client: Client) -> None:
    """Neither forwarded ones nor names with underscores; and answers have no Server header."""
    forged = ("X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "Forwarded: for=9.9.9.9", "A_B: 1")
    prefixed = ("SCRIPT_NAME: /x", "Script-Name: //evil.example", "X-Forwarded-Prefix: /x", "PATH_INFO: /x")
    twice = ("A-C: 1", "a-c: 2", "Cookie: a=1", "Cookie: b=2")
    answer = client.send(request("GET /%C3%A4?q=%41", *forged, *prefixed, *twice))
    assert b"\r\nserver:" not in answer.lower()
    seen = client.site.seen
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("127.0.0.1", "http")
    assert "HTTP_A_B" not in seen
    assert seen["SCRIPT_NAME"] == ""
    assert (seen["HTTP_A_C"], seen["HTTP_COOKIE"]) == ("1,2", "a=1; b=2")
    assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/\xc3\xa4", "q=%41")
    client.send("GET http://evil.example/a?b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert client.site.seen["PATH_INFO"] == "/a"


def test_failures_while_reading_a_body_are_answered(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk for temporary files is full, or Postgres is unavailable for checking the credential."""

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sent = request("POST /read", "Content-Length: 9", close=False), b"x" * 9
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.SpooledTemporaryFile.write", full)
        assert client.send(*sent).startswith(b"HTTP/1.1 50")
    answer = client.send(request("POST /read", f"Content-Length: {FREE + 1}", "Authorization: unavailable"))
    assert answer.startswith(b"HTTP/1.1 503 ")


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_stalled_clients_do_not_block_others(kind: str) -> None:
    """bench.stalled_clients measures how long other clients wait."""
    with serving(threads=4, most=5000) as client:
        client.site.go.set()
        with stalling(kind, 2000, client.address), closing(client.open()) as connection:
            connection.sendall(request("GET /a").encode())
            assert rest(connection).endswith(b"/a")
