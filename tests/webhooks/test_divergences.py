"""Divergences: a differing ref is reported once and not applied; an owner may decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gitstore.errors import ConflictError, GitstoreError, MalformedError
from gitstore.model import LedgerKind
from gitstore.upstream.refs import Layout
from sync import catalog, projects, rows
from sync.integrity.rebuild import rebuild
from sync.integrity.verify import verify
from tests.sync.conftest import House
from tests.webhooks.followed_project import Follow, Following, versions
from tests.webhooks.upstream import BROKEN, Upstream, flow
from webhooks.ref_sync import Sync
from webhooks.sources import Direction

# What does not come


def test_a_tag_moved_or_deleted_upstream_is_reported_and_not_applied(
    follow: Follow, upstream: Upstream
) -> None:
    """One row and one event each."""
    ours = upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    before = following.state()
    upstream.commit("workflow.yaml", flow("https://moved.example/"))
    theirs = upstream.tag("order-sync/v1", "-f")
    for _ in range(3):
        following.sync()
    (divergence,) = following.open_divergences().values()
    assert (divergence.ours, divergence.theirs, divergence.code) == (ours, theirs, "version_immutable")
    assert divergence.reason == "v1 is published here with other content and cannot change"
    upstream.push(":refs/tags/order-sync/v1")
    for _ in range(3):
        following.sync()
    (divergence,) = following.open_divergences().values()
    assert (divergence.ours, divergence.theirs, divergence.code) == (ours, None, "deleted_upstream")
    assert [event["code"] for event in following.diverged_events()] == [
        "version_immutable",
        "deleted_upstream",
    ]
    assert following.state() == before


def test_a_tag_that_only_looks_like_a_version_is_reported(follow: Follow, upstream: Upstream) -> None:
    """Once, with what is wrong with its name, until it is gone. The versions beside it are imported."""
    upstream.version("order-sync", 1)
    for name in ("Order-Sync/v1", "order_sync/v1", "order-sync/V2", "order-sync/v03", f"{'a' * 64}/v1"):
        upstream.tag(name)
    upstream.tag("release/v1.2.3")
    following = follow()
    for full in (False, False, True):
        assert following.sync(full=full).error is None
    assert versions(following, "order-sync") == [1]
    found = following.open_divergences()
    assert sorted(found) == [
        "Order-Sync/v1", f"{'a' * 64}/v1", "order-sync/V2", "order-sync/v03", "order_sync/v1",
    ]  # fmt: skip
    assert {(one.code, one.version_number, one.ours) for one in found.values()} == {
        ("invalid_name", None, None)
    }
    assert found["Order-Sync/v1"].theirs == upstream.refs()["refs/tags/Order-Sync/v1"]
    assert found["Order-Sync/v1"].reason.startswith(
        "not imported: 'Order-Sync' is not a slug: use 1 to 63 of a-z"
    )
    assert found["order-sync/v03"].reason.startswith("not imported: 'v03' is not a version: use v1 to ")
    assert len(following.diverged_events()) == 5
    upstream.push(":refs/tags/Order-Sync/v1")
    following.sync()
    assert len(following.open_divergences()) == 4


def test_misnamed_refs_are_listed_last(follow: Follow, upstream: Upstream) -> None:
    """However many there are, and wherever they sort, they hide no other divergence."""
    upstream.without_definition("order-sync", 1)
    for name in ("A/v1", "order-sync/V2", "order-sync/v0"):
        upstream.tag(name)
    following = follow()
    following.sync()
    assert list(following.open_divergences()) == ["order-sync/v1", "A/v1", "order-sync/V2", "order-sync/v0"]


def test_a_divergence_ends_when_both_sides_agree_again(follow: Follow, upstream: Upstream) -> None:
    ours = upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    upstream.in_bare("update-ref", "-d", "refs/tags/order-sync/v1")
    following.sync()
    assert following.open_divergences()
    upstream.in_bare("update-ref", "refs/tags/order-sync/v1", ours)
    following.sync()
    assert following.open_divergences() == {}
    (row,) = following.query("select resolution from gitstore.divergences")
    assert row["resolution"] == "gone"


def test_a_refused_tag_does_not_block_others(follow: Follow, upstream: Upstream) -> None:
    """No definition in v3 and a tag on a blob: v1 and v5 are imported."""
    upstream.version("order-sync", 1)
    upstream.without_definition("order-sync", 3)
    blob = upstream.git("hash-object", "-w", "--stdin", input=b"a blob")
    upstream.git("tag", "order-sync/v4", blob)
    upstream.push("refs/tags/order-sync/v4")
    upstream.version("order-sync", 5)
    following = follow()
    result = following.sync()
    assert result.published == {"order-sync": [1, 5]}
    assert {ref: divergence.code for ref, divergence in following.open_divergences().items()} == {
        "order-sync/v3": "definition_missing",
        "order-sync/v4": "ref_not_accepted",
    }
    assert following.row().last_error is None


# (content, path, problem, digest and JSON exist)
INVALID = [
    (BROKEN, "workflow.yaml", "1 problem: a workflow needs at least one node", True),
    ("nodes: [", "workflow.yaml", "1 problem: line ", False),
    ("[]", "workflow.yml", "1 problem: line 1, column 1: the document must be a mapping", False),
    ("{", "workflow.json", "1 problem: line 1", False),
]


@pytest.mark.parametrize(("content", "path", "problem", "parses"), INVALID)
def test_an_invalid_version_is_recorded_and_not_current(
    follow: Follow, upstream: Upstream, content: str, path: str, problem: str, parses: bool
) -> None:
    """v2 stays current while v3 is blocked; a valid v4 becomes current. A rebuild gives the same rows."""
    upstream.version("order-sync", 1)
    upstream.version("order-sync", 2)
    upstream.git("rm", "-q", "workflow.yaml")
    upstream.version("order-sync", 3, content, path=path)
    following = follow()
    assert following.sync().published == {"order-sync": [1, 2, 3]}
    assert following.open_divergences() == {}
    house = following.house
    with house.database.as_owner() as tx:
        workflow = catalog.workflow_by_slug(tx, house.project, "order-sync")
        assert workflow is not None
        third = catalog.full_version(tx, workflow.id, 3)
    assert third is not None
    assert (workflow.current_number, workflow.latest_number, workflow.blocked_number) == (2, 3, 3)
    assert workflow.blocked_reason is not None
    assert workflow.blocked_reason.startswith(problem)
    assert (third.valid, third.invalid_reason) == (False, workflow.blocked_reason)
    assert (third.definition is not None, third.digest is not None) == (parses, parses)
    assert house.store.objects.blob(third.blob_sha.encode()) == content.encode()
    upstream.git("rm", "-q", path)
    upstream.version("order-sync", 4)
    following.sync()
    with house.database.as_owner() as tx:
        workflow = catalog.workflow_by_slug(tx, house.project, "order-sync")
    assert workflow is not None
    assert (workflow.current_number, workflow.blocked_number) == (4, None)
    assert list(verify(house.database, house.store)) == []
    before = house.mirrored()
    house.tamper("update gitstore.workflow_versions set valid = true, invalid_reason = null")
    rebuild(house.database, [house.store])
    assert house.mirrored() == before


def test_an_invalid_version_becomes_current_where_the_project_says_so(
    follow: Follow, upstream: Upstream
) -> None:
    upstream.version("order-sync", 1)
    upstream.version("order-sync", 2, BROKEN)
    following = follow()
    with following.house.database.as_owner() as tx:
        projects.change(tx, following.house.project, activate_invalid=True)
    following.sync()
    with following.house.database.as_owner() as tx:
        workflow = catalog.workflow_by_slug(tx, following.house.project, "order-sync")
    assert workflow is not None
    assert (workflow.current_number, workflow.blocked_number) == (2, None)


def test_a_number_that_was_used_before_is_refused(follow: Follow, upstream: Upstream) -> None:
    """Even if its version is missing in the repository: the database keeps the highest number."""
    upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    with following.house.database.as_owner() as tx:
        rows.raise_mark(tx, following.house.store, "order-sync", 6)
    for number in (4, 6, 7):
        upstream.version("order-sync", number)
    assert following.sync().published == {"order-sync": [7]}
    assert {ref: divergence.code for ref, divergence in following.open_divergences().items()} == {
        "order-sync/v4": "wrong_number",
        "order-sync/v6": "wrong_number",
    }
    assert "numbers up to v6 were assigned before" in following.open_divergences()["order-sync/v4"].reason


def test_a_number_below_the_latest_is_refused(follow: Follow, upstream: Upstream) -> None:
    upstream.version("order-sync", 1)
    upstream.version("order-sync", 3)
    following = follow()
    following.sync()
    upstream.version("order-sync", 2)
    following.sync()
    assert following.open_divergences()["order-sync/v2"].code == "wrong_number"
    assert versions(following, "order-sync") == [1, 3]


def test_the_first_cause_of_a_divergence_is_kept(follow: Follow, upstream: Upstream) -> None:
    """Not that the tag is meanwhile below the latest version. If the tag moves, the new cause counts."""
    upstream.without_definition("order-sync", 1)
    upstream.version("order-sync", 2)
    following = follow()
    assert following.sync().published == {"order-sync": [2]}
    first = following.open_divergences()["order-sync/v1"]
    assert first.code == "definition_missing"
    upstream.version("order-sync", 3)
    again = following.sync(full=True)
    assert again.diverged["refs/tags/order-sync/v1"].reason == first.reason
    kept = following.open_divergences()["order-sync/v1"]
    assert (kept.id, kept.code, kept.reason) == (first.id, first.code, first.reason)
    assert len(following.diverged_events()) == 1
    upstream.commit("workflow.yaml", flow("https://late.example/"))
    upstream.tag("order-sync/v1", "-f")
    following.sync()
    moved = following.open_divergences()["order-sync/v1"]
    assert (moved.id, moved.code) == (first.id, "wrong_number")


def test_a_corrected_tag_is_imported(follow: Follow, upstream: Upstream) -> None:
    """As long as no later version is here, a tag that was never published here may move."""
    upstream.without_definition("order-sync", 1)
    following = follow()
    following.sync()
    assert following.open_divergences()["order-sync/v1"].code == "definition_missing"
    upstream.commit("workflow.yaml", flow())
    upstream.tag("order-sync/v1", "-f")
    assert following.sync().published == {"order-sync": [1]}
    assert following.open_divergences() == {}


def test_the_layout_folders_refuses_a_definition_at_the_root(follow: Follow, upstream: Upstream) -> None:
    """It would count as the definition of every workflow."""
    upstream.write("workflow.yaml", flow())
    upstream.version("order-sync", 1, path="workflows/order-sync/workflow.yaml")
    following = follow(layout=Layout.FOLDERS)
    following.sync()
    assert "at the root" in following.open_divergences()["order-sync/v1"].reason


def test_refused_objects_block_only_the_tags_that_need_them(follow: Follow, upstream: Upstream) -> None:
    """One workflow has a tree with a file .git in its history."""
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
    assert following.open_divergences()["bad/v1"].code == "objects_refused"
    upstream.requests.clear()
    following.sync()
    assert len(upstream.requests) == 2  # what is refused is not fetched again and again


def test_a_lost_version_before_a_gap_is_detected(house: House, upstream: Upstream) -> None:
    """By the ledger alone: v5 was imported after v2."""
    for number in (1, 2, 5):
        upstream.version("order-sync", number)
    Following(house, upstream.url).sync()
    assert list(verify(house.database, house.store)) == []
    house.git("update-ref", "-d", "refs/tags/order-sync/v2")
    assert house.tamper("delete from gitstore.workflow_versions where version_number = 2")
    findings = [str(finding) for finding in verify(house.database, house.store)]
    assert any("v2" in line and "its tag is missing" in line for line in findings), findings


# Diverged drafts


@pytest.fixture
def diverged(follow: Follow, upstream: Upstream) -> Following:
    upstream.draft("order-sync", flow())
    following = follow()
    following.sync()
    following.house.save("order-sync", "https://ours.example/")
    upstream.draft("order-sync", flow("https://theirs.example/"))
    following.sync()
    return following


def test_a_diverged_draft_is_reported_and_not_changed(diverged: Following, upstream: Upstream) -> None:
    """With both ids, the reason and the time."""
    divergence = diverged.open_divergences()["order-sync"]
    assert divergence.code == "not_fast_forward"
    assert divergence.ours == diverged.house.store.state("order-sync").draft
    assert divergence.theirs == upstream.refs()["refs/heads/drafts/order-sync"]
    diverged.sync()
    again = diverged.open_divergences()["order-sync"]
    assert (again.id, again.first_seen_at) == (divergence.id, divergence.first_seen_at)
    (event,) = diverged.diverged_events()
    assert (event["ref"], event["version_number"]) == ("refs/heads/drafts/order-sync", None)


def test_theirs_replaces_the_draft_and_ours_is_superseded(diverged: Following, upstream: Upstream) -> None:
    """The ledger records who decided."""
    ours = diverged.open_divergences()["order-sync"].ours
    assert ours is not None
    diverged.resolve("order-sync", "theirs")
    assert diverged.due()
    diverged.sync()
    store = diverged.house.store
    assert store.state("order-sync").draft == upstream.refs()["refs/heads/drafts/order-sync"]
    assert ours in diverged.house.git("for-each-ref", "--format=%(objectname)", "refs/superseded")
    entry = next(entry for entry in store.ledger("order-sync") if entry.kind is LedgerKind.DISCARDED)
    assert "ada chose the draft of" in entry.message
    assert diverged.open_divergences() == {}
    (row,) = diverged.query("select resolution, decided_by from gitstore.divergences")
    assert (row["resolution"], row["decided_by"]) == ("theirs", "ada")


def test_a_decision_is_void_if_the_draft_moves_first(diverged: Following, upstream: Upstream) -> None:
    diverged.resolve("order-sync", "theirs")
    ours = diverged.house.save("order-sync", "https://newer.example/")
    diverged.sync()
    assert diverged.house.store.state("order-sync").draft == ours
    assert diverged.open_divergences()["order-sync"].decision is None


def test_a_decision_that_fails_is_cleared(diverged: Following, upstream: Upstream) -> None:
    """The draft upstream does not parse: an owner may decide again."""
    ours = diverged.house.store.state("order-sync").draft
    upstream.draft("order-sync", "nodes: [")
    diverged.sync()
    diverged.resolve("order-sync", "theirs")
    diverged.sync()
    divergence = diverged.open_divergences()["order-sync"]
    assert (divergence.code, divergence.decision) == ("definition_unparsable", None)
    assert diverged.house.store.state("order-sync").draft == ours
    diverged.resolve("order-sync", "ours")
    diverged.sync()
    assert diverged.open_divergences() == {}


def test_a_decision_made_during_a_sync_is_left_to_the_next_sync(
    diverged: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running sync does not clear it."""
    run = Sync.run

    def decided_meanwhile(sync: Sync, connect: Any) -> Any:
        result = run(sync, connect)
        diverged.resolve("order-sync", "theirs")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Sync, "run", decided_meanwhile)
        diverged.sync(full=True)
    assert diverged.open_divergences()["order-sync"].decision == "theirs"
    diverged.sync()
    assert diverged.open_divergences() == {}


