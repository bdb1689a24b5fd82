"""An embedded Postgres that another process starts and keeps, and what is to be seen of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

CHECKOUT = Path(__file__).parents[2]
NO_TOOLS = {"PATH": "/nonexistent"}
"""Neither unshare nor setpriv: root has to switch to another user, and nothing ends an orphan."""

# Starts a server, prints where it is (or the error), and keeps it until its standard input ends.
KEEPER = """
import os, sys
from pathlib import Path
from gitstore.errors import GitstoreError
from sync.embedded import EmbeddedPostgres
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
    folder: Path, *arguments: str, uid: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Another process that starts the folder's server."""
    process = subprocess.Popen(
        [python_for(uid), "-c", KEEPER, str(folder), *arguments],
        cwd=CHECKOUT,
        env={**os.environ, **(env or {}), "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *site_packages()])},
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


def site_packages() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


def python_for(uid: int | None) -> str:
    """An interpreter that the user can run: ours may lie in root's home."""
    if uid is None:
        return sys.executable
    other = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, other):
        with_modules = [python, "-c", "import encodings, subprocess"]
        try:
            subprocess.run(with_modules, check=True, capture_output=True, user=uid, extra_groups=[])
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip(f"no Python that user {uid} can run")


def answer_of(process: subprocess.Popen[str]) -> str:
    """The conninfo that a keeper prints."""
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
    """Whether the process runs; a zombie doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
