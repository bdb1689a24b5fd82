"""The push protocol by hand: true responses to valid and hostile requests, and nothing left behind.

tests/stories covers the output of stock git.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha1
from io import BytesIO
from pathlib import Path
from uuid import UUID

import pytest
from dulwich.protocol import PktLineParser, pkt_line
from hypothesis import given
from hypothesis import strategies as st

from gitstore.changes import Authorship
from gitstore.errors import Code, GitstoreError
from gitstore.git import refs
from gitstore.model import Limits, Person
from gitstore.push.receive import CAPABILITIES, Receiver
from gitstore.push.report import PushReport
from gitstore.push.request import ZERO, read_request
from gitstore.store import Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.conftest import examples
from tests.gitstore.conftest import ENVIRONMENT, Git

PROJECT = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
AUTHORSHIP = Authorship(Person("token:ci", "1@tokens.gitstore"), datetime(2026, 11, 23, tzinfo=UTC))
VALID = "nodes:\n- {id: a, type: webhook, data: {label: %s}}\n"
DRAFT = b"refs/heads/drafts/a"
EMPTY_PACK = b"PACK" + (2).to_bytes(4) + (0).to_bytes(4)
EMPTY_PACK += sha1(EMPTY_PACK).digest()


@dataclass
class Author:
    """A pusher's clone, driven by git."""

    folder: Path

    def git(self, *arguments: str, input: bytes = b"") -> bytes:
        return self.raw(*arguments, input=input).strip()

    def raw(self, *arguments: str, input: bytes = b"") -> bytes:
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments],
            input=input, capture_output=True, check=True, env=ENVIRONMENT,
        )  # fmt: skip
        return done.stdout

    def commit(self, files: dict[str, str], *parents: bytes) -> bytes:
        """A commit of `files`, with paths that git's porcelain may refuse."""
        listing = b""
        for path, content in files.items():
            blob = self.git("hash-object", "-w", "--stdin", input=content.encode())
            listing += b"100644 blob " + blob + b"\t" + path.encode() + b"\n"
        return self.commit_tree(self.git("mktree", input=listing), *parents)

    def commit_tree(self, tree: bytes, *parents: bytes) -> bytes:
        flags = [part for parent in parents for part in ("-p", parent.decode())]
        return self.git("commit-tree", tree.decode(), *flags, "-m", "made")

    def pack(self, *wanted: bytes, without: tuple[bytes, ...] = (), flags: tuple[str, ...] = ()) -> bytes:
        revs = b"".join(oid + b"\n" for oid in wanted) + b"".join(b"^" + oid + b"\n" for oid in without)
        child = subprocess.run(
            ["git", "-C", str(self.folder), "pack-objects", "--revs", "--stdout", "-q", *flags],
            input=revs, capture_output=True, check=True, env=ENVIRONMENT,
        )  # fmt: skip
        return child.stdout


@pytest.fixture
def author(tmp_path: Path) -> Author:
    folder = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(folder)], check=True, env=ENVIRONMENT)
    return Author(folder)


@pytest.fixture
def store(bare: Path) -> Iterator[Store]:
    store = Store(bare, PROJECT, FileUnitOfWork)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def _sound(bare: Path, git: Git) -> Iterator[None]:
    """After each test, the repository is sound and no quarantine or lock is left."""
    yield
    git("fsck", "--strict")
    assert list(bare.rglob("tmp_*")) + list(bare.rglob("*.lock")) in ([], [bare / "gitstore.lock"])


def files(bare: Path) -> list[Path]:
    return sorted(path for path in bare.rglob("*") if path.name not in ("gitstore.lock", "gitstore-writers"))


def request(
    *commands: tuple[bytes, bytes, bytes],
    pack: bytes = b"",
    capabilities: bytes = CAPABILITIES,
    options: Sequence[bytes] = (),
) -> bytes:
    """As git writes it: without `options`, the section of options and its capability are left out."""
    lines = [b" ".join(command) for command in commands]
    lines[0] += b"\0" + (capabilities if options else capabilities.replace(b" push-options", b""))
    section = b"".join(pkt_line(option) for option in options) + pkt_line(None) if options else b""
    return b"".join(pkt_line(line) for line in lines) + pkt_line(None) + section + pack


