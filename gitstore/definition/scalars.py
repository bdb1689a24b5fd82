"""Resolve YAML scalars by the core schema of YAML 1.2.2, section 10.3.

PyYAML's own resolver implements YAML 1.1, where `no` is false, `010` is eight and `12:30:00` is 45000.
"""

from __future__ import annotations

import math
import re
from typing import Any

from gitstore.definition.quoting import quote

TAG_PREFIX = "tag:yaml.org,2002:"
LARGEST_INTEGER = 2**53 - 1
"""Beyond this, JSON numbers lose precision (RFC 8785, section 3.2.2.3; RFC 7493, section 2.2)."""

LITERALS = {
    **dict.fromkeys(("null", "Null", "NULL", "~", "")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
MAY_MEAN_MORE = frozenset("-+.0123456789nN~tTfF")
"""The first characters of the plain scalars that may be other than strings. (The empty one is null.)"""


class ScalarError(Exception):
    """A scalar without a valid value. `code` is a problem's code, the message is for people.

    `sound`: it has a value for other readers, which JSON has no form for.
    """

    def __init__(self, code: str, message: str, *, sound: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.sound = sound


def resolve(text: str) -> Any:
    """Return the value of a plain scalar. Raises `ScalarError` for a number that JSON cannot represent."""
    if text and text[0] not in MAY_MEAN_MORE:
        return text
    if text in LITERALS:
        return LITERALS[text]
    if _INTEGER.fullmatch(text):
        return integer(text)
    for pattern, base in ((_OCTAL, 8), (_HEXADECIMAL, 16)):
        if pattern.fullmatch(text):
            return _checked(int(text[2:], base))
    if _FLOAT.fullmatch(text):
        return real(text)
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError("number_not_finite", f"{text} is not a finite number: put it in quotes")
    return text


def construct(tag: str, text: str) -> Any:
    """Return the value of a scalar with an explicit `tag`. Raises `ScalarError`."""
    name = tag.removeprefix(TAG_PREFIX)
    if tag in ("!", TAG_PREFIX + "str"):
        return text
    if not tag.startswith(TAG_PREFIX) or name not in ("null", "bool", "int", "float"):
        raise unknown_tag(tag, "a scalar")
    value = resolve(text)
    if name == "float" and type(value) is int:
        return float(value)
    if type(value).__name__ != {"null": "NoneType"}.get(name, name):
        raise ScalarError("tag_not_supported", f"the tag !!{name} does not fit the text after it")
    return value


def unknown_tag(tag: str, what: str) -> ScalarError:
    shown = "!!" + tag.removeprefix(TAG_PREFIX) if tag.startswith(TAG_PREFIX) else tag
    return ScalarError(
        "tag_not_supported", f"the tag {quote(shown)} on {what} is not one of YAML's core schema", sound=True
    )


def integer(text: str) -> int:
    """Return an integer from decimal digits. Raises `ScalarError` beyond ±(2^53 - 1)."""
    digits = text.lstrip("-+").lstrip("0") or "0"
    # Python refuses to convert thousands of digits, so only a few are converted.
    value = _checked(int(digits[:17]))
    return -value if text[0] == "-" else value


def real(text: str) -> float:
    """Return a floating-point number. Raises `ScalarError` if it is too large for one."""
    value = float(text)
    if math.isfinite(value):
        return value
    raise ScalarError("number_out_of_range", "the number is too large for a 64-bit float: put it in quotes")


def _checked(value: int) -> int:
    if value <= LARGEST_INTEGER:
        return value
    message = "the integer is past ±9007199254740991 (2^53 - 1): put it in quotes"
    raise ScalarError("number_out_of_range", message, sound=True)
