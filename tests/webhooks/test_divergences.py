"""What differs upstream does not come: it is told once, changes nothing here, and a person may decide."""

from __future__ import annotations

from typing import Any

import pytest

from gitstore.errors import GitstoreError
from gitstore.model import LedgerKind
from gitstore.upstream.importer import Layout
from sync import rows
from sync.integrity.verify import verify
from tests.sync.conftest import House
from tests.webhooks.followed_project import Follow, Following, versions
from tests.webhooks.upstream import BROKEN, Upstream, flow
from webhooks.ref_sync import Sync
from webhooks.sources import Direction

# What does not come


def test_a_tag_that_moves_or_vanishes_upstream_changes_nothing_here(
    follow: Follow, upstream: Upstream
) -> None:
    """The version stays; the divergence is recorded, shown, and sent as an event, once each."""
    ours = upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    before = following.state()
    upstream.commit("workflow.yaml", flow("https://moved.example/"))
    theirs = upstream.tag("order-sync/v1", "-f")
    for _ in range(3):
        following.sync()
    (one,) = following.open().values()
    assert (one.ours, one.theirs, one.code) == (ours, theirs, "version_immutable")
    assert one.reason == "v1 is published here with another content, and can't change"
    upstream.push(":refs/tags/order-sync/v1")
    for _ in range(3):
        following.sync()
    (one,) = following.open().values()
    assert (one.ours, one.theirs, one.code) == (ours, None, "deleted_upstream")
    assert [event["code"] for event in following.diverged_events()] == [
        "version_immutable",
        "deleted_upstream",
    ]
    assert following.state() == before


def test_a_divergence_ends_when_both_sides_agree_again(follow: Follow, upstream: Upstream) -> None:
    """The team puts its tag back: nothing differs any more."""
    ours = upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    upstream.in_bare("update-ref", "-d", "refs/tags/order-sync/v1")
    following.sync()
    assert following.open()
    upstream.in_bare("update-ref", "refs/tags/order-sync/v1", ours)
    following.sync()
    assert following.open() == {}
    (row,) = following.ask("select resolution from gitstore.divergences")
    assert row["resolution"] == "gone"


def test_what_is_refused_blocks_only_itself(follow: Follow, upstream: Upstream) -> None:
    """An invalid v2, no definition in v3, a tag on a blob: v1 and v5 are versions all the same."""
    upstream.version("order-sync", 1)
    upstream.version("order-sync", 2, BROKEN)
    upstream.git("rm", "-q", "workflow.yaml")
    upstream.version("order-sync", 3, "no definition", path="README")
    upstream.git("rm", "-q", "README")
    blob = upstream.git("hash-object", "-w", "--stdin", input=b"a blob")
    upstream.git("tag", "order-sync/v4", blob)
    upstream.push("refs/tags/order-sync/v4")
    upstream.version("order-sync", 5)
    following = follow()
    result = following.sync()
    assert result.published == {"order-sync": [1, 5]}
    assert {ref: one.code for ref, one in following.open().items()} == {
        "order-sync/v2": "definition_invalid",
        "order-sync/v3": "definition_missing",
        "order-sync/v4": "ref_not_accepted",
    }
    assert "can't be published: 1 problem: " in following.open()["order-sync/v2"].reason
    assert following.row().last_error is None


def test_a_number_that_was_given_out_before_does_not_come(follow: Follow, upstream: Upstream) -> None:
    """Also where its version is not in the repository any more: the mark in the database remembers it."""
    upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    with following.house.database.as_owner() as tx:
        rows.raise_mark(tx, following.house.store, "order-sync", 6)
    for number in (4, 6, 7):
        upstream.version("order-sync", number)
    assert following.sync().published == {"order-sync": [7]}
    assert {ref: one.code for ref, one in following.open().items()} == {
        "order-sync/v4": "wrong_number",
        "order-sync/v6": "wrong_number",
    }
    assert "numbers up to v6 were assigned before" in following.open()["order-sync/v4"].reason


