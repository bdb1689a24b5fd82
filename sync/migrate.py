"""Migrations: numbered SQL files, applied in order, once, each in a transaction of its own.

    migrations/0001_roles.sql ...       the number, and a short name

The table gitstore.migrations records the checksum of each applied file. An advisory lock of each transaction
makes processes take turns, file by file; a lock of the session would stay behind in a pooler. A superuser is
not required; the database's owner with the right to create roles (CREATEROLE) suffices.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from operator import attrgetter
from typing import Final, LiteralString

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from gitstore.errors import ConfigError, GitstoreError
from sync.db import connect
from sync.errors import translate, translated

OLDEST: Final = 150000  # Postgres 15

_TRIES: Final = 5
_NAME: Final = re.compile(r"(\d{4})_[a-z_]+\.sql")

# Only this lock is waited for that long.
_BEGIN: Final[LiteralString] = """
    set local search_path = pg_catalog; set local statement_timeout = 0; set local lock_timeout = '120s';
    select pg_advisory_xact_lock(7451615097684718181);
    set local lock_timeout = '10s'
"""
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
    applied = []
    with translated(), connect(conninfo, "gitstore migrate") as connection:
        if connection.info.server_version < OLDEST:
            version = connection.info.parameter_status("server_version")
            raise ConfigError(f"Postgres 15 or newer is required, and this server is {version}")
        while name := _apply_next(connection, shipped() if migrations is None else migrations):
            applied.append(name)
    return applied


def _apply_next(connection: Connection[TupleRow], migrations: Sequence[Migration]) -> str | None:
    """Apply the first migration that is missing, in one transaction; return its name, or None."""
    action = "creating the schema gitstore"
    for attempt in range(1, _TRIES + 1):
        try:
            with connection.transaction():
                connection.execute(_BEGIN)
                connection.execute(_PREPARE)
                applied = {
                    number: (name, sha256) for number, name, sha256 in connection.execute(_APPLIED).fetchall()
                }
                _check(applied, migrations)
                missing = (migration for migration in migrations if migration.number not in applied)
                if (migration := next(missing, None)) is None:
                    return None
                action = f"applying {migration.name}"
                connection.execute(migration.text.encode())
                connection.execute(_RECORD, (migration.number, migration.name, migration.sha256))
        except psycopg.errors.InsufficientPrivilege as error:
            raise _not_allowed(action, error) from error
        except psycopg.errors.InternalError_ as error:
            # "tuple concurrently updated": a concurrent migration of another database granted the same roles.
            if attempt == _TRIES:
                raise translate(error) from error
        else:
            return migration.name
    return None


def _check(applied: dict[int, tuple[str, str]], migrations: Sequence[Migration]) -> None:
    """Raise `config` unless the applied migrations are an unchanged prefix of `migrations`."""
    known = {migration.number: migration for migration in migrations}
    newest = max(applied, default=0)
    for number, (name, sha256) in applied.items():
        if number not in known:
            raise ConfigError(
                f"{name} was applied by a newer gitstore: run that version, or use another database",
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
