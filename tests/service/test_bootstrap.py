"""Set-up of a new gitstore: the project `default`, the owner's token and the data folder."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from gitstore.errors import Code, GitstoreError
from gitstore.git.files import write_atomically
from service.access import digest, is_token, new_token
from service.config import Config
from service.projects import Projects, make_data_folder
from service.run.bootstrap import Setup, create_project, read_token, set_up
from sync import catalog, tokens
from sync.db import Database
from sync.migrate import migrate


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config.from_env({"GITSTORE_DATA": str(tmp_path / "a" / "data")})
    make_data_folder(made)
    return made


@pytest.fixture
def database(make_database: Callable[..., str]) -> Iterator[Database]:
    url = make_database()
    migrate(url)
    with closing(Database(url, max_connections=8)) as opened:
        yield opened


def role_of(database: Database, secret: str | None) -> str | None:
    assert secret is not None
    holder = tokens.authenticate(database, digest(secret))
    return holder.role if holder else None


def revoke_all(database: Database, made: Setup) -> None:
    with database.as_owner() as transaction:
        for token in tokens.tokens(transaction, made.project.id):
            tokens.revoke(transaction, made.project.id, token.id)


def test_the_project_and_the_owner_s_token_are_created(config: Config, database: Database) -> None:
    """The repository is empty, and the file has the token in one line, with mode 0600."""
    made = set_up(config, database)
    assert (made.project.slug, made.project.rules, made.notes) == ("default", "meshhook", ())
    with closing(Projects(config).reader(made.project)) as store:
        assert store.slugs() == []
    assert config.token_file.read_text() == f"{made.token}\n"
    assert stat.S_IMODE(config.token_file.stat().st_mode) == 0o600
    assert role_of(database, made.token) == "owner"


def test_the_set_up_is_idempotent(config: Config, database: Database) -> None:
    made = set_up(config, database)
    assert set_up(config, database) == made


def test_concurrent_set_ups_create_one_project(config: Config, database: Database) -> None:
    """Six threads get the same project and token."""
    made: list[Setup] = []
    starts = threading.Barrier(6)

    def start() -> None:
        starts.wait()
        made.append(set_up(config, database))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len({(one.project.id, one.token) for one in made}) == 1
    with psycopg.connect(database.conninfo) as connection:
        assert connection.execute("select count(*) from gitstore.access_tokens").fetchone() == (1,)


@pytest.mark.parametrize("text", [None, "", f"gst_{'0' * 43}\n"])
def test_a_lost_token_is_not_replaced(config: Config, database: Database, text: str | None) -> None:
    """It is still active; the note has the commands that create another one and revoke it."""
    first = set_up(config, database)
    config.token_file.unlink()
    if text is not None:
        config.token_file.write_text(text)
    second = set_up(config, database)
    assert second.token is None
    assert role_of(database, first.token) == "owner"
    assert config.token_file.exists() is (text is not None)
    (note,) = second.notes
    assert "gitstore token create default --role owner --name <name>" in note
    revoked = UUID(note.rpartition("gitstore token revoke ")[2])
    with database.as_owner() as transaction:
        assert len(tokens.tokens(transaction, first.project.id)) == 1
        tokens.revoke(transaction, first.project.id, revoked)
    assert role_of(database, first.token) is None


def test_no_project_is_added_to_those_of_an_import(config: Config, database: Database) -> None:
    """Nor a token; the start has nothing to greet with but the address."""
    with database.as_owner() as transaction:
        imported = create_project(transaction, Projects(config), uuid4(), "flows", "Flows")
    made = set_up(config, database)
    assert (made.project, made.token, made.notes) == (imported, None, ())
    assert not config.token_file.exists()
    with database.as_owner() as transaction:
        assert catalog.projects(transaction) == [imported]


@pytest.mark.parametrize("text", ["", "not a token\n", f"gst_{'0' * 43}\n", "\xff"])
def test_a_file_without_a_valid_token_is_overwritten(config: Config, database: Database, text: str) -> None:
    """As left by a kill between file and commit, or by another database."""
    config.token_file.write_text(text, encoding="latin-1")
    made = set_up(config, database)
    assert read_token(config.token_file) == made.token
    assert role_of(database, made.token) == "owner"


@pytest.mark.parametrize("with_file", [True, False])
def test_a_revoked_token_stays_revoked(config: Config, database: Database, with_file: bool) -> None:
    """A restart does not replace it; the note has the command that creates another one."""
    first = set_up(config, database)
    revoke_all(database, first)
    if not with_file:
        config.token_file.unlink()
    again = set_up(config, database)
    assert again.token is None
    assert "gitstore token create default" in again.notes[0]
    assert config.token_file.exists() == with_file


def test_a_failed_atomic_write_leaves_no_file(tmp_path: Path) -> None:
    place = tmp_path / "owner-token"
    place.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(place, new_token())
    assert list(tmp_path.iterdir()) == [place]


def test_tokens_are_random_and_have_one_shape() -> None:
    """They are gst_ and 43 characters of base64url, of 32 bytes."""
    assert new_token(lambda count: b"\xff" * count) == "gst_" + "_" * 42 + "8"
    assert new_token() != new_token()
    assert is_token(new_token())
    for other in ("", "gst_", new_token() + "x", new_token()[:-1], "GST_" + "a" * 43, f" {new_token()}"):
        assert not is_token(other)


def test_a_project_without_its_repository_is_not_opened(config: Config, database: Database) -> None:
    """An empty one in its place would hide that versions were published."""
    made = set_up(config, database)
    projects = Projects(config)
    projects.path(made.project.id).rename(config.data / "elsewhere")
    with pytest.raises(GitstoreError, match="is GITSTORE_DATA the folder") as caught:
        projects.reader(made.project)
    assert caught.value.code is Code.INTEGRITY
    again = set_up(config, database)
    assert (again.token, len(again.notes)) == (made.token, 1)
    assert "is GITSTORE_DATA the folder" in again.notes[0]
    assert not projects.path(made.project.id).exists()


def test_an_impossible_data_folder_is_refused(tmp_path: Path) -> None:
    """The message names the setting."""
    (tmp_path / "file").touch()
    config = Config.from_env({"GITSTORE_DATA": str(tmp_path / "file" / "data")})
    with pytest.raises(GitstoreError, match="set GITSTORE_DATA") as caught:
        make_data_folder(config)
    assert caught.value.code is Code.CONFIG


def test_other_users_cannot_read_the_data_folder(config: Config) -> None:
    assert stat.S_IMODE(config.data.stat().st_mode) & 0o066 == 0
    assert stat.S_IMODE(config.repositories.stat().st_mode) == 0o700
