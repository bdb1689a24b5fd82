"""The two forms of a definition: the canonical one, whose hash is the digest, and the written one."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gitstore.definition import document
from gitstore.model import Rules
from tests.gitstore.parsed import parse

TRICKY = (
    *("no", "y", "on", "12:30:00", "010", "1e3", "null", "~", "<<", "=", "2001-01-01", "0x1f", ".inf", ""),
    *("---", "...", "- a", "a: b", "a #b", "a:", "?", "? a", "%TAG", "true", "1_000", "0o17", "+1", ".5"),
    *("x" * 1500, "a\n\n", "\n", "\n\n a\n", "a\n  \n", " \n", "\ta\nb", "a\n---\nb\n", "#a\nb"),
)
TEXT = st.one_of(
    st.text(max_size=30),
    st.text(alphabet=" \t\n\r:#-'\"\\|>?&*!%@`{}[],a1.\x85\u2028\ufeff😀\u200d", max_size=20),
    st.sampled_from(TRICKY),
).filter(lambda text: "\0" not in text)
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)
MAPPINGS = st.dictionaries(TEXT, VALUES, max_size=5)


def same(one: Any, other: Any) -> bool:
    """Equal also in types and in the order of keys."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


# The digest


def test_absent_and_empty_edges_have_the_same_digest() -> None:
    """The same meaning has the same digest."""
    one = {"nodes": [{"id": "a", "type": "webhook"}]}
    assert document.digest({**one, "edges": []}, Rules.MESHHOOK) == document.digest(one, Rules.MESHHOOK)
    assert document.digest({**one, "edges": []}, Rules.ANY) != document.digest(one, Rules.ANY)
    assert document.digest({**one, "edges": None}, Rules.MESHHOOK) != document.digest(one, Rules.MESHHOOK)


def test_the_digest_is_the_hash_of_canonical_json() -> None:
    """RFC 8785: keys sorted as UTF-16, numbers as ECMAScript writes them, no white space."""
    value = {"\ufb33": 1.0, "😀": 1e21, "a": -0.0, "é": "\u2028\x1f"}
    expected = '{"a":0,"é":"\u2028\\u001f","😀":1e+21,"\ufb33":1}'.encode()
    assert document.canonical(value) == expected
    assert document.digest(value, Rules.ANY) == "sha256:" + hashlib.sha256(expected).hexdigest()


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key], rng) for key in rng.sample(list(value), len(value))}
    return [shuffled(inner, rng) for inner in value] if isinstance(value, list) else value


@given(MAPPINGS, st.randoms(use_true_random=False))
def test_formatting_and_key_order_are_no_difference(value: dict[str, Any], rng: random.Random) -> None:
    """YAML or JSON, in any order of keys: the same digest."""
    digests = {
        parse(document.dump(shuffled(value, rng), file_name, Rules.ANY), file_name, Rules.ANY).digest
        for file_name in document.FILE_NAMES
    }
    assert digests == {document.digest(value, Rules.ANY)}


LAID_OUT: dict[str, Any] = {
    "nodes": [
        {
            "id": "loop-1",
            "type": "loopContainer",
            "position": {"x": 1, "y": 2},
            "width": 10,
            "height": 10,
            "style": "width: 10px",
            "zIndex": 1,
            "extent": "parent",
            "containerPosition": {"x": 1, "y": 1},
            "selected": True,
            "dragging": False,
            "measured": {"width": 10, "height": 10},
            "data": {
                "label": "x",
                "style": {},
                "dimensions": {"width": 1, "height": 1},
                "containerPosition": {"x": 1, "y": 1},
                "testResult": {"secret": "x"},
                "loopOutput": [],
                "loopInput": [],
            },
        }
    ],
    "edges": [
        {
            "id": "e1",
            "source": "a",
            "target": "b",
            "type": "smoothstep",
            "animated": True,
            "style": "",
            "selected": True,
        }
    ],
}


