"""Migrations: numbered SQL files, applied in order, once: those of an upgrade in one transaction.

    migrations/0001_roles.sql ...       the number, and a short name

The table gitstore.migrations records the checksum of each applied file. An advisory lock of the transaction
makes processes take turns; a lock of the session would stay behind in a pooler. A superuser is
not required; the database's owner with the right to create roles (CREATEROLE) suffices.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from operator import attrgetter
from typing import Final, LiteralString

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from gitstore.errors import BusyError, ConfigError, GitstoreError
from sync import levels
from sync.db import connect
from sync.errors import translate, translated

OLDEST: Final = 150000  # Postgres 15

_TRIES: Final = 5
_PATIENCE: Final = 60.0  # seconds for which a migration is tried while others hold its locks
_PAUSE: Final = 0.2
_NAME: Final = re.compile(r"(\d{4})_[a-z_]+\.sql")

_BEGIN: Final[LiteralString] = """
    set local search_path = pg_catalog; set local statement_timeout = 0; set local lock_timeout = '120s';
    select pg_advisory_xact_lock(7451615097684718181)
"""
# A lock is waited for less than Postgres' deadlock_timeout, 1 s: of a request and a migration that wait for
# each other, it is the migration that fails, and begins again.
_SETTINGS: Final[LiteralString] = "set local search_path = pg_catalog; set local lock_timeout = '500ms'"
_PREPARE: Final[LiteralString] = """
    create schema if not exists gitstore;
    create table if not exists gitstore.migrations (
        number integer primary key,
        name text not null,
        sha256 text not null,
        applied_at timestamptz not null default now()
    )
"""
_APPLIED: Final[LiteralString] = "select number, name, sha256 from gitstore.migrations order by number"
_RECORD: Final[LiteralString] = "insert into gitstore.migrations (number, name, sha256) values (%s, %s, %s)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration file. `sha256` covers its text with LF line ends, regardless of those of the checkout."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def shipped() -> list[Migration]:
    """Return the migrations of this release, in order."""
    migrations = []
    for file in resources.files("sync").joinpath("migrations").iterdir():
        if match := _NAME.fullmatch(file.name):
            text = file.read_text(encoding="utf-8").replace("\r\n", "\n")
            migrations.append(Migration(int(match[1]), file.name, text))
    return sorted(migrations, key=attrgetter("number"))


def migrate(conninfo: str, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Apply the missing migrations to the database at `conninfo`; return their file names.

    Raises `config` if the database and this release are incompatible, `unavailable` if Postgres does not
    answer.
    """
    with translated(), connect(conninfo, "gitstore migrate") as connection:
        if connection.info.server_version < OLDEST:
            version = connection.info.parameter_status("server_version")
            raise ConfigError(f"Postgres 15 or newer is required, and this server is {version}")
        applied = _apply(connection, shipped() if migrations is None else migrations)
        levels.raise_unused(connection)
    return applied


def within(connection: Connection[TupleRow], newest: int | None = None) -> list[str]:
    """Apply the missing migrations, up to the number `newest`, in the open transaction of `connection`."""
    return _apply(connection, [one for one in shipped() if newest is None or one.number <= newest])


def pending(conninfo: str) -> list[Migration]:
    """Return the migrations of this release that the database lacks, and change nothing.

    Raises `config` if the database and this release are incompatible.
    """
    with translated(), connect(conninfo, "gitstore migrate") as connection:
        exists = connection.execute("select to_regclass('gitstore.migrations') is not null").fetchone()
        applied = _applied(connection) if exists == (True,) else {}
    migrations = shipped()
    _check(applied, migrations)
    return [migration for migration in migrations if migration.number not in applied]


def _applied(connection: Connection[TupleRow]) -> dict[int, tuple[str, str]]:
    """Return number -> name and checksum of the applied migrations."""
    return {number: (name, sha256) for number, name, sha256 in connection.execute(_APPLIED).fetchall()}


def _apply(connection: Connection[TupleRow], migrations: Sequence[Migration]) -> list[str]:
    """Apply the missing migrations, all in one transaction; return their names.

    Raises `busy` if others hold their locks for `_PATIENCE` seconds.
    """
    action, attempt, deadline = "creating the schema gitstore", 0, time.monotonic() + _PATIENCE
    while True:
        attempt += 1
        try:
            with connection.transaction():
                connection.execute(_BEGIN)
                connection.execute(_PREPARE)
                applied = _applied(connection)
                _check(applied, migrations)
                missing = [migration for migration in migrations if migration.number not in applied]
                for migration in missing:
                    action = f"applying {migration.name}"
                    connection.execute(_SETTINGS)
                    connection.execute(migration.text.encode())
                    connection.execute("reset role")
                    connection.execute(_RECORD, (migration.number, migration.name, migration.sha256))
        except psycopg.errors.InsufficientPrivilege as error:
            raise _not_allowed(action, error) from error
        except psycopg.errors.InternalError_ as error:
            # "tuple concurrently updated": a concurrent migration of another database granted the same roles.
            if attempt >= _TRIES:
                raise translate(error) from error
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if time.monotonic() > deadline:
                message = f"{action} waits for other transactions: end them, and run it again"
                raise BusyError(message) from error
            time.sleep(_PAUSE)
        else:
            return [migration.name for migration in missing]


def _check(applied: dict[int, tuple[str, str]], migrations: Sequence[Migration]) -> None:
    """Raise `config` unless the applied migrations are an unchanged prefix of `migrations`."""
    known = {migration.number: migration for migration in migrations}
    newest = max(applied, default=0)
    for number, (name, sha256) in applied.items():
        if number not in known:
            raise ConfigError(
                f"{name} was applied by a newer gitstore: run that version, or use another database. To go "
                "back to this one, restore a backup that was made before the upgrade",
                migration=name,
            )
        if known[number].sha256 != sha256:
            raise ConfigError(
                f"{known[number].name} differs from the migration that was applied: restore the file, "
                "and put changes into a new migration",
                migration=name,
            )
    for migration in migrations:
        if migration.number < newest and migration.number not in applied:
            raise ConfigError(
                f"{migration.name} precedes migrations that are already applied: give it the next number",
                migration=migration.name,
            )


def _not_allowed(action: str, error: psycopg.Error) -> GitstoreError:
    hint = f"; {error.diag.message_hint}" if error.diag.message_hint else ""
    return ConfigError(
        f"{action} failed: {error.diag.message_primary}. The user of DATABASE_URL must own the database "
        f"and may need to create roles{hint}",
    )
