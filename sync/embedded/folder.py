"""The folder of an embedded Postgres: who holds it, where its socket is, what runs in it.

<folder>/data/            the cluster; it appears by rename, so it is whole or not there
<folder>/postgres.log     what the server says; the older part is postgres.log.1
<folder>/lock             held by the process whose child the server is, and names it
<folder>/.s.PGSQL.5432    the socket; where the path is too long, in a short folder under the temp dir
<folder>/binaries-…/      see embedded_binaries.py
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gitstore.errors import Code, GitstoreError

PORT = 5432  # no port at all: it is a part of the socket's name

_SOCKET = f".s.PGSQL.{PORT}"
_SOCKET_BYTES = 107  # sun_path of unix(7), without its NUL
_LOG_BYTES = 8 << 20
_LOG_LINES = 12
_RELEASE_SECONDS = 10.0
_MOMENT = 1.0
_TICK = 0.01


@dataclass(frozen=True, slots=True)
class PidFile:
    """What `postmaster.pid` says."""

    pid: int
    socket_folder: Path
    ready: bool


class Folder:
    """Reading is for every process of the owner; what changes the folder needs `take`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.data = self.path / "data"
        self.log = self.path / "postgres.log"
        self._lock: int | None = None

    def take(self) -> None:
        """Make the folder, and make it ours for as long as this process lives: flock(2) ends with its holder.

        Raises CONFIG, with the holder's `pid`, when another process has it.
        """
        if self._lock is not None:
            return
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        lock = self._open("lock", os.O_RDWR)
        started = time.monotonic()
        while not _flock(lock):
            holder = _to_int(os.pread(lock, 32, 0))
            # A holder that ends right now gets a moment. One that was killed leaves the lock to the children
            # that it forked, until they notice: that may take them longer.
            patience = _RELEASE_SECONDS if _is_gone(holder) else _MOMENT
            if time.monotonic() - started > patience:
                os.close(lock)
                raise GitstoreError(
                    Code.CONFIG,
                    f"process {holder} runs the embedded Postgres in {self.path}: stop it first, "
                    "or let both use a Postgres of your own with DATABASE_URL",
                    pid=holder,
                )
            time.sleep(_TICK)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock

    def release(self) -> None:
        """Let others take the folder. The server has ended."""
        if self._lock is None:
            return
        with suppress(OSError, GitstoreError):
            path = self._socket_folder()
            self.check_private(path)  # a link may lead to the socket of another server
            self._remove_socket(path)
            if path != self.path:
                path.rmdir()
        os.close(self._lock)
        self._lock = None

    # What runs

    def pid_file(self) -> PidFile | None:
        """`postmaster.pid`: pid, data folder, start time, port, socket folder, address, memory, status."""
        try:
            lines = (self.data / "postmaster.pid").read_bytes().split(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise GitstoreError(Code.CONFIG, f"{self.path} belongs to another user ({error})") from error
        lines += [b""] * (8 - len(lines))
        return PidFile(_to_int(lines[0]), Path(os.fsdecode(lines[4])), lines[7].strip() == b"ready")

    def postmaster(self) -> int | None:
        """The pid of the live server. The file alone proves nothing: the pid may be a zombie's, or reused."""
        pid_file = self.pid_file()
        command = _command_line(pid_file.pid) if pid_file else b""
        ours = b"postgres" in command and os.fsencode(self.data) in command
        return pid_file.pid if pid_file and ours else None

    def forget_postmaster(self) -> None:
        """Remove what a killed server has left.

        Postgres takes any process that got the old pid since, and a zombie, for the old server. It is the
        shared memory, not this file, that guards the data from the old one's last children.
        """
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a killed initdb has left, once its own last child is gone."""
        for leftover in self.path.glob("initdb-*"):
            with suppress(OSError):
                pid = _to_int((leftover / "postmaster.pid").read_bytes().split(b"\n")[0].lstrip(b"-"))
                until(partial(_is_gone, pid), _RELEASE_SECONDS)
            shutil.rmtree(leftover, ignore_errors=True)

    # The socket

    def make_socket_folder(self) -> Path:
        """The folder for the server's socket, private and free of an earlier one. Raises CONFIG."""
        path, owner = self._socket_folder(), self.path.stat()
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if owner.st_uid != os.geteuid() and path.lstat().st_uid == os.geteuid():
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        self.check_private(path)
        self._remove_socket(path)
        return path

    def check_private(self, path: Path) -> None:
        """Raise CONFIG if the socket's folder isn't our owner's alone: in a temp dir anyone may be first."""
        status = path.lstat()
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == self.path.stat().st_uid
        if not is_ours or status.st_mode & 0o077:
            raise GitstoreError(
                Code.CONFIG,
                f"{path} should be a private folder of the embedded Postgres, and is not: remove it, "
                "or set TMPDIR to a folder of your own",
            )

    def _socket_folder(self) -> Path:
        """Our own folder or, as addresses are short and libpq and Postgres split at commas, another."""
        name = f"gitstore-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]}"
        for path in (self.path, Path(tempfile.gettempdir()).resolve() / name):
            fits = len(os.fsencode(path / _SOCKET)) <= _SOCKET_BYTES
            if fits and re.fullmatch(r"[\w/.+@~-]+", str(path), re.ASCII):
                return path
        return Path("/tmp").resolve() / name  # noqa: S108 (see check_private)

    def _remove_socket(self, path: Path) -> None:
        # The socket's lock file holds a pid too, and Postgres believes it as it does postmaster.pid.
        for name in (_SOCKET, f"{_SOCKET}.lock"):
            (path / name).unlink(missing_ok=True)

    # The log

    def open_log(self) -> int:
        """A file descriptor for a child's output."""
        return self._open("postgres.log", os.O_WRONLY | os.O_APPEND)

    def rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(f"{self.log}.1")

    def log_tail(self, offset: int) -> str:
        """The last lines of what stands in the log after `offset` bytes."""
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(offset)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-_LOG_LINES:])
        return ""

    def _open(self, name: str, flags: int) -> int:
        """Open a file here. What root makes in somebody's folder is theirs, and no link leads it out."""
        fd = os.open(self.path / name, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        owner = self.path.stat()
        if os.geteuid() == 0 and os.fstat(fd).st_uid != owner.st_uid:
            os.fchown(fd, owner.st_uid, owner.st_gid)
        return fd


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for the condition, and tell whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_TICK)
    return True


def _flock(fd: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _to_int(text: bytes) -> int:
    return int(text) if text.strip().isdigit() else 0


def _is_gone(pid: int) -> bool:
    return not _command_line(pid)


def _command_line(pid: int) -> bytes:
    """How a process was started; empty for one that is gone, and for a zombie. Anyone may read it."""
    if pid <= 0:
        return b""
    if not Path("/proc/self").exists():
        ps = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        return subprocess.run(ps, capture_output=True, check=False).stdout
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
