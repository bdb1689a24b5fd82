"""Display of definitions as text: highlighted lines, and two texts side by side.

Pygments tokenizes the text; of its many token types a few are coloured. All Markup returned was escaped here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from markupsafe import Markup, escape
from pygments import lex
from pygments.lexer import Lexer
from pygments.lexers.data import JsonLexer, YamlLexer
from pygments.token import Comment, Keyword, Name, Number, Punctuation, String, _TokenType
from pygments.token import Literal as LiteralToken

from gitstore.definition.quoting import clip
from gitstore.diff.sequences import CONTEXT, align, hunks

MOST_HIGHLIGHTED: Final = 12_000  # characters; longer texts are shown plain
MOST_SHOWN: Final = 48_000
MOST_LINES: Final = 4_000
MOST_ROWS: Final = 400
MOST_COMPARED: Final = 20_000  # lines of each side
_LONGEST_LINE: Final = 600  # characters of a line whose words are compared
_LONGEST_SHOWN: Final = 2_000
_LONGEST_HIGHLIGHTED: Final = 1_000  # characters of a line
_REORDERING: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_WORD: Final = re.compile(r"\w+|\s+|[^\w\s]")
_CLASSES: Final[tuple[tuple[_TokenType, str], ...]] = (
    (Comment, "c"), (Name.Tag, "k"), (Name.Attribute, "k"), (Number, "m"), (Keyword, "m"),
    (Name.Constant, "m"), (Punctuation, "p"), (LiteralToken.Scalar, "s"), (String, "s"),
)  # fmt: skip


class Verbatim(str):
    """Text in a field of a form, which sends it back: it must not change."""

    __slots__ = ()


def legible(value: Any) -> Any:
    """Escape the characters that reorder text (Trojan Source); a page applies this to all that it shows."""
    if not isinstance(value, str) or isinstance(value, Markup | Verbatim):
        return value
    return _REORDERING.sub(lambda match: f"\\u{ord(match[0]):04x}", value)


@dataclass(frozen=True, slots=True)
class Text:
    """Lines to show. `cut` is the number of characters that are omitted."""

    lines: list[Markup]
    cut: int = 0


def highlighted(text: str, file_name: str) -> Text:
    """Return the lines of `text`. Long texts are shown plain or cut, to limit the size of the page."""
    shown = text[:MOST_SHOWN].rsplit("\n", 1)[0] if len(text) > MOST_SHOWN else text
    if shown.count("\n") > MOST_LINES:
        shown = "\n".join(shown.split("\n", MOST_LINES)[:MOST_LINES])
    cut = len(text) - len(shown)
    shown = legible(shown)
    # The lexer of YAML takes time quadratic in the length of a line that it cannot read.
    if len(shown) > MOST_HIGHLIGHTED or max(map(len, shown.split("\n"))) > _LONGEST_HIGHLIGHTED:
        return Text([escape(line) for line in _lines(shown)], cut)
    lexer: Lexer = (JsonLexer if file_name.endswith(".json") else YamlLexer)(stripnl=False, ensurenl=False)
    lines, current = [], [Markup()]
    for kind, value in lex(shown.replace("\r\n", "\n"), lexer):
        name = next((name for family, name in _CLASSES if _is_of(kind, family)), "")
        for index, part in enumerate(value.split("\n")):
            if index:
                lines.append(Markup().join(current))
                current = []
            if part:
                current.append(
                    Markup("<i class={}>{}</i>").format(name, part) if name and part.strip() else escape(part)
                )
    if current and any(current):
        lines.append(Markup().join(current))
    return Text(lines, cut)


def _is_of(kind: _TokenType, family: _TokenType) -> bool:
    return kind[: len(family)] == family


# Side by side


@dataclass(frozen=True, slots=True)
class Side:
    """Line of one side: its number, and its words, each with whether it differs from the other side's."""

    number: int
    words: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Two lines side by side; a missing side is None. "skip": `count` equal lines that are not shown."""

    kind: Literal["same", "changed", "added", "removed", "skip", "cut"]
    old: Side | None = None
    new: Side | None = None
    count: int = 0


def side_by_side(old: str, new: str, *, whole: bool = False) -> list[Row]:
    """Return the changed lines with their context, or all lines. The last row counts the omitted ones."""
    a, b = _lines(old), _lines(new)
    left_out = max(len(a), len(b), MOST_COMPARED) - MOST_COMPARED
    rows: list[Row] = []
    room = MOST_SHOWN
    for place in _places(a[:MOST_COMPARED], b[:MOST_COMPARED], whole):
        if len(rows) == MOST_ROWS or room <= 0:
            left_out += place if isinstance(place, int) else 1
        elif isinstance(place, int):
            rows.append(Row("skip", count=place))
        else:
            rows.append(_row(a, b, place))
            room -= sum(len(word) for side in (rows[-1].old, rows[-1].new) if side for word, _ in side.words)
    return [*rows, Row("cut", count=left_out)] if left_out else rows


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines and not lines[-1] else lines


class _Place(NamedTuple):
    """Row before its text is read: the index of its line on each side, -1 for a missing side."""

    kind: Literal["same", "changed", "added", "removed"]
    old: int
    new: int


def _places(old: Sequence[str], new: Sequence[str], whole: bool) -> Iterator[_Place | int]:
    """Yield the rows of changed lines and their context, and the numbers of equal lines between them.

    `whole`: the context is all other lines.
    """
    at = shift = 0  # the next old line, and the distance to the equal new line

    def same(end: int) -> Iterator[_Place]:
        return (_Place("same", n, n + shift) for n in range(at, end))

    for hunk in hunks(old, new):
        if not whole and (start := max(hunk[0].start_old - CONTEXT, at)) > at:
            yield start - at
            at = start
        for gap in hunk:
            yield from same(gap.start_old)
            # Differing lines at the same offset are paired.
            paired = min(gap.end_old - gap.start_old, gap.end_new - gap.start_new)
            yield from (_Place("changed", gap.start_old + n, gap.start_new + n) for n in range(paired))
            yield from (_Place("removed", n, -1) for n in range(gap.start_old + paired, gap.end_old))
            yield from (_Place("added", -1, n) for n in range(gap.start_new + paired, gap.end_new))
            at, shift = gap.end_old, gap.end_new - gap.end_old
        end = at if whole else min(at + CONTEXT, len(old))
        yield from same(end)
        at = end
    if whole:
        yield from same(len(old))
    elif at < len(old):
        yield len(old) - at


def _row(old: Sequence[str], new: Sequence[str], place: _Place) -> Row:
    left, right = ("" if at < 0 else lines[at] for lines, at in ((old, place.old), (new, place.new)))
    words = _compared(left, right) if place.kind == "changed" else None
    a, b = words or (((clip(left, _LONGEST_SHOWN), False),), ((clip(right, _LONGEST_SHOWN), False),))
    return Row(
        place.kind,
        Side(place.old + 1, a) if place.old >= 0 else None,
        Side(place.new + 1, b) if place.new >= 0 else None,
    )


Words = tuple[tuple[str, bool], ...]


def _compared(old: str, new: str) -> tuple[Words, Words] | None:
    """Return the words of two lines, the differing ones marked; None if they have little in common."""
    if max(len(old), len(new)) > _LONGEST_LINE:
        return None
    a, b = _WORD.findall(old), _WORD.findall(new)
    pairs = align(a, b)
    same = sum(len(a[i]) for i, _ in pairs if not a[i].isspace())
    if same * 4 < min(len(old.strip()), len(new.strip())):
        return None
    return _marked(a, {i for i, _ in pairs}), _marked(b, {j for _, j in pairs})


def _marked(words: Sequence[str], same: set[int]) -> Words:
    runs: list[tuple[str, bool]] = []
    for index, word in enumerate(words):
        differs = index not in same
        if runs and runs[-1][1] == differs:
            runs[-1] = (runs[-1][0] + word, differs)
        else:
            runs.append((word, differs))
    return tuple(runs)
