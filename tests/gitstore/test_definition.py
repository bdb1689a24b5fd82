"""Definitions as a whole: reading, the digest of a meaning, writing, and the line that tells a problem."""

from __future__ import annotations

import hashlib
import json
import random
import string
import threading
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gitstore import definition
from gitstore.errors import Code, GitstoreError
from gitstore.model import Limits, Problem, Rules

LIMITS = Limits()
SMALL = b"""\
name: Order sync
nodes:
  - id: hook-1
    type: webhook
    position: {x: 0, y: 0}
    data: {label: Order paid, config: {}}
  - id: call-1
    type: default
    data: {label: Create shipment, type: httpCall, config: {url: "https://a.example", method: POST}}
edges:
  - {id: e1, source: hook-1, target: call-1}
"""

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


def parse(raw: bytes, file_name: str = "workflow.yaml", rules: Rules = Rules.MESHHOOK) -> Any:
    return definition.parse(raw, file_name, rules, LIMITS)


def same(one: Any, other: Any) -> bool:
    """Equal, in types and in the order of keys too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


# Reading


def test_a_definition_is_read() -> None:
    """The bytes as they came, the value, its digest, and no problem."""
    found = parse(SMALL)
    assert found.raw == SMALL
    assert found.value["nodes"][1]["data"]["config"] == {"url": "https://a.example", "method": "POST"}
    assert found.problems == ()
    assert found.valid


@pytest.mark.parametrize("file_name", definition.FILE_NAMES)
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[]", "the document must be a mapping, line 1, column 1"),
        (b' "x"', "the document must be a mapping"),
    ],
)
def test_the_root_is_a_mapping(raw: bytes, message: str, file_name: str) -> None:
    """Anything else can't be read as a definition, whatever the rules."""
    for rules in Rules:
        with pytest.raises(GitstoreError, match=message) as caught:
            parse(raw, file_name, rules)
        assert caught.value.code is Code.DEFINITION_UNPARSABLE


@pytest.mark.parametrize("raw", [b"", b"# nothing\n", b"---\n", b"null"])
def test_an_empty_document_is_refused(raw: bytes) -> None:
    """It says so, instead of speaking of null."""
    with pytest.raises(GitstoreError, match=r"the document is empty, line \d, column \d$"):
        parse(raw)


def test_the_message_names_the_first_of_all_refusals() -> None:
    """`problems` holds every one; the message ends in the first one's place."""
    with pytest.raises(GitstoreError) as caught:
        parse(b"a: 1\nb: 2\na: 3\nb: .nan\n")
    assert caught.value.message == (
        "workflow.yaml can't be read: "
        'duplicate key "a" (the first of 3 problems), line 3, column 1'
    )  # fmt: skip
    assert [definition.describe(problem) for problem in caught.value.data["problems"]] == [
        'line 3, column 1: duplicate key "a"',
        'line 4, column 1: duplicate key "b"',
        "line 4, column 4: .nan is not a finite number: put it in quotes",
    ]


def test_json_files_are_strictly_json() -> None:
    """YAML in workflow.json is refused; JSON in workflow.yaml is YAML."""
    with pytest.raises(GitstoreError, match="line 1, column 1"):
        parse(SMALL, "workflow.json")
    as_json = json.dumps(parse(SMALL).value).encode()
    assert (
        parse(as_json, "workflow.json").value == parse(as_json, "workflow.yaml").value == parse(SMALL).value
    )


def test_any_mapping_will_do_without_rules() -> None:
    """Under the rules `any` there are no problems."""
    assert parse(b"nodes: 1", rules=Rules.ANY).problems == ()
    assert not parse(b"nodes: 1").valid


@given(st.binary(max_size=100), st.sampled_from(definition.FILE_NAMES), st.sampled_from(list(Rules)))
def test_any_bytes_are_a_definition_or_refused(raw: bytes, file_name: str, rules: Rules) -> None:
    """Nothing but a coded error comes out."""
    _parse_or_refuse(raw, file_name, rules)


@given(st.data())
def test_a_damaged_file_is_a_definition_or_refused(data: st.DataObject) -> None:
    """A few bytes changed, dropped or put in: nothing but a coded error comes out."""
    file_name = data.draw(st.sampled_from(definition.FILE_NAMES))
    raw = bytearray(definition.dump(parse(SMALL).value, file_name))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3)
            | st.sampled_from([b"[", b"{", b"&a ", b"*a", b"!!int ", b": ", b"\n", b"- ", b'"'])
        )
    _parse_or_refuse(bytes(raw), file_name, Rules.MESHHOOK)


def _parse_or_refuse(raw: bytes, file_name: str, rules: Rules) -> None:
    try:
        found = definition.parse(raw, file_name, rules, LIMITS)
    except GitstoreError as refused:
        found = None
        code, problems = refused.code, refused.data["problems"]
    if found is None:
        assert code is Code.DEFINITION_UNPARSABLE
        assert problems
    else:
        assert definition.dump(found.value, file_name, rules)
        assert all(definition.describe(problem) for problem in found.problems)


