"""The figures at /metrics."""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from service.config import METRICS_FOLDER, Config
from service.metrics import CONTENT_TYPE, Metrics, forget_process
from service.run.metrics_folder import metrics_folder
from webhooks.gauges import Gauges

COUNT_TOGETHER = """
import sys
from pathlib import Path
from service.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
metrics.pushed("ok")
metrics.request(endpoint="workflows.list", method="GET", status=200, seconds=0.003)
"""

KILLED = """
import os
from service.run.metrics_folder import metrics_folder
with metrics_folder():
    os._exit(9)
"""


def figures(text: bytes) -> dict[str, float]:
    lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_one_process_counts_for_itself() -> None:
    """Without a shared folder: what was counted is what is told, and an application counts alone."""
    metrics, other = Metrics(), Metrics()
    metrics.request(endpoint="workflows.list", method="GET", status=200, seconds=0.003)
    metrics.request(endpoint=None, method="BREW", status=404, seconds=0.5)
    metrics.published(door="git")
    metrics.published(door="http", outcome="base_moved")
    metrics.pushed("ok")
    told = figures(metrics.exposition())
    prefix = "gitstore_request_duration_seconds"
    assert told[f'{prefix}_count{{area="workflows"}}'] == 1
    assert told[f'{prefix}_bucket{{area="workflows",le="0.0025"}}'] == 0
    assert told[f'{prefix}_bucket{{area="workflows",le="0.01"}}'] == 1
    assert told['gitstore_requests_total{area="workflows",method="GET",status="2xx"}'] == 1
    assert told['gitstore_requests_total{area="none",method="other",status="4xx"}'] == 1
    assert told['gitstore_publishes_total{door="git",outcome="published"}'] == 1
    assert told['gitstore_publishes_total{door="http",outcome="base_moved"}'] == 1
    assert told['gitstore_pushes_total{outcome="ok"}'] == 1
    assert not any(value for name, value in figures(other.exposition()).items() if "_created" not in name)


def test_the_mirror_s_lag_is_told_as_it_is_measured() -> None:
    """At the scrape; where it is not known, it is not told."""
    assert figures(Metrics().exposition(mirror_lag_seconds=1.5))["gitstore_mirror_lag_seconds"] == 1.5
    assert b"mirror_lag" not in Metrics().exposition()


def test_sources_and_deliveries_are_told_as_they_stand() -> None:
    """Measured at the scrape, of all projects together; syncs and what diverged are counted."""
    metrics = Metrics()
    metrics.synced("ok", ["version_immutable", "version_immutable"])
    metrics.synced("upstream_failed")
    standing = Gauges({"ok": 2, "failing": 1}, 90.5, 3, {"active": 4}, 5)
    told = figures(metrics.exposition(standing=standing))
    assert told['gitstore_source_syncs_total{outcome="ok"}'] == 1
    assert told['gitstore_source_syncs_total{outcome="upstream_failed"}'] == 1
    assert told['gitstore_divergences_total{code="version_immutable"}'] == 2
    assert told['gitstore_sources{state="failing"}'] == 1
    assert told["gitstore_source_success_age_seconds"] == 90.5
    assert told["gitstore_divergences_open"] == 3
    assert told['gitstore_subscriptions{state="active"}'] == 4
    assert told["gitstore_deliveries_pending"] == 5


def test_several_processes_count_together(tmp_path: Path) -> None:
    """Whichever of them is asked, even after one of them has ended."""
    environ = Config.from_env({}).environment(**{METRICS_FOLDER: str(tmp_path)})
    command = [sys.executable, "-W", "ignore", "-c", COUNT_TOGETHER, str(tmp_path)]
    ended = [subprocess.Popen(command, env=environ) for _ in range(3)]
    for process in ended:
        assert process.wait() == 0
        forget_process(tmp_path, process.pid)
    told = figures(Metrics(tmp_path).exposition(mirror_lag_seconds=0))
    assert told['gitstore_pushes_total{outcome="ok"}'] == 3
    prefix = "gitstore_request_duration_seconds"
    assert told[f'{prefix}_count{{area="workflows"}}'] == 3


def test_what_a_killed_service_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the next one; what a living one counts in stays, as does what is not ours."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environ = Config.from_env({}).environment(TMPDIR=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", KILLED], env=environ, check=False).returncode == 9
    other = tmp_path / "gitstore-metrics-of-somebody-else"
    other.mkdir()
    (left,) = (path for path in tmp_path.iterdir() if path != other)
    with metrics_folder() as mine:
        assert not left.exists()
        assert stat.S_IMODE(mine.stat().st_mode) == 0o700
        with metrics_folder() as second:
            assert sorted(tmp_path.iterdir()) == sorted([mine, second, other])
    assert list(tmp_path.iterdir()) == [other]


def test_the_format_is_prometheus_own() -> None:
    """The text format, version 0.0.4, which every scraper reads."""
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    assert Metrics().exposition().startswith(b"# HELP gitstore_request_duration_seconds ")
