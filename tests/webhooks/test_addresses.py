"""Allowed addresses: URLs that may be reached, and spellings that are refused."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gitstore.errors import Code, GitstoreError
from tests.conftest import examples
from webhooks.addresses import Allowed, is_public, target_of

# Hosts that mean this machine, the network around it, or nothing.
HOSTS = """
    127.0.0.1 127.1 127.0.1 127.255.255.254 0x7f.1 0x7f.0.0.1 0x7f000001 0X7F000001 0x7F.0x0.0x0.0x1
    017700000001 0177.0.0.1 0177.1 00177.0.0.1 2130706433 127.0.0.1. 127.0.0.01 127.0x1 0127.0.0.1
    127.00.00.01 1.0x 0x 0 0.0.0.0 0x0 00 0.0 0.0.0.0. 000.000.000.000 0.1.2.3 10.0.0.1 10.255.255.255
    10.1 012.0.0.1 0xa.1 167772161 100.64.0.1 100.100.100.200 100.127.255.255 169.254.169.254 0xa9fea9fe
    2852039166 025177524776 169.254.43518 169.16689662 0xa9.0xfe.0xa9.0xfe 169.254.0.1 172.16.0.1
    172.31.255.255 192.168.0.1 192.168.1 192.168.257 0xc0a80001 3232235521 192.0.0.1 192.0.0.192 192.0.2.1
    192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 224.0.1.1 239.255.255.255
    240.0.0.1 255.255.255.255 168.63.129.16 256.1.1.1 1.2.3 1.2.3.4.5 99999999999 0x100000000 4294967296
    -1 1.2.3.-4 +1.2.3.4 1..2.3.4 .127.0.0.1 [::1] [::] [0:0:0:0:0:0:0:1] [0000::0001] [::127.0.0.1]
    [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:0a00:0001] [0:0:0:0:0:ffff:169.254.169.254]
    [::ffff:0:127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b::a00:1]
    [64:ff9b::169.254.169.254] [64:ff9b:1::1] [2002:7f00:1::] [2002:a9fe:a9fe::1] [2002:0808:0808::1]
    [2001:0:4136:e378:8000:63bf:80ff:fffe] [2001::1] [2001:10::1] [2001:20::1] [2001:db8::1] [3fff::1]
    [5f00::1] [fc00::1] [fd00:ec2::254] [fdff:ffff::1] [fe80::1] [fe80::1%25eth0] [fe80::1%eth0]
    [::1%25lo] [febf::1] [fec0::1] [ff02::1] [ff0e::1] [100::1] [4000::1] [1::1] [::2] [2620:4f:8000::1]
    [2000::1%1] [::1]. [127.0.0.1] [localhost] [::g] [::1 ::1] [] [1:2:3] [::ffff:127.1] [::ffff:0x7f.1]
    [v1.x] localhost LOCALHOST LocalHost localhost. a.localhost localhost%00.example.com
    127.0.0.1%00.example.com 127\u3002\uff10.0.1 \uff11\uff12\uff17.0.0.1 \u2460\u2461\u2466.0.0.1
    \u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3 \u0661\u0662\u0667.0.0.1 loc\u00adalhost
    l\u043ecalhost fa\u00df.de e\u0301xample.com example\uff0ecom example\u3002com %31%32%37.0.0.1
    %6c%6f%63%61%6c%68%6f%73%74 127%2e0%2e0%2e1 example.com. example..com .example.com -a.com a-.com
    exa_mple..com ex*mple.com ex,ample.com ex;ample.com a@b user@127.0.0.1 user:pass@example.com
    @example.com example.com@127.0.0.1 example.com%40127.0.0.1 example.com\\@127.0.0.1
    127.0.0.1\\@example.com example.com:0 example.com:00080 example.com:65536 example.com:99999
    example.com:-80 example.com:+80 example.com: example.com:80:80 example.com:http
    example.com:\u0668\u0660 example.com:0x50 example.com:8e1 example.com:22 example.com:25 example.com:6
    example.com:1023 example.com:80.
