"""Objects of publications in Postgres: complete, immutable, and sufficient to restore lost versions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, LiteralString

import pytest

from gitstore import ledger
from gitstore.drafts import Content
from gitstore.errors import Code, GitstoreError
from gitstore.model import Rules
from gitstore.store import Store
from sync import git_objects
from sync.integrity import verify
from sync.integrity.rebuild import rebuild
from sync.integrity.repair import repair, start_above
from tests.helpers import object_file
from tests.sync.conftest import House
from tests.sync.test_immutability import RUNTIME, acting_as
from tests.sync.test_marks import put_back, states

REWRITES: list[LiteralString] = [
    "update gitstore.git_objects set bytes = 'x'",
    "update gitstore.git_objects set bytes = null",
    "delete from gitstore.git_objects",
    "truncate gitstore.git_objects",
]


@pytest.fixture
def tmp_path(ram_path: Path) -> Path:
    return ram_path


@pytest.fixture
def shop(house: House) -> House:
    """Six versions by several saves each, with a held current; another workflow; no draft is open."""
    for number in range(1, 7):
        house.save("order-sync", f"https://v{number}.example/a")
        house.publish("order-sync", f"https://v{number}.example/", message=f"No. {number}")
    house.store.move_current("order-sync", 2, house.who, hold=True)
    house.publish("invoices")
    return house


def kept(house: House) -> dict[str, Any]:
    with house.database.as_owner() as tx:
        return dict(tx.tuples("select oid, bytes from gitstore.git_objects"))


def by_git(house: House, *tips: str) -> set[str]:
    """Every object that `tips` need, as git lists them, but for the empty tree."""
    listed = {line.split()[0] for line in house.git("rev-list", "--objects", *tips).splitlines()}
    return listed - {ledger.EMPTY_TREE.id.decode()}


def refs(house: House) -> dict[str, str]:
    lines = house.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return dict(tuple(line.split()) for line in lines if not line.startswith("refs/superseded/"))  # type: ignore[misc]


def all_tips(house: House) -> list[str]:
    return [ref for ref in refs(house) if ref.startswith(("refs/tags/", "refs/ledger/"))]


def empty(house: House) -> None:
    """The repository's folder is gone, and an empty one is in its place."""
    house.store.objects.close()
    shutil.rmtree(house.store.path)
    Store.init(house.store.path)


def findings(house: House) -> list[str]:
    return [str(finding) for finding in verify.verify(house.database, house.unmirrored())]


def unrecoverable(house: House) -> list[str]:
    """The versions that could not be restored from the database alone."""
    notes = verify.Notes()
    list(verify.verify(house.database, house.store, notes=notes))
    return notes.unrecoverable


def test_each_publication_stores_all_that_it_needs(shop: House) -> None:
    assert set(kept(shop)) >= by_git(shop, *all_tips(shop))
    assert unrecoverable(shop) == []


def test_objects_of_drafts_are_not_stored(shop: House) -> None:
    before = kept(shop)
    shop.save("invoices", "https://draft.example/")
    assert kept(shop) == before


def test_objects_of_versions_that_are_mirrored_later_are_stored(house: House) -> None:
    left = house.unmirrored()
    left.create_workflow("order-sync", Content(value=house.definition()), house.who)
    left.publish("order-sync", house.who)
    left.create_draft("order-sync", Content(value=house.definition("https://b.example/")), house.who)
    left.publish("order-sync", house.who)
    assert kept(house) == {}
    house.writes.mirror_now(["order-sync"])
    assert set(kept(house)) >= by_git(house, *all_tips(house))


def test_a_definition_of_the_largest_accepted_size_can_be_restored(house: House) -> None:
    """Under other rules than MeshHook's, it has up to 4 MiB."""
    house.store.rules, house.store.limits = Rules.ANY, house.store.limits.under(Rules.ANY)
    most = house.store.limits.definition
    raw = b"a: " + b"x" * (most - 4) + b"\n"
    house.store.create_workflow("order-sync", Content(raw=raw), house.who)
    house.store.publish("order-sync", house.who)
    assert len(raw) == most > 2**20
    assert unrecoverable(house) == []


