"""Egress: the only module that opens outbound connections.

A user-supplied URL must not reach hosts that only this machine can reach (SSRF). A name is therefore resolved
once, each of its addresses is checked (webhooks/addresses.py), and the connection is opened to one of these
addresses, while Host, SNI and certificate use the name. The name is not resolved again between check and
connection. Proxies of the environment are ignored, and no redirect is followed unchecked.

Time and size are limited for an exchange as a whole. A timeout of urllib3 or of a socket applies to each
single read, so a peer that sends one byte a second could occupy a thread forever.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from gitstore.errors import Code, GitstoreError, TooLargeError
from webhooks.addresses import Address, Allowed, Target, is_public, refused, target_of

MOST_REDIRECTS: Final = 5
_CONNECT_SECONDS: Final = 5.0  # for each address of a name
_HEADERS: Final = 64 * 1024  # bytes of a response in addition to the stored part of its body
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})

Lookup = Callable[[str, int], Sequence[str]]
"""Callback that resolves a name and a port to addresses, as text. Raises OSError."""


def lookup(host: str, port: int) -> list[str]:
    """Resolve a name with the system's resolver. Raises OSError."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


@dataclass(frozen=True, slots=True)
class Response:
    """A subscriber's response. `body` is its beginning; names in `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Budget:
    """Total limits of an exchange: `seconds` from its creation and `size` bytes received.

    `stall` is the longest silence in seconds (None: limited by the total time only). `first` is the number of
    bytes that may be received before `allow_all` is called (None: all).
    """

    def __init__(
        self, seconds: float, size: int, *, stall: float | None = None, first: int | None = None
    ) -> None:
        self.seconds = seconds
        self.stall = stall
        self._deadline = time.monotonic() + seconds
        self._left = size if first is None else min(first, size)
        self._later = size - self._left

    def remaining(self) -> float:
        """Return the seconds that the next operation may take. Raises TimeoutError if no time is left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time limit of this exchange is exceeded")
        return left if self.stall is None else min(left, self.stall)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline

    def allow_all(self) -> None:
        """Allow the bytes beyond `first` to be received."""
        self._left += self._later
        self._later = 0

    def take(self, size: int) -> None:
        """Count `size` received bytes. Raises `too_large` beyond the limit."""
        self._left -= size
        if self._left < 0:
            raise TooLargeError("the response is larger than the limit")


class _Metered(socket.socket if TYPE_CHECKING else object):  # type: ignore[misc]
    """A socket whose operations are limited to the remaining budget."""

    budget: Budget | None = None

    def recv_into(self, *arguments: Any) -> int:
        self._limit()
        count: int = super().recv_into(*arguments)
        if self.budget is not None:
            self.budget.take(count)
        return count

    def send(self, *arguments: Any) -> int:
        self._limit()
        sent: int = super().send(*arguments)
        return sent

    def sendall(self, *arguments: Any) -> None:
        self._limit()
        super().sendall(*arguments)

    def _limit(self) -> None:
        if self.budget is not None:
            self.settimeout(self.budget.remaining())


class PlainSocket(_Metered, socket.socket):
    pass


class TlsSocket(_Metered, ssl.SSLSocket):
    pass


