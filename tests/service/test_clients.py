"""The address of a client behind proxies, and the limit on failed sign-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitstore.errors import TemporaryError
from service.clients import ACCEPTED_SECONDS, BURST, FAILURE_SECONDS, Proxies, SignIns, set_address

PROXIES = Proxies.parse("10.0.0.0/8, 127.0.0.1, fd00::/8")


def address(peer: str, forwarded: str | None = None, proxies: Proxies | None = PROXIES) -> str:
    environ = {"REMOTE_ADDR": peer}
    if forwarded is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded
    set_address(environ, proxies)
    set_address(environ, proxies)
    return environ["REMOTE_ADDR"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("10.1.1.1", "203.0.113.7", "203.0.113.7"),
        ("10.1.1.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("10.1.1.1", "198.51.100.1,203.0.113.7, 10.2.2.2", "203.0.113.7"),
        ("10.1.1.1", "10.3.3.3,10.2.2.2", "10.3.3.3"),
        ("::ffff:10.1.1.1", "203.0.113.7", "203.0.113.7"),
        ("fd00::1", "2001:db8::7", "2001:db8::7"),
        ("127.0.0.1", "[2001:DB8::7]:4711", "2001:db8::7"),
        ("127.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.7, _hidden, 10.2.2.2", "10.2.2.2"),
        ("127.0.0.1", "x," * 100_000, "127.0.0.1"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("203.0.113.9", "127.0.0.1", "203.0.113.9"),
        ("", "203.0.113.7", ""),
    ],
)
def test_only_a_trusted_proxy_names_the_client(peer: str, forwarded: str | None, expected: str) -> None:
    assert address(peer, forwarded) == expected
    assert address(peer, forwarded, None) == peer


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def is_refused(sign_ins: SignIns, address: str, credential: bytes = b"new") -> int:
    """The seconds after which the address may try again; 0 if it may now."""
    try:
        sign_ins.check(address, credential)
    except TemporaryError as error:
        return error.retry_after or 0
    return 0


def test_an_address_may_fail_a_few_times_and_slowly_after_that(tmp_path: Path) -> None:
    """In all processes together; known credentials stay accepted, for a while."""
    clock = Clock()
    ours, others = SignIns(tmp_path, clock), SignIns(tmp_path, clock)
    ours.accepted(b"known")
    for number in range(BURST):
        assert is_refused(ours, "203.0.113.7") == 0
        (ours, others)[number % 2].failed("203.0.113.7")
    for sign_ins in (ours, others):
        assert is_refused(sign_ins, "203.0.113.7") == FAILURE_SECONDS
        assert is_refused(sign_ins, "203.0.113.8") == 0
        assert is_refused(sign_ins, "203.0.113.7", b"known") == 0
    for _ in range(1000):
        ours.failed("203.0.113.7")
    assert is_refused(ours, "203.0.113.7") == FAILURE_SECONDS
    clock.now += FAILURE_SECONDS + 0.1
    assert is_refused(others, "203.0.113.7") == 0
    ours.failed("203.0.113.7")
    assert is_refused(others, "203.0.113.7") > 0
    for _ in range(int(ACCEPTED_SECONDS / FAILURE_SECONDS) + 2):
        clock.now += FAILURE_SECONDS
        ours.failed("203.0.113.7")
    assert is_refused(ours, "203.0.113.7", b"known") > 0
    clock.now -= 86_400  # the clock is set back
    assert is_refused(ours, "203.0.113.7") <= FAILURE_SECONDS


def test_the_addresses_of_one_ipv6_network_are_one_client() -> None:
    sign_ins = SignIns(None)
    for number in range(BURST):
        sign_ins.failed(f"2001:db8:0:1::{number:x}")
    assert is_refused(sign_ins, "2001:db8:0:1:ffff::1")
    assert not is_refused(sign_ins, "2001:db8:0:2::1")
    for _ in range(BURST):
        sign_ins.failed("::ffff:203.0.113.7")
    assert is_refused(sign_ins, "203.0.113.7")
