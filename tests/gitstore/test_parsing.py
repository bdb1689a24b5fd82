"""Values of YAML and JSON, and refusals with their positions."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from gitstore.definition import block_reader, document
from gitstore.definition.document import Unparsable, read
from gitstore.model import Limits
from tests.gitstore.parsed import LIMITS, json_value, places, plain_value, problems_in, yaml_value
from tests.helpers import definition as sample

# What YAML means


STRINGS = (
    *("no", "yes", "on", "off", "y", "12:30:00", "2001-01-01", "<<", "=", "1_000", "0b11", "0o8", "0x"),
    *("1e", ".", "+", "0O7", "1.2.3", "nUll", "tRUE", "nan", "Infinity", "-x"),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(text, text) for text in STRINGS],
        *[(text, None) for text in ("null", "Null", "NULL", "~", "")],
        *[(text, True) for text in ("true", "True", "TRUE")],
        *[(text, False) for text in ("false", "False", "FALSE")],
        ("010", 10),
        ("+12", 12),
        ("-0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("0" * 5000 + "7", 7),
        ("9007199254740991", 2**53 - 1),
        ("-9007199254740991", -(2**53) + 1),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5E-3", -0.0015),
        ("9" * 300 + ".0", 1e300),
        ("1e-999", 0.0),
        ("'1'", "1"),
        ('"null"', "null"),
        ("!!str 1", "1"),
        ("!!str", ""),
        ("! 1", "1"),
        ('!!int "3"', 3),
        ("!!float 3", 3.0),
        ("!!bool true", True),
        ("!!null ''", None),
        ("!!map {}", {}),
        ("!!seq []", []),
        ("!<tag:yaml.org,2002:str> 1", "1"),
        ('"\\x85\\u2028\\U0001F600"', "\x85\u2028😀"),
        ("|\n  a\n  b", "a\nb\n"),
    ],
)
def test_a_scalar_has_its_value_in_the_core_schema(text: str, value: Any) -> None:
    """YAML 1.2's core schema, and none of YAML 1.1's surprises."""
    parsed = yaml_value(f"a: {text}\n")["a"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_merge_key_is_a_key_like_any_other() -> None:
    """`<<` does not merge."""
    assert yaml_value("a: &a {x: 1}\nb:\n  <<: *a\n") == {"a": {"x": 1}, "b": {"<<": {"x": 1}}}


def test_an_alias_is_a_copy() -> None:
    """Changing one of two values with the same anchor does not change the other."""
    value = yaml_value("a: &a {x: [1]}\nb: *a\n*a2 : 1\n".replace("*a2 ", "c"))
    value["b"]["x"].append(2)
    assert value == {"a": {"x": [1]}, "b": {"x": [1, 2]}, "c": 1}


def test_an_alias_means_the_latest_anchor_before_it() -> None:
    """Anchors may be redefined, also inside a node of the same name; an alias may be a key."""
    assert yaml_value("[&a 1, *a, &a 2, *a]") == [1, 1, 2, 2]
    assert yaml_value("&a [&a x, *a]") == ["x", "x"]
    assert yaml_value("{a: &k name, *k : 1}") == {"a": "name", "name": 1}


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_line_breaks_and_byte_order_marks_make_no_difference(line_break: str, bom: str) -> None:
    """LF, CRLF and CR, with and without a UTF-8 byte order mark; columns don't count the mark."""
    text = bom + "a: 1\nb: [x,\n  y]\n".replace("\n", line_break)
    assert yaml_value(text) == {"a": 1, "b": ["x", "y"]}
    assert places(problems_in(text + "a: 2")) == [("duplicate_key", 4, 1)]
    assert json_value(bom + '{"a":\n1}'.replace("\n", line_break)) == {"a": 1}


def test_the_line_breaks_of_yaml_1_1_are_characters() -> None:
    """NEL, LS and PS do not end a line or become a space."""
    text = "a: b\x85c\u2028d\u2029\nb: é😀 \u2028\nb: 1"
    assert places(problems_in(text)) == [("duplicate_key", 3, 1)]
    assert yaml_value(text.replace("\nb: 1", "")) == {"a": "b\x85c\u2028d\u2029", "b": "é😀 \u2028"}


@pytest.mark.parametrize(
    "head", ["%YAML 1.1\n---\n", "%YAML 1.2\n---\n", "---\n", "%TAG !e! tag:e,1:\n---\n"]
)
def test_directives_change_nothing(head: str) -> None:
    """A %YAML 1.1 document is read under the rules of 1.2, too."""
    assert yaml_value(head + "a: no\n") == {"a": "no"}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "---\n...\n", "~"])
