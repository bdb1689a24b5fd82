"""Texts of definitions for reading: highlighted lines, and two of them side by side.

Pygments reads the text; of its many kinds of token a few are coloured. Everything that comes out as Markup
was escaped here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from markupsafe import Markup, escape
from pygments import lex
from pygments.lexer import Lexer
from pygments.lexers.data import JsonLexer, YamlLexer
from pygments.token import Comment, Keyword, Name, Number, Punctuation, String, _TokenType
from pygments.token import Literal as LiteralToken

from gitstore.difference.alignment import align

MOST_HIGHLIGHTED: Final = 12_000  # characters; more are shown plain
MOST_SHOWN: Final = 48_000
MOST_ROWS: Final = 400
CONTEXT: Final = 3
_LONGEST_LINE: Final = 600  # of which words are compared
_WORD: Final = re.compile(r"\w+|\s+|[^\w\s]")
_CLASSES: Final[tuple[tuple[_TokenType, str], ...]] = (
    (Comment, "c"), (Name.Tag, "k"), (Name.Attribute, "k"), (Number, "m"), (Keyword, "m"),
    (Name.Constant, "m"), (Punctuation, "p"), (LiteralToken.Scalar, "s"), (String, "s"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Text:
    """Lines to be shown. `cut` says how many characters are not among them."""

    lines: list[Markup]
    cut: int = 0


def highlighted(text: str, file_name: str) -> Text:
    """The lines of `text`. The longer it is, the plainer: a page has its weight, too."""
    shown = text[:MOST_SHOWN].rsplit("\n", 1)[0] if len(text) > MOST_SHOWN else text
    cut = len(text) - len(shown)
    if len(shown) > MOST_HIGHLIGHTED:
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
    """A line of one side: its number, and its words, each with whether it differs from the other side's."""

    number: int
    words: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Two lines side by side; None where a side has none. "skip": `count` equal lines that are not shown."""

    kind: Literal["same", "changed", "added", "removed", "skip", "cut"]
    old: Side | None = None
    new: Side | None = None
    count: int = 0


def side_by_side(old: str, new: str) -> list[Row]:
    """The changed lines with what is around them. The last row says how many are left out, if any."""
    rows = _folded(list(_rows(_lines(old), _lines(new))))
    if len(rows) <= MOST_ROWS:
        return rows
    return [*rows[:MOST_ROWS], Row("cut", count=len(rows) - MOST_ROWS)]


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines and not lines[-1] else lines


def _rows(old: Sequence[str], new: Sequence[str]) -> Iterator[Row]:
    at_old = at_new = 0
    for i, j in (*align(old, new), (len(old), len(new))):
        yield from _gap(old, new, range(at_old, i), range(at_new, j))
        if i < len(old):
            yield Row("same", Side(i + 1, ((old[i], False),)), Side(j + 1, ((new[j], False),)))
        at_old, at_new = i + 1, j + 1


def _gap(old: Sequence[str], new: Sequence[str], gone: range, come: range) -> Iterator[Row]:
    """Lines that differ: those at the same place face each other."""
    for i, j in zip(gone, come, strict=False):
        left, right = _compared(old[i], new[j])
        yield Row("changed", Side(i + 1, left), Side(j + 1, right))
    for i in gone[len(come) :]:
        yield Row("removed", Side(i + 1, ((old[i], False),)), None)
    for j in come[len(gone) :]:
        yield Row("added", None, Side(j + 1, ((new[j], False),)))


Words = tuple[tuple[str, bool], ...]


def _compared(old: str, new: str) -> tuple[Words, Words]:
    """The words of two lines, the differing ones marked; none where hardly any is the same."""
    if max(len(old), len(new)) > _LONGEST_LINE:
        return ((old, False),), ((new, False),)
    a, b = _WORD.findall(old), _WORD.findall(new)
    pairs = align(a, b)
    same = sum(len(a[i]) for i, _ in pairs if not a[i].isspace())
    if same * 4 < min(len(old.strip()), len(new.strip())):
        return ((old, False),), ((new, False),)
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


def _folded(rows: list[Row]) -> list[Row]:
    """Without the equal lines that are far from every change."""
    near = [False] * len(rows)
    for index, row in enumerate(rows):
        if row.kind != "same":
            for close in range(max(index - CONTEXT, 0), min(index + CONTEXT + 1, len(rows))):
                near[close] = True
    found: list[Row] = []
    for row, shown in zip(rows, near, strict=True):
        if shown:
            found.append(row)
        elif found and found[-1].kind == "skip":
            found[-1] = Row("skip", count=found[-1].count + 1)
        else:
            found.append(Row("skip", count=1))
    return found