def test_an_object_that_is_too_large_is_recorded_without_its_bytes(house: House) -> None:
    house.store.create_workflow("order-sync", Content(value=house.definition()), house.who)
    (house.store.path / "large").write_bytes(b"x" * (git_objects.LARGEST + 1))
    blob = house.git("hash-object", "-w", "large")
    head = house.git("rev-parse", "refs/heads/drafts/order-sync")
    tree = house.git("ls-tree", head) + f"\n100644 blob {blob}\tlarge.bin\n"
    made = house.git(
        *("-c", "user.name=Ann", "-c", "user.email=ann@a.example", "commit-tree", "-p", head, "-m", "Large"),
        house.git("mktree", given=tree),
    )
    house.git("update-ref", "refs/heads/drafts/order-sync", made)
    house.store.publish("order-sync", house.who)
    assert kept(house)[blob] is None
    (line,) = unrecoverable(house)
    assert line == f"order-sync/v1: object {blob} was too large to be kept"
    assert findings(house) == [], "which is no difference"


@pytest.mark.parametrize("role", RUNTIME)
def test_no_statement_of_a_runtime_role_changes_an_object(shop: House, role: str) -> None:
    before = kept(shop)
    for statement in REWRITES:
        with pytest.raises(GitstoreError) as refused, acting_as(shop, role) as tx:
            tx.run(statement)
        assert refused.value.code in (Code.INTEGRITY, Code.FORBIDDEN), statement
    assert kept(shop) == before


def test_bytes_that_were_edited_are_found_never_used_and_replaced(shop: House) -> None:
    oid = refs(shop)["refs/tags/order-sync/v2"]
    assert shop.tamper("update gitstore.git_objects set bytes = bytes || 'x' where oid = %(oid)s", oid=oid)
    with shop.database.as_owner() as tx:
        assert git_objects.load(tx, shop.project, [oid.encode()]) == {}
    (found,) = findings(shop)
    assert oid in found
    assert "gitstore repair" in found
    assert any(line.startswith("order-sync/v2: ") for line in unrecoverable(shop))
    (line,) = repair(shop.writes)
    assert oid in line
    assert findings(shop) == []
    assert unrecoverable(shop) == []


@pytest.mark.parametrize("number", [0, 1, 3, 5])
def test_versions_that_the_repository_lost_come_back_under_the_same_ids(shop: House, number: int) -> None:
    """An older repository, or an empty one, under a newer database."""
    before, rows = refs(shop), shop.mirrored()
    if number:
        put_back(shop, "order-sync", number)
        shop.git("reflog", "expire", "--all", "--expire=now")
        shop.git("prune", "--expire=now")
        shop.store.objects.close()
    else:
        empty(shop)
    assert any("gitstore repair" in line for line in findings(shop))
    assert [line for line in list(repair(shop.writes)) if "restored from the database" in line]
    assert refs(shop) == before
    assert shop.mirrored() == rows
    assert findings(shop) == []
    shop.git("fsck", "--strict", "--no-dangling")
    assert list(repair(shop.writes)) == []
    assert shop.publish("order-sync", "https://next.example/") == 7
    assert len([r for r in shop.rows("events") if r["type"] == "workflow.version.published"]) == 8, "no twins"


def test_a_missing_object_of_a_version_is_restored(shop: House) -> None:
    blob = shop.git("rev-parse", "order-sync/v2:workflow.yaml")
    object_file(shop.store.path, blob).unlink()
    shop.store.objects.close()
    assert any(blob in line for line in findings(shop))
    (line,) = repair(shop.writes)
    assert line == "refs/tags/order-sync/v2: 1 object restored from the database"
    assert findings(shop) == []


@pytest.mark.parametrize("published", [False, True], ids=["at once", "after the next version"])
def test_a_lost_version_is_published_again_unchanged(shop: House, published: bool) -> None:
    put_back(shop, "order-sync", 3)
    shop.git("prune", "--expire=now")
    shop.store.objects.close()
    before = {row["id"]: row for row in shop.rows("workflow_versions")}
    tags = {name: oid for name, oid in refs(shop).items() if name.startswith("refs/tags/")}
    rebuild(shop.database, [shop.unmirrored()], accept_git=True)
    assert [number for number, state in states(shop, "order-sync").items() if state == "lost"] == [4, 5, 6]
    if published:
        assert shop.publish("order-sync", "https://v7.example/") == 7
    events = shop.rows("events")
    lines = list(repair(shop.writes))
    assert [line for line in lines if "published again" in line]
    assert findings(shop) == []
    after = {row["id"]: row for row in shop.rows("workflow_versions")}
    assert {identity: after[identity] for identity in before} == before
    assert {name: oid for name, oid in refs(shop).items() if name in tags} == tags
    assert shop.rows("events") == events
    assert list(repair(shop.writes)) == []
    assert shop.publish("order-sync", "https://next.example/") == 7 + published
    rebuild(shop.database, [shop.unmirrored()])
    assert findings(shop) == []
    assert unrecoverable(shop) == []


