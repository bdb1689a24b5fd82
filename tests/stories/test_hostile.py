"""A pusher that speaks the protocol badly to a real service: refused, and nothing is left behind.

What is wrong with the objects themselves is in tests/gitstore (test_hostile.py, test_bombs.py).
"""

from __future__ import annotations

import gzip
import os
import subprocess
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha1
from pathlib import Path
from urllib.error import HTTPError
from uuid import UUID

import pytest
from dulwich.protocol import PktLineParser, pkt_line

from gitstore.git.maintenance import collect
from gitstore.repository import Repository
from gitstore.unit_of_work import FileUnitOfWork
from sync import catalog
from tests.helpers import until
from tests.stories.instance import Answer, Author, Caller, Service, definition

ZERO = b"0" * 40
MADE_UP = b"ab" * 20
NO_SIDE_BAND = b"report-status delete-refs"
DRAFT, V1, V2 = b"refs/heads/drafts/a", b"refs/tags/a/v1", b"refs/tags/a/v2"
PUSH, FETCH = "git-receive-pack", "git-upload-pack"
HEAD = b"PACK\0\0\0\2\0\0\0\0"
EMPTY = HEAD + sha1(HEAD).digest()


class Pusher:
    """A client with a token and without git. Compares the repository before and after."""

    def __init__(self, service: Service, owner: Caller) -> None:
        self._owner = owner
        with service.owning() as tx:
            row = catalog.project(tx, owner.project)
            assert row is not None
        self.repository = service.data / "repos" / f"{row.id}.git"

    def files(self) -> dict[str, bytes]:
        """Path -> content of every file, without gitstore's locks and stamps."""
        return {
            os.path.join(folder, name): Path(folder, name).read_bytes()  # noqa: PTH118
            for folder, _, names in os.walk(self.repository)
            for name in names
            if not name.startswith("gitstore")
        }

    def post(self, body: bytes, service: str = PUSH, headers: Mapping[str, str] | None = None) -> Answer:
        password = b64encode(f"x:{self._owner.token}".encode()).decode()
        sent = {"Authorization": f"Basic {password}", "Content-Type": f"application/x-{service}-request"}
        url = f"{self._owner.url}/{self._owner.project}.git/{service}"
        request = urllib.request.Request(url, body, {**sent, **(headers or {})})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return Answer(answer.status, answer.headers, answer.read())
        except HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def refused(self, body: bytes, **headers: str) -> list[str]:
        """The response is 4xx, or a report without "ok", and no file has changed."""
        before = self.files()
        answer = self.post(body, headers=headers)
        assert self.files() == before
        if answer.status != 200:
            assert 400 <= answer.status < 500, (answer.status, answer.raw)
            return [answer.raw.decode()]
        lines = report(answer.raw)
        assert not [line for line in lines[1:] if not line.startswith("ng ")], lines
        return lines

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "--git-dir", str(self.repository), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


def report(raw: bytes) -> list[str]:
    packets: list[bytes | None] = []
    PktLineParser(packets.append).parse(raw)
    return [packet.decode("utf-8", "replace").rstrip("\n") for packet in packets if packet]


def push(*commands: tuple[bytes, bytes, bytes], pack: bytes = b"") -> bytes:
    lines = [b" ".join(command) for command in commands]
    lines[0] += b"\0" + NO_SIDE_BAND
    return b"".join(map(pkt_line, lines)) + pkt_line(None) + pack


@pytest.fixture
def pusher(service: Service, owner: Caller, ann: Author) -> Pusher:
    """The project has a draft of `a`, ahead of its v1."""
    ann.draft("a", definition("one"))
    ann.tag("a", 1)
    ann.draft("a", definition("two"))
    assert ann.push("drafts/a", "a/v1").ok
    pusher = Pusher(service, owner)
    unit = FileUnitOfWork(Repository(pusher.repository, UUID(int=1)))
    # The worker does this once a day: it is not to happen in the middle.
    until(lambda: collect(pusher.repository, unit), "gc does not come to an end")
    return pusher


