"""Write a value as YAML in one fixed, readable form.

Block style, two spaces per level, keys in the given order, one line per scalar except for multi-line texts,
which become `|` blocks. A string is plain only if common parsers, including those of YAML 1.1, read it as
that string. `yaml_reader` parses the text back to the same value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from gitstore.definition.quoting import INVISIBLE, quote_exactly

LONGEST_KEY = 1000
"""A key before a colon may have 1024 characters (YAML 1.2.2, section 8.2.2); longer ones start with `?`."""

_FLOW = re.compile(r"[][{},]")
# Words that YAML 1.1 or 1.2 do not read as strings, in any case. YAML 1.1 also lists `y` and `n`, but its
# parsers do not follow it there, and `y` is in every node's position.
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off"})


class Like(Protocol):
    """A written value whose style a new one imitates: flow collections, and the quotes of strings."""

    flow: bool
    style: str

    def like(self, step: str | int) -> Like | None: ...


@dataclass(frozen=True, slots=True)
class Style:
    """The indentation of mappings and lists in a mapping, in spaces."""

    mapping: int = 2
    list: int = 2


_STYLE = Style()


def write(value: dict[str, Any] | list[Any]) -> str:
    """Return `value`, JSON without NUL or lone surrogates, as a document ending in a newline."""
    return "\n".join(block(value, "") if value else ["{}" if isinstance(value, dict) else "[]"]) + "\n"


def block(
    collection: dict[str, Any] | list[Any], indent: str, style: Style = _STYLE, like: Like | None = None
) -> Iterator[str]:
    """Yield the lines of a non-empty collection. Recurses as deep as `collection`."""
    if isinstance(collection, list):
        for item in collection:
            yield from hang(indent + "-", item, indent, style, _step(like, 0), compact=True)
        return
    for key, value in collection.items():
        written = _inline(key)
        if len(written) > LONGEST_KEY:
            yield f"{indent}? {written}"
            written = ""
        yield from hang(f"{indent}{written}:", value, indent, style, _step(like, key), compact=False)


def hang(
    head: str, value: Any, indent: str, style: Style = _STYLE, like: Like | None = None, *, compact: bool
) -> Iterator[str]:
    """Yield the lines of `head` followed by `value`, on the same line if it fits there.

    With `compact`, a collection also begins on that line: `- id: hook-1`.
    """
    if isinstance(value, (dict, list)) and value and not (like and like.flow):
        deeper = 2 if compact else style.list if isinstance(value, list) else style.mapping
        below = indent + " " * deeper
        lines = block(value, below, style, like)
        if compact:
            yield f"{head} {next(lines)[len(below) :]}"
        else:
            yield head
        yield from lines
    elif isinstance(value, str) and fits_block(value):
        yield f"{head} |{block_header(value)}"
        below = indent + "  "
        for line in value.removesuffix("\n").split("\n"):
            yield below + line if line else ""
    else:
        yield f"{head} {flow(value, like)}"


def flow(value: Any, like: Like | None = None, *, within: bool = False) -> str:
    """Return `value` on one line, in the style of `like`; `within` a flow collection or not."""
    if isinstance(value, dict) and value:
        inner = (
            f"{_string(key, within=True)}: {flow(each, _step(like, key), within=True)}"
            for key, each in value.items()
        )
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list) and value:
        return "[" + ", ".join(flow(each, _step(like, 0), within=True) for each in value) + "]"
    if isinstance(value, str):
        return _string(value, like.style if like else "", within=within)
    return _inline(value)


def _step(like: Like | None, step: str | int) -> Like | None:
    return like.like(step) if like else None


def fits_block(text: str) -> bool:
    """Return whether `text` has several lines, all of which a block preserves exactly."""
    characters = text.replace("\n", "").replace("\t", "")
    return "\n" in text and characters.strip(" ") != "" and not INVISIBLE.search(characters)


def block_header(text: str) -> str:
    """Return the indentation indicator, if the first line needs one, and the chomping indicator."""
    indentation = "2" if text[0] in " \t\n" else ""
    if not text.endswith("\n"):
        return indentation + "-"
    return indentation + ("+" if text.endswith("\n\n") else "")


def _inline(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (dict, list)):
        return "[]" if isinstance(value, list) else "{}"
    return json.dumps(value)


def _string(text: str, quotes: str = "", *, within: bool = False) -> str:
    """Return `text` with `quotes` if they can hold it, else with as few as it needs."""
    if INVISIBLE.search(text) or quotes == '"':
        return quote_exactly(text)
    if quotes != "'" and _is_plain(text) and not (within and _FLOW.search(text)):
        return text
    if quotes == "'" or '"' in text or "\\" in text:
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'


def _is_plain(text: str) -> bool:
    """Return whether `text` needs no quotes: a letter first, so never a number, a date or an indicator."""
    return (
        (text[:1].isalpha() or text[:1] in ("_", "/"))
        and text[-1] not in " :"
        and ": " not in text
        and " #" not in text
        and text.lower() not in _WORDS
    )
