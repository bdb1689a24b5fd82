"""Egress: the one place that opens outbound connections.

Whoever may name a URL must not reach by it what only this machine reaches. So a name is resolved once, each
of its addresses is checked (webhooks/addresses.py), and one of those very addresses is connected to, while
Host, SNI and certificate go by the name. Between check and connection nobody is asked again. No proxy of the
environment stands between, and no redirect is followed unchecked.

Time and size are limited in sum (webhooks/io_budget.py): a peer that drips gains nothing by it.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import Any, Final, cast
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from gitstore.errors import Code, GitstoreError
from webhooks.addresses import Address, Allowed, Target, is_public, refused, target_of
from webhooks.io_budget import Budget, PlainSocket, TlsSocket

MOST_REDIRECTS: Final = 5
_CONNECT_SECONDS: Final = 5.0  # for one address, where there are several
_HEADERS: Final = 64 * 1024  # bytes that an answer may have beside what is kept of its body
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})

Lookup = Callable[[str, int], Sequence[str]]
"""The addresses of a name, as text; raises OSError. The port is for the resolver's sake."""


def lookup(host: str, port: int) -> list[str]:
    """The system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a subscriber answered: `body` is its beginning, `headers` have names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Egress:
    """The door. Safe to share between threads; `resolve` and `tls` are passed in for tests."""

    def __init__(
        self,
        allowed: Allowed | None = None,
        *,
        resolve: Lookup = lookup,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.allowed = allowed or Allowed()
        self._resolve = resolve
        self._tls = tls or _system_trust()
        self._tls.sslsocket_class = TlsSocket

    def check(self, url: str) -> Target:
        """What can be said of `url` without asking anybody; raises `address_refused`."""
        return target_of(url, self.allowed)

    def post(self, url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, keep: int) -> Answer:
        """POST `body`; the answer with `keep` bytes of its body. Follows no redirect.

        Raises `address_refused`, or `unreachable` with the reason in words for whoever named the URL.
        """
        budget = Budget(seconds, keep + _HEADERS)
        try:
            target = self.check(url)
            with (
                closing(GitPool(self, self._tls, budget)) as pool,
                closing(
                    pool.urlopen("POST", str(target), body=body, headers=dict(headers), redirect=False)
                ) as response,
            ):
                kept = _beginning(response, keep)
                names = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, names, kept)
        except (HTTPError, OSError) as error:
            raise GitstoreError(Code.UNREACHABLE, reason(error, budget)) from error

    @contextmanager
    def git_pool(
        self, *, seconds: float, most_bytes: int, stall: float | None = None, first: int | None = None
    ) -> Iterator[GitPool]:
        """A pool for one fetch or push by dulwich's HTTP client, with a budget for all of it.

        Follows redirects of GET, each hop checked as the first; not from https to http. Besides urllib3's
        errors, requests raise `address_refused` and `too_large`. `stall` and `first` are the Budget's.
        """
        budget = Budget(seconds, most_bytes, stall=stall, first=first)
        with closing(GitPool(self, self._tls, budget)) as pool:
            yield pool

    def connect(self, host: str, port: int, budget: Budget) -> socket.socket:
        """A connection to one of the checked addresses of `host`; raises OSError or `address_refused`."""
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
        """All of them, or none: where one is not public, somebody plays with the name."""
        target = Target("http", host, port, "/")
        literal = target.literal
        texts = [str(literal)] if literal else self._resolve_within(host, port, budget.remaining())
        found = [ip_address(text.partition("%")[0]) for text in texts]
        if not self.allowed.host(target):
            for address, text in zip(found, texts, strict=True):
                if not self.allowed.address(address) and ("%" in text or not is_public(address)):
                    # Which one, is nothing that an outsider should learn of our network.
                    raise refused(f"{host} leads to an address that is not public")
        return found

    def _resolve_within(self, host: str, port: int, seconds: float) -> Sequence[str]:
        """What the resolver says, if it says it in time: the system's has a patience of its own."""
        answers: queue.SimpleQueue[Sequence[str] | BaseException] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._resolve(host, port))
            except BaseException as error:
                answers.put(error)

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        try:
            answer = answers.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError("the name could not be resolved in time") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer


def reason(error: BaseException, budget: Budget | None = None) -> str:
    """Why an exchange failed, in words that its own user may read."""
    root = error
    while (behind := _behind(root)) is not None:
        root = behind
    match root:
        case TimeoutError() | urllib3.exceptions.TimeoutError():
            if budget is None:
                return "no answer in time"
            if budget.stall is not None and not budget.is_over:
                return f"nothing came for {budget.stall:g} s"
            return f"no complete answer within {budget.seconds:g} s"
        case socket.gaierror():
            return "the host name does not resolve"
        case ssl.SSLCertVerificationError():
            return f"the certificate is not accepted: {root.verify_message}"
        case ssl.SSLError():
            return "no TLS connection could be made"
        case ConnectionRefusedError():
            return "the connection was refused"
        case OSError() if root.strerror:
            return f"the connection failed: {root.strerror}"
    return "the other side did not answer in HTTP, or broke off"


