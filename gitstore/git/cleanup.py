"""Remove files that killed processes left in a repository: lock files, partial files, quarantines.

A lock file does not identify its owner, so it is removed only if it cannot have one: every gitstore writer
holds the shared writer lock (gitstore/unit_of_work.py) until it ends or dies, and the sweep tries to get the
exclusive one, or else the locks of workflows. A git that gitstore runs to pack or delete refs holds the guard
of packed-refs instead. A quarantine has a lock file of its own, since a push fills it before it writes. Files
of a manually run git have no such lock and are judged by age.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final

from gitstore import names
from gitstore.errors import BusyError
from gitstore.git import packed_refs_guard, unpacking
from gitstore.git.quarantine import PREFIX
from gitstore.git.unpacking import ALIVE
from gitstore.system import try_lock

MOMENT: Final = 1.0
"""Seconds: the most by which a git child process outlives the writer that started it."""
MINUTE: Final = 60.0
"""Seconds that a manually run git may hold HEAD or the configuration, and one that packs refs, a ref."""
QUARTER_HOUR: Final = 900.0
"""Seconds that a git may hold packed-refs without the guard: one that was run manually, or whose machine is
cut off from the volume. Without its lock, it would undo what others write."""
DAY: Final = 86_400.0
"""Seconds after which even a file of a slow repack is considered abandoned."""

UNFINISHED: Final = ".new-"
"""Prefix of the folders beside the repositories in which new ones are created."""

_PATIENCE: Final = 60.0  # seconds in which workflows are locked one after the other
_GIT_FILES: Final = ("HEAD.lock", "config.lock", "shallow.lock")
_PACKING_FILES: Final = ("packed-refs.new", "packed-refs.lock")


def sweep(
    repository: Path,
    hold: Callable[[], AbstractContextManager[None]],
    now: float,
    slugs: Collection[str] | None = None,
    *,
    alone: Callable[[str], AbstractContextManager[object]] | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> list[Path]:
    """Remove abandoned files and return their paths. `now` is a time.time() value.

    With `slugs`, only files that writers of these workflows may have left are examined, at no cost for
    others. `hold` is `UnitOfWork.maintenance`; it is entered only if a lock file outlives the time that
    active writers keep one, and its errors propagate. If writers of other workflows leave no gap for it,
    `alone` locks one workflow after the other instead, and lock files of their refs are removed: a writer
    that has lost its workflow finds its lock file gone, and writes no ref.
    """
    removed: list[Path] = []
    if locks := _with_inodes(_locks(repository, slugs)):
        sleep(MOMENT)
        if stale := locks & _with_inodes(path for path, _ in locks):
            try:
                with hold():
                    # All writers have left, so the lock files that remain have no owner.
                    removed += _remove_ownerless(repository, stale, now)
            except BusyError:
                if alone is not None:
                    removed += _remove_by_workflow(repository, stale, now, alone)
                if not removed:
                    raise
    removed += _remove(path for name in _GIT_FILES if _is_older(path := repository / name, now, MINUTE))
    if packing := [
        path for name in _PACKING_FILES if _is_older(path := repository / name, now, QUARTER_HOUR)
    ]:
        with packed_refs_guard.idle(repository) as is_idle:
            removed += _remove(path for path in packing if is_idle and _is_older(path, now, QUARTER_HOUR))
    if slugs is None:
        removed += _remove(path for path in _partial_files(repository) if _is_older(path, now, DAY))
        created = repository.parent.glob(f"{UNFINISHED}*")
        removed += _remove_folders(path for path in created if _is_older(path, now, DAY))
    quarantines = [*(repository / "objects").glob(f"{PREFIX}*")]
    if slugs is None:
        quarantines += filter(_is_own, Path(tempfile.gettempdir()).glob(f"{unpacking.prefix(repository)}*"))
    return removed + _remove_folders(path for path in quarantines if _is_abandoned(path, now))


def _remove_ownerless(repository: Path, stale: Collection[tuple[Path, int]], now: float) -> list[Path]:
    """Remove those of the lock files `stale`, as (path, inode), that still exist.

    Git that packs refs locks one ref at a time, to delete its file, and without the lock another writer may
    change it. So while git does, only older lock files are removed.
    """
    with packed_refs_guard.idle(repository) as is_idle:
        left = {item for item in _with_inodes(path for path, _ in stale) if item in stale}
        return _remove(path for path, _ in left if is_idle or _is_older(path, now, MINUTE))


def _remove_by_workflow(
    repository: Path,
    stale: Collection[tuple[Path, int]],
    now: float,
    alone: Callable[[str], AbstractContextManager[object]],
) -> list[Path]:
    """Do what `_remove_ownerless` does for each workflow that `alone` can lock, for a limited time."""
    by_slug: dict[str, list[tuple[Path, int]]] = defaultdict(list)
    for path, inode in stale:
        ref = os.fsencode(path.relative_to(repository)).removesuffix(b".lock")
        if (slug := names.slug_of(ref)) is not None:
            by_slug[slug].append((path, inode))
    removed: list[Path] = []
    deadline = time.monotonic() + _PATIENCE
    for slug, files in by_slug.items():
        if time.monotonic() > deadline:
            break  # the next sweep continues
        with suppress(BusyError), alone(slug):
            removed += _remove_ownerless(repository, files, now)
    return removed


def _locks(repository: Path, slugs: Collection[str] | None) -> Iterator[Path]:
    """Yield the lock files of refs and, in a full sweep, of objects."""
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
    for prefix in (names.PENDING, names.RELEASES):  # of a write to several workflows
        yield from (repository / os.fsdecode(prefix)).glob("*.lock")


def _partial_files(repository: Path) -> Iterator[Path]:
    objects = repository / "objects"
    for folder in [objects, objects / "pack", *_fanout(repository)]:
        with suppress(FileNotFoundError):
            for entry in os.scandir(folder):
                if entry.name.startswith(("tmp_", ".tmp-")) and entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)
    for path in (objects / "pack").glob("pack-*"):  # one with its pack or its index missing
        if not (path.with_suffix(".pack").exists() and path.with_suffix(".idx").exists()):
            yield path


def _fanout(repository: Path) -> Iterator[Path]:
    return (repository / "objects" / f"{number:02x}" for number in range(256))


def _is_abandoned(quarantine: Path, now: float) -> bool:
    """Return whether the process that created the quarantine is gone."""
    try:
        handle = os.open(quarantine / ALIVE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Killed before it made the lock file, or an older gitstore's.
        return _is_older(quarantine, now, MINUTE)
    try:
        return try_lock(handle) and _is_older(quarantine, now, MOMENT)
    finally:
        os.close(handle)


def _is_own(path: Path) -> bool:
    """Return whether `path` belongs to this user: others may have folders for temporary files there."""
    try:
        return path.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


def _remove(paths: Iterable[Path]) -> list[Path]:
    removed = []
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()
            removed.append(path)
    return removed


def _remove_folders(paths: Iterable[Path]) -> list[Path]:
    removed = []
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            removed.append(path)
    return removed


def _with_inodes(paths: Iterable[Path]) -> set[tuple[Path, int]]:
    """Return the existing `paths`, each with its inode, so that a recreated file counts as another file."""
    existing = set()
    for path in paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            existing.add((path, path.lstat().st_ino))
    return existing


def _is_older(path: Path, now: float, seconds: float) -> bool:
    """Return whether `path` exists and is `seconds` old or more; a time in the future counts as new."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not stat.S_ISLNK(status.st_mode) and now - status.st_mtime >= seconds
