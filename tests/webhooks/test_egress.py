"""Egress: connections go to checked addresses alone, and cost no more than they may."""

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
from tests.webhooks.receiver import Handler, Receiver, drip, flood, free_port, hang, receiving, say
from webhooks.addresses import Allowed
from webhooks.egress import Answer, Egress, Lookup


def door(
    allow: str = "", resolve: Callable[[str, int], Sequence[str]] | None = None, **options: ssl.SSLContext
) -> Egress:
    more: dict[str, Lookup] = {"resolve": resolve} if resolve else {}
    return Egress(Allowed.parse(allow), **more, **options)  # type: ignore[arg-type]


def post(egress: Egress, url: str, seconds: float = 10.0, keep: int = 100) -> Answer:
    return egress.post(url, b"{}", {"X-Own": "1"}, seconds=seconds, keep=keep)


def failure(egress: Egress, url: str, seconds: float = 10.0) -> GitstoreError:
    with pytest.raises(GitstoreError) as caught:
        post(egress, url, seconds)
    return caught.value


def test_an_answer_is_had_with_the_beginning_of_its_body(receiver: Receiver) -> None:
    """Its status, its headers in lower case, and as much of the body as is asked for."""
    receiver.answers = say(503, b"x" * 1000, Retry_After="7")
    answer = post(door(receiver.allow), receiver.url("/a?b=c"))
    assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "7", b"x" * 100)
    (got,) = receiver.got
    assert (got.path, got.body, got.headers["x-own"]) == ("/a?b=c", b"{}", "1")
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_what_is_not_allowed_is_not_even_connected_to(receiver: Receiver) -> None:
    """Loopback is not public."""
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
def test_a_name_is_refused_where_one_of_its_addresses_is_not_public(addresses: list[str]) -> None:
    """Which one, and what it is, is not told."""
    refusal = failure(door(resolve=lambda *_: addresses), "http://rebind.example/")
    assert refusal.code is Code.ADDRESS_REFUSED
    assert not any(address in refusal.message for address in addresses)


def test_a_name_that_resolves_to_another_address_the_next_time_gains_nothing(receiver: Receiver) -> None:
    """It is resolved once: there is no second time between the check and the connection."""
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


def test_a_name_that_is_allowed_may_lead_anywhere(receiver: Receiver) -> None:
    """The Host header is the name."""
    egress = door(f"hooks.internal:{receiver.port}", resolve=lambda *_: ["127.0.0.1"])
    assert post(egress, f"http://hooks.internal:{receiver.port}/").status == 200
    assert receiver.got[0].headers["host"] == f"hooks.internal:{receiver.port}"


def test_the_next_address_is_tried_where_one_does_not_answer(receiver: Receiver) -> None:
    """A name with several addresses, the first of which is dead."""
    egress = door("127.0.0.0/8", resolve=lambda *_: ["127.0.0.9", "127.0.0.1"])
    assert post(egress, f"http://two.example:{receiver.port}/").status == 200


def test_a_network_that_is_allowed_is_checked_after_resolving(receiver: Receiver) -> None:
    """For a network, the address counts, not the name."""
    egress = door("127.0.0.0/8", resolve=lambda *_: ["127.0.0.1"])
    assert post(egress, f"http://any.example:{receiver.port}/").status == 200


