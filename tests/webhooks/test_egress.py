"""Egress: connections are opened to checked addresses only, within limits of time and size."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import urllib3

from gitstore.errors import Code, GitstoreError
from tests.webhooks.receiver import Handler, Receiver, drip, flood, free_port, hang, receiving, respond
from webhooks.addresses import Allowed
from webhooks.egress import Egress, Lookup, Response


def door(
    allow: str = "", resolve: Callable[[str, int], Sequence[str]] | None = None, **options: ssl.SSLContext
) -> Egress:
    more: dict[str, Lookup] = {"resolve": resolve} if resolve else {}
    return Egress(Allowed.parse(allow), **more, **options)  # type: ignore[arg-type]


def post(egress: Egress, url: str, seconds: float = 10.0, keep: int = 100) -> Response:
    return egress.post(url, b"{}", {"X-Own": "1"}, seconds=seconds, keep=keep)


def failure(egress: Egress, url: str, seconds: float = 10.0) -> GitstoreError:
    with pytest.raises(GitstoreError) as caught:
        post(egress, url, seconds)
    return caught.value


def test_a_response_has_its_status_headers_and_the_beginning_of_its_body(receiver: Receiver) -> None:
    receiver.answers = respond(503, b"x" * 1000, Retry_After="7")
    answer = post(door(receiver.allow), receiver.url("/a?b=c"))
    assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "7", b"x" * 100)
    (got,) = receiver.got
    assert (got.path, got.body, got.headers["x-own"]) == ("/a?b=c", b"{}", "1")
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_a_refused_address_is_not_connected_to(receiver: Receiver) -> None:
    assert failure(door(), receiver.url()).code is Code.ADDRESS_REFUSED
    assert receiver.got == []


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["10.0.0.1", "8.8.8.8"],
        ["2606:4700:4700::1111", "::1"],
        ["fe80::1%eth0"],
        ["2606:4700:4700::1111%eth0"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["169.254.169.254"],
        ["0.0.0.0"],  # noqa: S104 (nobody binds it)
        ["::"],
    ],
)
def test_a_name_with_one_address_that_is_not_public_is_refused(addresses: list[str]) -> None:
    """The message does not disclose the address."""
    refusal = failure(door(resolve=lambda *_: addresses), "http://rebind.example/")
    assert refusal.code is Code.ADDRESS_REFUSED
    assert not any(address in refusal.message for address in addresses)


def test_a_name_is_resolved_once(receiver: Receiver) -> None:
    """DNS rebinding between check and connection is therefore impossible."""
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        # Not routed from here, so that connecting to it fails; then loopback, where somebody listens.
        return ["2606:4700:4700::1111"] if len(asked) == 1 else ["127.0.0.1"]

    egress = door(resolve=rebinding)
    url = f"http://rebind.example:{receiver.port}/"
    assert failure(egress, url, seconds=1.0).code is Code.UNREACHABLE
    assert asked == ["rebind.example"]
    assert failure(egress, url).code is Code.ADDRESS_REFUSED
    assert receiver.got == []


def test_an_allowed_name_may_resolve_to_any_address(receiver: Receiver) -> None:
    """The Host header is the name."""
    egress = door(f"hooks.internal:{receiver.port}", resolve=lambda *_: ["127.0.0.1"])
    assert post(egress, f"http://hooks.internal:{receiver.port}/").status == 200
    assert receiver.got[0].headers["host"] == f"hooks.internal:{receiver.port}"


def test_the_next_address_of_a_name_is_tried_if_one_fails(receiver: Receiver) -> None:
    egress = door("127.0.0.0/8", resolve=lambda *_: ["127.0.0.9", "127.0.0.1"])
    assert post(egress, f"http://two.example:{receiver.port}/").status == 200


def test_an_allowed_network_applies_to_resolved_addresses(receiver: Receiver) -> None:
    egress = door("127.0.0.0/8", resolve=lambda *_: ["127.0.0.1"])
    assert post(egress, f"http://any.example:{receiver.port}/").status == 200


def test_proxies_of_the_environment_are_ignored(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setitem(os.environ, name, proxy)
    assert post(door(receiver.allow), receiver.url()).status == 200


def test_a_delivery_follows_no_redirect(receiver: Receiver) -> None:
    """Not even to an allowed address."""
    receiver.answers = respond(307, Location=receiver.url("/other"))
    assert post(door(receiver.allow), receiver.url()).status == 307
    assert len(receiver.got) == 1


@pytest.mark.parametrize("answers", [hang, drip])
def test_the_total_time_is_limited(receiver: Receiver, answers: Callable[[Handler], None]) -> None:
    receiver.answers = answers
    started = time.monotonic()
    refusal = failure(door(receiver.allow), receiver.url(), seconds=1.5)
    assert refusal.code is Code.UNREACHABLE
    assert "1.5 s" in refusal.message
    assert time.monotonic() - started < 5


def test_an_endless_body_is_cut_off(receiver: Receiver) -> None:
    receiver.answers = flood
    started = time.monotonic()
    assert len(post(door(receiver.allow), receiver.url(), keep=16384).body) == 16384
    assert time.monotonic() - started < 5


def raw_receiver(*chunks: bytes, pause: float = 0.0, again: int = 1) -> Callable[[Handler], None]:
    """Answer each connection with these bytes."""

    def answer(handler: Handler) -> None:
        for _ in range(again):
            for chunk in chunks:
                handler.wfile.write(chunk)
                time.sleep(pause)
        handler.close_connection = True

    return answer


@pytest.mark.parametrize(
    "chunk",
    [b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, b"HTTP/1.1 200 OK\r\n" + (b"A: " + b"b" * 60000 + b"\r\n") * 9],
    ids=["interim answers", "headers"],
)
def test_endless_headers_are_cut_off(receiver: Receiver, chunk: bytes) -> None:
    receiver.answers = raw_receiver(chunk, again=1000)
    assert failure(door(receiver.allow), receiver.url()).code is Code.TOO_LARGE


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        b"\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 200 OK\r\nContent",
    ],
)
def test_a_response_that_is_not_http_is_a_failure_with_a_reason(receiver: Receiver, chunk: bytes) -> None:
    receiver.answers = raw_receiver(chunk)
    egress = door(receiver.allow)
    try:
        answer = post(egress, receiver.url())
    except GitstoreError as error:
        assert error.code is Code.UNREACHABLE
        assert "cut off" in error.message
    else:
        assert chunk.startswith(b"HTTP/1.1 200")
        assert answer.body == b""


def test_a_failed_connection_has_a_reason() -> None:
    """Without an internal name or address."""
    assert (
        "refused" in failure(door(f"127.0.0.1:{(port := free_port())}"), f"http://127.0.0.1:{port}/").message
    )

    def unknown(*_: object) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert (
        failure(door(resolve=unknown), "http://nowhere.example/").message == "the host name does not resolve"
    )


def test_the_time_limit_applies_to_the_resolver() -> None:
    """The system's own timeout is half a minute."""
    release = threading.Event()

    def hanging(*_: object) -> list[str]:
        release.wait(30)
        return []

    started = time.monotonic()
    refusal = failure(door(resolve=hanging), "http://slow.example/", seconds=0.5)
    release.set()
    assert refusal.code is Code.UNREACHABLE
    assert time.monotonic() - started < 5


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Create a self-signed certificate of hooks.example."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} "
        f"-out {cert} -days 2 -subj /CN=hooks.example -addext subjectAltName=DNS:hooks.example"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return key, cert


