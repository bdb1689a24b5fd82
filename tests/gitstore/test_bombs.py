"""Pushes that could use much memory: refused with the limit, or carried out within 256 MiB in total."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
from dulwich.objects import Blob, Commit, Tree

from gitstore.git.commits import new_commit
from gitstore.model import Person
from gitstore.push.request import ZERO
from gitstore.system import now
from tests.gitstore.conftest import Git
from tests.gitstore.test_packs import entry, pack, varint
from tests.gitstore.test_receive import DRAFT, VALID, request

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MOST = 256  # MiB, the process and its largest child together
ANN = Person("Ann", "ann@example.test")
COMMIT, TREE, BLOB, OFS_DELTA, REF_DELTA = 1, 2, 3, 6, 7


def raw(kind: int, content: bytes) -> bytes:
    return entry(kind, len(content), zlib.compress(content, 1))


def oid(kind: bytes, content: bytes) -> bytes:
    return sha1(kind + b" %d\0" % len(content) + content).digest()


def commit_of(tree: bytes) -> Commit:
    return new_commit(tree=tree, parents=[], author=ANN, committer=ANN, when=now(), message="x")


def workflow_blob() -> Blob:
    return Blob.from_string((VALID % "one").encode())


def delta_bomb() -> tuple[bytes, list[bytes]]:
    """236 bytes that expand to 1 GiB: copies of copies."""
    base = b"x" * 65_536
    copy = bytes([0x80 | 0x10 | 0x20, 0xFF, 0xFF])
    delta = varint(len(base)) + varint(0xFFFF * 16_384) + copy * 16_384
    tree = Tree()
    commit = commit_of(tree.id)
    stream = entry(REF_DELTA, len(delta), oid(b"blob", base) + zlib.compress(delta, 9))
    return commit.id, [raw(BLOB, base), stream, raw(COMMIT, commit.as_raw_string())]


def zlib_bomb() -> tuple[bytes, list[bytes]]:
    """1 MB of zlib declared as small, which inflates to 256 MiB."""
    squeezed = zlib.compressobj(9)
    zeros = bytes(2**20)
    stream = b"".join(squeezed.compress(zeros) for _ in range(256)) + squeezed.flush()
    commit = commit_of(Tree().id)
    return commit.id, [entry(BLOB, 100, stream), raw(COMMIT, commit.as_raw_string())]


def honest_bomb() -> tuple[bytes, list[bytes]]:
    """The same, declared."""
    squeezed = zlib.compressobj(9)
    zeros = bytes(2**20)
    stream = b"".join(squeezed.compress(zeros) for _ in range(256)) + squeezed.flush()
    commit = commit_of(Tree().id)
    return commit.id, [entry(BLOB, 2**28, stream), raw(COMMIT, commit.as_raw_string())]


def sum_bomb() -> tuple[bytes, list[bytes]]:
    """Objects within their limit, whose sum exceeds its own."""
    commit = commit_of(Tree().id)
    blobs = [raw(BLOB, bytes([n]) * (4 * 2**20 - 1)) for n in range(30)]
    return commit.id, [*blobs, raw(COMMIT, commit.as_raw_string())]


def wide_trees() -> tuple[bytes, list[bytes]]:
    """Trees of 4 MiB, each naming the same blob 100,000 times, one inside the other."""
    blob = workflow_blob()
    entries = [raw(BLOB, blob.as_raw_string())]
    name, below = blob.sha().digest(), b""
    for depth in range(14):
        lines = [b"100644 f%06d\0" % n + name for n in range(100_000)]
        if below:
            lines.append(b"40000 g\0" + below)
        if depth == 13:
            lines.append(b"100644 workflow.yaml\0" + name)
        content = b"".join(lines)
        below = oid(b"tree", content)
        entries.append(raw(TREE, content))
    commit = commit_of(below.hex().encode())
    return commit.id, [*entries, raw(COMMIT, commit.as_raw_string())]


def deep_trees() -> tuple[bytes, list[bytes]]:
    """20,000 folders, one inside the other."""
    blob = workflow_blob()
    content, entries = b"100644 x\0" + blob.sha().digest(), [raw(BLOB, blob.as_raw_string())]
    for _ in range(20_000):
        entries.append(raw(TREE, content))
        content = b"40000 d\0" + oid(b"tree", content)
    content += b"100644 workflow.yaml\0" + blob.sha().digest()
    entries.append(raw(TREE, content))
    commit = commit_of(oid(b"tree", content).hex().encode())
    return commit.id, [*entries, raw(COMMIT, commit.as_raw_string())]


def many_objects() -> tuple[bytes, list[bytes]]:
    """Many objects, kept as a pack: a history of 8,000 commits."""
    blob, tree = workflow_blob(), Tree()
    tree.add(b"workflow.yaml", 0o100644, blob.id)
    entries = [raw(BLOB, blob.as_raw_string()), raw(TREE, tree.as_raw_string())]
    parent: list[bytes] = []
    for number in range(8_000):
        content = b"tree " + tree.id + b"\n" + b"".join(b"parent " + p + b"\n" for p in parent)
        content += b"author A <a@b.c> %d +0000\ncommitter A <a@b.c> %d +0000\n\nx\n" % (number, number)
        entries.append(raw(COMMIT, content))
        parent = [oid(b"commit", content).hex().encode()]
    return parent[0], entries


BOMBS: list[tuple[Callable[[], tuple[bytes, list[bytes]]], str]] = [
    (delta_bomb, "the limit is 4,194,304"),
    (zlib_bomb, "longer than declared"),
    (honest_bomb, "the limit is 4,194,304"),
    (sum_bomb, "the limit is 67,108,864"),
    (wide_trees, ""),
    (deep_trees, ""),
    (many_objects, "ok"),
]


@pytest.mark.parametrize(("bomb", "expected"), BOMBS, ids=[bomb.__name__ for bomb, _ in BOMBS])
def test_no_push_takes_more_than_its_memory(
    bare: Path, git: Git, tmp_path: Path, bomb: Callable[[], tuple[bytes, list[bytes]]], expected: str
) -> None:
    """The process and its child together; a refusal leaves no file."""
    tip, entries = bomb()
    file = tmp_path / "push"
    file.write_bytes(request((ZERO, tip, DRAFT), pack=pack(*entries)))
    before = {path for path in bare.rglob("*") if path.name != "gitstore-writers"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.gitstore.push_process", str(bare), str(file)],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["total"] + result["child"] < MOST, result
    assert any(expected in line for line in result["report"]), result
    if not result["report"][-1].startswith("ok"):
        left = {path for path in bare.rglob("*") if path.name not in ("gitstore-writers", "gitstore.lock")}
        assert left <= before
    git("fsck", "--strict", "--no-dangling")
