"""Run git as a child process: argument lists, no user configuration, resource limits."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gitstore.errors import ConfigError

FRUGAL: Final[Mapping[str, str]] = {
    "pack.threads": "1",
    "pack.windowMemory": "32m",
    "pack.deltaCacheSize": "16m",
    "core.packedGitWindowSize": "1m",
    "core.packedGitLimit": "64m",
    "core.deltaBaseCacheLimit": "16m",
}
"""Settings that reduce git's memory for packs of the largest accepted objects from 115 to 50 MiB."""


def git() -> str:
    """Return the path of the git binary. Raises `config` if git is not installed."""
    path = shutil.which("git")
    if path is None:
        raise ConfigError("git is not on PATH: install git 2.36 or newer")
    return path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a git child: only the repository's configuration, no prompts, C locale."""
    return {
        "PATH": os.defpath,
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        # A data folder on a volume may belong to another uid; a user who can start gitstore may read it.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        **(extra or {}),
    }


def command(repository: Path, *arguments: str, config: Mapping[str, str] | None = None) -> list[str]:
    """Return the argument list for `git <arguments>` in the bare `repository`."""
    settings = [part for key, value in (config or {}).items() for part in ("-c", f"{key}={value}")]
    return [git(), "--git-dir", os.fspath(repository), *settings, *arguments]


def larger(repository: Path, oids: Sequence[bytes], size: int) -> set[bytes]:
    """Return those of the objects `oids` whose content has more than `size` bytes, without reading them."""
    if not oids:
        return set()
    child = subprocess.run(
        command(repository, "cat-file", "--batch-check=%(objectname) %(objectsize)"),
        input=b"".join(oid + b"\n" for oid in oids),
        env=environment(),
        capture_output=True,
        check=False,
    )
    lines = (line.split() for line in child.stdout.splitlines())
    return {oid for oid, length in lines if length.isdigit() and int(length) > size}


def limit_memory(pid: int, size: int) -> None:
    """Limit the address space of a child that has no input yet to `size` bytes, if the system supports it."""
    if hasattr(resource, "prlimit"):
        resource.prlimit(pid, resource.RLIMIT_AS, (size, size))