def test_malformed_packets_are_400(pusher: Pusher) -> None:
    """For a push and for a fetch alike."""
    for body in (b"", b"x", b"zzzz", b"0004", b"0005", b"ffff", b"fff0x", b"0009x", os.urandom(9000),
                 pkt_line(b"\0"), pkt_line(b"hello"), b"PACK" * 99):  # fmt: skip
        assert "not a git push" in pusher.refused(body)[0], body
        if body:
            assert pusher.post(body, FETCH).status == 400, body
    for body in (push((ZERO, MADE_UP, V2)), gzip.compress(push((ZERO, MADE_UP, V2)))[:-9], b"gzip"):
        pusher.refused(body, **{"Content-Encoding": "gzip"})
    pusher.refused(b"x", **{"Content-Encoding": "br"})
    pusher.refused(b"x", **{"Content-Type": "text/plain"})


def test_a_truncated_or_damaged_pack_is_refused(pusher: Pusher, ann: Author) -> None:
    """Cut anywhere, or with any bit flipped; the whole pack is accepted."""
    old, new = ann.git("rev-parse", "HEAD").encode(), ann.draft("a", definition("three")).encode()
    pack = subprocess.run(
        ["git", "-C", str(ann.folder), "pack-objects", "--revs", "--stdout", "-q"],
        input=new + b"\n^" + old + b"\n", capture_output=True, check=True,
    ).stdout  # fmt: skip
    for cut in (*range(0, len(pack), 41), len(pack) - 1):
        lines = pusher.refused(push((old, new, DRAFT), pack=pack[:cut]))
        assert lines[0].startswith("unpack the pack is damaged"), lines
    for at in range(0, len(pack), 53):
        torn = bytearray(pack)
        torn[at] ^= 0x10
        assert "damaged" in pusher.refused(push((old, new, DRAFT), pack=bytes(torn)))[0]
        torn[-20:] = sha1(torn[:-20]).digest()  # so that the checksum is right, and the rest is not
        pusher.refused(push((old, new, DRAFT), pack=bytes(torn[:-20]) + bytes(20)))
    assert "damaged" in pusher.refused(push((old, new, DRAFT), pack=pack + b"more"))[0]
    assert report(pusher.post(push((old, new, DRAFT), pack=pack)).raw) == [
        "unpack ok",
        f"ok {DRAFT.decode()}",
    ]


def test_an_invented_old_id_or_a_missing_object_is_refused(pusher: Pusher) -> None:
    """Also if the other end of the update is valid."""
    head, v1 = pusher.git("rev-parse", "drafts/a").encode(), pusher.git("rev-parse", "a/v1").encode()
    commit = pusher.git("rev-parse", "a/v1^{commit}").encode()
    tree, blob = (pusher.git("rev-parse", f"drafts/a{end}").encode() for end in ("^{tree}", ":workflow.yaml"))
    for old in (ZERO, MADE_UP, v1, commit, tree):
        for new in (commit, ZERO):
            assert "moved since you fetched" in pusher.refused(push((old, new, DRAFT), pack=EMPTY))[1]
    for new in (MADE_UP, tree, blob, v1):
        assert len(pusher.refused(push((head, new, DRAFT), pack=EMPTY))) == 2
    for new in (MADE_UP, tree, blob):
        assert len(pusher.refused(push((ZERO, new, V2), pack=EMPTY))) == 2
    for old in (ZERO, MADE_UP, v1, head):
        for new in (ZERO, head, MADE_UP, blob):
            assert "v1 is published" in pusher.refused(push((old, new, V1), pack=EMPTY))[1]


