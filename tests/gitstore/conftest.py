"""A bare repository, and git to create objects in it and to check it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gitstore.store import Store

Git = Callable[..., str]

ENVIRONMENT = {
    "PATH": os.defpath,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.test",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.test",
    "GIT_AUTHOR_DATE": "@1700000000 +0000",
    "GIT_COMMITTER_DATE": "@1700000000 +0000",
}


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """An empty bare repository as gitstore creates it."""
    path = tmp_path / "bare.git"
    Store.init(path)
    return path


@pytest.fixture
def git(bare: Path) -> Git:
    """`git(*arguments, input=..., env=...)` in the bare repository; its output, stripped."""

    def run(*arguments: str, input: str | bytes = "", env: dict[str, str] | None = None) -> str:
        sent = input.encode() if isinstance(input, str) else input
        done = subprocess.run(
            ["git", "--git-dir", str(bare), *arguments],
            input=sent,
            capture_output=True,
            check=True,
            env={**ENVIRONMENT, **(env or {})},
        )
        return done.stdout.decode().strip()

    return run


@pytest.fixture
def commit(git: Git) -> Callable[..., str]:
    """`commit(*parents, files=..., when=...)` makes a commit in the bare repository; its id.

    Names of `files` may hold slashes.
    """

    def tree(files: dict[str, str]) -> str:
        folders: dict[str, dict[str, str]] = {}
        listing = []
        for path, content in files.items():
            name, _, below = path.partition("/")
            if below:
                folders.setdefault(name, {})[below] = content
            else:
                blob = git("hash-object", "-w", "--stdin", input=content)
                listing.append(f"100644 blob {blob}\t{path}\n")
        listing += [f"040000 tree {tree(below)}\t{name}\n" for name, below in folders.items()]
        return git("mktree", input="".join(listing))

    def make(*parents: str, files: dict[str, str] | None = None, when: int = 1_700_000_000) -> str:
        dates = {"GIT_AUTHOR_DATE": f"@{when} +0000", "GIT_COMMITTER_DATE": f"@{when} +0000"}
        flags = [part for parent in parents for part in ("-p", parent)]
        return git("commit-tree", tree(files or {}), *flags, "-m", f"at {when}", env=dates)

    return make
