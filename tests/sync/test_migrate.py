"""Migrations: each applied once, also by concurrent processes, and never after a file changed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from gitstore.errors import Code, GitstoreError
from sync.catalog import projects
from sync.db import Database
from sync.migrate import Migration, migrate, shipped
from sync.releases import ItemRow, ReleaseRow
from sync.rows import NumberMark, VersionRow, WorkflowRow, column_names

MakeDatabase = Callable[..., str]


def test_the_shipped_migrations_are_numbered_from_one_without_a_gap() -> None:
    assert [migration.number for migration in shipped()] == list(range(1, len(shipped()) + 1))


def test_migrating_twice_applies_each_file_once(make_database: MakeDatabase) -> None:
    conninfo = make_database()
    assert migrate(conninfo) == [migration.name for migration in shipped()]
    assert migrate(conninfo) == []


def test_concurrent_processes_apply_each_migration_once(make_database: MakeDatabase) -> None:
    conninfo = make_database()
    with ThreadPoolExecutor(4) as threads:
        applied = [name for names in threads.map(migrate, [conninfo] * 4) for name in names]
    assert sorted(applied) == [migration.name for migration in shipped()]


def test_databases_of_one_cluster_migrate_concurrently_though_they_share_roles(
    make_database: MakeDatabase,
) -> None:
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(migrate, [make_database() for _ in range(4)]))
    assert done == [[migration.name for migration in shipped()]] * 4


def test_the_owner_of_the_database_is_not_a_superuser(conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection:
        query = "select rolsuper, rolbypassrls from pg_roles where rolname = current_user"
        assert connection.execute(query).fetchone() == (False, False)


def test_roles_have_no_further_rights(conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection:
        query = """select rolname, rolsuper or rolbypassrls or rolcanlogin or rolcreaterole from pg_roles
                   where rolname like 'gitstore\\_%' order by rolname"""
        assert connection.execute(query).fetchall() == [
            ("gitstore_lookup", False),
            ("gitstore_mirror", False),
            ("gitstore_user", False),
        ]


def test_row_level_security_is_forced_on_every_table_with_a_project(conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection:
        query = """select relname from pg_class where relnamespace = 'gitstore'::regnamespace
                   and relkind = 'r' and not (relrowsecurity and relforcerowsecurity)"""
        assert connection.execute(query).fetchall() == [("migrations",)]


def test_a_user_without_createrole_is_refused_with_advice(
    make_database: MakeDatabase, postgres_admin_conninfo: str
) -> None:
    name = make_conninfo(make_database()).split("dbname=")[1].split()[0]
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        admin.execute("create role meek login")
        admin.execute(f"alter database {name} owner to meek")
        try:
            with pytest.raises(GitstoreError, match="grant gitstore_user, gitstore_mirror") as refused:
                migrate(make_conninfo(postgres_admin_conninfo, user="meek", dbname=name))
            assert refused.value.code is Code.CONFIG
            admin.execute("grant gitstore_user, gitstore_mirror, gitstore_lookup to meek")
            migrate(make_conninfo(postgres_admin_conninfo, user="meek", dbname=name))
        finally:
            admin.execute(f"alter database {name} owner to gitstore")
            admin.execute("revoke gitstore_user, gitstore_mirror, gitstore_lookup from meek")
            owned = make_conninfo(postgres_admin_conninfo, dbname=name)
            with psycopg.connect(owned, autocommit=True) as there:
                there.execute("drop owned by meek cascade")
            admin.execute("drop role meek")


def test_a_changed_file_is_refused_by_name(make_database: MakeDatabase) -> None:
    conninfo = make_database()
    first, second = Migration(1, "0001_a.sql", "select 1"), Migration(2, "0002_b.sql", "select 2")
    migrate(conninfo, [first, second])
    with pytest.raises(
        GitstoreError, match=r"0002_b\.sql differs from the migration that was applied"
    ) as refused:
        migrate(conninfo, [first, replace(second, text="select 3")])
    assert refused.value.code is Code.CONFIG
    assert migrate(conninfo, [first, second]) == []


def test_a_database_of_a_newer_gitstore_is_refused(make_database: MakeDatabase) -> None:
    conninfo = make_database()
    first, second = Migration(1, "0001_a.sql", "select 1"), Migration(2, "0002_b.sql", "select 2")
    migrate(conninfo, [first, second])
    with pytest.raises(GitstoreError, match=r"0002_b\.sql was applied by a newer gitstore"):
        migrate(conninfo, [first])


def test_a_file_inserted_before_applied_ones_is_refused(make_database: MakeDatabase) -> None:
    conninfo = make_database()
    first, second = Migration(1, "0001_a.sql", "select 1"), Migration(2, "0002_b.sql", "select 2")
    migrate(conninfo, [second])
    with pytest.raises(GitstoreError, match=r"0001_a\.sql precedes"):
        migrate(conninfo, [first, second])


def test_a_failed_file_leaves_nothing_and_can_be_retried(make_database: MakeDatabase) -> None:
    conninfo = make_database()
    broken = Migration(1, "0001_a.sql", "create table gitstore.half (id int); select 1 / 0")
    with pytest.raises(GitstoreError):
        migrate(conninfo, [broken])
    assert migrate(conninfo, [replace(broken, text="create table gitstore.half (id int)")]) == ["0001_a.sql"]


def test_line_ends_of_a_checkout_do_not_change_the_checksum() -> None:
    for migration in shipped():
        assert "\r" not in migration.text


def test_a_database_without_migrations_is_an_error_that_names_the_command(
    make_database: MakeDatabase,
) -> None:
    database = Database(make_database())
    with pytest.raises(GitstoreError, match="gitstore migrate") as refused, database.reading({}) as tx:
        projects(tx)
    database.close()
    assert refused.value.code is Code.CONFIG


def test_a_missing_server_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(GitstoreError) as refused:
        migrate(f"host={tmp_path} dbname=none")
    assert refused.value.code is Code.UNAVAILABLE


def test_each_shape_has_the_columns_of_its_table(conninfo: str) -> None:
    """A migration that adds a column needs a field of the shape, and the other way round."""
    tables = {"workflows": WorkflowRow, "workflow_versions": VersionRow, "number_marks": NumberMark}
    tables |= {"releases": ReleaseRow, "release_items": ItemRow}
    query = """select column_name from information_schema.columns
               where table_schema = 'gitstore' and table_name = %s and is_generated = 'NEVER'"""
    with psycopg.connect(conninfo) as connection:
        for table, shape in tables.items():
            assert {name for (name,) in connection.execute(query, [table])} == set(column_names(shape)), table
