"""Rebuild: rows made from Git alone equal the mirrored ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString
from uuid import uuid4

import pytest

from gitstore import names
from gitstore.drafts import Content
from gitstore.errors import Code, GitstoreError, ObjectsMissingError
from gitstore.names import version_id
from sync import derive, reconcile
from sync.integrity import processes, rebuild, verify
from sync.integrity.differences import REBUILD, Finding
from tests.helpers import object_file
from tests.sync.conftest import House


@pytest.fixture
def shop(house: House) -> House:
    """Every state that rows can be in, reached step by step, each step mirrored on its own."""
    for number in range(1, 6):
        house.publish(
            "order-sync", f"https://v{number}.example/", message=f"No. {number}", activate=number != 4
        )
    house.store.move_current("order-sync", 2, house.who, hold=True, message="At night")
    house.save("order-sync", "https://draft.example/", name="Later")
    content = Content(value=house.definition(name="Inner"))
    house.store.create_workflow("named", content, house.who, name="Given", description="Said")
    house.store.publish("named", house.who)
    house.store.clear_current("named", house.who)
    house.save("draft-only", description="A draft")
    house.save("discarded")
    house.store.discard_draft("discarded", house.who)
    house.publish("reverted")
    house.publish("reverted", "https://b.example/")
    house.store.revert("reverted", 1, house.who)
    killed(house, "reverted", 3)
    return house


def killed(house: House, slug: str, number: int) -> None:
    """Begin a publication that ends between its ledger entry and its tag."""
    head = house.store.refs.read(names.draft(slug))
    assert head is not None
    house.record(slug, number, head.decode(), tag=False)
    house.writes.mirror_now([slug])


def test_every_row_equals_the_mirrored_one_and_no_event_is_added(
    shop: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derive, "BATCH", 2)
    before, events, log = shop.mirrored(), shop.rows("events"), shop.rows("audit_log")
    steps: list[tuple[int, int]] = []
    count = rebuild.rebuild(shop.database, [shop.unmirrored()], progress=lambda *step: steps.append(step))
    assert shop.mirrored() == before
    assert (shop.rows("events"), shop.rows("audit_log")) == (events, log)
    discarded = [row for row in before[1] if row["state"] == "discarded"]
    assert (count, len(before[1]), len(discarded)) == (11, 12, 1)
    assert steps[-1] == (5, 5)
    assert list(verify.verify(shop.database, shop.store)) == []
    shop.publish("order-sync", "https://after.example/")


def test_deleted_rows_are_restored(shop: House) -> None:
    before = shop.mirrored()
    shop.tamper("update gitstore.workflows set current_version_id = null")
    shop.tamper("delete from gitstore.workflow_versions")
    shop.tamper("delete from gitstore.workflows")
    rebuild.rebuild(shop.database, [shop.unmirrored()])
    workflows, versions = shop.mirrored()
    assert workflows == before[0]
    assert versions == [row for row in before[1] if row["state"] != "discarded"], "Git does not call for it"


def test_rows_edited_by_hand_are_corrected(shop: House) -> None:
    before = shop.mirrored()
    shop.tamper(
        "update gitstore.workflow_versions set message = 'x', definition = null, published_by = 'Eve'"
        " where state = 'published'"
    )
    shop.tamper("update gitstore.workflows set held = not held, name = 'x', latest_number = 0")
    rebuild.rebuild(shop.database, [shop.unmirrored()])
    assert shop.mirrored() == before


def test_only_the_projects_named_are_rebuilt(make_house: Callable[..., House]) -> None:
    ours, theirs = make_house("ours"), make_house("theirs")
    for house in (ours, theirs):
        house.publish("order-sync")
    ours.tamper("update gitstore.workflows set name = 'x'")
    rebuild.rebuild(ours.database, [ours.unmirrored()])
    assert {row["project_id"]: row["name"] for row in ours.rows("workflows")} == {
        ours.project: "order-sync",
        theirs.project: "x",
    }
    rebuild.rebuild(ours.database, [ours.unmirrored(), theirs.unmirrored()])
    assert {row["name"] for row in ours.rows("workflows")} == {"order-sync"}


def test_an_unfinished_write_is_mirrored_first_with_its_events(shop: House) -> None:
    left = shop.unmirrored()
    shop.writes.markers.put(["named"])
    left.create_draft("named", Content(value=shop.definition("https://b.example/")), shop.who)
    left.publish("named", shop.who)
    events = len(shop.rows("events"))
    rebuild.rebuild(shop.database, [shop.unmirrored()])
    assert len(shop.rows("events")) == events + 2


CONTRADICTIONS = {
    "the newest tag moved": ("refs/tags/order-sync/v5", "refs/tags/order-sync/v1"),
    "an older tag moved": ("refs/tags/order-sync/v3", "refs/tags/order-sync/v1"),
    "a tag is missing": ("-d", "refs/tags/order-sync/v5"),
    "a tag of unknown origin": ("refs/tags/order-sync/v6", "refs/tags/order-sync/v1"),
    "the ledger was cut back": ("refs/ledger/order-sync", "refs/ledger/order-sync^"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_contradiction_is_not_hidden_unless_git_is_accepted(shop: House, what: str) -> None:
    shop.git("update-ref", *CONTRADICTIONS[what])
    before = shop.mirrored()
    with pytest.raises(GitstoreError, match="--accept-git") as refused:
        rebuild.rebuild(shop.database, [shop.unmirrored()])
    assert refused.value.code is Code.INTEGRITY
    assert all("order-sync" in finding for finding in refused.value.data["findings"])
    assert shop.mirrored() == before
    rebuild.rebuild(shop.database, [shop.unmirrored()], accept_git=True)
    tags, ledger = shop.store.version_tags("order-sync"), list(shop.store.ledger("order-sync"))
    agreed = {entry.version for entry in ledger if entry.version and tags.get(entry.version) == entry.target}
    rows = [
        row for row in shop.rows("workflow_versions") if row["workflow_id"] == shop.workflow_id("order-sync")
    ]
    assert {row["version_number"] for row in rows if row["state"] == "published"} == agreed
    known = {row["version_number"] for row in before[1] if row["id"] in {row["id"] for row in rows}}
    assert {row["version_number"] for row in rows} >= known, "no row is deleted"
    others = [row for row in before[0] if row["slug"] != "order-sync"]
    assert [row for row in shop.rows("workflows") if row["slug"] != "order-sync"] == others


def test_a_failure_on_the_way_leaves_the_rows_as_they_were(
    shop: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shop.mirrored()
    fresh = shop.unmirrored()
    blob = next(row for row in before[1] if row["version_number"] == 3)["blob_sha"]
    object_file(shop.store.path, blob).unlink()
    with pytest.raises(GitstoreError):
        rebuild.rebuild(shop.database, [fresh])
    assert shop.mirrored() == before


def test_rebuilding_excludes_writers(shop: House, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: set[str] = set()

    def save(*_: object) -> list[Finding]:
        with pytest.raises(GitstoreError) as refused:
            shop.save("order-sync", "https://c.example/")
        codes.add(refused.value.code)
        return []

    monkeypatch.setattr(rebuild, "contradictions", save)
    rebuild.rebuild(shop.database, [shop.unmirrored()])
    assert codes == {Code.BUSY}


HOST: LiteralString = """
    create schema host;
    create table host.runs (
        version_id uuid references gitstore.workflow_versions on delete cascade,
        workflow_id uuid references gitstore.workflows on delete cascade);
    insert into host.runs select id, workflow_id from gitstore.workflow_versions;
    create table host.bills (
        version_id uuid references gitstore.workflow_versions on delete restrict on update restrict,
        workflow_id uuid references gitstore.workflows on delete restrict on update restrict);
    insert into host.bills table host.runs;
    create table host.fired (what text);
    create function host.fire() returns trigger language plpgsql security definer as
        $$ begin insert into host.fired values (tg_op || ' ' || tg_table_name); return new; end $$;
    create trigger fire before insert or update or delete on gitstore.workflow_versions
        for each row execute function host.fire();
    create trigger fire before insert or update or delete on gitstore.workflows
        for each row execute function host.fire();
