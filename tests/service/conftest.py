"""Fixtures of the tests of the service."""

from __future__ import annotations

import pytest

from service.run.isolation import fork_server


@pytest.fixture(autouse=True, scope="session")
def forked_by_the_main_thread() -> None:
    """Fork the fork server in the main thread, as the worker does: it ends with the thread that forked it."""
    fork_server()
