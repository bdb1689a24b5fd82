"""Read common block YAML line by line, in half the time of a reader of libyaml's events.

Each line that it accepts has a key, an item of a list, or both, and a scalar or an empty collection behind
them: what most editors and `yaml_writer` write. Any other text is left to `yaml_reader`, above all one with
several lines in a scalar, an inner flow collection, an anchor, a tag, an escape or an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from gitstore import budget
from gitstore.definition import scalars
from gitstore.model import Limits

# Quotes without quotes in them, `{}` and `[]`, integers, and plain scalars that begin with a letter, and have
# no colon before a space, no comment and no tab.
_VALUE: Final = r"""(
    "[^"\\\n]*+" | '[^'\n]*+' | \{\} | \[\] | -?(?:0|[1-9][0-9]{0,14}+)(?![^ \n])
    | (?:[^\W\d]|[/$(])[^\n\t\r:#]*+(?:(?::(?=\S)|(?<=\S)\#)[^\n\t\r:#]*+)*+(?<!\ )
)"""
_LINE: Final = re.compile(
    rf"""
    ([ ]*+)
    (?: (-[ ])?+ ([^\W\d][\w./$-]{{0,99}}+|"[^"\\\n]{{1,100}}+") : (?:[ ]++{_VALUE})?+
      | -[ ]{_VALUE}
      | (?=[\#\n])
    )
    [ ]*+ (?:(?<=[ \n])\#[^\n]*+)?+ \n
    | ([\s\S]++)  # other
    """,
    re.VERBOSE,
)
_NO_TEXT: Final = scalars.MAY_MEAN_MORE | {"{", "["}  # first characters of values that may be no strings
_NO_KEYS: Final = frozenset(scalars.LITERALS)
_PART: Final = 2**14  # characters whose lines are found at once, and after which the budget is checked


def value_of(text: str, limits: Limits) -> dict[str, Any] | None:
    """Return the mapping in `text`, or None if it has anything but such lines.

    `text` has only characters that YAML allows, no line break of YAML 1.1 alone, and no complex key.
    """
    if "\r" in text:
        return None
    root: dict[str, Any] = {}
    inside: Any = root  # the innermost open collection, and its column
    at = 0
    around: list[tuple[Any, int]] = []
    bare: str | None = None  # the key of the last line, if it has no value so far
    nodes = 1
    for indent, dash, key, written, item, other in _lines(text if text.endswith("\n") else text + "\n"):
        if other:
            return None
        if not key and not item:  # empty, or a comment
            continue
        column = len(indent)
        is_item = not key or bool(dash)
        if bare is not None and (column > at or (is_item and column == at)):
            new: Any = [] if is_item else {}
            inside[bare] = new
            around.append((inside, at))
            inside, at = new, column
        else:
            while at > column or (at == column and not is_item and type(inside) is list):
                if not around:
                    return None
                inside, at = around.pop()
            if at != column or type(inside) is not (list if is_item else dict):
                return None
        value: Any = written or item or None
        if value is not None:
            first = value[0]
            if first == '"' or first == "'":
                value = value[1:-1]
            elif first in _NO_TEXT:
                value = _resolved(value)
        if key and key[0] in scalars.MAY_MEAN_MORE and key in _NO_KEYS:
            return None
        bare = None
        if not key:
            inside.append(value)
            nodes += 1
        else:
            if is_item:
                inside.append({})
                around.append((inside, at))
                inside, at = inside[-1], column + 2
                nodes += 1
            key = key[1:-1] if key[0] == '"' else key
            if key in inside:
                return None
            inside[key] = value
            nodes += 2
            bare = None if written else key
        if len(around) + (type(value) in (dict, list)) >= limits.depth:
            return None
    return root if root and nodes <= limits.nodes else None


def _lines(text: str) -> Iterator[tuple[str, ...]]:
    """Yield the groups of each line; in the last one, `other` may be a text that does not match.

    One call finds the lines of a whole part, which costs less than a match object for each line.
    """
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PART) + 1 or len(text)
        yield from _LINE.findall(text, start, end)
        start = end
        budget.check()


def _resolved(written: str) -> Any:
    if written == "{}":
        return {}
    return [] if written == "[]" else scalars.resolve(written)
