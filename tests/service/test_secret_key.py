"""A lost or wrong secret key: the service does not start, and no key is replaced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from gitstore.errors import Code, GitstoreError
from gitstore.upstream.remote import Credential
from service.cli.main import commands
from service.config import Config
from service.projects import Projects, make_data_folder
from service.run import secret_key
from service.run.bootstrap import create_project, set_up
from sync.db import Database
from tests.service.serve_process import environment, gitstore
from webhooks import sources, subscriptions
from webhooks.forges import Forge
from webhooks.lost_secrets import lost
from webhooks.secrets import Sealer, new_key

EVENT = "workflow.version.published"


@dataclass
class House:
    """Two projects: a subscription in each, and in the second a source with a credential and one without."""

    config: Config
    database: Database
    key: str
    subscriptions: list[UUID]
    sources: list[UUID]

    def with_key(self, setting: str = "", file: str | None = None) -> Config:
        """Return the configuration with this setting, and this text in the key's file (None: no file)."""
        self.config.secret_key_file.unlink(missing_ok=True)
        if file is not None:
            self.config.secret_key_file.write_text(file)
        return Config.from_env({"GITSTORE_DATA": str(self.config.data), "GITSTORE_SECRET_KEY": setting})

    def rows(self) -> list[Any]:
        with self.database.as_owner() as tx:
            return [
                *tx.tuples("select t::text from gitstore.subscriptions t order by id"),
                *tx.tuples("select t::text from gitstore.subscription_secrets t order by id"),
                *tx.tuples("select t::text from gitstore.sources t order by id"),
            ]

    def cli(self, *arguments: str, config: Config, status: int = 0, answer: str | None = None) -> Result:
        ours = {"DATABASE_URL": self.database.conninfo, "GITSTORE_DATA": str(config.data)}
        wanted = environment(**ours, GITSTORE_SECRET_KEY=config.secret_key or "")
        absent: dict[str, str | None] = {name: None for name in os.environ if name not in wanted}
        result = CliRunner(env={**absent, **wanted}).invoke(commands, arguments, input=answer)
        assert result.exit_code == status, result.output
        return result


@pytest.fixture
def house(tmp_path: Path, make_database: Callable[..., str], migrated_template: str) -> Iterator[House]:
    config = Config.from_env({"GITSTORE_DATA": str(tmp_path / "data")})
    make_data_folder(config)
    with closing(Database(make_database(migrated_template), max_connections=4)) as database:
        set_up(config, database)
        sealer = secret_key.checked_sealer(config, database)
        made = House(config, database, config.secret_key_file.read_text().strip(), [], [])
        with database.as_owner() as tx:
            for number in (1, 2):
                project = create_project(tx, Projects(config), UUID(int=number), f"p-{number}", "P").id
                url = "https://hooks.example/x"
                made.subscriptions.append(subscriptions.create(tx, sealer, project, url, [EVENT])[0].id)
            for number, login in enumerate((Credential("ann", "pw"), None)):
                url = f"https://git.example/{number}.git"
                source, _ = sources.create(tx, sealer, project, url, forge=Forge.GITHUB, login=login)
                made.sources.append(source.id)
        yield made


def refused(house: House, config: Config) -> str:
    with pytest.raises(GitstoreError) as caught:
        secret_key.checked_sealer(config, house.database)
    assert caught.value.code is Code.CONFIG
    return caught.value.message


def test_a_new_gitstore_creates_its_key(
    tmp_path: Path, make_database: Callable[..., str], migrated_template: str
) -> None:
    """Once; and again if the file is lost while nothing is encrypted."""
    config = Config.from_env({"GITSTORE_DATA": str(tmp_path)})
    with closing(Database(make_database(migrated_template), max_connections=4)) as database:
        secret_key.checked_sealer(config, database)
        first = config.secret_key_file.read_text()
        secret_key.checked_sealer(config, database)
        assert config.secret_key_file.read_text() == first
        config.secret_key_file.unlink()
        secret_key.checked_sealer(config, database)
        assert config.secret_key_file.read_text() != first


@pytest.mark.parametrize(
    ("setting", "file", "cause"),
    [
        ("", None, "is missing, and GITSTORE_SECRET_KEY is not set"),
        ("", new_key(), "is not the one that encrypted them"),
        (new_key(), None, "GITSTORE_SECRET_KEY is not the key that encrypted them"),
        (f"{new_key()},{new_key()}", None, "GITSTORE_SECRET_KEY is not the key that encrypted them"),
        (new_key(), "theirs", "GITSTORE_SECRET_KEY is not the key that encrypted them"),
    ],
    ids=["missing", "another file", "another setting", "two others", "set beside the file"],
)
def test_a_lost_or_wrong_key_stops_the_start(
    house: House, setting: str, file: str | None, cause: str
) -> None:
    """The message has counts and both remedies; no key is created and no row is changed."""
    before = house.rows()
    config = house.with_key(setting, house.key if file == "theirs" else file)
    files = sorted(config.data.iterdir())
    message = refused(house, config)
    assert message.startswith("the secrets of 2 subscriptions and 2 sources cannot be decrypted: ")
    assert cause in message
    assert f"restore {config.secret_key_file} from a backup" in message
    assert "gitstore secrets reset" in message
    assert house.cli("secrets", "check", config=config, status=1).stdout.count("\n") == 6
    assert sorted(config.data.iterdir()) == files
    assert house.rows() == before
    assert secret_key.checked_sealer(house.with_key(file=house.key), house.database)


