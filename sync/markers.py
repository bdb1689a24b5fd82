"""Markers: files that name the workflows whose rows may lag behind Git.

    <repository>/gitstore-pending/<slug>.<random>

A writer makes one before it touches a ref and removes it after the commit that carries the rows. So what a
killed process left undone is found at the cost of what was under way, not of what exists. They are not
fsynced: after a power cut a full pass runs.

A marker is one more name (a hard link) of the file that every writer of the repository has open: a name costs
a fraction of what a file does to make and to remove, above all where ext4 runs without its journal and looks
for an inode that was not freed just now.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from gitstore.locks import WRITERS


class Markers:
    """The markers of the repository at `repository`."""

    def __init__(self, repository: Path) -> None:
        self._folder = repository / "gitstore-pending"
        self._file = repository / WRITERS

    def put(self, slugs: Collection[str]) -> list[Path]:
        """A marker for each of `slugs`; the files that were made."""
        self._folder.mkdir(exist_ok=True)
        made = [self._folder / f"{slug}.{secrets.token_hex(8)}" for slug in slugs]
        try:
            self.keep(made)
        except OSError:
            self.remove(made)
            raise
        return made

    def keep(self, paths: Iterable[Path]) -> None:
        """See that they are there (again)."""
        for path in paths:
            try:
                path.hardlink_to(self._file)
            except OSError:  # it is there, or the file is not, or there are no (more) links to be had
                path.touch()

    def pending(self) -> dict[str, list[Path]]:
        """slug -> its markers: of writers at work, and of those that were stopped."""
        found: dict[str, list[Path]] = {}
        with suppress(FileNotFoundError):
            for path in sorted(self._folder.iterdir()):
                found.setdefault(path.name.partition(".")[0], []).append(path)
        return found

    @staticmethod
    def remove(paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