def test_a_number_below_the_latest_is_never_filled_in(follow: Follow, upstream: Upstream) -> None:
    """v2 that comes after v3 stays out."""
    upstream.version("order-sync", 1)
    upstream.version("order-sync", 3)
    following = follow()
    following.sync()
    upstream.version("order-sync", 2)
    following.sync()
    assert following.open()["order-sync/v2"].code == "wrong_number"
    assert versions(following, "order-sync") == [1, 3]


def test_a_tag_that_was_invalid_and_is_put_right_comes(follow: Follow, upstream: Upstream) -> None:
    """As long as no later version is here, the team may move a tag that was never published here."""
    upstream.version("order-sync", 1, BROKEN)
    following = follow()
    following.sync()
    assert following.open()["order-sync/v1"].code == "definition_invalid"
    upstream.commit("workflow.yaml", flow())
    upstream.tag("order-sync/v1", "-f")
    assert following.sync().published == {"order-sync": [1]}
    assert following.open() == {}


def test_in_the_layout_folders_a_definition_at_the_root_is_told(follow: Follow, upstream: Upstream) -> None:
    """It would be taken for that of every workflow."""
    upstream.write("workflow.yaml", flow())
    upstream.version("order-sync", 1, path="workflows/order-sync/workflow.yaml")
    following = follow(layout=Layout.FOLDERS)
    following.sync()
    assert "at the root" in following.open()["order-sync/v1"].reason


def test_objects_that_git_refuses_block_the_tags_that_need_them_alone(
    follow: Follow, upstream: Upstream
) -> None:
    """A tree with a file .git in it, in the history of one workflow, leaves the others in peace."""
    upstream.version("good", 1)
    blob = upstream.git("hash-object", "-w", "--stdin", input=flow().encode())
    tree = upstream.git("mktree", input=f"100644 blob {blob}\tworkflow.yaml\n".encode())
    bad = upstream.git(
        "hash-object", "-t", "tree", "-w", "--literally", "--stdin",
        input=b"40000 .git\0" + bytes.fromhex(tree) + b"100644 workflow.yaml\0" + bytes.fromhex(blob),
    )  # fmt: skip
    upstream.git("tag", "bad/v1", upstream.git("commit-tree", bad, "-m", "evil"))
    upstream.push("refs/tags/bad/v1")
    upstream.git("checkout", "-q", "--orphan", "third")
    upstream.version("third", 1)
    following = follow()
    result = following.sync()
    assert result.published == {"good": [1], "third": [1]}
    assert following.open()["bad/v1"].code == "objects_refused"
    upstream.requests.clear()
    following.sync()
    assert len(upstream.requests) == 2  # what is refused is not fetched again and again


def test_a_version_that_vanishes_here_before_a_gap_is_found(house: House, upstream: Upstream) -> None:
    """By the ledger alone, without the rows: v5 was brought knowing v2."""
    for number in (1, 2, 5):
        upstream.version("order-sync", number)
    Following(house, upstream.url).sync()
    assert list(verify(house.database, house.store)) == []
    house.git("update-ref", "-d", "refs/tags/order-sync/v2")
    assert house.tamper("delete from gitstore.workflow_versions where version_number = 2")
    found = [str(finding) for finding in verify(house.database, house.store)]
    assert any("v2" in line and "its tag is missing" in line for line in found), found


# Drafts that go different ways


@pytest.fixture
def diverged(follow: Follow, upstream: Upstream) -> Following:
    upstream.draft("order-sync", flow())
    following = follow()
    following.sync()
    following.house.save("order-sync", "https://ours.example/")
    upstream.draft("order-sync", flow("https://theirs.example/"))
    following.sync()
    return following


def test_a_diverged_draft_is_left_alone(diverged: Following, upstream: Upstream) -> None:
    """Neither side loses anything; both ids, the reason and the first time are recorded."""
    one = diverged.open()["order-sync"]
    assert one.code == "not_fast_forward"
    assert one.ours == diverged.house.store.state("order-sync").draft
    assert one.theirs == upstream.refs()["refs/heads/drafts/order-sync"]
    diverged.sync()
    again = diverged.open()["order-sync"]
    assert (again.id, again.first_seen_at) == (one.id, one.first_seen_at)
    (event,) = diverged.diverged_events()
    assert (event["ref"], event["version_number"]) == ("refs/heads/drafts/order-sync", None)