@pytest.fixture
def tls_receiver(certificate: tuple[Path, Path]) -> Iterator[Receiver]:
    key, cert = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with receiving() as receiver:
        receiver.server.socket = context.wrap_socket(
            receiver.server.socket, server_side=True, do_handshake_on_connect=False
        )
        yield receiver


def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[1]))


def test_tls_uses_the_name(tls_receiver: Receiver, certificate: tuple[Path, Path]) -> None:
    """SNI and verification use the name, although the connection goes to an address."""
    port = tls_receiver.port
    egress = door("127.0.0.0/8", resolve=lambda *_: ["127.0.0.1"], tls=trusting(certificate))
    assert post(egress, f"https://hooks.example:{port}/").status == 200
    refusal = failure(egress, f"https://other.example:{port}/")
    assert refusal.code is Code.UNREACHABLE
    assert "certificate" in refusal.message
    assert len(tls_receiver.got) == 1


def test_an_untrusted_certificate_is_refused(tls_receiver: Receiver) -> None:
    egress = door("127.0.0.0/8", resolve=lambda *_: ["127.0.0.1"])
    assert "certificate" in failure(egress, f"https://hooks.example:{tls_receiver.port}/").message
    assert tls_receiver.got == []


def test_the_time_limit_applies_to_tls(tls_receiver: Receiver, certificate: tuple[Path, Path]) -> None:
    tls_receiver.answers = drip
    egress = door("127.0.0.0/8", resolve=lambda *_: ["127.0.0.1"], tls=trusting(certificate))
    started = time.monotonic()
    assert (
        failure(egress, f"https://hooks.example:{tls_receiver.port}/", seconds=1.5).code is Code.UNREACHABLE
    )
    assert time.monotonic() - started < 5


