"""Frozen dataclasses that the rooms hand to each other. Git data is bytes where it is opaque, str above."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Rules(StrEnum):
    """What a project's definitions must obey."""

    MESHHOOK = "meshhook"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a definition that a person should know.

    `pointer` is an RFC 6901 JSON Pointer, `node` the id of the node it is about, `line` and `column`
    count from 1; each is None where it has no meaning. An `error` blocks publishing, a warning does not.
    """

    code: str
    message: str
    pointer: str | None = None
    node: str | None = None
    line: int | None = None
    column: int | None = None
    error: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """DESIGN section 4: what a definition and a push may cost. Sizes are bytes."""

    pack: int = 16 * 2**20
    inflated: int = 64 * 2**20
    object: int = 4 * 2**20
    definition: int = 2**20
    depth: int = 64
    nodes: int = 50_000


@dataclass(frozen=True, slots=True)
class Definition:
    """A parsed definition.

    `value` is the mapping itself, `problems` errors and warnings in document order, `digest` "sha256:<hex>"
    of its canonical JSON without layout and editor leftovers.
    """

    raw: bytes
    value: dict[str, Any]
    digest: str
    problems: tuple[Problem, ...] = field(default=())

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.error)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if not p.error)

    @property
    def valid(self) -> bool:
        return not self.errors
