"""An embedded Postgres that another process starts and runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.installation import HERE, Installation

NO_TOOLS = {"PATH": "/nonexistent"}
"""Neither unshare nor setpriv: root has to switch to another user, and nothing ends an orphan."""

# Starts a server, prints where it is (or the error), and keeps it until its standard input ends.
KEEPER = """
import os, sys
from pathlib import Path
from gitstore.errors import GitstoreError
from sync.embedded.server import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
try:
    print(server.start(), flush=True)
except GitstoreError as error:
    sys.exit(f"{error.code}: {error} {error.data}")
if sys.argv[2:] == ["fork"]:
    if not os.fork():
        server.stop()
        os._exit(0)
    os.wait()
    print(server.poll(), flush=True)
sys.stdin.read()
server.stop()
"""


@contextmanager
def keeper(
    folder: Path,
    *arguments: str,
    uid: int | None = None,
    installation: Installation = HERE,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run a process that starts the folder's server; with `uid`, it needs an `installation` it can read."""
    process = subprocess.Popen(
        [str(installation.python), "-c", KEEPER, str(folder), *arguments],
        cwd="/",
        env={**os.environ, **(env or {}), **installation.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )
    with process:
        yield process
        if process.poll() is None:
            process.communicate(timeout=30)


def answer_of(process: subprocess.Popen[str]) -> str:
    """Return the connection string that a keeper prints."""
    assert process.stdout is not None
    answer = process.stdout.readline().strip()
    assert answer, process.communicate()[1]
    return answer


def write(conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")


def read(conninfo: str) -> int:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT answer FROM kept").fetchone()
    assert row
    return int(row[0])


def pid_of_server(folder: Path) -> int:
    return int((folder / "data/postmaster.pid").read_text().split()[0])


def is_alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
