"""Rules of the house: the direction of imports, and the only places of ref names and of the environment."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("service", "webhooks", "sync", "gitstore")  # each imports only from those to its right
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_only_to_the_right(path: Path) -> None:
    """service -> webhooks -> sync -> gitstore, and never back; gitstore imports no Flask, no Postgres."""
    package = relative(path).split("/")[0]
    packages = {name.split(".")[0] for name in imported(path)}
    assert not packages & set(PACKAGES[: PACKAGES.index(package)])
    if package == "gitstore":
        assert not packages & {"flask", "werkzeug", "psycopg", "psycopg_pool", "urllib3", "click"}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_only_names_spells_refs(path: Path) -> None:
    """Ref names are composed in gitstore/names.py only; docstrings may explain them."""
    if relative(path) == "gitstore/names.py":
        return
    docstrings = {
        node.body[0].value.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        and isinstance(node.body[0], ast.Expr)
    }  # fmt: skip
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.STRING and token.start[0] not in docstrings:
                assert "refs/" not in token.string, f"{relative(path)}:{token.start[0]}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_only_config_reads_the_environment(path: Path) -> None:
    """Settings are read by `Config.from_env`; no other place reads os.environ."""
    if relative(path) == "service/config.py":
        return
    source = path.read_text()
    for text in ("os.environ", "getenv", "from os import"):
        assert text not in source, text


def test_the_rules_apply_to_files() -> None:
    assert len(FILES) > 20


def test_only_the_application_imports_the_api() -> None:
    """Actions, input models and lookups that others use have homes of their own, without Flask."""
    users = {
        relative(path)
        for path in FILES
        if "/api/" not in relative(path) and any(name.startswith("service.api") for name in imported(path))
    }
    assert users == {"service/app.py", "service/cli/upkeep.py"}
    for path in (ROOT / "service" / "actions").glob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & {"flask", "werkzeug", "pydantic"}
