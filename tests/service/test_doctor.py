"""`gitstore doctor` on a healthy installation and on sick ones, and the checks of a volume."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gitstore.git import volume
from tests.service.test_cli import House

Sicken = Callable[[House], dict[str, str]]


@pytest.fixture
def house(tmp_path: Path, make_database: Callable[..., str]) -> House:
    made = House(tmp_path / "data", make_database())
    made("migrate")
    made("project", "create", "shop")
    return made


def findings(house: House, status: int, *options: str, **settings: str) -> list[dict[str, Any]]:
    output = house("doctor", "--json", *options, status=status, **settings).stdout
    found: list[dict[str, Any]] = json.loads(output)
    return found


def test_a_healthy_installation_has_no_problem(house: House) -> None:
    """Its data folder may be seen by another mount. Nothing is left behind, and no key is made."""
    before = sorted(path.name for path in house.data.rglob("*"))
    found = findings(house, 0, "--other-mount", str(house.data))
    assert {one["check"] for one in found} == {
        "settings", "git", "editor", "volume", "space", "database", "clock", "schema", "pooler", "secret key",
        "repositories", "worker",
    }  # fmt: skip
    assert [one for one in found if one["level"] == "problem"] == []
    assert sorted(path.name for path in house.data.rglob("*")) == before
    shown = house("doctor").stdout
    assert shown.startswith("RESULT")
    assert "all migrations are applied" in shown


def lose_repository(house: House) -> dict[str, str]:
    (repository,) = (house.data / "repos").iterdir()
    repository.rename(house.data / "elsewhere")
    return {}


def remove_a_migration(house: House) -> dict[str, str]:
    with psycopg.connect(house.url) as connection:
        connection.execute("delete from gitstore.migrations where number > 20")
    return {}


def use_a_newer_schema(house: House) -> dict[str, str]:
    with psycopg.connect(house.url) as connection:
        connection.execute("insert into gitstore.migrations values (9999, '9999_x.sql', '')")
    return {}


def leave_a_write(house: House) -> dict[str, str]:
    (repository,) = (house.data / "repos").iterdir()
    pending = repository / "gitstore-pending"
    pending.mkdir(exist_ok=True)
    (pending / "flow.1000000000000000000.abc").touch()
    return {}


def misspell(house: House) -> dict[str, str]:
    return {"GITSTORE_WORKER": "3"}


@pytest.mark.parametrize(
    ("sicken", "check", "level", "action"),
    [
        (lose_repository, "repositories", "problem", "mount the volume"),
        (remove_a_migration, "schema", "problem", "gitstore migrate"),
        (use_a_newer_schema, "schema", "problem", "version"),
        (leave_a_write, "worker", "problem", "gitstore serve"),
        (misspell, "settings", "warning", "GITSTORE_WORKERS"),
        (lambda _: {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "database", "problem", "DATABASE_URL"),
        (lambda house: {"GITSTORE_DATA": f"{house.data}/none"}, "volume", "problem", "GITSTORE_DATA"),
    ],
    ids=["repository", "schema", "newer", "late", "misspelt", "database", "volume"],
)  # fmt: skip
def test_each_fault_is_found_with_what_to_do(
    house: House, sicken: Sicken, check: str, level: str, action: str
) -> None:
    found = findings(house, int(level == "problem"), **sicken(house))
    assert any((one["check"], one["level"]) == (check, level) and action in one["action"] for one in found), (
        found
    )


def test_a_volume_where_links_replace_files_is_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replacing(self: Path, target: Path) -> None:
        self.unlink(missing_ok=True)
        os.link(target, self)

    assert list(volume.faults(tmp_path)) == []
    monkeypatch.setattr(Path, "hardlink_to", replacing)
    (fault,) = volume.faults(tmp_path)
    assert "two nodes could publish the same version" in fault


def test_another_folder_is_no_second_mount(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (fault,) = volume.faults(one, other)
    assert "is not the same folder" in fault
    assert list(volume.faults(one, one)) == []
    assert list(one.iterdir()) == []
