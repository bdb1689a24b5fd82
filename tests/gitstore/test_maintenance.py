"""git's maintenance beside writers: refs and objects packed, leftovers pruned, nothing lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from dulwich.objects import Blob

from gitstore.drafts import Content
from gitstore.git import maintenance
from gitstore.git.maintenance import collect, due, pack_refs, refs_due
from gitstore.git.objects import Objects
from gitstore.git.quarantine import quarantine, references
from gitstore.git.small_packs import removing_packs
from gitstore.model import Person
from gitstore.repository import Repository
from gitstore.store import Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.gitstore.conftest import Git

PROJECT = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
WHO = Actors(Person("Ann", "ann@example.test"), Person("Ann", "ann@example.test"))
OLD = 10 * 86_400


def age(bare: Path) -> None:
    """Make every loose object older than any grace."""
    then = time.time() - OLD
    for path in (bare / "objects").glob("??/*"):
        os.utime(path, (then, then))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def loose(bare: Path) -> set[str]:
    return {path.parent.name + path.name for path in (bare / "objects").glob("??/*")}


def publish(store: Store, slug: str, label: str) -> None:
    value = {"nodes": [{"id": "a", "type": "webhook", "data": {"label": label}}]}
    if store.exists(slug):
        store.create_draft(slug, Content(value=value), WHO)
    else:
        store.create_workflow(slug, Content(value=value), WHO)
    store.publish(slug, WHO)


def test_everything_is_packed_and_still_there(bare: Path, git: Git) -> None:
    """Refs and objects are packed; versions are read as before."""
    store = Store(bare, PROJECT, FileUnitOfWork)
    for label in ("one", "two", "three"):
        publish(store, "a", label)
    before = store.refs.below(b"refs/")
    done = collect(bare, FileUnitOfWork(Repository(bare, PROJECT)))
    assert done is not None
    assert (done.pruned, done.packs) == (0, 1)
    assert loose(bare) == set()
    assert not list((bare / "refs").rglob("v*"))
    assert Store(bare, PROJECT, FileUnitOfWork).refs.below(b"refs/") == before
    publish(store, "a", "four")
    assert store.state("a").latest == 4
    store.close()
    git("fsck", "--strict")


def test_only_old_unreachable_objects_are_pruned(bare: Path, git: Git, commit: Callable[..., str]) -> None:
    """Superseded drafts and ledgers are refs, and are kept."""
    store = Store(bare, PROJECT, FileUnitOfWork)
    publish(store, "a", "one")
    store.create_draft("a", Content(value={"nodes": []}), WHO)
    store.discard_draft("a", WHO)
    kept = loose(bare)
    stray = commit(files={"workflow.yaml": "stray"})
    strays = loose(bare) - kept
    assert collect(bare, FileUnitOfWork(Repository(bare, PROJECT))) is not None
    assert loose(bare) == strays
    age(bare)
    young = commit(stray, files={"workflow.yaml": "young"})
    assert collect(bare, FileUnitOfWork(Repository(bare, PROJECT))) is not None
    assert loose(bare) >= strays, "a young commit refers to it"
    git("update-ref", "-d", "refs/heads/none")
    age(bare)
    done = collect(bare, FileUnitOfWork(Repository(bare, PROJECT)), slice_size=2)
    assert done is not None
    assert done.pruned == len(strays) + 3
    assert young not in loose(bare)
    store.close()
    git("fsck", "--strict")


def test_newly_reachable_objects_are_kept(
    bare: Path, commit: Callable[..., str], monkeypatch: pytest.MonkeyPatch, git: Git
) -> None:
    """A ref moved to a leftover between two slices keeps it and all that it refers to."""
    one = commit(files={"workflow.yaml": "one"})
    two = commit(files={"workflow.yaml": "two"})
    age(bare)
    real = maintenance.users_first

    def meanwhile(objects: Objects, oids: list[bytes]) -> list[bytes]:
        order = real(objects, oids)
        git("update-ref", "refs/heads/drafts/a", one)
        return order

    monkeypatch.setattr(maintenance, "users_first", meanwhile)
    assert collect(bare, FileUnitOfWork(Repository(bare, PROJECT)), slice_size=1) is not None
    assert one in loose(bare)
    assert two not in loose(bare)
    git("fsck", "--strict")


def test_objects_are_removed_before_those_they_refer_to(bare: Path, commit: Callable[..., str]) -> None:
    """So every remaining object is complete at any time."""
    one = commit(files={"workflow.yaml": "one"})
    two = commit(one, files={"workflow.yaml": "two"})
    objects = Objects(bare / "objects")
    oids = [oid.encode() for oid in sorted(loose(bare))]
    order = maintenance.users_first(objects, oids)
    assert sorted(order) == oids
    place = {oid: position for position, oid in enumerate(order)}
    for oid in order:
        assert all(place[below] > place[oid] for below in references(objects.get(oid)))
    assert place[two.encode()] < place[one.encode()]
    objects.close()


def test_a_push_in_quarantine_outlives_it(bare: Path) -> None:
    """At any age: git's prune only lists objects."""
    with quarantine(bare) as held:
        os.utime(held.folder, (1, 1))
        collect(bare, FileUnitOfWork(Repository(bare, PROJECT)))
        assert held.folder.is_dir()


