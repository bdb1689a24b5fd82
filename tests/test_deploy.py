"""The files in deploy/ and the Containerfile agree with the service, and with the tools that read them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.config import SETTINGS
from service.metrics import COUNTERS, DURATION, MEASURED

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus/alerts.yml"
DASHBOARD = DEPLOY / "grafana/gitstore.json"
EXPOSED = {*COUNTERS, *MEASURED, *(f"{DURATION}_{part}" for part in ("bucket", "sum", "count"))}
PROMTOOL = shutil.which("promtool")


def queries() -> list[str]:
    """The expressions of all alerts and panels."""
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [
        *(rule["expr"] for rule in rules),
        *(target["expr"] for panel in panels for target in panel["targets"]),
    ]


def test_alerts_and_panels_ask_for_series_that_exist() -> None:
    asked = {name for query in queries() for name in re.findall(r"\bgitstore_\w+", query)}
    assert asked <= EXPOSED
    assert {*COUNTERS, *MEASURED} - {name.removesuffix("_bucket") for name in asked} == {
        "gitstore_source_success_age_seconds",
        "gitstore_subscriptions",
    }, "a new series needs an alert, a panel, or a place in this list"


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (of prometheus) is not installed")
def test_prometheus_accepts_alerts_and_panels(tmp_path: Path) -> None:
    """The variables of a panel are replaced as Grafana does."""
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(queries())
    ]
    generated = tmp_path / "queries.yml"
    generated.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert PROMTOOL is not None
    checked = subprocess.run([PROMTOOL, "check", "rules", ALERTS, generated], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_files_name_settings_that_exist() -> None:
    known = {setting.name for setting in SETTINGS}
    files = [ROOT / "Containerfile", *(path for path in DEPLOY.rglob("*") if path.is_file())]
    text = "".join(path.read_text() for path in files)
    assert set(re.findall(r"\b(?:GITSTORE|DATABASE)_[A-Z_]+\b", text)) <= known


def test_the_nodes_of_the_compose_file_are_confined() -> None:
    """Each node has a read-only root file system, no capabilities, time to stop, and the volume alone."""
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    for name in ("node1", "node2"):
        node = services[name]
        assert node["read_only"]
        assert node["cap_drop"] == ["ALL"]
        assert node["stop_grace_period"] == "45s"
        assert node["volumes"] == ["data:/data"]


def test_the_containerfile_passes_its_linter() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    linted = subprocess.run([hadolint, ROOT / "Containerfile"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr
