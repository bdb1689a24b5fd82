"""Syncs with a real upstream by git over HTTP: imports and failures."""

from __future__ import annotations

from datetime import UTC, datetime

from gitstore.model import LedgerKind, Limits
from gitstore.upstream.refs import Layout
from gitstore.upstream.remote import Credential
from tests.sync.conftest import House
from tests.webhooks.followed_project import Follow, Following, versions
from tests.webhooks.upstream import TAGGED, Upstream, flow
from webhooks.source_sync import import_limits

# What comes


def test_tags_are_imported_in_ascending_order_with_gaps(follow: Follow, upstream: Upstream) -> None:
    """v1, v2 and v10 in one fetch: v10 is current, and the gap is reported."""
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
    published = following.query(
        "select data from gitstore.events where type = 'workflow.version.published' "
        "order by data->'version_number'"
    )
    assert [row["data"]["version_number"] for row in published] == [1, 2, 10]
    row = following.row()
    assert row.last_error is None
    assert row.report["gaps"] == {"order-sync": [[3, 9]]}


def test_the_ledger_keeps_tagger_time_and_message(follow: Follow, upstream: Upstream) -> None:
    """The actor is the source; without an annotated tag, the values of the commit count."""
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


def test_a_second_sync_fetches_no_objects(follow: Follow, upstream: Upstream) -> None:
    upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    before, events = following.state(), following.query("select id from gitstore.events")
    upstream.requests.clear()
    assert following.sync().published == {}
    assert [line.partition(" ")[0] for line in upstream.requests] == ["GET", "POST"]  # info/refs, ls-refs
    assert (following.state(), following.query("select id from gitstore.events")) == (before, events)
    upstream.version("order-sync", 2)
    assert following.sync().published == {"order-sync": [2]}


def test_drafts_are_created_and_fast_forwarded(follow: Follow, upstream: Upstream) -> None:
    """In the layout refs."""
    upstream.draft("order-sync", flow())
    following = follow()
    following.sync()
    tip = upstream.draft("order-sync", flow("https://b.example/"))
    result = following.sync()
    assert result.saved == ["order-sync"]
    assert following.house.store.state("order-sync").draft == tip
    (row,) = following.house.rows("workflow_versions")
    assert (row["state"], row["commit_sha"]) == ("draft", tip)


def test_a_local_draft_that_is_ahead_is_kept(follow: Follow, upstream: Upstream) -> None:
    """This is no divergence."""
    upstream.draft("order-sync", flow())
    following = follow()
    following.sync()
    ours = following.house.save("order-sync", "https://ours.example/")
    assert following.sync(full=True).diverged == {}
    assert following.house.store.state("order-sync").draft == ours


def test_a_draft_discarded_here_returns_when_it_moves_upstream(follow: Follow, upstream: Upstream) -> None:
    """Until then, each poll ignores it."""
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


def test_the_layout_folders_imports_tags_on_any_commit(follow: Follow, upstream: Upstream) -> None:
    """Symlinks and submodules beside workflows/ do no harm, and branches are ignored."""
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


def test_versions_need_no_common_history(follow: Follow, upstream: Upstream) -> None:
    """v2 may be on a commit that does not descend from v1's."""
    upstream.version("order-sync", 1)
    upstream.git("checkout", "-q", "--orphan", "fresh")
    upstream.version("order-sync", 2)
    following = follow()
    assert following.sync().published == {"order-sync": [1, 2]}
    assert versions(following, "order-sync") == [1, 2]


# What goes wrong


def test_a_failure_has_a_reason_and_is_retried(follow: Follow, upstream: Upstream) -> None:
    """At growing intervals; a success resets them."""
    upstream.version("order-sync", 1)
    upstream.broken = 503
    following = follow()
    for failures in (1, 2):
        following.sync()
        row = following.row()
        assert row.failures == failures
        protocol = "the upstream's answer is not git's smart HTTP protocol"
        assert row.last_error == f"{protocol}: unexpected http resp 503"
    (row_,) = following.query("select extract(epoch from due_at - now())::float8 as s from gitstore.sources")
    assert 8 < row_["s"] <= 11
    upstream.broken = None
    assert following.sync().published == {"order-sync": [1]}
    assert (following.row().failures, following.row().last_error) == (0, None)