def test_one_of_several_keys_decrypts(house: House) -> None:
    """The first encrypts, all decrypt; without one of them, its secrets are counted as lost."""
    both = house.with_key(f"{new_key()},{house.key}")
    sealer = secret_key.checked_sealer(both, house.database)
    with house.database.as_owner() as tx:
        project = UUID(int=1)
        subscriptions.create(tx, sealer, project, "https://hooks.example/y", [EVENT])
    assert "the secrets of 1 subscription cannot be decrypted" in refused(
        house, house.with_key(file=house.key)
    )
    old_only = (both.secret_key or "").partition(",")[0]
    assert "2 subscriptions and 2 sources" in refused(house, house.with_key(old_only))


@pytest.mark.parametrize("text", ["", "nonsense"])
def test_a_damaged_file_is_never_replaced(house: House, text: str) -> None:
    """Neither at the start nor by the reset."""
    config = house.with_key(file=text)
    assert "move the file away" in refused(house, config)
    house.cli("secrets", "reset", "--yes", config=config, status=1)
    assert config.secret_key_file.read_text() == text


def test_running_processes_create_no_key_in_place_of_a_lost_one(house: House) -> None:
    """Nor does a command encrypt with another key than the service's."""
    config = house.with_key()
    with pytest.raises(GitstoreError, match="gitstore secrets check"):
        secret_key.sealer(config, house.database)
    arguments = ("source", "add", "p-1", "https://git.example/new.git")
    assert "cannot be decrypted" in house.cli(*arguments, config=config, status=1).stderr
    assert not config.secret_key_file.exists()
    other = house.with_key(new_key())
    assert "cannot be decrypted" in house.cli(*arguments, config=other, status=1).stderr


def test_a_reset_clears_lost_secrets(house: House) -> None:
    """After a confirmation; affected subscriptions and sources are paused."""
    config = house.with_key()
    before = house.rows()
    house.cli("secrets", "reset", config=config, status=1, answer="n\n")
    assert house.rows() == before
    done = house.cli("secrets", "reset", config=config, answer="y\n").stdout
    for owner in (*house.subscriptions, *house.sources):
        assert f" {owner}: " in done
    assert "whsec_" not in done
    sealer = secret_key.checked_sealer(config, house.database)
    assert house.cli("secrets", "check", config=config).stdout == "every secret can be decrypted\n"
    with house.database.as_owner() as tx:
        subscription = subscriptions.subscription(tx, UUID(int=1), house.subscriptions[0])
        with_login, without = (sources.source(tx, UUID(int=2), source) for source in house.sources)
        noted = tx.tuples("select action, object from gitstore.audit_log where action like '%%secret_lost'")
        assert subscription is not None
        assert with_login is not None
        assert without is not None
        assert subscriptions.rotate(tx, sealer, UUID(int=1), subscription.id)
        assert subscriptions.change(tx, UUID(int=1), subscription.id, state="active")
    assert (subscription.state, "rotate it" in (subscription.reason or "")) == ("paused", True)
    assert (with_login.paused, with_login.has_credential) == (True, False)
    assert "enter it again" in (with_login.last_error or "")
    assert not without.paused
    assert len(noted) == 5
    assert "nothing to reset" in house.cli("secrets", "reset", config=config).stdout


def test_a_subscription_with_a_second_secret_stays_active(house: House) -> None:
    """After a rotation under two keys, only the lost secret is removed."""
    new = new_key()
    with house.database.as_owner() as tx:
        subscriptions.rotate(tx, Sealer([new]), UUID(int=1), house.subscriptions[0])
    done = house.cli("secrets", "reset", "--yes", config=house.with_key(new)).stdout
    assert f"subscription {house.subscriptions[0]}: one of its secrets was lost and is removed" in done
    with house.database.as_owner() as tx:
        assert lost(tx, Sealer([new])) == []
        subscription = subscriptions.subscription(tx, UUID(int=1), house.subscriptions[0])
    assert subscription is not None
    assert (subscription.state, subscription.reason) == ("active", None)


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_neither_serve_nor_worker_starts(house: House, command: str) -> None:
    """They exit with status 1 and the message."""
    config = house.with_key()
    settings = {
        "DATABASE_URL": house.database.conninfo,
        "GITSTORE_DATA": str(config.data),
        "GITSTORE_BIND": "127.0.0.1:0",
    }
    done = gitstore(command, settings=settings)
    assert done.returncode == 1
    assert "error: the secrets of 2 subscriptions and 2 sources cannot be decrypted" in done.stderr
    assert "gitstore secrets reset" in done.stderr
    assert done.stdout == ""
    assert not config.secret_key_file.exists()
