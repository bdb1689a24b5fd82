"""Published rows, events and the audit log cannot be changed by SQL in any runtime role."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString
from uuid import uuid4

import pytest
from psycopg import sql

from gitstore.errors import Code, GitstoreError
from gitstore.model import Rules
from gitstore.names import workflow_id
from sync.catalog import create_project
from sync.db import Transaction
from sync.integrity import verify
from sync.rows import VersionRow, column_names, columns
from tests.sync.conftest import House


@pytest.fixture
def published(house: House) -> House:
    house.publish("order-sync")
    house.save("order-sync", "https://b.example/")
    return house


def test_no_column_of_a_published_row_changes_by_the_mirror(published: House) -> None:
    before = published.rows("workflow_versions")
    for column in column_names(VersionRow):
        statement = f"update gitstore.workflow_versions set {column} = default where state = 'published'"  # noqa: S608
        with pytest.raises(GitstoreError) as refused, published.database.as_mirror() as tx:
            tx.run(statement)
        assert refused.value.code is Code.INTEGRITY, column
    assert published.rows("workflow_versions") == before


STATEMENTS: list[LiteralString] = [
    "update gitstore.workflow_versions set message = message where state = 'published'",
    "delete from gitstore.workflow_versions where state = 'published'",
    "update gitstore.workflow_versions set state = 'lost' where state = 'published'",
    "truncate gitstore.workflow_versions cascade",
    "insert into gitstore.workflow_versions (" + columns(VersionRow) + ") select " + columns(VersionRow) + " "
    "from gitstore.workflow_versions on conflict (id) do update set message = 'x'",
    "update gitstore.events set data = '{}'",
    "delete from gitstore.events",
    "truncate gitstore.events cascade",
    "update gitstore.audit_log set actor_name = 'somebody else'",
    "delete from gitstore.audit_log",
    "truncate gitstore.audit_log",
    "alter table gitstore.workflow_versions disable trigger published_stays",
    "drop trigger published_stays on gitstore.workflow_versions",
    "create or replace function gitstore.refuse_change() returns trigger language sql as ''",
    "alter table gitstore.workflow_versions no force row level security",
    "set local session_replication_role = replica",
]
# No runtime role may delete or rename projects and workflows either.
BESIDE: list[LiteralString] = [
    "delete from gitstore.projects",
    "update gitstore.projects set id = gen_random_uuid()",
    "update gitstore.projects set created_at = now()",
    "truncate gitstore.projects cascade",
    "delete from gitstore.workflows",
    "truncate gitstore.workflows cascade",
    "drop schema gitstore cascade",
]
RUNTIME = ["gitstore_user", "gitstore_mirror", "gitstore_lookup"]
TABLES = ("projects", "workflows", "workflow_versions", "events", "audit_log")


@contextmanager
def acting_as(house: House, role: str) -> Iterator[Transaction]:
    """A transaction as a role of the runtime, with the claims of an owner of the project."""
    with house.database.as_owner() as tx:
        tx.run("select set_config('request.jwt.claims', %(claims)s, true)", claims=json.dumps(house.claims))
        tx.connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        yield tx


@pytest.mark.parametrize("role", RUNTIME)
def test_no_statement_of_a_runtime_role_changes_the_record(published: House, role: str) -> None:
    before = [published.rows(table) for table in TABLES]
    for statement in STATEMENTS + BESIDE:
        with pytest.raises(GitstoreError) as refused, acting_as(published, role) as tx:
            tx.run(statement)
        assert refused.value.code in (Code.INTEGRITY, Code.FORBIDDEN), statement
    assert [published.rows(table) for table in TABLES] == before


def test_no_mistake_of_the_owner_changes_the_record(published: House) -> None:
    before = [published.rows(table) for table in TABLES]
    for statement in STATEMENTS[:11]:
        with pytest.raises(GitstoreError) as refused, published.database.as_owner() as tx:
            tx.run(statement)
        assert refused.value.code in (Code.INTEGRITY, Code.FORBIDDEN), statement
    assert [published.rows(table) for table in TABLES] == before


def test_a_project_with_a_record_is_not_deleted_to_be_made_again(published: House) -> None:
    """Not by its owner, not past the triggers; its name is taken, and another project has other ids."""
    with pytest.raises(GitstoreError), published.database.as_owner() as tx:
        tx.run("delete from gitstore.projects")
    with pytest.raises(GitstoreError):
        published.tamper("delete from gitstore.projects")
    with pytest.raises(GitstoreError) as refused, published.database.as_owner() as tx:
        create_project(tx, uuid4(), "default", "Default", Rules.MESHHOOK)
    assert refused.value.code is Code.PROJECT_EXISTS
    assert workflow_id(uuid4(), "order-sync") != published.workflow_id("order-sync")
    assert list(verify.verify(published.database, published.store)) == []


def test_only_the_owner_can_use_the_upkeep_setting(published: House) -> None:
    statement: LiteralString = "update gitstore.workflow_versions set message = 'x' where state = 'published'"
    upkeep: LiteralString = "do $$ begin perform set_config('gitstore.upkeep', 'on', true); "
    with pytest.raises(GitstoreError) as refused, published.database.as_mirror() as tx:
        tx.run(upkeep + statement + "; end $$")
    assert refused.value.code is Code.INTEGRITY
    assert published.tamper(statement) == 1


def test_upkeep_does_not_permit_truncate(published: House) -> None:
    with pytest.raises(GitstoreError):
        published.tamper("truncate gitstore.workflow_versions cascade")


def test_a_draft_is_free_to_change_and_is_not_deleted(published: House) -> None:
    with published.database.as_mirror() as tx:
        assert tx.run("update gitstore.workflow_versions set message = 'x' where state = 'draft'") == 1
    with pytest.raises(GitstoreError) as refused, published.database.as_mirror() as tx:
        tx.run("delete from gitstore.workflow_versions where state = 'draft'")
    assert refused.value.code is Code.FORBIDDEN


def test_a_lost_version_changes_no_more_than_a_published_one(published: House) -> None:
    """Only upkeep marks a version as lost, and takes that back."""
    lose: LiteralString = "update gitstore.workflow_versions set state = 'lost' where state = 'published'"
    assert published.tamper(lose) == 1
    before = published.rows("workflow_versions")
    changes: list[LiteralString] = [
        "update gitstore.workflow_versions set state = 'published' where state = 'lost'",
        "update gitstore.workflow_versions set state = 'draft', published_at = null, published_by = null "
        "where state = 'lost'",
        "update gitstore.workflow_versions set definition = '{}' where state = 'lost'",
        "delete from gitstore.workflow_versions where state = 'lost'",
    ]
    for role in RUNTIME:
        for statement in changes:
            with pytest.raises(GitstoreError) as refused, acting_as(published, role) as tx:
                tx.run(statement)
            assert refused.value.code in (Code.INTEGRITY, Code.FORBIDDEN), statement
    with pytest.raises(GitstoreError), published.database.as_owner() as tx:
        tx.run(changes[0])
    assert published.rows("workflow_versions") == before
    assert published.tamper(changes[0]) == 1


def test_a_published_row_has_a_time_and_an_actor(published: House) -> None:
    with pytest.raises(GitstoreError), published.database.as_mirror() as tx:
        tx.run("update gitstore.workflow_versions set state = 'published' where state = 'draft'")


def test_a_workflow_has_one_draft(house: House) -> None:
    house.save("order-sync")
    with pytest.raises(GitstoreError):
        house.copy_version("order-sync", 99)


def test_a_version_belongs_to_the_project_of_its_workflow(published: House) -> None:
    with pytest.raises(GitstoreError), published.database.as_mirror() as tx:
        tx.run("update gitstore.workflow_versions set project_id = gen_random_uuid() where state = 'draft'")