def test_a_private_upstream_needs_a_credential(follow: Follow, upstream: Upstream) -> None:
    """No message contains it."""
    upstream.version("order-sync", 1)
    upstream.password = "correct-horse"
    following = follow()
    following.sync()
    assert following.row().last_error == "the upstream asks for a credential (401)"
    following.change(login=Credential("x", "battery-staple"))
    following.sync()
    assert following.row().last_error == "the upstream does not accept the credential (401)"
    following.change(login=Credential("x", "correct-horse"))
    assert following.sync().published == {"order-sync": [1]}
    rows = following.query("select * from gitstore.sources")
    assert "correct-horse" not in str([Credential("x", "correct-horse"), following.logged, rows])


def test_a_url_without_a_repository_is_a_failure_with_a_reason(follow: Follow, upstream: Upstream) -> None:
    following = follow()
    for suffix, words in (("-gone", "there is no repository"), ("/HEAD", "")):
        with following.database.as_owner() as tx:
            tx.run("update gitstore.sources set url = %(url)s", url=upstream.url + suffix)
        following.sync()
        assert words in (following.row().last_error or "nothing"), suffix


def test_a_pack_over_the_limit_is_refused(follow: Follow, upstream: Upstream) -> None:
    """Before it is unpacked."""
    upstream.commit("noise", "".join(f"{number * 7919}\n" for number in range(20_000)))
    upstream.version("order-sync", 1)
    following = follow(limits=import_limits(Limits(), 20_000))
    following.sync()
    assert following.open_divergences()["order-sync/v1"].code == "too_large"
    assert versions(following, "order-sync") == []


def test_a_contradicted_ledger_blocks_only_its_workflow(house: House, upstream: Upstream) -> None:
    """Someone created a tag by hand."""
    upstream.version("bad", 1)
    upstream.version("good", 1)
    following = Following(house, upstream.url)
    following.sync()
    house.git("update-ref", "refs/tags/bad/v7", house.git("rev-parse", "refs/tags/bad/v1"))
    upstream.version("bad", 9)
    upstream.version("good", 2)
    result = following.sync()
    assert result.published == {"good": [2]}
    assert "v7 has a tag that is not in the ledger" in (following.row().last_error or "")
    house.git("update-ref", "-d", "refs/tags/bad/v7")
    assert following.sync().published == {"bad": [9]}


def test_small_workflows_are_imported_in_one_transaction(follow: Follow, upstream: Upstream) -> None:
    """Their drafts follow in another."""
    sizes = {"invoices": 3, "orders": 2, "parcels": 1}
    for slug, count in sizes.items():
        upstream.many(slug, count)
        upstream.git("fetch", "-q", str(upstream.bare), f"refs/heads/{slug}")
        upstream.git("reset", "-q", "--hard", "FETCH_HEAD")
        upstream.draft(slug, flow("https://draft.example/"))
    following = follow()
    result = following.sync()
    assert (result.published, sorted(result.saved)) == (
        {slug: list(range(1, count + 1)) for slug, count in sizes.items()},
        sorted(sizes),
    )
    written = following.query(
        "select state, count(*) as rows, count(distinct xmin::text) as writes "
        "from gitstore.workflow_versions group by state order by state"
    )
    assert written == [
        {"state": "draft", "rows": 3, "writes": 1}, {"state": "published", "rows": 6, "writes": 1}
    ]  # fmt: skip


def test_a_sync_leaves_no_quarantine_and_no_lock(follow: Follow, upstream: Upstream) -> None:
    upstream.version("order-sync", 1)
    following = follow()
    following.sync()
    upstream.broken = 500
    following.sync()
    path = following.house.store.path
    assert not list((path / "objects").glob("tmp_*"))
    assert not list((path / "refs").rglob("*.lock"))
