"""Rows of the pointers in environments follow the ledgers, and can be derived from them again."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from gitstore import pointers
from gitstore.environments import EnvironmentRule
from gitstore.errors import Code, GitstoreError
from gitstore.model import Environment
from gitstore.store import ANY
from sync import environments as rows
from sync import levels
from sync.integrity.differences import Finding
from sync.integrity.rebuild import rebuild
from sync.integrity.verify import verify
from sync.reconcile import full_pass
from tests.sync.conftest import House

RULES = [EnvironmentRule("dev", "author", follows=True), EnvironmentRule("prod", "owner")]


@pytest.fixture
def staged(house: House) -> House:
    """`a` has v1 and v2, dev follows, and prod moved to v1, to both, and back to v1; `b` has none in prod."""
    pointers.change_rulebook(house.store, RULES, house.who.actor, {ANY})
    house.publish("a")
    house.publish("a", "https://two.example/")
    house.publish("b")
    for pointer in (Environment("prod", 1), Environment("prod", 2, 10, 1), Environment("prod", 1, held=True)):
        pointers.move(house.store, "a", pointer, house.who, message=f"to {pointer.versions}")
    return house


def stored(house: House) -> list[tuple[Any, ...]]:
    with house.database.as_owner() as tx:
        return tx.tuples("select * from gitstore.environments order by workflow_id, name")


def findings(house: House) -> list[str]:
    return list(map(_line, verify(house.database, house.store)))


def _line(finding: Finding) -> str:
    return f"{finding.workflow}: {finding.problem}"


def shown(house: House) -> list[tuple[str, str, Environment, str]]:
    with house.database.reading(house.claims) as tx:
        found = rows.of_workflows(tx, house.project, ["a", "b"])
    return [(row.slug, row.name, row.pointer, row.message) for row in found]


def test_rows_have_the_newest_move_of_each_pointer(staged: House) -> None:
    assert [(slug, pointer, message) for slug, _, pointer, message in shown(staged)] == [
        ("a", Environment("dev", 2), ""),
        ("a", Environment("prod", 1, held=True), "to (1,)"),
        ("b", Environment("dev", 1), ""),
    ]
    pointers.remove(staged.store, "a", "prod", staged.who)
    assert [(slug, name) for slug, name, _, _ in shown(staged)] == [("a", "dev"), ("b", "dev")]
    assert findings(staged) == []


def test_each_move_is_an_event_with_what_was_before(staged: House) -> None:
    pointers.remove(staged.store, "a", "prod", staged.who, message="end")
    with staged.database.as_owner() as tx:
        found = tx.tuples(
            "select data from gitstore.events where type = 'workflow.environment.changed' "
            "and data ->> 'environment' = 'prod' order by created_at"
        )
        audited = "select count(*) from gitstore.audit_log where action = 'workflow.environment.changed'"
        assert tx.value(audited) == 3 + 4
    recorded = [(data["version_number"], data["weights"], data["held"], data["message"]) for (data,) in found]
    assert recorded == [
        (1, None, False, "to (1,)"),
        (2, {"1": 90, "2": 10}, False, "to (2, 1)"),
        (1, None, True, "to (1,)"),
        (None, None, False, "end"),
    ]
    assert [data["previous"] and data["previous"]["version_number"] for (data,) in found] == [None, 1, 2, 1]


def test_rows_behind_the_ledger_are_mirrored_with_their_events(staged: House) -> None:
    """As after a kill, by a full pass: two moves at once, and a removal."""
    with closing(staged.unmirrored()) as store:
        pointers.move(store, "a", Environment("prod", 2), staged.who)
        pointers.move(store, "a", Environment("prod", 1), staged.who, message="last")
        pointers.remove(store, "b", "dev", staged.who)
    assert full_pass(staged.writes).failures == {}
    assert [row[1:] for row in shown(staged)][1] == ("prod", Environment("prod", 1), "last")
    assert [slug for slug, _, _, _ in shown(staged)] == ["a", "a"]
    assert findings(staged) == []


@pytest.mark.parametrize(
    "change",
    [
        "update gitstore.environments set version_number = 1 where name = 'dev'",
        "update gitstore.environments set moved_by = 'Eve' where name = 'prod'",
        "delete from gitstore.environments",
        "update gitstore.environments set name = 'qa' where name = 'prod'",
    ],
)
def test_rebuild_derives_the_same_rows_and_verify_finds_changed_ones(staged: House, change: Any) -> None:
    before = stored(staged)
    assert list(verify(staged.database, staged.store, full=False)) == []
    staged.tamper(change)
    found = list(verify(staged.database, staged.store, full=False))
    assert "a: its environments in the database differ from its ledger" in map(_line, found)
    assert found == list(verify(staged.database, staged.store))
    rebuild(staged.database, [staged.store])
    assert stored(staged) == before
    assert findings(staged) == []


def test_a_pointer_on_a_version_that_is_given_up_goes_with_it(staged: House) -> None:
    """`rebuild --accept-git` after the loss of a tag."""
    staged.git("update-ref", "-d", "refs/tags/a/v2")
    rebuild(staged.database, [staged.store], accept_git=True)
    assert [row.versions for row in staged.store.state("a").environments] == [(1,)]
    assert [(slug, name) for slug, name, _, _ in shown(staged)] == [("a", "prod"), ("b", "dev")]
    assert [line for line in findings(staged) if line.startswith("a: its environments")] == []


def test_environments_wait_for_the_end_of_an_upgrade(house: House) -> None:
    """Until then an older process could drop the pointers from the ledger."""
    house.tamper("update gitstore.feature_level set level = 1")
    with pytest.raises(GitstoreError) as refused:
        pointers.change_rulebook(house.store, RULES, house.who.actor, {ANY})
    assert refused.value.code is Code.UPGRADE_UNFINISHED
    with house.database.as_owner() as tx:
        levels.raise_level(tx)
    pointers.change_rulebook(house.store, RULES, house.who.actor, {ANY})
