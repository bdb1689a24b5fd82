"""Paths and users of the embedded Postgres."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gitstore.errors import Code, GitstoreError
from sync.embedded import binaries
from sync.embedded.server import EmbeddedPostgres
from tests.conftest import temporary_folder
from tests.installation import Installation
from tests.sync.kept_postgres import NO_TOOLS, answer_of, keeper, pid_of_server, read, write

pytestmark = pytest.mark.slow

NAMELESS = 54321
"""A user without a passwd entry, as containers have them."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def ram_path() -> Iterator[Path]:
    """A folder that other users may enter, wherever TMPDIR is."""
    with temporary_folder(shared=True) as folder:
        yield folder


def needs_user_namespaces() -> None:
    probe = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--", "true"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("user namespaces aren't allowed here")


# Paths


@pytest.mark.parametrize("name", ["a" * 120, "with, comma", "with space", "ümlaut"])
def test_a_path_too_long_for_a_socket_gets_a_short_one(
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
    """Every user may create folders in the temp dir; one that another user prepared is not used."""
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


def test_an_impossible_folder_is_an_error_with_a_code(ram_path: Path) -> None:
    (ram_path / "file").write_text("")
    with pytest.raises(GitstoreError, match="cannot use") as refused:
        EmbeddedPostgres(ram_path / "file/postgres").start()
    assert refused.value.code is Code.CONFIG


@pytest.mark.parametrize("name", ["a$b", "a`b", 'a"b', "a\\b"])
def test_a_path_that_initdb_would_misread_is_refused(ram_path: Path, name: str) -> None:
    """initdb passes the path to a shell in double quotes, and its own error would not help."""
    with pytest.raises(GitstoreError, match="rename the folder") as refused:
        EmbeddedPostgres(ram_path / name / "postgres").start()
    assert refused.value.code is Code.CONFIG


# Users


@as_root
def test_root_can_keep_the_data_at_home(
    folder: Path, ram_path: Path, start: Callable[..., EmbeddedPostgres]
) -> None:
    """In a user namespace, Postgres sees root as another user, and files remain owned by root."""
    needs_user_namespaces()
    ram_path.chmod(0o700)
    write(start(folder).conninfo())
    assert {path.lstat().st_uid for path in [folder, *folder.rglob("*")]} == {0}


@as_root
def test_root_without_namespaces_switches_to_another_user(
    folder: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., EmbeddedPostgres]
) -> None:
    """The folder becomes that user's, and stays so when namespaces are allowed again."""
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
def test_a_cluster_of_root_changes_its_owner_if_namespaces_are_forbidden_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., EmbeddedPostgres]
) -> None:
    needs_user_namespaces()
    server = start(folder)
    write(server.conninfo())
    server.stop()
    monkeypatch.setenv("PATH", NO_TOOLS["PATH"])
    assert read(start(folder).conninfo()) == 42


@as_root
def test_the_error_names_a_folder_that_another_user_cannot_enter(
    folder: Path, ram_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In root's own home, another user cannot run the server."""
    ram_path.chmod(0o700)
    monkeypatch.setenv("PATH", NO_TOOLS["PATH"])
    with pytest.raises(GitstoreError) as refused:
        EmbeddedPostgres(folder).start()
    assert refused.value.code is Code.CONFIG
    for part in (f"{ram_path} is not accessible to", "DATABASE_URL", "GITSTORE_DATA"):
        assert part in refused.value.message
    assert folder.stat().st_uid == 0


@as_root
def test_binaries_in_a_closed_home_are_copied(
    folder: Path, ram_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., EmbeddedPostgres]
) -> None:
    """The user that runs the server cannot enter a virtual environment in root's home."""
    home = binaries.find_binaries()
    closed = ram_path / "root"
    closed.mkdir(mode=0o700)
    (closed / "site").symlink_to(home.parents[1])
    monkeypatch.setattr(
        binaries, "find_binaries", lambda: closed / "site" / home.relative_to(home.parents[1])
    )
    monkeypatch.setenv("PATH", NO_TOOLS["PATH"])
    server = start(folder)
    program = Path(f"/proc/{pid_of_server(folder)}/exe").readlink()
    assert program.is_relative_to(folder)
    server.stop()
    server.start()


@as_root
@pytest.mark.parametrize("env", [{}, NO_TOOLS], ids=["pdeathsig", "without"])
def test_an_ordinary_user_runs_it_directly(
    folder: Path, env: dict[str, str], installation: Installation, start: Callable[..., EmbeddedPostgres]
) -> None:
    """Root may run that user's folder, and leaves it usable."""
    folder.mkdir()
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(folder, nobody, nobody)
    with keeper(folder, uid=nobody, installation=installation, env=env) as process:
        write(answer_of(process))
        assert Path(f"/proc/{pid_of_server(folder)}").stat().st_uid == nobody
    assert process.returncode == 0
    server = start(folder)
    assert read(server.conninfo()) == 42
    assert Path(f"/proc/{pid_of_server(folder)}").stat().st_uid == nobody
    server.stop()
    with keeper(folder, uid=nobody, installation=installation, env=env) as process:
        assert read(answer_of(process)) == 42
    assert {path.lstat().st_uid for path in [folder, *folder.rglob("*")]} == {nobody}


@as_root
def test_a_user_without_a_name_gets_one_in_a_namespace(folder: Path, installation: Installation) -> None:
    """initdb requires a passwd entry, which the user of a container often lacks."""
    needs_user_namespaces()
    folder.mkdir()
    os.chown(folder, NAMELESS, NAMELESS)
    with keeper(folder, uid=NAMELESS, installation=installation, env=NO_TOOLS) as process:
        assert process.communicate()[1].startswith("unavailable: initdb ended with status 1")
    with keeper(folder, uid=NAMELESS, installation=installation) as process:
        write(answer_of(process))
        assert Path(f"/proc/{pid_of_server(folder)}").stat().st_uid == NAMELESS


@as_root
def test_the_folder_of_another_user_is_refused(
    folder: Path, installation: Installation, start: Callable[..., EmbeddedPostgres]
) -> None:
    start(folder)
    with keeper(folder, uid=NAMELESS, installation=installation) as process:
        error = process.communicate()[1]
    assert error.startswith("config: the embedded Postgres cannot use")
    assert "Traceback" not in error
