"""What a new gitstore makes before it serves, and what it leaves alone when it is there."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from gitstore.errors import Code, GitstoreError
from gitstore.git.files import write_atomically
from service.config import Config
from service.credentials import digest, is_token, new_token
from service.projects import Projects, make_data_folder
from service.run.bootstrap import Setup, read_token, set_up
from sync import tokens
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


def holder(database: Database, secret: str | None) -> str | None:
    assert secret is not None
    found = tokens.authenticate(database, digest(secret))
    return found.role if found else None


def revoke_all(database: Database, made: Setup) -> None:
    with database.as_owner() as transaction:
        for token in tokens.tokens(transaction, made.project.id):
            tokens.revoke(transaction, made.project.id, token.id)


def test_a_project_and_its_owner_s_token_are_made(config: Config, database: Database) -> None:
    """The repository is there before the row, and the file holds the token in one line."""
    made = set_up(config, database)
    assert (made.project.slug, made.project.rules, made.notes) == ("default", "meshhook", ())
    with closing(Projects(config).reader(made.project)) as store:
        assert store.slugs() == []
    assert config.token_file.read_text() == f"{made.token}\n"
    assert stat.S_IMODE(config.token_file.stat().st_mode) == 0o600
    assert holder(database, made.token) == "owner"


def test_to_do_it_again_changes_nothing(config: Config, database: Database) -> None:
    """Whatever was made is found."""
    made = set_up(config, database)
    assert set_up(config, database) == made


def test_many_at_once_make_one(config: Config, database: Database) -> None:
    """The first does it, the others find it done."""
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
def test_a_token_whose_file_is_lost_gets_no_second(
    config: Config, database: Database, text: str | None
) -> None:
    """It is still in force; what is printed makes another one and revokes it."""
    first = set_up(config, database)
    config.token_file.unlink()
    if text is not None:
        config.token_file.write_text(text)
    second = set_up(config, database)
    assert second.token is None
    assert holder(database, first.token) == "owner"
    assert config.token_file.exists() is (text is not None)
    (said,) = second.notes
    assert "gitstore token create default --role owner --name <name>" in said
    revoked = UUID(said.rpartition("gitstore token revoke ")[2])
    with database.as_owner() as transaction:
        assert len(tokens.tokens(transaction, first.project.id)) == 1
        tokens.revoke(transaction, first.project.id, revoked)
    assert holder(database, first.token) is None


@pytest.mark.parametrize("text", ["", "not a token\n", f"gst_{'0' * 43}\n", "\xff"])
def test_a_file_that_opens_nothing_is_written_anew(config: Config, database: Database, text: str) -> None:
    """What a kill between file and commit leaves, or the file of another database."""
    config.token_file.write_text(text, encoding="latin-1")
    made = set_up(config, database)
    assert read_token(config.token_file) == made.token
    assert holder(database, made.token) == "owner"


@pytest.mark.parametrize("with_file", [True, False])
def test_what_was_revoked_stays_revoked(config: Config, database: Database, with_file: bool) -> None:
    """A restart gives nobody back what was taken on purpose; it says how to make another."""
    first = set_up(config, database)
    revoke_all(database, first)
    if not with_file:
        config.token_file.unlink()
    again = set_up(config, database)
    assert again.token is None
    assert "gitstore token create default" in again.notes[0]
    assert config.token_file.exists() == with_file


def test_a_secret_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A file that can't be put in its place leaves nothing beside it."""
    place = tmp_path / "owner-token"
    place.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(place, new_token())
    assert list(tmp_path.iterdir()) == [place]


def test_tokens_are_random_and_have_one_shape() -> None:
    """gst_ and 43 characters of base64url, of 32 bytes."""
    assert new_token(lambda count: b"\xff" * count) == "gst_" + "_" * 42 + "8"
    assert new_token() != new_token()
    assert is_token(new_token())
    for other in ("", "gst_", new_token() + "x", new_token()[:-1], "GST_" + "a" * 43, f" {new_token()}"):
        assert not is_token(other)


def test_a_project_without_its_repository_is_not_opened(config: Config, database: Database) -> None:
    """An empty one in its place would look as if nothing had ever been published."""
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


def test_a_data_folder_that_can_t_be_made_is_told(tmp_path: Path) -> None:
    """By the setting's name."""
    (tmp_path / "file").touch()
    config = Config.from_env({"GITSTORE_DATA": str(tmp_path / "file" / "data")})
    with pytest.raises(GitstoreError, match="set GITSTORE_DATA") as caught:
        make_data_folder(config)
    assert caught.value.code is Code.CONFIG


def test_the_data_folder_is_not_for_others_to_read(config: Config) -> None:
    """Nor are the repositories."""
    assert stat.S_IMODE(config.data.stat().st_mode) & 0o066 == 0
    assert stat.S_IMODE(config.repositories.stat().st_mode) == 0o700
