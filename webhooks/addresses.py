"""Allowed outbound addresses: the grammar of URLs and the definition of a public address. Pure.

A URL is accepted only in a spelling that all programs parse alike: http or https, a host in ASCII (an
internationalized name in its xn-- form) or an address in its usual form, no user, no zone, no trailing dot.
The checked host is therefore the one that is connected to, regardless of the parser. Of the ports below 1024
only 80 and 443 are accepted, so that requests cannot reach services of other protocols.

Public addresses are those outside the blocks of the IANA registries of special-purpose addresses
(https://www.iana.org/assignments/iana-ipv4-special-registry, .../iana-ipv6-special-registry). The blocks are
listed here, since `ipaddress.is_global` changes with Python's patch releases and classifies multicast as
global. Addresses that embed another address (IPv4-mapped, NAT64, 6to4, Teredo) are not public.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from gitstore.errors import Code, GitstoreError

LONGEST_URL: Final = 2000
PORTS: Final = {"http": 80, "https": 443}
_PRIVILEGED: Final = 1024

_URL: Final = re.compile(r"(https?)://([^/?#\\]+)([/?][^#\\]*)?", re.IGNORECASE)
_VISIBLE: Final = re.compile(r"[!-~]+")
_AUTHORITY: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]@]+))(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# A host whose last label is a number is parsed as an IPv4 address, in one of many forms
# (https://url.spec.whatwg.org/#ends-in-a-number-checker; inet_aton(3)).
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

Address = IPv4Address | IPv6Address

_NOT_PUBLIC_V4: Final = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' NAT; Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host, in each of its virtual machines
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # automatic multicast tunneling
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_PUBLIC_V6: Final = IPv6Network("2000::/3")  # all allocated global unicast
_NOT_PUBLIC_V6: Final = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)


@dataclass(frozen=True, slots=True)
class Target:
    """A well-formed URL. `host` is in lower case; an IPv6 address has no brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def literal(self) -> Address | None:
        """The host as an address, or None if it is a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


@dataclass(frozen=True, slots=True)
class Allowed:
    """Exceptions for targets that are not public, for development and for private networks.

    `hosts` are pairs of a host, as written in URLs, and a port; they apply to any address to which the host
    resolves. `networks` are whole networks.
    """

    hosts: frozenset[tuple[str, int]] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Allowed:
        """Parse comma-separated `host:port` entries and networks. Raises ValueError."""
        hosts, networks = set(), []
        for entry in filter(None, (part.strip() for part in text.split(","))):
            if "/" in entry:
                networks.append(ip_network(entry))
                continue
            match = _AUTHORITY.fullmatch(entry.lower())
            if match is None or match["port"] is None:
                raise ValueError(entry)
            hosts.add((_host(match), _port(match, "http")))
        return cls(frozenset(hosts), tuple(networks))

    def __str__(self) -> str:
        """Return the text form that `parse` accepts."""
        hosts = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in sorted(self.hosts))
        return ",".join([*hosts, *map(str, self.networks)])

    def host(self, target: Target) -> bool:
        return (target.host, target.port) in self.hosts

    def address(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def target_of(url: str, allowed: Allowed = Allowed()) -> Target:
    """Parse `url`. Raises `address_refused` for a malformed, ambiguous or evidently non-public URL.

    The addresses of a host name are checked when a connection is opened.
    """
    if len(url) > LONGEST_URL or not _VISIBLE.fullmatch(url):
        raise refused("a URL has at most 2000 visible ASCII characters (names in the xn-- form)")
    match = _URL.fullmatch(url)
    if match is None:
        raise refused("a URL is http:// or https://, a host and a path, without a backslash or a #fragment")
    scheme = match[1].lower()
    if "@" in match[2]:
        raise refused("a URL must not contain a user or a password")
    authority = _AUTHORITY.fullmatch(match[2].lower())
    if authority is None:
        raise refused("the host of the URL is malformed")
    try:
        path = "/" + (match[3] or "").removeprefix("/")
        target = Target(scheme, _host(authority), _port(authority, scheme), path)
    except ValueError as error:
        raise refused(f"the host of the URL is not accepted: {error}") from None
    if not allowed.host(target):
        _check(target, allowed)
    return target


def is_public(address: Address) -> bool:
    """Return whether `address` is a public unicast address that embeds no other address."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _NOT_PUBLIC_V4)
    if address.scope_id is not None or address not in _PUBLIC_V6:
        return False
    return not any(address in block for block in _NOT_PUBLIC_V6)


def refused(message: str) -> GitstoreError:
    return GitstoreError(Code.ADDRESS_REFUSED, message)


def _check(target: Target, allowed: Allowed) -> None:
    literal = target.literal
    if literal is not None and not (is_public(literal) or allowed.address(literal)):
        raise refused(f"{target.host} is not a public address")
    if target.host == "localhost" or target.host.endswith(".localhost"):  # RFC 6761
        raise refused(f"{target.host} is not a public address")
    within = literal is not None and allowed.address(literal)
    if target.port < _PRIVILEGED and target.port not in PORTS.values() and not within:
        raise refused(f"port {target.port} is not allowed: use 80, 443 or a port from {_PRIVILEGED} on")


def _host(match: re.Match[str]) -> str:
    if match["v6"] is not None:
        return IPv6Address(match["v6"]).compressed
    name: str = match["name"]
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1] or (labels[-2] if len(labels) > 1 else "")):
        return str(IPv4Address(name))  # four decimal numbers; other forms are refused
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("a name consists of labels of letters, digits and hyphens, separated by dots")
    return name


def _port(match: re.Match[str], scheme: str) -> int:
    port = int(match["port"] or PORTS[scheme])
    if port > 65535:
        raise ValueError("a port is a number from 1 to 65535")
    return port
