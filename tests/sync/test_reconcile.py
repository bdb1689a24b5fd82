"""Reconciliation by markers and by full passes; one broken workflow does not stop the others."""

from __future__ import annotations

from pathlib import Path
from typing import LiteralString

import pytest

from gitstore.drafts import Content
from gitstore.errors import Code, GitstoreError
from sync.db import Database
from sync.reconcile import full_pass, reconcile
from sync.unit_of_work import MirrorUnitOfWork
from tests.helpers import object_file
from tests.sync.conftest import House


def behind(house: House, *slugs: str) -> None:
    """Create workflows in Git that have no rows."""
    left = house.unmirrored()
    for slug in slugs:
        left.create_workflow(slug, Content(value=house.definition()), house.who)
        left.publish(slug, house.who)


def test_without_markers_reconcile_does_nothing(house: House) -> None:
    behind(house, "a")
    assert reconcile(house.writes).facts == []
    assert house.rows("workflows") == []


def test_a_marker_is_enough(house: House) -> None:
    behind(house, "a", "b")
    house.writes.markers.put(["b"])
    assert {fact.slug for fact in reconcile(house.writes).facts} == {"b"}
    assert house.writes.markers.pending() == {}


def test_a_full_pass_finds_what_no_marker_names(house: House) -> None:
    house.publish("there")
    behind(house, "a", "b")
    steps: list[tuple[int, int]] = []
    report = full_pass(house.writes, lambda done, total: steps.append((done, total)))
    assert {fact.slug for fact in report.facts} == {"a", "b"}
    assert report.failures == {}
    assert steps == [(0, 2), (1, 2), (2, 2)]
    assert full_pass(house.writes).facts == []


def test_a_full_pass_finds_a_draft_that_moved(house: House) -> None:
    house.publish("a")
    left = house.unmirrored()
    left.create_draft("a", Content(value=house.definition("https://b.example/")), house.who)
    assert [fact.object for fact in full_pass(house.writes).facts] == ["drafts/a"]


def test_a_workflow_that_contradicts_itself_is_reported_and_the_rest_is_mirrored(house: House) -> None:
    house.publish("a")
    behind(house, "b")
    house.git("update-ref", "-d", "refs/tags/a/v1")
    house.git("update-ref", "-d", "refs/heads/drafts/a")
    house.writes.markers.put(["a", "b"])
    for run in (reconcile, full_pass):
        report = run(house.writes)
        assert {slug: error.code for slug, error in report.failures.items()} == {"a": Code.INTEGRITY}
    assert {row["slug"] for row in house.rows("workflows")} == {"a", "b"}
    assert list(house.writes.markers.pending()) == ["a"]


def test_rows_whose_refs_are_gone_are_reported_and_kept(house: House) -> None:
    house.publish("a")
    for ref in ("heads/drafts/a", "ledger/a", "tags/a/v1"):
        house.git("update-ref", "-d", f"refs/{ref}")
    assert "refs are missing" in str(full_pass(house.writes).failures["a"])
    assert len(house.rows("workflow_versions")) == 1


def test_refs_that_are_no_workflow_are_left_alone(house: House) -> None:
    house.publish("a")
    commit = house.store.state("a").draft
    assert commit is not None
    house.git("update-ref", "refs/heads/drafts/Not-A-Slug", commit)
    report = full_pass(house.writes)
    assert (report.facts, report.failures) == ([], {})


def test_without_postgres_reconcile_fails_and_leaves_the_markers(house: House, tmp_path: Path) -> None:
    away = Database(f"host={tmp_path} dbname=none")
    writes = MirrorUnitOfWork(away, house.store)
    writes.markers.put(["a", "b"])
    with pytest.raises(GitstoreError) as refused:
        reconcile(writes)
    away.close()
    assert refused.value.code is Code.UNAVAILABLE
    assert list(writes.markers.pending()) == ["a", "b"]


def test_the_next_write_and_a_reconcile_repair_the_current_version(house: House) -> None:
    """Where the owner of the database set it to null or to another version, or the hold; without an event."""
    house.publish("a")
    house.save("a", "https://b.example/", name="B")
    house.store.publish("a", house.who)
    house.store.move_current("a", 2, house.who, hold=True)
    house.save("a", "https://c.example/")
    before, events = house.mirrored(), len(house.rows("events"))
    null: LiteralString = "update gitstore.workflows set current_version_id = null"
    other: LiteralString = """
        update gitstore.workflows w set current_version_id = v.id, held = false, name = 'x'
        from gitstore.workflow_versions v where v.workflow_id = w.id and v.version_number = 1
    """
    for broken, repair in (
        (null, lambda: house.store.move_current("a", 2, house.who, hold=True)),
        (other, lambda: house.store.move_current("a", 2, house.who, hold=True)),
        (null, lambda: reconcile(house.writes)),
        (null, lambda: full_pass(house.writes)),
        (other, lambda: full_pass(house.writes)),
    ):
        house.tamper(broken)
        assert house.mirrored() != before
        repair()
        assert house.mirrored() == before
    house.tamper(other)
    house.save("a", "https://d.example/")
    assert house.rows("workflows")[0]["current_version_id"] == before[0][0]["current_version_id"]
    kinds = [row["type"] for row in house.rows("events")]
    assert (len(kinds), kinds.count("workflow.draft.updated")) == (events + 1, 4)


def test_a_reconcile_leaves_alone_what_has_no_current_version(house: House) -> None:
    """One that was cleared, one that was never activated, and one whose ledger is damaged."""
    for slug in ("cleared", "passive", "damaged"):
        house.publish(slug, activate=slug != "passive")
    house.store.clear_current("cleared", house.who)
    house.tamper("update gitstore.workflows set current_version_id = null where slug = 'damaged'")
    tip = house.git("rev-parse", "refs/ledger/damaged")
    object_file(house.store.path, tip).unlink()
    before = house.mirrored()
    report = reconcile(MirrorUnitOfWork(house.database, house.unmirrored()))
    assert (report.facts, list(report.failures)) == ([], ["damaged"])
    assert house.mirrored() == before
