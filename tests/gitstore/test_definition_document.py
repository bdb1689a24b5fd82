"""docs/definition.md and the code name the same problem codes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.gitstore.test_rules import BROKEN, WARNINGS

ROOT = Path(__file__).parents[2]
REPORTING = {
    "finding", "config_finding", "Finding", "Problem", "ScalarError", "add", "stop", "refuse_json",
}  # fmt: skip
"""The calls that take a problem's code: as their first argument, or after an offset."""


def documented() -> dict[str, set[str]]:
    """Heading -> the codes in the first column of the table below it; the table of kinds has none."""
    codes: dict[str, set[str]] = {}
    heading = ""
    for line in (ROOT / "docs/definition.md").read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| `") and heading != "Kinds of node":
            codes.setdefault(heading, set()).update(re.findall(r"`(\w+)`", line.split("|")[1]))
    return codes


def reported() -> Iterator[re.Pattern[str]]:
    """Patterns of the codes that calls in `gitstore` report; computed parts match any word."""
    for path in (ROOT / "gitstore").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            function = call.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in REPORTING:
                yield from (re.compile(code) for code in map(pattern, call.args[:2]) if code)


def pattern(argument: ast.expr) -> str | None:
    """A regular expression for the code that `argument` holds, or None where it is not a code."""
    parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
    text = "".join(
        str(part.value) if isinstance(part, ast.Constant) and isinstance(part.value, str) else r"[a-z]+"
        for part in parts
    )
    is_code = isinstance(argument, (ast.Constant, ast.JoinedStr)) and re.fullmatch(r"[a-z0-9_+\[\]-]+", text)
    return text if is_code else None


def test_each_code_in_the_code_is_in_the_document() -> None:
    """Every problem code that gitstore can report has a row in a table."""
    codes = set().union(*documented().values())
    patterns = list(reported())
    assert len(patterns) > 40
    assert not [p.pattern for p in patterns if not any(p.fullmatch(code) for code in codes)]


def test_each_code_in_the_document_is_in_the_code() -> None:
    """The document promises no problem code that nothing reports."""
    codes = set().union(*documented().values())
    patterns = list(reported())
    assert not [code for code in codes if not any(p.fullmatch(code) for p in patterns)]


def test_the_tables_of_rules_agree_with_the_examples() -> None:
    """Each rule in the document is broken by an example, and has the severity in the document."""
    tables = documented()
    examples = {code for code, _, _ in BROKEN}
    assert tables["Errors"] == examples - WARNINGS
    assert tables["Warnings"] - {"comments_dropped"} == WARNINGS