# JSON bodies


def test_a_json_body_may_be_any_value() -> None:
    """Under the guards of a definition, with room around one."""
    assert definition.parse_json(b'{"message": "x", "definition": null}', LIMITS) == {
        "message": "x",
        "definition": None,
    }
    assert definition.parse_json(b"[1]", LIMITS) == [1]
    deep = b"[" * 64 + b"]" * 64
    assert definition.parse_json(b'{"definition": ' + deep + b"}", LIMITS)
    assert definition.parse_json(b'"' + b"x" * 2**21 + b'"', LIMITS)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"a": 1, "a": 1}', b"NaN", b'"\\u0000"', b'"\\ud800"', b"[" * 10**6]
)
def test_a_bad_json_body_is_malformed(raw: bytes) -> None:
    """The message tells the place."""
    with pytest.raises(GitstoreError, match=r"line \d+, column \d+$") as caught:
        definition.parse_json(raw, LIMITS)
    assert caught.value.code is Code.MALFORMED


# The digest


def test_no_edges_are_none_whether_said_or_left_out() -> None:
    """DEFINITION: absent = []. The same meaning has the same digest."""
    one = {"nodes": [{"id": "a", "type": "webhook"}]}
    assert definition.digest({**one, "edges": []}, Rules.MESHHOOK) == definition.digest(one, Rules.MESHHOOK)
    assert definition.digest({**one, "edges": []}, Rules.ANY) != definition.digest(one, Rules.ANY)
    assert definition.digest({**one, "edges": None}, Rules.MESHHOOK) != definition.digest(one, Rules.MESHHOOK)


def test_the_digest_is_the_hash_of_canonical_json() -> None:
    """RFC 8785: keys sorted as UTF-16, numbers as ECMAScript writes them, no white space."""
    value = {"\ufb33": 1.0, "😀": 1e21, "a": -0.0, "é": "\u2028\x1f"}
    expected = '{"a":0,"é":"\u2028\\u001f","😀":1e+21,"\ufb33":1}'.encode()
    assert definition.canonical(value) == expected
    assert definition.digest(value, Rules.ANY) == "sha256:" + hashlib.sha256(expected).hexdigest()


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key], rng) for key in rng.sample(list(value), len(value))}
    return [shuffled(inner, rng) for inner in value] if isinstance(value, list) else value


@given(MAPPINGS, st.randoms(use_true_random=False))
def test_formatting_and_key_order_are_no_difference(value: dict[str, Any], rng: random.Random) -> None:
    """YAML or JSON, in any order of keys: the same digest."""
    digests = {
        parse(definition.dump(shuffled(value, rng), file_name, Rules.ANY), file_name, Rules.ANY).digest
        for file_name in definition.FILE_NAMES
    }
    assert digests == {definition.digest(value, Rules.ANY)}


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
    """Moving a node, renaming an edge or a live answer left in the file changes no run."""
    bare = {
        "nodes": [{"id": "loop-1", "type": "loopContainer", "data": {"label": "x"}}],
        "edges": [{"source": "a", "target": "b"}],
    }
    assert definition.digest(LAID_OUT, Rules.MESHHOOK) == definition.digest(bare, Rules.MESHHOOK)
    assert definition.digest(LAID_OUT, Rules.ANY) != definition.digest(bare, Rules.ANY)


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
    """Layout is known by its place, not by its name alone."""
    assert definition.digest(one, Rules.MESHHOOK) != definition.digest(other, Rules.MESHHOOK)


# Writing


@given(MAPPINGS, st.sampled_from(definition.FILE_NAMES))
@example({"": {"": []}, "a": [[], {}, [[1, [2]], {"b": [{}]}]]}, "workflow.yaml")
@example({"x" * 2000: {"y" * 2000: ["z" * 2000]}}, "workflow.yaml")
@example({"a": "x\n \n", "b": " x\ny", "c": "x\n\n\n", "d": "\n\nx", "e": "x \n y "}, "workflow.yaml")
@example({"a": ["x\ny", ["  x\ny\n\n"], {"b": "\tx\n\ty"}]}, "workflow.yaml")
@example(
    {"a": 1e16, "b": -0.0, "c": 5e-324, "d": 1.7976931348623157e308, "e": True, "f": None}, "workflow.yaml"
)
def test_what_is_written_reads_back_the_same(value: dict[str, Any], file_name: str) -> None:
    """Values, types and the order of keys."""
    written = definition.dump(value, file_name, Rules.ANY)
    assert same(parse(written, file_name, Rules.ANY).value, value), written.decode()
    assert written.endswith(b"\n")
    assert not definition.has_comments(written, file_name)