def send(
    store: Store, body: bytes, authorize: Callable[..., None] = lambda *_: None
) -> tuple[list[str], str]:
    """(report lines, what the terminal shows)."""
    push_report = PushReport(lambda slug, number: f"http://gitstore.test/{slug}/{number}")
    receipt = Receiver(store, AUTHORSHIP, authorize, push_report).receive(BytesIO(body).read)
    bands = {1: b"", 2: b"", 3: b""}
    packets: list[bytes | None] = []
    PktLineParser(packets.append).parse(receipt.answer)
    if packets and packets[0] and packets[0][0] in bands:
        for packet in packets:
            if packet:
                bands[packet[0]] += packet[1:]
        packets.clear()
        PktLineParser(packets.append).parse(bands[1])
    return [line.decode("utf-8", "replace").rstrip("\n") for line in packets if line], (
        bands[2] + bands[3]
    ).decode()


def test_a_draft_and_its_tag_in_one_push(store: Store, author: Author) -> None:
    """Both are ok, and both refs have the pushed values."""
    one = author.commit({"workflow.yaml": VALID % "one"})
    body = request((ZERO, one, b"refs/tags/a/v1"), (ZERO, one, DRAFT), pack=author.pack(one))
    report, lines = send(store, body)
    assert report == ["unpack ok", "ok refs/tags/a/v1", "ok refs/heads/drafts/a"]
    assert store.refs.read(DRAFT) == store.refs.read(b"refs/tags/a/v1") == one
    assert "a: draft saved, 1 node" in lines
    assert "published a v1: http://gitstore.test/a/1" in lines


def test_a_draft_moves_along_with_a_tag_that_descends_from_it(store: Store, author: Author) -> None:
    """Pushing the tag alone moves the draft to it, and no further draft is open."""
    one = author.commit({"workflow.yaml": VALID % "one"})
    send(store, request((ZERO, one, DRAFT), pack=author.pack(one)))
    two = author.commit({"workflow.yaml": VALID % "two"}, one)
    send(store, request((ZERO, two, b"refs/tags/a/v1"), pack=author.pack(two, without=(one,))))
    assert store.refs.read(DRAFT) == two
    assert not store.state("a").draft_open


