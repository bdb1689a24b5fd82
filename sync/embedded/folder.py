"""The folder of an embedded Postgres: its lock, its socket, its log and its running server.

<folder>/data/            the cluster; created by rename, so it is complete or absent
<folder>/postgres.log     output of the server; the older part is postgres.log.1
<folder>/lock             held by the parent process of the server, and by initdb; contains the parent's pid
<folder>/.s.PGSQL.5432    the socket; if the path is too long, in a short folder under the temp dir
<folder>/binaries-…/      see sync/embedded/binaries.py
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gitstore.errors import ConfigError, GitstoreError
from gitstore.system import try_lock

PORT = 5432  # not a TCP port: only a part of the socket's name

_SOCKET = f".s.PGSQL.{PORT}"
_SOCKET_BYTES = 107  # sun_path of unix(7), without its NUL
_LOG_BYTES = 8 << 20
_LOG_LINES = 12
_RELEASE_SECONDS = 10.0
_EXIT_SECONDS = 1.0
_TICK = 0.01


class FolderInUseError(ConfigError):
    """Another process runs the embedded Postgres of the folder."""


@dataclass(frozen=True, slots=True)
class PidFile:
    """The contents of `postmaster.pid` that are used here."""

    pid: int
    socket_folder: Path
    ready: bool


class Folder:
    """A cluster's folder. Every process of its owner may read it; changes require `take`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.data = self.path / "data"
        self.log = self.path / "postgres.log"
        self.lock: int | None = None
        """Descriptor of the locked file. A child that inherits it keeps the lock until it ends."""

    def take(self) -> None:
        """Create the folder if missing, and lock it until `release` or the end of this process (flock(2)).

        Raises FolderInUseError if another process holds the lock.
        """
        if self.lock is not None:
            return
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        lock = self._open("lock", os.O_RDWR)
        started = time.monotonic()
        while not try_lock(lock):
            holder = _to_int(os.pread(lock, 32, 0))
            # A live holder may be about to exit, so wait a second. The forked children of a killed holder
            # keep the lock until they notice its death, which may take longer.
            patience = _RELEASE_SECONDS if _is_gone(holder) else _EXIT_SECONDS
            if time.monotonic() - started > patience:
                os.close(lock)
                raise FolderInUseError(
                    f"process {holder} runs the embedded Postgres in {self.path}: stop it first, "
                    "or let both use a Postgres of your own with DATABASE_URL",
                )
            time.sleep(_TICK)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self.lock = lock

    def release(self) -> None:
        """Unlock the folder and remove the socket. The server must have ended."""
        if self.lock is None:
            return
        with suppress(OSError, GitstoreError):
            path = self._socket_folder()
            self.check_private(path)  # a link may lead to the socket of another server
            self._remove_socket(path)
            if path != self.path:
                path.rmdir()
        os.close(self.lock)
        self.lock = None

    # Running server

    def pid_file(self) -> PidFile | None:
        """Parse `postmaster.pid`; return None if it is missing.

        Its lines are: pid, data folder, start time, port, socket folder, address, memory, status. Raises
        CONFIG if the folder belongs to another user.
        """
        try:
            lines = (self.data / "postmaster.pid").read_bytes().split(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise ConfigError(f"{self.path} belongs to another user ({error})") from error
        lines += [b""] * (8 - len(lines))
        return PidFile(_to_int(lines[0]), Path(os.fsdecode(lines[4])), lines[7].strip() == b"ready")

    def postmaster(self) -> int | None:
        """Return the pid of the live server, or None.

        The file alone is no proof, since its pid may be a zombie's or reused: the command line is checked.
        """
        pid_file = self.pid_file()
        command = _command_line(pid_file.pid) if pid_file else b""
        ours = b"postgres" in command and os.fsencode(self.data) in command
        return pid_file.pid if pid_file and ours else None

    def remove_pid_file(self) -> None:
        """Remove the pid file of a killed server.

        Postgres mistakes a zombie, or any process that has reused the pid, for the old server. The shared
        memory, not this file, protects the data from the last children of the old server.
        """
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the leftovers of a killed initdb. Requires the lock, which all its processes inherit."""
        for leftover in self.path.glob("initdb-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    # The socket

    def make_socket_folder(self) -> Path:
        """Return the folder of the server's socket, created if missing and free of an earlier socket.

        Raises CONFIG if the folder is not private.
        """
        path, owner = self._socket_folder(), self.path.stat()
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if owner.st_uid != os.geteuid() and path.lstat().st_uid == os.geteuid():
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        self.check_private(path)
        self._remove_socket(path)
        return path

    def check_private(self, path: Path) -> None:
        """Raise CONFIG unless the socket's folder is private to the owner.

        In a temp dir, another user may have created it first.
        """
        status = path.lstat()
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == self.path.stat().st_uid
        if not is_ours or status.st_mode & 0o077:
            raise ConfigError(
                f"{path} is not a private folder of the embedded Postgres: remove it, "
                "or set TMPDIR to a folder of your own",
            )

    def _socket_folder(self) -> Path:
        """Return the folder of the socket: this folder, or one under the temp dir if the path is not usable.

        Socket addresses are limited in length, and libpq and Postgres split the path at commas.
        """
        name = f"gitstore-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]}"
        for path in (self.path, Path(tempfile.gettempdir()).resolve() / name):
            fits = len(os.fsencode(path / _SOCKET)) <= _SOCKET_BYTES
            if fits and re.fullmatch(r"[\w/.+@~-]+", str(path), re.ASCII):
                return path
        return Path("/tmp").resolve() / name  # noqa: S108 (see check_private)

    def _remove_socket(self, path: Path) -> None:
        # The socket's lock file holds a pid, too, which Postgres trusts as it trusts postmaster.pid.
        for name in (_SOCKET, f"{_SOCKET}.lock"):
            (path / name).unlink(missing_ok=True)

    # The log

    def open_log(self) -> int:
        """Open the log and return a file descriptor for a child's output."""
        return self._open("postgres.log", os.O_WRONLY | os.O_APPEND)

    def rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(f"{self.log}.1")

    def log_tail(self, offset: int) -> str:
        """Return the last lines of the log after `offset` bytes."""
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(offset)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-_LOG_LINES:])
        return ""

    def _open(self, name: str, flags: int) -> int:
        """Open or create a file here without following links; root gives it to the folder's owner."""
        fd = os.open(self.path / name, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        owner = self.path.stat()
        if os.geteuid() == 0 and os.fstat(fd).st_uid != owner.st_uid:
            os.fchown(fd, owner.st_uid, owner.st_gid)
        return fd


def _to_int(text: bytes) -> int:
    return int(text) if text.strip().isdigit() else 0


def _is_gone(pid: int) -> bool:
    return not _command_line(pid)


def _command_line(pid: int) -> bytes:
    """Return the command line of a process, which every user may read; empty if it is gone or a zombie."""
    if pid <= 0:
        return b""
    if not Path("/proc/self").exists():
        ps = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        return subprocess.run(ps, capture_output=True, check=False).stdout
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
