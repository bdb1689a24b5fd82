"""A difference in one sentence: "2 nodes added, url of call-api changed, 1 edge removed".

It contains ids, names, keys, and the versions of references (`uses`, `image`), no other values. It is one
line of at most `LONGEST` characters for any input: names that are too many or too long are replaced
by counts. Secrets in names are masked, as a summary leaves access control in events and in terminals.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from gitstore.definition.elements import LAYOUT, LEFTOVERS, mapping, string
from gitstore.definition.quoting import clip, quote
from gitstore.diff.pairing import KEYS, fingerprint
from gitstore.diff.sequences import changed_lines
from gitstore.diff.structure import EFFECTS, Diff, Item, Kind, diff
from gitstore.diff.values import Change, Op, steps
from gitstore.errors import GitstoreError, TooLargeError
from gitstore.masking import masked_text
from gitstore.model import Definition, Rules
from gitstore.repository import Repository

LONGEST: Final = 140
NOTHING: Final = "no change"
COMMENTS: Final = "only comments changed"
TEXT_CHANGED: Final = "text changed"
TOO_MUCH: Final = "more changed than can be listed"

_MOST_NAMED: Final = 3  # nodes, and keys of a node, that are listed by name
_MOST_FIELDS: Final = 100  # fields that are compared to find renamed keys
_LONGEST_NAME: Final = 40
_LONGEST_REFERENCE: Final = 300
_REFERENCES: Final = ("uses", "image")
_REFERENCE: Final = re.compile(
    r"(?P<what>(?:[\w.:-]++/)*+(?P<name>[\w.-]++))(?P<mark>[@:])(?P<version>v?[0-9][0-9.]{0,11})"
)
_COMMENT: Final = re.compile(rb"(?:^|(?<=[ \t\n]))#[^\r\n]*+")
_UNSEEN: Final = LAYOUT | LEFTOVERS
_PLAIN_NAME: Final = re.compile(r"[\w./$-]+")
_KINDS: Final[tuple[Kind, ...]] = ("node", "edge")


def summary_of(a: Any, b: Any, rules: Rules) -> str:
    """Summarize the change from `a` to `b`, parsed definitions; TOO_MUCH if listing it costs too much."""
    try:
        return summary(diff(a, b, rules))
    except TooLargeError:
        return TOO_MUCH


def what_changes(
    repository: Repository,
    slug: str,
    before: bytes | None,
    after: Definition,
    *,
    old: Definition | None = None,
) -> str:
    """Summarize the change from the commit `before` to `after`; "" if they are equal or not comparable.

    `old` is the definition of `before`, if it is known.
    """
    if before is None:
        return ""
    try:
        old = old or repository.definition(before, slug)
    except GitstoreError:
        return ""  # an imported version may hold a definition that does not parse
    if old.value is None or after.value is None:
        return text_summary(old.raw, after.raw) if old.raw != after.raw else ""
    sentence = summary_of(old.value, after.value, repository.rules)
    if sentence == NOTHING:
        return COMMENTS if _only_comments(old.raw, after.raw) else ""
    return sentence


def text_summary(a: bytes, b: bytes) -> str:
    """Summarize the change from `a` to `b`, texts of which one has no JSON."""
    return f"{TEXT_CHANGED}, {count(changed_lines(a, b), 'line')}" if a != b else NOTHING


def _only_comments(a: bytes, b: bytes) -> bool:
    """Return whether two texts of one value differ in nothing but comments."""
    if a == b or (b"#" not in a and b"#" not in b):
        return False
    without = (
        [kept for line in _COMMENT.sub(b"", raw).split(b"\n") if (kept := line.rstrip())] for raw in (a, b)
    )
    return next(without) == next(without) and _COMMENT.findall(a) != _COMMENT.findall(b)


def summary(difference: Diff) -> str:
    """Summarize a difference for people: a commit's message, a line in a terminal, a row of the history."""
    if difference.empty:
        return "only the layout changed" if difference.unseen else NOTHING
    named = masked_text(_sentence(_phrases(difference, named=True)))
    counted = _sentence(_phrases(difference, named=False)) if len(named) > LONGEST else named
    return counted if len(counted) <= LONGEST else count(len(difference.items), "change")


def _sentence(phrases: Iterator[str]) -> str:
    """Join phrases; one that occurs several times is written once."""
    times = Counter(phrases)
    return ", ".join(
        phrase if number == 1 else f"{phrase} ({number} times)" for phrase, number in times.items()
    )


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
    if named and len(fields) <= _MOST_FIELDS:
        yield from _fields(fields, difference)
    elif fields:
        yield f"{count(len(fields), 'other field')} changed"
    if hidden := [item for items in changed.values() for item in items if not item.changes]:
        yield "only the layout changed" if len(hidden) == len(difference.items) else "layout changed"


