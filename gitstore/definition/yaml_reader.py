"""YAML text -> value, from libyaml's events.

libyaml handles the syntax; tags, scalars, aliases, keys and limits are handled here. Measured with libyaml
0.2.5: composing 60 KB of `[` overflows the C stack, iterating over events does not, and stopping at a level
costs only the text read until then (a megabyte of `[`: 30 ms; reading it to its end would take half an hour).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from gitstore import budget
from gitstore.definition import block_reader, scalars
from gitstore.definition.builder import AbortParse, Builder, SyntaxErrors
from gitstore.definition.quoting import quote
from gitstore.model import Limits

MOST_TAG_DIRECTIVES = 64
"""libyaml compares each directive with all before it: a megabyte of them would take minutes."""

DEEPEST_FLOW = 1_000
"""Limit of flow nesting; the time of libyaml's scanner is quadratic in it."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TAGS = {MappingStartEvent: scalars.TAG_PREFIX + "map", SequenceStartEvent: scalars.TAG_PREFIX + "seq"}

_BETWEEN_CHECKS = 256  # nodes between two budget checks of `plain_value`

_NESTING = "maximum nesting depth"
"""The message of a libyaml with a nesting limit of its own. It reads ahead, so its limit applies first."""

# What to do about the messages of libyaml that are most frequent; others are passed on.
_ADVICE = {
    "mapping values are not allowed in this context": (
        'a ":" is not allowed here: check the indentation, or put quotes around a text with ": " in it'
    ),
    "did not find expected key": "a key is expected here: check the indentation of this line and the last",
    "could not find expected ':'": 'a ":" is missing behind a key',
    "did not find expected '-' indicator": 'a "- " is expected here: check the indentation of the list',
    "block sequence entries are not allowed in this context": (
        'a "- " is not allowed here: begin the list on a line of its own'
    ),
    "did not find expected ',' or ']'": 'a "," or "]" is missing in the list that begins with "["',
    "did not find expected ',' or '}'": 'a "," or "}" is missing in the mapping that begins with "{"',
    "did not find expected node content": "a value is missing here, or a bracket is not closed",
    "found unexpected end of stream": "the text ends within quotes: close them",
    "found character that cannot start any token": (
        "a value can't begin with this character: put quotes around it, and indent with spaces, not tabs"
    ),
    "found a tab character that violates indentation": "indent with spaces, not with a tab",
    "found unknown escape character": (
        'unknown escape in double quotes: write "\\\\" for a backslash, or use single quotes'
    ),
}

# Characters that libyaml rejects (yaml_parser_update_buffer in its reader.c); found here to report them all.
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_TAG_DIRECTIVE = re.compile(r"(?<![^\r\n])%TAG")
# JSON writes a character beyond U+FFFF as the escapes of two surrogates, which libyaml refuses. They are
# replaced by escapes of the same length, of characters that the text lacks: with another letter for each D.
_PAIR = r"u([%s])([89abAB][0-9a-fA-F]{2})\\u([%s])([c-fC-F][0-9a-fA-F]{2})"
_ESCAPE = re.compile(r"\\(?:" + _PAIR % ("dD", "dD") + "|.)", re.DOTALL)
_LETTERS = "eabc"
_WIDE_ESCAPE = re.compile(r"\\U(0010[0-9a-fA-F]{4}|000[0-9a-fA-F]{5})")

_PROPERTIES = re.compile(r"(?:!\S*+(?:\s++|#[^\r\n]*+)++)?+&[0-9A-Za-z_-]++(?P<more>[^\s,\[\]{}])")
"""An anchor, perhaps behind a tag, whose name goes on behind the characters that libyaml takes for it."""

_COMPLEX_KEY = re.compile(r"(?<![^\s,\[{])\?")
"""What may be a key behind a question mark: a text or a URL has one as well, but seldom begins with it."""

# Line breaks for libyaml, as in YAML 1.1; ordinary characters in YAML 1.2.
_OLD_BREAKS = "\x85\u2028\u2029"