def test_take_theirs_replaces_the_draft_and_keeps_ours(diverged: Following, upstream: Upstream) -> None:
    """A person decides; the old draft is superseded, the ledger says who decided."""
    ours = diverged.open()["order-sync"].ours
    assert ours is not None
    diverged.resolve("order-sync", "theirs")
    assert diverged.due()
    diverged.sync()
    store = diverged.house.store
    assert store.state("order-sync").draft == upstream.refs()["refs/heads/drafts/order-sync"]
    assert ours in diverged.house.git("for-each-ref", "--format=%(objectname)", "refs/superseded")
    entry = next(entry for entry in store.ledger("order-sync") if entry.kind is LedgerKind.DISCARDED)
    assert "ada decided to take the draft" in entry.message
    assert diverged.open() == {}
    (row,) = diverged.ask("select resolution, decided_by from gitstore.divergences")
    assert (row["resolution"], row["decided_by"]) == ("theirs", "ada")


def test_a_decision_is_about_what_was_seen(diverged: Following, upstream: Upstream) -> None:
    """Where the draft moves before the next sync, nothing is replaced, and a person looks again."""
    diverged.resolve("order-sync", "theirs")
    ours = diverged.house.save("order-sync", "https://newer.example/")
    diverged.sync()
    assert diverged.house.store.state("order-sync").draft == ours
    assert diverged.open()["order-sync"].decision is None


def test_a_decision_that_can_t_be_carried_out_is_given_back(diverged: Following, upstream: Upstream) -> None:
    """Theirs does not parse: ours stays, what is wrong is told, and a person may decide otherwise."""
    ours = diverged.house.store.state("order-sync").draft
    upstream.draft("order-sync", "nodes: [")
    diverged.sync()
    diverged.resolve("order-sync", "theirs")
    diverged.sync()
    one = diverged.open()["order-sync"]
    assert (one.code, one.decision) == ("definition_unparsable", None)
    assert diverged.house.store.state("order-sync").draft == ours
    diverged.resolve("order-sync", "ours")
    diverged.sync()
    assert diverged.open() == {}


def test_a_decision_made_during_a_sync_is_for_the_next_one(
    diverged: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one under way does not know of it, and does not take it for one that can't be done."""
    run = Sync.run

    def decided_meanwhile(sync: Sync, connect: Any) -> Any:
        result = run(sync, connect)
        diverged.resolve("order-sync", "theirs")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Sync, "run", decided_meanwhile)
        diverged.sync(full=True)
    assert diverged.open()["order-sync"].decision == "theirs"
    diverged.sync()
    assert diverged.open() == {}


def test_nothing_is_taken_from_a_source_that_is_only_pushed_to(diverged: Following) -> None:
    """A decision that no sync would carry out is refused when it is made."""
    diverged.change(direction=Direction.PUSH)
    with pytest.raises(GitstoreError, match="nothing is taken from this source"):
        diverged.resolve("order-sync", "theirs")


def test_keep_ours_is_remembered_until_theirs_moves(diverged: Following, upstream: Upstream) -> None:
    """The same difference is not brought up again; a new one is."""
    diverged.resolve("order-sync", "ours")
    diverged.sync()
    diverged.sync(full=True)
    assert diverged.open() == {}
    upstream.draft("order-sync", flow("https://again.example/"))
    diverged.sync()
    assert diverged.open()["order-sync"].code == "not_fast_forward"


def test_a_version_is_never_resolved(follow: Follow, upstream: Upstream) -> None:
    """Not by an owner either: the next number is the way."""
    upstream.version("order-sync", 1, BROKEN)
    following = follow()
    following.sync()
    with pytest.raises(Exception, match="publish the next number"):
        following.resolve("order-sync/v1", "theirs")
