"""What `git diff` gives between two stored definitions, with the secrets in them masked.

The format is git's (git-diff(1), "Generating patch text with -p"), without the `index` line: a patch that
has masks in it is for people and does not apply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from gitstore.content import File
from gitstore.difference.alignment import align
from gitstore.difference.masked_text import masked_text
from gitstore.difference.masking import Masks
from gitstore.model import Limits

CONTEXT: Final = 3
"""Lines around a change."""

_LINE: Final = re.compile(r"[^\n]*+\n|[^\n]++")
_NO_NEWLINE: Final = "\n\\ No newline at end of file\n"


class _Line(NamedTuple):
    """A line of the diff: " ", "-" or "+", and how many lines of either file come before it."""

    sign: str
    old: int
    new: int
    text: str


def text_diff(a: File, b: File, limits: Limits) -> str:
    """The difference of two files as a unified diff; "" where there is none."""
    masks = Masks()
    old, new = (_LINE.findall(masked_text(file, masks, limits)) for file in (a, b))
    hunks = [line for hunk in _hunks(list(_lines(old, new))) for line in _shown(hunk)]
    head = [f"diff --git a/{a.name} b/{b.name}\n"]
    if a.name != b.name:
        head += [f"rename from {a.name}\n", f"rename to {b.name}\n"]
    if hunks:
        head += [f"--- a/{a.name}\n", f"+++ b/{b.name}\n"]
    return "".join(head + hunks) if hunks or a.name != b.name else ""


def _lines(old: Sequence[str], new: Sequence[str]) -> Iterator[_Line]:
    at_old = at_new = 0
    for i, j in (*align(old, new), (len(old), len(new))):
        yield from (_Line("-", k, at_new, old[k]) for k in range(at_old, i))
        yield from (_Line("+", i, k, new[k]) for k in range(at_new, j))
        if i < len(old):
            yield _Line(" ", i, j, old[i])
        at_old, at_new = i + 1, j + 1


def _hunks(lines: Sequence[_Line]) -> Iterator[Sequence[_Line]]:
    """The changed lines with their context; what touches is one hunk."""
    start = end = 0
    for index, line in enumerate(lines):
        if line.sign == " ":
            continue
        if end and index - CONTEXT > end:
            yield lines[start:end]
            start = end = 0
        start = start if end else max(index - CONTEXT, 0)
        end = min(index + CONTEXT + 1, len(lines))
    if end:
        yield lines[start:end]


def _shown(hunk: Sequence[_Line]) -> Iterator[str]:
    old, new = (sum(line.sign in signs for line in hunk) for signs in (" -", " +"))
    yield f"@@ -{_range(hunk[0].old, old)} +{_range(hunk[0].new, new)} @@\n"
    for line in hunk:
        yield line.sign + line.text + ("" if line.text.endswith("\n") else _NO_NEWLINE)


def _range(before: int, count: int) -> str:
    """Lines from 1; of no lines, the one before them."""
    first = before + 1 if count else before
    return str(first) if count == 1 else f"{first},{count}"
