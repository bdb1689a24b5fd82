"""The `git diff` of two stored definitions (git-diff(1), "Generating patch text"; no `index` line)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from gitstore.diff.alignment import align

if TYPE_CHECKING:
    from gitstore.drafts import File

CONTEXT: Final = 3
"""Lines of context around a change."""

_LINE: Final = re.compile(r"[^\n]*+\n|[^\n]++")
_NO_NEWLINE: Final = "\n\\ No newline at end of file\n"


class Gap(NamedTuple):
    """Lines that differ: old[start_old:end_old] became new[start_new:end_new]. Either may be empty."""

    start_old: int
    end_old: int
    start_new: int
    end_new: int


def text_diff(a: File, b: File) -> str:
    """Return the difference of two files as a unified diff; "" if they are equal."""
    old, new = _lines(a.raw), _lines(b.raw)
    lines = [line for hunk in hunks(old, new) for line in _shown(hunk, old, new)]
    head = [f"diff --git a/{a.name} b/{b.name}\n"]
    if a.name != b.name:
        head += [f"rename from {a.name}\n", f"rename to {b.name}\n"]
    if lines:
        head += [f"--- a/{a.name}\n", f"+++ b/{b.name}\n"]
    return "".join(head + lines) if lines or a.name != b.name else ""


def changed_lines(a: bytes, b: bytes) -> int:
    """Return the number of lines that differ between two texts: changed, added or removed."""
    gaps = (gap for hunk in hunks(_lines(a), _lines(b)) for gap in hunk)
    return sum(max(gap.end_old - gap.start_old, gap.end_new - gap.start_new) for gap in gaps)


def _lines(raw: bytes) -> list[str]:
    return _LINE.findall(raw.decode(errors="replace"))


def hunks(old: Sequence[str], new: Sequence[str]) -> Iterator[list[Gap]]:
    """Return the gaps between equal lines, those whose contexts overlap or touch together in one hunk."""
    hunk: list[Gap] = []
    at_old = at_new = 0
    for i, j in (*align(old, new), (len(old), len(new))):
        if i > at_old or j > at_new:
            if hunk and at_old - hunk[-1].end_old > 2 * CONTEXT:
                yield hunk
                hunk = []
            hunk.append(Gap(at_old, i, at_new, j))
        at_old, at_new = i + 1, j + 1
    if hunk:
        yield hunk


def _shown(hunk: Sequence[Gap], old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Yield the header of a hunk and its lines, with context."""
    first, last = hunk[0], hunk[-1]
    before = min(CONTEXT, first.start_old)
    after = min(CONTEXT, len(old) - last.end_old)
    start_old, start_new = first.start_old - before, first.start_new - before
    end_old, end_new = last.end_old + after, last.end_new + after
    yield f"@@ -{_range(start_old, end_old - start_old)} +{_range(start_new, end_new - start_new)} @@\n"
    at = start_old
    for gap in hunk:
        yield from (_line(" ", line) for line in old[at : gap.start_old])
        yield from (_line("-", line) for line in old[gap.start_old : gap.end_old])
        yield from (_line("+", line) for line in new[gap.start_new : gap.end_new])
        at = gap.end_old
    yield from (_line(" ", line) for line in old[at:end_old])


def _line(sign: str, text: str) -> str:
    return sign + text + ("" if text.endswith("\n") else _NO_NEWLINE)


def _range(before: int, count: int) -> str:
    """Format a range with lines counted from 1; for an empty range, the line before it."""
    first = before + 1 if count else before
    return str(first) if count == 1 else f"{first},{count}"
