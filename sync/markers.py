"""Markers: files that name the workflows whose rows may lag behind Git.

    <repository>/gitstore-pending/<slug>.<nanoseconds since 1970>.<random>

A writer creates one before it touches a ref and removes it after the commit that carries the rows. The writes
that a kill interrupted are therefore found without comparing everything. Markers are not fsynced: after a
power failure, a full pass runs.

A marker is a hard link to the file that every writer of the repository has open. A link costs a fraction of
creating and removing a file, above all on ext4 without a journal, which searches for an inode that was not
freed recently. Its inode has the times of that file, so the time of the write is in the name.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from gitstore.unit_of_work import WRITERS


class Markers:
    """The markers of one repository."""

    def __init__(self, repository: Path) -> None:
        self._folder = repository / "gitstore-pending"
        self._file = repository / WRITERS

    def put(self, slugs: Collection[str]) -> list[Path]:
        """Create a marker for each of `slugs`, and return their paths."""
        paths = [self._folder / f"{slug}.{time.time_ns()}.{secrets.token_hex(4)}" for slug in slugs]
        try:
            self.restore(paths)
        except OSError:
            self.remove(paths)
            raise
        return paths

    def restore(self, paths: Iterable[Path]) -> None:
        """Create the markers that do not exist (any more)."""
        for path in paths:
            try:
                path.hardlink_to(self._file)
            except OSError:
                # The marker exists, its folder or the file is missing, or the file has too many links.
                path.parent.mkdir(exist_ok=True)
                path.touch()

    def pending(self) -> dict[str, list[Path]]:
        """Return slug -> its markers, of active writers and of interrupted ones."""
        pending: dict[str, list[Path]] = {}
        with suppress(FileNotFoundError):
            for path in sorted(self._folder.iterdir()):
                pending.setdefault(path.name.partition(".")[0], []).append(path)
        return pending

    def oldest(self) -> float | None:
        """Return the time (time.time()) of the oldest marker, or None without any."""
        times = [
            int(moment) / 1e9
            for paths in self.pending().values()
            for path in paths
            # Releases up to 0.1.0 wrote no time.
            if (moment := path.name.split(".")[1]).isascii() and moment.isdigit()
        ]
        return min(times, default=None)

    @staticmethod
    def remove(paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