ODD = [b"HEAD", b"FETCH_HEAD", b"config", b"/etc/passwd", b"refs", b"refs/", b"refs/heads/main",
       b"refs/heads/drafts", b"refs/heads/drafts/", b"refs/heads/drafts/A", b"refs/heads/drafts/-rf",
       b"refs/heads/drafts/$(id)", b"refs/heads/drafts/a.lock", b"refs/heads/drafts/../../config",
       b"refs/heads/drafts/a\x7f", b"refs/heads/drafts/\xe2\x80\x8ca", b"refs/heads/drafts/a b",
       b"refs/heads/drafts/" + b"a" * 64, b"refs/tags/a/v0", b"refs/tags/a/v01", b"refs/tags/a/v2\n\n x",
       b"refs/tags/a/v" + b"9" * 900, b"refs/tags/v2", b"refs/tags/a.lock/v1", b"refs/tags/\xff/v1",
       b"refs/tags/" + b"a/" * 400 + b"v1", b"refs/stash", b"refs/replace/" + MADE_UP, b"refs/ledger/a",
       b"refs/ledger/b", b"refs/superseded/a/x", b"\xff" * 80, b" ",
       # Where a folder is needed as a file, or a file as a folder.
       b"refs/tags/a", b"refs/tags/a/v1/x", b"refs/heads/drafts/a/b", b"refs/ledger", b"refs/tags",
]  # fmt: skip


def test_odd_names_are_refused_or_do_not_exist(pusher: Pusher) -> None:
    """Creating them is refused, and so is deleting them, unless the ref is valid and missing."""
    head = pusher.git("rev-parse", "drafts/a").encode()
    for ref in ODD:
        assert len(pusher.refused(push((ZERO, head, ref), pack=EMPTY))) == 2, ref
        before = pusher.files()
        for old in (MADE_UP, head):
            (_, lines) = report(pusher.post(push((old, ZERO, ref))).raw)
            there = pusher.repository.joinpath(os.fsdecode(ref)).is_file()
            assert lines.startswith("ng ") or not there, (ref, lines)
        assert pusher.files() == before
    assert "longer than" in pusher.refused(push((ZERO, head, b"refs/tags/" + b"a" * 2000), pack=EMPTY))[0]


def test_the_commands_of_a_push_have_limits(pusher: Pusher) -> None:
    """The most refs of one push in a small compressed body: each gets an answer."""
    many = [(ZERO, MADE_UP, b"refs/tags/w%d/v1" % number) for number in range(100)]
    many += [(ZERO, MADE_UP, b"refs/tags/a/v%d" % number) for number in range(2, 9_902)]
    assert len(pusher.refused(push(*many, pack=EMPTY))) == 10_001
    assert "limit is 10,000" in pusher.refused(push(*many, (ZERO, MADE_UP, V2), pack=EMPTY))[0]
    for line in (b"shallow " + MADE_UP, ZERO + b" " + MADE_UP + b" refs/tags/" + b"a" * 60_000):
        squeezed = gzip.compress(pkt_line(line) * (8_000_000 // len(line)), 1)
        assert len(pusher.refused(squeezed, **{"Content-Encoding": "gzip"})) == 1


def test_obstacles_on_disk_are_reported(pusher: Pusher, ann: Author) -> None:
    """A folder in the place of a ref, or a file in the place of a folder."""
    ann.git("checkout", "-q", "--detach")
    for slug, there in (("b", "refs/heads/drafts/b/x"), ("c", "refs/tags/c"), ("d", "refs/ledger/d/x")):
        path = pusher.repository / there
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pusher.git("rev-parse", "a/v1^{commit}") + "\n")
        commit = ann.draft("a", definition(slug))
        ann.git("tag", f"{slug}/v1", commit)
        before = set(pusher.files())
        pushed = ann.push(f"{commit}:refs/heads/drafts/{slug}", f"{slug}/v1")
        assert not pushed.ok
        assert "remote rejected" in pushed.output, pushed.output
        assert "gitstore verify" in pushed.output, pushed.output
        assert set(pusher.files()) == before
        path.unlink()
        if path.parent.name == slug:
            path.parent.rmdir()
        assert ann.push(f"{commit}:refs/heads/drafts/{slug}", f"{slug}/v1").ok
