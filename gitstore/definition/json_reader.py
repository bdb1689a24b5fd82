"""JSON text (RFC 8259, strictly) -> value, with a loop and a stack instead of recursion.

The standard library's parser recurses, keeps the last of duplicate keys, accepts NaN, and has no positions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from gitstore.definition import scalars
from gitstore.definition.builder import Builder, SyntaxErrors
from gitstore.definition.quoting import quote
from gitstore.model import Limits

_SPACE = re.compile(r"[ \t\n\r]*+")
# Possessive, so that a megabyte of string cannot backtrack. json.loads validates the content of strings.
_TOKEN = re.compile(
    r"""(?P<punctuation>[][{},:])
      | (?P<string>"(?:[^"\\]++|\\.)*+")
      | (?P<number>-?(?:0|[1-9][0-9]*+)(?P<real>(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?))
      | (?P<word>true|false|null)""",
    re.VERBOSE | re.DOTALL,
)
_DIGITS_OF_FLOAT = range(17, 310)
"""Numbers of digits of the 64-bit floats that Postgres, and so this service, writes as integers."""

_WORDS = {"true": True, "false": False, "null": None}

# The tokens that may come next, by kind. The names are used in messages.
_VALUE = ("a value", frozenset({"[", "{", "string", "number", "word"}))
_FIRST_ITEM = ("a value or ]", _VALUE[1] | {"]"})
_FIRST_KEY = ("a key in double quotes or }", frozenset({"string", "}"}))
_KEY = ("a key in double quotes", frozenset({"string"}))
_COLON = ("a colon", frozenset({":"}))
_AFTER_VALUE = {
    "[": ("a comma or ]", frozenset({",", "]"})),
    "{": ("a comma or }", frozenset({",", "}"})),
}
_END = ("the end", frozenset({"end"}))


class _Token(NamedTuple):
    """`kind` is a punctuation mark, "string", "number", "word" or "end"."""

    kind: str
    at: int
    value: Any = None


def read(text: str, limits: Limits, errors: SyntaxErrors) -> Builder:
    """Read the one value in `text`. Raises `AbortParse` if reading cannot continue."""
    builder = Builder(limits, errors)
    inside: list[str] = []
    expected = _VALUE
    for token in _tokens(text, errors):
        if token.kind not in expected[1]:
            raise errors.stop(token.at, "syntax", f"{expected[0]} is expected here")
        match token.kind:
            case "{" | "[":
                builder.open({} if token.kind == "{" else [], token.at)
                inside.append(token.kind)
                expected = _FIRST_KEY if token.kind == "{" else _FIRST_ITEM
                continue
            case ":" | ",":
                expected = _KEY if token.kind == "," and inside[-1] == "{" else _VALUE
                continue
            case "}" | "]":
                builder.close()
                inside.pop()
            case "string" | "number" | "word":
                builder.scalar(token.value, token.at)
        is_key = expected in (_KEY, _FIRST_KEY) and token.kind == "string"
        after_value = _AFTER_VALUE[inside[-1]] if inside else _END
        expected = _COLON if is_key else after_value
    return builder


def _tokens(text: str, errors: SyntaxErrors) -> Iterator[_Token]:
    at = 0
    while True:
        space = _SPACE.match(text, at)
        at = space.end() if space else at
        if at == len(text):
            yield _Token("end", at)
            return
        match = _TOKEN.match(text, at)
        if match is None:
            what = "unterminated string" if text[at] == '"' else f"{quote(text[at])} is not JSON"
            raise errors.stop(at, "syntax", what)
        yield _token(match, errors)
        at = match.end()


def _token(match: re.Match[str], errors: SyntaxErrors) -> _Token:
    at, text = match.start(), match[0]
    match match.lastgroup:
        case "punctuation":
            return _Token(text, at)
        case "word":
            return _Token("word", at, _WORDS[text])
        case "string":
            try:
                return _Token("string", at, json.loads(text))
            except json.JSONDecodeError as error:
                raise errors.stop(at + error.pos, "syntax", error.msg.removesuffix(" at")) from None
    try:
        value = scalars.real(text) if match["real"] else _integer(text)
    except scalars.ScalarError as error:
        errors.add(at, error.code, str(error))
        value = 0
    return _Token("number", at, value)


def _integer(text: str) -> int | float:
    """Return an integer, or a float for a larger integer that is exactly the shortest form of one (1e21)."""
    try:
        return scalars.integer(text)
    except scalars.ScalarError:
        if len(text.lstrip("-")) in _DIGITS_OF_FLOAT:
            value = float(text)
            if Decimal(repr(value)) == int(text):
                return value
        raise
