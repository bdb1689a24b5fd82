"""A version number is never assigned twice, whatever happens to the repository."""

from __future__ import annotations

from typing import LiteralString
from uuid import uuid4

import pytest

from gitstore.errors import Code, GitstoreError
from gitstore.names import ledger, tag
from sync.integrity import verify
from sync.integrity.rebuild import rebuild
from tests.sync.conftest import House
from tests.sync.test_immutability import RUNTIME, acting_as

REWRITES: list[LiteralString] = [
    "update gitstore.number_marks set highest = 1",
    "update gitstore.number_marks set workflow_id = gen_random_uuid()",
    "delete from gitstore.number_marks",
    "truncate gitstore.number_marks",
]


@pytest.fixture
def shop(house: House) -> House:
    """A workflow with six versions and an open draft, and another with two."""
    for number in range(1, 7):
        house.publish("order-sync", f"https://v{number}.example/")
    house.save("order-sync", "https://draft.example/")
    for number in (1, 2):
        house.publish("invoices", f"https://v{number}.example/")
    return house


def highest(house: House, slug: str) -> int | None:
    with house.database.as_owner() as tx:
        query: LiteralString = "select highest from gitstore.number_marks where workflow_id = %(id)s"
        found = tx.value(query, id=house.workflow_id(slug))
    return int(found) if found is not None else None


def states(house: House, slug: str) -> dict[int, str]:
    rows = [row for row in house.rows("workflow_versions") if row["workflow_id"] == house.workflow_id(slug)]
    return {row["version_number"]: row["state"] for row in sorted(rows, key=lambda r: r["version_number"])}


def put_back(house: House, slug: str, number: int) -> None:
    """Set the refs back to where they were right after v<number> was published."""
    entry = next(e for e in house.store.ledger(slug) if e.version == number)
    tags = house.store.version_tags(slug)
    for later in [n for n in tags if n > number]:
        house.git("update-ref", "-d", tag(slug, later).decode())
    house.git("update-ref", ledger(slug).decode(), entry.oid)
    house.git("update-ref", f"refs/heads/drafts/{slug}", f"{tags[number]}^{{commit}}")


def test_the_mark_is_the_highest_number_published(shop: House) -> None:
    assert (highest(shop, "order-sync"), highest(shop, "invoices")) == (6, 2)
    shop.save("draft-only")
    assert highest(shop, "draft-only") is None


def test_a_lost_number_is_never_assigned_again(shop: House) -> None:
    """The repository is set back to v3, and that is accepted: the next version is v7, above a gap."""
    put_back(shop, "order-sync", 3)
    with pytest.raises(GitstoreError) as refused:
        shop.save("order-sync", "https://next.example/")
    assert refused.value.code is Code.INTEGRITY
    rebuild(shop.database, [shop.unmirrored()], accept_git=True)
    lost = dict.fromkeys((4, 5, 6), "lost")
    assert states(shop, "order-sync") == {
        1: "published",
        2: "published",
        3: "published",
        **lost,
        7: "discarded",
    }
    before = {row["id"]: row for row in shop.rows("workflow_versions") if row["state"] == "lost"}
    assert shop.publish("order-sync", "https://next.example/") == 7
    assert states(shop, "order-sync")[7] == "published"
    entry = next(shop.store.ledger("order-sync"))
    assert (entry.version, entry.after, entry.latest) == (7, 3, 7)
    assert {row["id"]: row for row in shop.rows("workflow_versions") if row["state"] == "lost"} == before
    assert shop.publish("order-sync", "https://after.example/") == 8
    assert list(verify.verify(shop.database, shop.unmirrored())) == []


def test_the_draft_is_numbered_above_the_mark(shop: House) -> None:
    put_back(shop, "invoices", 1)
    rebuild(shop.database, [shop.unmirrored()], accept_git=True)
    shop.save("invoices", "https://next.example/")
    assert states(shop, "invoices") == {1: "published", 2: "lost", 3: "draft"}
    rebuild(shop.database, [shop.unmirrored()])
    assert states(shop, "invoices") == {1: "published", 2: "lost", 3: "draft"}
    assert list(verify.verify(shop.database, shop.unmirrored())) == []


def test_a_workflow_that_git_lost_continues_above_its_mark(shop: House) -> None:
    for ref in shop.git("for-each-ref", "--format=%(refname)").splitlines():
        if "invoices" in ref:
            shop.git("update-ref", "-d", ref)
    rebuild(shop.database, [shop.unmirrored()], accept_git=True)
    assert shop.publish("invoices", "https://again.example/") == 3
    assert states(shop, "invoices") == {1: "lost", 2: "lost", 3: "published"}


def test_a_rebuild_lowers_no_mark_and_adds_missing_ones(shop: House) -> None:
    shop.tamper("update gitstore.number_marks set highest = 9 where highest = 2")
    rebuild(shop.database, [shop.unmirrored()])
    assert highest(shop, "invoices") == 9
    shop.tamper("delete from gitstore.number_marks")
    assert {finding.problem for finding in verify.verify(shop.database, shop.unmirrored())} >= {
        "v6 was published, but the number mark is missing"
    }
    rebuild(shop.database, [shop.unmirrored()])
    assert (highest(shop, "order-sync"), highest(shop, "invoices")) == (6, 2)


@pytest.mark.parametrize("role", RUNTIME)
def test_no_statement_of_a_runtime_role_lowers_a_mark(shop: House, role: str) -> None:
    for statement in REWRITES:
        with pytest.raises(GitstoreError) as refused, acting_as(shop, role) as tx:
            tx.run(statement)
        assert refused.value.code in (Code.INTEGRITY, Code.FORBIDDEN), statement
    assert highest(shop, "order-sync") == 6


def test_a_mark_of_another_workflow_is_no_floor(shop: House) -> None:
    with shop.database.as_mirror() as tx:
        tx.run(
            "insert into gitstore.number_marks values (%(id)s, %(project)s, 40)",
            id=uuid4(),
            project=shop.project,
        )
    assert shop.publish("invoices", "https://next.example/") == 3
