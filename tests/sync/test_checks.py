"""Verify passes over what it found in order; a full verify and a rebuild continue after they were killed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

import pytest

from gitstore.repository import Repository
from sync.db import Database
from sync.integrity import processes, rebuild, verify
from sync.integrity.differences import Finding
from tests.sync.conftest import House

SLUGS = ("invoices", "order-sync", "returns")


@pytest.fixture
def shop(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """Three workflows, and a group for each."""
    monkeypatch.setattr(processes, "GROUP", 1)
    for slug in SLUGS:
        house.publish(slug, f"https://{slug}.example/")
    return house


def verified(house: House, *, full: bool = False) -> tuple[list[str], list[Finding]]:
    """The workflows that a run compares, and what it finds."""
    compared: list[str] = []
    compare = verify._verify_group

    def noted(database: Database, repository: Repository, slugs: Sequence[str]) -> verify._Group:
        compared.extend(slugs)
        return compare(database, repository, slugs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "_verify_group", noted)
        found = list(verify.verify(house.database, house.store, full=full))
    return compared, found


def test_only_workflows_that_changed_are_compared_again(shop: House) -> None:
    assert verified(shop) == ([*SLUGS], [])
    assert verified(shop) == ([], [])
    shop.publish("order-sync", "https://v2.example/")
    assert verified(shop) == (["order-sync"], [])
    shop.save("returns", "https://draft.example/")
    assert verified(shop) == (["returns"], [])
    shop.publish("new", "https://new.example/")
    assert verified(shop) == (["new"], [])
    assert verified(shop, full=True) == ([*sorted([*SLUGS, "new"])], [])


EDITS: tuple[LiteralString, ...] = (
    "update gitstore.workflow_versions set message = 'x' where version_number = 1",
    "update gitstore.workflows set description = 'x'",
)


def test_a_row_edited_by_hand_is_found_and_stays_found(shop: House) -> None:
    for edit in EDITS:
        assert verified(shop)[1] == []
        shop.tamper(edit)
        compared, found = verified(shop)
        assert compared == [*SLUGS]
        assert {finding.workflow for finding in found} == {*SLUGS}
        assert verified(shop) == (compared, found), "what is not in order is compared each time"
        rebuild.rebuild(shop.database, [shop.store])


def test_a_moved_tag_is_found(shop: House) -> None:
    shop.publish("order-sync", "https://v2.example/")
    assert verified(shop)[1] == []
    shop.git("update-ref", "refs/tags/order-sync/v1", "refs/tags/order-sync/v2")
    compared, found = verified(shop)
    assert compared == ["order-sync"]
    assert {finding.version for finding in found} == {1}


def test_a_full_verify_that_was_killed_is_continued(shop: House) -> None:
    verified(shop, full=True)
    run = verify.verify(shop.database, shop.store, lambda done, _total: done == 2 and 1 / 0)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        list(run)
    assert verified(shop, full=True) == (["returns"], [])
    assert verified(shop, full=True) == ([*SLUGS], [])


def test_a_rebuild_that_was_killed_is_continued(shop: House, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shop.mirrored()
    shop.tamper("update gitstore.workflow_versions set message = 'x'")

    def killed(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild.rebuild(shop.database, [shop.store], progress=killed)
    assert [row["message"] for row in shop.mirrored()[1]].count("x") == 1
    steps: list[tuple[int, int]] = []
    assert rebuild.rebuild(shop.database, [shop.store], progress=lambda *step: steps.append(step)) == 3
    assert steps == [(0, 1), (1, 1)]
    assert shop.mirrored() == before
    shop.tamper("update gitstore.workflow_versions set message = 'y'")
    assert rebuild.rebuild(shop.database, [shop.store]) == 3
    assert shop.mirrored() == before