def test_an_empty_document_is_null(text: str) -> None:
    assert yaml_value(text) is None


# What YAML refuses


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('name: x\nnodes: []\n"name": y', ("duplicate_key", 3, 1)),
        ("{a: {b: 1, c: 2, b: 3}}", ("duplicate_key", 1, 18)),
        ("a: 1\n1: x", ("key_not_a_string", 2, 1)),
        ("a: 1\ntrue: x", ("key_not_a_string", 2, 1)),
        ("~: x", ("key_not_a_string", 1, 1)),
        ("a: 1\n? \n: x", ("key_not_a_string", 2, 2)),
        ("? [a]\n: x", ("key_not_a_string", 1, 3)),
        ("{a: 1, {b: 2}: 3}", ("key_not_a_string", 1, 8)),
        ("a: &x 1\n*x : 2", ("key_not_a_string", 2, 1)),
        ("é: !local x", ("tag_not_supported", 1, 4)),
        ("a: !!binary x", ("tag_not_supported", 1, 4)),
        ("a: !!timestamp 2001-01-01", ("tag_not_supported", 1, 4)),
        ("a: !!set {x}", ("tag_not_supported", 1, 4)),
        ("a: !!seq {}", ("tag_not_supported", 1, 4)),
        ("a: !!str []", ("tag_not_supported", 1, 4)),
        ("a: !!int x", ("tag_not_supported", 1, 4)),
        ("a: !!int 1.5", ("tag_not_supported", 1, 4)),
        ("a: !!bool yes", ("tag_not_supported", 1, 4)),
        ("a: !!map x", ("tag_not_supported", 1, 4)),
        ("!<%0a%1b> {}", ("tag_not_supported", 1, 1)),
        ("!!python/object:os.system {}", ("tag_not_supported", 1, 1)),
        ("a: .inf", ("number_not_finite", 1, 4)),
        ("a: -.INF", ("number_not_finite", 1, 4)),
        ("a: .NaN", ("number_not_finite", 1, 4)),
        ("a: 1e999", ("number_out_of_range", 1, 4)),
        ("a: 9007199254740992", ("number_out_of_range", 1, 4)),
        ("a: -9007199254740992", ("number_out_of_range", 1, 4)),
        ("a: 0x20000000000000", ("number_out_of_range", 1, 4)),
        ("a: " + "9" * 10_000, ("number_out_of_range", 1, 4)),
        ("a: 0x" + "f" * 10_000, ("number_out_of_range", 1, 4)),
        ("a: 1\n---\nb: 2", ("several_documents", 2, 1)),
        ("a: *x", ("alias_refused", 1, 4)),
        ("a: &a [*a]", ("alias_refused", 1, 8)),
        ("&a {b: {c: *a}}", ("alias_refused", 1, 12)),
        ("a: b\n\x00", ("character_not_allowed", 2, 1)),
        ("a: é\x07", ("character_not_allowed", 1, 5)),
        ("a: \ufeff", ("character_not_allowed", 1, 4)),
        ("a: \uffff", ("character_not_allowed", 1, 4)),
        ("a: \x7f", ("character_not_allowed", 1, 4)),
        ('a: "x\\0"', ("character_not_allowed", 1, 4)),
        ('a: "\\ud800"', ("syntax", 1, 7)),
        ('a: "\\U00110000"', ("syntax", 1, 7)),
        ("a: b: c", ("syntax", 1, 5)),
        ("a: [", ("syntax", 1, 5)),
        ("a: 'x", ("syntax", 1, 6)),
        ("a:\n   b: 1\n  c: 2", ("syntax", 3, 3)),
        ("a: 1\n- 2", ("syntax", 2, 1)),
        ("a: @x", ("syntax", 1, 4)),
        ("a:\n\t- x", ("syntax", 2, 1)),
        ("%YAML 2.0\n---\na: 1", ("syntax", 1, 1)),
        ("!<%ff> a", ("syntax", 1, 3)),
        ("%TAG !a! tag:a\n" * 100 + "---\na: 1", ("syntax", 65, 1)),
    ],
)
def test_yaml_is_refused_with_its_place(text: str, place: tuple[str, int, int]) -> None:
    """Line and column count from 1, the column in characters."""
    assert places(problems_in(text))[0] == place


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("nodes: [", "a bracket is not closed"),
        ("a: [1\nb: 2", 'a "," or "]" is missing'),
        ("a: b: c", "check the indentation"),
        ("a:\n\t- x", "indent with spaces, not tabs"),
        ("- a\nb: 1", 'a "- " is expected here'),
        ("a: 1\n  b\nc", 'a ":" is missing behind a key'),
        ("%YAML 2.0\n---\na: 1", "found incompatible YAML document"),
    ],
)
def test_a_syntax_error_tells_what_to_do(text: str, advice: str) -> None:
    """In plain words, if it is a frequent one; else as libyaml tells it."""
    assert advice in problems_in(text)[0].message


