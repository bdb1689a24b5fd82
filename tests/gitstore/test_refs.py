"""Refs on disk: reading beside git's own maintenance, and compare-and-swap of a set."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from gitstore.errors import Code, GitstoreError
from gitstore.git import lock_file
from gitstore.git.refs import RefUpdate, WritableRefs
from tests.gitstore.conftest import Git

DRAFT = b"refs/heads/drafts/a"
A, B, C = (char * 40 for char in (b"a", b"b", b"c"))


@pytest.fixture
def refs(bare: Path) -> WritableRefs:
    return WritableRefs(bare)


def test_a_ref_is_created_only_if_it_does_not_exist(refs: WritableRefs) -> None:
    """Creating an existing ref returns its name and changes nothing."""
    assert refs.update([RefUpdate(DRAFT, None, A)]) == []
    assert refs.update([RefUpdate(DRAFT, None, B)]) == [DRAFT]
    assert refs.read(DRAFT) == A


def test_a_set_is_written_whole_or_not_at_all(refs: WritableRefs, bare: Path) -> None:
    """One moved ref leaves the others of the set unchanged, and no lock file."""
    refs.update([RefUpdate(DRAFT, None, A)])
    moved = refs.update([RefUpdate(b"refs/tags/a/v1", None, B), RefUpdate(DRAFT, B, C)])
    assert moved == [DRAFT]
    assert refs.read(b"refs/tags/a/v1") is None
    assert list(bare.rglob("*.lock")) == []


def test_one_of_many_racing_writers_wins(bare: Path) -> None:
    """Eight threads that move a ref from the same old value: one succeeds, and the ref has its value."""
    for round_ in range(20):
        name = b"refs/tags/race/v%d" % (round_ + 1)
        barrier = threading.Barrier(8)

        def race(mine: int, name: bytes = name, barrier: threading.Barrier = barrier) -> list[bytes]:
            barrier.wait()
            return WritableRefs(bare).update([RefUpdate(name, None, b"%040x" % mine)])

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(race, range(1, 9)))
        winners = [position + 1 for position, moved in enumerate(answers) if not moved]
        assert len(winners) == 1
        assert WritableRefs(bare).read(name) == b"%040x" % winners[0]


def test_packed_and_loose_refs_are_read_alike(
    refs: WritableRefs, git: Git, commit: Callable[..., str]
) -> None:
    """Packed refs are read one by one and by folder, and can be updated."""
    one, two = commit(when=1), commit(when=2)
    for number in range(1, 12):
        git("update-ref", f"refs/tags/a/v{number}", one)
    git("tag", "-a", "a/v12", "-m", "annotated: packed-refs gets a peeled line", one)
    git("pack-refs", "--all", "--prune")
    git("update-ref", "refs/tags/ab/v1", two)
    tags = refs.below(b"refs/tags/a/")
    assert sorted(tags) == sorted(b"refs/tags/a/v%d" % number for number in range(1, 13))
    assert refs.read(b"refs/tags/a/v10") == one.encode()
    assert refs.read(b"refs/tags/a/v") is None
    assert refs.read(b"refs/tags/ab/v1") == two.encode()
    assert refs.update([RefUpdate(b"refs/tags/a/v3", one.encode(), two.encode())]) == []
    assert refs.below(b"refs/tags/a/")[b"refs/tags/a/v3"] == two.encode()


def test_a_packed_ref_is_not_created_again(refs: WritableRefs, git: Git, commit: Callable[..., str]) -> None:
    """A tag only in packed-refs counts in a compare-and-swap."""
    one = commit()
    git("update-ref", "refs/tags/a/v1", one)
    git("pack-refs", "--all", "--prune")
    assert refs.update([RefUpdate(b"refs/tags/a/v1", None, B)]) == [b"refs/tags/a/v1"]
    assert refs.read(b"refs/tags/a/v1") == one.encode()


def test_writers_beside_git_pack_refs_lose_nothing(
    refs: WritableRefs, git: Git, commit: Callable[..., str]
) -> None:
    """200 refs created while git packs refs: all exist afterwards, with their values."""
    one = commit().encode()
    done = threading.Event()

    def pack() -> None:
        while not done.is_set():
            git("pack-refs", "--all", "--prune")

    packer = threading.Thread(target=pack)
    packer.start()
    try:
        for number in range(1, 201):
            name = b"refs/tags/busy/v%d" % number
            assert refs.update([RefUpdate(name, None, one)]) == []
            assert refs.read(name) == one
    finally:
        done.set()
        packer.join()
    assert len(refs.below(b"refs/tags/busy/")) == 200


def test_a_ref_is_deleted_only_with_its_value(
    refs: WritableRefs, git: Git, commit: Callable[..., str]
) -> None:
    """A packed draft is deleted with its value only."""
    one = commit().encode()
    refs.update([RefUpdate(DRAFT, None, one)])
    git("pack-refs", "--all", "--prune")
    assert not refs.delete(DRAFT, B)
    assert refs.read(DRAFT) == one
    assert refs.delete(DRAFT, one)
    assert refs.read(DRAFT) is None


def test_a_ref_is_deleted_once_refs_are_packed(
    refs: WritableRefs, bare: Path, commit: Callable[..., str]
) -> None:
    """Packing them holds git's lock for a second or two on a slow volume."""
    one = commit().encode()
    refs.update([RefUpdate(DRAFT, None, one)])
    lock = bare / "packed-refs.lock"
    lock.touch()
    packed = threading.Timer(2.0, lock.unlink)
    packed.start()
    assert refs.delete(DRAFT, one)
    packed.join()
    assert refs.read(DRAFT) is None