class Egress:
    """Client for outbound connections. Safe to share between threads.

    `resolve` and `tls` are passed in for tests.
    """

    def __init__(
        self,
        allowed: Allowed | None = None,
        *,
        resolve: Lookup = lookup,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.allowed = allowed or Allowed()
        self._resolve = resolve
        self._given_tls = tls

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = self._given_tls or _system_trust()
        context.sslsocket_class = TlsSocket
        return context

    def check(self, url: str) -> Target:
        """Check and parse `url` without resolving its host. Raises `address_refused`."""
        return target_of(url, self.allowed)

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, keep: int
    ) -> Response:
        """POST `body`. Return the response with at most `keep` bytes of its body. Follows no redirect.

        Raises `address_refused`, or `unreachable` with a reason for the user who entered the URL.
        """
        return self._exchange("POST", url, Budget(seconds, keep + _HEADERS), keep, body, headers)

    def get(self, url: str, *, seconds: float, keep: int) -> Response:
        """GET `url`, as `post` does."""
        return self._exchange("GET", url, Budget(seconds, keep + _HEADERS), keep)

    def _exchange(
        self,
        method: str,
        url: str,
        budget: Budget,
        keep: int,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        try:
            target = self.check(url)
            with (
                closing(GitPool(self, self._tls, budget)) as pool,
                closing(
                    pool.urlopen(method, str(target), body=body, headers=dict(headers or {}), redirect=False)
                ) as response,
            ):
                beginning = _beginning(response, keep)
                names = {name.lower(): value for name, value in response.headers.items()}
                return Response(response.status, names, beginning)
        except (HTTPError, OSError) as error:
            raise GitstoreError(Code.UNREACHABLE, reason(error, budget)) from error

    @contextmanager
    def git_pool(
        self, *, seconds: float, most_bytes: int, stall: float | None = None, first: int | None = None
    ) -> Iterator[GitPool]:
        """Return a pool for one fetch or push by dulwich's HTTP client, with a budget for the whole exchange.

        Follows redirects of GET, with each hop checked like the first, but not from https to http. Besides
        urllib3's errors, requests raise `address_refused` and `too_large`. `Budget` defines `stall` and
        `first`.
        """
        budget = Budget(seconds, most_bytes, stall=stall, first=first)
        with closing(GitPool(self, self._tls, budget)) as pool:
            yield pool

    def connect(self, host: str, port: int, budget: Budget) -> socket.socket:
        """Connect to one of the checked addresses of `host`. Raises OSError or `address_refused`."""
        failure: OSError | None = None
        for address in self._addresses(host, port, budget):
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            connection = PlainSocket(family, socket.SOCK_STREAM)
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(min(budget.remaining(), _CONNECT_SECONDS))
                connection.connect((str(address), port))
                connection.settimeout(budget.remaining())
            except OSError as error:
                connection.close()
                failure = error
            else:
                connection.budget = budget
                return connection
        raise failure or OSError("the name has no address")

    def _addresses(self, host: str, port: int, budget: Budget) -> list[Address]:
        """Resolve and check the host. All addresses must be public: a mixed answer suggests DNS rebinding."""
        target = Target("http", host, port, "/")
        literal = target.literal
        texts = [str(literal)] if literal else self._resolve_within(host, port, budget.remaining())
        addresses = [ip_address(text.partition("%")[0]) for text in texts]
        if not self.allowed.host(target):
            for address, text in zip(addresses, texts, strict=True):
                if not self.allowed.address(address) and ("%" in text or not is_public(address)):
                    # The message omits the address, which would disclose the internal network.
                    raise refused(f"{host} resolves to an address that is not public")
        return addresses

    def _resolve_within(self, host: str, port: int, seconds: float) -> Sequence[str]:
        """Resolve `host` within `seconds`, in a thread, since the system's resolver has its own timeout.

        Raises TimeoutError and the errors of the resolver.
        """
        answers: queue.SimpleQueue[Sequence[str] | BaseException] = queue.SimpleQueue()

        def resolve() -> None:
            try:
                answers.put(self._resolve(host, port))
            except BaseException as error:
                answers.put(error)

        threading.Thread(target=resolve, name="resolve", daemon=True).start()
        try:
            answer = answers.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError("the name could not be resolved in time") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer


def reason(error: BaseException, budget: Budget | None = None) -> str:
    """Return the reason of a failed exchange as text that is safe to show to the user."""
    root = error
    while (cause := _cause(root)) is not None:
        root = cause
    match root:
        case TimeoutError() | urllib3.exceptions.TimeoutError():
            if budget is None:
                return "no response in time"
            if budget.stall is not None and not budget.is_over:
                return f"no data received for {budget.stall:g} s"
            return f"no complete response within {budget.seconds:g} s"
        case socket.gaierror():
            return "the host name does not resolve"
        case ssl.SSLCertVerificationError():
            return f"the certificate is not accepted: {root.verify_message}"
        case ssl.SSLError():
            return "the TLS handshake failed"
        case ConnectionRefusedError():
            return "the connection was refused"
        case OSError() if root.strerror:
            return f"the connection failed: {root.strerror}"
    return "the response was not HTTP, or was cut off"


@cache
def _system_trust() -> ssl.SSLContext:
    """Return a TLS context with the system's trusted certificates.

    Cached for the process, and loaded at the first use, since loading takes some 40 ms of CPU.
    """
    return ssl.create_default_context()


def _cause(error: BaseException) -> BaseException | None:
    """Return the error that `error` wraps. urllib3 sometimes passes it as an argument instead of chaining."""
    context = None if error.__suppress_context__ else error.__context__
    return error.__cause__ or context or next((a for a in error.args if isinstance(a, BaseException)), None)


def _beginning(response: BaseHTTPResponse, size: int) -> bytes:
    """Return the first `size` raw bytes of the body, or fewer if it is cut short or too slow."""
    body = b""
    try:
        while len(body) < size and (part := response.read1(size - len(body), decode_content=False)):
            body += part
    except (HTTPError, OSError, GitstoreError):
        # The status is already known, and it alone determines the outcome.
        pass
    return body


# urllib3 classes that connect through Egress


class _Guarded:
    """Attributes of connections and pools, set where they are created."""

    egress: Egress
    budget: Budget


class _Connection(_Guarded, HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return self.egress.connect(self.host, self.port, self.budget)


class _TlsConnection(_Guarded, HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return self.egress.connect(self.host, self.port, self.budget)

    def connect(self) -> None:
        super().connect()
        cast(TlsSocket, self.sock).budget = self.budget


class _HostPool(_Guarded, HTTPConnectionPool):
    ConnectionCls = _Connection

    def _new_conn(self) -> _Connection:
        connection = cast(_Connection, super()._new_conn())
        connection.egress, connection.budget = self.egress, self.budget
        return connection


class _TlsHostPool(_Guarded, HTTPSConnectionPool):
    ConnectionCls = _TlsConnection

    def _new_conn(self) -> _TlsConnection:
        connection = cast(_TlsConnection, super()._new_conn())
        connection.egress, connection.budget = self.egress, self.budget
        return connection


class GitPool(urllib3.PoolManager):
    """Connection pool of one exchange: urllib3's PoolManager with checked connections and redirects.

    `explain` returns the reason of a failed request.
    """

    def __init__(self, egress: Egress, tls: ssl.SSLContext, budget: Budget) -> None:
        super().__init__(ssl_context=tls, retries=False)
        self.pool_classes_by_scheme = {"http": _HostPool, "https": _TlsHostPool}
        self._egress = egress
        self.budget = budget

    def close(self) -> None:
        """Close all connections at once instead of at garbage collection."""
        for key in self.pools.keys():  # noqa: SIM118 (it can't be iterated over)
            self.pools[key].close()
        self.clear()

    def explain(self, error: BaseException) -> str:
        return reason(error, self.budget)

    def _new_pool(self, scheme: str, host: str, port: int, request_context: Any = None) -> HTTPConnectionPool:
        pool = cast(_HostPool, super()._new_pool(scheme, host, port, request_context))
        pool.egress, pool.budget = self._egress, self.budget
        return pool

    def urlopen(  # type: ignore[override] # as PoolManager's own
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> BaseHTTPResponse:
        """Send a request and check each redirect.

        Bodies are requested uncompressed and not decoded: a small compressed body may be huge.
        """
        headers = {**(options.pop("headers", None) or self.headers), "Accept-Encoding": "identity"}
        options.update(retries=False, preload_content=False, redirect=False, decode_content=False)
        follow = redirect and method in ("GET", "HEAD")
        target, final_url = self._egress.check(url), url
        for _ in range(MOST_REDIRECTS + 1):
            options["timeout"] = urllib3.Timeout(total=self.budget.remaining())
            response = super().urlopen(method, str(target), headers=headers, **options)
            location = response.headers.get("Location") if response.status in _REDIRECTS else None
            if not follow or not location:
                # dulwich continues from the final URL. urllib3 sets only the path in `response.url`.
                response.url = final_url
                return response
            response.close()
            before, target = target, self._egress.check(urljoin(str(target), location))
            final_url = str(target)
            if before.scheme == "https" and target.scheme == "http":
                raise refused("a redirect from https to http is not followed")
            if before.origin != target.origin:
                headers = {k: v for k, v in headers.items() if k.lower() not in _SECRET_HEADERS}
        raise refused(f"more than {MOST_REDIRECTS} redirects")
