"""The results of a run: a table in Markdown, JSON, and a plot of every figure relative to its bar (SVG)."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from bench.measures import Bar, Figure, shown


@dataclass(frozen=True)
class Row:
    """One figure of a measure; `error` gives the reason if it has none."""

    measure: str
    about: str
    name: str
    figure: Figure | None
    bar: Bar | None
    error: str = ""

    @property
    def what(self) -> str:
        return f"{self.about}: {self.name}" if self.name else self.about

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "failed" if not self.error.startswith("skipped") else "skipped"
        if self.bar is None:
            return "-"
        return "met" if self.bar.holds(self.figure.value) else "MISSED"

    def cells(self) -> list[str]:
        bar = str(self.bar) if self.bar else ""
        if self.figure is None:
            return [self.what, "", "", "", bar, f"{self.verdict}: {self.error}"]
        value = shown(self.figure.value, self.figure.unit)
        return [self.what, self.figure.ours, self.figure.theirs, value, bar, self.verdict]


def machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(": ")[2]
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    git = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, git {git}"
    )


HEADER = ("what", "gitstore", "peer", "value", "bar", "")
_WIDTHS = (30, 11, 11, 9, 10, 0)


def columns(cells: Sequence[str]) -> str:
    """A line of the table in the terminal."""
    aligned = [f"{cells[0]:<{_WIDTHS[0]}}"]
    aligned += [f"{cell:>{width}}" for cell, width in zip(cells[1:-1], _WIDTHS[1:-1], strict=True)]
    return "  ".join([*aligned, cells[-1]])


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def write(folder: Path, rows: Sequence[Row], about: dict[str, object]) -> Path:
    """Write the run's results to `folder`; return the path of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    values = [
        {"measure": row.measure, "what": row.about, "name": row.name,
         "verdict": row.verdict, "error": row.error,
         "figure": asdict(row.figure) if row.figure else None, "bar": asdict(row.bar) if row.bar else None}
        for row in rows
    ]  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps({**about, "rows": values}, indent=1) + "\n")
    (folder / f"{name}.svg").write_text(plot(rows))
    table = folder / f"{name}.md"
    facts = [f"- {key}: {value}" for key, value in about.items()]
    lines = [*facts, "", line(HEADER), line(["---"] * len(HEADER)), *(line(row.cells()) for row in rows)]
    table.write_text("\n".join(lines) + "\n")
    return table


def plot(rows: Sequence[Row]) -> str:
    """Draw how far each figure is on the good side (right) or the bad side of its bar, up to ten times."""
    drawn = [(row, _lead(row)) for row in rows if row.figure and row.bar]
    height, middle, scale = 22, 620, 180
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="900" height="{height * (len(drawn) + 2)}" '
        'font-family="sans-serif" font-size="12">',
        f'<text x="{middle}" y="15" text-anchor="middle">the bar</text>',
    ]
    for at, (row, lead) in enumerate(drawn, 1):
        y, width = at * height, abs(lead) * scale
        x, colour = (middle, "#2a7") if lead >= 0 else (middle - width, "#c43")
        what, value = row.cells()[0], row.cells()[3]
        parts.append(f'<text x="4" y="{y + 14}">{escape(what)}: {escape(value)}</text>')
        parts.append(f'<rect x="{x:.0f}" y="{y + 4}" width="{width:.0f}" height="14" fill="{colour}"/>')
    bottom = height * (len(drawn) + 1)
    parts.append(f'<line x1="{middle}" y1="20" x2="{middle}" y2="{bottom}" stroke="#444"/></svg>')
    return "\n".join(parts) + "\n"


def _lead(row: Row) -> float:
    """The decimal logarithm of how often the figure is better than its bar, within -1 to 1."""
    assert row.figure is not None
    assert row.bar is not None
    quotient = max(row.figure.value, 1e-9) / row.bar.limit
    return max(-1.0, min(1.0, math.log10(quotient) * (1 if row.bar.least else -1)))
