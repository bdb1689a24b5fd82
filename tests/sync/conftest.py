"""A migrated database per test, cloned from one that is migrated once a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from sync.db import Database
from sync.embedded import USER
from sync.migrate import migrate


@pytest.fixture(scope="session")
def migrated_template(postgres_admin_conninfo: str) -> Iterator[str]:
    """The name of a database with everything migrated, to be cloned and not to be used."""
    name = f"template_{uuid4().hex}"
    names = sql.Identifier(name), sql.Identifier(USER)
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
        migrate(make_conninfo(postgres_admin_conninfo, user=USER, dbname=name))
        yield name
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names[0]))


@pytest.fixture
def conninfo(make_database: Callable[..., str], migrated_template: str) -> str:
    """The way into a migrated database, as its plain owner."""
    return make_database(migrated_template)


@pytest.fixture
def database(conninfo: str) -> Iterator[Database]:
    database = Database(conninfo, lock_seconds=2)
    yield database
    database.close()
