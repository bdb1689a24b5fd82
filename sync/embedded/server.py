"""The embedded Postgres: a server run as a child process if DATABASE_URL is not set.

It listens on one Unix socket and no TCP port, and uses `trust` authentication: the socket's folder is
accessible to one user and root alone. `peer` would verify no more than that, and it sees a different user
name for each way of running the server (sync/embedded/binaries.py). The service connects as `gitstore`, which
owns the database and may create roles but is not a superuser, as with an external Postgres; `postgres` is the
superuser.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from gitstore.errors import ConfigError, GitstoreError, UnavailableError
from gitstore.git.files import fsync_folder
from gitstore.system import wait_until
from sync.embedded.binaries import ELSEWHERE, MAJOR, Runner, choose_runner
from sync.embedded.folder import PORT, Folder

DATABASE = USER = "gitstore"
SUPERUSER = "postgres"

_READY_SECONDS = 120.0  # a crash may leave 1 GiB of WAL to replay
_MEMORY_SECONDS = 10.0
_STOP = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))

_UNQUOTABLE = frozenset('"$\\`\n')  # initdb runs `postgres` by a shell, with its path only in ""
_INITDB = (
    f"--username={SUPERUSER}",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--auth-local=trust",
    "--auth-host=reject",
    "--set=dynamic_shared_memory_type=mmap",
    "--no-instructions",
)
_DEFAULTS = {
    "shared_buffers": "64MB",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "cluster_name": "gitstore",
    # Files in the cluster: /dev/shm is 64 MiB in a container, is emptied when a user of systemd logs out, and
    # keeps the segments of a killed server.
    "dynamic_shared_memory_type": "mmap",
    "log_checkpoints": "off",
    # Keep statements and row values, which are the tenants' data, out of the log.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}


class EmbeddedPostgres:
    """An embedded Postgres on a Unix socket in `folder` (the data folder's `postgres/`).

    One process at a time runs the server of a folder, as its direct child, and the server ends with that
    process even if it is killed. Other processes of the same user find the server with `running` and
    `conninfo`. In a forked child, `stop` does nothing: the server belongs to the parent. `settings` override
    the defaults, except those that protect the data and the socket.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._folder = Folder(folder)
        self._settings = dict(settings or {})
        self._maker = os.getpid()
        self._child: subprocess.Popen[bytes] | None = None
        self._spawner: ThreadPoolExecutor | None = None
        self._log_start = 0

    def start(self) -> str:
        """Start the server, wait until it answers, and return the conninfo of the database `gitstore`.

        Raises CONFIG if the configuration or the host must be changed, UNAVAILABLE if the server fails.
        """
        if self._child and self._child.poll() is None:
            return self.conninfo()
        try:
            self._folder.take()
            self._end_orphan()
            self._run(choose_runner(self._folder.path))
            self._make_database()
            return self.conninfo()
        except OSError as error:
            self.stop()
            message = f"the embedded Postgres cannot use {self._folder.path} ({error}): {ELSEWHERE}"
            raise ConfigError(message) from error
        except psycopg.Error as error:
            self.stop()
            raise self._failure(f"the embedded Postgres does not answer: {error}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server: open transactions are rolled back, data is flushed. Idempotent."""
        if os.getpid() != self._maker:
            return
        if child := self._child:
            for signum, seconds in _STOP:
                child.send_signal(signum)  # a no-op if it has exited
                if wait_until(lambda: child.poll() is not None, seconds):
                    break
        if self._spawner:
            self._spawner.shutdown()
            self._spawner = None
        self._folder.release()

    def poll(self) -> int | None:
        """Return the exit status of the server (negative: the signal that killed it), or None."""
        return self._child.poll() if self._child else None

    def conninfo(self, *, user: str = USER, dbname: str = DATABASE) -> str:
        """Return the libpq connection string of this folder's server, whichever process runs it.

        Raises UNAVAILABLE if no server runs, CONFIG if the folder or the socket is not private to its owner.
        """
        pid_file = self._folder.pid_file()
        if not pid_file or not pid_file.ready or not pid_file.socket_folder.exists():
            raise UnavailableError(
                f"no embedded Postgres runs in {self._folder.path}: start `gitstore serve`, "
                "or set DATABASE_URL",
            )
        self._folder.check_private(pid_file.socket_folder)
        return make_conninfo("", host=str(pid_file.socket_folder), port=PORT, user=user, dbname=dbname)

    def running(self) -> bool:
        """Return whether a server of this folder, started by any process, is alive and answers."""
        if not self._folder.postmaster():
            return False
        with suppress(psycopg.Error, GitstoreError, OSError):
            psycopg.connect(self.conninfo(user=SUPERUSER, dbname=SUPERUSER), connect_timeout=5).close()
            return True
        return False

    def _end_orphan(self) -> None:
        """Stop a server whose parent was killed, and remove a stale pid file. Requires the folder's lock."""
        if pid := self._folder.postmaster():
            for signum, seconds in _STOP[:2]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)
                if wait_until(lambda: self._folder.postmaster() != pid, seconds):
                    break
            else:
                raise self._failure(
                    f"the embedded Postgres of an earlier start, process {pid}, does not stop"
                )
        self._folder.remove_pid_file()

    def _run(self, runner: Runner) -> None:
        self._folder.sweep()
        self._folder.rotate_log()
        if not self._folder.data.exists():
            self._init(runner)
        version = (self._folder.data / "PG_VERSION").read_text().strip()
        if version != MAJOR:
            raise ConfigError(
                f"{self._folder.data} was created by Postgres {version}, and this is {MAJOR}: dump it with "
                f"the old version and restore it here, or {ELSEWHERE}",
            )
        fixed = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self._folder.make_socket_folder()),
            "unix_socket_permissions": "0700",
            "fsync": "on",
        }
        arguments = ["-D", str(self._folder.data)]
        for name, value in (_DEFAULTS | self._settings | fixed).items():
            arguments += ["-c", f"{name}={value}"]
        deadline = time.monotonic() + _MEMORY_SECONDS
        while failure := self._try_to_run(runner, arguments):
            # The last children of a killed server may still hold its shared memory for a short time.
            if "shared memory block" not in failure.message or time.monotonic() > deadline:
                raise failure
            time.sleep(0.05)

    def _init(self, runner: Runner) -> None:
        """Run initdb in a temporary folder and rename that into place, so that a killed initdb runs again."""
        folder = self._folder.path
        _check_quotable(runner.home, folder)
        cluster = Path(tempfile.mkdtemp(prefix="initdb-", dir=folder))
        if runner.user:
            os.chown(cluster, runner.user.uid, runner.user.gid, follow_symlinks=False)
        # After a kill of this process, the next start waits for initdb, and only then removes its files.
        inherited = [self._folder.lock] if self._folder.lock is not None else []
        initdb = self._spawn(runner, "initdb", ["--pgdata", str(cluster), *_INITDB], inherited)
        try:
            status = initdb.wait()
        except BaseException:  # Ctrl-C reaches only this process, not initdb
            initdb.kill()
            initdb.wait()
            raise
        if status:
            raise self._failure(f"initdb ended with status {status}: {ELSEWHERE}")
        cluster.rename(self._folder.data)
        fsync_folder(folder)

    def _try_to_run(self, runner: Runner, arguments: Sequence[str]) -> GitstoreError | None:
        """Start the server and wait until it is ready; return the error if it fails, else None."""
        self._child = child = self._spawn(runner, "postgres", arguments)

        def settled() -> bool:
            # pg_ctl reads the pid file as well; connection attempts would fill the log with refusals.
            pid_file = self._folder.pid_file()
            ready = pid_file and pid_file.ready and pid_file.pid == child.pid
            return bool(ready) or child.poll() is not None

        if not wait_until(settled, _READY_SECONDS):
            return self._failure(f"the embedded Postgres is not ready after {_READY_SECONDS:g} s")
        if (status := child.poll()) is not None:
            return self._failure(f"the embedded Postgres ended with status {status} instead of starting")
        return None

    def _spawn(
        self, runner: Runner, program: str, arguments: Sequence[str], inherited: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        log = self._folder.open_log()
        self._log_start = os.fstat(log).st_size
        try:
            if threading.current_thread() is threading.main_thread():
                return runner.popen(program, arguments, log, inherited)
            # PR_SET_PDEATHSIG fires when the *thread* that forked the child ends: keep that thread alive.
            self._spawner = self._spawner or ThreadPoolExecutor(1, "embedded-postgres")
            return self._spawner.submit(runner.popen, program, arguments, log, inherited).result()
        finally:
            os.close(log)

    def _make_database(self) -> None:
        """Create the role and the database if missing: an earlier start may have been killed before this."""
        role, database = sql.Identifier(USER), sql.Identifier(DATABASE)
        superuser = self.conninfo(user=SUPERUSER, dbname=SUPERUSER)
        with psycopg.connect(superuser, autocommit=True, connect_timeout=30) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [USER]).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE").format(role))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))

    def _failure(self, message: str) -> GitstoreError:
        lines = self._folder.log_tail(self._log_start) or "(no output)"
        return UnavailableError(f"{message}\nThe end of {self._folder.log}:\n{lines}")


def _check_quotable(*paths: Path) -> None:
    """Raise CONFIG for a path with characters that the shell of initdb would interpret."""
    for path in paths:
        if characters := _UNQUOTABLE & set(str(path)):
            raise ConfigError(
                f"initdb cannot run in {path} because of the {min(characters)!r} in its name: rename the "
                "folder, or set DATABASE_URL to a Postgres of your own",
            )
