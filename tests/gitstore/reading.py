"""Bytes read under the usual limits: what they mean, or what is refused and where."""

from __future__ import annotations

from typing import Any

from gitstore import definition
from gitstore.model import Limits, Rules

LIMITS = Limits()


def parse(raw: bytes, file_name: str = "workflow.yaml", rules: Rules = Rules.MESHHOOK) -> Any:
    return definition.parse(raw, file_name, rules, LIMITS)