""".split()  # noqa: SIM905 (a list of 190 lines is nothing to read)

URLS = [
    "",
    "example.com",
    "//example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "javascript:alert(1)",
    "ext::sh -c id",
    "http:example.com",
    "http:/example.com",
    "http:///example.com",
    "http://",
    "http://?x",
    "http://#x",
    "http:\\\\example.com",
    "http://example.com\\path",
    "http://exa mple.com/",
    " http://example.com/",
    "http://example.com/ ",
    "http://example.com/\n",
    "http://example.com\t/",
    "http://example.com\r\nHost: x/",
    "ht\ntp://example.com/",
    "http://example.com/a b",
    "http://example.com/\x00",
    "http://example.com/#fragment",
    "http://example.com/\u00e4",
    "http://[::1/",
    "http://::1/",
    "https+x://example.com/",
    "http://example.com/" + "a" * 2000,
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 130 + "com/",
]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_spelling_of_a_non_public_address_is_refused(scheme: str, host: str) -> None:
    """So is every ambiguous URL."""
    with pytest.raises(GitstoreError) as caught:
        target_of(f"{scheme}://{host}/hook")
    assert caught.value.code is Code.ADDRESS_REFUSED


def test_the_list_of_spellings_is_long() -> None:
    assert len(set(HOSTS)) > 180


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_is_not_http_is_refused(url: str) -> None:
    """Another scheme, white space, a fragment, or too long."""
    with pytest.raises(GitstoreError) as caught:
        target_of(url)
    assert caught.value.code is Code.ADDRESS_REFUSED


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTPS://Example.COM:443/Hook?a=B", "https://example.com/Hook?a=B"),
        ("http://example.com:8080", "http://example.com:8080/"),
        ("http://example.com:443/", "http://example.com:443/"),
        ("https://example.com?x=1", "https://example.com/?x=1"),
        ("https://8.8.8.8/", "https://8.8.8.8/"),
        ("https://[2606:4700:4700:0:0::1111]:8443/", "https://[2606:4700:4700::1111]:8443/"),
        ("https://xn--fa-hia.de/", "https://xn--fa-hia.de/"),
        ("https://my_host.example.com/", "https://my_host.example.com/"),
        ("https://a--b.1c.example/", "https://a--b.1c.example/"),
        ("https://3com.com/", "https://3com.com/"),
        ("http://hooks/x", "http://hooks/x"),
        ("https://example.com/%2e%2e/a//b;c=d?e&f=/?", "https://example.com/%2e%2e/a//b;c=d?e&f=/?"),
    ],
)
def test_a_public_url_is_accepted(url: str, shown: str) -> None:
    """In one spelling that every program parses alike."""
    assert str(target_of(url)) == shown
    assert str(target_of(shown)) == shown


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
@example(IPv4Address("8.8.8.8"))
@examples(200)
def test_every_public_ipv4_address_is_global_in_python(address: IPv4Address) -> None:
    """Our list is stricter in places."""
    if is_public(address):
        assert address.is_global
        assert not address.is_private
        assert not address.is_multicast
        assert not address.is_reserved


V6 = st.one_of(
    st.integers(0, 2**128 - 1).map(IPv6Address),
    st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(IPv6Address),
    st.integers(0, 2**32 - 1).flatmap(
        lambda v4: st.sampled_from([v4, 0xFFFF << 32 | v4, 0x64FF9B << 96 | v4, 0x2002 << 112 | v4 << 80])
    ).map(IPv6Address),
)  # fmt: skip


@given(V6)
@examples(200)
def test_every_public_ipv6_address_is_global_in_python(address: IPv6Address) -> None:
    """None of them embeds another address."""
    if is_public(address):
        assert address.is_global
        assert not address.is_private
        assert not address.is_multicast
        assert not address.is_reserved
        assert address.ipv4_mapped is None
        assert address.sixtofour is None
        assert address.teredo is None


NUMBERS = st.integers(0, 2**32 + 5)
FORMS = st.sampled_from(["{}", "0x{:x}", "0X{:X}", "0{:o}", "{:03}"])


@given(parts=st.lists(st.tuples(NUMBERS, FORMS), min_size=1, max_size=5), dot=st.booleans())
@examples(200)
def test_each_form_of_inet_aton_is_refused_or_parsed_as_that_address(
    parts: list[tuple[int, str]], dot: bool
) -> None:
    """inet_aton(3) parses addresses in many forms."""
    host = ".".join(form.format(number) for number, form in parts) + "." * dot
    try:
        target = target_of(f"http://{host}/")
    except GitstoreError:
        return
    assert target.literal is not None
    assert is_public(target.literal)
    assert socket.inet_aton(host) == target.literal.packed


@given(st.text(max_size=60), st.text(max_size=20))
@examples(200)
def test_any_text_is_parsed_or_refused(host: str, path: str) -> None:
    for url in (host, f"http://{host}", f"https://{host}/{path}", f"http://example.com{host}"):
        try:
            target = target_of(url)
        except GitstoreError as error:
            assert error.code is Code.ADDRESS_REFUSED
        else:
            assert str(target).isascii()
            assert target_of(str(target)) == target


def test_allowed_hosts_and_networks_are_accepted_and_no_others() -> None:
    """A host with its port is accepted for any address to which it resolves."""
    allowed = Allowed.parse("127.0.0.1:9000, hooks.internal:80 ,10.1.0.0/16,[::1]:9000,fd00::/8")
    for url in (
        "http://127.0.0.1:9000/",
        "http://hooks.internal/",
        "http://10.1.2.3:22/",
        "http://[::1]:9000/",
        "https://[fd00::1]/",
        "http://example.com/",
    ):
        target_of(url, allowed)
    for url in (
        "http://127.0.0.1/",
        "http://127.0.0.1:9001/",
        "http://localhost:9000/",
        "http://0x7f.1:9000/",
        "http://127.1:9000/",
        "http://10.2.0.1/",
        "http://[::1]/",
        "http://[::ffff:10.1.0.1]/",
        "http://hooks.internal:22/",
        "http://user@127.0.0.1:9000/",
    ):
        with pytest.raises(GitstoreError):
            target_of(url, allowed)
    assert Allowed.parse(str(allowed)) == allowed
    assert allowed.address(ip_address("10.1.255.255"))


@pytest.mark.parametrize(
    "text",
    ["localhost", "127.0.0.1", "*:80", "10.0.0.1/8", "10.0.0.0/33", "http://a:80", "a:b", "::1:80", "a:0"],
)
def test_an_invalid_setting_of_allowed_targets_is_refused(text: str) -> None:
    """A misunderstood setting must not allow anything."""
    with pytest.raises(ValueError):  # noqa: PT011 (Config says what was expected)
        Allowed.parse(text)
