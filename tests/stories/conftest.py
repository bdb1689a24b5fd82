"""A running service for each worker, and a project for each story."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.stories.instance import Author, Caller, Service


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, cluster: Path) -> Iterator[Service]:
    """A service that stories share; each has a project of its own."""
    running = Service(tmp_path_factory.mktemp("story") / "data", cluster=cluster).start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def own_service(tmp_path: Path, cluster: Path) -> Iterator[Service]:
    """A service of the story's own, to be stopped and killed."""
    running = Service(tmp_path / "data", cluster=cluster).start()
    yield running
    if running.process is not None:
        running.stop(signal.SIGTERM)


@pytest.fixture
def owner(service: Service) -> Caller:
    """The owner of a new project."""
    return service.project(f"p-{uuid4().hex[:12]}")


@pytest.fixture
def ann(owner: Caller, tmp_path: Path) -> Author:
    """An author with a clone of that project."""
    return owner.author(tmp_path / "ann", "Ann")
