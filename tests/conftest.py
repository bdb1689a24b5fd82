"""A real Postgres for every test that asks for one: a server per worker, a database per test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from sync.embedded import SUPERUSER, USER, EmbeddedPostgres
from sync.migrate import migrate

# How fast a machine is says nothing of the code. Where a fixture's folder serves all examples, that is meant.
NOT_ASKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("gitstore", deadline=None, suppress_health_check=NOT_ASKED)
settings.load_profile("gitstore")

RAM_DISK = Path("/dev/shm")  # noqa: S108 (used through tempfile)
ENOUGH = 2 << 30

MakeDatabase = Callable[..., str]
"""`make_database(template: str | None = None)`: the conninfo, as `gitstore`, of a new database it owns."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """This worker's server. fsync is on, but costs little in RAM: a new database takes 15 ms, not 300."""
    with temporary_folder() as folder:
        server = EmbeddedPostgres(folder / "postgres", settings={"max_wal_size": "256MB"})
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_admin_conninfo(postgres: EmbeddedPostgres) -> str:
    """The superuser's way into this worker's server, to its database `postgres`."""
    return postgres.conninfo(user=SUPERUSER, dbname=SUPERUSER)


@pytest.fixture
def ram_path() -> Iterator[Path]:
    """Like tmp_path, but in RAM where there is enough, with a short name, and gone at the end."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def make_database(postgres_admin_conninfo: str) -> Iterator[MakeDatabase]:
    """Makes databases, each a copy of `template` (to which nobody may be connected), dropped at the end."""
    with ExitStack() as databases:
        yield lambda template=None: databases.enter_context(database(postgres_admin_conninfo, template))


@contextmanager
def database(admin_conninfo: str, template: str | None = None) -> Iterator[str]:
    """A database of its own, owned by the role as which the service connects."""
    name = f"test_{uuid4().hex}"
    names = (sql.Identifier(part) for part in (name, template or "template1", USER))
    with psycopg.connect(admin_conninfo, autocommit=True) as admin:
        # WAL_LOG: as fast as FILE_COPY in RAM, and on a disk without its checkpoints, which all wait for.
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY WAL_LOG").format(*names)
        admin.execute(create)
        try:
            yield make_conninfo(admin_conninfo, user=USER, dbname=name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for a short while, in RAM if possible: there, fsync is free."""
    in_ram = RAM_DISK.is_dir() and shutil.disk_usage(RAM_DISK).free > ENOUGH
    with tempfile.TemporaryDirectory(prefix="gitstore-test-", dir=RAM_DISK if in_ram else None) as folder:
        yield Path(folder)


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
