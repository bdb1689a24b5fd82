"""Files and folders of backups: new files, and the chain of a folder.

In a folder, each backup names the one that it adds to; together they are a chain.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final
from uuid import UUID

from gitstore.errors import ConfigError, IntegrityError
from gitstore.git.files import flush, fsync_folder
from sync.backup_archive import Archive

SUFFIX: Final = ".tar"


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write the new file `path`, which appears complete and durable at the end of the block, or not at all.

    Raises `config` if it exists.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        raise ConfigError(f"{path} exists already: name another file, or a folder")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            flush(file)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def name_at(moment: datetime) -> str:
    """Return the name of a backup in a folder; names sort by time."""
    return f"gitstore-{moment:%Y%m%dT%H%M%S.%fZ}{SUFFIX}"


def newest_in(folder: Path) -> Path | None:
    """Return the newest backup of a folder, by its name; None in an empty one."""
    return max(folder.glob(f"gitstore-*{SUFFIX}"), default=None)


def remove_interrupted(folder: Path) -> None:
    """Remove what killed backups left in a folder."""
    for path in folder.glob(f".gitstore-*{SUFFIX}.*.part"):
        with suppress(OSError):
            path.unlink()


def newest(path: Path) -> Archive:
    """Open the backup at `path`, a file or the newest of a folder. Raises `config` without one."""
    found = newest_in(path) if path.is_dir() else path
    if found is None:
        raise ConfigError(f"there is no backup in {path}")
    return Archive(found)


@contextmanager
def chain(path: Path) -> Iterator[list[Archive]]:
    """Open the backup at `path`, as `newest` does, and those that it adds to, the oldest first.

    Raises `config` where one of them is missing.
    """
    with ExitStack() as stack:
        archives = [stack.enter_context(closing(newest(path)))]
        folder = archives[0].path.parent
        others = sorted(folder.glob(f"*{SUFFIX}"), reverse=True)
        while (wanted := archives[0].manifest.predecessor) is not None:
            before = next((found for found in map(_opened, others) if _is(found, wanted)), None)
            if before is None:
                raise ConfigError(
                    f"{archives[0].path} only adds to the backup {wanted}, which is not in {folder}, or is "
                    "damaged: put it there, or restore an older backup, by its file"
                )
            archives.insert(0, stack.enter_context(closing(before)))
            if len(archives) > len(others):
                raise IntegrityError(f"{path} is damaged: the backup adds to itself")
        yield archives


def _is(archive: Archive | None, wanted: UUID) -> bool:
    if archive is not None and archive.manifest.id != wanted:
        archive.close()
        return False
    return archive is not None


def _opened(path: Path) -> Archive | None:
    with suppress(IntegrityError, ConfigError):
        return Archive(path)
    return None
