"""Stub of the WSGI application, for tests of processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from service.config import Config


def create_app(config: Config) -> Callable[..., Iterable[bytes]]:
    """Return the stub. `/wait` creates a file `waiting` in the data folder, and answers once `go` exists."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/wait":
            (config.data / "waiting").touch()
            wait_for(config.data / "go")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"here\n"]

    return app


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)
