"""Tenants are isolated from each other: in every table, for every statement, in every role."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from gitstore import releases
from gitstore.errors import Code, ForbiddenError, GitstoreError
from gitstore.releases import Wanted
from sync import audit, catalog, tokens
from sync.audit import Origin
from sync.db import Claims, Database, SingleReading, Transaction, token_claims, user_claims
from tests.sync.conftest import House

COUNTS: dict[str, LiteralString] = {
    "projects": "select count(*) from gitstore.projects",
    "members": "select count(*) from gitstore.members",
    "access_tokens": "select count(id) from gitstore.access_tokens",
    "workflows": "select count(*) from gitstore.workflows",
    "workflow_versions": "select count(*) from gitstore.workflow_versions",
    "events": "select count(*) from gitstore.events",
    "audit_log": "select count(*) from gitstore.audit_log",
    "git_objects": "select count(*) from gitstore.git_objects",
    "releases": "select count(*) from gitstore.releases",
    "release_items": "select count(*) from gitstore.release_items",
}
READABLE = (
    "projects", "workflows", "workflow_versions", "events", "git_objects", "releases", "release_items"
)  # fmt: skip
OWNERS = ("members", "access_tokens", "audit_log")


@pytest.fixture
def ours(make_house: Callable[..., House]) -> House:
    house = make_house("ours")
    house.publish("order-sync")
    releases.create(house.store, "first", [Wanted("order-sync", version=1)], house.who)
    house.store.close()
    add_member(house, uuid4(), "viewer")
    return house


@pytest.fixture
def theirs(make_house: Callable[..., House]) -> House:
    house = make_house("theirs")
    house.publish("payroll")
    house.save("payroll", "https://secret.example/")
    releases.create(house.store, "first", [Wanted("payroll", version=1)], house.who)
    house.store.close()
    add_member(house, uuid4(), "viewer")
    return house


def add_member(house: House, user: UUID, role: str) -> Claims:
    house.tamper(
        "insert into gitstore.members (project_id, user_id, role) values (%(project)s, %(user)s, %(role)s)",
        project=house.project,
        user=user,
        role=role,
    )
    return user_claims(user)


def token(house: House, role: str, expires_at: datetime | None = None) -> UUID:
    with house.database.as_owner() as tx:
        return tokens.create(tx, house.project, role, role, secrets.token_bytes(32), expires_at).id


def counts(database: Database, claims: Claims) -> dict[str, int]:
    with database.reading(claims) as tx:
        return {table: tx.value(query) for table, query in COUNTS.items()}


def test_without_claims_no_row_is_visible(ours: House, theirs: House) -> None:
    for claims in ({}, user_claims(uuid4()), user_claims(ours.project), {"role": "service_role"}):
        assert set(counts(ours.database, claims).values()) == {0}


def test_an_owner_sees_their_own_project_only(ours: House, theirs: House) -> None:
    claims = ours.claims
    with ours.database.reading(claims) as tx:
        assert [project.slug for project in catalog.projects(tx)] == ["ours"]
        for table in (*READABLE[1:], "audit_log", "members", "access_tokens"):
            found = tx.tuples(f"select distinct project_id from gitstore.{table}")  # noqa: S608
            assert found == [(ours.project,)], table


@pytest.mark.parametrize("role", ["viewer", "editor", "publisher"])
def test_other_roles_see_workflows_but_not_tokens_and_log(ours: House, role: str) -> None:
    for claims in (token_claims(token(ours, role)), add_member(ours, uuid4(), role)):
        seen = counts(ours.database, claims)
        assert all(seen[table] > 0 for table in READABLE)
        assert seen["access_tokens"] == seen["audit_log"] == 0
        assert seen["members"] <= 1  # oneself


def test_the_projects_owner_needs_no_membership(ours: House) -> None:
    owner = uuid4()
    ours.tamper(
        "update gitstore.projects set owner = %(owner)s where id = %(id)s", owner=owner, id=ours.project
    )
    token(ours, "viewer")
    assert all(counts(ours.database, user_claims(owner)).values())


def test_a_revoked_or_expired_token_sees_nothing(ours: House) -> None:
    expired = token(ours, "owner", datetime.now(UTC) - timedelta(seconds=1))
    revoked = token(ours, "owner")
    with ours.database.as_user(ours.claims) as tx:
        assert tokens.revoke(tx, ours.project, revoked)
    for gone in (expired, revoked):
        assert set(counts(ours.database, token_claims(gone)).values()) == {0}


def test_search_finds_workflows_of_visible_projects_only(ours: House, theirs: House) -> None:
    """The function reads past row-level security, and follows the same rule: each principal, each project."""
    words: LiteralString = "select gitstore.matching_workflows(%(project)s, %(q)s, 10)"
    expired = token(ours, "viewer", datetime.now(UTC) - timedelta(seconds=1))
    members = [add_member(ours, uuid4(), "viewer"), add_member(theirs, uuid4(), "owner")]
    principals = [ours.claims, theirs.claims, *members, token_claims(expired), user_claims(uuid4()), {}]
    seen = []
    for claims in principals:
        with ours.database.reading(claims) as tx:
            for house, slug in ((ours, "order-sync"), (theirs, "payroll")):
                visible = tx.value("select id from gitstore.workflows where slug = %(slug)s", slug=slug)
                found = tx.value(words, project=house.project, q=slug)
                assert found == ([visible] if visible else [])
                assert tx.value(words, project=house.project, q="call") == found
                seen.append(bool(found))
    assert sum(seen) == 4
    with pytest.raises(ForbiddenError), ours.database.reading(ours.claims) as tx:
        tx.tuples("select words from gitstore.workflow_words")


def test_claims_do_not_leak_to_the_next_transaction_of_a_connection(
    conninfo: str, ours: House, theirs: House
) -> None:
    database = Database(conninfo, max_connections=1)
    for _ in range(8):  # past the point where statements are prepared
        assert counts(database, ours.claims)["workflows"] == 1
        assert counts(database, {})["workflows"] == 0
        assert counts(database, theirs.claims)["workflow_versions"] == 2
    database.close()


def test_another_tenants_workflow_is_not_found(ours: House, theirs: House) -> None:
    payroll = theirs.workflow_id("payroll")
    with ours.database.reading(ours.claims) as tx:
        assert catalog.project(tx, "theirs") is None
        assert catalog.project_by_id(tx, theirs.project) is None
        assert catalog.workflow(tx, payroll) is None
        assert catalog.workflow_by_slug(tx, theirs.project, "payroll") is None
        assert catalog.workflows(tx, theirs.project).rows == []
        assert catalog.history(tx, payroll).rows == []
        for which in (1, "draft", "current", "latest"):
            assert catalog.full_version(tx, payroll, which) is None
            assert catalog.full_version(SingleReading(ours.database, ours.claims), payroll, which) is None
        assert tokens.tokens(tx, theirs.project) == []


def refused(database: Database, claims: Claims, action: Callable[[Transaction], object]) -> bool:
    """Return whether `action` fails or changes nothing."""
    try:
        with database.as_user(claims) as tx:
            return not action(tx)
    except GitstoreError as error:
        assert error.code is Code.FORBIDDEN, error.__cause__
        return True


WRITES: list[LiteralString] = [
    "insert into gitstore.projects (id, slug, name, rules) values (%(new)s, 'new', 'new', 'any')",
    "update gitstore.projects set owner = %(new)s",
    "delete from gitstore.projects",
    "insert into gitstore.members values (%(project)s, %(new)s, 'owner')",
    "update gitstore.members set role = 'owner'",
    "delete from gitstore.members",
    "insert into gitstore.access_tokens (id, project_id, name, role, sha256) values "
    "(%(new)s, %(project)s, 'n', 'owner', sha256('x'))",
    "update gitstore.access_tokens set role = 'owner'",
    "update gitstore.access_tokens set sha256 = sha256('x')",
    "delete from gitstore.access_tokens",
    "insert into gitstore.workflows (id) select id from gitstore.workflows",
    "update gitstore.workflows set name = 'x'",
    "delete from gitstore.workflows",
    "insert into gitstore.workflow_versions (id) select id from gitstore.workflow_versions",
    "update gitstore.workflow_versions set message = 'x'",
    "delete from gitstore.workflow_versions where state = 'draft'",
    "insert into gitstore.events (id, project_id, workflow_id, type, created_at, data) values "
    "(%(new)s, %(project)s, %(new)s, 'x', now(), '{}')",
    "update gitstore.events set type = 'x'",
    "delete from gitstore.events",
    "insert into gitstore.releases select * from gitstore.releases",
    "update gitstore.releases set name = 'x'",
    "delete from gitstore.release_items",
    "update gitstore.audit_log set action = 'x'",
    "delete from gitstore.audit_log",
    "truncate gitstore.events",
    "truncate gitstore.workflow_versions cascade",
    "update gitstore.migrations set sha256 = 'x'",
    "create table gitstore.mine (id int)",
    "create function gitstore.mine() returns int language sql as 'select 1'",
    "select sha256 from gitstore.access_tokens",
    "select * from gitstore.access_tokens",
    "select name from gitstore.migrations",
]


def test_a_request_writes_only_tokens_and_the_log_even_as_owner(ours: House) -> None:
    for statement in WRITES:
        assert refused(
            ours.database,
            ours.claims,
            lambda tx, statement=statement: tx.run(statement, new=uuid4(), project=ours.project),  # type: ignore[misc]
        ), statement


def test_only_owners_create_and_revoke_tokens(ours: House, theirs: House) -> None:
    def make(tx: Transaction) -> object:
        return tokens.create(tx, ours.project, "n", "viewer", secrets.token_bytes(32))

    target = token(ours, "viewer")
    for claims in (theirs.claims, token_claims(token(ours, "publisher")), user_claims(target), {}):
        assert refused(ours.database, claims, make)
        assert refused(ours.database, claims, lambda tx: tokens.revoke(tx, ours.project, target))
    assert not refused(ours.database, ours.claims, make)
    assert not refused(ours.database, ours.claims, lambda tx: tokens.revoke(tx, ours.project, target))


def test_the_log_accepts_own_actions_in_the_own_project_only(ours: House, theirs: House) -> None:
    viewer = token(ours, "viewer")

    def note(project: UUID, actor: object) -> Callable[[Transaction], object]:
        origin = Origin(str(actor), "somebody", "http")

        def noted(tx: Transaction) -> bool:
            audit.note(tx, project, origin, "x.done", "x")
            return True

        return noted

    assert not refused(ours.database, token_claims(viewer), note(ours.project, viewer))
    assert refused(ours.database, token_claims(viewer), note(ours.project, uuid4()))
    assert refused(ours.database, token_claims(viewer), note(theirs.project, viewer))


def test_the_same_slug_in_two_projects_is_two_workflows(ours: House, theirs: House) -> None:
    ours.publish("payroll")
    with ours.database.reading(ours.claims) as tx:
        found = catalog.workflow_by_slug(tx, ours.project, "payroll")
    assert found is not None
    assert found.id != theirs.workflow_id("payroll")


def test_no_unique_key_reveals_rows_of_another_tenant(database: Database) -> None:
    """An insert reveals a conflict, so unique keys of tables that a request may insert into are checked."""
    query: LiteralString = """
        select i.indrelid::regclass::text, pg_get_indexdef(i.indexrelid) from pg_index i
        join pg_class c on c.oid = i.indrelid
        where i.indisunique and c.relnamespace = 'gitstore'::regnamespace
            and has_any_column_privilege('gitstore_user', c.oid, 'insert')
    """
    harmless = {
        "(id)",  # random
        "(id, project_id)",
        "(project_id, url)",
        "(project_id, workflow_id, actor_id, base_commit)",  # of the caller alone
        "(subscription_id, event_id)",  # the first is random, and of one project
        "(sha256)",  # of a secret
        # of one workflow
        "(workflow_id, COALESCE(environment, ''::text), at) WHERE "
        "(state = ANY (ARRAY['waiting'::text, 'running'::text]))",
    }
    with database.as_owner() as tx:
        found = [(table, index.partition(" USING btree ")[2]) for table, index in tx.tuples(query)]
    assert ("gitstore.access_tokens", "(sha256)") in found
    assert [key for key in found if key[1] not in harmless] == []


def test_the_mirror_can_neither_read_tokens_nor_delete_workflows_nor_change_rights(ours: House) -> None:
    statements: list[LiteralString] = [
        "select id from gitstore.access_tokens",
        "select * from gitstore.members",
        "select * from gitstore.audit_log",
        "delete from gitstore.workflows",
        "update gitstore.projects set name = 'x'",
        "update gitstore.events set type = 'x'",
        "select * from gitstore.authenticate('x')",
    ]
    for statement in statements:
        with pytest.raises(GitstoreError) as error, ours.database.as_mirror() as tx:
            tx.run(statement)
        assert error.value.code is Code.FORBIDDEN, statement


def test_another_role_with_select_reads_by_the_same_claims(
    ours: House, theirs: House, postgres_admin_conninfo: str, conninfo: str
) -> None:
    """Supabase's `authenticated`, which inherits nothing, after the statements in docs/operations.md."""
    name = f"authenticated_{uuid4().hex[:8]}"
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        admin.execute(f"create role {name} nologin noinherit")
        admin.execute(f"grant {name} to gitstore")
    section = (Path(__file__).parents[2] / "docs/operations.md").read_text().partition("```sql\n")[2]
    grants = section.partition("```")[0].replace("authenticated", name)
    with psycopg.connect(conninfo) as connection:
        connection.execute(f"{grants}; set role {name}".encode())
        connection.commit()
        read = "select count(*) from gitstore.workflows"
        assert connection.execute(read).fetchone() == (0,)
        # The id of a token is no user's, and a token's own claim counts for the service alone.
        for claims, seen in (
            (ours.claims, 0),
            (user_claims(ours.claims["gitstore_token"]), 0),
            (add_member(ours, uuid4(), "viewer"), 1),
        ):
            passed = json.dumps({**claims, "role": "authenticated"})
            connection.execute("select set_config('request.jwt.claims', %s, true)", (passed,))
            assert connection.execute(read).fetchone() == (seen,)
        assert connection.execute("select slug from gitstore.workflows").fetchall() == [("order-sync",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select * from gitstore.audit_log")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"drop owned by {name}")
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        admin.execute(f"drop role {name}")


def test_authentication_finds_valid_tokens_and_records_their_use_once_a_minute(ours: House) -> None:
    secret = secrets.token_bytes(32)
    with ours.database.as_owner() as tx:
        made = tokens.create(tx, ours.project, "ci", "publisher", secret)
    assert made.last_used_at is None

    def used() -> datetime | None:
        with ours.database.as_owner() as tx:
            return next(t.last_used_at for t in tokens.tokens(tx, ours.project) if t.id == made.id)

    def login(key: bytes) -> tokens.Holder | None:
        return tokens.authenticate(ours.database, key)

    with ours.database.as_owner() as tx:
        project = catalog.project_by_id(tx, ours.project)
    assert project is not None
    assert login(secret) == tokens.Holder(made.id, "ci", "publisher", project)
    first = used()
    assert first is not None
    login(secret)
    assert used() == first
    ours.tamper("update gitstore.access_tokens set last_used_at = now() - interval '2 minutes'")
    login(secret)
    assert used() > first - timedelta(seconds=1)  # type: ignore[operator]
    assert login(secrets.token_bytes(32)) is None
    with ours.database.as_user(ours.claims) as tx:
        tokens.revoke(tx, ours.project, made.id)
    assert login(secret) is None


def test_authentication_does_not_wait_for_a_session_that_holds_the_token(ours: House) -> None:
    secret = secrets.token_bytes(32)
    with ours.database.as_owner() as tx:
        made = tokens.create(tx, ours.project, "ci", "viewer", secret)
    with ours.database.as_owner() as holding:
        holding.run("select from gitstore.access_tokens where id = %(id)s for update", id=made.id)
        with closing(Database(ours.database.conninfo, lock_seconds=0.1)) as impatient:
            assert tokens.authenticate(impatient, secret) is not None