def test_theirs_is_refused_for_a_push_only_source(diverged: Following) -> None:
    diverged.change(direction=Direction.PUSH)
    with pytest.raises(GitstoreError, match="this source is push-only"):
        diverged.resolve("order-sync", "theirs")


def test_ours_holds_until_theirs_moves(diverged: Following, upstream: Upstream) -> None:
    """The same divergence is not reported again."""
    diverged.resolve("order-sync", "ours")
    diverged.sync()
    diverged.sync(full=True)
    assert diverged.open_divergences() == {}
    upstream.draft("order-sync", flow("https://again.example/"))
    diverged.sync()
    assert diverged.open_divergences()["order-sync"].code == "not_fast_forward"


@pytest.mark.parametrize("take", ["theirs", "ours"])
def test_a_diverged_version_is_not_overwritten(follow: Follow, upstream: Upstream, take: str) -> None:
    upstream.without_definition("order-sync", 1)
    following = follow()
    following.sync()
    with pytest.raises(ConflictError, match="publish the next version, or acknowledge"):
        following.resolve("order-sync/v1", take)


# Acknowledged tags


def _moved(upstream: Upstream) -> None:
    upstream.commit("workflow.yaml", flow("https://moved.example/"))
    upstream.tag("order-sync/v1", "-f")


