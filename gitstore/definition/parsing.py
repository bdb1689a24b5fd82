"""The entry point for definitions and JSON bodies: untrusted bytes in, a value under limits out.

docs/definition.md, "Parsing", lists the refusals. Nothing here recurses before the depth is known.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gitstore.definition import json_reader, yaml_reader
from gitstore.definition.builder import AbortParse, Mark, Source, SyntaxErrors
from gitstore.model import Limits, Problem


class Unparsable(Exception):  # noqa: N818 - named after the state of the bytes
    """Unparsable input. `problems` are all syntax errors found, in document order, at least one."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems[0].message)
        self.problems = problems

    @property
    def summary(self) -> str:
        """One line about the first problem, ending in its line and column."""
        first, count = self.problems[0], len(self.problems)
        others = f" (the first of {count} problems)" if count > 1 else ""
        return f"{first.message}{others}, line {first.line}, column {first.column}"


@dataclass(frozen=True, slots=True)
class Document:
    """A value, and the position of each of its parts in the text."""

    value: Any
    source: Source
    marks: Mark

    def locate(self, path: Sequence[str | int]) -> tuple[int, int]:
        """Return (the number of steps of `path` that exist in the document, the offset of the last one)."""
        mark = self.marks
        for steps, step in enumerate(path):
            inner = mark.within.get(step)
            if inner is None:
                return steps, mark.at
            mark = inner
        return len(path), mark.at


def read(raw: bytes, limits: Limits, *, is_json: bool) -> Document:
    """Parse UTF-8 `raw`, with or without a byte order mark. Raises only `Unparsable`."""
    refusals = SyntaxErrors()
    source = Source("")
    try:
        if len(raw) > limits.definition:
            message = f"{len(raw)} bytes, where {limits.definition} are accepted"
            raise refusals.stop(0, "too_large", message)
        source = _decode(raw)
        reader = json_reader if is_json else yaml_reader
        built = reader.read(source.text, limits, refusals)
        if not refusals:
            return Document(built.root, source, built.marks)
    except AbortParse:
        pass
    raise Unparsable(refusals.problems(source))


def _decode(raw: bytes) -> Source:
    raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return Source(raw.decode())
    except UnicodeDecodeError as error:
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        found = f"the byte 0x{raw[error.start]:02x} is not" if not wide else "this is UTF-16, not"
        message = f"{found} UTF-8"
        before = Source(raw[: error.start].decode())
        line, column = before.place(len(before.text))
        raise Unparsable([Problem("not_utf8", message, line=line, column=column)]) from None
