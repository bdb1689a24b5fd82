"""The advertisement to clones and fetches: from memory, and always what git would say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gitstore import upload_pack
from tests.gitstore.conftest import Git


def advertised(bare: Path, protocol: str = "version=2") -> bytes:
    return b"".join(upload_pack.advertise(bare, protocol))


def test_capabilities_are_asked_of_git_once(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the same for all repositories of one configuration, and what git says for each."""
    asked = advertised(bare, "version=2:more=1")  # a header that no git sends is passed on
    assert asked.startswith(b"000eversion 2\n")
    assert advertised(bare) == asked
    monkeypatch.setattr(subprocess, "Popen", pytest.fail)
    assert advertised(bare) == asked


def test_capabilities_follow_the_configuration(bare: Path, git: Git) -> None:
    """A changed setting shows at once, and a broken one is not kept."""
    before = advertised(bare)
    git("config", "uploadpack.allowRefInWant", "true")
    assert b"ref-in-want" in advertised(bare)
    assert b"ref-in-want" not in before
    sound = (bare / "config").read_bytes()
    (bare / "config").write_bytes(b"[core\n")
    assert advertised(bare) == advertised(bare) == b""
    (bare / "config").write_bytes(sound)
    assert b"ref-in-want" in advertised(bare)


def test_refs_are_never_from_memory(bare: Path, git: Git) -> None:
    """Versions 0 and 1 of the protocol advertise refs, which are those of now."""
    for number in range(2):
        tree = git("mktree")
        oid = git("commit-tree", tree, "-m", str(number))
        git("update-ref", "refs/heads/drafts/a", oid)
        for protocol in ("", "version=1"):
            assert oid.encode() in advertised(bare, protocol)
