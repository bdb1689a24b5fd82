"""Clients: the address that a request comes from, and a limit on failed sign-ins from it.

The address is that of the TCP peer or, if the peer is a proxy that the operator trusts, the one that the
proxy wrote into X-Forwarded-For. The header is ignored from other clients, since any client can send it.

An address may fail BURST times at once, and then once every FAILURE_SECONDS. Beyond that, credentials from it
are refused without a lookup, except those that were accepted recently: one client behind an address, such as
a job with an old token, must not lock out the others. The web processes share the counts.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gitstore.errors import TemporaryError
from service.errors import HttpCode

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

BURST: Final = 20
FAILURE_SECONDS: Final = 6.0
ACCEPTED_SECONDS: Final = 900.0
"""Time for which an accepted credential is exempt from the limit of its address."""
_FULL: Final = BURST * FAILURE_SECONDS
_SLOTS: Final = 2**16  # of each table; addresses that hash to the same slot share its limit
_FILE: Final = "sign-ins"
_PEER: Final = "gitstore.peer"
_MOST_HOPS: Final = 32
_OWN_PREFIX: Final = 64  # bits of an IPv6 address that one client's addresses have in common


@dataclass(frozen=True, slots=True)
class Proxies:
    """Addresses of trusted proxies."""

    networks: tuple[IPv4Network | IPv6Network, ...]

    @classmethod
    def parse(cls, text: str) -> Proxies:
        """Parse comma-separated addresses and networks. Raises ValueError."""
        return cls(tuple(ip_network(part.strip()) for part in text.split(",") if part.strip()))

    def __str__(self) -> str:
        """Return the text form that `parse` accepts."""
        return ",".join(map(str, self.networks))

    def trusts(self, address: str) -> bool:
        parsed = ip_address(address)
        mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
        return any((mapped or parsed) in network for network in self.networks)


def set_address(environ: WSGIEnvironment, proxies: Proxies | None) -> None:
    """Set REMOTE_ADDR to the address of the client behind trusted proxies; only once for each request."""
    if proxies is None or _PEER in environ:
        return
    environ[_PEER] = environ.get("REMOTE_ADDR", "")
    environ["REMOTE_ADDR"] = _behind(proxies, environ[_PEER], environ.get("HTTP_X_FORWARDED_FOR", ""))


def _behind(proxies: Proxies, peer: str, forwarded: str) -> str:
    """Return the last address that a trusted proxy named; a proxy appends the address of its own peer."""
    address = peer
    try:
        for hop in reversed(forwarded.rsplit(",", _MOST_HOPS)):
            if not proxies.trusts(address) or not hop.strip():
                break
            address = str(ip_address(_without_port(hop.strip())))
    except ValueError:  # not an address: the proxy that passed it on is the last known client
        pass
    return address


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


class SignIns:
    """Recent failures of addresses, and recently accepted credentials. Safe to share between threads."""

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.time) -> None:
        """Keep the counts in a file of `folder`, for all processes, or in this process alone."""
        self._clock = clock
        size = 2 * 8 * _SLOTS
        if folder is None:
            memory = mmap.mmap(-1, size)
        else:
            handle = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(handle, size)
                memory = mmap.mmap(handle, size)
            finally:
                os.close(handle)
        times = memoryview(memory).cast("d")
        self._failures, self._accepted = times[:_SLOTS], times[_SLOTS:]

    def check(self, address: str, credential: bytes) -> None:
        """Raise `too_many_requests` if the address failed too often, unless the credential is a known one."""
        now = self._clock()
        wait = self._backlog(address, now) - (BURST - 1) * FAILURE_SECONDS
        if wait > 0 and not 0 <= now - self._accepted[_slot(credential)] < ACCEPTED_SECONDS:
            raise TemporaryError(
                HttpCode.TOO_MANY_REQUESTS,
                "too many failed sign-ins from this address: wait, then send a valid token",
                retry_after=math.ceil(wait),
            )

    def failed(self, address: str) -> None:
        now = self._clock()
        backlog = min(self._backlog(address, now) + FAILURE_SECONDS, _FULL)
        self._failures[_slot_of(address)] = now + backlog

    def accepted(self, credential: bytes) -> None:
        self._accepted[_slot(credential)] = self._clock()

    def _backlog(self, address: str, now: float) -> float:
        """Return the seconds until all failures of the address are forgotten."""
        return min(max(self._failures[_slot_of(address)] - now, 0.0), _FULL)


class UncountedSignIns(SignIns):
    """The same, for tries that are repeated elsewhere, where their failures are counted."""

    def failed(self, address: str) -> None:
        pass


@lru_cache(1024)  # an engine sends all its requests from one address
def _slot_of(address: str) -> int:
    return _slot(_owner_of(address))


def _owner_of(address: str) -> bytes:
    """Return the address, or the part of an IPv6 address that all addresses of its owner have."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address.encode()
    if isinstance(parsed, IPv6Address):
        return (parsed.ipv4_mapped or ip_network((int(parsed), _OWN_PREFIX), strict=False)[0]).packed
    return parsed.packed


def _slot(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(key).digest()[:8]) % _SLOTS