@cache
def _system_trust() -> ssl.SSLContext:
    """The system's trusted certificates. Loading them takes some 40 ms of CPU: once a process is enough."""
    return ssl.create_default_context()


def _behind(error: BaseException) -> BaseException | None:
    """What `error` wraps. urllib3 does so without chaining, at times: then it is an argument."""
    context = None if error.__suppress_context__ else error.__context__
    return error.__cause__ or context or next((a for a in error.args if isinstance(a, BaseException)), None)


def _beginning(response: BaseHTTPResponse, size: int) -> bytes:
    """The first `size` bytes of the body as they come over the wire; fewer where it breaks off or drips."""
    kept = b""
    try:
        while len(kept) < size and (part := response.read1(size - len(kept), decode_content=False)):
            kept += part
    except (HTTPError, OSError, GitstoreError):
        # The status, which decides, is there already.
        pass
    return kept


# How urllib3 is made to connect by way of the door


class _Connection(HTTPConnection):
    door: Egress
    budget: Budget

    def _new_conn(self) -> socket.socket:
        return self.door.connect(self.host, self.port, self.budget)


class _TlsConnection(HTTPSConnection):
    door: Egress
    budget: Budget

    def _new_conn(self) -> socket.socket:
        return self.door.connect(self.host, self.port, self.budget)

    def connect(self) -> None:
        super().connect()
        cast(TlsSocket, self.sock).budget = self.budget


class _HostPool(HTTPConnectionPool):
    ConnectionCls = _Connection
    door: Egress
    budget: Budget

    def _new_conn(self) -> _Connection:
        made = cast(_Connection, super()._new_conn())
        made.door, made.budget = self.door, self.budget
        return made


class _TlsHostPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection
    door: Egress
    budget: Budget

    def _new_conn(self) -> _TlsConnection:
        made = cast(_TlsConnection, super()._new_conn())
        made.door, made.budget = self.door, self.budget
        return made


class GitPool(urllib3.PoolManager):
    """Connections of one exchange. urllib3's own, but for how it connects and what it follows.

    `go_on` lets it receive what comes after the beginning (Budget). `explain` says why a request failed.
    """

    def __init__(self, door: Egress, tls: ssl.SSLContext, budget: Budget) -> None:
        super().__init__(ssl_context=tls, retries=False)
        self.pool_classes_by_scheme = {"http": _HostPool, "https": _TlsHostPool}
        self._door = door
        self.budget = budget

    def close(self) -> None:
        """At once, rather than when somebody collects the garbage."""
        for key in self.pools.keys():  # noqa: SIM118 (it can't be iterated over)
            self.pools[key].close()
        self.clear()

    def go_on(self) -> None:
        self.budget.go_on()

    def explain(self, error: BaseException) -> str:
        return reason(error, self.budget)

    def _new_pool(self, scheme: str, host: str, port: int, request_context: Any = None) -> HTTPConnectionPool:
        made = cast(_HostPool, super()._new_pool(scheme, host, port, request_context))
        made.door, made.budget = self._door, self.budget
        return made

    def urlopen(  # type: ignore[override] # as PoolManager's own
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> BaseHTTPResponse:
        """Each hop checked. Bodies come as they are: a small compressed one may be huge."""
        headers = {**(options.pop("headers", None) or self.headers), "Accept-Encoding": "identity"}
        options.update(retries=False, preload_content=False, redirect=False, decode_content=False)
        follow = redirect and method in ("GET", "HEAD")
        target, shown = self._door.check(url), url
        for _ in range(MOST_REDIRECTS + 1):
            options["timeout"] = urllib3.Timeout(total=self.budget.remaining())
            response = super().urlopen(method, str(target), headers=headers, **options)
            location = response.headers.get("Location") if response.status in _REDIRECTS else None
            if not follow or not location:
                # Where it came from: dulwich goes on from there. urllib3 leaves the path alone in it.
                response.url = shown
                return response
            response.close()
            before, target = target, self._door.check(urljoin(str(target), location))
            shown = str(target)
            if before.scheme == "https" and target.scheme == "http":
                raise refused("a redirect from https to http is not followed")
            if before.origin != target.origin:
                headers = {k: v for k, v in headers.items() if k.lower() not in _SECRET_HEADERS}
        raise refused(f"more than {MOST_REDIRECTS} redirects")
