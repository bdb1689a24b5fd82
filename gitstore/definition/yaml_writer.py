"""Write a value as YAML in one fixed, readable form.

Block style, two spaces per level, keys in the given order, one line per scalar except for multi-line texts,
which become `|` blocks. A string is plain only if common parsers, including those of YAML 1.1, read it as
that string. `yaml_reader` parses the text back to the same value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gitstore.definition.quoting import INVISIBLE, quote_exactly

LONGEST_KEY = 1000
"""A key before a colon may have 1024 characters (YAML 1.2.2, section 8.2.2); longer ones start with `?`."""

# Words that YAML 1.1 or 1.2 do not read as strings, in any case. YAML 1.1 also lists `y` and `n`, but its
# parsers do not follow it there, and `y` is in every node's position.
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off"})


def write(value: dict[str, Any]) -> str:
    """Return `value`, a JSON mapping without NUL or lone surrogates, as a document ending in a newline."""
    return "\n".join(_block(value, "") if value else ["{}"]) + "\n"


def _block(collection: dict[str, Any] | list[Any], indent: str) -> Iterator[str]:
    """Yield the lines of a non-empty collection. Recurses as deep as `collection`."""
    if isinstance(collection, list):
        for item in collection:
            yield from _hang(indent + "-", item, indent, compact=True)
        return
    for key, value in collection.items():
        written = _inline(key)
        if len(written) > LONGEST_KEY:
            yield f"{indent}? {written}"
            written = ""
        yield from _hang(f"{indent}{written}:", value, indent, compact=False)


def _hang(head: str, value: Any, indent: str, *, compact: bool) -> Iterator[str]:
    """Yield the lines of `head` followed by `value`, on the same line if it fits there.

    With `compact`, a collection also begins on that line: `- id: hook-1`.
    """
    below = indent + "  "
    if isinstance(value, (dict, list)) and value:
        lines = _block(value, below)
        if compact:
            yield f"{head} {next(lines)[len(below) :]}"
        else:
            yield head
        yield from lines
    elif isinstance(value, str) and _fits_block(value):
        yield f"{head} |{_block_header(value)}"
        for line in value.removesuffix("\n").split("\n"):
            yield below + line if line else ""
    else:
        yield f"{head} {_inline(value)}"


def _fits_block(text: str) -> bool:
    """Return whether `text` has several lines, all of which a block preserves exactly."""
    characters = text.replace("\n", "").replace("\t", "")
    return "\n" in text and characters.strip(" ") != "" and not INVISIBLE.search(characters)


def _block_header(text: str) -> str:
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


def _string(text: str) -> str:
    if INVISIBLE.search(text):
        return quote_exactly(text)
    if _is_plain(text):
        return text
    if '"' in text or "\\" in text:
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
