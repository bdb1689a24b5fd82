"""What is published does not change, and what happened is not unsaid, by SQL in any runtime role."""

from __future__ import annotations

from typing import Any, LiteralString

import pytest

from gitstore.errors import Code, GitstoreError

COLUMNS = [
    *("id", "workflow_id", "project_id", "version_number", "state", "created_at", "published_at"),
    *("commit_sha", "ref_oid", "tree_sha", "blob_sha", "file_name", "digest", "definition", "valid"),
    *("message", "author_name", "author_email", "published_by"),
]


@pytest.fixture
def published(house: Any) -> Any:
    house.publish("order-sync")
    house.save("order-sync", "https://b.example/")
    return house


def test_the_columns_tried_below_are_all_there_are(published: Any):
    assert list(published.rows("workflow_versions")[0]) == COLUMNS


def test_no_column_of_a_published_row_changes_by_the_mirror(published: Any):
    before = published.rows("workflow_versions")
    for column in COLUMNS:
        statement: Any = f"update gitstore.workflow_versions set {column} = default where state = 'published'"  # noqa: S608
        with pytest.raises(GitstoreError) as refused, published.database.as_mirror() as tx:
            tx.run(statement)
        assert refused.value.code is Code.INTEGRITY, column
    assert published.rows("workflow_versions") == before


STATEMENTS: list[LiteralString] = [
    "update gitstore.workflow_versions set message = message where state = 'published'",
    "delete from gitstore.workflow_versions where state = 'published'",
    "truncate gitstore.workflow_versions cascade",
    "insert into gitstore.workflow_versions select * from gitstore.workflow_versions "
    "on conflict (id) do update set message = 'x'",
    "update gitstore.events set data = '{}'",
    "delete from gitstore.events",
    "truncate gitstore.events cascade",
    "update gitstore.audit_log set actor_name = 'somebody else'",
    "delete from gitstore.audit_log",
    "truncate gitstore.audit_log",
]


@pytest.mark.parametrize("door", ["as_mirror", "as_owner"])
def test_no_statement_of_any_role_changes_the_record(published: Any, door: str):
    tables = ("workflow_versions", "events", "audit_log")
    before = [published.rows(table) for table in tables]
    for statement in STATEMENTS:
        with pytest.raises(GitstoreError) as refused, getattr(published.database, door)() as tx:
            tx.run(statement)
        assert refused.value.code in (Code.INTEGRITY, Code.FORBIDDEN), statement
    assert [published.rows(table) for table in tables] == before


def test_saying_upkeep_helps_nobody_but_the_owner(published: Any):
    statement: LiteralString = "delete from gitstore.workflow_versions where state = 'published'"
    upkeep: LiteralString = "do $$ begin perform set_config('gitstore.upkeep', 'on', true); "
    with pytest.raises(GitstoreError) as refused, published.database.as_mirror() as tx:
        tx.run(upkeep + statement + "; end $$")
    assert refused.value.code is Code.INTEGRITY
    published.tamper("update gitstore.workflows set current_version_id = null")
    assert published.tamper(statement) == 1


def test_not_even_upkeep_truncates(published: Any):
    with pytest.raises(GitstoreError):
        published.tamper("truncate gitstore.workflow_versions cascade")


def test_a_draft_is_free_to_change_and_to_go(published: Any):
    with published.database.as_mirror() as tx:
        assert tx.run("update gitstore.workflow_versions set message = 'x' where state = 'draft'") == 1
        assert tx.run("delete from gitstore.workflow_versions where state = 'draft'") == 1


def test_a_row_says_published_by_all_signs_or_none(published: Any):
    with pytest.raises(GitstoreError), published.database.as_mirror() as tx:
        tx.run("update gitstore.workflow_versions set state = 'published' where state = 'draft'")


def test_a_workflow_has_one_draft(published: Any):
    with pytest.raises(GitstoreError), published.database.as_mirror() as tx:
        tx.run("""
            insert into gitstore.workflow_versions
            select gen_random_uuid(), workflow_id, project_id, 99, state, created_at, published_at,
                commit_sha, ref_oid, tree_sha, blob_sha, file_name, digest, definition, valid, message,
                author_name, author_email, published_by
            from gitstore.workflow_versions where state = 'draft'
        """)


def test_a_version_belongs_to_the_project_of_its_workflow(published: Any):
    with pytest.raises(GitstoreError), published.database.as_mirror() as tx:
        tx.run("update gitstore.workflow_versions set project_id = gen_random_uuid() where state = 'draft'")