@given(st.dictionaries(TEXT, TEXT, max_size=5))
def test_other_parsers_read_strings_as_strings(value: dict[str, str]) -> None:
    """PyYAML, whose YAML is 1.1, reads the same strings: none of them looks like something else to it."""
    assume("\ufeff" not in str(value))
    assert yaml.safe_load(definition.dump(value, "workflow.yaml", Rules.ANY)) == value


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
    assert definition.dump(value, "workflow.yml").decode() == (
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
        definition.dump({"a": ["é", {}]}, "workflow.json").decode()
        == '{\n  "a": [\n    "é",\n    {}\n  ]\n}\n'
    )
    assert definition.dump({}, "workflow.yaml") == b"{}\n"


def test_what_can_not_be_seen_is_escaped() -> None:
    """A reviewer sees what runs: no hidden control, mark or change of direction in the file."""
    written = definition.dump({"a": "x\u202ey\ufeffz\x85\x1b"}, "workflow.yaml")
    assert written == b'a: "x\\u202ey\\ufeffz\\u0085\\u001b"\n'


def test_leftovers_are_not_written() -> None:
    """The editor's live answers stay out of Git; layout stays in the file. Other rules drop nothing."""
    written = definition.dump(LAID_OUT, "workflow.yaml")
    node = parse(written).value["nodes"][0]
    assert set(node) == set(LAID_OUT["nodes"][0]) - {"selected", "dragging", "measured"}
    assert set(node["data"]) == {"label", "style", "dimensions", "containerPosition"}
    assert b"secret" not in written
    assert b"secret" in definition.dump(LAID_OUT, "workflow.yaml", Rules.ANY)
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
    """A `#` in a text is none. What doesn't parse may have some."""
    assert definition.has_comments(text.encode(), "workflow.yaml") is expected
    assert not definition.has_comments(text.encode(), "workflow.json")


def test_looking_for_comments_in_hostile_bytes_costs_little() -> None:
    """The file should have been parsed before; nothing happens if it wasn't."""
    for raw in (b"#" + b"[" * 2**20, b"[" * 2**20 + b"#", b"#\xff\0", b"#\n" * 2**19, b"!<%ff> '#'"):
        assert definition.has_comments(raw, "workflow.yaml")


# Telling


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (
            Problem("x", "url is required", "/nodes/3/data", "call-api", 1, 1),
            'nodes[3] "call-api": url is required',
        ),
        (Problem("x", "id is required", "/nodes/0", None, 1, 1), "nodes[0]: id is required"),
        (Problem("x", "it is bad", "/edges/12/id", None, 1, 1), "edges[12]: it is bad"),
        (Problem("x", "nodes must be a list", "/nodes", None, 1, 1), "nodes must be a list"),
        (Problem("x", "there is no node", "", None, 1, 1), "there is no node"),
        (Problem("x", "not YAML", None, None, 3, 5), "line 3, column 5: not YAML"),
        (Problem("x", "comments are gone"), "comments are gone"),
        (
            Problem("x", "bad", "/nodes/0", "a\n\x1b[31m\u202e", 1, 1),
            'nodes[0] "a\\n\\u001b[31m\\u202e": bad',
        ),
    ],
)
def test_a_problem_is_told_in_one_line(problem: Problem, line: str) -> None:
    """Where, then what; nothing in it can move a terminal's cursor."""
    assert definition.describe(problem) == line


# Cost


def workflow(nodes: int) -> dict[str, Any]:
    """A chain of HTTP calls as the editor writes them, about 400 bytes of YAML each."""
    return {
        "name": "Long chain",
        "nodes": [
            {
                "id": f"call-{n}",
                "type": "default",
                "position": {"x": 260 * n, "y": 0},
                "data": {
                    "label": f"Create shipment {n}",
                    "type": "httpCall",
                    "config": {
                        "url": f"https://warehouse.example/shipments/{n}",
                        "method": "POST",
                        "headers": '{"Authorization": "Bearer {{token}}"}',
                        "body": string.ascii_letters,
                    },
                },
            }
            for n in range(nodes)
        ],
        "edges": [
            {"id": f"e{n}", "source": f"call-{n}", "target": f"call-{n + 1}"} for n in range(nodes - 1)
        ],
    }


@pytest.mark.parametrize("file_name", definition.FILE_NAMES)
@pytest.mark.parametrize("nodes", [50, 1400])
def test_what_is_written_is_read_at_any_size(nodes: int, file_name: str) -> None:
    """20 KB and nearly a megabyte."""
    raw = definition.dump(workflow(nodes), file_name)
    assert parse(raw, file_name).valid


def test_reading_is_thread_safe() -> None:
    """Many threads read different definitions at once, warnings being errors."""
    value = workflow(20)
    for node in value["nodes"]:
        node["data"] |= {"type": "conditional", "config": {"condition": "status == `success`"}}
    raw = definition.dump(value, "workflow.yaml")
    failed: list[BaseException] = []

    def read_often() -> None:
        try:
            for _ in range(10):
                assert parse(raw).valid
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
