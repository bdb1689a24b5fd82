"""Push options: parsing, limits, and the effect of an invalid one."""

from __future__ import annotations

from io import BytesIO
from itertools import cycle, islice
from pathlib import Path

import pytest
from dulwich.protocol import pkt_line

from gitstore.errors import Code, GitstoreError
from gitstore.push.request import ZERO, PushOptions, read_options
from gitstore.store import Store
from tests.gitstore.test_receive import DRAFT, VALID, Author, author, files, request, send, store

__all__ = ["author", "store"]  # fixtures


def read(*options: bytes) -> PushOptions:
    return read_options(BytesIO(b"".join(map(pkt_line, options)) + pkt_line(None)).read)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), PushOptions()),
        ((b"gitstore.discard=48",), PushOptions(48)),
        ((b"gitstore.discard=48\n",), PushOptions(48)),
        ((b"gitstore.discard=1", b"gitstore.discard=2"), PushOptions(2)),
        ((b"a", b"gitstore.discard=0", b"b=c=d"), PushOptions(0, ("a", "b=c=d"))),
        ((b"GITSTORE.DISCARD=1",), PushOptions(None, ("GITSTORE.DISCARD=1",))),
        (("ü=ö".encode(),), PushOptions(None, ("ü=ö",))),
        (
            (b"gitstore.activate=false", "gitstore.message= Für A=B ".encode()),
            PushOptions(activate=False, message="Für A=B"),
        ),
        ((b"x" * 1024,), PushOptions(None, ("x" * 99 + "…",))),
    ],
    ids=str,
)
def test_options_are_read(options: tuple[bytes, ...], expected: PushOptions) -> None:
    """The last of two counts; unknown ones are kept for the report, shortened."""
    assert read(*options) == expected


@pytest.mark.parametrize(
    "options",
    [
        (b"gitstore.discard",), (b"gitstore.discard=",), (b"gitstore.discard=-1",),
        (b"gitstore.discard=1.0",), (b"gitstore.discard= 1",), ("gitstore.discard=\u0661".encode(),),
        (b"gitstore.discard=" + b"9" * 1000,), (b"gitstore.activate",), (b"gitstore.activate=no",),
        (b"x" * 1025,), (b"x",) * 33, (b"a\0b",), (b"a\nb",), (b"a\x1b[2Jb",), (b"",) * 33,
    ],
    ids=lambda options: repr(options)[:40],
)  # fmt: skip
def test_an_invalid_option_is_refused_in_the_report(
    store: Store, author: Author, bare: Path, options: tuple[bytes, ...]
) -> None:
    """Every ref of the push is refused with the reason, and nothing of its pack is left."""
    one = author.commit({"workflow.yaml": VALID % "one"})
    before = files(bare)
    report, lines = send(store, request((ZERO, one, DRAFT), pack=author.pack(one), options=options))
    assert report[0].startswith("unpack ")
    assert "push option" in report[0]
    assert report[1].startswith("ng refs/heads/drafts/a ")
    assert len(lines) < 400
    assert files(bare) == before


@pytest.mark.parametrize("body", [b"", b"000", b"zzzz", pkt_line(b"a"), pkt_line(b"a") + b"0008abc"])
def test_a_damaged_section_is_malformed(body: bytes) -> None:
    with pytest.raises(GitstoreError) as caught:
        read_options(BytesIO(body).read)
    assert caught.value.code is Code.MALFORMED


def test_the_rest_of_an_endless_section_is_not_read() -> None:
    """A small compressed body may hold options for hours."""
    packets = islice(cycle([b"0008", b"xxxx"]), 1000)
    with pytest.raises(GitstoreError, match="at most 32 push options"):
        read_options(lambda _: next(packets))
    assert len(list(packets)) > 900


def test_the_pusher_decides_on_the_current_version_and_gives_a_reason(store: Store, author: Author) -> None:
    """The reason becomes the message of a version whose tag is lightweight."""
    one = author.commit({"workflow.yaml": VALID % "one"})
    two = author.commit({"workflow.yaml": VALID % "two"}, one)
    options = (b"gitstore.activate=false", b"gitstore.message=Held back until Monday")
    tags = [(ZERO, one, b"refs/tags/a/v1"), (ZERO, two, b"refs/tags/a/v2")]
    send(store, request(tags[0], pack=author.pack(one), options=options))
    assert (store.state("a").current, store.version("a", 1).message) == (None, "Held back until Monday")
    send(store, request(tags[1], pack=author.pack(two)))
    assert (store.state("a").current, store.version("a", 2).message) == (2, "made")


def test_a_push_with_options_and_a_pack_and_one_without(store: Store, author: Author) -> None:
    """The pack begins behind the options; a deletion has none."""
    one = author.commit({"workflow.yaml": VALID % "one"})
    options = (b"ci.skip", b"gitstore.discard=1")
    report, lines = send(store, request((ZERO, one, DRAFT), pack=author.pack(one), options=options))
    assert report == ["unpack ok", "ok refs/heads/drafts/a"]
    assert "unknown push options are ignored: ci.skip" in lines
    report, lines = send(store, request((one, ZERO, DRAFT), options=options))
    assert report == ["unpack ok", "ok refs/heads/drafts/a"]
    (kept,) = store.discarded("a")
    fetch = f"git fetch origin {kept.ref.decode()} && git push origin FETCH_HEAD:refs/heads/drafts/a"
    assert fetch in lines