def test_all_errors_are_reported_at_once() -> None:
    """In document order, up to where the syntax ends."""
    text = "a: 1\na: .inf\nb: !x 1\n2: *y\nc: [1, 2"
    assert places(problems_in(text)) == [
        ("duplicate_key", 2, 1),
        ("number_not_finite", 2, 4),
        ("tag_not_supported", 3, 4),
        ("key_not_a_string", 4, 1),
        ("alias_refused", 4, 4),
        ("syntax", 5, 9),
    ]


def test_the_list_of_errors_has_a_limit() -> None:
    assert len(problems_in(b"\0" * 2**20)) == 100
    assert len(problems_in("a: .inf\n" * 1000)) == 100


@pytest.mark.parametrize("is_json", [False, True])
@pytest.mark.parametrize(
    ("raw", "line", "column"),
    [
        (b"a: \xc3\xa9\nb: \xc3\xa9\xff", 2, 5),
        (b"\xef\xbb\xbf\xff", 1, 1),
        ("a: b".encode("utf-16"), 1, 1),
        (b"a: \xed\xa0\x80", 1, 4),
        (b"a: \xc0\x80", 1, 4),
    ],
)
def test_only_utf_8_is_read(raw: bytes, line: int, column: int, *, is_json: bool) -> None:
    """UTF-16, encoded surrogates and overlong forms are refused, with the place of the first."""
    assert places(problems_in(raw, is_json=is_json)) == [("not_utf8", line, column)]


# JSON


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}),
        (" [ ] ", []),
        (
            '{"a": [1, -2.5e3, true, false, null, "x", {}, []]}',
            {"a": [1, -2500.0, True, False, None, "x", {}, []]},
        ),
        ('"\\ud83d\\ude00\\u00e9\\/\\n"', "😀é/\n"),
        ('"\u2028\x7f\ufeff"', "\u2028\x7f\ufeff"),
        ("-0", 0),
        ("1E2", 100.0),
        ("9007199254740991", 2**53 - 1),
        ("10000000000000000", 1e16),
        ("1" + "0" * 21, 1e21),
        ("-12345678901234567000", -12345678901234567e3),
        ("17976931348623157" + "0" * 292, 1.7976931348623157e308),
    ],
)
def test_json_means_what_rfc_8259_says(text: str, value: Any) -> None:
    """An escaped pair of surrogates is one character. An integer may be the whole form of a float."""
    parsed = json_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", ("syntax", 1, 1)),
        (" \n ", ("syntax", 2, 2)),
        ("{} {}", ("syntax", 1, 4)),
        ('{"a": 1,}', ("syntax", 1, 9)),
        ("[1,]", ("syntax", 1, 4)),
        ("[1 2]", ("syntax", 1, 4)),
        ("[}", ("syntax", 1, 2)),
        ('{"a" 1}', ("syntax", 1, 6)),
        ("{'a': 1}", ("syntax", 1, 2)),
        ("{a: 1}", ("syntax", 1, 2)),
        ("{1: 1}", ("syntax", 1, 2)),
        ("[01]", ("syntax", 1, 3)),
        ("[1.]", ("syntax", 1, 3)),
        ("[.5]", ("syntax", 1, 2)),
        ("[+1]", ("syntax", 1, 2)),
        ("[NaN]", ("syntax", 1, 2)),
        ("[-Infinity]", ("syntax", 1, 2)),
        ('["a]', ("syntax", 1, 2)),
        ('["é\\x"]', ("syntax", 1, 4)),
        ('["a\nb"]', ("syntax", 1, 4)),
        ('["a\0b"]', ("syntax", 1, 4)),
        ("[\0]", ("syntax", 1, 2)),
        ("[1] // no", ("syntax", 1, 5)),
        ('["\\u0000"]', ("character_not_allowed", 1, 2)),
        ('["\\ud800"]', ("character_not_allowed", 1, 2)),
        ('["\\ude00\\ud83d"]', ("character_not_allowed", 1, 2)),
        ('{"\\udfff": 1}', ("character_not_allowed", 1, 2)),
        ('{"a": 1,\n "a": 2}', ("duplicate_key", 2, 2)),
        ('{"é": 1, "\\u00e9": 2}', ("duplicate_key", 1, 10)),
        ("[9007199254740992]", ("number_out_of_range", 1, 2)),
        ("[10000000000000001]", ("number_out_of_range", 1, 2)),
        ("[12345678901234567890]", ("number_out_of_range", 1, 2)),
        ("[" + "9" * 309 + "]", ("number_out_of_range", 1, 2)),
        ("[1e999]", ("number_out_of_range", 1, 2)),
        ("[" + "9" * 10_000 + "]", ("number_out_of_range", 1, 2)),
    ],
)
def test_json_is_refused_with_its_place(text: str, place: tuple[str, int, int]) -> None:
    """Strictly JSON, under the limits of YAML."""
    assert places(problems_in(text, is_json=True))[0] == place


