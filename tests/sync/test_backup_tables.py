"""Which tables a backup has. A new table of the schema must be classified."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from sync.backup_tables import DERIVED, TABLES

_TABLES = "select tablename from pg_tables where schemaname = 'gitstore'"
_REFERENCES = """
    select conrelid::regclass::text, confrelid::regclass::text from pg_constraint
    where contype = 'f' and connamespace = 'gitstore'::regnamespace and not condeferrable
"""
_SEALED = """
    select distinct attrelid::regclass::text from pg_attribute join pg_class c on c.oid = attrelid
    where relnamespace = 'gitstore'::regnamespace and attname like 'sealed%%' and relkind = 'r'
        and not exists (
            select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
            where i.indrelid = c.oid and i.indisprimary and i.indnkeyatts = 1 and a.attname = 'id')
"""


@pytest.fixture
def connection(
    make_database: Callable[..., str], migrated_template: str
) -> psycopg.Connection[tuple[str, ...]]:
    return psycopg.connect(make_database(migrated_template))


def test_every_table_is_backed_up_or_derived(connection: psycopg.Connection[tuple[str, ...]]) -> None:
    """A migration that creates a table adds it to TABLES or to DERIVED in sync/backup_tables.py."""
    with connection:
        found = {name for (name,) in connection.execute(_TABLES)}
        names = [table.name for table in TABLES]
        assert {*names, *DERIVED} == found
        assert len(names) == len(set(names))
        assert not set(names) & DERIVED.keys()
        # Rows are loaded in this order, each after those that it refers to.
        for of, to in connection.execute(_REFERENCES):
            source, target = of.partition(".")[2], to.partition(".")[2]
            assert source == target or names.index(target) < names.index(source), (source, target)


def test_tables_with_secrets_have_an_id(connection: psycopg.Connection[tuple[str, ...]]) -> None:
    """By which a restore finds the row of a secret."""
    with connection:
        assert connection.execute(_SEALED).fetchall() == []
