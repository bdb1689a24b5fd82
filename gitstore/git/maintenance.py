"""git's own maintenance and fsck, concurrent with writers: only prune takes their lock.

The long part of prune, finding the unreachable objects, runs without the lock. They are then removed in
slices, each under the lock and after checking the refs that moved in between: objects reachable by now are
kept. An object is removed before the objects it refers to, so that every remaining object is complete at any
time: a push whose objects are in quarantine may rely on it.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from gitstore import names
from gitstore.errors import BusyError, GitstoreError
from gitstore.git import packed_refs_guard
from gitstore.git.objects import Objects
from gitstore.git.process import FRUGAL, command, environment
from gitstore.git.quarantine import references
from gitstore.git.refs import Refs
from gitstore.git.small_packs import SmallPacks, removing_packs
from gitstore.unit_of_work import UnitOfWork

GRACE: Final = 86_400.0
"""Seconds that an unreachable object is kept: longer than any push takes."""
SLICE: Final = 500
"""Objects removed during one hold of the lock: some 20 ms."""
MOST_PACKS: Final = 20
"""Number of packs beyond which they are combined into one."""
MANY_PACKS: Final = 60
"""Number of packs beyond which a run is due: writers leave fewer, unless their packs grow large."""
SOONEST: Final = 600.0
"""Seconds between two runs because of packs: a run over 100,000 versions takes 15 seconds."""
MOST_LOOSE_REFS: Final = 100
"""Number of loose refs beyond which they are packed: each push and fetch opens every one."""
REFS_SOONEST: Final = 60.0
"""Seconds between two runs of `pack_refs` because of loose refs."""

_LISTED: Final = re.compile(rb"^([0-9a-f]{40}) ", re.MULTILINE)
_STAMP: Final = "gitstore-gc"
_REFS_STAMP: Final = "gitstore-pack-refs"
_MOST_PROBLEMS: Final = 1_000  # lines of git fsck's output
_REPACK: Final = ("-d", "-l", "-n", "-q")  # -n: without the listings for dumb clients
_FOR_DUMB_CLIENTS: Final = ("info/refs", "objects/info/packs")  # not served; a list of all refs is large
# The names in a bitmap help only a pack that is made from it; they would be a third of its size.
# Without a reverse index, each fetch from a large pack makes one.
_SETTINGS: Final = {
    **FRUGAL,
    "core.fsync": "all",
    "pack.writeBitmapHashCache": "false",
    "pack.writeReverseIndex": "true",
}


@dataclass(frozen=True, slots=True)
class Collected:
    """The result of one maintenance run."""

    pruned: int
    packs: int
    seconds: float


def due(repository: Path, now: float, every: float) -> bool:
    """Return whether maintenance is due.

    It is if the last successful run was more than `every` seconds ago or lies in the future, or if there are
    many packs `SOONEST` seconds after it.
    """
    try:
        since = now - (repository / _STAMP).stat().st_mtime
    except FileNotFoundError:
        return True
    if not 0 <= since < every:
        return True
    return since >= SOONEST and _packs(repository) > MANY_PACKS


def refs_due(repository: Path, now: float) -> bool:
    """Return whether there are so many loose refs that `pack_refs` is due before the next maintenance."""
    # Not that of packed-refs, which also changes when a packed draft is discarded.
    with suppress(FileNotFoundError):
        if 0 <= now - (repository / _REFS_STAMP).stat().st_mtime < REFS_SOONEST:
            return False
    # Summed lazily: the walk of very many loose refs ends early.
    counts = accumulate(len(files) for _, _, files in os.walk(repository / os.fsdecode(names.PREFIX)))
    return any(count > MOST_LOOSE_REFS for count in counts)


def pack_refs(repository: Path) -> None:
    """Move all loose refs into packed-refs, beside writers. Raises `busy`."""
    stamp = repository / _REFS_STAMP
    stamp.touch()  # so that no other node of the volume begins, too
    child = packed_refs_guard.run(repository, "pack-refs", "--all", "--prune", config=_SETTINGS)
    _checked(child, "pack-refs")
    stamp.touch()


def collect(
    repository: Path,
    unit_of_work: UnitOfWork,
    *,
    grace: float = GRACE,
    check: Callable[[], None] = lambda: None,
    slice_size: int = SLICE,
) -> Collected | None:
    """Pack refs, repack, prune. Return None if another process is already doing so.

    `check` is called between the steps and ends the run by raising: every step is complete in itself.
    """
    started = time.monotonic()
    with removing_packs(repository) as acquired:
        if not acquired:
            return None
        # Each of these visits every ref, or every object, even if there is nothing to pack.
        if _has_loose_refs(repository):
            pack_refs(repository)
            check()
        if _has_loose_objects(repository):
            _run(repository, "repack", *_REPACK)
            check()
        SmallPacks().combine_all(os.fspath(repository / "objects" / "pack"))
        if _packs(repository) > MOST_PACKS:
            # Nothing is dropped: unreachable objects become loose, where prune finds them. Deltas are sought
            # anew (-f): with those of many small packs, the one pack and its bitmap would be larger.
            _run(repository, "repack", "-A", "-f", *_REPACK)
            check()
        for listing in _FOR_DUMB_CLIENTS:
            (repository / listing).unlink(missing_ok=True)
        # git prunes loose objects alone.
        is_loose = _has_loose_objects(repository)
        pruned = sum(_prune(repository, unit_of_work, grace, check, slice_size)) if is_loose else 0
        (repository / _STAMP).touch()
        return Collected(pruned, _packs(repository), time.monotonic() - started)


def _prune(
    repository: Path, unit_of_work: UnitOfWork, grace: float, check: Callable[[], None], slice_size: int
) -> Iterator[int]:
    """Yield the number of objects that each slice removed."""
    refs = Refs(repository)
    seen = refs.below(names.PREFIX)
    listing = _run(repository, "prune", "-n", f"--expire={max(int(grace), 1)}.seconds.ago")
    objects = Objects(repository / "objects")
    try:
        order = users_first(objects, _LISTED.findall(listing))
    finally:
        objects.close()
    kept: set[bytes] = set()
    for start in range(0, len(order), slice_size):
        check()
        # Walk the refs that moved so far without the lock, so that little is left to walk under it.
        before = refs.below(names.PREFIX)
        kept |= _newly_reached(repository, seen, before)
        with unit_of_work.maintenance():
            seen = refs.below(names.PREFIX)
            kept |= _newly_reached(repository, before, seen)
            part = [oid for oid in order[start : start + slice_size] if oid not in kept]
            yield sum(_remove(repository, oid, grace) for oid in part)


def users_first(objects: Objects, oids: Sequence[bytes]) -> list[bytes]:
    """Return `oids` sorted so that each object comes before the objects it refers to."""
    candidates = set(oids)
    ordered: dict[bytes, None] = {}
    entered: set[bytes] = set()
    for first in oids:
        waiting = [(first, False)]
        while waiting:
            oid, below_done = waiting.pop()
            if below_done:
                ordered[oid] = None
            elif oid in candidates and oid not in entered:
                entered.add(oid)
                waiting.append((oid, True))
                with suppress(GitstoreError):  # damaged or gone, so it keeps no other object reachable
                    waiting += [(below, False) for below in references(objects.get(oid))]
    return list(reversed(ordered))


def _newly_reached(repository: Path, before: Mapping[bytes, bytes], now: Mapping[bytes, bytes]) -> set[bytes]:
    """Return the objects reachable from refs of `now` that moved, minus those reachable from `before`."""
    tips = {oid for name, oid in now.items() if before.get(name) != oid}
    if not tips:
        return set()
    known = set(before.values())
    revisions = b"".join([*(b"^" + oid + b"\n" for oid in known), *(oid + b"\n" for oid in tips)])
    return set(
        _run(repository, "rev-list", "--objects", "--no-object-names", "--stdin", stdin=revisions).split()
    )


def _remove(repository: Path, oid: bytes, grace: float) -> bool:
    """Remove a loose object unless it was rewritten, and is therefore young."""
    name = oid.decode()
    path = repository / "objects" / name[:2] / name[2:]
    try:
        if time.time() - path.stat().st_mtime < grace:
            return False
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _has_loose_refs(repository: Path) -> bool:
    return any(files for _, _, files in os.walk(repository / os.fsdecode(names.PREFIX)))


def _has_loose_objects(repository: Path) -> bool:
    return any((repository / "objects").glob("[0-9a-f][0-9a-f]/*"))


def _packs(repository: Path) -> int:
    return sum(1 for _ in (repository / "objects" / "pack").glob("*.pack"))


def fsck(repository: Path) -> Iterator[str]:
    """Yield the problems that `git fsck --strict` reports, one per line."""
    with removing_packs(repository):  # git would report a pack as missing that a writer combines
        child = subprocess.run(
            command(repository, "fsck", "--strict", "--full", "--no-dangling", "--no-progress"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            env=environment(),
        )
    if child.returncode:
        output = child.stdout.decode("utf-8", "replace").splitlines()
        # Drop the two lines about a broken link; a third line already reports the missing object.
        lines = [line for line in output if not line.startswith(("broken link from ", "  "))]
        yield from lines[:_MOST_PROBLEMS] or [f"git fsck ended with status {child.returncode}"]


def _run(repository: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    child = subprocess.run(
        command(repository, *arguments, config=_SETTINGS),
        input=stdin,
        capture_output=True,
        check=False,
        env=environment(),
    )
    return _checked(child, arguments[0])


def _checked(child: subprocess.CompletedProcess[bytes], name: str) -> bytes:
    """Return the output of the git command `name`; raise `busy` if it failed."""
    if child.returncode:
        reason = child.stderr.decode("utf-8", "replace").strip()[:500]
        raise BusyError(f"git {name} failed: {reason}")
    return child.stdout
