"""Small packs: few at any time, sound for git at every step, and readable while they are combined."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from dulwich.object_store import DiskObjectStore
from dulwich.objects import Blob, Commit, ObjectID, ShaFile, Tree

from gitstore.errors import Code, GitstoreError
from gitstore.git.commits import new_commit
from gitstore.git.maintenance import collect
from gitstore.git.objects import WritableObjects
from gitstore.git.quarantine import UNPACK_LIMIT, quarantine
from gitstore.git.small_packs import AT_ONCE, MOST, removing_packs
from gitstore.model import Limits, Person
from gitstore.repository import Repository
from gitstore.store import Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.gitstore.conftest import Git
from tests.gitstore.test_maintenance import PROJECT

ANN = Person("Ann", "ann@example.test")


def packs(bare: Path) -> list[Path]:
    return sorted(path.with_suffix(".pack") for path in (bare / "objects" / "pack").glob("*.idx"))


def made(number: int, parent: bytes | None = None, size: int = 100) -> list[ShaFile]:
    """The objects of one save: a file, its tree, and a commit."""
    blob, tree = Blob.from_string(b"%d\n" % number * size), Tree()
    tree.add(b"workflow.yaml", 0o100644, blob.id)
    commit = new_commit(
        tree=tree.id, parents=[parent] if parent else [], author=ANN, committer=ANN,
        when=datetime.fromtimestamp(number, UTC), message=str(number),
    )  # fmt: skip
    return [blob, tree, commit]


@pytest.fixture
def objects(bare: Path) -> Iterator[WritableObjects]:
    opened = WritableObjects(bare / "objects")
    yield opened
    opened.close()


def saved(objects: WritableObjects, count: int, start: int = 1) -> list[ShaFile]:
    """Everything that `count` saves write, one after the other, each on top of the one before."""
    every: list[ShaFile] = []
    for number in range(start, start + count):
        new = made(number, every[-1].id if every else None)
        objects.write_together(new)
        every += new
    return every


def test_many_saves_leave_few_packs_that_every_reader_can_read(
    bare: Path, git: Git, objects: WritableObjects
) -> None:
    """By two writers that do not know of each other's packs; also with a reader that knew them before."""
    other, early = WritableObjects(bare / "objects"), WritableObjects(bare / "objects")
    every = saved(objects, 5)
    assert early.get(every[0].id) == every[0]
    most = 0
    for number in range(6, 320):
        new = made(number, every[-1].id)
        (objects if number % 3 else other).write_together(new)
        every += new
        most = max(most, len(packs(bare)))
    assert AT_ONCE <= most <= 3 * AT_ONCE
    git("update-ref", "refs/heads/main", every[-1].id.decode())
    assert git("fsck", "--full", "--strict") == ""
    assert git("rev-list", "--count", "main") == "319"
    for reader in (early, WritableObjects(bare / "objects")):
        assert all(item.id in reader and reader.get(item.id) == item for item in every[::7])
        assert all(reader.size(item.id) is not None for item in every[::7])
        reader.close()
    other.close()


@pytest.mark.parametrize("call", ["fsync", "rename", "unlink"])
def test_git_accepts_what_a_kill_leaves_at_every_step(
    bare: Path, git: Git, objects: WritableObjects, tmp_path: Path, call: str
) -> None:
    """The write that combines is killed before its n-th system call, until one comes through."""
    every = saved(objects, AT_ONCE - 1)
    git("update-ref", "refs/heads/main", every[-1].id.decode())
    assert len(packs(bare)) == AT_ONCE - 1
    for nth in range(100):
        copy = shutil.copytree(bare, tmp_path / f"{nth}.git")
        if not killed_in(copy, call, nth):
            break
        check = ["git", "--git-dir", str(copy), "fsck", "--full", "--strict", "--no-dangling"]
        assert subprocess.run(check, capture_output=True, check=True).stdout == b""
        after = WritableObjects(copy / "objects")
        assert all(after.get(item.id) == item for item in every)
        saved(after, AT_ONCE, start=1_000)
        assert len(packs(copy)) <= AT_ONCE + 1
        after.close()
    assert 0 < nth < 99
    assert len(packs(copy)) == 1


