"""Decide which items of two lists correspond.

Items with the same unique `id` or `name` correspond, wherever they are, and equal items in order. Between
those, each item corresponds to the most similar one, in order: a step inserted before a changed one is one
addition. Items whose `id` or `name` differ correspond only if most of the rest is equal: such an item was
renamed.

The cost is bounded for any input: an item is compared by its first leaves, and only small gaps are compared.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Final

from gitstore import budget
from gitstore.diff.sequences import Pair, align, filled

KEYS: Final = ("id", "name")
"""Keys by which people know an item of a list."""

_MOST_LEAVES: Final = 32
_LARGEST_TABLE: Final = 400  # cells; a larger gap is paired by position
_RENAMED: Final = 0.6  # the least similarity of an item and itself under another name
_HEAD: Final = re.compile(r"[^@:=\s]++")

_Leaves = frozenset[Hashable]


def fingerprint(value: Any) -> Hashable:
    """Return a key that is equal for equal values, and virtually never for different ones."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return (isinstance(value, bool), value)


def paired(a: Sequence[Any], b: Sequence[Any]) -> list[Pair]:
    """Return the indices of corresponding items, each index at most once."""
    labels_a, labels_b = _labels(a, b)
    same = align(labels_a, labels_b)
    done_a, done_b = {i for i, _ in same}, {j for _, j in same}
    at = {label: j for j, label in enumerate(labels_b) if j not in done_b and _is_key(label)}
    moved = [(i, at[label]) for i, label in enumerate(labels_a) if i not in done_a and label in at]
    done_a |= {i for i, _ in moved}
    done_b |= {j for _, j in moved}
    pairs, start_a, start_b = [*same, *moved], 0, 0
    for end_a, end_b in (*same, (len(a), len(b))):
        in_a = [i for i in range(start_a, end_a) if i not in done_a]
        in_b = [j for j in range(start_b, end_b) if j not in done_b]
        pairs += _in_gap(a, b, in_a, in_b) if in_a and in_b else []
        start_a, start_b = end_a + 1, end_b + 1
    return pairs


class _Key(tuple[str, Hashable]):
    """A key and its value, which one item of each list has; different from every fingerprint."""

    __slots__ = ()


def _is_key(label: Hashable) -> bool:
    return isinstance(label, _Key)


def _labels(a: Sequence[Any], b: Sequence[Any]) -> tuple[list[Hashable], list[Hashable]]:
    """Return a label for each item, by which it corresponds to one of the other list."""
    common: list[_Key] = []
    for key in KEYS:
        times_a, times_b = (
            Counter(name for item in items if (name := _named(item, key))) for items in (a, b)
        )
        common += [name for name, times in times_a.items() if times == times_b[name] == 1]
    known = frozenset(common)

    def label(item: Any) -> Hashable:
        names = (_named(item, key) for key in KEYS)
        return next((name for name in names if name in known), None) or fingerprint(item)

    return [label(item) for item in a], [label(item) for item in b]


def _named(item: Any, key: str) -> _Key | None:
    name = item.get(key) if isinstance(item, dict) else None
    return _Key((key, name)) if isinstance(name, (str, int)) and not isinstance(name, bool) else None


def _in_gap(a: Sequence[Any], b: Sequence[Any], in_a: Sequence[int], in_b: Sequence[int]) -> list[Pair]:
    """Pair the items of a gap so that the sum of their similarities is the largest, then by position."""
    budget.check()
    best: list[Pair] = []
    if len(in_a) * len(in_b) <= _LARGEST_TABLE:
        leaves_a = [_leaves(a[i]) for i in in_a]
        leaves_b = [_leaves(b[j]) for j in in_b]
        scores = [
            [_similarity(a[i], b[j], leaves_a[row], leaves_b[column]) for column, j in enumerate(in_b)]
            for row, i in enumerate(in_a)
        ]
        best = list(_heaviest(scores))
    everything = filled(best, len(in_a), len(in_b))
    chosen = set(best)
    return [
        (in_a[row], in_b[column])
        for row, column in everything
        if (row, column) in chosen or _may_be_same(a[in_a[row]], b[in_b[column]])
    ]


def _heaviest(scores: Sequence[Sequence[float]]) -> Iterator[Pair]:
    """Yield ascending pairs (row, column) with the largest sum of scores; none has the score 0."""
    rows, columns = len(scores), len(scores[0])
    sums = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for row in range(rows - 1, -1, -1):
        for column in range(columns - 1, -1, -1):
            together = scores[row][column] and scores[row][column] + sums[row + 1][column + 1]
            sums[row][column] = max(together, sums[row + 1][column], sums[row][column + 1])
    row = column = 0
    while row < rows and column < columns:
        score = scores[row][column]
        if score and sums[row][column] == score + sums[row + 1][column + 1]:
            yield row, column
            row, column = row + 1, column + 1
        elif sums[row][column] == sums[row + 1][column]:
            row += 1
        else:
            column += 1


def _similarity(a: Any, b: Any, leaves_a: _Leaves, leaves_b: _Leaves) -> float:
    """Return the share of leaves that two items have in common; 0 if they cannot correspond."""
    common = len(leaves_a & leaves_b)
    share = 2 * common / (len(leaves_a) + len(leaves_b)) if common else 0.0
    return share if share >= _RENAMED or _may_be_same(a, b) else 0.0


def _may_be_same(a: Any, b: Any) -> bool:
    """Return whether two items may correspond without being similar."""
    if not isinstance(a, dict) or not isinstance(b, dict):
        return True
    names = [(_named(a, key), _named(b, key)) for key in KEYS]
    return not a.keys().isdisjoint(b) and not any(
        ours and theirs and ours != theirs for ours, theirs in names
    )


def _leaves(item: Any) -> _Leaves:
    """Return the first leaves of an item, each with its path; of a text, each line and its first word.

    Names are no leaves: an item with another name is compared by the rest.
    """
    leaves: set[Hashable] = set()
    waiting: list[tuple[Any, str]] = [(item, "")]
    while waiting and len(leaves) < _MOST_LEAVES:
        value, path = waiting.pop()
        if isinstance(value, dict):
            inner = [(value[key], f"{path[-200:]}/{key[:100]}") for key in list(value)[:_MOST_LEAVES]]
            waiting += [each for each in reversed(inner) if path or each[1][1:] not in KEYS]
        elif isinstance(value, list):
            waiting += [(each, path + "/") for each in reversed(value[:_MOST_LEAVES])]
        elif isinstance(value, str):
            lines = value[:4000].splitlines()[:_MOST_LEAVES]
            leaves.update((path, line) for line in lines)
            if lines and (head := _HEAD.match(lines[0])):
                leaves.add((path, "first word", head[0]))
        else:
            leaves.add((path, fingerprint(value)))
    return frozenset(leaves)
