"""Checks of a volume for repositories: what gitstore's writes require of the file system.

A version tag is created by link(2), other refs by rename(2), both durable by fsync(2) of file and folder, and
writers exclude each other by flock(2) where they share a machine. Network file systems may lack one of these,
or cache that a name does not exist, which hides a tag from a node that holds its lock.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gitstore.git.files import fsync_folder

_CHILD_SECONDS: Final = 10
# A lock of another process: within one, some emulations of flock(2) lock nothing.
_TRY_LOCK: Final = (
    "import fcntl, sys\n"
    "try: fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    "except OSError: print('held')\n"
)


def faults(folder: Path, other: Path | None = None) -> Iterator[str]:
    """Yield what is wrong with the volume of `folder`; nothing if it can hold repositories.

    `other` is the same folder by another mount, as another node has it. A folder of its own is made in
    `folder` for the checks, and removed. Raises OSError if that is impossible.
    """
    with tempfile.TemporaryDirectory(prefix=".gitstore-check-", dir=folder) as name:
        place = Path(name)
        for check in (_durability, _exclusive_link, _atomic_rename, _lock):
            yield from check(place)
        if other is not None:
            yield from _second_mount(place, other / place.name)


def _durability(place: Path) -> Iterator[str]:
    path = place / "durable"
    try:
        with path.open("wb") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        fsync_folder(place)
    except OSError as error:
        yield f"fsync fails ({error.strerror}): a power cut could lose what was acknowledged"


def _exclusive_link(place: Path) -> Iterator[str]:
    source, target = place / "source", place / "linked"
    source.write_bytes(b"1")
    try:
        target.hardlink_to(source)
    except OSError as error:
        yield f"hard links fail ({error.strerror}): versions cannot be published"
        return
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return
    yield "a hard link replaces a file: two nodes could publish the same version"


def _atomic_rename(place: Path) -> Iterator[str]:
    """Replace a file that is open: its reader keeps the old content."""
    old, new = place / "old", place / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with old.open("rb") as reader:
        new.replace(old)
        if (reader.read(), old.read_bytes(), new.exists()) != (b"old", b"new", False):
            yield "rename does not replace a file atomically: a reader could see a damaged ref"


def _lock(place: Path) -> Iterator[str]:
    path = place / "lock"
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            yield f"flock fails ({error.strerror}): mount the volume with locks"
            return
        child = subprocess.run(
            [sys.executable, "-I", "-c", _TRY_LOCK, path],
            capture_output=True,
            text=True,
            check=False,
            timeout=_CHILD_SECONDS,
        )
        if child.stdout.strip() != "held":
            yield "flock does not exclude another process: mount the volume with locks"


def _second_mount(place: Path, other: Path) -> Iterator[str]:
    """Ask the other mount for a name that does not exist, create it here, and ask again."""
    if not other.is_dir():
        yield f"{other.parent} is not the same folder, or shows a new folder too late: switch its caches off"
        return
    if (other / "tag").exists():
        return
    (place / "tag").write_bytes(b"1")
    if not (other / "tag").exists():
        yield (
            f"{other.parent} still reports that a new file does not exist: switch off the caching of "
            "negative entries (lookupcache=none or positive, negative-timeout=0)"
        )
        return
    (other / "locked").write_bytes(b"1")
    try:
        (place / "locked").hardlink_to(place / "tag")
    except FileExistsError:
        return
    yield f"a link over a file that {other.parent} created succeeds: two nodes could publish the same version"
