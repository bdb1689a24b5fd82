"""Clearing away what killed processes left in a repository: lock files, half-written files, quarantines.

A lock file says nothing of who made it, so it is removed only where nobody can be its owner: every writer of
ours is present in the repository (gitstore/locks.py) until it ends or dies, and the sweep waits to be alone.
A quarantine has a lock file of its own, since a push fills it before it writes. What git makes when somebody
runs it by hand has no such witness: that goes by age.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from itertools import chain
from pathlib import Path
from typing import Final

from gitstore import names
from gitstore.git.quarantine import ALIVE, PREFIX

MOMENT: Final = 1.0
"""Seconds: a child of git may outlive the writer that started it by less."""
MINUTE: Final = 60.0
"""Seconds that git, run by hand, may hold packed-refs, HEAD or the configuration."""
DAY: Final = 86_400.0
"""Seconds after which even a file of a slow repack belongs to nobody."""

_TOP: Final = ("packed-refs.lock", "packed-refs.new", "HEAD.lock", "config.lock", "shallow.lock")


def sweep(
    repository: Path,
    hold: Callable[[], AbstractContextManager[None]],
    now: float,
    slugs: Collection[str] | None = None,
    *,
    sleep: Callable[[float], object] = time.sleep,
) -> list[Path]:
    """Remove what nobody owns; what was removed. `now` is as time.time() tells.

    With `slugs`, only what writers of these workflows may have left is looked for, at no cost for the others.
    `hold` is `Locks.maintenance`, entered only where a lock stays for longer than writers at work keep one;
    what it raises passes through.
    """
    removed: list[Path] = []
    if found := _stamped(_locks(repository, slugs)):
        sleep(MOMENT)
        if stale := found & _stamped(path for path, _ in found):
            with hold():
                # All writers have left, so those that are there still are nobody's.
                removed += _remove(path for path, _ in stale & _stamped(path for path, _ in stale))
    removed += _remove(path for path in _of_git(repository) if _older(path, now, MINUTE))
    if slugs is None:
        removed += _remove(path for path in _half_written(repository) if _older(path, now, DAY))
    removed += [path for path in _quarantines(repository) if _abandoned(path, now) and _drop(path)]
    return removed


def _locks(repository: Path, slugs: Collection[str] | None) -> Iterator[Path]:
    """Lock files of refs and, where everything is looked at, of objects."""
    if slugs is None:
        for folder, _, files in os.walk(repository / "refs"):
            yield from (Path(folder, name) for name in files if name.endswith(".lock"))
        for fan in _fanout(repository):
            yield from fan.glob("*.lock")
        return
    for slug in slugs:
        for ref in (names.draft(slug), names.ledger(slug)):
            yield repository / (os.fsdecode(ref) + ".lock")
        for prefix in (names.tags_of(slug), names.superseded_of(slug)):
            yield from (repository / os.fsdecode(prefix)).glob("*.lock")


def _of_git(repository: Path) -> Iterator[Path]:
    return (repository / name for name in _TOP)


def _half_written(repository: Path) -> Iterator[Path]:
    objects = repository / "objects"
    folders = chain([objects, objects / "pack"], _fanout(repository))
    for folder in folders:
        with suppress(FileNotFoundError):
            for entry in os.scandir(folder):
                if entry.name.startswith(("tmp_", ".tmp-")) and entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)


def _fanout(repository: Path) -> Iterator[Path]:
    return (repository / "objects" / f"{number:02x}" for number in range(256))


def _quarantines(repository: Path) -> Iterator[Path]:
    return (repository / "objects").glob(f"{PREFIX}*")


def _abandoned(quarantine: Path, now: float) -> bool:
    """Whether the process that made it is gone."""
    try:
        handle = os.open(quarantine / ALIVE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return _older(quarantine, now, MINUTE)  # killed before it was made, or of an older gitstore
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return _older(quarantine, now, MOMENT)
    finally:
        os.close(handle)


def _drop(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _remove(paths: Iterable[Path]) -> list[Path]:
    removed = []
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()
            removed.append(path)
    return removed


def _stamped(paths: Iterable[Path]) -> set[tuple[Path, int]]:
    """Those of `paths` that are there, each with its inode: one that is made anew is another."""
    found = set()
    for path in paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            found.add((path, path.lstat().st_ino))
    return found


def _older(path: Path, now: float, seconds: float) -> bool:
    """Whether it is there, and has been for so long. What comes from the future does not count as old."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not stat.S_ISLNK(status.st_mode) and now - status.st_mtime >= seconds
