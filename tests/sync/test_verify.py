"""Verify reports each difference with advice, and nothing for a sound project."""

from __future__ import annotations

from typing import LiteralString

import pytest

from gitstore.drafts import Content
from gitstore.model import Rules
from sync.integrity import verify
from sync.integrity.differences import ACCEPT, REBUILD, RECONCILE, RESTORE, Finding
from sync.integrity.rebuild import rebuild
from tests.helpers import object_file
from tests.sync.conftest import House


@pytest.fixture
def shop(house: House) -> House:
    for number in range(1, 4):
        house.publish("order-sync", f"https://v{number}.example/")
    house.save("order-sync", "https://draft.example/")
    house.publish("invoices")
    return house


def findings(house: House) -> list[Finding]:
    return list(verify.verify(house.database, house.store))


def reported(house: House) -> list[tuple[str, int | None, str]]:
    return [(finding.workflow, finding.version, finding.advice) for finding in findings(house)]


def test_a_sound_project_has_no_difference(shop: House) -> None:
    shop.store.move_current("order-sync", 1, shop.who, hold=True)
    shop.save("new-one")
    steps: list[tuple[int, int]] = []
    assert list(verify.verify(shop.database, shop.store, lambda *step: steps.append(step))) == []
    assert steps == [(0, 3), (3, 3)]


@pytest.mark.parametrize("raw", [b"a: 1\n---\nb: 2\n", b"- 1.0\n- 1e3\n", b"- 123456789012345678901\n"])
def test_definitions_of_other_engines_have_no_difference(house: House, raw: bytes) -> None:
    """Several documents, which have no form in JSON, and numbers as they are written."""
    house.store.rules = Rules.ANY
    house.store.create_workflow("other", Content(raw=raw), house.who)
    house.store.publish("other", house.who)
    assert findings(house) == []
    house.tamper("update gitstore.workflow_versions set definition_text = '[9]', definition = '[9]'")
    assert findings(house) != []
    rebuild(house.database, [house.store])
    assert findings(house) == []


def test_batches_make_no_difference(shop: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "BATCH", 2)
    assert findings(shop) == []


VERSION_EDITS: dict[str, LiteralString] = {
    "message": "'other'",
    "definition": "definition || '{\"x\": 1}'",
    "digest": "'sha256:0'",
    "valid": "false",
    "commit_sha": "repeat('0', 40)",
    "tree_sha": "repeat('0', 40)",
    "blob_sha": "repeat('0', 40)",
    "file_name": "'workflow.json'",
    "created_at": "created_at + interval '1 second'",
    "published_at": "published_at - interval '1 second'",
    "published_by": "'Eve'",
    "author_name": "'Eve'",
    "author_email": "'eve@example.com'",
}


def test_each_column_edited_by_hand_is_found(shop: House) -> None:
    for column, value in VERSION_EDITS.items():
        condition = "version_number = 2 and state = 'published'"
        edit = f"update gitstore.workflow_versions set {column} = {value} where {condition}"  # noqa: S608
        assert shop.tamper(edit) == 1
        (finding,) = findings(shop)
        assert (finding.workflow, finding.version, finding.advice) == ("order-sync", 2, REBUILD)
        assert column in finding.problem, finding
        rebuild(shop.database, [shop.store])
    assert findings(shop) == []


WORKFLOW_EDITS: list[LiteralString] = [
    "name = 'x'",
    "description = 'x'",
    "held = not held",
    "current_version_id = null",
    "latest_number = 2",
    "created_at = now()",
    "updated_at = now()",
    "given_name = 'x'",
]


def test_each_column_of_a_workflow_edited_by_hand_is_found(shop: House) -> None:
    for edit in WORKFLOW_EDITS:
        statement = f"update gitstore.workflows set {edit} where slug = 'invoices'"  # noqa: S608
        shop.tamper(statement)
        assert [finding.advice for finding in findings(shop)] == [REBUILD], edit
        rebuild(shop.database, [shop.store])
    assert findings(shop) == []


