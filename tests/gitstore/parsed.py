"""Parse bytes under the usual limits: values, problems and their positions."""

from __future__ import annotations

from typing import Any

import pytest

from gitstore.definition import document
from gitstore.definition.document import Unparsable, read
from gitstore.model import Limits, Problem, Rules

LIMITS = Limits()


def parse(raw: bytes, file_name: str = "workflow.yaml", rules: Rules = Rules.MESHHOOK) -> Any:
    return document.parse(raw, file_name, rules, LIMITS)


def yaml_value(text: str | bytes, limits: Limits = LIMITS) -> Any:
    return read(text.encode() if isinstance(text, str) else text, limits, is_json=False).value


def json_value(text: str | bytes, limits: Limits = LIMITS) -> Any:
    return read(text.encode() if isinstance(text, str) else text, limits, is_json=True).value


def problems_in(text: str | bytes, *, is_json: bool = False, limits: Limits = LIMITS) -> list[Problem]:
    with pytest.raises(Unparsable) as caught:
        read(text.encode() if isinstance(text, str) else text, limits, is_json=is_json)
    return caught.value.problems


def places(problems: list[Problem]) -> list[tuple[str, int | None, int | None]]:
    return [(problem.code, problem.line, problem.column) for problem in problems]
