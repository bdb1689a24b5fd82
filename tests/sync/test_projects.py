"""The life of a project in Postgres: its members, its rules, its archive and its deletion."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from uuid import UUID, uuid4

import pytest
from psycopg import ClientCursor, sql

from gitstore import schemas
from gitstore.drafts import Content
from gitstore.errors import Code, ConflictError, ForbiddenError, GitstoreError, NotFoundError
from gitstore.model import Rules
from gitstore.repository import SCHEMA_FILE, Repository
from sync import catalog, projects, reconcile
from sync.db import Claims, user_claims
from sync.integrity import rebuild
from sync.integrity.verify import verify
from sync.unit_of_work import MirrorUnitOfWork, exclusive
from tests.helpers import object_file
from tests.sync.conftest import WHO, House

ADA, BOB, CLEO, EVE = (UUID(int=number) for number in range(1, 5))


@pytest.fixture
def owned(house: House) -> House:
    """The project of Ada, who is its owner in its row."""
    house.tamper("update gitstore.projects set owner = %(ada)s", ada=ADA)
    return house


def roles(house: House) -> dict[UUID, str]:
    with house.database.as_owner() as tx:
        return {member.user_id: member.role for member in projects.members(tx, house.project)}


def named_owner(house: House) -> UUID | None:
    with house.database.as_owner() as tx:
        found = catalog.project_by_id(tx, house.project)
    assert found is not None
    return found.owner


def give(house: House, user: UUID, role: str, by: UUID = ADA) -> None:
    with house.database.as_user(user_claims(by)) as tx:
        projects.set_member(tx, house.project, user, role)


def take(house: House, user: UUID, by: UUID = ADA) -> None:
    with house.database.as_user(user_claims(by)) as tx:
        projects.remove_member(tx, house.project, user)


# Members


def test_owners_give_roles_and_take_them_away(owned: House) -> None:
    give(owned, BOB, "viewer")
    give(owned, CLEO, "owner")
    give(owned, BOB, "editor", by=CLEO)
    assert roles(owned) == {ADA: "owner", BOB: "editor", CLEO: "owner"}
    take(owned, BOB, by=CLEO)
    assert roles(owned) == {ADA: "owner", CLEO: "owner"}


def test_others_may_only_leave(owned: House) -> None:
    """Neither a member below owner, nor a stranger, nor nobody changes roles, their own included."""
    give(owned, BOB, "publisher")
    for user in (BOB, EVE):
        for change in (
            partial(give, owned, user, "owner", by=user),
            partial(give, owned, ADA, "viewer", by=user),
            partial(take, owned, ADA, by=user),
        ):
            with pytest.raises(ForbiddenError):
                change()
    claims: Claims = {}
    with pytest.raises(ForbiddenError), owned.database.as_user(claims) as tx:
        projects.transfer(tx, owned.project, EVE)
    assert roles(owned) == {ADA: "owner", BOB: "publisher"}
    take(owned, BOB, by=BOB)
    assert roles(owned) == {ADA: "owner"}


def test_the_last_owner_can_neither_be_removed_nor_lowered(owned: House) -> None:
    """Not by another owner of the database either; a project that no user owns has no last owner."""
    give(owned, BOB, "editor")
    for change in (partial(take, owned, ADA), partial(give, owned, ADA, "viewer")):
        with pytest.raises(ConflictError) as error:
            change()
        assert error.value.code is Code.LAST_OWNER
    with pytest.raises(ConflictError), owned.database.as_owner() as tx:
        projects.remove_member(tx, owned.project, ADA)
    assert roles(owned) == {ADA: "owner", BOB: "editor"}
    owned.tamper("update gitstore.projects set owner = null")
    with owned.database.as_owner() as tx:
        projects.set_member(tx, owned.project, BOB, "viewer")
        projects.remove_member(tx, owned.project, BOB)
    assert roles(owned) == {}


def test_of_two_owners_who_leave_at_once_one_stays(owned: House) -> None:
    """The second waits for the first, and is then the last."""
    give(owned, BOB, "owner")
    with ThreadPoolExecutor() as pool:
        with owned.database.as_user(user_claims(ADA)) as tx:
            projects.remove_member(tx, owned.project, ADA)
            leaving = pool.submit(take, owned, BOB, BOB)
            assert wait([leaving], 0.3).not_done
        assert isinstance(leaving.exception(), ConflictError)
    assert roles(owned) == {BOB: "owner"}


@pytest.mark.parametrize("lowered", [True, False])
def test_the_oldest_other_owner_follows_the_one_that_the_row_names(owned: House, lowered: bool) -> None:
    give(owned, CLEO, "owner")
    give(owned, BOB, "owner")
    owned.tamper(
        "update gitstore.members set created_at = now() - interval '1 day' where user_id = %(c)s", c=CLEO
    )
    if lowered:
        give(owned, ADA, "viewer", by=BOB)
    else:
        take(owned, ADA, by=BOB)
    assert named_owner(owned) == CLEO
    assert roles(owned) == {BOB: "owner", CLEO: "owner", **({ADA: "viewer"} if lowered else {})}


def test_a_transfer_keeps_the_owner_before_as_an_owner(owned: House) -> None:
    give(owned, BOB, "viewer")
    with owned.database.as_user(user_claims(ADA)) as tx:
        projects.transfer(tx, owned.project, BOB)
    assert named_owner(owned) == BOB
    assert roles(owned) == {ADA: "owner", BOB: "owner"}


def test_a_user_makes_as_many_projects_as_they_may(owned: House) -> None:
    """Each is their own; whoever asks without being a user makes none, and a taken slug is only taken."""

    def make(claims: Claims, slug: str, most: int = 2) -> bool:
        with owned.database.as_user(claims) as tx:
            return projects.create_own(tx, uuid4(), slug, slug, Rules.ANY, most)

    assert make(user_claims(ADA), "second")
    assert not make(user_claims(ADA), "third")
    assert make(user_claims(EVE), "third")
    for claims in ({}, owned.claims):
        assert not make(claims, "fourth")
    with pytest.raises(GitstoreError) as error:
        make(user_claims(EVE), "second")
    assert error.value.code is Code.PROJECT_EXISTS
    with owned.database.reading(user_claims(EVE)) as tx:
        assert [(row.slug, row.owner) for row in catalog.projects(tx)] == [("third", EVE)]


def test_owners_change_their_own_project_only(make_house: Callable[..., House]) -> None:
    ours, theirs = make_house("ours"), make_house("theirs")
    with ours.database.as_user(ours.claims) as tx:
        changed = projects.change(tx, ours.project, name="New", slug="renamed", archived=True)
        assert changed is not None
        assert (changed.name, changed.slug) == ("New", "renamed")
        assert projects.change(tx, theirs.project, name="Taken over") is None
    for slug in ("theirs", "default"):
        taken = slug == "theirs"
        try:
            with ours.database.as_user(ours.claims) as tx:
                projects.change(tx, ours.project, slug=slug)
        except GitstoreError as error:
            assert (taken, error.code) == (True, Code.PROJECT_EXISTS)


# Rules


def test_new_rules_judge_drafts_again_and_leave_versions(house: House) -> None:
    """`verify` finds no difference, and a rebuild changes nothing, whatever the rules were."""
    layout = {"ui": {"zoom": 2}, "nodes": [{"id": "a", "type": "webhook", "data": {"label": "A"}}]}
    house.publish("order-sync")
    house.save("loose", "", nodes=[{"id": "a"}])
    house.save("fine")
    before = {row["id"]: row for row in house.rows("workflow_versions")}

    def judged_by(rules: Rules) -> dict[str, bool]:
        with house.database.as_owner() as tx:
            changed = projects.change(tx, house.project, rules=rules)
        assert changed is not None
        path = house.store.path
        first = Rules(changed.first_rules)
        with closing(Repository(path, house.project, rules=rules, first_rules=first)) as repository:
            writes = MirrorUnitOfWork(house.database, repository)
            assert not reconcile.recheck_drafts(writes, seconds=-1)
            assert reconcile.recheck_drafts(writes)
            assert reconcile.recheck_drafts(writes, seconds=-1), "nothing is left to do"
            assert list(verify(house.database, repository)) == []
            rows = house.rows("workflow_versions")
            rebuild.rebuild(house.database, [repository])
            assert house.rows("workflow_versions") == rows
        return {row["commit_sha"]: row["valid"] for row in rows if row["state"] == "draft"}

    assert set(judged_by(Rules.ANY).values()) == {True}
    house.store.rules, house.store.first_rules = Rules.ANY, Rules.MESHHOOK
    house.store.create_workflow("free", Content(value=layout), WHO)
    house.store.publish("free", WHO)
    house.store.publish("loose", WHO)
    free = {row["id"]: row for row in house.rows("workflow_versions")}
    assert list(judged_by(Rules.MESHHOOK).values()) == [True]
    for row in house.rows("workflow_versions"):
        if row["state"] == "published":
            assert row == (before | free)[row["id"]]


def test_a_new_schema_judges_drafts_again_and_leaves_versions(house: House) -> None:
    """`verify` finds no difference, and a rebuild changes nothing, also if the schema before is lost."""
    with house.database.as_owner() as tx:
        projects.change(tx, house.project, rules=Rules.SCHEMA)
    house.store.rules = Rules.SCHEMA
    first = schemas.change(house.store, b'{"required": ["nodes"]}', WHO.actor, None)
    house.publish("order-sync")
    house.save("draft")
    second = schemas.change(house.store, b'{"required": ["steps"]}', WHO.actor, {first})
    with closing(Repository(house.store.path, house.project, rules=Rules.SCHEMA)) as repository:
        assert reconcile.recheck_drafts(MirrorUnitOfWork(house.database, repository))
        assert reconcile.recheck_drafts(MirrorUnitOfWork(house.database, repository), seconds=-1)
        assert list(verify(house.database, repository)) == []
        rows = house.rows("workflow_versions")
        assert {row["state"]: row["valid"] for row in rows} == {"published": True, "draft": False}
        blob = house.store.objects.tree(house.store.objects.commit(first.encode()).tree)[SCHEMA_FILE][
            1
        ].decode()
        object_file(house.store.path, blob).unlink()
        rebuild.rebuild(house.database, [repository])
        assert house.rows("workflow_versions") == rows
    with house.database.as_owner() as tx:
        assert tx.value("select checked_schema from gitstore.projects") == second


# Deletion


def everything(house: House) -> None:
    """Rows of the project in every table."""
    house.publish("order-sync")
    house.save("order-sync", "https://b.example/")
    give_all = """
        insert into gitstore.members values (%(project)s, %(user)s, 'viewer');
        insert into gitstore.sources (id, project_id, url, forge, layout, direction, poll_seconds,
            has_credential, sealed_secret)
        values (%(source)s, %(project)s, 'https://a.example/', 'any', 'refs', 'pull', 300, false, 'x');
        insert into gitstore.receipts values (%(source)s, %(project)s, 'd-1', 'push');
        insert into gitstore.upstream_refs values (%(source)s, %(project)s, 'r', 'o');
        insert into gitstore.divergences (source_id, project_id, ref, slug, code, reason)
        values (%(source)s, %(project)s, 'r', 's', 'c', 'r');
        insert into gitstore.subscriptions (id, project_id, url, events)
        values (%(source)s, %(project)s, 'https://a.example/', '{x}');
        insert into gitstore.subscription_secrets (id, subscription_id, project_id, sealed)
        values (%(source)s, %(source)s, %(project)s, 'x');
        insert into gitstore.deliveries (id, project_id, subscription_id, event_id, type)
        values (%(source)s, %(project)s, %(source)s, %(source)s, 'x');
        insert into gitstore.delivery_attempts (delivery_id, number, project_id, url, started_at, duration_ms)
        values (%(source)s, 1, %(project)s, 'u', now(), 1);
        insert into gitstore.environments
        select id, 'prod', project_id, 1, 100, null, false, now(), 'x', '', repeat('0', 40)
        from gitstore.workflows where project_id = %(project)s;
        insert into gitstore.version_states
        select id, 1, project_id, now(), 'x', 'x', null, null, null, null
        from gitstore.workflows where project_id = %(project)s;
        insert into gitstore.releases
        values (%(source)s, %(project)s, 'r', repeat('0', 40), 'current', '', 'x', now());
        insert into gitstore.release_items
        select %(source)s, id, project_id, 1, true, null, false from gitstore.workflows
        where project_id = %(project)s;
        insert into gitstore.checks values (%(project)s, 'verify', 'a', '', 1);
        insert into gitstore.check_runs values (%(project)s, 'verify');
        insert into gitstore.schedules (project_id, workflow_id, kind, at, draft_commit, message, actor_id,
            actor_name, actor_kind, due_at)
        select project_id, id, 'publish', now(), draft_commit, '', %(user)s, 'x', 'token', now()
        from gitstore.workflows where project_id = %(project)s;
        insert into gitstore.autosaves
            (project_id, workflow_id, actor_id, base_commit, on_draft, base_version, definition, message)
        select project_id, id, %(user)s, draft_commit, true, 1, 'x', '' from gitstore.workflows
        where project_id = %(project)s
    """
    assert house.claims
    values = {"project": str(house.project), "source": str(UUID(int=house.project.int ^ 1)), "user": str(EVE)}
    with house.database.upkeep() as tx:
        ClientCursor(tx.connection).execute(give_all, values)


def held(house: House) -> dict[str, int]:
    """The number of rows of the project in each table that names one."""
    columns = """
        select table_name from information_schema.columns
        join information_schema.tables using (table_schema, table_name)
        where table_schema = 'gitstore' and column_name = 'project_id' and table_type = 'BASE TABLE'
    """
    count = sql.SQL("select count(*) from gitstore.{} where {} = %s")
    with house.database.as_owner() as tx:
        named = [(table, "project_id") for (table,) in tx.tuples(columns)] + [("projects", "id")]
        counts = {}
        for table, column in named:
            query = count.format(sql.Identifier(table), sql.Identifier(column))
            found = tx.connection.execute(query, (house.project,)).fetchone()
            counts[table] = found[0] if found else 0
        return counts


def delete(house: House) -> None:
    with exclusive(house.database.upkeep, [house.store], 1) as tx:
        projects.delete(tx, house.project)


def archive(house: House) -> None:
    with house.database.as_owner() as tx:
        projects.change(tx, house.project, archived=True)


def test_deletion_leaves_no_row_of_the_project_and_all_of_others(make_house: Callable[..., House]) -> None:
    ours, theirs = make_house("ours"), make_house("theirs")
    everything(ours)
    everything(theirs)
    assert all(held(ours).values()), held(ours)
    others = held(theirs)
    with pytest.raises(ConflictError) as error:
        delete(ours)
    assert error.value.code is Code.PROJECT_NOT_ARCHIVED
    archive(ours)
    delete(ours)
    assert not any(held(ours).values()), held(ours)
    assert held(theirs) == others
    with ours.database.as_owner() as tx:
        queued: int = tx.value(
            "select count(*) from gitstore.event_queue q left join gitstore.events e on e.id = q.event_id "
            "where e.id is null"
        )
    assert queued == 0
    with pytest.raises(NotFoundError):
        delete(ours)


def test_every_table_that_names_a_project_is_in_the_deletion(house: House) -> None:
    statements = {
        match[1] for text in projects._DELETE if (match := re.match(r"delete from gitstore\.(\w+)", text))
    }
    assert set(held(house)) <= statements


def test_rows_that_a_host_refers_to_stop_the_deletion(house: House) -> None:
    """Nothing is deleted then."""
    house.publish("order-sync")
    house.tamper(
        "create table public.runs (version uuid references gitstore.workflow_versions (id)); "
        "insert into public.runs select id from gitstore.workflow_versions"
    )
    archive(house)
    before = held(house)
    with pytest.raises(ConflictError, match="rows of other tables refer to these"):
        delete(house)
    assert held(house) == before


def test_a_writer_that_was_late_finds_the_project_deleted(house: House) -> None:
    """It opened the repository before, and creates nothing in its place."""
    house.publish("order-sync")
    archive(house)
    delete(house)
    house.store.path.rename(house.store.path.with_suffix(".trash"))
    with pytest.raises(NotFoundError):
        house.store.create_workflow("late", None, WHO)
    assert not house.store.path.exists()
