"""Secrets at rest: sealed with a key that is not where they are."""

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


def test_what_is_sealed_can_be_opened_again() -> None:
    """And does not show."""
    made = Sealer([new_key()])
    sealed = made.seal("subscription 1", "whsec_x")
    assert "whsec_x" not in sealed
    assert made.open("subscription 1", sealed) == "whsec_x"


def test_it_is_sealed_for_one_purpose() -> None:
    """One row's secret is of no use in another."""
    made = Sealer([new_key()])
    for purpose in ("subscription 2", "subscription 1\nwhsec_x", ""):
        with pytest.raises(GitstoreError) as caught:
            made.open(purpose, made.seal("subscription 1", "whsec_x"))
        assert caught.value.code is Code.CONFIG


def test_another_key_opens_nothing_and_says_so() -> None:
    """The operator is told which setting is wrong."""
    sealed = Sealer([new_key()]).seal("source 1", "x")
    with pytest.raises(GitstoreError, match="GITSTORE_SECRET_KEY"):
        Sealer([new_key()]).open("source 1", sealed)
    with pytest.raises(GitstoreError):
        Sealer([new_key()]).open("source 1", "garbage")


def test_a_key_is_replaced_without_an_outage() -> None:
    """The first key seals, all of them open."""
    old, new = new_key(), new_key()
    sealed = Sealer([old]).seal("p", "x")
    both = Sealer(keys_in(f"{new}, {old}"))
    assert both.open("p", sealed) == "x"
    assert Sealer([new]).open("p", both.seal("p", "y")) == "y"


def config(folder: Path, key: str = "") -> Config:
    return Config.from_env({"GITSTORE_DATA": str(folder), "GITSTORE_SECRET_KEY": key})


def test_without_a_setting_a_key_is_made_once(tmp_path: Path, database: Database) -> None:
    """In the data folder, for nobody else to read; processes that start together get the same."""
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


def test_a_key_of_the_settings_leaves_the_folder_alone(tmp_path: Path, database: Database) -> None:
    """And it is the one that is used."""
    key = new_key()
    assert Sealer([key]).open("p", sealer(config(tmp_path, key), database).seal("p", "x")) == "x"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "nonsense", "\u00e4"])
def test_a_broken_key_file_is_told_and_never_replaced(tmp_path: Path, database: Database, text: str) -> None:
    """A new key in its place would make every secret unreadable."""
    file = tmp_path / "secret-key"
    file.write_text(text)
    with pytest.raises(GitstoreError) as caught:
        sealer(config(tmp_path), database)
    assert caught.value.code is Code.CONFIG
    assert file.read_text() == text