def test_a_lost_workflow_is_published_again(shop: House) -> None:
    shop.store.create_workflow(
        "named", Content(value=shop.definition()), shop.who, name="Given", description="Said"
    )
    shop.store.publish("named", shop.who)
    before = {row["id"]: row for row in shop.rows("workflow_versions")}
    empty(shop)
    rebuild(shop.database, [shop.unmirrored()], accept_git=True)
    list(repair(shop.writes))
    assert {row["id"]: row for row in shop.rows("workflow_versions")} == before
    names = {row["slug"]: (row["name"], row["description"]) for row in shop.rows("workflows")}
    assert names["named"] == ("Given", "Said")
    assert findings(shop) == []


def test_a_version_without_its_objects_stays_lost_and_is_reported(shop: House) -> None:
    oid = refs(shop)["refs/tags/order-sync/v5"]
    put_back(shop, "order-sync", 3)
    shop.git("repack", "-a", "-d", "-q")
    shop.git("prune", "--expire=now")
    shop.store.objects.close()
    shop.tamper("delete from gitstore.git_objects where oid = %(oid)s", oid=oid)
    lines = list(repair(shop.writes))
    why = f"object {oid} is missing in Git, and not kept in the database"
    assert f"refs/tags/order-sync/v5: not restored: {why}" in lines
    assert any("refs/tags/order-sync/v6: restored" in line for line in lines)
    assert {line.partition(":")[0] for line in findings(shop)} == {"order-sync/v5"}
    rebuild(shop.database, [shop.unmirrored()], accept_git=True)
    assert states(shop, "order-sync")[5] == "lost"
    assert findings(shop) == []
    assert list(repair(shop.writes)) == [f"refs/tags/order-sync/v5: still lost: {why}"]
    assert shop.publish("order-sync", "https://next.example/") == 7


def test_repair_stores_what_an_older_gitstore_did_not(shop: House) -> None:
    shop.tamper("delete from gitstore.git_objects")
    assert len(unrecoverable(shop)) == 7
    assert sorted(repair(shop.writes)) == [
        "invoices: stored the objects of 1 version in the database",
        "order-sync: stored the objects of 6 versions in the database",
    ]
    assert set(kept(shop)) >= by_git(shop, *all_tips(shop))
    assert unrecoverable(shop) == []


def test_rebuild_into_an_empty_database_stores_the_objects_too(shop: House) -> None:
    before = kept(shop)
    shop.tamper("delete from gitstore.git_objects")
    rebuild(shop.database, [shop.unmirrored()])
    assert kept(shop) == before


def test_a_newer_repository_is_mirrored_by_repair(shop: House) -> None:
    left = shop.unmirrored()
    left.create_draft("invoices", Content(value=shop.definition("https://b.example/")), shop.who)
    left.publish("invoices", shop.who)
    assert any("gitstore repair, which adds it now" in line for line in findings(shop))
    assert list(repair(shop.writes)) == ["invoices: its rows were behind Git, and were updated"]
    assert findings(shop) == []


def test_an_operator_can_raise_the_number_to_start_above(shop: House) -> None:
    """Also with an open draft, and for a workflow of which nothing is left."""
    shop.save("invoices", "https://draft.example/")
    assert start_above(shop.writes, "invoices", 6, shop.writes.origin) == 7
    assert states(shop, "invoices") == {1: "published", 2: "discarded", 7: "draft"}
    assert start_above(shop.writes, "invoices", 3, shop.writes.origin) == 7, "a mark is not lowered"
    assert findings(shop) == []
    assert shop.store.publish("invoices", shop.who).number == 7
    assert start_above(shop.writes, "gone", 4, shop.writes.origin) == 5
    assert shop.publish("gone") == 5
    assert findings(shop) == []
    for slug, number in (("No Slug", 1), ("a", 0), ("a", 2**31 - 1), ("a", -1)):
        with pytest.raises(GitstoreError) as refused:
            start_above(shop.writes, slug, number, shop.writes.origin)
        assert refused.value.code is Code.MALFORMED
