"""Supervision of the real worker under `serve`, with its real times: long forms of test_heartbeats.py."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.service.serve_process import gitstore, running, until
from tests.webhooks.upstream import upstream_in

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
WORKER = "service.cli worker"


def test_a_stopped_worker_is_replaced_within_30_seconds(ram_path: Path) -> None:
    with running(ram_path) as service:
        worker = service.ready().child(WORKER)
        until(lambda: '"event": "gc"' in service.log, "upkeep did not run")
        os.kill(worker, signal.SIGSTOP)
        started = time.monotonic()
        until(lambda: "worker_stalled" in service.log, "it was not noticed")
        assert time.monotonic() - started < 30
        assert service.child(WORKER) != worker
        assert service.log.count("worker_stalled") == 1


def test_a_sync_of_90_seconds_survives(ram_path: Path) -> None:
    """The upstream takes half a minute for each response."""
    with (
        upstream_in(ram_path / "upstream") as upstream,
        running(ram_path, GITSTORE_EGRESS_ALLOW="127.0.0.0/8") as service,
    ):
        worker = service.ready().child(WORKER)
        upstream.version("order-sync", 1)
        upstream.delay = 35.0
        settings = {"GITSTORE_DATA": str(service.data), "GITSTORE_EGRESS_ALLOW": "127.0.0.0/8"}
        assert gitstore("source", "add", "default", upstream.url, settings=settings).returncode == 0
        started = time.monotonic()
        while '"event": "synced"' not in service.log:
            assert time.monotonic() - started < 300
            time.sleep(0.5)
        assert time.monotonic() - started > 90
        assert service.child(WORKER) == worker
        assert "stalled" not in service.log
        assert "crashed" not in service.log
