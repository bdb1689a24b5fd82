"""Rows of what changed about versions follow the ledgers, and can be derived from them again."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from gitstore import states
from gitstore.drafts import Content
from sync.integrity.rebuild import rebuild
from sync.integrity.verify import verify
from sync.reconcile import full_pass
from sync.states import StateRow
from tests.sync.conftest import House

A = "a"


def stored(house: House) -> list[tuple[Any, ...]]:
    with house.database.as_owner() as tx:
        return tx.tuples(
            "select version_number, yanked_by, yank_reason, title, notes, annotated_by "
            "from gitstore.version_states order by version_number"
        )


def whole(house: House) -> list[tuple[Any, ...]]:
    with house.database.as_owner() as tx:
        return tx.tuples("select * from gitstore.version_states order by version_number")


def findings(house: House) -> list[str]:
    return [str(each) for each in verify(house.database, house.store)]


@pytest.fixture
def described(house: House) -> House:
    """Three versions: a yanked one with a title, one whose yank was taken back, and one with notes."""
    for number in range(1, 4):
        house.publish(A, f"https://{number}.example/")
    states.annotate(house.store, A, 1, {"title": "Spring"}, house.who)
    states.yank(house.store, A, 1, house.who, reason="It loses orders")
    states.yank(house.store, A, 2, house.who, reason="A mistake")
    states.unyank(house.store, A, 2, house.who)
    states.annotate(house.store, A, 3, {"notes": "First"}, house.who)
    states.annotate(house.store, A, 3, {"notes": "Second"}, house.who)
    return house


EXPECTED = [
    (1, "Ada", "It loses orders", "Spring", None, "Ada"),
    (2, None, None, None, None, None),
    (3, None, None, None, "Second", "Ada"),
]


def test_rows_follow_the_ledger(described: House) -> None:
    assert stored(described) == EXPECTED
    assert findings(described) == []


def test_rows_behind_the_ledger_are_mirrored(house: House) -> None:
    """As after a kill, by a full pass: a yank and notes at once, of a version with a title."""
    house.publish(A)
    states.annotate(house.store, A, 1, {"title": "Spring"}, house.who)
    with closing(house.unmirrored()) as store:
        states.yank(store, A, 1, house.who, reason="It loses orders")
        states.annotate(store, A, 1, {"notes": "See the log"}, house.who)
    assert full_pass(house.writes).failures == {}
    assert stored(house) == [(1, "Ada", "It loses orders", "Spring", "See the log", "Ada")]


@pytest.mark.parametrize(
    "change",
    [
        "update gitstore.version_states set yank_reason = 'x' where version_number = 1",
        "update gitstore.version_states set title = 'x' where version_number = 2",
        "delete from gitstore.version_states where version_number <> 2",
        "update gitstore.version_states set version_number = 7 where version_number = 3",
    ],
)
def test_verify_finds_changed_rows_and_rebuild_derives_them_again(described: House, change: Any) -> None:
    """Also where the workflow was found in order before."""
    before = whole(described)
    assert findings(described) == []
    described.tamper(change)
    found = [str(each) for each in verify(described.database, described.store, full=False)]
    assert any("its yank, title or notes in the database differ from its ledger" in line for line in found)
    rebuild(described.database, [described.store])
    assert whole(described) == before
    assert findings(described) == []


def test_a_row_has_all_columns_of_the_table(house: House) -> None:
    with house.database.as_owner() as tx:
        columns = tx.tuples(
            "select column_name from information_schema.columns where table_name = 'version_states'"
        )
    assert {name for (name,) in columns} == set(StateRow.__dataclass_fields__)


@pytest.mark.parametrize("killed", [False, True], ids=["mirrored", "behind"])
def test_a_deleted_workflow_has_no_difference_and_its_slug_begins_again(house: House, killed: bool) -> None:
    """Also where its writer is killed before the rows follow; a rebuild derives the same rows."""
    house.save(A)
    if killed:
        with closing(house.unmirrored()) as store:
            states.delete(store, A, house.who)
        assert full_pass(house.writes).failures == {}
    else:
        states.delete(house.store, A, house.who)
    before = house.mirrored()
    assert findings(house) == []
    rebuild(house.database, [house.store])
    assert house.mirrored() == before
    assert [row["state"] for row in before[1]] == ["discarded"]
    house.store.create_workflow(A, Content(value=house.definition()), house.who)
    house.store.publish(A, house.who)
    assert (house.mirrored()[0][0]["archived"], findings(house)) == (False, [])