def killed_in(bare: Path, call: str, nth: int) -> bool:
    """Save in a child that kills itself before the n-th such call in the repository; whether it did."""
    child = os.fork()
    if child == 0:
        try:
            real, left = getattr(os, call), [nth]

            def counted(*arguments: Any, **named: Any) -> Any:
                if call in ("fsync",) or str(arguments[0]).startswith(str(bare)) or named:
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1
                return real(*arguments, **named)

            setattr(os, call, counted)
            saved(WritableObjects(bare / "objects"), 1, start=100)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_open_readers_survive_that_packs_are_combined(bare: Path, git: Git, objects: WritableObjects) -> None:
    """git, dulwich, and a reader of ours that knows where an object was."""
    every = saved(objects, AT_ONCE - 1)
    names = [item.id.decode() for item in every]
    reader = WritableObjects(bare / "objects")
    assert reader.get(every[0].id) == every[0]
    plain = DiskObjectStore(bare / "objects")
    assert plain[ObjectID(every[3].id)] == every[3]
    with subprocess.Popen(
        ["git", "--git-dir", str(bare), "cat-file", "--batch-check"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        ask, answer = child.stdin, child.stdout

        def asked(name: str) -> str:
            ask.write(name + "\n")
            ask.flush()
            return answer.readline().split()[1]

        assert asked(names[0]) == "blob"
        saved(objects, 2, start=500)
        assert len(packs(bare)) == 2
        assert [asked(name) for name in names] == ["blob", "tree", "commit"] * (AT_ONCE - 1)
        ask.close()
    assert all(reader.get(item.id) == item for item in every)
    assert all(plain[ObjectID(item.id)] == item for item in every)
    reader.close()
    plain.close()


@pytest.mark.parametrize("large", [False, True])
def test_a_repack_between_two_steps_of_a_write_loses_no_pack(
    bare: Path,
    git: Git,
    objects: WritableObjects,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    large: bool,
) -> None:
    """A small pack, and a large one that a push moves in. git before 2.42 removes packs without an index."""
    rename = os.rename

    def repacked(*paths: Any, **named: Any) -> None:
        rename(*paths, **named)
        git("repack", "-A", "-d", "-q")

    git("update-ref", "refs/heads/before", saved(objects, 1)[-1].id.decode())
    if not large:
        monkeypatch.setattr(os, "rename", repacked)
        every = saved(objects, 1, start=2)
    else:
        Store.init(tmp_path / "other.git")
        author = WritableObjects(tmp_path / "other.git" / "objects")
        every = saved(author, UNPACK_LIMIT // 3 + 1, start=2)
        author.close()
        pack = subprocess.run(
            ["git", "--git-dir", str(tmp_path / "other.git"), "pack-objects", "-q", "--stdout"],
            input=b"".join(item.id + b"\n" for item in every), capture_output=True, check=True,
        ).stdout  # fmt: skip
        with quarantine(bare) as held:
            held.receive(BytesIO(pack).read, Limits())
            monkeypatch.setattr(os, "rename", repacked)
            held.admit(held.needed_by([every[-1].id]))
    monkeypatch.undo()
    reader = WritableObjects(bare / "objects")
    assert all(reader.get(item.id) == item for item in every)
    reader.close()
    git("update-ref", "refs/heads/after", every[-1].id.decode())
    assert git("fsck", "--full", "--strict", "--no-dangling") == ""


def test_writers_at_once_lose_nothing_beside_maintenance(bare: Path, git: Git) -> None:
    """Four writers, each a chain of its own under a ref, while git packs everything again and again."""

    def write(number: int) -> list[ShaFile]:
        writer = WritableObjects(bare / "objects")
        every: list[ShaFile] = []
        for turn in range(40):
            every += (new := made(1_000 * number + turn, every[-1].id if every else None))
            writer.write_together(new)
            written = bare / f"w{number}"
            written.write_bytes(new[-1].id + b"\n")
            written.rename(bare / "refs" / "heads" / f"w{number}")  # git never reads an empty one
        writer.close()
        return every

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, number) for number in range(1, 5)]
        while not all(future.done() for future in writing):
            collect(bare, FileUnitOfWork(Repository(bare, PROJECT)))
        written = [item for future in writing for item in future.result()]
    reader = WritableObjects(bare / "objects")
    assert all(reader.get(item.id) == item for item in written)
    reader.close()
    assert git("fsck", "--full", "--strict", "--no-dangling") == ""


def test_packs_of_others_and_damaged_ones_are_left_as_they_are(
    bare: Path, git: Git, objects: WritableObjects
) -> None:
    """A pack with deltas is git's; a damaged one is for `verify` to report."""
    text = b"".join(b"line %d\n" % number for number in range(2_000))
    similar = [Blob.from_string(text + b"%d" % number) for number in range(10)]
    objects.write(similar)
    listed = "".join(f"{item.id.decode()}\n" for item in similar)
    git("pack-objects", "-q", str(bare / "objects/pack/pack"), input=listed)
    git("prune-packed")
    deltas = packs(bare)
    damaged = made(7_000)
    objects.write_together(damaged)
    (broken,) = set(packs(bare)) - set(deltas)
    broken.chmod(0o600)
    content = broken.read_bytes()
    broken.write_bytes(content[:20] + b"\0\0\0" + content[23:])
    every = saved(objects, 3 * AT_ONCE)
    assert {*deltas, broken} <= {*packs(bare)}
    assert len(packs(bare)) < 2 * AT_ONCE
    fresh = WritableObjects(bare / "objects")
    assert all(fresh.get(item.id) == item for item in [*similar, *every])
    with pytest.raises(GitstoreError) as refusal:
        fresh.get(damaged[0].id)
    assert refusal.value.code is Code.INTEGRITY
    del refusal  # its traceback keeps the content of the damaged pack
    fresh.close()


def test_writers_are_bounded_while_nothing_may_be_removed(
    bare: Path, git: Git, objects: WritableObjects
) -> None:
    """During a long fsck, a writer that finds many packs writes loose objects; large objects always are."""
    objects.write_together([Blob.from_string(os.urandom(2**20)), *made(1)])
    assert packs(bare) == []
    with removing_packs(bare):
        every = saved(objects, MOST + 10)
    assert len(packs(bare)) == MOST
    assert all(objects.get(item.id) == item for item in every)
    saved(objects, 1, start=500)
    assert len(packs(bare)) == 1
    collect(bare, FileUnitOfWork(Repository(bare, PROJECT)))
    assert len(packs(bare)) <= 2
    saved(objects, 2, start=600)
    assert len(packs(bare)) <= 4
    assert isinstance(objects.get(every[-1].id), Commit)
    git("fsck", "--full", "--strict")