@pytest.mark.parametrize("atomic", [b"", b" atomic"])
def test_a_small_push_is_one_pack_with_its_ledger_entries(
    store: Store, author: Author, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bytes
) -> None:
    """Also one whose deltas need objects that are here. No other file is left, also among temporary files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    capabilities = b"report-status side-band-64k" + atomic
    text = VALID % "one" + "".join(f"# line {number}\n" for number in range(500))
    first = author.commit({"workflow.yaml": text})
    second = author.commit({"workflow.yaml": text + "# more\n"}, first)
    thin = author.pack(second, without=(first,), flags=("--thin", "--delta-base-offset"))
    assert len(thin) < len(author.pack(second, flags=("--no-reuse-delta", "--window=0")))
    for number, (old, new, pack) in enumerate([(ZERO, first, author.pack(first)), (first, second, thin)], 1):
        tag = b"refs/tags/a/v%d" % number
        body = request((old, new, DRAFT), (ZERO, new, tag), pack=pack, capabilities=capabilities)
        status, _ = send(store, body)
        assert status == ["unpack ok", f"ok {DRAFT.decode()}", f"ok {tag.decode()}"]
        assert len(list(bare.glob("objects/pack/*.pack"))) == number
        assert list(bare.glob("objects/??/*")) == []
        assert store.refs.read(tag) == new
    assert list(temporary.iterdir()) == []


def test_many_objects_come_as_one_pack(store: Store, author: Author, bare: Path) -> None:
    """Over the unpack limit the pack is kept, thin ones completed."""
    content = {"workflow.yaml": VALID % "one"} | {f"notes-{n}": f"{n}" * 300 for n in range(150)}
    one = author.commit(content)
    assert send(store, request((ZERO, one, DRAFT), pack=author.pack(one)))[0][0] == "unpack ok"
    assert len(list((bare / "objects/pack").glob("*.idx"))) == 2, "the other one is of the ledger entry"
    two = author.commit(
        {**content, "notes-0": "changed " * 50} | {f"more-{n}": str(n) for n in range(150)}, one
    )
    thin = author.pack(two, without=(one,), flags=("--thin",))
    assert send(store, request((one, two, DRAFT), pack=thin))[0] == ["unpack ok", "ok refs/heads/drafts/a"]


def test_a_definition_that_does_not_parse_is_refused_with_line_and_column(
    store: Store, author: Author, bare: Path
) -> None:
    """In the reason and in the terminal; no object of the push is left."""
    bad = author.commit({"workflow.yaml": "nodes:\n  - {id: a, id: b}\n"})
    before = files(bare)
    report, lines = send(store, request((ZERO, bad, DRAFT), pack=author.pack(bad)))
    assert report[0] == "unpack ok"
    assert report[1].startswith("ng refs/heads/drafts/a ")
    assert "line 2, column 13" in report[1]
    assert lines.count("line 2, column 13") == 1
    assert files(bare) == before


def test_problems_of_a_draft_are_warnings_and_of_a_tag_refusals(store: Store, author: Author) -> None:
    bad = author.commit({"workflow.yaml": "nodes:\n- {id: call-api, type: httpCall, data: {config: {}}}\n"})
    report, lines = send(store, request((ZERO, bad, DRAFT), pack=author.pack(bad)))
    assert report[1] == "ok refs/heads/drafts/a"
    assert 'nodes[0] "call-api": url is required for an HTTP call' in lines
    report, lines = send(store, request((ZERO, bad, b"refs/tags/a/v1"), pack=EMPTY_PACK))
    assert report[1].startswith("ng refs/tags/a/v1 a can't be published")
    assert 'nodes[0] "call-api": url is required for an HTTP call' in lines


@pytest.mark.parametrize("name", [".git", ".GIT", "git~1", ".g\u200cit", "..", ".gitmodules"])
def test_objects_that_git_fsck_refuses_are_refused(
    store: Store, author: Author, bare: Path, name: str
) -> None:
    """Hostile names beside a sound definition; nothing is left, and git's messages are passed on."""
    good = author.commit({"workflow.yaml": VALID % "one"})
    tree = author.git("ls-tree", good.decode() + "^{tree}") + b"\n"
    blob = author.git("hash-object", "-w", "--stdin", input=b'[submodule "a"]\n\turl = -evil\n\tpath = a\n')
    listing = tree + b"100644 blob " + blob + b"\t" + name.encode() + b"\n"
    evil = author.commit_tree(author.git("mktree", input=listing), good)
    before = files(bare)
    report, lines = send(store, request((ZERO, evil, DRAFT), pack=author.pack(evil)))
    assert report[0].startswith("unpack git refused the objects")
    assert report[1].startswith("ng refs/heads/drafts/a")
    assert lines
    assert files(bare) == before


def test_a_tip_whose_objects_are_missing_is_refused(store: Store, author: Author, bare: Path) -> None:
    """A missing object, a commit without its tree, and a tip that only the pusher's clone has."""
    one = author.commit({"workflow.yaml": VALID % "one"})
    two = author.commit({"workflow.yaml": VALID % "two"}, one)
    before = files(bare)
    for pack in (EMPTY_PACK, author.pack(two, without=(one,))):
        report, _ = send(store, request((ZERO, two, DRAFT), pack=pack))
        assert report[1].startswith("ng refs/heads/drafts/a"), report
        assert files(bare) == before


def test_a_shallow_clone_is_advised_to_fetch_its_history(store: Store, author: Author) -> None:
    """History is missing, and the pusher's clone is shallow."""
    one = author.commit({"notes": "no definition"})
    two = author.commit({"workflow.yaml": VALID % "two"}, one)
    lines = pkt_line(b"shallow " + two) + request((ZERO, two, DRAFT), pack=author.pack(two, without=(one,)))
    report, _ = send(store, lines)
    assert report[1] == "ng refs/heads/drafts/a shallow clone: git fetch --unshallow, then push"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"README": "x"}, "no definition"),
        ({"workflow.yaml": VALID % "x", "workflow.json": "{}"}, "keep exactly one"),
    ],
)
def test_a_commit_without_one_definition_is_refused(
    store: Store, author: Author, files: dict[str, str], why: str
) -> None:
    """None, and more than one."""
    one = author.commit(files)
    report, _ = send(store, request((ZERO, one, DRAFT), pack=author.pack(one)))
    assert why in report[1]


def test_a_definition_is_a_regular_file(store: Store, author: Author) -> None:
    """A symbolic link is not one."""
    target = author.git("hash-object", "-w", "--stdin", input=b"other.yaml")
    tree = author.git("mktree", input=b"120000 blob " + target + b"\tworkflow.yaml\n")
    one = author.commit_tree(tree)
    report, _ = send(store, request((ZERO, one, DRAFT), pack=author.pack(one)))
    assert "not a regular file" in report[1]


