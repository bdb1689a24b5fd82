"""A project follows a real upstream, by git over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gitstore.errors import GitstoreError
from gitstore.model import LedgerKind, Limits
from gitstore.offers import Layout
from gitstore.upstream import Credential
from sync.verify import verify
from tests.sync.conftest import House
from tests.webhooks.sourcing import Following, versions
from tests.webhooks.upstreams import BROKEN, TAGGED, Upstream, flow, upstream_in
from webhooks.following import import_limits
from webhooks.sources import Direction
from webhooks.syncing import Sync


@pytest.fixture
def upstream(ram_path: Path) -> Iterator[Upstream]:
    with upstream_in(ram_path / "upstream") as made:
        yield made


Follow = Callable[..., Following]


@pytest.fixture
def follow(house: House, upstream: Upstream) -> Iterator[Follow]:
    """Makes the house follow the upstream; whatever the test did, rows and Git agree at the end."""

    def make(**options: Any) -> Following:
        return Following(house, upstream.url, **options)

    yield make
    assert [str(finding) for finding in verify(house.database, house.store)] == []


# What comes


def test_tags_become_versions_in_ascending_order_with_their_gaps(follow: Follow, upstream: Upstream) -> None:
    """v1, v2 and v10 arrive in one fetch: three versions, the newest is current, the gap is told."""
    for number in (1, 2, 10):
        upstream.version("order-sync", number)
    following = follow()
    result = following.sync()
    assert result.published == {"order-sync": [1, 2, 10]}
    assert result.gaps == {"order-sync": [(3, 9)]}
    state = following.house.store.state("order-sync")
    assert (state.latest, state.current) == (10, 10)
    rows = [row for row in following.house.rows("workflow_versions") if row["state"] == "published"]
    assert sorted(row["version_number"] for row in rows) == [1, 2, 10]
    published = following.ask(
        "select data from gitstore.events where type = 'workflow.version.published' "
        "order by data->'version_number'"
    )
    assert [row["data"]["version_number"] for row in published] == [1, 2, 10]
    row = following.row()
    assert row.last_error is None
    assert row.report["gaps"] == {"order-sync": [[3, 9]]}


def test_the_ledger_keeps_who_published_upstream_when_and_why(follow: Follow, upstream: Upstream) -> None:
    """The actor is the source; tagger, time and message are those of the tag, else those of the commit."""
    upstream.version("order-sync", 1, message="Ship the new warehouse")
    upstream.version("order-sync", 2, lightweight=True)
    following = follow()
    following.sync()
    second, first = (
        entry for entry in following.house.store.ledger("order-sync") if entry.kind is LedgerKind.PUBLISHED
    )
    assert first.actor.name == "source:" + upstream.url.removeprefix("http://")
    assert first.actor.email == f"{following.source.id}@sources.gitstore"
    assert (first.message, first.tagger and first.tagger.name) == ("Ship the new warehouse", "Ann")
    assert first.tagged_at is not None
    assert TAGGED < first.tagged_at.timestamp() < TAGGED + 100
    assert (second.message, second.tagger and second.tagger.email) == ("Change it", "ann@example.test")
    (row,) = [row for row in following.house.rows("workflow_versions") if row["version_number"] == 1]
    assert row["published_by"] == first.actor.name
    assert row["message"] == "Ship the new warehouse"
    assert row["created_at"] < datetime(2024, 1, 1, tzinfo=UTC)


def test_a_second_sync_asks_for_refs_and_fetches_nothing(follow: Follow, upstream: Upstream) -> None:
    """What is here is not fetched again, and nothing happens twice."""
    upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    before, events = following.state(), following.ask("select id from gitstore.events")
    upstream.requests.clear()
    assert following.sync().published == {}
    assert [line.partition(" ")[0] for line in upstream.requests] == ["GET", "POST"]  # info/refs, ls-refs
    assert (following.state(), following.ask("select id from gitstore.events")) == (before, events)
    upstream.version("order-sync", 2)
    assert following.sync().published == {"order-sync": [2]}


def test_drafts_are_created_and_fast_forwarded(follow: Follow, upstream: Upstream) -> None:
    """In the layout refs, the upstream's draft is ours, as far as ours is behind it."""
    upstream.draft("order-sync", flow())
    following = follow()
    following.sync()
    tip = upstream.draft("order-sync", flow("https://b.example/"))
    result = following.sync()
    assert result.saved == ["order-sync"]
    assert following.house.store.state("order-sync").draft == tip
    (row,) = following.house.rows("workflow_versions")
    assert (row["state"], row["commit_sha"]) == ("draft", tip)


def test_a_draft_that_is_ahead_here_stays(follow: Follow, upstream: Upstream) -> None:
    """An upstream that is behind is no reason to go back, and no divergence."""
    upstream.draft("order-sync", flow())
    following = follow()
    following.sync()
    ours = following.house.save("order-sync", "https://ours.example/")
    assert following.sync(full=True).found == {}
    assert following.house.store.state("order-sync").draft == ours


def test_a_draft_discarded_here_does_not_come_back_until_it_moves_there(
    follow: Follow, upstream: Upstream
) -> None:
    """Each poll sees it upstream, unchanged: that is no news."""
    upstream.draft("order-sync", flow())
    following = follow()
    following.sync()
    following.house.store.discard_draft("order-sync", following.house.who)
    following.sync()
    following.sync(full=True)
    assert following.house.store.state("order-sync").draft is None
    tip = upstream.draft("order-sync", flow("https://b.example/"))
    following.sync()
    assert following.house.store.state("order-sync").draft == tip


