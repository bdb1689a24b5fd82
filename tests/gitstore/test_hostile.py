"""Generated trees, objects and packs: a truthful response, nothing left behind, and a sound repository.

The long form (`-m soak`) pushes 10,000 of them.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from hashlib import sha1
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitstore.errors import Code, GitstoreError
from gitstore.push.request import ZERO
from gitstore.store import Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.gitstore.conftest import Git
from tests.gitstore.test_bombs import BLOB, COMMIT, TREE, oid, raw
from tests.gitstore.test_packs import pack
from tests.gitstore.test_receive import DRAFT, PROJECT, VALID, request, send

PUSHES = int(os.environ.get("GITSTORE_TEST_PUSHES", "10000"))
TAG = 4
PERSON = b"A <a@b.example> 1700000000 +0000"

NAMES = st.one_of(
    st.sampled_from([b"workflow.yaml", b"workflow.json", b"notes", b".git", b".GIT", b"git~1", b".git ",
                     b".git.", b"..", b".", b"", b"a/b", b".gitmodules", b".gitattributes",
                     b"\xe2\x80\x8c.git",
                     b"con", b"a" * 5000, b"\xff\xfe", b"-rf", b"$(id)", b"new\nline"]),
    st.binary(min_size=1, max_size=6).filter(lambda name: b"\0" not in name),
)  # fmt: skip
MODES = st.sampled_from([b"100644", b"100755", b"40000", b"120000", b"160000", b"040000", b"100664", b"777",
                         b"0", b"xyz", b""])  # fmt: skip
DATES = st.sampled_from([b"0 +0000", b"1700000000 +0000", b"99999999999999999999 +0000", b"-1 +0000",
                         b"1 +9999", b"253402300800 +0000", b""])  # fmt: skip


@st.composite
def pushes(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """(a tip, a pack) of a commit whose tree and lines are drawn, and perhaps torn afterwards.

    One in three is valid, so that refusing everything fails, too.
    """
    sound = draw(st.integers(0, 2)) == 0
    good = (VALID % draw(st.text("abc", min_size=1, max_size=3))).encode()
    objects = [(BLOB, b"blob", good)]
    blob = oid(b"blob", good)
    entries = [(b"100644", b"workflow.yaml", blob)]
    targets = st.sampled_from([blob, bytes(20), oid(b"tree", b""), b"\xab" * 20])
    for _ in range(0 if sound else draw(st.sampled_from([0, 0, 1, 2, 3]))):
        entries.append((draw(MODES), draw(NAMES), draw(targets)))
    if draw(st.booleans()):
        entries.sort(key=lambda entry: entry[1])
    tree = b"".join(mode + b" " + name + b"\0" + target for mode, name, target in entries)
    objects += [(TREE, b"tree", tree), (TREE, b"tree", b"")]
    who = (
        PERSON
        if sound
        else draw(
            st.sampled_from(
                [*[PERSON] * 8, b"A <a@b> " + draw(DATES), b"<> 1 +0000", b"", b"A <a\0b> 1 +0000"]
            )
        )
    )
    lines = [b"tree " + oid(b"tree", tree).hex().encode(), b"author " + who, b"committer " + draw(
        st.sampled_from([PERSON, who]))]  # fmt: skip
    for _ in range(0 if sound else draw(st.sampled_from([0, 0, 0, 1, 2]))):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(
            [b"parent " + b"0" * 40, b"parent " + b"ab" * 20, b"encoding latin-1", b"encoding x\0y",
             b"gpgsig x", lines[0], b"mergetag object"])))  # fmt: skip
    commit = (
        b"\n".join(lines) + b"\n\n" + draw(st.sampled_from([b"why\n", b""] if sound else [b"", b"\xff\0\n"]))
    )
    objects.append((COMMIT, b"commit", commit))
    tip = oid(b"commit", commit).hex().encode()
    if not sound and draw(st.booleans()):
        tag = b"object " + tip + b"\ntype commit\ntag a/v1\ntagger " + who + b"\n\nx\n"
        objects.append((TAG, b"tag", tag))
        tip = oid(b"tag", tag).hex().encode()
    pack_bytes = bytearray(pack(*(raw(kind, content) for kind, _, content in objects)))
    if not sound and draw(st.integers(0, 3)) == 0:
        pack_bytes[draw(st.integers(0, len(pack_bytes) - 1))] ^= 1 << draw(st.integers(0, 7))
        if draw(st.booleans()):
            pack_bytes[-20:] = sha1(bytes(pack_bytes[:-20])).digest()
    return tip, bytes(pack_bytes)


REFS = [DRAFT, b"refs/tags/a/v1", b"refs/tags/a/v2", b"refs/heads/main", b"refs/tags/a/v1/x", b"HEAD",
        b"refs/", b"refs/heads/drafts/a/b", b"refs/heads/drafts/A", b"refs/tags/a/v01", b"refs/../x",
        b"refs/heads/drafts/a.lock", b"refs/ledger/a", b"refs/superseded/a/x", b"refs/tags/\xff/v1",
        b"refs/tags/a/v99999999999999999999"]  # fmt: skip


def check(bare: Path, pushed: tuple[bytes, bytes], ref: bytes, old: bytes, seen: Counter[str]) -> None:
    """Push it: the response must be true, and a refusal must leave nothing."""
    tip, pack_bytes = pushed
    store = Store(bare, PROJECT, FileUnitOfWork)
    try:
        before = inventory(bare)
        try:
            report, _ = send(store, request((old, tip, ref), pack=pack_bytes))
        except GitstoreError as error:
            assert error.code in (Code.MALFORMED, Code.TOO_LARGE)
            seen[error.code] += 1
            report = [""]
        status = report[-1]
        if status.startswith("ok "):
            assert store.refs.read(ref) == tip
            seen["ok"] += 1
        else:
            assert inventory(bare) == before
            seen["refused"] += 1
    finally:
        store.close()


def inventory(bare: Path) -> set[str]:
    """Every file, without folders."""
    paths = {os.path.join(folder, name) for folder, _, files in os.walk(bare) for name in files}  # noqa: PTH118
    return {path for path in paths if not path.endswith(("gitstore.lock", "gitstore-writers"))}


def push_them(bare: Path, git: Git, count: int) -> Counter[str]:
    seen: Counter[str] = Counter()

    @settings(max_examples=count, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(pushes(), st.sampled_from([*REFS, *[DRAFT] * 20]), st.sampled_from([*[ZERO] * 6, b"ab" * 20]))
    def pushed(pack_bytes: tuple[bytes, bytes], ref: bytes, old: bytes) -> None:
        # A draft of its own, so that only the pushed objects can be refused.
        check(bare, pack_bytes, DRAFT + b"%d" % sum(seen.values()) if ref == DRAFT else ref, old, seen)

    pushed()
    assert seen["ok"]
    git("fsck", "--strict", "--no-dangling")
    assert list((bare / "objects").glob("tmp_*")) == []
    return seen


def test_generated_pushes_get_a_truthful_answer(bare: Path, git: Git) -> None:
    push_them(bare, git, 100)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_ten_thousand_generated_pushes(bare: Path, git: Git, capsys: pytest.CaptureFixture[str]) -> None:
    total: Counter[str] = Counter()
    for done in range(0, PUSHES, 500):
        total += push_them(bare, git, min(500, PUSHES - done))
        with capsys.disabled():
            print(f"\n  {sum(total.values())} pushes: {dict(total)}", end="")


def test_a_zlib_bomb_is_refused(bare: Path) -> None:
    """An object longer than declared is refused before git sees it."""
    lying = bytes([0x30 | 1]) + zlib.compress(bytes(10**6))
    check(bare, (b"ab" * 20, pack(lying)), DRAFT, ZERO, Counter())