"""


def test_rows_of_a_host_that_refer_to_versions_lose_nothing(shop: House) -> None:
    """With `on delete cascade` and with `restrict`, over rebuilds, edited rows, a loss that is accepted, and
    a discarded draft.
    """
    with shop.database.as_owner() as tx:
        tx.connection.execute(HOST.encode())
        count = tx.value("select count(*) from host.runs")
    before = shop.mirrored()
    rebuild.rebuild(shop.database, [shop.unmirrored()])
    shop.tamper("update gitstore.workflows set current_version_id = null, latest_number = 0, held = false")
    shop.tamper(
        "update gitstore.workflow_versions set state = 'lost', message = 'x' where state = 'published'"
    )
    rebuild.rebuild(shop.database, [shop.unmirrored()], accept_git=True)
    assert shop.mirrored() == before
    shop.store.discard_draft("order-sync", shop.who)
    refs = [line.split()[1] for line in shop.git("for-each-ref", "--format=x %(refname)").splitlines()]
    for ref in refs:
        if "/order-sync" in ref:
            shop.git("update-ref", "-d", ref)
    rebuild.rebuild(shop.database, [shop.unmirrored()], accept_git=True)
    with shop.database.as_owner() as tx:
        assert tx.value("select count(*) from host.runs") == count == 12
        assert tx.value("select count(*) from host.bills") == count
    ours = [r for r in shop.rows("workflow_versions") if r["workflow_id"] == shop.workflow_id("order-sync")]
    assert [row["state"] for row in sorted(ours, key=lambda row: row["version_number"])] == [
        *["lost"] * 5,
        "discarded",
    ]
    assert list(verify.verify(shop.database, shop.unmirrored())) == []
    assert reconcile.full_pass(shop.writes).failures == {}


def test_an_equal_row_is_not_written(shop: House) -> None:
    """No dead rows, and no trigger of a host for nothing; one for a row that differs."""
    with shop.database.as_owner() as tx:
        tx.connection.execute(HOST.encode())

    def written() -> list[tuple[Any, ...]]:
        with shop.database.as_owner() as tx:
            return [
                *tx.tuples("select id, xmin::text, ctid::text from gitstore.workflow_versions order by id"),
                *tx.tuples("select id, xmin::text, ctid::text from gitstore.workflows order by id"),
            ]

    before = written()
    rebuild.rebuild(shop.database, [shop.unmirrored()])
    assert written() == before
    with shop.database.as_owner() as tx:
        assert tx.tuples("select what from host.fired") == []
    shop.tamper("update gitstore.workflow_versions set message = 'x' where version_number = 5")
    shop.tamper("delete from host.fired")
    rebuild.rebuild(shop.database, [shop.unmirrored()])
    with shop.database.as_owner() as tx:
        fired = tx.tuples("select what from host.fired order by what")
    assert fired == [("INSERT workflow_versions",), ("UPDATE workflow_versions",)]


def test_exchanged_ids_of_rows_are_corrected(shop: House) -> None:
    before = shop.mirrored()
    one, two = (version_id(shop.workflow_id("reverted"), number) for number in (1, 2))
    shop.tamper("update gitstore.workflows set current_version_id = null")
    for old, new in ((one, uuid4()), (two, one)):
        shop.tamper("update gitstore.workflow_versions set id = %(new)s where id = %(old)s", old=old, new=new)
    assert {f.advice for f in verify.verify(shop.database, shop.unmirrored())} == {REBUILD}
    rebuild.rebuild(shop.database, [shop.unmirrored()])
    assert shop.mirrored() == before


def test_a_large_project_is_rebuilt_and_verified_in_processes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Findings and errors come back from the other processes as they are."""
    monkeypatch.setattr(processes, "GROUP", 2)
    monkeypatch.setattr(processes, "_FEW", 1)
    slugs = [f"flow-{number}" for number in range(7)]
    for slug in slugs:
        house.publish(slug, f"https://{slug}.example/")
    before = house.mirrored()
    house.tamper("update gitstore.workflow_versions set message = 'x'")
    found = list(verify.verify(house.database, house.store))
    assert [finding.workflow for finding in found] == slugs
    steps: list[tuple[int, int]] = []
    assert (
        rebuild.rebuild(house.database, [house.unmirrored()], progress=lambda *step: steps.append(step)) == 7
    )
    assert steps == [(0, 7), (2, 7), (4, 7), (6, 7), (7, 7)]
    assert house.mirrored() == before
    blob = before[1][3]["blob_sha"]
    object_file(house.store.path, blob).unlink()
    with pytest.raises(ObjectsMissingError, match=blob) as missing:
        rebuild.rebuild(house.database, [house.unmirrored()])
    assert missing.value.data["oid"] == blob
