"""Other Postgres servers than the embedded one, for the same tests: `make test-postgres` runs every version.

    python -m tests.postgres_server     prints the folders of the programs that are installed, oldest first

The variable GITSTORE_TEST_POSTGRES, such a folder, makes tests use that server.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from gitstore.system import wait_until
from sync.embedded.binaries import Runner, choose_runner, find_binaries
from sync.embedded.server import SUPERUSER, USER

SETTING = "GITSTORE_TEST_POSTGRES"
PORT = "5432"
SECONDS = 60.0


def installed() -> list[Path]:
    """The `bin` folder of each version: Debian's, and those of the package with the embedded one."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *find_binaries().parent.glob("pginstall*/bin")]
    versions = {version(folder): folder for folder in folders if (folder / "postgres").is_file()}
    return [folder for _, folder in sorted(versions.items())]


def version(folder: Path) -> int:
    """The major version of the programs in a folder."""
    command = [str(folder / "postgres"), "--version"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"\d+", output)
    assert match, output
    return int(match[0])


@contextmanager
def replica(programs: Path, primary: Path, folder: Path) -> Iterator[Path]:
    """A streaming replica of the server that `running` runs in the folder `primary`; its socket's folder."""
    folder.mkdir(mode=0o711)
    runner = replace(choose_runner(folder), home=programs.parent)
    data, log = str(folder / "data"), folder / "log"
    source = ["-h", str(primary), "-p", PORT, "-U", SUPERUSER, "-R", "-c", "fast", "--no-sync"]
    with log.open("ab") as out:
        copy = runner.popen("pg_basebackup", [*source, "-D", data], out.fileno())
        assert copy.wait(SECONDS) == 0, log.read_text()
    with _served(runner, folder):
        yield folder


@contextmanager
def running(programs: Path, folder: Path) -> Iterator[str]:
    """A server of these programs in a new `folder`; the conninfo of its superuser."""
    folder.mkdir(mode=0o711)
    runner = replace(choose_runner(folder), home=programs.parent)
    data, log = str(folder / "data"), folder / "log"
    with log.open("ab") as out:
        options = ("-U", SUPERUSER, "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync")
        initdb = runner.popen("initdb", ["-D", data, *options], out.fileno())
        assert initdb.wait(SECONDS) == 0, log.read_text()
    with _served(runner, folder) as conninfo:
        with psycopg.connect(conninfo, autocommit=True) as admin:
            admin.execute(sql.SQL("create role {} login createrole").format(sql.Identifier(USER)))
        yield conninfo


@contextmanager
def _served(runner: Runner, folder: Path) -> Iterator[str]:
    """The server of the cluster in `folder`; the conninfo of its superuser."""
    log = folder / "log"
    settings = {
        "listen_addresses": "",
        "port": PORT,
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "wal_keep_size": "1GB",  # for replicas: the copy for a second one begins with a checkpoint
    }
    pairs = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with log.open("ab") as out:
        server = runner.popen("postgres", ["-D", str(folder / "data"), *pairs], out.fileno())
    conninfo = make_conninfo("", host=str(folder), port=PORT, user=SUPERUSER, dbname=SUPERUSER)
    try:
        assert wait_until(lambda: _answers(server, conninfo), SECONDS), log.read_text()
        yield conninfo
    finally:
        server.send_signal(signal.SIGINT)  # its fast shutdown, which waits for no client
        server.wait(SECONDS)


def _answers(server: subprocess.Popen[bytes], conninfo: str) -> bool:
    assert server.poll() is None, "the server ended"
    with suppress(psycopg.OperationalError):
        psycopg.connect(conninfo).close()
        return True
    return False


if __name__ == "__main__":
    print(*installed(), sep="\n")
