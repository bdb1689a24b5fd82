"""Queries of the API: pages by keyset, search, and each way to name a version."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import LiteralString
from uuid import uuid4

import pytest
from psycopg import sql

from gitstore.drafts import Content
from gitstore.errors import Code, GitstoreError
from gitstore.model import Rules
from sync import catalog, listing
from sync.db import Database, SingleReading
from sync.integrity.rebuild import rebuild
from sync.listing import Wanted
from sync.rows import WorkflowRow, column_names
from tests.sync.conftest import House


@pytest.fixture
def shop(house: House) -> House:
    for number in range(1, 6):
        house.publish("order-sync", f"https://v{number}.example/")
    house.store.move_current("order-sync", 2, house.who)
    house.save("order-sync", "https://draft.example/")
    return house


def test_history_is_the_open_draft_then_the_newest_version_first(shop: House) -> None:
    with shop.database.reading(shop.claims) as tx:
        page = catalog.history(tx, shop.workflow_id("order-sync"))
    assert [(row.version_number, row.state) for row in page.rows] == [
        (6, "draft"),
        *((number, "published") for number in (5, 4, 3, 2, 1)),
    ]
    assert page.next is None
    assert [row.version_number for row in page.rows if row.is_current] == [2]


def test_pages_join_without_a_gap_and_without_a_row_twice(shop: House) -> None:
    seen: list[int] = []
    before: int | None = None
    with shop.database.reading(shop.claims) as tx:
        for _ in range(3):
            page = catalog.history(tx, shop.workflow_id("order-sync"), before=before, limit=2)
            seen += [row.version_number for row in page.rows]
            assert not isinstance(page.next, str)
            before = page.next
    assert (seen, before) == ([6, 5, 4, 3, 2, 1], None)


def test_history_by_state(shop: House) -> None:
    workflow = shop.workflow_id("order-sync")
    with shop.database.reading(shop.claims) as tx:
        drafts = catalog.history(tx, workflow, state="draft", limit=1)
        published = catalog.history(tx, workflow, state="published", limit=3)
    assert [row.version_number for row in drafts.rows] == [6]
    assert drafts.next is None
    assert [row.version_number for row in published.rows] == [5, 4, 3]
    assert published.next == 3


def test_a_version_by_number_draft_current_and_latest(shop: House) -> None:
    workflow = shop.workflow_id("order-sync")
    with shop.database.reading(shop.claims) as tx:
        found = {
            which: catalog.version(tx, workflow, which) for which in (1, 2, 5, "draft", "current", "latest")
        }
        missing = [catalog.version(tx, workflow, number) for number in (0, 6, 7, 2**40)]
    numbers: dict[catalog.Which, int] = {1: 1, 2: 2, 5: 5, "draft": 6, "current": 2, "latest": 5}
    assert {which: row.version_number for which, row in found.items() if row} == numbers
    assert missing == [None] * 4, "6 is the draft, which has no number yet"


def test_a_single_reading_returns_what_a_transaction_does(shop: House) -> None:
    """With times in UTC, whatever the time zone of the database is."""
    with shop.database.as_owner() as tx:
        name = sql.Identifier(tx.value("select current_database()"))
        tx.connection.execute(sql.SQL("alter database {} set timezone = 'Asia/Tokyo'").format(name))
    shop.database.close()  # new connections have the setting
    workflow, single = shop.workflow_id("order-sync"), SingleReading(shop.database, shop.claims)
    for which in (1, "draft", "current", "latest", 7):
        with shop.database.reading(shop.claims) as tx:
            expected = catalog.full_version(tx, workflow, which)
        row = catalog.full_version(single, workflow, which)
        assert row == expected
        assert row is None or row.created_at.tzinfo is UTC
    assert single.row(catalog.Project, "select * from gitstore.projects where false") is None
    with pytest.raises(GitstoreError):
        single.row(catalog.Project, "delete from gitstore.workflows")
    assert catalog.version(single, workflow, 1) is not None


def test_a_full_version_has_the_definition(shop: House) -> None:
    with shop.database.reading(shop.claims) as tx:
        version = catalog.full_version(tx, shop.workflow_id("order-sync"), "current")
    assert version is not None
    assert version.definition == shop.definition("https://v2.example/")
    assert version.slug == "order-sync"


def test_a_workflow_by_id_and_by_slug_is_the_same(shop: House) -> None:
    with shop.database.reading(shop.claims) as tx:
        by_id = catalog.workflow(tx, shop.workflow_id("order-sync"))
        by_slug = catalog.workflow_by_slug(tx, shop.project, "order-sync")
        assert catalog.workflow(tx, uuid4()) is None
    assert by_id == by_slug
    assert by_id is not None
    assert (by_id.current_number, by_id.latest_number, by_id.draft_number) == (2, 5, 6)


def test_an_unpublished_workflow_has_no_current_and_no_latest(house: House) -> None:
    house.save("order-sync")
    with house.database.reading(house.claims) as tx:
        workflow = catalog.workflow_by_slug(tx, house.project, "order-sync")
        for which in ("current", "latest"):
            assert catalog.version(tx, house.workflow_id("order-sync"), which) is None
    assert workflow is not None
    assert (workflow.current_number, workflow.latest_number, workflow.draft_number) == (None, 0, 1)


def test_workflows_are_listed_by_slug_in_pages(house: House) -> None:
    for slug in ("b", "a-b", "a", "a0"):
        house.save(slug)
    with house.database.reading(house.claims) as tx:
        first = catalog.workflows(tx, house.project, limit=3)
        rest = catalog.workflows(tx, house.project, after=str(first.next), limit=3)
    assert [row.slug for row in first.rows] == ["a", "a-b", "a0"]
    assert [row.slug for row in rest.rows] == ["b"]
    assert (first.next, rest.next) == ("a0", None)


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("ORDER", ["order-sync"]),
        ("warehouse order", ["order-sync"]),
        ("ware ord", ["order-sync"]),
        ("rder", []),
        ("order nothing", []),
        ("100%", ["hundred", "sale"]),
        ("a_b", ["sale"]),
        ("back\\", ["sale"]),
        ("größe", ["hundred"]),
        ("Call", ["hundred", "order-sync", "sale"]),
        ("orders call", ["order-sync"]),
        ("'; drop table", []),
        ("%", []),
        ("a & !b | (c <-> d:*)", []),
        ("''' \\' :* \\", []),
        ("x" * 3000, []),
    ],
)
@pytest.mark.parametrize("most", [1000, 0], ids=["index", "scan"])
def test_search_finds_the_beginnings_of_words_of_names_and_labels(
    shelf: House, monkeypatch: pytest.MonkeyPatch, most: int, q: str, found: list[str]
) -> None:
    """All words of the search count, in any order, apart or together; with the index, and without it."""
    monkeypatch.setattr(listing, "_MOST_MATCHES", most)
    assert found_by(shelf, q) == found


def found_by(house: House, q: str) -> list[str]:
    with house.database.reading(house.claims) as tx:
        rows, _ = listing.workflows(tx, house.project, Wanted(q), limit=20)
        assert listing.count(tx, house.project, Wanted(q)) == len(rows)
    return [row.slug for row in rows]


def test_search_follows_every_change(house: House) -> None:
    """Of the slug, the name, the description, and the labels of the draft, else of the current version."""
    store, labelled = house.store, house.definition()
    labelled["nodes"][0]["data"]["label"] = "Zanzibar"

    def found(*words: str) -> list[str]:
        return [word for word in words if found_by(house, word)]

    words = ("parcels", "first", "second", "zanzibar", "call", "boxes")
    house.save("parcels", name="First")
    assert found(*words) == ["parcels", "first", "call"]
    store.save_draft("parcels", Content(value=labelled | {"name": "First"}), house.who, expected="*")
    assert found(*words) == ["parcels", "first", "zanzibar", "call"]
    store.publish("parcels", house.who)
    house.save("parcels", name="Second")
    assert found(*words) == ["parcels", "first", "call"]
    store.discard_draft("parcels", house.who)
    assert found(*words) == ["parcels", "first", "zanzibar", "call"]
    house.publish("parcels")
    assert found(*words) == ["parcels", "call"]
    store.move_current("parcels", 1, house.who)
    assert found(*words) == ["parcels", "first", "zanzibar", "call"]
    store.describe("parcels", {"name": "Second"}, house.who)
    store.rename("parcels", "boxes", house.who)
    assert found(*words) == ["second", "zanzibar", "call", "boxes"]
    house.tamper("update gitstore.workflow_versions set definition = '{}' where version_number = 1")
    assert found(*words) == ["second", "call", "boxes"], "the labels of the latest version"
    rebuild(house.database, [store])
    assert found(*words) == ["second", "zanzibar", "call", "boxes"]


def test_search_costs_the_same_in_a_large_project(make_house: Callable[..., House]) -> None:
    """The pages that Postgres looks at; words of another project do not count."""
    small, large = make_house("small"), make_house("large")
    small.save("order-sync")
    large.save("order-sync")
    columns = [name for name in column_names(WorkflowRow) if name not in ("id", "slug", "name")]
    large.tamper(
        f"insert into gitstore.workflows (id, slug, name, {', '.join(columns)}) "  # noqa: S608 - of constants
        f"select gen_random_uuid(), 'w-' || n, 'Orders ' || n, {', '.join(columns)} "
        "from gitstore.workflows, generate_series(1, 3000) n where project_id = %(project)s",
        project=large.project,
    )
    costs = {
        (house.project, q): cost(house, q) for house in (small, large) for q in ("nowhere", "orders 17x")
    }
    assert max(costs.values()) < 2 * min(costs.values()) + 100, costs
    assert found_by(small, "orders") == []
    assert found_by(large, "orders 2999") == ["w-2999"]


def cost(house: House, q: str) -> int:
    """The pages of a search that finds nothing."""
    explain: LiteralString = """
        explain (analyze, buffers, format json) select gitstore.matching_workflows(%(project)s, %(q)s, 1000)
    """
    with house.database.reading(house.claims) as tx:
        assert tx.value("select gitstore.matching_workflows(%(p)s, %(q)s, 1000)", p=house.project, q=q) == []
        plan = tx.value(explain, project=house.project, q=q)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.fixture
def shelf(house: House) -> House:
    house.save("order-sync", name="Orders", description="To the Warehouse")
    house.save("sale", name="100% a_b back\\slash")
    house.save("hundred", name="1000 Größen", description="")
    return house


def test_a_project_is_made_once(database: Database) -> None:
    with database.as_owner() as tx:
        made = catalog.create_project(tx, uuid4(), "shop", "Shop", Rules.ANY)
        assert catalog.project(tx, "shop") == made == catalog.project_by_id(tx, made.id)
    with pytest.raises(GitstoreError) as refused, database.as_owner() as tx:
        catalog.create_project(tx, uuid4(), "shop", "Shop", Rules.ANY)
    assert refused.value.code is Code.PROJECT_EXISTS


def test_history_reads_no_definition() -> None:
    """A definition may take a megabyte; Postgres does not fetch columns that a query leaves out."""
    assert all("definition" not in query for query in catalog._HISTORY.values())


def test_history_is_read_from_the_index_whatever_the_policies_add(shop: House) -> None:
    with shop.database.reading(shop.claims) as tx:
        tx.run("set local enable_seqscan = off")
        tx.run("set local enable_sort = off")
        plan = "\n".join(
            line
            for (line,) in tx.tuples(
                "explain (costs off) " + catalog._HISTORY["published"],
                workflow=shop.workflow_id("order-sync"),
                before=9,
                limit=20,
            )
        )
    assert "Index Scan Backward using workflow_versions_number_key" in plan
    assert "Index Cond: ((workflow_id = " in plan
    assert "Sort" not in plan
