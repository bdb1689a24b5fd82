"""What a power cut or a bad disk does to a repository: found, and, where that loses nothing more, put right.

git reads none of a packed-refs file with one line that is damaged: no clone, no fetch. So such lines are cut
out, and the file as it was is kept beside it; what they held is brought back by `gitstore repair`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dulwich.file import GitFile

from gitstore.git.files import fsync_folder
from gitstore.git.packed_refs import LINE
from gitstore.git.process import command, environment

_HEADER: Final = b"# pack-refs with:"
_PEELED: Final = re.compile(rb"\^[0-9a-f]{40}")
_MOST_SAID: Final = 1_000  # lines of git fsck


def packed_refs_damaged(repository: Path) -> bool:
    data = _packed_refs(repository)
    return data is not None and _sound_part(data) != data


def mend_packed_refs(repository: Path, label: str) -> Path | None:
    """Cut damaged lines out of packed-refs. The file as it was, kept under a name with `label`, or None.

    Under `Locks.maintenance`. Raises `FileLocked` where git is at it.
    """
    data = _packed_refs(repository)
    if data is None or (sound := _sound_part(data)) == data:
        return None
    with GitFile(os.fspath(repository / "packed-refs"), "wb") as file:
        kept = repository / f"packed-refs.damaged-{label}"
        kept.write_bytes(data)
        file.write(sound)
    fsync_folder(repository)
    return kept


def fsck(repository: Path) -> Iterator[str]:
    """What `git fsck --strict` finds wrong, a line each."""
    done = subprocess.run(
        command(repository, "fsck", "--strict", "--full", "--no-dangling", "--no-progress"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env=environment(),
    )
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace").splitlines()
        # A link to what is missing is two lines, beside the one that says so.
        lines = [line for line in said if not line.startswith(("broken link from ", "  "))][:_MOST_SAID]
        yield from lines or [f"git fsck ended with status {done.returncode}"]


def _packed_refs(repository: Path) -> bytes | None:
    try:
        return (repository / "packed-refs").read_bytes()
    except FileNotFoundError:
        return None


def _sound_part(data: bytes) -> bytes:
    """The lines that git understands; without its header, as these are in order still, where it is lost."""
    *lines, _torn = data.split(b"\n")
    kept: list[bytes] = []
    named = False
    for position, line in enumerate(lines):
        if position == 0 and line.startswith(_HEADER):
            kept.append(line)
        elif LINE.fullmatch(line):
            kept.append(line)
            named = True
            continue
        elif named and _PEELED.fullmatch(line):
            kept.append(line)
        named = False
    return b"".join(line + b"\n" for line in kept)
