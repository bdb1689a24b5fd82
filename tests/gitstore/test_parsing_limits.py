"""Limits of depth, size and number; hostile input is cheap and refused."""

from __future__ import annotations

import math
import resource
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gitstore.definition.document import Unparsable, read
from gitstore.model import Limits, Problem
from tests.gitstore.parsed import LIMITS, places, problems_in, yaml_value


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}")])
@pytest.mark.parametrize("is_json", [False, True])
def test_depth_is_limited(opening: str, closing: str, *, is_json: bool) -> None:
    """64 levels are accepted, 65 are not."""
    for depth in (64, 65):
        text = (opening * depth + "1" + closing * depth).encode()
        if depth == 64:
            assert read(text, LIMITS, is_json=is_json).value
        else:
            assert problems_in(text, is_json=is_json)[0].code == "too_deep"


@pytest.mark.parametrize("is_json", [False, True])
def test_very_deep_nesting_is_too_deep_for_any_reader(*, is_json: bool) -> None:
    """A libyaml with a limit of its own reports it before its events reach our limit."""
    assert [found.code for found in problems_in(b"[" * 60_000, is_json=is_json)] == ["too_deep"]


def test_an_alias_counts_with_the_depth_of_its_anchor() -> None:
    """Aliases add to the depth."""
    deep = "&a " + "[" * 40 + "]" * 40
    assert yaml_value(f"[{deep}, " + "[" * 23 + "*a" + "]" * 24)
    assert problems_in(f"[{deep}, " + "[" * 24 + "*a" + "]" * 25)[0].code == "too_deep"


def test_a_chain_of_aliases_counts_every_level() -> None:
    """Each anchor is as deep as the aliases in it make it."""
    chain = "".join(f"a{n}: &a{n} [[[[*a{n - 1}]]]]\n" for n in range(1, 20))
    assert problems_in("a0: &a0 [x]\n" + chain)[0].code == "too_deep"


@pytest.mark.parametrize("is_json", [False, True])
def test_the_number_of_nodes_is_limited(*, is_json: bool) -> None:
    """Mappings, lists, keys and scalars are nodes."""
    few = Limits(nodes=5)
    assert read(b'{"a": [1, 2]}', few, is_json=is_json).value == {"a": [1, 2]}
    assert problems_in(b'{"a": [1, 2, 3]}', is_json=is_json, limits=few)[0].code == "too_many_nodes"


