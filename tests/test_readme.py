"""The README says what the code says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from service.settings import SETTINGS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def settings_table() -> str:
    """The table of settings, made from the one in the code."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else ""
        rows.append(f"| `{setting.name}` | {default} | {setting.meaning} |")
    return "\n".join(rows)


def test_every_setting_stands_in_the_table() -> None:
    """With its default and its meaning, word for word."""
    assert settings_table() in README


def test_every_endpoint_stands_in_the_table() -> None:
    """Each path and method of the OpenAPI document, but for the documentation itself."""
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "openapi"], capture_output=True, check=True, text=True
    )
    described = {
        (method.upper(), re.sub(r"\{[^}]+\}", "{}", path))
        for path, operations in json.loads(done.stdout)["paths"].items()
        for method in operations
    }
    told = set()
    for row in re.findall(r"^\| (`(?:GET|POST|PUT|PATCH|DELETE).*?) \|", README, re.MULTILINE):
        calls = re.findall(r"`(?:(GET|POST|PUT|PATCH|DELETE) ?)(\S*?)`", row)
        path = ""
        for method, given in calls:
            path = given or path
            told.add((method, re.sub(r"\{[^}]+\}", "{}", path)))
    assert sorted(described - told) == []


def test_the_two_commands_stand_as_one_line_each() -> None:
    """As a newcomer pastes them."""
    assert "\n    pip install uv && uv run gitstore serve\n" in README
    assert "\n    pip install uv && uv run pytest\n" in README
