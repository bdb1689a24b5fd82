"""Rows of releases follow the commits at refs/releases/<name>, and can be derived from them again."""

from __future__ import annotations

from contextlib import closing

import pytest

from gitstore import names, pending, releases
from gitstore.environments import EnvironmentRule
from gitstore.errors import GitstoreError, IntegrityError
from gitstore.pointers import change_rulebook
from gitstore.releases import Wanted
from gitstore.store import ANY
from sync import releases as rows
from sync.integrity.rebuild import rebuild
from sync.integrity.repair import repair
from sync.integrity.verify import verify
from sync.reconcile import full_pass
from tests.sync.conftest import House


@pytest.fixture
def released(house: House) -> House:
    """Release `first` published `b` and moved `a` from v2 to v1."""
    house.publish("a")
    house.publish("a", "https://two.example/")
    house.save("b")
    wanted = [Wanted("a", version=1), Wanted("b", draft=ANY)]
    releases.create(house.store, "first", wanted, house.who, message="Autumn")
    return house


def stored(house: House) -> tuple[object, ...]:
    with house.database.as_owner() as tx:
        return (
            tx.tuples("select * from gitstore.releases order by id"),
            tx.tuples("select * from gitstore.release_items order by workflow_id"),
        )


def findings(house: House) -> list[str]:
    return [f"{each.workflow}: {each.problem}" for each in verify(house.database, house.store)]


def test_a_release_has_its_rows_one_event_and_one_audit_row(released: House) -> None:
    with released.database.reading(released.claims) as tx:
        found = rows.find(tx, released.project, "first")
        assert found is not None
        release, items = found
        assert [(i.slug, i.version_number, i.published, i.before_number) for i in items] == [
            ("a", 1, False, 2), ("b", 1, True, None),
        ]  # fmt: skip
        assert (release.workflows, release.standing, release.released_by) == (2, 2, "Ada")
        assert [row.name for row in rows.page(tx, released.project, limit=5)] == ["first"]
        assert rows.find(tx, released.project, "second") is None
    with released.database.as_owner() as tx:
        ((data,),) = tx.tuples("select data from gitstore.events where type = 'release.created'")
        assert [item["previous"] for item in data["items"]] == [2, None]
        assert tx.value("select count(*) from gitstore.audit_log where action = 'release.created'") == 1
        of_workflows = "select data ->> 'release' from gitstore.events where type <> 'workflow.draft.updated'"
        assert [name for (name,) in tx.tuples(of_workflows)].count("first") == 4
    assert findings(released) == []


def test_a_release_into_an_environment_stands_by_its_pointers(released: House) -> None:
    change_rulebook(released.store, [EnvironmentRule("prod", "publisher")], released.who.actor, ANY)
    wanted = [Wanted("a", version=2), Wanted("b", version=1)]
    releases.create(released.store, "second", wanted, released.who, environment="prod")
    with released.database.reading(released.claims) as tx:
        found = rows.find(tx, released.project, "second")
    assert found is not None
    assert (found[0].standing, [item.now_number for item in found[1]]) == (2, [2, 1])
    releases.roll_back(released.store, "second", released.who)
    with released.database.reading(released.claims) as tx:
        found = rows.find(tx, released.project, "second")
    assert found is not None
    assert (found[0].standing, [item.now_number for item in found[1]]) == (0, [None, None])
    assert findings(released) == []


def test_a_rollback_leaves_the_release_as_it_is(released: House) -> None:
    before = stored(released)
    releases.roll_back(released.store, "first", released.who)
    assert stored(released) == before
    with released.database.reading(released.claims) as tx:
        found = rows.find(tx, released.project, "first")
    assert found is not None
    assert (found[0].standing, [item.now_number for item in found[1]]) == (0, [2, None])
    assert findings(released) == []


def test_rebuild_derives_the_same_rows_and_verify_finds_changed_ones(released: House) -> None:
    before = stored(released)
    released.tamper("update gitstore.releases set message = 'other'")
    assert findings(released) == ["release first: its rows differ from its commit"]
    rebuild(released.database, [released.store])
    assert stored(released) == before
    released.tamper("delete from gitstore.release_items")
    released.tamper("delete from gitstore.releases")
    assert findings(released) == ["release first: has no row"]
    full_pass(released.writes)
    assert stored(released) == before


def test_repair_restores_a_lost_release_with_its_objects(released: House) -> None:
    commit = released.git("rev-parse", "refs/releases/first")
    released.git("update-ref", "-d", "refs/releases/first")
    released.git("prune", "--expire=now")
    assert findings(released) == ["release first: has rows, but its ref is missing"]
    with pytest.raises(IntegrityError):
        rebuild(released.database, [released.store])
    with closing(released.unmirrored()):
        assert f"refs/releases/first: restored to {commit}" in list(repair(released.writes))
    assert findings(released) == []
    released.git("update-ref", "-d", "refs/releases/first")
    rebuild(released.database, [released.store], accept_git=True)
    assert stored(released) == ([], [])


def test_what_is_decided_and_not_complete_is_found_and_repaired(released: House) -> None:
    """As after a kill behind the commit point."""
    with closing(released.unmirrored()) as store:
        store.unit_of_work._complete = lambda: None  # type: ignore[attr-defined]
        releases.create(store, "second", [Wanted("a", version=2)], released.who)
    assert [line for line in findings(released) if "not complete" in line]
    assert list(repair(released.writes)) == ["a: its rows were behind Git, and were updated"]
    assert findings(released) == []
    assert released.store.state("a").current == 2
    assert len(stored(released)[0]) == 2  # type: ignore[arg-type]


def test_two_releases_of_one_name_do_not_both_happen(released: House) -> None:
    released.publish("c")
    releases.create(released.store, "r", [Wanted("b", version=1)], released.who)
    with pytest.raises(GitstoreError, match="exists already"):
        releases.create(released.store, "r", [Wanted("c", version=1)], released.who)
    assert released.store.refs.below(names.PENDING) == {}


def test_the_next_writer_completes_a_release_that_moves_nothing(released: House) -> None:
    """Also one of a workflow without a ref in the operation: what the release names is locked with it."""
    with closing(released.unmirrored()) as store:
        store.unit_of_work._complete = lambda: None  # type: ignore[attr-defined]
        releases.create(store, "second", [Wanted("a", version=1)], released.who)
    assert [operation.slugs for operation in pending.listed(released.store)] == [["a"]]
    released.store.describe("a", {"name": "After"}, released.who)
    assert released.store.refs.below(names.PENDING) == {}
    assert findings(released) == []
    assert len(stored(released)[0]) == 2  # type: ignore[arg-type]