def test_a_missing_row_is_found(shop: House) -> None:
    shop.tamper("delete from gitstore.workflow_versions where version_number = 2")
    assert reported(shop) == [("order-sync", 2, RECONCILE)]


def test_a_draft_row_without_a_draft_is_found(shop: House) -> None:
    shop.copy_version("invoices", 9, state="'draft'", published_at="null", published_by="null")
    assert reported(shop) == [("invoices", 9, REBUILD)]


def test_a_published_row_without_a_version_needs_a_decision(shop: House) -> None:
    shop.copy_version("invoices", 9)
    assert reported(shop) == [("invoices", 9, ACCEPT)]


def test_a_workflow_that_was_not_mirrored_yet_is_found(shop: House) -> None:
    left = shop.unmirrored()
    left.create_workflow("late", Content(value=shop.definition()), shop.who)
    left.create_draft("invoices", Content(value=shop.definition("https://b.example/")), shop.who)
    assert ("late", None, RECONCILE) in reported(shop)
    assert ("invoices", None, RECONCILE) in reported(shop)


@pytest.mark.parametrize("version", [2, 3])
def test_a_moved_tag_is_found_by_the_ledger_and_by_the_row(shop: House, version: int) -> None:
    tags = shop.store.version_tags("order-sync")
    shop.git("update-ref", f"refs/tags/order-sync/v{version}", tags[1])
    found = [finding for finding in findings(shop) if finding.version == version]
    assert [finding.advice for finding in found] == [ACCEPT] * 2
    assert all(tags[version] in finding.problem and tags[1] in finding.problem for finding in found)


@pytest.mark.parametrize("version", [2, 3])
def test_a_missing_tag_is_found(shop: House, version: int) -> None:
    shop.git("update-ref", "-d", f"refs/tags/order-sync/v{version}")
    found = findings(shop)
    assert {finding.version for finding in found} == {version}
    assert any("it has no tag" in finding.problem for finding in found)


def test_a_missing_tag_is_found_by_the_ledger_alone(shop: House) -> None:
    shop.git("update-ref", "-d", "refs/tags/order-sync/v2")
    shop.tamper("update gitstore.workflows set current_version_id = null")
    shop.tamper("delete from gitstore.workflow_versions")
    assert any("the ledger records its publication" in finding.problem for finding in findings(shop))


def test_a_tag_without_a_ledger_entry_is_found(shop: House) -> None:
    shop.git("update-ref", "refs/tags/invoices/v2", shop.store.version_tags("invoices")[1])
    assert [(f.version, f.advice) for f in findings(shop)] == [(2, ACCEPT)]


def test_a_rewritten_ledger_is_found(shop: House) -> None:
    shop.store.move_current("order-sync", 1, shop.who)
    shop.git("update-ref", "refs/ledger/order-sync", "refs/ledger/order-sync^")
    assert reported(shop) == [("order-sync", None, ACCEPT)]


def test_a_publication_killed_before_its_tag_is_no_difference(shop: House) -> None:
    head = shop.store.state("order-sync").draft
    assert head is not None
    shop.record("order-sync", 4, head, tag=False)
    assert findings(shop) == []
    shop.store.publish("order-sync", shop.who)
    assert findings(shop) == []


def test_a_missing_object_is_found_and_named(shop: House) -> None:
    blob = next(row for row in shop.rows("workflow_versions") if row["version_number"] == 2)["blob_sha"]
    object_file(shop.store.path, blob).unlink()
    fresh = shop.unmirrored()
    (finding,) = verify.verify(shop.database, fresh)
    assert (finding.workflow, finding.version, finding.advice) == ("order-sync", 2, RESTORE)
    assert blob in finding.problem


def test_a_damaged_ref_file_is_found(shop: House) -> None:
    (shop.store.path / "refs" / "ledger" / "invoices").write_bytes(b"")
    assert ("invoices", None, RESTORE) in reported(shop)


def test_a_finding_is_a_sentence_and_advice() -> None:
    finding = Finding("order-sync", 3, "has no row", REBUILD)
    assert (
        str(finding) == "order-sync/v3: has no row. Run gitstore rebuild, which recreates the rows from Git"
    )
