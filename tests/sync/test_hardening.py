"""The catalogue has none of the faults that linters of Postgres look for; the database sets audit rows.

Each query of the catalogue returns faults, and is tested to find one that is made on purpose.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from gitstore.errors import ForbiddenError
from sync import audit, catalog, tokens
from sync.audit import Origin
from sync.db import Database, Transaction, token_claims, user_claims
from sync.migrate import migrate, shipped
from tests.sync.conftest import House

DUPLICATE_POLICIES: LiteralString = """
    select policy.polrelid::regclass::text, role.rolname, command
    from pg_policy policy
    join pg_class on pg_class.oid = policy.polrelid and relnamespace = 'gitstore'::regnamespace
    join pg_roles role on role.oid = any(policy.polroles) or policy.polroles = '{0}'
    cross join unnest(
        case when policy.polcmd = '*' then '{r,a,w,d}'::"char"[] else array[policy.polcmd] end) command
    where policy.polpermissive
    group by policy.polrelid, role.rolname, command having count(*) > 1
"""
UNINDEXED_FOREIGN_KEYS: LiteralString = """
    select conrelid::regclass::text, conname from pg_constraint
    where contype = 'f' and connamespace = 'gitstore'::regnamespace and not exists (
        select from pg_index
        where indrelid = conrelid and indisvalid and indpred is null
            and conkey = (string_to_array(indkey::text, ' ')::smallint[])[1:cardinality(conkey)])
"""
PUBLIC_DEFINERS: LiteralString = """
    select pg_proc.oid::regprocedure::text from pg_proc
    cross join lateral aclexplode(coalesce(proacl, acldefault('f', proowner))) acl
    where pronamespace = 'gitstore'::regnamespace and prosecdef
        and acl.grantee = 0 and acl.privilege_type = 'EXECUTE'
"""
# Rights to a whole table that permit `lock table` in a mode that blocks readers or writers.
LOCKERS: LiteralString = """
    select oid::regclass::text from pg_class
    where relnamespace = 'gitstore'::regnamespace and relkind in ('r', 'p', 'v')
        and (has_table_privilege('gitstore_user', oid, 'update, delete, truncate')
            or case when current_setting('server_version_num')::int >= 170000
                then has_table_privilege('gitstore_user', oid, 'maintain') else false end)
