"""The application of the API's tests, and visitors of its pages."""

from __future__ import annotations

import pytest

from tests.service.api.conftest import House, house, settings, unexpected
from tests.ui.visitor import Visitor, visitor

__all__ = ["house", "settings", "unexpected"]


@pytest.fixture
def ann(house: House) -> Visitor:
    """An owner of the project, signed in. `ann.api` is her API client."""
    return visitor(house)


@pytest.fixture
def published(ann: Visitor) -> None:
    """order-sync with v1, v2 and v3, which is current; no draft is open."""
    ann.api.create(name="Order sync", description="Copies orders.")
    ann.api.publish(message="First")
    ann.api.publish(url="https://two.example/", message="Second")
    ann.api.publish(url="https://three.example/", message="Third")
