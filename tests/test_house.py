"""The house: who may import whom, who spells refs, who reads the environment."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("service", "webhooks", "sync", "gitstore")  # each imports only what stands to its right
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


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
    """service -> webhooks -> sync -> gitstore, and never back; the store knows neither Flask nor Postgres."""
    room = relative(path).split("/")[0]
    packages = {name.split(".")[0] for name in imported(path)}
    assert not packages & set(ROOMS[: ROOMS.index(room)])
    if room == "gitstore":
        assert not packages & {"flask", "werkzeug", "psycopg", "psycopg_pool", "urllib3", "click"}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_only_names_spells_refs(path: Path) -> None:
    """A ref's name is put together in gitstore/names.py and nowhere else; docstrings may explain it."""
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
    """Settings come in by `Config.from_env`; no other place looks at os.environ."""
    if relative(path) == "service/config.py":
        return
    source = path.read_text()
    for spelled in ("os.environ", "getenv", "from os import"):
        assert spelled not in source, spelled


def test_there_are_files_to_look_at() -> None:
    """The rules above are about something."""
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