"""
FAULTS: dict[str, tuple[LiteralString, LiteralString]] = {
    "duplicate permissive policies": (
        DUPLICATE_POLICIES,
        "create policy everybody on gitstore.events for select using (false)",
    ),
    "foreign keys without an index": (UNINDEXED_FOREIGN_KEYS, "drop index gitstore.workflows_current"),
    "security-definer functions for everybody": (
        PUBLIC_DEFINERS,
        "create function gitstore.made() returns int language sql security definer as 'select 1'",
    ),
    "rights to lock a table": (LOCKERS, "grant delete on gitstore.sources to gitstore_user"),
}
BLOCKING = (
    "row share", "row exclusive", "share update exclusive", "share", "share row exclusive", "exclusive",
    "access exclusive",
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_catalogue_has_no_fault_of_the_kind(database: Database, fault: str) -> None:
    query, mistake = FAULTS[fault]
    with database.as_owner() as tx:
        assert tx.tuples(query) == []
        with tx.connection.transaction(force_rollback=True):
            tx.run(mistake)
            assert tx.tuples(query) != []


def test_history_is_read_in_the_order_of_an_index(house: House) -> None:
    """Even without statistics, where the index of a foreign key looks as good to the planner."""
    house.publish("order-sync")
    house.tamper("alter table gitstore.workflow_versions set (autovacuum_enabled = false)")
    for number in range(2, 40):
        house.copy_version("order-sync", number)
    with house.database.reading(house.claims) as tx:
        query = "explain " + catalog._HISTORY[None]
        plan = tx.tuples(query, workflow=house.workflow_id("order-sync"), before=40, limit=20)
    lines = [line for (line,) in plan]
    assert any("Scan Backward using workflow_versions_number_key" in line for line in lines), lines
    assert not any("Sort" in line for line in lines), lines


def test_a_request_locks_no_table_beyond_what_reading_takes(house: House) -> None:
    """Neither with the claims of an owner of the project nor without any."""
    with house.database.as_owner() as tx:
        query: LiteralString = (
            "select relname from pg_class where relnamespace = %(n)s::regnamespace and relkind = 'r'"
        )
        tables = [name for (name,) in tx.tuples(query, n="gitstore")]
    assert "sources" in tables
    for claims in (house.claims, {}):
        with house.database.as_user(claims) as tx:
            for table in tables:
                for mode in BLOCKING:
                    statement = sql.SQL(f"lock table gitstore.{{}} in {mode} mode nowait")
                    with pytest.raises(psycopg.errors.InsufficientPrivilege), tx.connection.transaction():
                        tx.connection.execute(statement.format(sql.Identifier(table)))


def follow(house: House) -> tuple[UUID, UUID]:
    """Insert a source with a receipt, and a subscription with three secrets, the oldest retired."""
    source, subscription = uuid4(), uuid4()
    house.tamper(
        "insert into gitstore.sources (id, project_id, url, forge, layout, direction, poll_seconds, "
        "has_credential, sealed_secret) "
        "values (%(id)s, %(project)s, 'https://a.example/', 'any', 'refs', 'pull', 300, false, 'x')",
        id=source,
        project=house.project,
    )
    house.tamper(
        "insert into gitstore.receipts values (%(id)s, %(project)s, 'd-1', 'push')",
        id=source,
        project=house.project,
    )
    house.tamper(
        "insert into gitstore.subscriptions (id, project_id, url, events) "
        "values (%(id)s, %(project)s, 'https://a.example/', '{x}')",
        id=subscription,
        project=house.project,
    )
    house.tamper(
        "insert into gitstore.subscription_secrets (id, subscription_id, project_id, sealed, created_at, "
        "retires_at) "
        "select gen_random_uuid(), %(id)s, %(project)s, n::text, now() + n * interval '1 second', "
        "case n when 1 then now() - interval '1 hour' end from generate_series(1, 3) n",
        id=subscription,
        project=house.project,
    )
    return source, subscription


def test_only_owners_delete_sources_and_secrets(make_house: Callable[..., House]) -> None:
    """Not other roles of the project, not other tenants; the operator may, who has no claims."""
    ours, theirs = make_house("ours"), make_house("theirs")
    source, subscription = follow(ours)
    publisher = token(ours, "publisher")
    for claims in (theirs.claims, token_claims(publisher), user_claims(uuid4()), {}):
        with ours.database.as_user(claims) as tx:
            assert deleted(tx, ours, source, subscription, 0) == (0, 0)
        for table in ("sources", "subscription_secrets"):
            statement = sql.SQL("delete from gitstore.{}").format(sql.Identifier(table))
            with pytest.raises(ForbiddenError), ours.database.as_user(claims) as tx:
                tx.connection.execute(statement)
    with ours.database.as_user(ours.claims) as tx:
        assert deleted(tx, theirs, source, subscription, 2) == (0, 1)
        assert deleted(tx, ours, source, subscription, 1) == (1, 1)
        assert deleted(tx, ours, source, subscription, 1) == (0, 0)
    with ours.database.as_owner() as tx:
        assert tx.value("select count(*) from gitstore.receipts") == 0
        assert tx.tuples("select sealed from gitstore.subscription_secrets") == [("3",)]
        assert deleted(tx, ours, source, subscription, 0) == (0, 1)


def test_only_owners_replace_the_secret_of_a_source(make_house: Callable[..., House]) -> None:
    """A function does it, which shows no secret: no request may read or set one by itself."""
    ours, theirs = make_house("ours"), make_house("theirs")
    source, _ = follow(ours)
    replace: LiteralString = "select gitstore.replace_source_secret(%(project)s, %(id)s, %(new)s, '1 hour')"
    columns: LiteralString = "select sealed_secret, sealed_previous_secret from gitstore.sources"
    for claims in (theirs.claims, token_claims(token(ours, "publisher")), token_claims(uuid4()), {}):
        with ours.database.as_user(claims) as tx:
            tx.value(replace, project=ours.project, id=source, new="stolen")
        for statement in (columns, "update gitstore.sources set sealed_secret = 'stolen'"):
            with pytest.raises(ForbiddenError), ours.database.as_user(claims) as tx:
                tx.run(statement)
    with ours.database.as_owner() as tx:
        assert tx.tuples(columns) == [("x", None)]
    with ours.database.as_user(ours.claims) as tx:
        tx.value(replace, project=ours.project, id=source, new="y")
    with ours.database.as_owner() as tx:
        assert tx.tuples(columns) == [("y", "x")]


def deleted(tx: Transaction, house: House, source: UUID, subscription: UUID, kept: int) -> tuple[int, int]:
    """Delete a source, and the secrets of a subscription but for `kept`; the numbers of deleted rows."""
    return (
        tx.value(
            "select gitstore.delete_source(%(project)s, %(source)s)", project=house.project, source=source
        ),
        tx.value("select gitstore.delete_secrets(%(id)s, %(kept)s)", id=subscription, kept=kept),
    )


def token(house: House, role: str, name: str = "ci") -> UUID:
    with house.database.as_owner() as tx:
        return tokens.create(tx, house.project, name, role, secrets.token_bytes(32)).id


def test_the_database_sets_the_time_and_the_actor_of_an_audit_row(house: House) -> None:
    """A token has its own name; a user the one that the service says, beside the proven id."""
    member = uuid4()
    house.tamper(
        "insert into gitstore.members values (%(project)s, %(user)s, 'viewer')",
        project=house.project,
        user=member,
    )
    viewer = token(house, "viewer")
    before = datetime.now(UTC)
    for claims, actor, name in (
        (token_claims(viewer), viewer, "ci"),
        (user_claims(member), member, "ada"),
    ):
        with house.database.as_user(claims) as tx:
            note(tx, house, actor)
        with house.database.as_owner() as tx:
            row = tx.tuples("select actor_id, actor_name from gitstore.audit_log order by at desc limit 1")
        assert row == [(str(actor), name)]
    with house.database.as_mirror() as tx:
        note(tx, house, "somebody", "worker", "workflow.version.published")
    with house.database.as_owner() as tx:
        tx.run(
            "insert into gitstore.audit_log (project_id, at, actor_id, actor_name, door, action, object) "
            "values (%(project)s, '2001-01-01Z', 'operator', 'operator', 'cli', 'x.done', 'x')",
            project=house.project,
        )
        rows = tx.tuples("select at, actor_name from gitstore.audit_log order by at")
    assert all(before - timedelta(seconds=1) < at <= datetime.now(UTC) for at, _ in rows)
    assert [name for _, name in rows[2:]] == ["ada", "operator"]


def note(tx: Transaction, house: House, actor: object, door: str = "http", action: str = "x.done") -> None:
    audit.note(tx, house.project, Origin(str(actor), "ada", door), action, "x")


def test_a_request_notes_neither_another_actor_nor_what_others_do(house: House) -> None:
    viewer = token(house, "viewer")
    forged: list[tuple[object, str, str]] = [
        (uuid4(), "http", "x.done"),
        ("operator", "http", "x.done"),
        (viewer, "worker", "x.done"),
        (viewer, "cli", "x.done"),
        (viewer, "http", "workflow.version.published"),
        (viewer, "http", "project.losses_accepted"),
    ]
    for actor, door, action in forged:
        with pytest.raises(ForbiddenError), house.database.as_user(token_claims(viewer)) as tx:
            note(tx, house, actor, door, action)
    for claims in (token_claims(token(house, "viewer")), {}):
        with pytest.raises(ForbiddenError), house.database.as_user(claims) as tx:
            note(tx, house, viewer)
    with house.database.as_owner() as tx:
        assert tx.value("select count(*) from gitstore.audit_log") == 0


@pytest.mark.parametrize("column", ["at", "id"])
def test_no_role_of_the_runtime_names_the_time_or_the_id_of_an_audit_row(house: House, column: str) -> None:
    statement = sql.SQL(
        "insert into gitstore.audit_log ({}, project_id, actor_id, actor_name, door, action, object) "
        "values (default, %s, %s, 'n', 'http', 'x.done', 'x')"
    ).format(sql.Identifier(column))
    values = (house.project, house.claims["gitstore_token"])
    for opened in (house.database.as_user(house.claims), house.database.as_mirror()):
        with pytest.raises(ForbiddenError), opened as tx:
            tx.connection.execute(statement, values)


def test_roles_of_a_host_that_could_read_before_the_migration_can_read_after_it(
    make_database: Callable[..., str], postgres_admin_conninfo: str
) -> None:
    """Each only what it was granted, of a whole table or of a column."""
    conninfo, name = make_database(), f"Host {uuid4().hex[:8]}"
    role = sql.Identifier(name)
    migrate(conninfo, [migration for migration in shipped() if migration.number <= 12])
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} nologin noinherit").format(role))
        admin.execute(sql.SQL("grant {} to gitstore").format(role))
    user, project = uuid4(), uuid4()
    with psycopg.connect(conninfo, autocommit=True) as owner:
        grants = (
            "grant usage on schema gitstore to {0}; grant select on gitstore.projects to {0}; "
            "grant select (user_id) on gitstore.members to {0}"
        )
        owner.execute(sql.SQL(grants).format(role))
        insert = (
            "insert into gitstore.projects (id, slug, name, owner, rules) values (%s, 'ours', '', %s, 'any')"
        )
        owner.execute(insert, (project, user))
        owner.execute("insert into gitstore.members values (%s, %s, 'viewer')", (project, user))
        migrate(conninfo)
        read = (
            "select (select count(*) from gitstore.projects), (select count(user_id) from gitstore.members)"
        )
        owner.execute(sql.SQL("set role {}").format(role))
        for subject, seen in ((user, (1, 1)), (uuid4(), (0, 0))):
            owner.execute(
                "select set_config('request.jwt.claims', %s, false)", (json.dumps(user_claims(subject)),)
            )
            assert owner.execute(read).fetchone() == seen
        for forbidden in ("select from gitstore.workflows", "select gitstore.delete_secrets(null, 0)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(forbidden)
        owner.execute(sql.SQL("reset role; drop owned by {}").format(role))
        assert owner.execute(DUPLICATE_POLICIES).fetchall() == []
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("drop role {}").format(role))
