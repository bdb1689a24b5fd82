"""Detect damage from a power cut or a failing disk, and repair it where no further data is lost.

git reads no ref from a packed-refs file with one damaged line, so clone and fetch fail. Such lines are
removed, and a copy of the original file is kept in the same folder; `gitstore repair` restores the refs.
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
_MOST_SAID: Final = 1_000  # lines of git fsck output


def packed_refs_damaged(repository: Path) -> bool:
    data = _packed_refs(repository)
    return data is not None and _sound_part(data) != data


def mend_packed_refs(repository: Path, label: str) -> Path | None:
    """Remove damaged lines from packed-refs; return a copy of the original, named with `label`, or None.

    Requires `Locks.maintenance`. Raises `FileLocked` if git holds the file.
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
    """Yield the problems that `git fsck --strict` reports, one per line."""
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
        # Drop the two lines about a broken link; a third line already reports the missing object.
        lines = [line for line in said if not line.startswith(("broken link from ", "  "))][:_MOST_SAID]
        yield from lines or [f"git fsck ended with status {done.returncode}"]


def _packed_refs(repository: Path) -> bytes | None:
    try:
        return (repository / "packed-refs").read_bytes()
    except FileNotFoundError:
        return None


def _sound_part(data: bytes) -> bytes:
    """Return the valid lines; without the header if it is damaged, which is safe since they are in order."""
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
