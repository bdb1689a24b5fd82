"""Rows of a renamed workflow keep their ids, and can be derived again."""

from __future__ import annotations

from contextlib import closing

import pytest

from gitstore import names, releases
from gitstore.releases import Wanted
from gitstore.unit_of_work import FileUnitOfWork
from sync.integrity.rebuild import rebuild
from sync.integrity.repair import repair
from sync.integrity.verify import verify
from sync.reconcile import full_pass
from tests.sync.conftest import House


@pytest.fixture
def renamed(house: House) -> House:
    """`a` with v1, renamed to `b`, with v2 under that name and a draft; the release `r` is of before."""
    house.publish("a")
    releases.create(house.store, "r", [Wanted("a", version=1)], house.who)
    house.save("a", "https://two.example/")
    house.store.rename("a", "b", house.who, message="Marketing wants it")
    house.store.publish("b", house.who)
    house.save("b", "https://three.example/")
    return house


def findings(house: House) -> list[str]:
    return [str(each) for each in verify(house.database, house.store)]


def test_ids_stay_and_the_slug_follows(renamed: House) -> None:
    (workflow,), versions = renamed.mirrored()
    assert (workflow["id"], workflow["slug"]) == (renamed.workflow_id("a"), "b")
    assert sorted((row["version_number"], row["state"]) for row in versions) == [
        (1, "published"), (2, "published"), (3, "draft"),
    ]  # fmt: skip
    assert {row["workflow_id"] for row in versions} == {workflow["id"]}
    assert findings(renamed) == []
    with renamed.database.as_owner() as tx:
        ((data,),) = tx.tuples("select data from gitstore.events where type = 'workflow.renamed'")
        assert (data["workflow"], data["before"], data["message"]) == ("b", "a", "Marketing wants it")
        assert tx.value("select count(*) from gitstore.events where type = 'workflow.version.published'") == 2


def test_rebuild_and_a_full_pass_derive_the_same_rows(renamed: House) -> None:
    before = renamed.mirrored(), renamed.rows("releases")
    rebuild(renamed.database, [renamed.store])
    assert (renamed.mirrored(), renamed.rows("releases")) == before
    renamed.tamper("update gitstore.workflows set slug = 'a'")
    assert len(findings(renamed)) == 1
    rebuild(renamed.database, [renamed.store])
    assert (renamed.mirrored(), renamed.rows("releases")) == before
    assert full_pass(renamed.writes).failures == {}


def test_a_rename_that_was_killed_before_its_rows_is_completed(house: House) -> None:
    """By the next writer, by its new name; and by a full pass after the database was restored."""
    house.publish("a")
    with closing(house.unmirrored()) as store:
        assert isinstance(store.unit_of_work, FileUnitOfWork)
        store.unit_of_work._complete = lambda: None  # type: ignore[method-assign]
        store.rename("a", "b", house.who)
    assert house.store.refs.read(names.ledger("b")) is None
    assert full_pass(house.writes).failures == {}
    assert house.store.refs.read(names.ledger("a")) is None
    assert house.rows("workflows")[0]["slug"] == "b"
    house.publish("b", "https://two.example/")
    assert findings(house) == []
    with closing(house.unmirrored()) as store:
        store.rename("b", "c", house.who)
    assert full_pass(house.writes).failures == {}
    assert house.rows("workflows")[0]["slug"] == "c"
    assert findings(house) == []


def test_repair_restores_a_tag_under_its_name(renamed: House) -> None:
    renamed.git("update-ref", "-d", "refs/tags/a/v1")
    renamed.git("update-ref", "-d", "refs/heads/drafts/b")
    lines = list(repair(renamed.writes))
    assert any(line.startswith("refs/tags/a/v1: restored") for line in lines)
    assert findings(renamed) == []