def test_no_proxy_of_the_environment_is_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets one for other programs has not asked for this."""
    proxy = f"http://127.0.0.1:{free_port()}"
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setitem(os.environ, name, proxy)
    assert post(door(receiver.allow), receiver.url()).status == 200


def test_a_delivery_follows_no_redirect(receiver: Receiver) -> None:
    """Not even to where it may go."""
    receiver.answers = say(307, Location=receiver.url("/other"))
    assert post(door(receiver.allow), receiver.url()).status == 307
    assert len(receiver.got) == 1


@pytest.mark.parametrize("answers", [hang, drip])
def test_time_is_limited_in_sum(receiver: Receiver, answers: Callable[[Handler], None]) -> None:
    """A subscriber that hangs, or drips, has its seconds and no more."""
    receiver.answers = answers
    started = time.monotonic()
    refusal = failure(door(receiver.allow), receiver.url(), seconds=1.5)
    assert refusal.code is Code.UNREACHABLE
    assert "1.5 s" in refusal.message
    assert time.monotonic() - started < 5


def test_a_body_that_never_ends_is_left_alone(receiver: Receiver) -> None:
    """Of a gigabyte, the beginning is read."""
    receiver.answers = flood
    started = time.monotonic()
    assert len(post(door(receiver.allow), receiver.url(), keep=16384).body) == 16384
    assert time.monotonic() - started < 5


def raw(*chunks: bytes, pause: float = 0.0, again: int = 1) -> Callable[[Handler], None]:
    """Sends just these bytes, again and again."""

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
def test_headers_that_never_end_are_cut_off(receiver: Receiver, chunk: bytes) -> None:
    """Before they cost memory or time."""
    receiver.answers = raw(chunk, again=1000)
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
def test_what_is_no_http_is_told_in_words(receiver: Receiver, chunk: bytes) -> None:
    """An answer is an answer or a failure."""
    receiver.answers = raw(chunk)
    egress = door(receiver.allow)
    try:
        answer = post(egress, receiver.url())
    except GitstoreError as error:
        assert error.code is Code.UNREACHABLE
        assert "broke off" in error.message
    else:
        assert chunk.startswith(b"HTTP/1.1 200")
        assert answer.body == b""


def test_failures_are_told_in_words() -> None:
    """Without a name or an address of ours in them."""
    assert (
        "refused" in failure(door(f"127.0.0.1:{(port := free_port())}"), f"http://127.0.0.1:{port}/").message
    )

    def unknown(*_: object) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert (
        failure(door(resolve=unknown), "http://nowhere.example/").message == "the host name does not resolve"
    )


def test_a_resolver_that_hangs_has_the_same_time_limit() -> None:
    """The system's own has a patience of half a minute."""
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
    """Of hooks.example, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "cert.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} "
        f"-out {made} -days 2 -subj /CN=hooks.example -addext subjectAltName=DNS:hooks.example"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return key, made


@pytest.fixture
def tls_receiver(certificate: tuple[Path, Path]) -> Iterator[Receiver]:
    key, made = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    with receiving() as receiver:
        receiver.server.socket = context.wrap_socket(
            receiver.server.socket, server_side=True, do_handshake_on_connect=False
        )
        yield receiver


def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[1]))


def test_the_certificate_is_that_of_the_name(tls_receiver: Receiver, certificate: tuple[Path, Path]) -> None:
    """SNI and the check go by the name, though the connection goes to an address."""
    port = tls_receiver.port
    egress = door("127.0.0.0/8", resolve=lambda *_: ["127.0.0.1"], tls=trusting(certificate))
    assert post(egress, f"https://hooks.example:{port}/").status == 200
    refusal = failure(egress, f"https://other.example:{port}/")
    assert refusal.code is Code.UNREACHABLE
    assert "certificate" in refusal.message
    assert len(tls_receiver.got) == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_receiver: Receiver) -> None:
    """There is no way to turn that off."""
    egress = door("127.0.0.0/8", resolve=lambda *_: ["127.0.0.1"])
    assert "certificate" in failure(egress, f"https://hooks.example:{tls_receiver.port}/").message
    assert tls_receiver.got == []


def test_time_is_limited_under_tls_too(tls_receiver: Receiver, certificate: tuple[Path, Path]) -> None:
    """A drip is a drip, encrypted or not."""
    tls_receiver.answers = drip
    egress = door("127.0.0.0/8", resolve=lambda *_: ["127.0.0.1"], tls=trusting(certificate))
    started = time.monotonic()
    assert (
        failure(egress, f"https://hooks.example:{tls_receiver.port}/", seconds=1.5).code is Code.UNREACHABLE
    )
    assert time.monotonic() - started < 5


def test_a_handshake_that_hangs_has_the_same_time_limit(receiver: Receiver) -> None:
    """Where somebody listens who does not speak TLS, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        failure(door(f"127.0.0.1:{port}"), f"https://127.0.0.1:{port}/", seconds=0.5)
        assert time.monotonic() - started < 5


# Git's


class Redirecting:
    """Answers GET with what `routes` says: a status and where to."""

    def __init__(self, receiver: Receiver, routes: dict[str, str]) -> None:
        handler = receiver.server.RequestHandlerClass
        seen = self.seen = []  # type: list[tuple[str, str | None]]

        def do_get(this: Handler) -> None:
            seen.append((this.path, this.headers["Authorization"]))
            target = routes.get(this.path)
            say(302, Location=target)(this) if target else say(200, b"refs")(this)

        handler.do_GET = do_get  # type: ignore[attr-defined]


def fetch(egress: Egress, url: str, **headers: str) -> urllib3.BaseHTTPResponse:
    with egress.git_pool(seconds=10, most_bytes=10**6) as pool:
        response = pool.request("GET", url, headers=headers, preload_content=False)
        response.read()
        return response


def test_git_s_redirects_are_followed_and_each_is_checked(receiver: Receiver) -> None:
    """To what is public, or allowed; where it came from in the end is told."""
    site = Redirecting(
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


def test_a_redirect_in_circles_ends(receiver: Receiver) -> None:
    """After a few."""
    site = Redirecting(receiver, {"/a": "/a"})
    with pytest.raises(GitstoreError):
        fetch(door(receiver.allow), receiver.url("/a"))
    assert len(site.seen) == 6


def test_a_credential_does_not_follow_to_another_host(receiver: Receiver) -> None:
    """To the same, it does."""
    with receiving() as other:
        site = Redirecting(receiver, {"/a": "/b", "/b": other.url("/c")})
        elsewhere = Redirecting(other, {})
        fetch(door(f"{receiver.allow},{other.allow}"), receiver.url("/a"), Authorization="Basic eDp5")
        assert site.seen == [("/a", "Basic eDp5"), ("/b", "Basic eDp5")]
        assert elsewhere.seen == [("/c", None)]


def test_what_git_fetches_is_limited_in_size(receiver: Receiver) -> None:
    """In sum, over all requests of the pool."""
    Redirecting(receiver, {})
    with door(receiver.allow).git_pool(seconds=10, most_bytes=1000) as pool:
        with pytest.raises(GitstoreError) as caught:
            exhaust(pool, receiver.url("/x"))
        assert caught.value.code is Code.TOO_LARGE


def exhaust(pool: urllib3.PoolManager, url: str) -> None:
    for _ in range(100):
        pool.request("GET", url, preload_content=False).read()
