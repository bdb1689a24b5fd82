"""Secrets at rest, sealed with a key that is not in the database."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from gitstore.errors import Code, GitstoreError
from service.config import Config
from service.run.secret_key import sealer
from sync.db import Database
from webhooks.secrets import Sealer, keys_in, new_key


def test_a_sealed_secret_can_be_opened() -> None:
    made = Sealer([new_key()])
    sealed = made.seal("subscription 1", "whsec_x")
    assert "whsec_x" not in sealed
    assert made.open("subscription 1", sealed) == "whsec_x"


def test_a_secret_is_sealed_for_one_purpose() -> None:
    made = Sealer([new_key()])
    for purpose in ("subscription 2", "subscription 1\nwhsec_x", ""):
        with pytest.raises(GitstoreError) as caught:
            made.open(purpose, made.seal("subscription 1", "whsec_x"))
        assert caught.value.code is Code.CONFIG


def test_another_key_is_an_error_that_names_the_setting() -> None:
    sealed = Sealer([new_key()]).seal("source 1", "x")
    with pytest.raises(GitstoreError, match="GITSTORE_SECRET_KEY"):
        Sealer([new_key()]).open("source 1", sealed)
    with pytest.raises(GitstoreError):
        Sealer([new_key()]).open("source 1", "garbage")


def test_keys_rotate_without_an_outage() -> None:
    """The first key seals, and each of them opens."""
    old, new = new_key(), new_key()
    sealed = Sealer([old]).seal("p", "x")
    both = Sealer(keys_in(f"{new}, {old}"))
    assert both.open("p", sealed) == "x"
    assert Sealer([new]).open("p", both.seal("p", "y")) == "y"


def config(folder: Path, key: str = "") -> Config:
    return Config.from_env({"GITSTORE_DATA": str(folder), "GITSTORE_SECRET_KEY": key})


def test_without_a_setting_one_key_is_created(tmp_path: Path, database: Database) -> None:
    """In the data folder, readable by its user alone; concurrent processes get the same one."""
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(sealer(config(tmp_path), database).seal("p", "x")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sealer(config(tmp_path), database).open("p", sealed) for sealed in made] == ["x"] * 8
    (file,) = tmp_path.iterdir()
    assert file.name == "secret-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_key_file_is_created_for_a_key_in_the_settings(tmp_path: Path, database: Database) -> None:
    key = new_key()
    assert Sealer([key]).open("p", sealer(config(tmp_path, key), database).seal("p", "x")) == "x"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "nonsense", "\u00e4"])
def test_a_damaged_key_file_is_not_replaced(tmp_path: Path, database: Database, text: str) -> None:
    """A new key would make every secret unreadable."""
    file = tmp_path / "secret-key"
    file.write_text(text)
    with pytest.raises(GitstoreError) as caught:
        sealer(config(tmp_path), database)
    assert caught.value.code is Code.CONFIG
    assert file.read_text() == text
