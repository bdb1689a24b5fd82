"""Owners of the database that are no superusers: with BYPASSRLS, like Supabase's `postgres`, and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gitstore.errors import GitstoreError
from sync.integrity import rebuild, verify
from sync.migrate import migrate
from tests.sync.conftest import House

ROLES = "gitstore_user, gitstore_mirror, gitstore_lookup"


@pytest.fixture(params=["bypassrls", "nobypassrls"])
def conninfo(
    make_database: Callable[..., str],
    postgres_admin_conninfo: str,
    request: pytest.FixtureRequest,
) -> Iterator[str]:
    """A migrated database of an owner with the attributes of Supabase's, but for the one of the test."""
    request.getfixturevalue("migrated_template")  # creates the roles of the cluster, as another owner
    dbname, name = str(conninfo_to_dict(make_database())["dbname"]), f"owner_{uuid4().hex}"
    database, owner = sql.Identifier(dbname), sql.Identifier(name)
    there = make_conninfo(postgres_admin_conninfo, dbname=dbname)
    attributes = sql.SQL(f"login nosuperuser createrole createdb {request.param}")
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} {}").format(owner, attributes))
        admin.execute(sql.SQL("alter database {} owner to {}").format(database, owner))
        # From 16 on, roles that another owner created have to be granted.
        admin.execute(sql.SQL(f"grant {ROLES} to {{}}").format(owner))
        try:
            conninfo = make_conninfo(there, user=name)
            migrate(conninfo)
            yield conninfo
        finally:
            admin.execute(sql.SQL("alter database {} owner to gitstore").format(database))
            with psycopg.connect(there, autocommit=True) as local:
                local.execute(sql.SQL("drop owned by {} cascade").format(owner))
            admin.execute(sql.SQL("drop role {}").format(owner))


def test_tenants_are_isolated_whether_the_owner_bypasses_policies_or_not(
    make_house: Callable[..., House],
) -> None:
    ours, theirs = make_house("ours"), make_house("theirs")
    for house in (ours, theirs):
        house.publish("order-sync")
    for house in (ours, theirs):
        with house.database.reading(house.claims) as tx:
            assert tx.tuples("select project_id from gitstore.workflow_versions") == [(house.project,)]
            assert tx.tuples("select project_id from gitstore.workflows") == [(house.project,)]
            assert tx.tuples("select id from gitstore.projects") == [(house.project,)]
    with ours.database.reading({}) as tx:
        assert tx.tuples("select id from gitstore.workflow_versions") == []
    with pytest.raises(GitstoreError), ours.database.as_user(ours.claims) as tx:
        tx.run("update gitstore.workflows set name = 'x'")


def test_the_rows_are_written_verified_and_rebuilt(house: House) -> None:
    house.publish("order-sync")
    before = house.mirrored()
    house.tamper("update gitstore.workflow_versions set message = 'x'")
    assert len(list(verify.verify(house.database, house.store))) == 1
    rebuild.rebuild(house.database, [house.unmirrored()])
    assert house.mirrored() == before
    with pytest.raises(GitstoreError), house.database.as_owner() as tx:
        tx.run("update gitstore.workflow_versions set message = 'x'")
