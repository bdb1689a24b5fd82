"""Converging: rows follow refs and ledger, at the cost of what is new, with an event for each fact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gitstore import names, states
from gitstore.changes import Authorship, ChangeSet, write
from gitstore.drafts import Content
from gitstore.errors import Code, GitstoreError
from gitstore.model import LedgerKind
from gitstore.names import version_id
from sync import catalog, derive
from sync.events import EventType
from tests.sync.conftest import House


@contextmanager
def refused(match: str) -> Iterator[None]:
    with pytest.raises(GitstoreError, match=match) as error:
        yield
    assert error.value.code is Code.INTEGRITY


def workflow(house: House, slug: str = "order-sync") -> dict[str, Any]:
    return next(row for row in house.rows("workflows") if row["slug"] == slug)


def versions(house: House) -> dict[int, dict[str, Any]]:
    return {row["version_number"]: row for row in house.rows("workflow_versions")}


def kinds(house: House) -> list[tuple[str, str]]:
    return [(fact.type.value.removeprefix("workflow."), fact.object) for fact in house.facts]


def test_a_draft_becomes_the_published_row_and_keeps_its_id(house: House) -> None:
    commit = house.save("order-sync")
    draft = versions(house)[1]
    assert (draft["state"], draft["published_at"], draft["ref_oid"]) == ("draft", None, commit)
    house.store.publish("order-sync", house.who, message="Go")
    published = versions(house)[1]
    assert published["id"] == draft["id"] == version_id(house.workflow_id("order-sync"), 1)
    assert (published["state"], published["commit_sha"], published["message"]) == ("published", commit, "Go")
    assert published["published_by"] == "Ada"
    assert published["definition"] == house.definition()
    assert workflow(house)["current_version_id"] == published["id"]


def test_the_facts_of_a_life_are_told_once_in_order_each_with_an_event_and_an_audit_row(house: House) -> None:
    house.publish("order-sync")
    house.publish("order-sync", "https://b.example/", activate=False)
    house.store.move_current("order-sync", 2, house.who, hold=True)
    house.save("order-sync", "https://c.example/")
    house.store.discard_draft("order-sync", house.who)
    house.store.clear_current("order-sync", house.who)
    assert kinds(house) == [
        ("draft.updated", "drafts/order-sync"),
        ("version.published", "order-sync/v1"),
        ("current.changed", "order-sync/v1"),
        ("draft.updated", "drafts/order-sync"),
        ("version.published", "order-sync/v2"),
        ("current.changed", "order-sync/v2"),
        ("draft.updated", "drafts/order-sync"),
        ("draft.updated", "drafts/order-sync"),
        ("current.changed", "order-sync"),
    ]
    assert {row["id"] for row in house.rows("events")} == {fact.id for fact in house.facts}
    log = house.rows("audit_log")
    assert len(log) == len(house.facts)
    assert {(row["door"], row["actor_name"], row["request_id"]) for row in log} == {
        ("http", "ada's token", "r-1")
    }


def test_a_publication_with_its_content_has_the_facts_of_a_save_and_of_a_publication(house: House) -> None:
    """Also if they are mirrored later; the event of the save has the message of the commit."""
    house.publish("order-sync")
    facts = []
    for store, url in ((house.store, "https://b.example/"), (house.unmirrored(), "https://c.example/")):
        house.facts.clear()
        published = store.publish("order-sync", house.who, Content(value=house.definition(url)))
        house.writes.mirror_now(["order-sync"])
        number = published.number
        assert kinds(house) == [
            ("draft.updated", "drafts/order-sync"),
            ("version.published", f"order-sync/v{number}"),
            ("current.changed", f"order-sync/v{number}"),
        ]
        facts.append(house.facts[0])
        row = versions(house)[number]
        assert (facts[-1].data["version_id"], facts[-1].data["commit"]) == (str(row["id"]), row["commit_sha"])
        assert facts[-1].data["message"] == house.git("log", "-1", "--format=%s", row["commit_sha"])
    assert len({fact.id for fact in facts}) == 2
    assert workflow(house)["draft_commit"] == versions(house)[3]["commit_sha"]


def test_saying_again_that_current_is_held_changes_no_current(house: House) -> None:
    house.publish("order-sync")
    house.facts.clear()
    house.store.move_current("order-sync", 1, house.who, hold=True)
    assert kinds(house) == []
    assert workflow(house)["held"] is True


def test_a_held_current_stays_when_a_version_is_published(house: House) -> None:
    house.publish("order-sync")
    house.store.move_current("order-sync", 1, house.who, hold=True)
    house.publish("order-sync", "https://b.example/")
    row = workflow(house)
    assert (row["latest_number"], row["current_version_id"]) == (2, versions(house)[1]["id"])


def test_converging_again_adds_nothing(house: House) -> None:
    house.publish("order-sync")
    house.save("order-sync", "https://b.example/")
    before = house.mirrored(), house.rows("events"), house.rows("audit_log")
    assert house.writes.mirror_now(["order-sync"]) == []
    assert (house.mirrored(), house.rows("events"), house.rows("audit_log")) == before


def test_what_another_process_left_behind_is_mirrored_before_the_next_write(house: House) -> None:
    left = house.unmirrored()
    left.create_workflow("order-sync", Content(value=house.definition()), house.who, name="Orders")
    left.publish("order-sync", house.who)
    assert house.rows("workflows") == []
    house.save("order-sync", "https://b.example/")
    assert sorted(versions(house)) == [1, 2]
    assert kinds(house) == [
        ("version.published", "order-sync/v1"),
        ("current.changed", "order-sync/v1"),
        ("draft.updated", "drafts/order-sync"),
    ]
    log = {row["object"]: (row["door"], row["actor_name"]) for row in house.rows("audit_log")}
    assert log["order-sync/v1"] == ("worker", "Ada")
    assert log["drafts/order-sync"] == ("http", "ada's token")


def test_many_versions_at_once_ascend_and_are_all_there(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derive, "BATCH", 3)
    left = house.unmirrored()
    left.create_workflow("order-sync", Content(value=house.definition()), house.who)
    for number in range(1, 9):
        left.publish("order-sync", house.who)
        left.create_draft(
            "order-sync", Content(value=house.definition(f"https://{number}.example/")), house.who
        )
    house.writes.mirror_now(["order-sync"])
    assert sorted(versions(house)) == list(range(1, 10))
    published = [fact.version_number for fact in house.facts if fact.type is EventType.PUBLISHED]
    assert published == list(range(1, 9))


def test_a_publication_that_was_killed_before_its_tag_never_happened(house: House) -> None:
    """Its ledger entry is written, but not its tag; a later attempt publishes the version."""
    house.publish("order-sync")
    house.save("order-sync", "https://b.example/")
    head = house.store.refs.read(names.draft("order-sync"))
    assert head is not None
    house.record("order-sync", 2, head.decode(), tag=False)
    before = house.mirrored()
    assert house.writes.mirror_now(["order-sync"]) == []
    assert house.mirrored() == before
    # A lightweight tag, so that the dead entry names the very same object.
    when = house.record("order-sync", 2, head.decode())
    facts = house.writes.mirror_now(["order-sync"])
    assert [fact.type for fact in facts] == [EventType.PUBLISHED, EventType.CURRENT_CHANGED]
    assert versions(house)[2]["published_at"] == when
    assert versions(house)[2]["ref_oid"] == head.decode()


def test_a_created_entry_left_alone_by_a_kill_is_no_workflow(house: House) -> None:
    recorder = ChangeSet(house.store, "order-sync", Authorship(house.who.actor, house.store.clock()))
    recorder.append(LedgerKind.CREATED, name="Orders")
    write(house.store, [recorder])
    assert house.writes.mirror_now(["order-sync"]) == []
    assert house.rows("workflows") == []


def test_a_larger_number_takes_the_draft_to_the_number_behind_it(house: House) -> None:
    """An import may bring any N."""
    house.publish("order-sync")
    house.save("order-sync", "https://b.example/")
    old = versions(house)[1]["ref_oid"]
    house.record("order-sync", 10, old)
    house.writes.mirror_now(["order-sync"])
    assert {number: row["state"] for number, row in versions(house).items()} == {
        **{1: "published", 2: "discarded", 10: "published"},
        11: "draft",
    }


def test_the_draft_is_derived_anew_when_another_commit_takes_its_number(house: House) -> None:
    house.publish("order-sync")
    draft = house.save("order-sync", "https://b.example/")
    base = house.store.state("order-sync").latest_commit
    assert base is not None
    tree = house.git("rev-parse", f"{base}^{{tree}}")
    other = house.commit_as_eve(tree, base, "Another way")
    house.record("order-sync", 2, other)
    house.writes.mirror_now(["order-sync"])
    assert (versions(house)[2]["commit_sha"], versions(house)[2]["author_name"]) == (other, "Eve")
    assert (versions(house)[3]["commit_sha"], versions(house)[3]["state"]) == (draft, "draft")


def test_the_row_of_a_discarded_draft_is_kept_and_used_again(house: House) -> None:
    house.publish("order-sync")
    house.save("order-sync", "https://b.example/")
    house.store.discard_draft("order-sync", house.who)
    row = versions(house)[2]
    assert (row["state"], workflow(house)["draft_commit"]) == ("discarded", None)
    assert house.facts[-1].data["discarded"] is True
    commit = house.save("order-sync", "https://c.example/")
    again = versions(house)[2]
    assert (again["id"], again["state"], again["commit_sha"]) == (row["id"], "draft", commit)
    house.store.discard_draft("order-sync", house.who)
    house.publish("order-sync", "https://d.example/")
    assert (versions(house)[2]["id"], versions(house)[2]["state"]) == (row["id"], "published")


def test_a_discarded_draft_is_shown_nowhere(house: House) -> None:
    house.save("order-sync")
    house.store.discard_draft("order-sync", house.who)
    workflow_id = house.workflow_id("order-sync")
    with house.database.reading(house.claims) as tx:
        assert catalog.history(tx, workflow_id).rows == []
        assert catalog.history(tx, workflow_id, state="draft").rows == []
        assert [catalog.version(tx, workflow_id, which) for which in (1, "draft", "latest")] == [None] * 3
        found = catalog.workflow(tx, workflow_id)
        assert found is not None
        assert found.draft_number is None


def test_a_restored_draft_has_its_row_again(house: House) -> None:
    """And an event as for a draft that was updated, also where both are mirrored at once."""
    first = house.save("order-sync")
    store = house.unmirrored()
    store.discard_draft("order-sync", house.who)
    store.restore_draft("order-sync", house.who)
    assert store.state("order-sync").draft == first
    house.writes.mirror_now(["order-sync"])
    assert versions(house)[1]["commit_sha"] == first
    assert [fact.data["discarded"] for fact in house.facts[-2:]] == [True, False]


def test_a_workflow_whose_only_draft_is_discarded_stays(house: House) -> None:
    house.save("order-sync", name="Orders")
    house.store.discard_draft("order-sync", house.who)
    assert [row["state"] for row in versions(house).values()] == ["discarded"]
    assert (workflow(house)["name"], workflow(house)["latest_number"]) == ("order-sync", 0)


class TestNames:
    def test_the_name_given_at_creation_wins(self, house: House) -> None:
        content = Content(value=house.definition(name="From the file", description="File"))
        house.store.create_workflow("order-sync", content, house.who, name="Given", description="Said")
        house.store.publish("order-sync", house.who)
        assert (workflow(house)["name"], workflow(house)["description"]) == ("Given", "Said")

    def test_else_the_current_version_names_it_and_a_rollback_renames_it(self, house: House) -> None:
        house.save("order-sync", name="One", description="First")
        assert workflow(house)["name"] == "One"
        house.store.publish("order-sync", house.who)
        house.save("order-sync", "https://b.example/", name="Two")
        assert workflow(house)["name"] == "One", "a draft renames nothing that is published"
        house.store.publish("order-sync", house.who)
        assert (workflow(house)["name"], workflow(house)["description"]) == ("Two", "")
        house.store.move_current("order-sync", 1, house.who)
        assert (workflow(house)["name"], workflow(house)["description"]) == ("One", "First")
        house.store.clear_current("order-sync", house.who)
        assert workflow(house)["name"] == "Two", "nothing runs: the latest names it"

    @pytest.mark.parametrize("name", ["", "   ", 7, None, ["x"]])
    def test_what_is_no_name_leaves_the_slug(self, house: House, name: object) -> None:
        house.save("order-sync", name=name)
        assert workflow(house)["name"] == "order-sync"

    def test_a_given_name_with_a_nul_is_stored_without_it(self, house: House) -> None:
        content = Content(value=house.definition())
        house.store.create_workflow("order-sync", content, house.who, name="a\0b")
        assert workflow(house)["name"] == "a\ufffdb"


def delete_refs(house: House, *refs: str) -> None:
    for ref in refs:
        house.git("update-ref", "-d", f"refs/{ref}")


def set_ref(house: House, ref: str, target: str) -> None:
    house.git("update-ref", f"refs/{ref}", target)


CONTRADICTIONS: dict[str, tuple[Callable[[House], object], str]] = {
    "a moved tag": (lambda h: set_ref(h, "tags/order-sync/v2", "refs/tags/order-sync/v1"), "v2 as"),
    "a missing tag": (lambda h: delete_refs(h, "tags/order-sync/v2"), "its tag is"),
    "a ledger that was cut back": (
        lambda h: set_ref(h, "ledger/order-sync", "refs/ledger/order-sync^"),
        "records the ledger entry",
    ),
    "no refs at all": (
        lambda h: delete_refs(
            h,
            *("heads/drafts/order-sync", "ledger/order-sync", "tags/order-sync/v1", "tags/order-sync/v2"),
        ),
        "the database records v2",
    ),
    "a tag made by hand": (lambda h: set_ref(h, "tags/order-sync/v3", "refs/tags/order-sync/v1"), "v3"),
    "a published row that Git lacks": (
        lambda h: h.copy_version("order-sync", 3),
        "v2 as the latest version, but the newest row is v3",
    ),
    "a row without its ledger entry": (
        lambda h: h.tamper("update gitstore.workflows set ledger_oid = null where slug = 'order-sync'"),
        "run gitstore verify",
    ),
    "a damaged ref file": (
        lambda h: (h.store.path / "refs" / "ledger" / "order-sync").write_bytes(b"\0" * 41),
        "damaged",
    ),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_contradiction_stops_every_write_to_the_workflow(house: House, what: str) -> None:
    """Rows stay as they are, and other workflows can be written."""
    cause, message = CONTRADICTIONS[what]
    house.publish("order-sync")
    house.publish("order-sync", "https://b.example/")
    house.store.move_current("order-sync", 1, house.who, hold=True)
    house.publish("invoices")
    cause(house)
    before = house.mirrored()
    with refused(message):
        house.save("order-sync", "https://c.example/")
    assert house.mirrored() == before
    house.publish("invoices", "https://b.example/")


def test_a_version_that_does_not_parse_is_a_row_without_definition(house: House) -> None:
    """An import records what was, valid or not."""
    house.publish("order-sync")
    base = house.store.state("order-sync").latest_commit
    assert base is not None
    (house.store.path / "broken").write_text("nodes: [\n")
    blob = house.git("hash-object", "-w", "broken")
    tree = house.git("mktree", given=f"100644 blob {blob}\tworkflow.yaml\n")
    commit = house.commit_as_eve(tree, base, "Broken")
    house.record("order-sync", 2, commit)
    house.writes.mirror_now(["order-sync"])
    row = versions(house)[2]
    assert (row["valid"], row["definition"], row["digest"]) == (False, None, None)


def test_yanks_notes_and_the_archived_state_follow_the_ledger_with_an_event_each(house: House) -> None:
    """Published rows stay as they are, `latest` passes over a yanked version."""
    house.publish("order-sync")
    house.publish("order-sync", "https://b.example/")
    before, count = versions(house), len(house.facts)
    states.yank(house.store, "order-sync", 2, house.who, reason="It loses orders")
    states.annotate(house.store, "order-sync", 1, {"title": "First", "notes": "Works"}, house.who)
    states.archive(house.store, "order-sync", house.who, reason="Replaced")
    row = workflow(house)
    assert (row["yanked"], row["archived"], row["latest_number"]) == ([2], True, 2)
    assert versions(house) == before
    with house.database.as_owner() as tx:
        latest = catalog.version(tx, house.workflow_id("order-sync"), "latest")
        pinned = catalog.version(tx, house.workflow_id("order-sync"), 2)
    assert latest is not None
    assert pinned is not None
    assert (latest.version_number, latest.yanked, pinned.yanked) == (1, False, True)
    states.unarchive(house.store, "order-sync", house.who)
    states.unyank(house.store, "order-sync", 2, house.who)
    assert (workflow(house)["yanked"], workflow(house)["archived"]) == ([], False)
    assert kinds(house)[count:] == [
        ("version.yanked", "order-sync/v2"),
        ("version.annotated", "order-sync/v1"),
        ("archived", "order-sync"),
        ("unarchived", "order-sync"),
        ("version.unyanked", "order-sync/v2"),
    ]
    assert house.facts[count].data["pointers"] == ["current"]
