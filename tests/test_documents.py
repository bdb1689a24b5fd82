"""The documents agree with the code and with each other."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

from gitstore.definition.kinds import ALL as KINDS
from gitstore.push.request import OPTIONS
from service.config import SETTINGS
from service.logs import Event
from service.metrics import COUNTERS, DURATION, MEASURED
from sync.events import EventType

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PACKAGES = ("gitstore", "sync", "webhooks", "service")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def text(name: str) -> str:
    return (ROOT / name).read_text()


def settings_table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else ""
        rows.append(f"| `{setting.name}` | {default} | {setting.meaning} |")
    return "\n".join(rows)


def column(document: str, heading: str) -> set[str]:
    """The names in the first column of the table below a header row."""
    table = text(document).partition(heading)[2].partition("\n\n")[0]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_the_readme_has_the_two_commands() -> None:
    """As one line each, so that a newcomer can paste them."""
    assert "\n    pip install uv && uv run gitstore serve\n" in text("README.md")
    assert "\n    pip install uv && uv run pytest\n" in text("README.md")


def test_the_readme_is_short() -> None:
    """Reference material belongs in docs/."""
    assert len(text("README.md").splitlines()) <= 170


def test_every_setting_has_its_row() -> None:
    """docs/operations.md has the default and the meaning of each setting, as the code has them."""
    assert settings_table() in text("docs/operations.md")


def test_every_push_option_has_its_row() -> None:
    """docs/git.md lists the push options that the code knows."""
    for option in OPTIONS:
        assert f"| `{option.name}={option.expected}` | {option.meaning} |" in text("docs/git.md")


def test_every_kind_of_node_has_its_row() -> None:
    """docs/definition.md has the settings of each kind, as the forms of the page have them."""
    for kind in KINDS:
        settings = ", ".join(f"`{one.name}`{' (required)' if one.required else ''}" for one in kind.settings)
        assert f"| `{kind.name}` | {settings} |" in text("docs/definition.md")


def test_every_endpoint_has_its_row() -> None:
    """docs/api.md lists each path and method of the OpenAPI document, and no others."""
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "openapi"], capture_output=True, check=True, text=True
    )
    described = {
        (method.upper(), re.sub(r"\{[^}]+\}", "{}", path))
        for path, operations in json.loads(done.stdout)["paths"].items()
        for method in operations
    }
    listed = set()
    for row in re.findall(r"^\| (`(?:GET|POST|PUT|PATCH|DELETE).*?) \|", text("docs/api.md"), re.MULTILINE):
        path = ""
        for method, given in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) ?(\S*?)`", row):
            path = given or path
            listed.add((method, re.sub(r"\{[^}]+\}", "{}", path)))
    assert listed == described


def test_every_event_has_its_row() -> None:
    """docs/api.md lists the events that subscriptions receive."""
    assert {kind.value for kind in EventType} <= column("docs/api.md", "| event | sent when |")


def test_every_log_event_has_its_row() -> None:
    """docs/operations.md lists the members of `Event`, each of which some code logs."""
    assert column("docs/operations.md", "| event | meaning |") == set(Event)
    sources = "".join(path.read_text() for path in SOURCES)
    assert [event for event in Event if not re.search(rf'\bEvent\.{event.name}\b|"{event}"', sources)] == []


def test_events_of_the_synchronization_are_log_events() -> None:
    """`webhooks` cannot import `Event`: it passes the values of its members."""
    logged = set()
    for call in ast.walk(ast.parse(text("webhooks/source_sync.py"))):
        match call:
            case ast.Call(
                func=ast.Name(id="log" | "tell") | ast.Attribute(attr="log" | "tell"), args=[first]
            ):
                logged |= {node.value for node in ast.walk(first) if isinstance(node, ast.Constant)}
    assert {"published", "synced", "source_poisoned"} <= logged <= set(Event)


def test_every_metric_has_its_row() -> None:
    """docs/operations.md has the labels and the description of each series, as /metrics shows them."""
    series = {DURATION: (("area",), "Time from a request to the last byte of its answer."), **COUNTERS}
    series |= {name: ((label,) if label else (), meaning) for name, (label, meaning) in MEASURED.items()}
    rows = [f"| `{name}` | {', '.join(labels)} | {meaning} |" for name, (labels, meaning) in series.items()]
    assert "\n".join(["| series | labels | meaning |", "|---|---|---|", *rows, ""]) in text(
        "docs/operations.md"
    )


def test_every_link_resolves() -> None:
    """Relative links between documents lead to files of the repository."""
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?://)([\w./-]+)[)#]", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_document_named_in_code_exists() -> None:
    """Docstrings, comments and messages cite no document that is not in the repository."""
    for path in SOURCES:
        for name in re.findall(r"\bdocs/[\w/-]+\.md\b|\b[A-Z]{4,}\.md\b", path.read_text()):
            assert (ROOT / name).exists(), f"{path}: {name}"
