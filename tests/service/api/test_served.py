"""Through the real server on a real socket: behavior that only a server shows."""

from __future__ import annotations

import base64
import json
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.service.api.conftest import House, definition, opened, yaml
from tests.service.serve_process import environment

ROOT = Path(__file__).parents[3]
BODY_SECONDS = 1
SERVE = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from service import logs
from service.run import admission
from service.app import create_app
from service.config import Config
from service.run.web import Web
admission.BODY_SECONDS = {BODY_SECONDS}
logs.configure("json")
sys.exit(Web(Config.from_env(), int(sys.argv[1]), create_app).run())
"""


@dataclass
class Server:
    """Raw HTTP/1.1 to the server, one request for each connection."""

    address: tuple[str, int]
    token: str

    def head(self, method: str, path: str, *headers: str) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {self.token}",
            "Connection: close",
        ]
        return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1")

    def send(self, *parts: bytes, finish: bool = False) -> tuple[int, dict[str, str], bytes]:
        """(status, headers by lower-case name, body); status 0 if the connection was closed."""
        with socket.create_connection(self.address, timeout=30) as connection:
            for part in parts:
                connection.sendall(part)
            if finish:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65_536):
                answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in rest)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        return int(first.split()[1]) if first else 0, headers, body


@pytest.fixture(scope="module")
def server(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[Server]:
    """One for all tests of a worker, as its start takes seconds. Each test uses its own workflows."""
    with opened(postgres_admin_conninfo, migrated_template) as house, served(house) as found:
        yield found


@contextmanager
def served(house: House) -> Iterator[Server]:
    token = house.client("owner").token
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = {"GITSTORE_DATA": str(house.config.data), "GITSTORE_WORKERS": "1", "GITSTORE_THREADS": "2"}
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE, str(listener.fileno())],
            env=environment(DATABASE_URL=house.config.database_url or "", **settings),
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
        )
        found = Server(listener.getsockname(), token)
    try:
        assert found.send(found.head("GET", "/livez"))[0] == 200
        yield found
    finally:
        process.terminate()
        log = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 0, log
    assert "Traceback" not in log, log


def test_a_workflow_is_created_published_and_read(server: Server) -> None:
    body = json.dumps({"slug": "a", "definition": yaml().decode()}).encode()
    headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    status, answered, _ = server.send(server.head("POST", "/workflows", *headers), body)
    assert status == 201
    assert answered["etag"]
    assert answered["x-request-id"]
    publish = server.head("POST", "/workflows/a/versions/publish", "Content-Length: 0")
    assert server.send(publish)[0] == 201
    assert server.send(publish)[0] == 200
    status, answered, read = server.send(server.head("GET", "/workflows/a/versions/1/definition"))
    assert (status, read) == (200, yaml())
    assert answered["content-type"] == "application/yaml"
    status, answered, read = server.send(server.head("HEAD", "/workflows/a/versions/1/definition"))
    assert (status, read, answered["content-length"]) == (200, b"", str(len(yaml())))
    status, _, read = server.send(
        server.head("GET", "/workflows/a/versions/1/definition", f"If-None-Match: {answered['etag']}")
    )
    assert (status, read) == (304, b"")


def test_a_chunked_body_is_read(server: Server) -> None:
    """Without a length, and up to the limit."""
    chunked = ("Transfer-Encoding: chunked", "Content-Type: application/json")
    body = json.dumps({"slug": "b", "definition": definition()}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    assert server.send(server.head("POST", "/workflows", *chunked), chunks)[0] == 201
    endless = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    status, _, answer = server.send(server.head("POST", "/workflows", *chunked), endless * 3 + b"0\r\n\r\n")
    assert (status, json.loads(answer)["code"]) == (413, "too_large")
    for broken in (b"zz\r\nx\r\n", b"5\r\nab", b"-1\r\n", b""):
        status, _, _ = server.send(server.head("POST", "/workflows", *chunked), broken, finish=True)
        assert status in (0, 400), broken


def test_an_oversized_body_is_refused_before_it_is_sent(server: Server) -> None:
    headers = ("Content-Type: application/json", "Content-Length: 999999999999")
    status, _, answer = server.send(server.head("POST", "/workflows", *headers))
    assert (status, json.loads(answer)["code"]) == (413, "too_large")


def test_a_large_body_without_a_valid_credential_is_refused_unread(server: Server) -> None:
    """By every endpoint, also with a credential of the right form. The client does not wait."""
    unknown = f"gst_{'x' * 43}"
    basic = base64.b64encode(f"x:{unknown}".encode()).decode()
    length, pack = "Content-Length: 70000", "Content-Type: application/x-git-receive-pack-request"
    for path, headers, expected in (
        ("/workflows", (length,), 401),
        ("/workflows", (length, f"Authorization: Bearer {unknown}"), 401),
        ("/default.git/git-receive-pack", (length, pack), 401),
        ("/default.git/git-receive-pack", (length, pack, f"Authorization: Basic {basic}"), 401),
        ("/ui/sign-in", (length, "Content-Type: application/x-www-form-urlencoded"), 413),
        (f"/hooks/{uuid4()}", (length, "Content-Type: application/json"), 401),
    ):
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Expect: 100-continue", *headers, "", ""]
        status, _, _ = server.send("\r\n".join(lines).encode())
        assert status == expected, (path, headers)


def test_a_wrong_content_length_is_refused(server: Server) -> None:
    """Not a number, or more than is sent."""
    for length in ("-1", "x", "1,2", "+5", "0x5", ""):
        headers = ("Content-Type: application/json", f"Content-Length: {length}")
        status, _, _ = server.send(server.head("POST", "/workflows", *headers), b"{}", finish=True)
        assert status in (0, 400), length
    headers = ("Content-Type: application/json", "Content-Length: 100")
    status, _, answer = server.send(
        server.head("POST", "/workflows", *headers), b'{"slug": "a"}', finish=True
    )
    assert (status, json.loads(answer)["code"]) == (400, "malformed")
    assert "the body ended after 13 bytes" in json.loads(answer)["detail"]


def test_stalled_clients_are_disconnected(server: Server) -> None:
    """More stalled bodies than threads: then others are served, and the stalled clients get an error."""
    headers = ("Content-Type: application/json", "Content-Length: 100")
    with ThreadPoolExecutor(4) as pool:
        stalled = list(
            pool.map(lambda _: server.send(server.head("POST", "/workflows", *headers), b"{"), range(4))
        )
    assert {status for status, _, _ in stalled} == {400}
    assert server.send(server.head("GET", "/livez"))[0] == 200


def test_a_trickling_client_is_disconnected(server: Server) -> None:
    """Like a stalled one; its later bytes are not read as another request."""
    head = server.head("POST", "/workflows", "Content-Type: application/json", "Content-Length: 9999")
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(head.replace(b"Connection: close\r\n", b""))
        answer = b""
        while not answer:
            connection.sendall(b" ")
            readable, _, _ = select.select([connection], [], [], 0.2)
            if readable:
                answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 400 ")
        with suppress(ConnectionError):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            while more := connection.recv(65_536):
                answer += more
    assert answer.count(b"HTTP/1.1") == 1


LINES = [
    "GET /workflows/%00 HTTP/1.1", "GET /workflows/\xff HTTP/1.1", "GET //x HTTP/1.1", "GET * HTTP/1.1",
    "GET http://evil.example/workflows/x HTTP/1.1", "GET /workflows/a?q=\xff HTTP/1.1", "GET / HTTP/9.9",
    "GET /workflows?limit=%00 HTTP/1.1", "X" * 9000 + " / HTTP/1.1", "GET /" + "a" * 9000 + " HTTP/1.1",
]  # fmt: skip


def test_odd_request_lines_are_harmless(server: Server) -> None:
    for line in LINES:
        request = f"{line}\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\nConnection: close\r\n\r\n"
        status, _, _ = server.send(request.encode("latin-1"))
        assert 200 <= status < 500 or status == 505, line
    assert server.send(server.head("GET", "/livez"))[0] == 200


def created(server: Server, slug: str) -> str:
    """A workflow with one version; the path of its versions."""
    body = json.dumps({"slug": slug, "definition": yaml().decode()}).encode()
    headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    assert server.send(server.head("POST", "/workflows", *headers), body)[0] == 201
    publish = server.head("POST", f"/workflows/{slug}/versions/publish", "Content-Length: 0")
    assert server.send(publish)[0] == 201
    return f"/workflows/{slug}/versions"


def same(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, dict[str, str], bytes]:
    """An answer without what differs each time."""
    status, headers, body = answer
    return status, {name: text for name, text in headers.items() if name != "date"}, body


def test_reads_in_the_event_loop_are_answered_as_in_a_thread(server: Server) -> None:
    """A query is enough for the request to take a thread."""
    versions = created(server, "in-loop")
    tag = server.send(server.head("GET", f"{versions}/1"))[1]["etag"]
    read = [
        (path, headers)
        for path in (f"{versions}/1", f"{versions}/current", f"{versions}/1/definition", versions)
        for headers in ((), (f"If-None-Match: {tag}",), ("Origin: https://app.example",))
    ]
    missing = [(f"{versions}/9", ()), ("/workflows/none/versions/1", ()), (f"{versions}/current/x", ())]
    for path, headers in [*read, *missing]:
        given = (*headers, "X-Request-Id: compared")
        found = server.send(server.head("GET", path, *given))
        slow = server.send(server.head("GET", f"{path}?project=default", *given))
        assert same(found) == same(slow)
        assert found[0] in (200, 304) or (path, headers) in missing
    stranger = Server(server.address, "gst_" + "a" * 43)
    assert stranger.send(stranger.head("GET", f"{versions}/1"))[0] == 401


def test_reads_survive_the_end_of_their_connections(server: Server, postgres_admin_conninfo: str) -> None:
    versions = created(server, "survivor")
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        for _ in range(3):
            assert server.send(server.head("GET", f"{versions}/1"))[0] == 200
            ended = admin.execute(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                "where application_name = 'gitstore web'"
            ).fetchone()
            assert ended is not None
            assert ended[0] > 0
    assert server.send(server.head("GET", f"{versions}/1"))[0] == 200
