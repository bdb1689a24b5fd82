"""JSON text (RFC 8259, strictly) -> value, with a loop and a stack instead of recursion.

The standard library's parser recurses, keeps the last of duplicate keys, accepts NaN, and has no positions.
It takes a tenth of the time, and suffices where only the value counts: `plain_value` refuses every text that
it might get wrong, and the caller uses `read`, which reports each error with its position.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, Final, NoReturn

from gitstore import budget
from gitstore.definition import scalars
from gitstore.definition.builder import NO_ENVELOPE, Builder, SyntaxErrors
from gitstore.definition.quoting import quote
from gitstore.model import Limits

_SPACE = re.compile(r"[ \t\n\r]*+")
# Possessive, so that a megabyte of string cannot backtrack. json.loads validates the content of strings.
_TOKEN = re.compile(
    r"""[ \t\n\r]*+(?:(?P<punctuation>[][{},:])
      | "(?P<plain>[^"\\\x00-\x1f]*+)"
      | (?P<string>"(?:[^"\\]++|\\.)*+")
      | (?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?)
      | (?P<word>true|false|null))""",
    re.VERBOSE | re.DOTALL,
)
_DOUBTFUL_ESCAPE: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")  # NUL, or a surrogate
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
_END: tuple[str, frozenset[str]] = ("the end", frozenset())


def read(text: str, limits: Limits, errors: SyntaxErrors, envelope: Limits = NO_ENVELOPE) -> Builder:
    """Read the one value in `text`. Raises `AbortParse` if reading cannot continue."""
    builder = Builder(limits, errors, escapes="\\" in text, envelope=envelope)
    inside: list[str] = []
    expected, next_token, at = _VALUE, _TOKEN.match, 0
    while (token := next_token(text, at)) is not None:
        group = token.lastgroup or ""
        written = token[group]
        at = token.end()
        kind = written if group == "punctuation" else "string" if group == "plain" else group
        if kind not in expected[1]:
            raise errors.stop(_start(text, token.start()), "syntax", f"{expected[0]} is expected here")
        if kind == ":":
            expected = _VALUE
            continue
        if kind == ",":
            expected = _KEY if inside[-1] == "{" else _VALUE
            continue
        if kind in "{[":
            builder.open({} if kind == "{" else [], at - 1)
            inside.append(kind)
            expected = _FIRST_KEY if kind == "{" else _FIRST_ITEM
            continue
        if kind in "}]":
            builder.close()
            inside.pop()
        elif group == "plain":
            builder.scalar(written, at - len(written) - 2)
        else:
            start = at - len(written)
            builder.scalar(_value(group, written, start, errors), start)
        if kind == "string" and (expected is _KEY or expected is _FIRST_KEY):
            expected = _COLON
        else:
            expected = _AFTER_VALUE[inside[-1]] if inside else _END
    at = _start(text, at)
    if at < len(text):
        what = "unterminated string" if text[at] == '"' else f"{quote(text[at])} is not JSON"
        raise errors.stop(at, "syntax", what)
    if expected is not _END:
        raise errors.stop(at, "syntax", f"{expected[0]} is expected here")
    return builder


def plain_value(text: str, limits: Limits, envelope: Limits = NO_ENVELOPE) -> Any:
    """Return the value that `read` returns for `text`. Raises DoubtError if `read` must look at it."""
    if "\\u" in text and _DOUBTFUL_ESCAPE.search(text):
        raise DoubtError
    try:
        value = _decode(text)
    except (ValueError, RecursionError, scalars.ScalarError):
        raise DoubtError from None
    if not _fits(value, limits.depth + envelope.depth, limits.nodes + envelope.nodes):
        raise DoubtError
    return value


class DoubtError(Exception):
    """`read` may refuse the text, or give it another value than the standard library does."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DoubtError
    return found


def _refuse(constant: str) -> NoReturn:
    raise DoubtError(constant)


_decode: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=scalars.integer, parse_float=scalars.real, parse_constant=_refuse
).decode


def _fits(value: Any, levels: int, nodes: int) -> bool:
    """Return whether a value has at most so many levels and nodes; a key is a node."""
    waiting, count = [(value, 1)] if isinstance(value, dict | list) else [], 1
    while waiting:
        inside, level = waiting.pop()
        count += 2 * len(inside) if type(inside) is dict else len(inside)
        if level > levels or count > nodes:
            return False
        inner = inside.values() if type(inside) is dict else inside
        waiting += [(each, level + 1) for each in inner if type(each) is dict or type(each) is list]
        budget.check()
    return True


def _start(text: str, at: int) -> int:
    """Return the offset of the first character that is not space."""
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _value(group: str, text: str, at: int, errors: SyntaxErrors) -> Any:
    match group:
        case "word":
            return _WORDS[text]
        case "string":
            try:
                return json.loads(text)
            except json.JSONDecodeError as error:
                raise errors.stop(at + error.pos, "syntax", error.msg.removesuffix(" at")) from None
    try:
        return _integer(text) if text.lstrip("-").isdecimal() else scalars.real(text)
    except scalars.ScalarError as error:
        (errors.refuse_json if error.sound else errors.add)(at, error.code, str(error))
        return 0


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
