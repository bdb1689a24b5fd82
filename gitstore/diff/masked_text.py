"""Mask the secrets in a definition's file in place, keeping every line.

Secrets are found in the parsed value, so that quoting, escapes and line breaks hide none: a scalar that
contains a secret is rewritten from its masked value. In a file that does not parse (an import), secrets are
searched for line by line, on a best-effort basis.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from gitstore.definition import document as definitions
from gitstore.definition.builder import Mark
from gitstore.definition.yaml_reader import LOADER
from gitstore.diff.masking import Masks
from gitstore.drafts import File
from gitstore.model import Limits

_JSON_SCALAR: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"|[^\s,\]}]++', re.DOTALL)
_COMMENT: Final = re.compile(r"#[^\n]*+")
_BLOCK: Final = re.compile(r"[|>][-+0-9]*")
# libyaml treats these as line breaks; the reader replaces them, which keeps offsets unchanged.
_HIDE: Final = str.maketrans("\x85\u2028\u2029", "xxx")

Span = tuple[int, int, str]
"""(start, end, replacement)."""


def masked_text(file: File, masks: Masks, limits: Limits) -> str:
    """Return the text of `file` with its secrets replaced by `masks`."""
    is_json = file.name.endswith(".json")
    try:
        document = definitions.read(file.raw, limits, is_json=is_json)
    except definitions.Unparsable:
        return masks.pairs(masks.addresses(file.raw.decode(errors="replace")))
    text, value = document.source.text, document.value
    writer = _Json(text, masks) if is_json else _Yaml(text, masks)
    made, at = [], 0
    for start, end, instead in sorted(writer.spans(value, masks.value(value), document.marks)):
        made += [text[at:start], instead]
        at = end
    return "".join([*made, text[at:]])


class _Json:
    """Finds the spans to mask in a JSON text."""

    def __init__(self, text: str, masks: Masks) -> None:
        self._text = text
        self._masks = masks

    def spans(self, value: Any, masked: Any, mark: Mark) -> Iterator[Span]:
        """Yield the spans of the document's text to replace so that `value` is displayed as `masked`."""
        return self._scalars(value, masked, mark)

    def _scalars(self, value: Any, masked: Any, mark: Mark) -> Iterator[Span]:
        """Yield the spans of masked scalars. Recurses as deep as the value."""
        for step, inner in mark.within.items():
            yield from self._scalars(value[step], masked[step], inner)
        if isinstance(value, (dict, list)) or value == masked:
            return
        end = self._end(mark.at)
        if end is not None:
            yield mark.at, end, self._instead(self._text[mark.at : end], value, str(masked))

    def _end(self, start: int) -> int | None:
        """Return the end of the scalar that starts at `start`."""
        found = _JSON_SCALAR.match(self._text, start)
        return found.end() if found else None

    def _instead(self, source: str, value: Any, masked: str) -> str:
        """Rewrite the scalar, keeping nothing of `source` but its quotes, line breaks and margins."""
        body = source.rstrip()
        rest = source[len(body) :]
        if "\n" in body:
            lines = _block(body, str(value), masked) or [
                margin + self._masks.of(value) for margin in map(_margin, body.split("\n"))
            ]
            return "\n".join(lines) + rest
        if body[:1] == '"':
            return json.dumps(masked, ensure_ascii=False) + rest
        if body[:1] == "'":
            return "'" + masked.replace("'", "''") + "'" + rest
        return masked.replace("\n", " ") + rest


class _Yaml(_Json):
    """Finds the spans to mask in a YAML text, comments included: a commented-out value may be a secret."""

    def __init__(self, text: str, masks: Masks) -> None:
        super().__init__(text, masks)
        # Every scalar, keys included. Aliases are not scalars: their target is masked at its anchor.
        self._ends = {
            event.start_mark.index: event.end_mark.index
            for event in yaml.parse(text.translate(_HIDE), Loader=LOADER)
            if isinstance(event, yaml.ScalarEvent) and event.start_mark and event.end_mark
        }

    def spans(self, value: Any, masked: Any, mark: Mark) -> Iterator[Span]:
        yield from self._scalars(value, masked, mark)
        yield from self._comments()

    def _end(self, start: int) -> int | None:
        return self._ends.get(start)

    def _comments(self) -> Iterator[Span]:
        at = 0
        for start, end in (*sorted(self._ends.items()), (len(self._text), 0)):
            for found in _COMMENT.finditer(self._text, at, max(start, at)):
                shown = self._masks.pairs(self._masks.addresses(found[0]))
                if shown != found[0]:
                    yield found.start(), found.end(), shown
            at = max(at, end)


def _block(source: str, value: str, masked: str) -> list[str] | None:
    """Return a literal block's lines with the masked value; None if its lines are not those of `value`."""
    head, *lines = source.split("\n")
    old, new = value.rstrip("\n").split("\n"), masked.rstrip("\n").split("\n")
    margin = _margin(lines[0])
    indented = [margin + line if line else line for line in old]
    if _BLOCK.fullmatch(head) is None or lines != indented or len(old) != len(new):
        return None
    return [head, *(margin + line if line else line for line in new)]


def _margin(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))]
