"""Objects that a commit adds, as in `git rev-list --objects`, at a bounded cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gitstore.git.commits import new_objects, object_of
from gitstore.git.objects import Objects
from tests.gitstore.conftest import Git

FILES = {"workflow.yaml": "one", "docs/a/deep.md": "deep", "docs/b.md": "b"}


def new_oids(bare: Path, tip: str, known: str | None, *, steps: int = 1000, size: int = 2**20) -> list[str]:
    objects = Objects(bare / "objects")
    base = known.encode() if known else None
    oids = [oid.decode() for oid, _ in new_objects(objects, tip.encode(), base, steps=steps, size=size)]
    objects.close()
    return oids


def by_git(git: Git, tip: str, known: str | None) -> set[str]:
    arguments = [tip, *([f"^{known}"] if known else [])]
    return {line.split()[0] for line in git("rev-list", "--objects", *arguments).splitlines()}


def test_the_whole_history_without_a_known_commit(bare: Path, git: Git, commit: Callable[..., str]) -> None:
    first = commit(files=FILES)
    tip = commit(first, files={**FILES, "workflow.yaml": "two"})
    oids = new_oids(bare, tip, None)
    assert set(oids) == by_git(git, tip, None)
    assert len(oids) == len(set(oids))
    assert oids[0] == tip


@pytest.mark.parametrize("files", [
    {**FILES, "workflow.yaml": "two"}, {**FILES, "docs/a/deep.md": "deeper"}, {**FILES, "new/x": "x"},
    {"workflow.yaml": "one"}, FILES, {**FILES, "docs": "a file now"},
], ids=["file", "deep file", "new folder", "folder gone", "nothing", "file for folder"])  # fmt: skip
def test_only_new_objects(bare: Path, git: Git, commit: Callable[..., str], files: dict[str, str]) -> None:
    if "docs" in files:
        files = {name: text for name, text in files.items() if not name.startswith("docs/")}
    known = commit(files=FILES)
    middle = commit(known, files={"workflow.yaml": "between", "docs/b.md": "b"}, when=1_700_000_100)
    tip = commit(middle, files=files, when=1_700_000_200)
    oids = set(new_oids(bare, tip, known))
    assert oids >= by_git(git, tip, known)
    assert oids - by_git(git, tip, known) <= by_git(git, known, None), "what came back"
    assert known not in oids


def test_a_merge_of_the_known_commit_stops_at_the_history_of_both(
    bare: Path, git: Git, commit: Callable[..., str]
) -> None:
    root = commit(files=FILES, when=1)
    known = commit(root, files={**FILES, "workflow.yaml": "published"}, when=2)
    draft = commit(root, files={**FILES, "workflow.yaml": "draft"}, when=3)
    tip = commit(draft, known, files={**FILES, "workflow.yaml": "merged"}, when=4)
    assert set(new_oids(bare, tip, known)) == by_git(git, tip, known)


def test_the_walk_is_bounded_in_commits_and_in_bytes(bare: Path, commit: Callable[..., str]) -> None:
    tip = commit(files=FILES)
    for second in range(20):
        tip = commit(tip, files={**FILES, "workflow.yaml": str(second)}, when=1_700_000_000 + second)
    assert len(new_oids(bare, tip, None, steps=5)) <= 5 * 5
    assert len(new_oids(bare, tip, None, size=200)) <= 10


@pytest.mark.parametrize("kind", ["commit", "tree", "blob", "tag"])
def test_an_object_is_made_only_from_bytes_with_its_id(
    bare: Path, git: Git, commit: Callable[..., str], kind: str
) -> None:
    tip = commit(files=FILES)
    git("tag", "-a", "t", "-m", "Tag", tip)
    oid = git(
        "rev-parse", {"commit": tip, "tree": f"{tip}^{{tree}}", "blob": f"{tip}:workflow.yaml"}.get(kind, "t")
    )
    objects = Objects(bare / "objects")
    raw = objects.get(oid.encode()).as_raw_string()
    objects.close()
    item = object_of(oid, kind, raw)
    assert item is not None
    assert (item.id, item.as_raw_string()) == (oid.encode(), raw)
    assert object_of(oid, kind, raw + b" ") is None
    assert object_of(oid, "blob" if kind != "blob" else "tag", raw) is None