@pytest.mark.parametrize("content", [b"", b"\0" * 41, b"ref: refs/heads/x\n", b"a" * 39], ids=repr)
def test_a_damaged_ref_is_an_error_and_hides_no_other(refs: WritableRefs, bare: Path, content: bytes) -> None:
    """One broken file is `integrity` when read, left out of listings and named by the survey."""
    refs.update([RefUpdate(b"refs/tags/a/v1", None, A), RefUpdate(b"refs/tags/a/v2", None, B)])
    (bare / "refs/tags/a/v2").write_bytes(content)
    with pytest.raises(GitstoreError) as refusal:
        refs.read(b"refs/tags/a/v2")
    assert refusal.value.code is Code.INTEGRITY
    assert refs.survey(b"refs/tags/a/") == ({b"refs/tags/a/v1": A}, [b"refs/tags/a/v2"])


def test_a_file_in_place_of_a_folder_is_an_error_with_its_name(refs: WritableRefs, bare: Path) -> None:
    """A file where the folder of a workflow's tags belongs is `integrity`, not a crash."""
    (bare / "refs/tags/a").write_bytes(A)
    with pytest.raises(GitstoreError) as refusal:
        refs.update([RefUpdate(b"refs/tags/a/v1", None, A)])
    assert refusal.value.code is Code.INTEGRITY


def test_head_names_the_ref_it_was_pointed_at(refs: WritableRefs, git: Git) -> None:
    """git reads the HEAD that we write."""
    refs.point_head(DRAFT)
    assert refs.head() == DRAFT
    assert git("symbolic-ref", "HEAD") == DRAFT.decode()


@pytest.mark.parametrize(
    "name",
    [b"", b"HEAD", b"config", b"refs/", b"refs/../config", b"refs/heads/../../config", b"refs/heads/a\0b",
     b"refs/heads/" + b"x" * 300, b"refs/heads//a", b"refs/heads/\xff\xfe", b"refs/heads/a.lock", b"/etc/x"],
)  # fmt: skip
def test_an_invalid_ref_name_does_not_exist(refs: WritableRefs, name: bytes) -> None:
    """Names from a hostile pusher reach no file outside the refs."""
    assert refs.read(name) is None


def test_empty_folders_are_replaced_by_a_ref_and_others_are_reported(bare: Path) -> None:
    """As in git, which leaves empty folders; files in a folder are kept."""
    refs = WritableRefs(bare)
    (bare / "refs/heads/drafts/a/b/c").mkdir(parents=True)
    assert refs.update([RefUpdate(b"refs/heads/drafts/a", None, A)]) == []
    assert refs.read(b"refs/heads/drafts/a") == A
    stray = bare / "refs/heads/drafts/b/c/stray"
    stray.parent.mkdir(parents=True)
    stray.touch()
    with pytest.raises(GitstoreError) as refusal:
        refs.update([RefUpdate(b"refs/heads/drafts/b", None, A)])
    assert refusal.value.code is Code.INTEGRITY
    assert stray.exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_tag_that_appears_although_it_is_locked_is_kept(
    refs: WritableRefs, git: Git, commit: Callable[..., str], *, packed: bool
) -> None:
    """A writer that was stopped until its locks were removed does not replace the tag of another writer."""
    name, other = b"refs/tags/a/v1", commit()

    def replace_the_tag() -> None:
        (refs._folder / "refs/tags/a/v1.lock").unlink()
        git("update-ref", "refs/tags/a/v1", other)
        if packed:
            git("pack-refs", "--all", "--prune")

    refs.before_writing = replace_the_tag
    with pytest.raises(GitstoreError) as refused:
        refs.update([RefUpdate(name, None, A)])
    assert refused.value.code is Code.BUSY
    assert refs.read(name) == other.encode()


