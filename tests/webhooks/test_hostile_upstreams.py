"""Hostile upstreams: each sync ends with a reason, imports nothing and leaves nothing behind."""

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
    """Return refs in protocol version 0 (gitprotocol-pack(5)), each with the same id."""
    yield pkt(b"# service=git-upload-pack\n") + b"0000"
    for position, name in enumerate(refs):
        yield pkt(OID + b" " + name + (b"\0" + capabilities if position == 0 else b"") + b"\n")
    yield b"0000"


def serve(receiver: Receiver, refs: Parts, pack: Parts = lambda: (), **headers: str) -> str:
    """Let the receiver answer as an upstream with these bytes. Return its URL."""

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
    """Sync, and return the owner's error; nothing is imported, and the folder is unchanged."""

    def sync(url: str) -> str:
        following = Following(house, url, limits=LIMITS)
        following.sync()
        assert versions(following, "order-sync") == []
        assert [path.name for path in (house.store.path / "objects").glob("tmp_*")] == []
        error = following.row().last_error
        return error or "; ".join(one.reason for one in following.open_divergences().values())

    return sync


def test_an_endless_advertisement_is_cut_off(
    receiver: Receiver, outcome: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a limit of its own, far below that of a pack."""
    monkeypatch.setattr(module, "REFS_SIZE", 50_000)
    names = (b"refs/tags/order-sync/v%d" % number for number in itertools.count(1))
    reason = outcome(serve(receiver, lambda: advertisement(names)))
    assert reason == "the response is larger than the limit"


def test_compressed_refs_are_not_inflated(receiver: Receiver, outcome: Callable[[str], str]) -> None:
    bomb = gzip.compress(b"".join(advertisement([b"refs/tags/order-sync/v1"])))
    reason = outcome(serve(receiver, lambda: [bomb], Content_Encoding="gzip"))
    assert reason.startswith("the upstream's answer is not git's smart HTTP protocol")


def test_a_silent_upstream_times_out(
    receiver: Receiver, outcome: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.3)
    url = serve(receiver, lambda: [])
    receiver.server.RequestHandlerClass.do_GET = hang  # type: ignore[attr-defined]
    assert outcome(url) == "no data received for 0.3 s"


def test_an_endless_pack_is_cut_off(receiver: Receiver, outcome: Callable[[str], str]) -> None:
    """At the limit of an import, which the message names."""

    def endless() -> Iterator[bytes]:
        yield pkt(b"NAK\n") + pkt(b"\1PACK\0\0\0\2\0\0\0\1")
        while True:
            yield pkt(b"\1" + b"x" * 60_000)

    reason = outcome(serve(receiver, lambda: advertisement([b"refs/tags/order-sync/v1"]), endless))
    assert reason.startswith("the pack has more than")


def test_a_pack_without_the_requested_objects_is_refused(
    receiver: Receiver, outcome: Callable[[str], str]
) -> None:
    empty = b"PACK\0\0\0\2\0\0\0\0"
    body = pkt(b"NAK\n") + pkt(b"\1" + empty + hashlib.sha1(empty).digest()) + b"0000"
    reason = outcome(serve(receiver, lambda: advertisement([b"refs/tags/order-sync/v1"]), lambda: [body]))
    assert "missing" in reason


@pytest.mark.parametrize(
    "name",
    [
        b"refs/tags/../order-sync/v1", b"refs/tags/order-sync/v1/../v1", b"refs/tags/order-sync/v1.lock",
        b"refs/tags/order-sync/v" + b"9" * 4000, b"refs/tags/a b/v1", b"refs/tags/order-sync/v1\r",
        b"\xffrefs/tags/a/v1", b"HEAD", b"refs/heads/drafts/", b"refs/ledger/order-sync",
        b"refs/tags/order-sync/v\xd9\xa3",
    ],
)  # fmt: skip
def test_other_refs_are_ignored(receiver: Receiver, outcome: Callable[[str], str], name: bytes) -> None:
    """Nothing is fetched for them."""
    reason = outcome(serve(receiver, lambda: advertisement([name])))
    assert reason in ("", "the upstream's answer is not git's smart HTTP protocol")
    assert receiver.got == []


@pytest.mark.parametrize(
    "name",
    [
        b"refs/tags/order-sync/v01", b"refs/tags/order-sync/v" + b"9" * 400, b"refs/tags/-x/v1",
        b"refs/tags/\xff\xfe/v1", b"refs/tags/%2e%2e/v1", b"refs/tags/" + b"a" * 64 + b"/v1",
        b"refs/heads/drafts/a/b", b"refs/tags/" + b"\xff" * 490 + b"/v1",
    ],
)  # fmt: skip
def test_a_misnamed_ref_is_reported_and_not_fetched(
    receiver: Receiver, outcome: Callable[[str], str], name: bytes
) -> None:
    reason = outcome(serve(receiver, lambda: advertisement([name])))
    assert reason.startswith("not imported: ")
    assert reason.isprintable()
    assert len(reason) < 500
    assert receiver.got == []


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest", "file:///etc/passwd", "//10.0.0.1/x", "ext::sh"]
)
def test_a_redirect_to_an_internal_address_is_refused(
    receiver: Receiver, outcome: Callable[[str], str], target: str
) -> None:
    def get(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    url = serve(receiver, lambda: [])
    receiver.server.RequestHandlerClass.do_GET = get  # type: ignore[attr-defined]
    reason = outcome(url)
    assert "is not a public address" in reason or "a URL is" in reason or "there is no repository" in reason


def test_an_error_message_of_an_upstream_is_one_printable_line(
    receiver: Receiver, outcome: Callable[[str], str]
) -> None:
    words = pkt(b"ERR \x1b[31mpay up\r\nlevel=error " + b"x" * 2000)
    reason = outcome(serve(receiver, lambda: [pkt(b"# service=git-upload-pack\n"), b"0000", words]))
    assert "pay up" in reason
    assert reason.isprintable()
    assert len(reason) < 500
