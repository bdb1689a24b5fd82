"""A difference in one sentence: "2 nodes added, url of call-api changed, 1 edge removed".

It contains ids and keys, never values, and is one line of at most `LONGEST` characters for any input: if the
names would be too many or too long, they are replaced by counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from gitstore.definition.elements import LAYOUT, LEFTOVERS, mapping, string
from gitstore.definition.quoting import clip, quote
from gitstore.diff.structure import Altered, Diff, Items, diff
from gitstore.diff.values import Change, Op
from gitstore.errors import TooLargeError
from gitstore.model import Rules

LONGEST: Final = 200
NOTHING: Final = "no change"
TOO_MUCH: Final = "more changed than can be listed"

_MOST_NAMED: Final = 3  # nodes, and keys of a node, that are listed by name
_LONGEST_NAME: Final = 40
_UNSEEN: Final = LAYOUT | LEFTOVERS
_PLAIN_NAME: Final = re.compile(r"[\w./$-]+")
_DONE: Final = {Op.ADD: "added", Op.REMOVE: "removed", Op.REPLACE: "changed", Op.REORDER: "reordered"}


def summary_of(a: dict[str, Any], b: dict[str, Any], rules: Rules) -> str:
    """Summarize the change from `a` to `b`, parsed definitions; TOO_MUCH if listing it costs too much."""
    try:
        return summary(diff(a, b, rules))
    except TooLargeError:
        return TOO_MUCH


def summary(found: Diff) -> str:
    """Summarize a difference for people: a commit's message, a line in a terminal, a row of the history."""
    if found.empty:
        return "only the layout changed" if found.unseen else NOTHING
    named = ", ".join(_phrases(found, named=True))
    return named if len(named) <= LONGEST else ", ".join(_phrases(found, named=False))


def _phrases(diff: Diff, *, named: bool) -> Iterator[str]:
    nodes, edges = ([_seen(each, kind) for each in items.changed]
                    for kind, items in (("node", diff.nodes), ("edge", diff.edges)))  # fmt: skip
    if named and len(diff.renamed) == 1:
        yield f"{_name(diff.renamed[0].before)} renamed to {_name(diff.renamed[0].after)}"
    elif diff.renamed:
        yield f"{count(len(diff.renamed), 'node')} renamed"
    yield from _come_and_gone(diff.nodes, "node")
    yield from _nodes([each for each in nodes if each.changes], named=named)
    yield from _come_and_gone(diff.edges, "edge")
    if moved := sum(1 for each in edges if each.changes):
        yield f"{count(moved, 'edge')} changed"
    for items, what in ((diff.nodes, "nodes"), (diff.edges, "edges")):
        if items.order is not None:
            yield f"{what} reordered"
    yield from _keys(diff.other, named=named)
    if hidden := [each for each in (*nodes, *edges) if not each.changes]:
        alone = len(hidden) == len(diff.nodes.changed) + len(diff.edges.changed) and _only_changes(diff)
        yield "only the layout changed" if alone else "layout changed"


def _only_changes(diff: Diff) -> bool:
    return not (
        diff.renamed or diff.other or any(x.added or x.removed or x.order for x in (diff.nodes, diff.edges))
    )


def _come_and_gone(items: Items, what: str) -> Iterator[str]:
    if items.added:
        yield f"{count(len(items.added), what)} added"
    if items.removed:
        yield f"{count(len(items.removed), what)} removed"


def _nodes(altered: Sequence[Altered], *, named: bool) -> Iterator[str]:
    if not named or len(altered) > _MOST_NAMED:
        if altered:
            yield f"{count(len(altered), 'node')} changed"
        return
    for each in altered:
        node = _name(string(mapping(each.value).get("id")) or "a node")
        fields = {_field(change.pointer): change for change in each.changes}
        if "" in fields:
            yield f"{node} changed"
        elif len(fields) > _MOST_NAMED:
            yield f"{len(fields)} fields of {node} changed"
        else:
            done = {_done(change, field) for field, change in fields.items()}
            how = done.pop() if len(done) == 1 else "changed"
            yield f"{_listed([_name(field) for field in fields])} of {node} {how}"


def _keys(other: Sequence[Change], *, named: bool) -> Iterator[str]:
    """Yield phrases for changes outside of the graph, by their paths: "name changed, steps.0.url changed"."""
    if not named or len(other) > _MOST_NAMED:
        if other:
            yield f"{count(len(other), 'other field')} changed"
        return
    for change in other:
        yield f"{_name('.'.join(_steps(change.pointer)))} {_DONE[change.op]}"


def _seen(altered: Altered, kind: str) -> Altered:
    """Return `altered` without its changes of layout or leftovers."""
    changes = tuple(change for change in altered.changes if not _is_unseen(change.pointer, kind))
    return Altered(altered.old_pointer, altered.pointer, altered.value, changes)


def _is_unseen(pointer: str, kind: str) -> bool:
    first, second, *_ = [*_steps(pointer), "", ""]
    if kind == "edge":
        return first in _UNSEEN.edge
    return first in _UNSEEN.node or (first == "data" and second in _UNSEEN.data)


def _field(pointer: str) -> str:
    """Return the key by which users know a node's field: "url" for /data/config/url."""
    steps = _steps(pointer)
    for around in ("data", "config"):
        if len(steps) > 1 and steps[0] == around:
            steps = steps[1:]
    return steps[0] if steps else ""


def _done(change: Change, field: str) -> str:
    """Return the verb for a field: added or removed if the field itself was, else "changed"."""
    return _DONE[change.op] if _steps(change.pointer)[-1] == field else "changed"


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _name(name: str) -> str:
    """Return `name`, quoted unless it is plain, for use in a line of text."""
    return clip(name, _LONGEST_NAME) if _PLAIN_NAME.fullmatch(name) else quote(name, _LONGEST_NAME)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