# Fields outside of nodes and edges; with the rules `any`, everything


def _fields(fields: Sequence[Item], difference: Diff) -> Iterator[str]:
    """Yield a phrase for each field, the first few of many; a key that was renamed is one."""
    changes = [change for item in fields for change in item.changes]
    gone: dict[Hashable, deque[Change]] = {}
    for change in changes:
        if change.op is Op.REMOVE and (kept := _kept(change.pointer, change.before)):
            gone.setdefault(kept, deque()).append(change)
    renamed: dict[str, Change] = {}
    for change in changes:
        kept = _kept(change.pointer, change.after) if change.op is Op.ADD else None
        if kept and gone.get(kept):
            renamed[change.pointer] = gone[kept].popleft()
    left = {id(change) for change in renamed.values()}
    phrases = []
    for change in changes:
        if change.op is Op.ADD and change.pointer in renamed:
            before, after = (steps(each.pointer)[-1] for each in (renamed[change.pointer], change))
            phrases.append(f"{_name(before)} renamed to {_name(after)}")
        elif id(change) not in left:
            phrases.append(_field_phrase(change, difference))
    yield from phrases[:_MOST_NAMED]
    if len(phrases) > _MOST_NAMED:
        yield f"{count(len(phrases) - _MOST_NAMED, 'other field')} changed"


def _kept(pointer: str, value: Any) -> Hashable:
    """Return what a renamed key keeps: its place and its value; None for a scalar or an item of a list."""
    around, _, last = pointer.rpartition("/")
    collection = bool(value) and isinstance(value, (dict, list))
    return (around, fingerprint(value)) if collection and not last.isdecimal() else None


def _field_phrase(change: Change, difference: Diff) -> str:
    """Return the phrase for a field: "run of Lint in build changed", "Lint added to jobs.build.steps"."""
    effect = EFFECTS[change.op]
    names, last = _place(change.pointer, difference.sides[change.op is not Op.REMOVE])
    if not names:
        return "items reordered" if change.op is Op.REORDER else "the whole definition changed"
    if last is None:
        around, label, key = names[:-1][-1:], "", ".".join(names)
    else:
        around, label, key = names[: max(last - 1, 0)][-1:], names[last], ".".join(names[last + 1 :])
    inside = f" in {_name(around[0])}" if around else ""
    if names and names[-1] in _REFERENCES and (moved := _new_version(change)):
        return moved + inside
    if last is None:
        return f"{_name(key)} {effect}"
    if key in KEYS and change.op is Op.REPLACE:
        return f"{_name(str(change.before))} renamed to {_name(str(change.after))}{inside}"
    if key:
        return f"{_name(key)} of {_name(label)}{inside} {effect}"
    where, outside = {Op.ADD: " to ", Op.REMOVE: " from "}.get(change.op), ".".join(names[:last])
    if where:
        return f"{_name(label)} {effect}" + (where + _name(outside) if outside else "")
    return f"{_name(label)} {effect}{inside}"


def _place(pointer: str, value: Any) -> tuple[list[str], int | None]:
    """Return the steps of `pointer`, items of lists by their names, and the index of the last named item."""
    names: list[str] = []
    last = None
    for key in steps(pointer):
        if isinstance(value, list):
            value = value[int(key)] if key.isdecimal() and int(key) < len(value) else None
            label = _label(value)
            last = len(names) if label else last
            names.append(label or key)
        else:
            value = mapping(value).get(key)
            names.append(key)
    return names, last


def _label(item: Any) -> str:
    """Return the name by which people know an item of a list; "" if it has none."""
    if not isinstance(item, dict):
        return ""
    names = [item.get(key) for key in reversed(KEYS)]
    references = [match["name"] for key in _REFERENCES if (match := _reference(item.get(key)))]
    return next((str(name) for name in names if name and isinstance(name, (str, int))), "") or "".join(
        references[:1]
    )


def _reference(value: Any) -> re.Match[str] | None:
    return (
        _REFERENCE.fullmatch(value) if isinstance(value, str) and len(value) <= _LONGEST_REFERENCE else None
    )


def _new_version(change: Change) -> str:
    """Return "checkout@v2 → v3" if only the version of a reference changed, else ""."""
    before, after = _reference(change.before), _reference(change.after)
    if not before or not after or before["what"] != after["what"]:
        return ""
    return f"{clip(before['name'], _LONGEST_NAME)}{before['mark']}{before['version']} → {after['version']}"


def _node(item: Item) -> str:
    """Return the phrase for a changed node: "url and method of call changed"."""
    name = string(mapping(item.value).get("id"))
    node = _name(name) if name else "a node"
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
