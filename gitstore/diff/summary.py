"""A difference in one sentence: "2 nodes added, url of call-api changed, 1 edge removed".

It contains ids and keys, never values, and is one line of at most `LONGEST` characters for any input: if the
names would be too many or too long, they are replaced by counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from gitstore.definition.elements import LAYOUT, LEFTOVERS, mapping, string
from gitstore.definition.quoting import clip, quote
from gitstore.diff.structure import EFFECTS, Diff, Item, Kind, diff
from gitstore.diff.values import steps
from gitstore.errors import GitstoreError, TooLargeError
from gitstore.model import Definition, Rules
from gitstore.repository import Repository

LONGEST: Final = 200
NOTHING: Final = "no change"
TOO_MUCH: Final = "more changed than can be listed"

_MOST_NAMED: Final = 3  # nodes, and keys of a node, that are listed by name
_LONGEST_NAME: Final = 40
_UNSEEN: Final = LAYOUT | LEFTOVERS
_PLAIN_NAME: Final = re.compile(r"[\w./$-]+")
_KINDS: Final[tuple[Kind, ...]] = ("node", "edge")


def summary_of(a: dict[str, Any], b: dict[str, Any], rules: Rules) -> str:
    """Summarize the change from `a` to `b`, parsed definitions; TOO_MUCH if listing it costs too much."""
    try:
        return summary(diff(a, b, rules))
    except TooLargeError:
        return TOO_MUCH


def what_changes(repository: Repository, slug: str, before: bytes | None, after: Definition) -> str:
    """Summarize the change from the commit `before` to `after`; "" if they are equal or not comparable."""
    if before is None:
        return ""
    try:
        old = repository.definition(before, slug)
    except GitstoreError:
        return ""  # an imported version may hold a definition that does not parse
    sentence = summary_of(old.value, after.value, repository.rules)
    return "" if sentence == NOTHING else sentence


def summary(difference: Diff) -> str:
    """Summarize a difference for people: a commit's message, a line in a terminal, a row of the history."""
    if difference.empty:
        return "only the layout changed" if difference.unseen else NOTHING
    named = ", ".join(_phrases(difference, named=True))
    return named if len(named) <= LONGEST else ", ".join(_phrases(difference, named=False))


def _phrases(difference: Diff, *, named: bool) -> Iterator[str]:
    changed = {kind: [_seen(item) for item in difference.of(kind, "changed")] for kind in _KINDS}
    renamed = [change for item in difference.of("node", "renamed") for change in item.changes]
    if named and len(renamed) == 1:
        yield f"{_name(renamed[0].before)} renamed to {_name(renamed[0].after)}"
    elif renamed:
        yield f"{count(len(renamed), 'node')} renamed"
    for kind in _KINDS:
        if added := difference.of(kind, "added"):
            yield f"{count(len(added), kind)} added"
        if removed := difference.of(kind, "removed"):
            yield f"{count(len(removed), kind)} removed"
        if visible := [item for item in changed[kind] if item.changes]:
            if named and kind == "node" and len(visible) <= _MOST_NAMED:
                yield from map(_node, visible)
            else:
                yield f"{count(len(visible), kind)} changed"
    for kind in _KINDS:
        if difference.of(kind, "reordered"):
            yield f"{kind}s reordered"
    fields = [item for item in difference.items if item.kind == "field"]
    if named and len(fields) <= _MOST_NAMED:
        yield from (f"{_name('.'.join(steps(item.pointer)))} {item.effect}" for item in fields)
    elif fields:
        yield f"{count(len(fields), 'other field')} changed"
    if hidden := [item for items in changed.values() for item in items if not item.changes]:
        yield "only the layout changed" if len(hidden) == len(difference.items) else "layout changed"


def _node(item: Item) -> str:
    """Return the phrase for a changed node: "url and method of call changed"."""
    node = _name(string(mapping(item.value).get("id")) or "a node")
    fields = {_field(change.pointer): change for change in item.changes}
    if "" in fields:
        return f"{node} changed"
    if len(fields) > _MOST_NAMED:
        return f"{len(fields)} fields of {node} changed"
    # A field was added or removed if its own key was; below its key, it was changed.
    effects = {
        EFFECTS[change.op] if steps(change.pointer)[-1] == key else "changed"
        for key, change in fields.items()
    }
    *first, last = map(_name, fields)
    names = f"{', '.join(first)} and {last}" if first else last
    return f"{names} of {node} {effects.pop() if len(effects) == 1 else 'changed'}"


def _field(pointer: str) -> str:
    """Return the key by which users know a node's field: "url" for /data/config/url."""
    path = steps(pointer)
    for around in ("data", "config"):
        if len(path) > 1 and path[0] == around:
            path = path[1:]
    return path[0] if path else ""


def _seen(item: Item) -> Item:
    """Return `item` without its changes of layout or leftovers."""
    unseen = _UNSEEN.edge if item.kind == "edge" else _UNSEEN.node

    def is_seen(pointer: str) -> bool:
        first, second, *_ = [*steps(pointer), "", ""]
        return first not in unseen and not (
            item.kind == "node" and first == "data" and second in _UNSEEN.data
        )

    return replace(item, changes=tuple(change for change in item.changes if is_seen(change.pointer)))


def _name(name: str) -> str:
    """Return `name`, quoted unless it is plain, for use in a line of text."""
    return clip(name, _LONGEST_NAME) if _PLAIN_NAME.fullmatch(name) else quote(name, _LONGEST_NAME)


def count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