def read(text: str, limits: Limits, errors: SyntaxErrors) -> Builder:
    """Read the one document in `text`. Raises `AbortParse` if reading cannot continue."""
    _check_characters(text, errors)
    if errors:
        raise AbortParse
    return _Reader(text, limits, errors).read()


def plain_value(text: str, limits: Limits) -> dict[str, Any] | None:
    """Return the mapping in `text`, in at most half the time of `read`, or None if `read` must parse it.

    That is one with an anchor, an alias, a tag, an escape, a second document, a key that may be refused, or
    an error. `read` returns the same value for any other text, and where each part of it is.
    """
    if "\\" in text or ("?" in text and _COMPLEX_KEY.search(text)) or _UNREADABLE.search(text):
        return None
    text, hidden = _hide(text)
    if hidden:
        return None
    if (usual := block_reader.value_of(text, limits)) is not None:
        return usual
    root: list[Any] = []
    inside: Any = root
    key: Any = None  # of the next value in a mapping
    around: list[tuple[Any, Any]] = []
    nodes = documents = 0
    may_mean_more, resolve = scalars.MAY_MEAN_MORE, scalars.resolve
    try:
        get_event = LOADER(text).get_event
        while (event := get_event()) is not None:
            kind = type(event)
            if kind is ScalarEvent:
                value = event.value
                if event.tag is not None or event.anchor is not None:
                    return None
                if not event.style and (not value or value[0] in may_mean_more):
                    value = resolve(value)
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                inside, key = around.pop()
                continue
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                if event.tag is not None or event.anchor is not None or len(around) >= limits.depth:
                    return None
                value = {} if kind is MappingStartEvent else []
            elif kind is DocumentStartEvent:
                documents += 1
                continue
            elif kind is AliasEvent:
                return None
            else:
                continue
            nodes += 1
            if not nodes % _BETWEEN_CHECKS:
                budget.check()
            if type(inside) is list:
                inside.append(value)
            elif key is None:
                if type(value) is not str or value in inside:
                    return None
                key = value
                continue
            else:
                inside[key] = value
                key = None
            if kind is not ScalarEvent:
                around.append((inside, key))
                inside, key = value, None
    except (yaml.YAMLError, ValueError, scalars.ScalarError):
        return None
    fits = documents == 1 and nodes <= limits.nodes
    return root[0] if fits and type(root[0]) is dict else None


def _check_characters(text: str, errors: SyntaxErrors) -> None:
    for character in _UNREADABLE.finditer(text):
        message = f"the character U+{ord(character[0]):04X} is not allowed in YAML: write it as an escape"
        errors.add(character.start(), "character_not_allowed", message)
    if "%TAG" not in text:
        return
    directives = [directive.start() for directive in _TAG_DIRECTIVE.finditer(text)]
    if len(directives) > MOST_TAG_DIRECTIVES:
        message = f"more than {MOST_TAG_DIRECTIVES} %TAG directives"
        errors.add(directives[MOST_TAG_DIRECTIVES], "syntax", message)


