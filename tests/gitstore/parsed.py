"""Parse bytes under the usual limits: values, problems and their positions."""

from __future__ import annotations

import codecs
import json
from typing import Any

import pytest

from gitstore.definition import document, json_reader, yaml_reader
from gitstore.definition.document import Unparsable, read
from gitstore.model import Limits, Problem, Rules

LIMITS = Limits()


def parse(raw: bytes, file_name: str = "workflow.yaml", rules: Rules = Rules.MESHHOOK) -> Any:
    return document.parse(raw, file_name, rules, LIMITS)


def yaml_value(text: str | bytes, limits: Limits = LIMITS) -> Any:
    raw = text.encode() if isinstance(text, str) else text
    value = read(raw, limits, is_json=False).value
    assert plain_value(raw, limits) in ("null", json.dumps(value)), "both readers give the same value"
    return value


def plain_value(raw: bytes, limits: Limits = LIMITS, *, is_json: bool = False) -> str:
    """The value by the reader without positions, as JSON; "null" if it leaves the text to the other."""
    reader = json_reader if is_json else yaml_reader
    try:
        return json.dumps(reader.plain_value(raw.removeprefix(codecs.BOM_UTF8).decode(), limits))
    except (UnicodeDecodeError, json_reader.DoubtError):
        return "null"


def json_value(text: str | bytes, limits: Limits = LIMITS) -> Any:
    raw = text.encode() if isinstance(text, str) else text
    value = read(raw, limits, is_json=True).value
    plain = plain_value(raw, limits, is_json=True)
    assert plain in ("null", json.dumps(value)), "both readers give the same value"
    return value


def problems_in(text: str | bytes, *, is_json: bool = False, limits: Limits = LIMITS) -> list[Problem]:
    raw = text.encode() if isinstance(text, str) else text
    with pytest.raises(Unparsable) as caught:
        read(raw, limits, is_json=is_json)
    assert len(raw) > limits.definition or plain_value(raw, limits, is_json=is_json) == "null"
    return caught.value.problems


def places(problems: list[Problem]) -> list[tuple[str, int | None, int | None]]:
    return [(problem.code, problem.line, problem.column) for problem in problems]
