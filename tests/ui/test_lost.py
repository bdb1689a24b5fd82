"""A lost version is shown as lost, and can be neither reverted to nor made current."""

from __future__ import annotations

import pytest

from tests.service.api.conftest import House
from tests.ui.visitor import Visitor

ONE = "/ui/workflows/order-sync"


@pytest.fixture
def lost(house: House, published: None) -> None:
    with house.database.as_owner() as tx:
        tx.run("select set_config('gitstore.upkeep', 'on', true)")
        tx.run("update gitstore.workflow_versions set state = 'lost' where version_number = 1")


@pytest.mark.usefixtures("lost")
def test_a_lost_version_is_marked_in_the_history_and_on_its_page(ann: Visitor) -> None:
    assert "lost" in ann.get(f"{ONE}/versions").page.text
    page = ann.get(f"{ONE}/versions/1")
    assert page.status == 200
    assert "v1 is lost" in page.page.text
    for action in ("revert", "current"):
        assert f"/versions/1/{action}" not in page.html
        refused = ann.get(f"{ONE}/versions/1/{action}")
        assert (refused.status, "v1 is lost" in refused.page.text) == (404, True)