class _Reader:
    """One pass over the events of `text`."""

    def __init__(self, text: str, limits: Limits, errors: SyntaxErrors) -> None:
        self._text, self._hidden = _hide(text)
        self._errors = errors
        self._builder = Builder(limits, errors, escapes="\\" in text)
        self._anchors: dict[str, Any] = {}
        self._documents = 0

    def read(self) -> Builder:
        """Take all events. The usual scalars, most of the events, are handled here, without further calls."""
        scalar, text, is_hidden = self._builder.scalar, self._text, bool(self._hidden)
        get_event = LOADER(text).get_event
        at = 0
        try:
            while (event := get_event()) is not None:
                kind = type(event)
                at = event.start_mark.index
                if kind is ScalarEvent:
                    value = event.value
                    may_mean_more = not event.style and (not value or value[0] in scalars.MAY_MEAN_MORE)
                    if may_mean_more or event.tag is not None or is_hidden:
                        value = self._value(event, at)
                    scalar(value, at)
                    if event.anchor is not None:
                        self._name(event.anchor, value, at)
                elif kind is MappingStartEvent:
                    self._start({}, event, at)
                elif kind is SequenceStartEvent:
                    self._start([], event, at)
                elif kind is MappingEndEvent or kind is SequenceEndEvent:
                    self._builder.close()
                    continue
                elif kind is AliasEvent:
                    self._repeat(event.anchor, at)
                else:
                    if kind is DocumentStartEvent:
                        self._begin_document(at)
                    continue
                if text[at - 1] == "?" and text[at : at + 1].strip() and at:
                    message = 'put a space behind "?", or quotes around the text'
                    self._errors.add(at - 1, "syntax", message)
        except yaml.MarkedYAMLError as error:
            at = _offset(error.problem_mark, at)
            if _NESTING in (error.problem or ""):
                raise self._builder.too_deep(at) from None
            problem = error.problem or "this is not YAML"
            message = f"{error.context}: {problem}" if error.context else problem
            message = _ADVICE.get(problem, message)
            raise self._errors.stop(at, "syntax", message) from None
        except (yaml.YAMLError, ValueError):
            # PyYAML decodes the %-escapes of a tag, and its UnicodeDecodeError propagates.
            raise self._errors.stop(at, "syntax", "this is not YAML") from None
        return self._builder

    def _begin_document(self, at: int) -> None:
        self._documents += 1
        self._anchors = {}
        if self._documents > 1:
            self._errors.refuse_json(at, "several_documents", "a second document starts here")
            if self._errors:
                raise AbortParse

    def _start(self, container: dict[str, Any] | list[Any], event: CollectionStartEvent, at: int) -> None:
        if event.tag is not None and event.tag not in ("!", _TAGS[type(event)]):
            error = scalars.unknown_tag(event.tag, "a mapping" if isinstance(container, dict) else "a list")
            self._errors.refuse_json(at, error.code, str(error))
        self._builder.open(container, at)
        if event.anchor is not None:
            self._name(event.anchor, container, at)

    def _name(self, anchor: str, value: Any, at: int) -> None:
        """Remember the node of an anchor; refuse one whose name libyaml cuts off, as YAML 1.1 would."""
        self._anchors[anchor] = value
        properties = _PROPERTIES.match(self._text, at)
        if properties is not None:
            message = "the name of an anchor has only letters, digits, - and _"
            self._errors.add(properties.start("more"), "syntax", message)

    def _value(self, event: ScalarEvent, at: int) -> Any:
        text = self._hidden.shown(event.value, quoted=event.style == '"')
        try:
            if event.tag is not None:
                return scalars.construct(event.tag, text)
            return scalars.resolve(text) if not event.style else text
        except scalars.ScalarError as error:
            (self._errors.refuse_json if error.sound else self._errors.add)(at, error.code, str(error))
            return 0 if error.code == "number_out_of_range" else text

    def _repeat(self, name: str, at: int) -> None:
        if name in self._anchors and not self._builder.is_open(self._anchors[name]):
            self._builder.repeat(self._anchors[name], at)
            return
        what = "recursive alias" if name in self._anchors else "no anchor precedes the alias"
        self._errors.add(at, "alias_refused", f"{what} {quote('*' + name)}")
        self._builder.scalar("", at)


@dataclass(frozen=True, slots=True)
class _Hidden:
    """How to restore what `_hide` replaced: characters, and pairs of escapes spelled with `letter`."""

    characters: dict[int, str]
    letter: str = ""

    def __bool__(self) -> bool:
        return bool(self.characters or self.letter)

    def shown(self, text: str, *, quoted: bool) -> str:
        """Return the text of a scalar; in double quotes, escapes are now the characters themselves."""
        if self.characters:
            text = text.translate(self.characters)
        if not self.letter:
            return text
        if quoted:
            first = int(self.letter, 16) << 12
            pair = f"[{chr(first + 0x800)}-{chr(first + 0xBFF)}][{chr(first + 0xC00)}-{chr(first + 0xFFF)}]"
            return re.sub(pair, _joined, text)
        letters = self.letter + self.letter.upper()
        return re.sub(r"\\" + _PAIR % (letters, letters), lambda pair: _spelled(pair, "d"), text)


