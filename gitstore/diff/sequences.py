"""Differences of sequences: their alignment, and the lines of two texts as `git diff` shows them.

Equal items are aligned in order: patience diff, then longest common subsequence. Items that occur once on
both sides are anchors; the gap between two anchors is aligned recursively. (Bram Cohen, "Patience Diff
Advantages", 2010.) The cost is bounded for any input: the number of levels is limited, and only a small gap
is solved by the quadratic table.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from gitstore import budget

if TYPE_CHECKING:
    from gitstore.drafts import File


Pair = tuple[int, int]
"""(index in the older sequence, index in the newer one)."""

_MOST_LEVELS = 8
_LARGEST_TABLE = 4096  # cells; the shorter side of a gap then has 64 items at most


def align(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[Pair]:
    """Return pairs of equal items, ascending on both sides."""
    if set(a).isdisjoint(b):
        return []
    return sorted(_aligned(a, b, (0, len(a)), (0, len(b)), _MOST_LEVELS))


def filled(pairs: Sequence[Pair], a: int, b: int) -> list[Pair]:
    """Add to `pairs` the items at the same position of each gap. `a` and `b` are the lengths."""
    filling: list[Pair] = []
    at = (0, 0)
    for i, j in (*pairs, (a, b)):
        filling += zip(range(at[0], i), range(at[1], j), strict=False)
        if (i, j) != (a, b):
            filling.append((i, j))
        at = (i + 1, j + 1)
    return filling


def _aligned(
    a: Sequence[Hashable], b: Sequence[Hashable], in_a: Pair, in_b: Pair, levels: int
) -> Iterator[Pair]:
    (start_a, end_a), (start_b, end_b) = in_a, in_b
    while start_a < end_a and start_b < end_b and a[start_a] == b[start_b]:
        yield start_a, start_b
        start_a, start_b = start_a + 1, start_b + 1
    while start_a < end_a and start_b < end_b and a[end_a - 1] == b[end_b - 1]:
        end_a, end_b = end_a - 1, end_b - 1
        yield end_a, end_b
    if start_a == end_a or start_b == end_b:
        return
    budget.check()
    anchors = _anchors(a, b, range(start_a, end_a), range(start_b, end_b))
    if not anchors or not levels:
        if (end_a - start_a) * (end_b - start_b) <= _LARGEST_TABLE:
            yield from _common(a, b, range(start_a, end_a), range(start_b, end_b))
        return
    for i, j in (*anchors, (end_a, end_b)):
        yield from _aligned(a, b, (start_a, i), (start_b, j), levels - 1)
        if i < end_a:
            yield i, j
        start_a, start_b = i + 1, j + 1


def _anchors(a: Sequence[Hashable], b: Sequence[Hashable], in_a: range, in_b: range) -> list[Pair]:
    """Return the longest ascending run of the items that occur once in each part."""
    times_a, times_b = Counter(a[i] for i in in_a), Counter(b[j] for j in in_b)
    at = {b[j]: j for j in in_b}
    unique = [(i, at[a[i]]) for i in in_a if times_a[a[i]] == 1 and times_b[a[i]] == 1]
    ends: list[int] = []  # the smallest j that ends a run of each length
    members: list[int] = []  # the index in `unique` of that end
    before: list[int | None] = []
    for index, (_, j) in enumerate(unique):
        length = bisect_left(ends, j)
        before.append(members[length - 1] if length else None)
        ends[length : length + 1], members[length : length + 1] = [j], [index]
    run, member = [], members[-1] if members else None
    while member is not None:
        run.append(unique[member])
        member = before[member]
    return run[::-1]


def _common(a: Sequence[Hashable], b: Sequence[Hashable], in_a: range, in_b: range) -> Iterator[Pair]:
    """Yield a longest common subsequence, from the table of its lengths."""
    lengths = [[0] * (len(in_b) + 1) for _ in range(len(in_a) + 1)]
    for row in range(len(in_a) - 1, -1, -1):
        for column in range(len(in_b) - 1, -1, -1):
            lengths[row][column] = (
                lengths[row + 1][column + 1] + 1
                if a[in_a[row]] == b[in_b[column]]
                else max(lengths[row + 1][column], lengths[row][column + 1])
            )
    row = column = 0
    while row < len(in_a) and column < len(in_b):
        if a[in_a[row]] == b[in_b[column]]:
            yield in_a[row], in_b[column]
            row, column = row + 1, column + 1
        elif lengths[row + 1][column] >= lengths[row][column + 1]:
            row += 1
        else:
            column += 1


# Texts: git-diff(1), "Generating patch text"; no `index` line

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