def test_the_time_limit_applies_to_the_handshake(receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        failure(door(f"127.0.0.1:{port}"), f"https://127.0.0.1:{port}/", seconds=0.5)
        assert time.monotonic() - started < 5


# Git's


class RedirectingHandler:
    """Answers GET as `routes` configures: a status and a location."""

    def __init__(self, receiver: Receiver, routes: dict[str, str]) -> None:
        handler = receiver.server.RequestHandlerClass
        seen = self.seen = []  # type: list[tuple[str, str | None]]

        def do_get(this: Handler) -> None:
            seen.append((this.path, this.headers["Authorization"]))
            target = routes.get(this.path)
            respond(302, Location=target)(this) if target else respond(200, b"refs")(this)

        handler.do_GET = do_get  # type: ignore[attr-defined]


def fetch(egress: Egress, url: str, **headers: str) -> urllib3.BaseHTTPResponse:
    with egress.git_pool(seconds=10, most_bytes=10**6) as pool:
        response = pool.request("GET", url, headers=headers, preload_content=False)
        response.read()
        return response


def test_each_redirect_of_git_is_checked(receiver: Receiver) -> None:
    """To public or allowed addresses; the final URL is known."""
    site = RedirectingHandler(
        receiver, {"/a": "/b?c", "/out": "http://169.254.169.254/", "/named": "http://10.0.0.1/"}
    )
    egress = door(receiver.allow)
    assert fetch(egress, receiver.url("/a")).geturl() == receiver.url("/b?c")
    assert fetch(egress, receiver.url("/plain")).geturl() == receiver.url("/plain")
    for path in ("/out", "/named"):
        with pytest.raises(GitstoreError) as caught:
            fetch(egress, receiver.url(path))
        assert caught.value.code is Code.ADDRESS_REFUSED
    assert [path for path, _ in site.seen] == ["/a", "/b?c", "/plain", "/out", "/named"]


def test_a_redirect_loop_ends(receiver: Receiver) -> None:
    site = RedirectingHandler(receiver, {"/a": "/a"})
    with pytest.raises(GitstoreError):
        fetch(door(receiver.allow), receiver.url("/a"))
    assert len(site.seen) == 6


def test_a_credential_is_sent_to_its_host_only(receiver: Receiver) -> None:
    with receiving() as other:
        site = RedirectingHandler(receiver, {"/a": "/b", "/b": other.url("/c")})
        elsewhere = RedirectingHandler(other, {})
        fetch(door(f"{receiver.allow},{other.allow}"), receiver.url("/a"), Authorization="Basic eDp5")
        assert site.seen == [("/a", "Basic eDp5"), ("/b", "Basic eDp5")]
        assert elsewhere.seen == [("/c", None)]


def test_the_size_of_a_fetch_is_limited_in_total(receiver: Receiver) -> None:
    """Over all requests of the pool."""
    RedirectingHandler(receiver, {})
    with door(receiver.allow).git_pool(seconds=10, most_bytes=1000) as pool:
        with pytest.raises(GitstoreError) as caught:
            exhaust(pool, receiver.url("/x"))
        assert caught.value.code is Code.TOO_LARGE


def exhaust(pool: urllib3.PoolManager, url: str) -> None:
    for _ in range(100):
        pool.request("GET", url, preload_content=False).read()
