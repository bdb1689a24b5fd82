"""The small languages inside a node's config: JMESPath expressions and URLs with templates."""

from __future__ import annotations

import ipaddress
import json
import re

import jmespath
from jmespath.exceptions import IncompleteExpressionError, JMESPathError, LexerError, ParseError
from jmespath.parser import Parser

from gitstore.definition.quoting import quote

LONGEST_EXPRESSION = 16_384
DEEPEST_EXPRESSION = 64
_LONGEST_CACHED = 1_024

# A string, a quoted name or a `literal`, with backslash escapes. An unclosed one extends to the end, so that
# the text is not scanned again from each quote in it.
_QUOTED = re.compile(
    r"""'(?:[^'\\]++|\\.?)*+(?:'|\Z) | "(?:[^"\\]++|\\.?)*+(?:"|\Z)
        | `((?:[^`\\]++|\\.?)*+)(?:`|(?P<open>\Z))""",
    re.DOTALL | re.VERBOSE,
)

_STAND_IN = "\0"
_NOT_IN_URL = re.compile(r"[\s\x00-\x1f\x7f]")
_HTTP = re.compile(r"https?://([^/?#\\]++)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:[^@\s]*@)?(?:\[([^\]]*)\]|([^\s:@\[\]<>^|%{}\"`]+))(?::([0-9]{0,5}))?")


def explain_jmespath(expression: str) -> str | None:
    """Return the reason why `expression` is not JMESPath, or None if it is."""
    if len(expression) > LONGEST_EXPRESSION:
        return f"it is longer than {LONGEST_EXPRESSION} characters"
    expression = _QUOTED.sub(_quote_literal, expression)
    if _depth(expression) > DEEPEST_EXPRESSION:
        return f"it is nested more than {DEEPEST_EXPRESSION} levels deep"
    try:
        jmespath.compile(expression)
    except JMESPathError as error:
        return _reason(error)
    except RecursionError:
        return "it is nested too deeply"
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        # The library's own faults on malformed input, such as int() of thousands of digits.
        return "it can't be read"
    if len(expression) > _LONGEST_CACHED:
        # The library caches the 512 latest syntax trees regardless of their size.
        Parser.purge()
    return None


def _quote_literal(match: re.Match[str]) -> str:
    r"""Rewrite `success` to `"success"`, which JEP-12 requires and MeshHook's placeholders lack.

    The library accepts the first form with a PendingDeprecationWarning, an error where warnings are errors.
    Catching warnings is not thread-safe, so the library receives the second form.
    """
    literal = match[1]
    if literal is None or match["open"] is not None or _is_json(literal.replace("\\`", "`")):
        return match[0]
    quoted = f'"{literal.lstrip()}"'
    return f"`{quoted}`" if _is_json(quoted.replace("\\`", "`")) else match[0]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _depth(expression: str) -> int:
    """Return the nesting depth of brackets, ignoring those in literals."""
    depth = deepest = 0
    for character in _QUOTED.sub("", expression):
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


def _reason(error: JMESPathError) -> str:
    if isinstance(error, IncompleteExpressionError):
        return "it ends too early"
    if isinstance(error, LexerError):
        return f"{quote(str(error.lexer_value), 40)} is not expected"
    if isinstance(error, ParseError):
        kind = error.token_type
        return (
            "it ends too early" if kind == "EOF" else f"{quote(str(error.token_value), 40)} is not expected"
        )
    return "it can't be read"


def is_http_url(text: str) -> bool:
    """Return whether `text` is an http(s) URL. `{{template}}` may be any part of it, or the whole.

    The query may contain spaces, which clients send as %20 (https://url.spec.whatwg.org/#query-state).
    """
    before, _, query = _with_templates_as("", text).partition("?")
    if _NOT_IN_URL.search(before) or _NOT_IN_URL.search(query.replace(" ", "")):
        return False
    literal = _with_templates_as(_STAND_IN, text)
    start, template, _ = literal.partition(_STAND_IN)
    if template and any(scheme.startswith(start.lower()) for scheme in ("http://", "https://")):
        return True
    match = _HTTP.match(literal)
    return match is not None and (_STAND_IN in match[1] or _is_authority(match[1]))


def _with_templates_as(stand_in: str, text: str) -> str:
    """Replace each template in `text` by `stand_in`.

    `str.find` rather than a regular expression: `{{.*?}}` scans the rest of the text for each `{{` that is
    not closed.
    """
    pieces, at = [], 0
    while (start := text.find("{{", at)) >= 0 and (end := text.find("}}", start + 2)) >= 0:
        pieces += [text[at:start], stand_in]
        at = end + 2
    return "".join([*pieces, text[at:]])


def _is_authority(text: str) -> bool:
    match = _AUTHORITY.fullmatch(text)
    if match is None or int(match[3] or 0) > 65535:
        return False
    if match[1] is None:
        return True
    try:
        ipaddress.IPv6Address(match[1])
    except ValueError:
        return False
    return True
