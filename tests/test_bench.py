"""The bench in its smallest form: it measures, writes its results, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import temporary_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PLAUSIBLE = {
    ("advertisement", "CPU"): (0.2, 5),
    ("advertisement", "bytes"): (0.5, 10),  # KB of eleven refs
    ("ls-remote-10", "time"): (0.1, 10),
    ("disk-save", "fsyncs"): (2, 12),
    ("disk-save", "in Git"): (0.5, 15),  # KB of a definition, compressed, with its commit, tree and index
    ("disk-save", "WAL"): (1, 60),
}


def test_a_tiny_run_gives_plausible_figures_and_leaves_nothing() -> None:
    """In a session of its own: a peer once ended the process group of the bench, with its shell."""
    with temporary_folder() as folder:
        command = [sys.executable, "-m", "bench", "--tiny", "--folder", str(folder), "--only"]
        done = subprocess.run(
            [*command, "advertisement", "ls-remote", "disk-save"],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, start_new_session=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        assert [process.cmdline() for process in begun_by(folder)] == []
        assert [path.name.partition("-")[0] for path in (folder / ".cache").iterdir()] == ["seeds"]
        (written,) = (folder / "results").glob("*.json")
        rows = json.loads(written.read_text())["rows"]
        table, plot = (written.with_suffix(end).read_text() for end in (".md", ".svg"))
    measured = {(row["measure"], row["name"]): value_of(row) for row in rows if row["verdict"] != "skipped"}
    for about, (low, high) in PLAUSIBLE.items():
        if any(row["measure"] == about[0] and row["verdict"] == "skipped" for row in rows):
            continue
        assert low <= measured[about] <= high, (about, measured)
    assert table.count("\n| ") == len(rows) + 2  # its head
    assert plot.count("<rect") == sum(1 for row in rows if row["figure"] and row["bar"])


def value_of(row: dict[str, Any]) -> float:
    assert row["figure"], row
    return float(row["figure"]["value"])


def begun_by(folder: Path) -> Iterator[psutil.Process]:
    """The processes with that folder in their command lines or environments."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if str(folder) in " ".join([*process.cmdline(), *process.environ().values()]):
                yield process