def _hide(text: str) -> tuple[str, _Hidden]:
    """Replace in `text` what libyaml would misread, by as many characters: offsets are unchanged."""
    if not text.endswith("\n") and text.rstrip(" ").endswith(("\n", "\r")):
        text += "\n"  # libyaml takes spaces at the end for text of a block scalar
    letter = _letter(text)
    if letter:
        text = _ESCAPE.sub(lambda pair: _spelled(pair, letter) if pair[1] else pair[0], text)
    text, characters = _hide_old_breaks(text)
    return text, _Hidden(characters, letter)


def _letter(text: str) -> str:
    """Return a hexadecimal digit for the spelling of pairs; "" if there are no pairs, or no digit is free."""
    if "\\ud" not in text and "\\uD" not in text:
        return ""
    if not any(pair[1] for pair in _ESCAPE.finditer(text)):
        return ""
    for letter in _LETTERS:
        first = int(letter, 16) << 12
        used = re.compile(
            f"[{chr(first + 0x800)}-{chr(first + 0xFFF)}]|\\\\(?:u|U0000)[{letter}{letter.upper()}][89a-fA-F]"
        )
        if not used.search(text):
            return letter
    return ""


def _spelled(pair: re.Match[str], letter: str) -> str:
    """Return a pair of escapes with `letter` as the first digit of each, in the same case."""
    high, low = (letter.upper() if digit.isupper() else letter for digit in pair.group(1, 3))
    return f"\\u{high}{pair[2]}\\u{low}{pair[4]}"


def _joined(pair: re.Match[str]) -> str:
    high, low = (ord(character) & 0x3FF for character in pair[0])
    return chr(0x10000 + (high << 10) + low)


def _hide_old_breaks(text: str) -> tuple[str, dict[int, str]]:
    """Replace `_OLD_BREAKS` in `text` by unused characters; return the text and the table that restores them.

    One character is replaced by one, so that offsets are unchanged.
    """
    present = [character for character in _OLD_BREAKS if character in text]
    if not present:
        return text, {}
    used = set(text) | {chr(int(escape, 16)) for escape in _WIDE_ESCAPE.findall(text)}
    unused = (chr(code) for code in range(0x10FFFD, 0x10000, -1) if chr(code) not in used)
    stand_ins = list(islice(unused, len(present)))
    if len(stand_ins) < len(present):
        return text, {}  # such a text contains all existing characters, which takes 4 MB
    hide = {ord(character): stand_in for character, stand_in in zip(present, stand_ins, strict=True)}
    restore = {ord(stand_in): character for character, stand_in in zip(present, stand_ins, strict=True)}
    return text.translate(hide), restore


def _offset(mark: Any, otherwise: int) -> int:
    """Return the offset of a mark, or `otherwise` if it is None (which the type stubs allow)."""
    return otherwise if mark is None else mark.index


def events(text: str) -> Iterator[yaml.Event]:
    """Return libyaml's events of `text`, which `read` accepts; their offsets are those of `text`."""
    return iter(LOADER(_hide(text)[0]).get_event, None)


def has_comments(text: str) -> bool:
    """Return whether `text`, a document that `read` accepts, has a comment.

    Returns True if that cannot be determined. libyaml drops comments, so the text between its tokens is
    searched for them.
    """
    text, _ = _hide(text.removeprefix("\ufeff"))
    end = depth = 0
    try:
        for token in yaml.scan(text, Loader=LOADER):
            depth += isinstance(token, (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken))
            depth -= isinstance(token, (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken))
            if depth > DEEPEST_FLOW:
                return True
            if "#" in text[end : token.start_mark.index] or _has_header_comment(token, text):
                return True
            end = token.end_mark.index
    except (yaml.YAMLError, ValueError):
        return True
    return "#" in text[end:]


def _has_header_comment(token: yaml.Token, text: str) -> bool:
    """Return whether `token` is a block scalar with a comment on its first line: `key: |  # why`."""
    if not isinstance(token, yaml.ScalarToken) or token.style not in ("|", ">"):
        return False
    first_line = text[token.start_mark.index : token.end_mark.index].partition("\n")[0]
    return "#" in first_line