def _deleted(upstream: Upstream) -> None:
    upstream.push(":refs/tags/order-sync/v1")


def _refused(upstream: Upstream) -> None:
    upstream.without_definition("order-sync", 2)


def _misnamed(upstream: Upstream) -> None:
    upstream.tag("Order-Sync/v1")


@pytest.mark.parametrize("diverge", [_moved, _deleted, _refused, _misnamed])
def test_an_acknowledged_tag_is_not_reported_again(
    follow: Follow, upstream: Upstream, diverge: Callable[[Upstream], None]
) -> None:
    """Not by a full sync either, until it moves upstream. Nothing is changed on either side."""
    upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    diverge(upstream)
    following.sync()
    before, there = following.state(), upstream.refs()
    (ref,) = following.open_divergences()
    resolved = following.resolve(ref, "acknowledge")
    assert (resolved.resolution, resolved.decided_by) == ("ours", "ada")
    for full in (False, True, False):
        following.sync(full=full)
        assert following.open_divergences() == {}
    assert len(following.diverged_events()) == 1
    assert (following.state(), upstream.refs()) == (before, there)
    upstream.git("commit", "-q", "--allow-empty", "-m", "Move it")
    upstream.tag(ref, "-f")
    following.sync()
    assert list(following.open_divergences()) == [ref]


def test_an_acknowledged_tag_is_reported_when_our_side_moves(follow: Follow, upstream: Upstream) -> None:
    upstream.without_definition("order-sync", 1)
    following = follow()
    following.sync()
    following.resolve("order-sync/v1", "acknowledge")
    assert following.house.publish("order-sync") == 1
    following.sync()
    assert following.open_divergences()["order-sync/v1"].code == "version_immutable"


def test_the_divergence_of_a_draft_is_not_acknowledged(diverged: Following) -> None:
    """It asks for a decision; a misnamed ref for no other."""
    with pytest.raises(MalformedError, match="choose ours or theirs"):
        diverged.resolve("order-sync", "acknowledge")


@pytest.mark.parametrize("take", ["theirs", "ours"])
def test_a_misnamed_ref_is_only_acknowledged(follow: Follow, upstream: Upstream, take: str) -> None:
    upstream.draft("Order-Sync", flow())
    following = follow()
    following.sync()
    with pytest.raises(MalformedError, match="choose acknowledge"):
        following.resolve("Order-Sync", take)