def test_a_lock_that_another_process_took_over_is_not_renamed_into_place(
    refs: WritableRefs, bare: Path
) -> None:
    """Its content is that of another writer, who may not have finished it."""
    name, lock = b"refs/ledger/a", bare / "refs/ledger/a.lock"
    assert refs.update([RefUpdate(name, None, A)]) == []

    def take_over_the_lock() -> None:
        lock.unlink()
        lock.write_bytes(b"half")

    refs.before_writing = take_over_the_lock
    with pytest.raises(GitstoreError) as refused:
        refs.update([RefUpdate(name, A, B)])
    assert refused.value.code is Code.BUSY
    assert refs.read(name) == A


def test_a_tag_that_was_packed_between_the_check_and_the_link_is_kept(
    refs: WritableRefs, git: Git, commit: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """link(2) succeeds, as the loose file of the other writer's tag is gone."""
    name, other, link = b"refs/tags/a/v1", commit(), os.link

    def late(source: bytes, target: bytes, **folders: Any) -> None:
        git("update-ref", "--no-deref", "refs/tags/b/v1", other)
        git("pack-refs", "--all", "--prune")
        packed = refs._folder / "packed-refs"
        packed.write_text(packed.read_text().replace("refs/tags/b/v1", "refs/tags/a/v1"))
        link(source, target, **folders)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(GitstoreError) as refused:
        refs.update([RefUpdate(name, None, A)])
    assert refused.value.code is Code.BUSY
    assert refs.read(name) == other.encode()


@pytest.mark.parametrize("cached", [False, True])
def test_a_folder_that_is_removed_while_it_is_open_is_made_again(
    refs: WritableRefs, bare: Path, monkeypatch: pytest.MonkeyPatch, *, cached: bool
) -> None:
    """git removes a folder whose refs it has packed, also between the moments at which a writer uses it."""
    name, folder = b"refs/tags/a/v1", bare / "refs/tags/a"
    folder.mkdir()
    lock = lock_file.LockFile
    tries: list[bytes] = []

    def late(opened: int, last: bytes) -> lock_file.LockFile:
        if not tries:
            folder.rmdir()
        tries.append(last)
        return lock(opened, last)

    monkeypatch.setattr("gitstore.git.refs.LockFile", late)
    with refs.cached_reads() if cached else nullcontext():
        assert refs.update([RefUpdate(name, None, A)]) == []
        assert refs.read(name) == A
    assert tries == [b"v1", b"v1"]
    assert (folder / "v1").read_bytes() == A + b"\n"
    assert list(bare.rglob("*.lock")) == []


def test_no_descriptor_stays_open(refs: WritableRefs, bare: Path) -> None:
    """Also after a refusal, an error, and a walk that was not read to its end."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with refs.cached_reads():
        refs.update([RefUpdate(DRAFT, None, A), RefUpdate(b"refs/tags/a/v1", None, A)])
        with refs.cached_reads():
            assert refs.update([RefUpdate(DRAFT, B, C)]) == [DRAFT]
            assert refs.has_below(b"refs/heads/")
            assert refs.sample(b"refs/", 1) == [DRAFT]
        (bare / "refs/ledger/a").mkdir(parents=True)
        (bare / "refs/ledger/a/stray").touch()
        with pytest.raises(GitstoreError):
            refs.update([RefUpdate(b"refs/ledger/a", None, A)])
        refs.point_head(DRAFT)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_repository_that_is_gone_has_no_refs(refs: WritableRefs, bare: Path) -> None:
    """Not an error: it was moved to the trash."""
    refs.update([RefUpdate(DRAFT, None, A)])
    bare.rename(bare.with_suffix(".moved"))
    with refs.cached_reads():
        assert refs.read(DRAFT) is None
        assert refs.below(b"refs/heads/") == {}
        assert not refs.has_below(b"refs/")
