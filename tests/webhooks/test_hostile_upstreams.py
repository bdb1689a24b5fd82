"""Upstreams that mean harm: each sync ends, in words, with nothing taken over and nothing left behind."""

from __future__ import annotations

import gzip
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator

import pytest

from gitstore.model import Limits
from tests.sync.conftest import House
from tests.webhooks.followed_project import Following, versions
from tests.webhooks.receiver import Handler, Receiver, hang
from webhooks import source_sync as module
from webhooks.source_sync import import_limits

OID = b"1" * 40
LIMITS = import_limits(Limits(), 200_000)
Parts = Callable[[], Iterable[bytes]]


def pkt(line: bytes) -> bytes:
    return b"%04x%s" % (len(line) + 4, line)


def advertisement(refs: Iterable[bytes], capabilities: bytes = b"side-band-64k") -> Iterator[bytes]:
    """Refs as protocol version 0 tells them (gitprotocol-pack(5)), each with the same id."""
    yield pkt(b"# service=git-upload-pack\n") + b"0000"
    for position, name in enumerate(refs):
        yield pkt(OID + b" " + name + (b"\0" + capabilities if position == 0 else b"") + b"\n")
    yield b"0000"


def serve(receiver: Receiver, refs: Parts, pack: Parts = lambda: (), **headers: str) -> str:
    """Let the receiver be an upstream that says just this; its URL."""

    def get(handler: Handler) -> None:
        send(handler, "application/x-git-upload-pack-advertisement", refs(), **headers)

    def post(handler: Handler) -> None:
        send(handler, "application/x-git-upload-pack-result", pack())

    receiver.server.RequestHandlerClass.do_GET = get  # type: ignore[attr-defined]
    receiver.answers = post
    return receiver.url("/team.git")


def send(handler: Handler, kind: str, parts: Iterable[bytes], **headers: str) -> None:
    handler.send_response(200)
    for name, value in {"Content-Type": kind, **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    try:
        for part in parts:
            handler.wfile.write(part)
    except OSError:
        handler.close_connection = True


@pytest.fixture
def outcome(house: House) -> Callable[[str], str]:
    """What the owner reads of a sync; nothing was taken over, and the folder is as it was."""

    def sync(url: str) -> str:
        following = Following(house, url, limits=LIMITS)
        following.sync()
        assert versions(following, "order-sync") == []
        assert [path.name for path in (house.store.path / "objects").glob("tmp_*")] == []
        error = following.row().last_error
        return error or "; ".join(one.reason for one in following.open().values())

    return sync


def test_refs_without_end_are_cut_off(
    receiver: Receiver, outcome: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they fill the memory: they are limited by themselves, and far below a pack."""
    monkeypatch.setattr(module, "REFS_SIZE", 50_000)
    names = (b"refs/tags/order-sync/v%d" % number for number in itertools.count(1))
    said = outcome(serve(receiver, lambda: advertisement(names)))
    assert said == "the other side sends more than is accepted"


def test_compressed_refs_are_not_inflated(receiver: Receiver, outcome: Callable[[str], str]) -> None:
    """A megabyte of zlib may be a gigabyte: nobody asked for it, and it is not looked into."""
    bomb = gzip.compress(b"".join(advertisement([b"refs/tags/order-sync/v1"])))
    said = outcome(serve(receiver, lambda: [bomb], Content_Encoding="gzip"))
    assert said.startswith("the upstream's answer is not git's smart HTTP protocol")


def test_a_silent_upstream_is_given_up(
    receiver: Receiver, outcome: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before all the time for a fetch is over."""
    monkeypatch.setattr(module, "STALL_SECONDS", 0.3)
    url = serve(receiver, lambda: [])
    receiver.server.RequestHandlerClass.do_GET = hang  # type: ignore[attr-defined]
    assert outcome(url) == "nothing came for 0.3 s"


def test_a_pack_without_end_is_cut_off(receiver: Receiver, outcome: Callable[[str], str]) -> None:
    """At the limit of an import, in words that name it."""

    def endless() -> Iterator[bytes]:
        yield pkt(b"NAK\n") + pkt(b"\1PACK\0\0\0\2\0\0\0\1")
        while True:
            yield pkt(b"\1" + b"x" * 60_000)

    said = outcome(serve(receiver, lambda: advertisement([b"refs/tags/order-sync/v1"]), endless))
    assert said.startswith("the pack has more than")


def test_a_pack_that_lacks_what_was_asked_for_is_refused(
    receiver: Receiver, outcome: Callable[[str], str]
) -> None:
    """An empty one, sound in itself: the tag would stand on nothing."""
    empty = b"PACK\0\0\0\2\0\0\0\0"
    body = pkt(b"NAK\n") + pkt(b"\1" + empty + hashlib.sha1(empty).digest()) + b"0000"
    said = outcome(serve(receiver, lambda: advertisement([b"refs/tags/order-sync/v1"]), lambda: [body]))
    assert "missing" in said


@pytest.mark.parametrize(
    "name",
    [
        b"refs/tags/../order-sync/v1", b"refs/tags/order-sync/v1/../v1", b"refs/tags/order-sync/v01",
        b"refs/tags/order-sync/v1.lock", b"refs/tags/order-sync/v" + b"9" * 400, b"refs/tags/-x/v1",
        b"refs/tags/\xff\xfe/v1", b"refs/tags/a b/v1", b"refs/tags/order-sync/v1\r", b"\xffrefs/tags/a/v1",
        b"refs/tags/%2e%2e/v1", b"refs/tags/" + b"a" * 64 + b"/v1", b"refs/heads/drafts/a/b", b"HEAD",
        b"refs/heads/drafts/", b"refs/ledger/order-sync", b"refs/tags/order-sync/v\xd9\xa3",
    ],
)  # fmt: skip
def test_odd_names_are_passed_over(receiver: Receiver, outcome: Callable[[str], str], name: bytes) -> None:
    """They are nobody's version and nobody's draft here; nothing is asked for."""
    said = outcome(serve(receiver, lambda: advertisement([name])))
    assert said in ("", "the upstream's answer is not git's smart HTTP protocol")
    assert receiver.got == []


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest", "file:///etc/passwd", "//10.0.0.1/x", "ext::sh"]
)
def test_a_redirect_inwards_is_refused(
    receiver: Receiver, outcome: Callable[[str], str], target: str
) -> None:
    """Each hop is checked as the first one was."""

    def get(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    url = serve(receiver, lambda: [])
    receiver.server.RequestHandlerClass.do_GET = get  # type: ignore[attr-defined]
    said = outcome(url)
    assert "is not a public address" in said or "a URL is" in said or "there is no repository" in said


def test_what_an_upstream_says_of_itself_is_one_clean_line(
    receiver: Receiver, outcome: Callable[[str], str]
) -> None:
    """An error of its own is passed on, without what would colour a terminal or forge a line of the log."""
    words = pkt(b"ERR \x1b[31mpay up\r\nlevel=error " + b"x" * 2000)
    said = outcome(serve(receiver, lambda: [pkt(b"# service=git-upload-pack\n"), b"0000", words]))
    assert "pay up" in said
    assert said.isprintable()
    assert len(said) < 500
