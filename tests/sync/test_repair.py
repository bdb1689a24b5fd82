"""Repair restores missing, damaged and moved refs from ledger and rows, and leaves contradictions alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gitstore import names
from gitstore.errors import Code, GitstoreError
from sync.integrity import verify
from sync.integrity.rebuild import rebuild
from sync.integrity.repair import repair
from tests.helpers import object_file
from tests.sync.conftest import House


@pytest.fixture
def tmp_path(ram_path: Path) -> Path:
    return ram_path


@pytest.fixture
def shop(house: House) -> House:
    for number in range(1, 4):
        house.publish("order-sync", f"https://v{number}.example/")
    house.save("order-sync", "https://draft.example/")
    house.publish("invoices")
    return house


def refs(house: House) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = house.store.refs.below(names.PREFIX)
    return found


def findings(house: House) -> list[str]:
    return [str(finding) for finding in verify.verify(house.database, house.unmirrored())]


def gone(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def nulled(path: Path) -> None:
    path.write_bytes(b"\0" * 41)


DAMAGES = [gone, emptied, nulled]
EVERY_REF = ["refs/tags/order-sync/v1", "refs/tags/order-sync/v3", "refs/ledger/order-sync",
             "refs/heads/drafts/order-sync"]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ref", EVERY_REF)
def test_a_damaged_ref_is_found_stops_publishing_and_is_restored(
    shop: House, ref: str, damage: Callable[[Path], None]
) -> None:
    """Other workflows can be published meanwhile."""
    before, rows = refs(shop), shop.mirrored()
    damage(shop.store.path / ref)
    found = findings(shop)
    assert found
    assert all("order-sync" in line for line in found), found
    if ref != "refs/tags/order-sync/v1":  # an old version does not matter to the next
        with pytest.raises(GitstoreError) as refused:
            shop.store.publish("order-sync", shop.who)
        assert refused.value.code is Code.INTEGRITY
    assert shop.publish("invoices", "https://next.example/") == 2
    before |= {ref: oid for ref, oid in refs(shop).items() if b"invoices" in ref}
    (line,) = repair(shop.writes)
    assert f"{ref}: restored to {before[ref.encode()].decode()}" in line
    assert refs(shop) == before
    assert findings(shop) == []
    assert [row for row in shop.rows("workflows") if row["slug"] == "order-sync"] == [
        row for row in rows[0] if row["slug"] == "order-sync"
    ]
    assert shop.store.publish("order-sync", shop.who).number == 4
    assert list(repair(shop.writes)) == []


def test_a_moved_tag_is_restored(shop: House) -> None:
    before = refs(shop)
    shop.git("update-ref", "refs/tags/order-sync/v2", shop.store.version_tags("order-sync")[1])
    assert len(list(repair(shop.writes))) == 1
    assert refs(shop) == before


def test_tags_are_restored_from_the_ledger_alone(shop: House) -> None:
    before = refs(shop)
    for number in (1, 2):
        shop.git("update-ref", "-d", f"refs/tags/order-sync/v{number}")
    ours = {"id": shop.workflow_id("order-sync")}
    shop.tamper("update gitstore.workflows set current_version_id = null where id = %(id)s", **ours)
    shop.tamper(
        "delete from gitstore.workflow_versions where version_number < 3 and workflow_id = %(id)s", **ours
    )
    assert len(list(repair(shop.writes))) == 2
    assert refs(shop) == before


def test_a_rewritten_ledger_is_restored_and_its_replacement_is_kept(shop: House) -> None:
    shop.store.move_current("order-sync", 1, shop.who)
    before = refs(shop)
    shop.git("update-ref", "refs/ledger/order-sync", "refs/ledger/order-sync~2")
    forged = refs(shop)[b"refs/ledger/order-sync"]
    with pytest.raises(GitstoreError):
        rebuild(shop.database, [shop.unmirrored()])
    lines = list(repair(shop.writes))
    assert any("is kept as refs/superseded/order-sync/" in line for line in lines)
    after = refs(shop)
    assert after[b"refs/ledger/order-sync"] == before[b"refs/ledger/order-sync"]
    assert forged in {oid for ref, oid in after.items() if ref.startswith(b"refs/superseded/order-sync/")}
    assert findings(shop) == []


def test_packed_refs_cut_short_in_a_line_of_another_length_name_nothing(shop: House) -> None:
    """What is left of `.../v3` must not be taken for another ref."""
    shop.git("pack-refs", "--all")
    packed = shop.store.path / "packed-refs"
    packed.write_bytes(packed.read_bytes()[: packed.read_bytes().rindex(b"order-sync/v3") + 6])
    assert all(ref.endswith((b"order-sync", b"invoices", b"/v1", b"/v2", b"/v3")) for ref in refs(shop))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_truncated_packed_refs_are_repaired_without_losing_a_ref(shop: House, share: float) -> None:
    """git cannot read the file before; the original is kept."""
    before = refs(shop)
    shop.git("pack-refs", "--all")
    packed = shop.store.path / "packed-refs"
    packed.write_bytes(packed.read_bytes()[: int(packed.stat().st_size * share)])
    assert any("packed-refs is damaged" in line for line in findings(shop))
    lines = list(repair(shop.writes))
    assert "the original is kept as packed-refs.damaged-" in lines[0]
    assert refs(shop) == before
    assert findings(shop) == []
    shop.git("fsck", "--strict", "--no-dangling")


def test_a_torn_page_in_packed_refs_loses_no_ref(shop: House) -> None:
    before = refs(shop)
    shop.git("pack-refs", "--all")
    packed = shop.store.path / "packed-refs"
    content = bytearray(packed.read_bytes())
    content[200:400] = bytes(200)
    packed.write_bytes(content)
    list(repair(shop.writes))
    assert refs(shop) == before
    assert findings(shop) == []


def test_a_ref_without_objects_is_reported_and_left(shop: House) -> None:
    oid = shop.store.version_tags("order-sync")[2]
    (shop.store.path / "refs/tags/order-sync/v2").unlink()
    object_file(shop.store.path, oid).unlink()
    shop.store.objects.close()
    shop.tamper("delete from gitstore.git_objects where oid = %(oid)s", oid=oid)
    (line,) = repair(shop.writes)
    assert line == (
        f"refs/tags/order-sync/v2: not restored: object {oid} is missing in Git, and not kept in the database"
    )


def test_an_interrupted_publication_is_not_completed(shop: House) -> None:
    shop.store.publish("order-sync", shop.who)
    tip = refs(shop)[b"refs/ledger/order-sync"].decode()
    stray = shop.git("commit-tree", f"{tip}^{{tree}}", "-p", tip, "-F", "-",
                     given=shop.git("log", "-1", "--format=%B", tip).replace("v4", "v5") + "\n")  # fmt: skip
    shop.git("update-ref", "refs/ledger/order-sync", stray)
    assert list(repair(shop.writes)) == []
    assert sorted(shop.store.version_tags("order-sync")) == [1, 2, 3, 4]


def test_all_damage_is_reported_in_one_pass(shop: House) -> None:
    """A tag, two rows and a corrupt object: each by name, with advice."""
    shop.git("update-ref", "-d", "refs/tags/order-sync/v2")
    shop.tamper(
        "update gitstore.workflow_versions set message = 'x' where version_number = 3 and state = 'published'"
    )
    shop.tamper("update gitstore.workflow_versions set valid = false where workflow_id = %(id)s",
                id=shop.workflow_id("invoices"))  # fmt: skip
    ours = (
        row for row in shop.rows("workflow_versions") if row["workflow_id"] == shop.workflow_id("order-sync")
    )
    blob = next(row["blob_sha"] for row in ours if row["version_number"] == 1)
    broken = object_file(shop.store.path, blob)
    broken.chmod(0o644)
    broken.write_bytes(b"garbage")
    lines = findings(shop)
    for expected in ("order-sync/v2: ", "order-sync/v3: message is x", "invoices/v1: valid is False", blob):
        assert any(expected in line for line in lines), (expected, lines)
    assert all(". " in line for line in lines)
