"""Supabase's roles read the tables, each what it may, in both forms of PostgREST's claims."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection, sql

from sync import hosts
from sync.db import Database
from tests.sync.conftest import House

ADA = UUID(int=1)
READ = ("projects", "workflows", "workflow_versions", "events", "members")


@pytest.fixture
def roles(postgres_admin_conninfo: str, conninfo: str) -> Iterator[None]:
    """The roles as Supabase makes them, but that service_role does not bypass row-level security."""
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        for role in (hosts.USER, hosts.SERVER, "anon"):
            admin.execute(f"create role {role} nologin noinherit".encode())
            admin.execute(f"grant {role} to gitstore".encode())
        yield
        with psycopg.connect(conninfo, autocommit=True) as owner:
            owner.execute(b"drop owned by authenticated, service_role, anon")
        admin.execute("drop role authenticated, service_role, anon")


@pytest.fixture
def ours(make_house: Callable[..., House]) -> House:
    """Ada's project, beside one that is not hers."""
    ours, theirs = make_house("ours"), make_house("theirs")
    for house in (ours, theirs):
        house.publish("order-sync")
    ours.tamper("update gitstore.projects set owner = %(ada)s where slug = 'ours'", ada=ADA)
    theirs.tamper(
        "insert into gitstore.members select id, %(id)s, 'viewer' from gitstore.projects", id=UUID(int=7)
    )
    return ours


def granted(database: Database) -> list[str]:
    with database.as_owner() as tx:
        return list(hosts.grant(tx))


def projects_in(connection: Connection[Any], role: str, **settings: str) -> dict[str, int]:
    """Return the number of projects of which `role` sees rows, by table."""
    with connection.transaction(force_rollback=True):
        for name, value in settings.items():
            connection.execute("select set_config(%s, %s, true)", (name.replace("__", "."), value))
        connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        found = {}
        for table in READ:
            key = sql.Identifier("id" if table == "projects" else "project_id")
            query = sql.SQL("select count(distinct {}) from gitstore.{}").format(key, sql.Identifier(table))
            found[table] = next(iter(connection.execute(query)))[0]
        return found


@pytest.mark.usefixtures("roles")
def test_users_see_their_projects_and_servers_see_all(ours: House, conninfo: str) -> None:
    lines = granted(ours.database)
    assert 'grant select on gitstore."workflow_versions" to "authenticated"' in lines
    assert granted(ours.database) == [
        "authenticated already has every grant",
        "service_role already has every grant",
    ]
    mine, nothing = dict.fromkeys(READ, 1), dict.fromkeys(READ, 0)
    sub = str(ADA)
    with psycopg.connect(conninfo) as connection:
        for settings in (
            {"request__jwt__claims": json.dumps({"sub": sub, "role": "authenticated", "email": "a@b.c"})},
            {"request__jwt__claim__sub": sub},
        ):
            assert projects_in(connection, "authenticated", **settings) == mine
        for settings in (
            {},
            {"request__jwt__claim__sub": "no uuid"},
            {"request__jwt__claims": "{}", "request__jwt__claim__sub": sub},  # the newer form decides
            {"request__jwt__claims": json.dumps({"sub": str(UUID(int=9))})},
            {"request__jwt__claims": json.dumps({"gitstore_token": str(ours.claims["gitstore_token"])})},
        ):
            assert projects_in(connection, "authenticated", **settings) == nothing, settings
        assert projects_in(connection, "service_role") == dict.fromkeys(READ, 2)


@pytest.mark.usefixtures("roles")
@pytest.mark.parametrize("role", [hosts.USER, hosts.SERVER, "anon"])
def test_no_role_of_the_host_writes_or_reads_secrets(ours: House, conninfo: str, role: str) -> None:
    granted(ours.database)
    refused = [
        "update gitstore.projects set name = 'x'",
        "insert into gitstore.members values (gen_random_uuid(), gen_random_uuid(), 'owner')",
        "delete from gitstore.workflow_versions",
        "truncate gitstore.events",
        "select * from gitstore.access_tokens",
        "select sealed_secret from gitstore.sources",
        "select sealed from gitstore.subscription_secrets",
        "select bytes from gitstore.git_objects",
        "select gitstore.set_member(gen_random_uuid(), gen_random_uuid(), 'owner')",
        "select gitstore.create_project(gen_random_uuid(), 'x', 'x', 'any', 5)",
        "select * from gitstore.authenticate('x')",
    ]
    if role == "anon":
        refused += [f"table gitstore.{table}" for table in READ]
    with psycopg.connect(conninfo) as connection:
        for statement in refused:
            text = f"set local role {role}; {statement}".encode()
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(text)


def test_roles_that_do_not_exist_are_skipped(database: Database) -> None:
    assert granted(database) == [f"there is no role {role}: skipped" for role in (hosts.USER, hosts.SERVER)]


@pytest.mark.usefixtures("roles")
def test_a_view_is_granted_if_it_reads_as_its_reader(ours: House, conninfo: str) -> None:
    """A view with the rights of its owner would show every project."""
    ours.tamper("create view gitstore.safe with (security_invoker = on) as select id from gitstore.workflows")
    ours.tamper("create view gitstore.leaky as select id from gitstore.workflows")
    lines = granted(ours.database)
    assert 'grant select on gitstore."safe" to "authenticated"' in lines
    assert not any("leaky" in line for line in lines)