def test_all_errors_of_json_are_reported_at_once() -> None:
    """In document order, up to where the syntax ends."""
    parsed = problems_in('{"a": 1e999, "a": "\\u0000", "b": 9007199254740992, ]', is_json=True)
    codes = [problem.code for problem in parsed]
    assert codes == [
        "number_out_of_range",
        "duplicate_key",
        "character_not_allowed",
        "number_out_of_range",
        "syntax",
    ]


# Places


def test_a_node_is_found_by_its_path() -> None:
    """The position of a value is its start; that of a missing one is the start of its container."""
    document = read(b"a: 1\nb:\n  - x: [p, q]\n  - &y {z: 1}\nc: *y\n", LIMITS, is_json=False)

    def place(*path: str | int) -> tuple[int, tuple[int, int]]:
        steps, at = document.locate(path)
        return steps, document.source.place(at)

    assert place() == (0, (1, 1))
    assert place("b", 0, "x", 1) == (4, (3, 12))
    assert place("b", 0, "gone", "deeper") == (2, (3, 5))
    assert place("b", 7) == (1, (3, 3))
    assert place("c", "z") == (1, (5, 4))


# The readers of values alone


LINES = (
    "a: 1", "b:", "- c: x", "- d:", "e: 'x: y'", 'f: "g"', "h: {}", "- []", "- i", "j: k#l", "m: n:o",
    "p: q ", "r: null", "true: x", "~: x", '"s": t', "u: [v]", "w: |", "  x", "# y", "", "z: -0", "A: 0x1F",
    "B: 1.5", "C: 9007199254740993", "D: é", "E: F: G", "- - H", "? I", "J: &K L", "M: *K", "---",
    "N: 'it''s'", "O: \tP", "- Q: R", "S: 2024-01-01", "T: 00", "-", "U: @V", "W: $X", "Y: 12 x",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_lines_in_any_order_have_the_value_of_yaml(seed: int) -> None:
    """Whichever reader takes them; a text that it refuses is left to the other one."""
    chance, taken = random.Random(seed), 0  # noqa: S311
    for _ in range(400):
        lines = chance.choices(LINES[: chance.randint(9, len(LINES))], k=chance.randint(1, 6))
        text = "a: 0\n" + "\n".join(chance.choice(("", "", "  ", "    ")) + line for line in lines)
        taken += plain_value(text.encode()) != "null"
        try:
            yaml_value(text)
        except Unparsable:
            assert plain_value(text.encode()) == "null"
    assert taken


def test_a_usual_definition_is_read_line_by_line() -> None:
    text = document.dump(sample(), "workflow.yaml").decode()
    value = block_reader.value_of(text, LIMITS)
    assert value == yaml_value(text)
    assert block_reader.value_of(text, replace(LIMITS, depth=3)) is None
    assert block_reader.value_of(text, replace(LIMITS, nodes=9)) is None


@pytest.mark.parametrize("limits", [Limits(depth=2), Limits(nodes=4)])
@pytest.mark.parametrize("text", ["a:\n  b:\n    c: 1\n", "a:\n  b: {}\n", "a:\n  b: 1\n", "a:\n- {}\n"])
def test_limits_are_those_of_the_other_reader(limits: Limits, text: str) -> None:
    try:
        value = json.dumps(read(text.encode(), limits, is_json=False).value)
    except Unparsable:
        value = "null"
    assert plain_value(text.encode(), limits) == value
