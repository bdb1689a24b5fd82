"""JSON text (RFC 8259, strictly) -> value, with a loop and a stack instead of recursion.

The standard library's parser recurses, keeps the last of duplicate keys, accepts NaN, and has no positions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
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
_WORDS = {"true": True, "false": False, "null": None}

# The tokens that may come next, by kind. The names are used in messages.
_VALUE = ("a value", frozenset({"[", "{", "string", "number", "word"}))
_FIRST_ITEM = ("a value or ]", _VALUE[1] | {"]"})
_FIRST_KEY = ("a key in double quotes or }", frozenset({"string", "}"}))
_KEY = ("a key in double quotes", frozenset({"string"}))
_COLON = ("a colon", frozenset({":"}))
_AFTER_ITEM = ("a comma or ]", frozenset({",", "]"}))
_AFTER_MEMBER = ("a comma or }", frozenset({",", "}"}))
_END = ("the end", frozenset({"end"}))


class _Token(NamedTuple):
    """`kind` is a punctuation mark, "string", "number", "word" or "end"."""

    kind: str
    at: int
    value: Any = None


def read(text: str, limits: Limits, refusals: SyntaxErrors) -> Builder:
    """Read the one value in `text`. Raises `AbortParse` if reading cannot continue."""
    builder = Builder(limits, refusals)
    inside: list[str] = []
    expected = _VALUE
    for token in _tokens(text, refusals):
        if token.kind not in expected[1]:
            raise refusals.stop(token.at, "syntax", f"{expected[0]} is expected here")
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
        expected = _COLON if is_key else _after(inside)
    return builder


def _after(inside: list[str]) -> tuple[str, frozenset[str]]:
    if not inside:
        return _END
    return _AFTER_MEMBER if inside[-1] == "{" else _AFTER_ITEM


def _tokens(text: str, refusals: SyntaxErrors) -> Iterator[_Token]:
    at = 0
    while True:
        space = _SPACE.match(text, at)
        at = space.end() if space else at
        if at == len(text):
            yield _Token("end", at)
            return
        found = _TOKEN.match(text, at)
        if found is None:
            what = "a string that has no end" if text[at] == '"' else f"{quote(text[at])} is not JSON"
            raise refusals.stop(at, "syntax", what)
        yield _token(found, refusals)
        at = found.end()


def _token(found: re.Match[str], refusals: SyntaxErrors) -> _Token:
    at, text = found.start(), found[0]
    match found.lastgroup:
        case "punctuation":
            return _Token(text, at)
        case "word":
            return _Token("word", at, _WORDS[text])
        case "string":
            try:
                return _Token("string", at, json.loads(text))
            except json.JSONDecodeError as error:
                raise refusals.stop(at + error.pos, "syntax", error.msg.removesuffix(" at")) from None
    try:
        value = scalars.real(text) if found["real"] else scalars.integer(text)
    except scalars.Refused as refused:
        refusals.add(at, refused.code, str(refused))
        value = 0
    return _Token("number", at, value)
