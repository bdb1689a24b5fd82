"""Git's lock files: `<name>.lock`, which only one process can create, becomes the file `name`.

Each is reached from the descriptor of its folder. A path would be looked up part by part at every step, on a
network file system by each of its servers. A folder that holds a lock file is not empty: it stays until then.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SUFFIX = b".lock"


@contextmanager
def open_folders() -> Iterator[dict[bytes, int]]:
    """Yield a dict of open folders, by their names, which are closed at the end of the block."""
    folders: dict[bytes, int] = {}
    try:
        yield folders
    finally:
        for handle in folders.values():
            os.close(handle)


class LockFile:
    """The lock of the file `name` in the open folder `folder`, held until `replace` or `release`.

    Raises FileExistsError if another process holds it, and FileNotFoundError if the folder was removed.
    """

    def __init__(self, folder: int, name: bytes) -> None:
        self._folder, self._name, self._lock = folder, name, name + SUFFIX
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self.handle = os.open(self._lock, flags, 0o644, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ESTALE:  # how network file systems report a folder that was removed
                raise FileNotFoundError(*error.args) from error
            raise
        self._held = True

    def write(self, content: bytes) -> None:
        while content:
            content = content[os.write(self.handle, content) :]

    def replace(self) -> None:
        """Rename the lock file into place. Raises FileNotFoundError if it is not the one that was made here.

        Another process has then removed it, and perhaps made its own.
        """
        there = os.stat(self._lock, dir_fd=self._folder)
        if not os.path.samestat(os.fstat(self.handle), there):
            raise FileNotFoundError(errno.ENOENT, "another process took the lock", os.fsdecode(self._lock))
        os.replace(self._lock, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._close()

    def link(self) -> None:
        """Create the file as a link to the lock file. Raises FileExistsError, which rename(2) does not."""
        os.link(self._lock, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def unlink(self) -> None:
        """Remove the file, not its lock."""
        os.unlink(self._name, dir_fd=self._folder)

    def release(self) -> None:
        """Remove the lock file; no effect on one that was renamed into place, or is released."""
        if self._held:
            self._close()
            with suppress(FileNotFoundError):
                os.unlink(self._lock, dir_fd=self._folder)

    def _close(self) -> None:
        self._held = False
        with suppress(OSError):  # its content is on disk, or not needed
            os.close(self.handle)