def test_the_layout_folders_takes_tags_on_any_commit(follow: Follow, upstream: Upstream) -> None:
    """A team's repository: symlinks and submodules beside workflows/ do no harm, branches are its own."""
    (upstream.tree / "workflows").mkdir()
    (upstream.tree / "link").symlink_to("workflows")
    upstream.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendor/lib")
    upstream.version("order-sync", 1, path="workflows/order-sync/workflow.yaml")
    upstream.version(
        "refunds",
        1,
        path="workflows/refunds/workflow.json",
        content='{"nodes": [{"id": "a", "type": "webhook"}]}',
    )
    upstream.draft("order-sync", flow("https://draft.example/"), path="workflows/order-sync/workflow.yaml")
    upstream.push("main")
    following = follow(layout=Layout.FOLDERS)
    result = following.sync()
    assert result.published == {"order-sync": [1], "refunds": [1]}
    assert result.saved == []
    assert following.house.store.version("order-sync", 1).snapshot.file_name == "workflow.yaml"


def test_a_version_of_another_branch_needs_no_common_history(follow: Follow, upstream: Upstream) -> None:
    """Upstream, v2 may be on a commit that does not descend from v1's: it was published there."""
    upstream.version("order-sync", 1)
    upstream.git("checkout", "-q", "--orphan", "fresh")
    upstream.version("order-sync", 2)
    following = follow()
    assert following.sync().published == {"order-sync": [1, 2]}
    assert versions(following, "order-sync") == [1, 2]


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
    assert any("v2" in line and "its tag is gone" in line for line in found), found


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


# What goes wrong


def test_a_failure_is_told_in_words_and_tried_again(follow: Follow, upstream: Upstream) -> None:
    """At growing intervals; the first success forgets it."""
    upstream.version("order-sync", 1)
    upstream.broken = 503
    following = follow()
    for failures in (1, 2):
        following.sync()
        row = following.row()
        assert row.failures == failures
        assert row.last_error == "the other side did not answer as git does: unexpected http resp 503"
    (row_,) = following.ask("select extract(epoch from due_at - now())::float8 as s from gitstore.sources")
    assert 8 < row_["s"] <= 11
    upstream.broken = None
    assert following.sync().published == {"order-sync": [1]}
    assert (following.row().failures, following.row().last_error) == (0, None)


def test_a_credential_opens_and_its_absence_is_told(follow: Follow, upstream: Upstream) -> None:
    """Never with the secret in the words."""
    upstream.version("order-sync", 1)
    upstream.password = "correct-horse"
    following = follow()
    following.sync()
    assert following.row().last_error == "the other side asks for a credential (401)"
    following.change(login=Credential("x", "battery-staple"))
    following.sync()
    assert following.row().last_error == "the other side does not accept the credential (401)"
    following.change(login=Credential("x", "correct-horse"))
    assert following.sync().published == {"order-sync": [1]}
    rows = following.ask("select * from gitstore.sources")
    assert "correct-horse" not in str([Credential("x", "correct-horse"), following.told, rows])


def test_an_address_without_git_is_told(follow: Follow, upstream: Upstream) -> None:
    """404, and what is no repository."""
    following = follow()
    for suffix, words in (("-gone", "there is no repository"), ("/HEAD", "")):
        with following.database.as_owner() as tx:
            tx.run("update gitstore.sources set url = %(url)s", url=upstream.url + suffix)
        following.sync()
        assert words in (following.row().last_error or "nothing"), suffix


def test_an_upstream_larger_than_the_limit_is_refused(follow: Follow, upstream: Upstream) -> None:
    """By the size of its pack, before anything is unpacked."""
    upstream.commit("noise", "".join(f"{number * 7919}\n" for number in range(20_000)))
    upstream.version("order-sync", 1)
    following = follow(limits=import_limits(Limits(), 20_000))
    following.sync()
    assert following.open()["order-sync/v1"].code == "too_large"
    assert versions(following, "order-sync") == []


def test_a_workflow_whose_ledger_is_contradicted_waits_alone(house: House, upstream: Upstream) -> None:
    """Somebody made a tag by hand: nothing is published there, everything else comes."""
    upstream.version("bad", 1)
    upstream.version("good", 1)
    following = Following(house, upstream.url)
    following.sync()
    house.git("update-ref", "refs/tags/bad/v7", house.git("rev-parse", "refs/tags/bad/v1"))
    upstream.version("bad", 9)
    upstream.version("good", 2)
    result = following.sync()
    assert result.published == {"good": [2]}
    assert "v7 has a tag that the ledger does not know" in (following.row().last_error or "")
    house.git("update-ref", "-d", "refs/tags/bad/v7")
    assert following.sync().published == {"bad": [9]}


def test_nothing_is_left_behind(follow: Follow, upstream: Upstream) -> None:
    """No quarantine, no lock, whether it worked or not."""
    upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    upstream.broken = 500
    following.sync()
    path = following.house.store.path
    assert not list((path / "objects").glob("tmp_*"))
    assert not list((path / "refs").rglob("*.lock"))
