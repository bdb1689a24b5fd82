"""The application of the API's tests with visitors of its pages; a service and a browser that tests share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser

from tests.service.api.conftest import House, house, settings, unexpected
from tests.service.users import ISSUER, SECRET
from tests.stories.instance import Caller, Service
from tests.ui import browser
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


# Real browsers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Repeat a failed browser test: a busy Chromium drops clicks. Each repetition is listed."""
    for item in items:
        if isinstance(item, pytest.Function) and "chromium" in item.fixturenames:
            item.add_marker(pytest.mark.flaky(reruns=2))


HOST_PAGE = "https://host.example"
"""Origin of a page that hands its users over."""
ISSUED = {
    "GITSTORE_JWT_ISSUERS": json.dumps([{"issuer": ISSUER, "secret": SECRET}]),
    "GITSTORE_CORS_ORIGINS": HOST_PAGE,
    "GITSTORE_USER_PROJECTS": "3",
}


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, cluster: Path) -> Iterator[Service]:
    """A service that the tests of a worker share; each has a project of its own."""
    running = Service(tmp_path_factory.mktemp("ui") / "data", ISSUED, cluster).start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.browser() as opened:
        yield opened


@pytest.fixture
def owner(service: Service) -> Caller:
    """The owner of a new project."""
    return service.project(f"p-{uuid4().hex[:12]}")