def test_an_atomic_push_is_all_or_nothing(store: Store, author: Author) -> None:
    one = author.commit({"workflow.yaml": VALID % "one"})
    body = request((ZERO, one, DRAFT), (ZERO, one, b"refs/tags/a/v5"), pack=author.pack(one))
    report, _ = send(store, body)
    assert report[1] == "ng refs/heads/drafts/a atomic transaction failed: refs/tags/a/v5 was refused"
    assert "the next version is v1" in report[2]
    assert store.refs.read(DRAFT) is None


def test_an_atomic_push_with_a_locked_ref_names_it_for_all_of_them(
    store: Store, author: Author, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is another process's. The reasons begin as those of git's own server."""
    monkeypatch.setattr(refs, "_LOCK_PATIENCE", 0.01)
    lock = bare / "refs/heads/drafts/b.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    one = author.commit({"workflow.yaml": VALID % "one"})
    body = request((ZERO, one, DRAFT), (ZERO, one, b"refs/heads/drafts/b"), pack=author.pack(one))
    report, _ = send(store, body)
    lock.unlink()
    reason = "atomic transaction failed: refs/heads/drafts/b is locked by another process: try again"
    assert report[1:3] == [f"ng refs/heads/drafts/{slug} {reason}" for slug in "ab"]
    assert store.refs.read(DRAFT) is None


def test_a_push_that_is_not_atomic_keeps_its_accepted_part(store: Store, author: Author) -> None:
    one = author.commit({"workflow.yaml": VALID % "one"})
    plain = CAPABILITIES.replace(b" atomic", b"")
    commands = ((ZERO, one, DRAFT), (ZERO, one, b"refs/tags/a/v5"))
    report, _ = send(store, request(*commands, pack=author.pack(one), capabilities=plain))
    assert report[1] == "ok refs/heads/drafts/a"
    assert report[2].startswith("ng refs/tags/a/v5")


def test_the_empty_probe_of_git_is_answered_with_nothing(store: Store) -> None:
    """git sends a flush packet to learn whether it is authorized."""
    assert read_request(BytesIO(b"0000").read, 10) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"zzzz", b"0005", b"000", b"0003", b"fffff", pkt_line(b"hello\0"), pkt_line(b"\0"),
     pkt_line(ZERO + b" " + ZERO), pkt_line(b"A" * 40 + b" " + ZERO + b" refs/x")],
    ids=repr,
)  # fmt: skip
def test_anything_but_a_push_is_malformed(store: Store, body: bytes) -> None:
    """Garbage packets are the client's fault."""
    with pytest.raises(GitstoreError) as refusal:
        send(store, body)
    assert refusal.value.code is Code.MALFORMED


def test_too_many_refs_are_refused_before_anything_else(bare: Path) -> None:
    store = Store(bare, PROJECT, FileUnitOfWork, limits=Limits(commands=3))
    commands = [(ZERO, ZERO[:-1] + b"1", b"refs/tags/a/v%d" % n) for n in range(1, 6)]
    report, lines = send(store, request(*commands, pack=b"x" * 200_000))
    assert report == []
    assert "at least 4 refs; the limit is 3: name those to push" in lines
    store.close()


def test_the_limits_of_a_pack_are_reported(bare: Path, author: Author) -> None:
    """Compressed, inflated and a single object, each with a message."""
    one = author.commit({"workflow.yaml": VALID % "one", "big": "x" * 5000})
    body = request((ZERO, one, DRAFT), pack=author.pack(one))
    for limits, why in (
        (Limits(pack=100), "the pack has more than 100 bytes; the limit is 100"),
        (Limits(inflated=1000), "inflates to more than"),
        (Limits(object=1000), "an object of the pack has"),
    ):
        store = Store(bare, PROJECT, FileUnitOfWork, limits=limits)
        report, lines = send(store, body)
        assert why in report[0]
        assert why in lines
        store.close()


@examples(60)
@given(data=st.data())
def test_a_mutated_push_gets_a_truthful_answer(
    store: Store, author: Author, bare: Path, data: st.DataObject
) -> None:
    """Bytes flipped, cut or doubled anywhere in a valid push: a refusal, or a true ok."""
    one = author.commit({"workflow.yaml": VALID % "one"})
    options = [b"gitstore.discard=1", b"other"]
    body = bytearray(request((ZERO, one, DRAFT), pack=author.pack(one), options=options))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "double"])):
            case "flip":
                body[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del body[at:]
                body += b"\0"
            case "double":
                body[at:at] = body[at : at + 20]
    try:
        report, _ = send(store, bytes(body))
    except GitstoreError as error:
        assert error.code in (Code.MALFORMED, Code.TOO_LARGE)
        return
    for line in report[1:]:
        if line.startswith("ok refs/heads/drafts/"):
            assert store.refs.read(line[3:].encode()) == one


@pytest.mark.parametrize("mode", [b"40000000000", b"77777777777777777777777", b"100644100644"])
@pytest.mark.parametrize("extra", [0, 120])
def test_an_object_that_git_accepts_and_nobody_can_read_is_malformed(
    store: Store, author: Author, mode: bytes, extra: int
) -> None:
    """It was never on the server's disk, so `gitstore verify` is not advised; by either unpacker."""
    blob = author.git("hash-object", "-w", "--stdin", input=(VALID % "one").encode())
    raw = mode + b" workflow.yaml\0" + bytes.fromhex(blob.decode())
    tree = author.git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", input=raw)
    others = [author.git("hash-object", "-w", "--stdin", input=b"%d" % number) for number in range(extra)]
    commit = b"tree %s\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\nx\n" % tree
    made = author.git("hash-object", "-t", "commit", "--literally", "-w", "--stdin", input=commit)
    pack = author.raw("pack-objects", "--stdout", "-q", input=b"\n".join([made, tree, blob, *others]) + b"\n")
    report, _ = send(store, request((ZERO, made, DRAFT), pack=pack))
    assert (
        report[1]
        == f"ng refs/heads/drafts/a object {tree.decode()} is malformed: commit again with stock git"
    )
    assert store.refs.read(DRAFT) is None


def test_deleting_what_is_not_there_is_told(store: Store) -> None:
    """It is ok, as by git itself."""
    gone = (b"1" * 40, ZERO)
    commands = [(ZERO, ZERO, DRAFT), (*gone, b"refs/tags/a/v1"), (*gone, b"refs/heads/main")]
    for old, new, ref in commands:
        report, lines = send(store, request((old, new, ref)))
        assert report == ["unpack ok", f"ok {ref.decode()}"]
        assert lines == f"{ref.decode()} does not exist: nothing to delete\n"


def test_a_lightweight_tag_has_the_message_of_its_commit(store: Store, author: Author) -> None:
    """A reason given with the push comes first, and a message of the tag's own before both."""
    one = author.commit({"workflow.yaml": VALID % "one"})
    annotated = author.git(
        "mktag", input=b"object %s\ntype commit\ntag a/v3\ntagger A <a> 1 +0000\n\nMine\n" % one
    )
    silent = author.git("mktag", input=b"object %s\ntype commit\ntag a/v4\ntagger A <a> 1 +0000\n\n" % one)
    pushes = ((one, b""), (one, b"Because"), (annotated, b"Because"), (silent, b""))
    for number, (oid, reason) in enumerate(pushes, 1):
        options = [b"gitstore.message=" + reason] if reason else []
        ref = b"refs/tags/a/v%d" % number
        report, _ = send(store, request((ZERO, oid, ref), pack=author.pack(oid), options=options))
        assert report == ["unpack ok", "ok " + ref.decode()]
    assert [store.version("a", number).message for number in range(1, 5)] == [
        "made",
        "Because",
        "Mine",
        "made",
    ]


def test_a_version_in_which_nothing_changed_is_told(store: Store, author: Author) -> None:
    """For the same commit, and for another one with the same definition."""
    one = author.commit({"workflow.yaml": VALID % "one"})
    same = author.commit({"workflow.yaml": VALID % "one", "README": "more"}, one)
    other = author.commit({"workflow.yaml": VALID % "two"}, same)
    for number, (oid, what) in enumerate(((one, None), (one, 1), (same, 2), (other, None)), 1):
        _, lines = send(store, request((ZERO, oid, b"refs/tags/a/v%d" % number), pack=author.pack(oid)))
        assert f"published a v{number}" in lines
        assert ("nothing changed" in lines) == (what is not None)
        if what is not None:
            assert f"published a v{number} (nothing changed since v{what}): http" in lines
