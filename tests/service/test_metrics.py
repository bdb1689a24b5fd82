"""Metrics: counters of one and of several processes, and measured series."""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from service.config import METRICS_FOLDER, Config
from service.metrics import CONTENT_TYPE, DURATION, Metrics, forget_process
from service.run.serve import metrics_folder

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
from service.run.serve import metrics_folder
with metrics_folder():
    os._exit(9)
"""


def values(text: bytes) -> dict[str, float]:
    """Return the samples of an exposition by series and labels."""
    lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_an_application_without_a_folder_counts_alone() -> None:
    """Each method moves its series by its labels, and those of no other application."""
    metrics, other = Metrics(), Metrics()
    metrics.request(endpoint="workflows.list", method="GET", status=200, seconds=0.003)
    metrics.request(endpoint=None, method="BREW", status=404, seconds=0.5)
    metrics.published(door="git")
    metrics.published(door="http", outcome="base_moved")
    metrics.pushed("ok")
    metrics.heavy("queued")
    metrics.delivered("retry")
    metrics.synced("ok", ["version_immutable", "version_immutable"], published=3)
    metrics.synced("upstream_failed")
    counted = values(metrics.exposition({}))
    assert {name: value for name, value in counted.items() if "_total{" in name} == {
        'gitstore_requests_total{area="workflows",method="GET",status="2xx"}': 1,
        'gitstore_requests_total{area="none",method="other",status="4xx"}': 1,
        'gitstore_publishes_total{door="git",outcome="published"}': 1,
        'gitstore_publishes_total{door="http",outcome="base_moved"}': 1,
        'gitstore_publishes_total{door="source",outcome="published"}': 3,
        'gitstore_pushes_total{outcome="ok"}': 1,
        'gitstore_heavy_requests_total{outcome="queued"}': 1,
        'gitstore_delivery_attempts_total{outcome="retry"}': 1,
        'gitstore_source_syncs_total{outcome="ok"}': 1,
        'gitstore_source_syncs_total{outcome="upstream_failed"}': 1,
        'gitstore_divergences_total{code="version_immutable"}': 2,
    }
    assert counted[f'{DURATION}_count{{area="workflows"}}'] == 1
    assert counted[f'{DURATION}_bucket{{area="workflows",le="0.0025"}}'] == 0
    assert counted[f'{DURATION}_bucket{{area="workflows",le="0.01"}}'] == 1
    assert not any(value for name, value in values(other.exposition({})).items() if "_created" not in name)


def test_measured_series_have_the_values_of_the_scrape() -> None:
    """One without a value is left out."""
    measured = {"gitstore_mirror_lag_seconds": 1.5, "gitstore_source_lag_seconds": None}
    by_label = {
        "gitstore_sources": {"ok": 2, "failing": 1},
        "gitstore_worker_replacements_total": {"ended": 1},
    }
    shown = values(Metrics().exposition({**measured, **by_label}))
    assert shown == {
        "gitstore_mirror_lag_seconds": 1.5,
        'gitstore_sources{state="ok"}': 2,
        'gitstore_sources{state="failing"}': 1,
        'gitstore_worker_replacements_total{reason="ended"}': 1,
    }


def test_several_processes_count_together(tmp_path: Path) -> None:
    """A scrape includes the counts of processes that have ended."""
    environ = Config.from_env({}).environment(**{METRICS_FOLDER: str(tmp_path)})
    command = [sys.executable, "-W", "ignore", "-c", COUNT_TOGETHER, str(tmp_path)]
    ended = [subprocess.Popen(command, env=environ) for _ in range(3)]
    for process in ended:
        assert process.wait() == 0
        forget_process(tmp_path, process.pid)
    counted = values(Metrics(tmp_path).exposition({}))
    assert counted['gitstore_pushes_total{outcome="ok"}'] == 3
    assert counted[f'{DURATION}_count{{area="workflows"}}'] == 3


def test_folders_of_killed_services_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next service removes them; folders of running services and of other programs stay."""
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


def test_the_format_is_prometheus_text() -> None:
    """The text format, version 0.0.4, which every scraper reads."""
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    assert Metrics().exposition({}).startswith(b"# HELP gitstore_request_duration_seconds ")