def test_an_alias_counts_with_the_nodes_of_its_anchor() -> None:
    """The billion laughs attack ends at 50,000 nodes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 12)]
    assert problems_in("\n".join(lines))[0].code == "too_many_nodes"


def test_aliases_of_a_long_text_are_limited_too() -> None:
    """Few nodes may be gigabytes of JSON."""
    text = "a: &a " + "x" * 500_000 + "\nb: [" + ", ".join(["*a"] * 40_000) + "]"
    assert problems_in(text)[0].code == "too_large"


@pytest.mark.parametrize("is_json", [False, True])
def test_size_is_limited(*, is_json: bool) -> None:
    """One byte more than the limit is refused unread."""
    raw = b'{"a": "' + b"x" * (2**20 - 9) + b'"}'
    assert len(raw) == 2**20
    assert read(raw, LIMITS, is_json=is_json).value["a"]
    assert places(problems_in(raw + b" ", is_json=is_json)) == [("too_large", 1, 1)]


MEGABYTE = 2**20
HOSTILE = {
    "60 KB of [": b"[" * 60_000,
    "[": b"[" * MEGABYTE,
    "{": b"{" * MEGABYTE,
    "{a: ": b"{a: " * (MEGABYTE // 4),
    '{"a":': b'{"a":' * (MEGABYTE // 5),
    "[{": b"[{" * (MEGABYTE // 2),
    "[? ": b"[? " * (MEGABYTE // 3),
    "- ": b"- " * (MEGABYTE // 2),
    "? ": b"? " * (MEGABYTE // 2),
    "indented mappings": b"".join(b" " * depth + b"a:\n" for depth in range(1400)),
    "&a ": b"&a " * (MEGABYTE // 3),
    "anchors": b"".join(b"- &a%d x\n" % n for n in range(60_000)),
    "redefined anchors": b"- &a x\n" * 100_000,
    "aliases": b"- &a x\n" + b"- *a\n" * 200_000,
    "aliases of lists": b"- &a [1,2,3,4,5]\n" + b"- *a\n" * 200_000,
    "keys": b"".join(b"k%d: 1\n" % n for n in range(90_000)),
    "empty keys": b": \n" * (MEGABYTE // 3),
    "%TAG": b"".join(b"%%TAG !a%d! x\n" % n for n in range(60_000)) + b"--- a",
    "%TAG after a document": b"a\n...\n" + b"".join(b"%%TAG !a%d! x\n" % n for n in range(60_000)) + b"--- a",
    "%TAG and CR": b"".join(b"%%TAG !a%d! x\r" % n for n in range(60_000)) + b"--- a",
    "documents": b"---\n" * (MEGABYTE // 4),
    "one plain scalar": b"x" * MEGABYTE,
    "one quoted scalar": b'"' + b"x" * (MEGABYTE - 2) + b'"',
    "escapes": b'"' + b"\\n" * (MEGABYTE // 2 - 1) + b'"',
    "backslashes": b'"' + b"\\" * (MEGABYTE - 1),
    "quotes": b'"' * MEGABYTE,
    "one block scalar": b"a: |\n" + b"  x\n" * (MEGABYTE // 4 - 2),
    "one folded scalar": b"a: >\n" + b"  x\n" * (MEGABYTE // 4 - 2),
    "one number": b"a: " + b"9" * (MEGABYTE - 3),
    "one float": b"a: 1." + b"9" * (MEGABYTE - 5),
    "digits": b"9" * MEGABYTE,
    "tabs": b"\t" * MEGABYTE,
    "spaces": b" " * MEGABYTE,
    "line breaks": b"\n" * MEGABYTE,
    "carriage returns": b"\r" * MEGABYTE,
    "old line breaks": "\x85".encode() * (MEGABYTE // 2),
    "comments": b"#\n" * (MEGABYTE // 2),
    "commas": b"[" + b"," * (MEGABYTE - 1),
    "colons": b":" * MEGABYTE,
    "exclamation marks": b"!" * MEGABYTE,
    "a long tag": b"!" + b"a" * (MEGABYTE - 1),
    "a long escaped tag": b"!<" + b"%41" * (MEGABYTE // 3 - 2) + b"> a",
    "a long anchor": b"&" + b"a" * (MEGABYTE - 1),
    "a long key": b"a" * (MEGABYTE - 1) + b":",
    "a long explicit key": b"? " + b"a" * (MEGABYTE - 2),
    "a long directive": b"%" + b"a" * (MEGABYTE - 1),
    "NULs": b"\0" * MEGABYTE,
    "bad UTF-8": b"\xff" * MEGABYTE,
    "UTF-16": ("a: b\n" * 100_000).encode("utf-16"),
    "JSON scalars": b"[" + b"1," * (MEGABYTE // 2 - 1),
    "JSON strings": b"[" + b'"",' * (MEGABYTE // 3 - 1),
    "JSON lists": b"[" + b"[]," * (MEGABYTE // 3 - 1),
    "deep and wide": b'{"' + b"k" * 10_000 + b'":' + b"[" * 62 + b"1," * 40_000,
    "long keys at every level": b"".join(b'{"' + b"k" * 10_000 + b'":' for _ in range(63))
    + b"[1"
    + b",1" * 40_000,
}


@pytest.mark.parametrize("is_json", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_cost_little(name: str, *, is_json: bool) -> None:
    """A megabyte of anything is read or refused in seconds and in memory that is a small multiple of it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for problem in read_or_refuse(HOSTILE[name], is_json=is_json):
        assert problem.line
        assert problem.column
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB


def read_or_refuse(raw: bytes, *, is_json: bool) -> list[Problem]:
    """The problems of refused text; accepted text must have a JSON value."""
    try:
        value = read(raw, LIMITS, is_json=is_json).value
    except Unparsable as refused:
        return refused.problems
    assert is_json_value(value)
    return []


def is_json_value(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_json_value(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(is_json_value(inner) for inner in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, bool, int))


@given(st.binary(max_size=200), st.booleans())
@example(b"\xef\xbb\xbf", False)
@example(b"%YAML 1.1", False)
@example(b"a: \x80", False)
def test_any_bytes_are_read_or_refused(raw: bytes, is_json: bool) -> None:
    """Only `Unparsable` is raised."""
    read_or_refuse(raw, is_json=is_json)


PIECES = (
    *"[]{}:,-?&*!|>'\"%@`#~\n\t 0a",
    *(": ", "- ", "? ", "\n  ", "&a ", "*a ", "!!int ", "!<", "---\n", "...\n", "%TAG ", "<<", ".inf"),
    *("1e9", "null", "\\", "\\x", "\\u0000", "\ud7ff", "\x85", "\u2028", "😀", "\ufeff"),
)


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.booleans())
def test_any_pieces_of_syntax_are_read_or_refused(text: str, is_json: bool) -> None:
    """Only `Unparsable` is raised, with ordered positions inside the text."""
    problems = read_or_refuse(text.encode(), is_json=is_json)
    places = [(problem.line or 0, problem.column or 0) for problem in problems]
    assert places == sorted(places)
    assert all(1 <= line <= text.count("\n") + 1 and column >= 1 for line, column in places)