def test_layout_and_leftovers_are_no_difference() -> None:
    """Positions, ids of edges and the editor's live responses do not affect a run."""
    bare = {
        "nodes": [{"id": "loop-1", "type": "loopContainer", "data": {"label": "x"}}],
        "edges": [{"source": "a", "target": "b"}],
    }
    assert document.digest(LAID_OUT, Rules.MESHHOOK) == document.digest(bare, Rules.MESHHOOK)
    assert document.digest(LAID_OUT, Rules.ANY) != document.digest(bare, Rules.ANY)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"nodes": [{"id": "a"}]}, {"nodes": [{"id": "b"}]}),
        ({"nodes": [{"data": {"position": 1}}]}, {"nodes": [{"data": {"position": 2}}]}),
        ({"nodes": [{"data": {"config": {"style": 1}}}]}, {"nodes": [{"data": {"config": {"style": 2}}}]}),
        ({"edges": [{"sourceHandle": "a"}]}, {"edges": [{"sourceHandle": "b"}]}),
        ({"position": 1}, {"position": 2}),
        ({"a": 1}, {"a": "1"}),
        ({"a": None}, {}),
    ],
)
def test_what_a_run_depends_on_is_a_difference(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Layout keys count only in their place."""
    assert document.digest(one, Rules.MESHHOOK) != document.digest(other, Rules.MESHHOOK)


# Writing


@given(MAPPINGS, st.sampled_from(document.FILE_NAMES))
@example({"": {"": []}, "a": [[], {}, [[1, [2]], {"b": [{}]}]]}, "workflow.yaml")
@example({"x" * 2000: {"y" * 2000: ["z" * 2000]}}, "workflow.yaml")
@example({"a": "x\n \n", "b": " x\ny", "c": "x\n\n\n", "d": "\n\nx", "e": "x \n y "}, "workflow.yaml")
@example({"a": ["x\ny", ["  x\ny\n\n"], {"b": "\tx\n\ty"}]}, "workflow.yaml")
@example(
    {"a": 1e16, "b": -0.0, "c": 5e-324, "d": 1.7976931348623157e308, "e": True, "f": None}, "workflow.yaml"
)
def test_a_written_value_is_read_back(value: dict[str, Any], file_name: str) -> None:
    """Values, types and the order of keys."""
    written = document.dump(value, file_name, Rules.ANY)
    assert same(parse(written, file_name, Rules.ANY).value, value), written.decode()
    assert written.endswith(b"\n")
    assert not document.has_comments(written, file_name)


@given(st.dictionaries(TEXT, TEXT, max_size=5))
def test_other_parsers_read_strings_as_strings(value: dict[str, str]) -> None:
    """PyYAML, a YAML 1.1 parser, reads the same strings."""
    assume("\ufeff" not in str(value))
    assert yaml.safe_load(document.dump(value, "workflow.yaml", Rules.ANY)) == value


def test_the_written_form_is_fixed() -> None:
    """Block style, two spaces, keys in order, texts of several lines as blocks."""
    value = {
        "name": "Order sync",
        "nodes": [
            {
                "id": "call-1",
                "position": {"x": 260, "y": 0.5},
                "data": {
                    "label": "Größe: 3 😀",
                    "note": "first\n  second\n",
                    "config": {
                        "url": "https://a.example/{{id}}?q=#x",
                        "headers": '{"A": "it\'s"}',
                        "on": "no",
                    },
                    "none": None,
                    "empty": [{}, [], ""],
                },
            },
            ["x", ["y"]],
        ],
        "edges": [],
    }
    assert document.dump(value, "workflow.yml").decode() == (
        """\
name: Order sync
nodes:
  - id: call-1
    position:
      x: 260
      y: 0.5
    data:
      label: "Größe: 3 😀"
      note: |
        first
          second
      config:
        url: https://a.example/{{id}}?q=#x
        headers: '{"A": "it''s"}'
        "on": "no"
      none: null
      empty:
        - {}
        - []
        - ""
  - - x
    - - y
edges: []
"""
    )
    assert (
        document.dump({"a": ["é", {}]}, "workflow.json").decode() == '{\n  "a": [\n    "é",\n    {}\n  ]\n}\n'
    )
    assert document.dump({}, "workflow.yaml") == b"{}\n"


def test_invisible_characters_are_escaped() -> None:
    """A file hides no control character, mark or change of direction from a reviewer."""
    written = document.dump({"a": "x\u202ey\ufeffz\x85\x1b"}, "workflow.yaml")
    assert written == b'a: "x\\u202ey\\ufeffz\\u0085\\u001b"\n'


def test_leftovers_are_not_written() -> None:
    """Live responses are dropped, layout is kept. Other rule sets drop nothing."""
    written = document.dump(LAID_OUT, "workflow.yaml")
    node = parse(written).value["nodes"][0]
    assert set(node) == set(LAID_OUT["nodes"][0]) - {"selected", "dragging", "measured"}
    assert set(node["data"]) == {"label", "style", "dimensions", "containerPosition"}
    assert b"secret" not in written
    assert b"secret" in document.dump(LAID_OUT, "workflow.yaml", Rules.ANY)
    assert LAID_OUT["nodes"][0]["selected"] is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n", False),
        ("# why\na: 1\n", True),
        ("a: 1 # why\n", True),
        ("a: 1\n# why", True),
        ("a: '# not'\nb: \"# not\"\nc: x#not\n", False),
        ("a: |\n  # not\n  # not\n", False),
        ("a: |  # why\n  x\n", True),
        ("a: >-\n  x\n# why\nb: 1\n", True),
        ("a: |\n  # not\n# why\n", True),
        ("a: [x, # why\n y]\n", True),
        ("a: !!str # why\n  x\n", True),
        ("a: &x '#'\nb: *x\n", False),
        ("\ufeffa: '#'\n", False),
        ("a: '\u2028#'\n", False),
        ("a: '#'\r\nb: |\r\n  #\r\n", False),
        ("a: [", False),
    ],
)
def test_comments_are_found(text: str, expected: bool) -> None:
    """A `#` in a text is not a comment. Unparsable text may have comments."""
    assert document.has_comments(text.encode(), "workflow.yaml") is expected
    assert not document.has_comments(text.encode(), "workflow.json")


def test_searching_hostile_bytes_for_comments_costs_little() -> None:
    """Also for text that was not parsed before."""
    for raw in (b"#" + b"[" * 2**20, b"[" * 2**20 + b"#", b"#\xff\0", b"#\n" * 2**19, b"!<%ff> '#'"):
        assert document.has_comments(raw, "workflow.yaml")
