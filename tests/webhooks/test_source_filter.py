"""The workflows and drafts that a source syncs, in both directions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gitstore.errors import MalformedError
from tests.sync.conftest import House
from tests.webhooks.followed_project import Follow, Following, versions
from tests.webhooks.upstream import Upstream, flow, upstream_in
from webhooks.sources import LONGEST_GLOB, MOST_GLOBS, Direction, Filter, check_globs

ORDERS = ("order-*", "refund?")


@pytest.mark.parametrize(
    ("ref", "included"),
    [
        ("refs/tags/order-sync/v1", True),
        ("refs/tags/order-/v1", True),
        ("refs/tags/orders/v1", False),
        ("refs/tags/my-order-sync/v1", False),
        ("refs/tags/refunds/v2", True),
        ("refs/tags/refund/v2", False),
        ("refs/heads/drafts/order-sync", False),
        # names that only look like those of versions
        ("refs/tags/Order_Sync/v1", True),
        ("refs/tags/order-sync/v01", True),
        (f"refs/tags/order-{'a' * 99}/v1", True),
        ("refs/tags/Billing/v1", False),
        ("refs/tags/release/v1.2.3", False),
    ],
)
def test_a_filter_selects_refs_by_slug(ref: str, included: bool) -> None:
    assert Filter(ORDERS).includes(ref.encode()) is included
    everything = Filter()
    assert everything.includes(ref.encode()) is not ref.startswith("refs/heads/")
    assert Filter(drafts=True).includes(ref.encode())


@pytest.mark.parametrize(
    "globs", [["*a" * 31 + "b"], ["*" * 63], ["?*" * 31], ["a*" * 31] * MOST_GLOBS, ["*-*-*-*-*-*-*-x"]]
)
def test_no_glob_makes_a_match_slow(globs: list[str]) -> None:
    """A match takes linear time for each `*`, whatever the name."""
    started = time.perf_counter()
    for name in ("a" * 500, "a-" * 250, "ab" * 250):
        Filter(globs).includes(f"refs/tags/{name}/v1".encode())
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    "globs",
    [
        [], [""], ["Order-*"], ["a b"], ["a/b"], ["[a-z]*"], ["a" * (LONGEST_GLOB + 1)], ["a\n"], ["\u0430*"],
        ["ok", "{a,b}"], [f"a{number}" for number in range(MOST_GLOBS + 1)],
    ],
)  # fmt: skip
def test_an_invalid_glob_is_refused(globs: list[str]) -> None:
    with pytest.raises(MalformedError, match="glob"):
        check_globs(globs)


def test_repeated_globs_are_stored_once() -> None:
    assert check_globs(["b", "*a?", "b"]) == ["b", "*a?"]


def test_only_selected_workflows_are_imported(follow: Follow, upstream: Upstream) -> None:
    """The others are neither reported as misnamed nor, once they are left out, as deleted."""
    for slug in ("order-sync", "refunds", "billing"):
        upstream.version(slug, 1)
        upstream.draft(slug, flow(f"https://{slug}.example/"))
    upstream.tag("Billing/v9")
    upstream.tag("Order-Sync/v9")
    following = follow(workflows=ORDERS)
    following.sync()
    store = following.house.store
    assert sorted(store.slugs()) == ["order-sync", "refunds"]
    assert list(following.open_divergences()) == ["Order-Sync/v9"]
    following.change(workflows=["refunds"])
    assert following.sync().error is None
    assert following.open_divergences() == {}
    following.change(workflows=["*"])
    assert following.sync().published == {"billing": [1]}
    assert sorted(following.open_divergences()) == ["Billing/v9", "Order-Sync/v9"]


def test_drafts_are_left_out_in_both_directions(follow: Follow, upstream: Upstream, house: House) -> None:
    """Those that were imported before stay, and their divergences are closed."""
    upstream.version("order-sync", 1)
    upstream.draft("order-sync", flow("https://theirs.example/"))
    house.save("refunds")
    following = follow(direction=Direction.BOTH, drafts=False)
    result = following.sync()
    assert (result.published, result.saved, result.pushed) == ({"order-sync": [1]}, [], [])
    following.change(drafts=True)
    result = following.sync()
    assert (result.saved, result.pushed) == (["order-sync"], ["refs/heads/drafts/refunds"])
    house.save("order-sync", "https://ours.example/")
    upstream.draft("order-sync", flow("https://moved.example/"))
    following.sync()
    assert list(following.open_divergences()) == ["order-sync"]
    following.change(drafts=False)
    result = following.sync()
    assert (result.error, result.pushed, following.open_divergences()) == (None, [], {})
    assert house.store.state("order-sync").draft_open


@pytest.mark.parametrize("direction", [Direction.PUSH, Direction.BOTH])
def test_only_selected_workflows_are_pushed(
    follow: Follow, upstream: Upstream, house: House, direction: Direction
) -> None:
    for slug in ("order-sync", "refunds", "billing"):
        house.publish(slug)
        house.save(slug, "https://open.example/")
    following = follow(direction=direction, workflows=ORDERS)
    following.sync()
    assert sorted(upstream.refs()) == [
        "refs/heads/drafts/order-sync", "refs/heads/drafts/refunds",
        "refs/tags/order-sync/v1", "refs/tags/refunds/v1",
    ]  # fmt: skip


def test_a_version_deleted_upstream_is_still_known_after_it_was_left_out(
    follow: Follow, upstream: Upstream, house: House
) -> None:
    """It is reported then, and not pushed again."""
    house.publish("order-sync")
    following = follow(direction=Direction.BOTH)
    following.sync()
    following.change(workflows=["billing"])
    following.sync()
    upstream.in_bare("update-ref", "-d", "refs/tags/order-sync/v1")
    following.change(workflows=["*"])
    assert following.sync().pushed == []
    assert following.open_divergences()["order-sync/v1"].code == "deleted_upstream"


@pytest.fixture
def two(
    house: House, upstream: Upstream, ram_path: Path
) -> Iterator[Callable[..., tuple[Following, Upstream]]]:
    """Follow a second upstream."""
    with ExitStack() as stack:

        def make(**options: object) -> tuple[Following, Upstream]:
            second = stack.enter_context(upstream_in(ram_path / "second"))
            return Following(house, second.url, **options), second  # type: ignore[arg-type]

        yield make


def test_workflows_of_another_source_are_not_pushed_to_this_one(
    follow: Follow, upstream: Upstream, house: House, two: Callable[..., tuple[Following, Upstream]]
) -> None:
    """Neither versions nor drafts, nor what is published here on top; a `push` source receives it all."""
    upstream.version("order-sync", 1)
    upstream.draft("refunds", flow())
    first = follow(direction=Direction.BOTH)
    first.sync()
    house.publish("order-sync", "https://ours.example/")
    house.publish("billing")
    second, other = two(direction=Direction.BOTH)
    other.version("payroll", 1)
    second.sync()
    assert sorted(other.refs()) == ["refs/tags/billing/v1", "refs/tags/payroll/v1"]
    assert versions(second, "payroll") == [1]
    first.sync()
    assert sorted(upstream.refs()) == [
        "refs/heads/drafts/refunds", "refs/tags/billing/v1", "refs/tags/order-sync/v1",
        "refs/tags/order-sync/v2",
    ]  # fmt: skip
    second.change(direction=Direction.PUSH)
    second.sync()
    assert "refs/tags/order-sync/v2" in other.refs()
