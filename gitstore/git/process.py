"""Run git as a child process: argument lists, no user configuration, resource limits."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

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


def sizes(repository: Path, oids: Sequence[bytes]) -> dict[bytes, int]:
    """Return the sizes in bytes of those of the objects `oids` that exist, without reading them."""
    if not oids:
        return {}
    child = subprocess.run(
        command(repository, "cat-file", "--batch-check=%(objectname) %(objectsize)"),
        input=b"".join(oid + b"\n" for oid in oids),
        env=environment(),
        capture_output=True,
        check=False,
    )
    lines = (line.split() for line in child.stdout.splitlines())
    return {oid: int(length) for oid, length in lines if length.isdigit()}


class BatchReader:
    """Reads many objects by one `git cat-file`, at a third of the cost of reading each by itself.

    It is a context manager: the child process ends with the block.
    """

    _AHEAD: Final = 100  # ids that are sent before their objects are read; a pipe holds more

    def __init__(self, repository: Path) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._child = subprocess.Popen(
            command(repository, "cat-file", "--batch", config=FRUGAL),
            env=environment(),
            stderr=subprocess.DEVNULL,
            **pipes,
        )

    def __enter__(self) -> BatchReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        with suppress(OSError):  # what was not written to the killed child
            self._child.__exit__(kind, error, trace)

    def read(self, oids: Sequence[bytes]) -> Iterator[tuple[bytes, str, bytes]]:
        """Yield (id, type, content) of those of `oids` that exist, up to the first that cannot be read."""
        for start in range(0, len(oids), self._AHEAD):
            try:
                yield from self._read(oids[start : start + self._AHEAD])
            except (OSError, ValueError):  # the child ended, at a damaged object
                return

    def _read(self, oids: Sequence[bytes]) -> Iterator[tuple[bytes, str, bytes]]:
        given, taken = self._child.stdin, self._child.stdout
        if given is None or taken is None:
            return
        given.write(b"".join(oid + b"\n" for oid in oids))
        given.flush()
        for _ in oids:
            oid, kind, *size = taken.readline().split()
            if size:
                length = int(size[0])
                content = taken.read(length + 1)
                if len(content) <= length:
                    raise ValueError
                yield oid, kind.decode(), content[:length]


def limit_memory(pid: int, size: int) -> None:
    """Limit the address space of a child that has no input yet to `size` bytes, if the system supports it."""
    if hasattr(resource, "prlimit"):
        resource.prlimit(pid, resource.RLIMIT_AS, (size, size))