def test_two_concurrent_runs_are_one(bare: Path) -> None:
    """The second returns None and does nothing."""
    with removing_packs(bare):
        assert collect(bare, FileUnitOfWork(Repository(bare, PROJECT))) is None


def test_many_packs_become_one(
    bare: Path, monkeypatch: pytest.MonkeyPatch, git: Git, commit: Callable[..., str]
) -> None:
    """Those of git, which hold deltas; gitstore's own become one each time. The one takes less room."""
    monkeypatch.setattr(maintenance, "MOST_PACKS", 2)
    counts, before = [], 0
    for number in range(3):
        text = "".join(f"line {number} of {line}\n" for line in range(2_000))
        git("update-ref", f"refs/heads/{number}", commit(files={"a": text, "b": text + "and more"}))
        before = size(bare / "objects")
        done = collect(bare, FileUnitOfWork(Repository(bare, PROJECT)))
        assert done is not None
        counts.append(done.packs)
    assert counts == [1, 2, 1]
    assert size(bare / "objects") < before
    git("fsck", "--strict")


def test_it_is_due_once_a_day(bare: Path) -> None:
    """Also after the clock was set back."""
    now = time.time()
    assert due(bare, now, 60)
    collect(bare, FileUnitOfWork(Repository(bare, PROJECT)))
    assert not due(bare, now + 30, 60)
    assert due(bare, now + 90, 60)
    assert due(bare, now - 1000, 60)


def test_it_leaves_less_on_disk_and_no_list_for_dumb_clients(bare: Path, git: Git) -> None:
    """Those of earlier releases and of `git update-server-info` are removed: nobody reads them."""
    store = Store(bare, PROJECT, FileUnitOfWork)
    publish(store, "a", "one")
    git("update-server-info")
    sizes = []
    for _ in range(2):
        assert collect(bare, store.unit_of_work) is not None
        sizes.append(sum(path.stat().st_size for path in bare.rglob("*") if path.is_file()))
        assert not (bare / "info/refs").exists()
        assert not (bare / "objects/info/packs").exists()
    assert sizes[0] == sizes[1]
    publish(store, "a", "two")
    before = sum(path.stat().st_blocks for path in bare.rglob("*"))
    assert collect(bare, store.unit_of_work) is not None
    assert sum(path.stat().st_blocks for path in bare.rglob("*")) <= before
    store.close()


def test_a_run_without_news_visits_no_objects(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It packs a loose ref, and runs git again for a loose object; other files stay as they are."""
    store = Store(bare, PROJECT, FileUnitOfWork)
    publish(store, "a", "one")
    assert collect(bare, store.unit_of_work) is not None
    before = {path: path.stat().st_mtime_ns for path in bare.rglob("*pack*")}
    ran: list[str] = []
    run = maintenance._run

    def counted(repository: Path, *arguments: str, **named: bytes) -> bytes:
        ran.append(arguments[0])
        return run(repository, *arguments, **named)

    monkeypatch.setattr(maintenance, "_run", counted)
    done = collect(bare, store.unit_of_work)
    assert done is not None
    assert (ran, done.pruned) == ([], 0)
    assert {path: path.stat().st_mtime_ns for path in bare.rglob("*pack*")} == before
    unreachable = Blob.from_string(b"left by a killed writer")
    store.objects.write([unreachable])
    age(bare)
    done = collect(bare, store.unit_of_work)
    assert done is not None
    assert (ran, done.pruned) == (["repack", "prune"], 1)
    publish(store, "a", "two")
    assert list((bare / "refs").rglob("v2")) != []
    assert collect(bare, store.unit_of_work) is not None
    assert list((bare / "refs").rglob("v2")) == []
    assert store.version("a", 2).number == 2
    store.close()


def test_many_loose_refs_are_packed_before_the_next_run(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many loose versions, drafts or ledgers slow down pushes; packed ones do not."""
    monkeypatch.setattr(maintenance, "MOST_LOOSE_REFS", 1)
    store = Store(bare, PROJECT, FileUnitOfWork)
    now = time.time()
    assert not refs_due(bare, now)
    publish(store, "a", "zero")
    assert refs_due(bare, now)
    pack_refs(bare)
    later = now + maintenance.REFS_SOONEST + 10
    assert not refs_due(bare, later)
    publish(store, "a", "one")
    assert not refs_due(bare, time.time())
    os.utime(bare / "packed-refs", (later, later))
    assert refs_due(bare, later), "also after packed-refs lost a ref"
    pack_refs(bare)
    assert store.version("a", 2).number == 2
    assert not refs_due(bare, later)
    store.create_workflow("b", Content(value={"nodes": []}), WHO)  # a draft and a ledger
    assert refs_due(bare, later)
    assert refs_due(bare, now - 3600), "also after the clock was set back"
    store.close()
