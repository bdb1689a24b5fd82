"""Samples of YAML 1.2 as people write it, and awkward strings; `test_parsing.py` has scalars and refusals.

`test_corpora.py` runs much larger collections, which are not part of the repository.
"""

from __future__ import annotations

from typing import Any

import pytest

from gitstore.definition import document
from gitstore.model import Rules
from tests.gitstore.parsed import LIMITS, places, problems_in, yaml_value

VALUES: dict[str, tuple[str, Any]] = {
    "mapping of mappings": ("a:\n  b: 1\n  c:\n    d: x\n", {"a": {"b": 1, "c": {"d": "x"}}}),
    "list in a mapping, not indented": ("a:\n- 1\n- 2\nb: 3\n", {"a": [1, 2], "b": 3}),
    "list of mappings": ("- a: 1\n  b: 2\n-\n  a: 3\n", [{"a": 1, "b": 2}, {"a": 3}]),
    "list of lists": ("- - 1\n  - 2\n- - 3\n", [[1, 2], [3]]),
    "flow collections": ("a: [1, {b: 2, c: [ ]}, 'x']\n", {"a": [1, {"b": 2, "c": []}, "x"]}),
    "flow collection over lines": ("a: [\n  1,\n  2, # two\n]\n", {"a": [1, 2]}),
    "JSON": ('{"a": [true, null, -1.5e3], "b": "\\u00e9"}\n', {"a": [True, None, -1500.0], "b": "é"}),
    "empty values": ("a:\nb: ~\nc: ''\n", {"a": None, "b": None, "c": ""}),
    "comments everywhere": ("# first\na: 1 # after\n# between\nb: x#y\n# last\n", {"a": 1, "b": "x#y"}),
    "no line end at the end": ("a: 1", {"a": 1}),
    "explicit key": ("? a\n: 1\n? 'b c'\n: 2\n", {"a": 1, "b c": 2}),
    "quoted keys": ("\"a: b\": 1\n'#': 2\n", {"a: b": 1, "#": 2}),
    "anchor and alias": ("a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1}}),
    "literal block": ("a: |\n  one\n   two\n\n  three\nb: 1\n", {"a": "one\n two\n\nthree\n", "b": 1}),
    "literal block, stripped": ("a: |-\n  one\n  two\n\n", {"a": "one\ntwo"}),
    "literal block, kept": ("a: |+\n  one\n\nb: 1\n", {"a": "one\n\n", "b": 1}),
    "literal block with an indicator": ("a: |2\n    one\n  two\n", {"a": "  one\ntwo\n"}),
    "literal block with a comment": ("a: |  # why\n  # text\n", {"a": "# text\n"}),
    "folded block": ("a: >\n  one\n  two\n\n  three\n    four\n", {"a": "one two\nthree\n  four\n"}),
    "folded plain scalar": ("a: one\n  two\n\n  three\n", {"a": "one two\nthree"}),
    "double-quoted escapes": ('a: "\\t\\x41\\u263a\\U0001f600\\\\\\"\\/"\n', {"a": '\tA☺😀\\"/'}),
    "double-quoted over lines": ('a: "one\n  two\\\n  three\n\n  four"\n', {"a": "one twothree\nfour"}),
    "single-quoted": ("a: 'it''s \\n'\n", {"a": "it's \\n"}),
    "plain scalars with signs": (
        "a: x:y\nb: -x\nc: ?x\nd: a, b\n",
        {"a": "x:y", "b": "-x", "c": "?x", "d": "a, b"},
    ),
    "characters beyond ASCII": ("ключ: 値\n😀: ☺\n", {"ключ": "値", "😀": "☺"}),
    "a scalar": ("just text\n", "just text"),
    "pairs of surrogates": (
        r'{"\uD83D\uDe00": "x\\\ud83d\ude00\ud834\udd1e \\ud83d\\ude00 \ue83d"}',
        {"\U0001f600": "x\\\U0001f600\U0001d11e \\ud83d\\ude00 \ue83d"},
    ),
    "pairs of surrogates and old line breaks": (
        'a: "\x85 \\U0010fffd \\uDBFF\\uDFFD"',
        {"a": "\x85 \U0010fffd \U0010fffd"},
    ),
    "pairs of escapes outside of double quotes": (
        "a: '\\ud83d\\ude00'\nb: \\uD83d\\uDE00\nc: |\n  \\ud83d\\ude00 \\ud83d\n",
        {"a": "\\ud83d\\ude00", "b": "\\uD83d\\uDE00", "c": "\\ud83d\\ude00 \\ud83d\n"},
    ),
    "spaces at the end of a block": ("a: |\n  x\n   ", {"a": "x\n \n"}),
    "only spaces in a kept block": ("- |+\n   ", ["\n"]),
    "separate question marks and anchors": (
        "- {? a : b}\n- [c?, d?]\n- &a-b_1 e\n- [&f g]\n- !!str &h\n  1\n",
        [{"a": "b"}, ["c?", "d?"], "e", ["g"], "1"],
    ),
    "comments that touch what precedes them": (
        'a: [b, c,#x\n]#x\nd: "e"#x\nf: >#x\n  g\n',
        {"a": ["b", "c"], "d": "e", "f": "g\n"},
    ),
    "lines with a tab or too little indentation": (
        'a: "b\n\tc"\nd: [e,\nf]\ng: "h\ni"\n',
        {"a": "b c", "d": ["e", "f"], "g": "h i"},
    ),
    "a hyphen in a flow collection": ("a: [-]\n", {"a": ["-"]}),
    "leading lines that are too long": ("a: >\n \n  \n   \n# b\n", {"a": ""}),
}


@pytest.mark.parametrize(("text", "expected"), VALUES.values(), ids=VALUES.keys())
def test_a_sample_has_its_value(text: str, expected: Any) -> None:
    value = yaml_value(text)
    assert value == expected
    assert repr(value) == repr(expected)  # 1, 1.0 and True are equal


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("{ ?foo: bar }", 3), ("[?x]", 2), ('[a, ?"x"]', 5), ("{?[a]: b}", 2), ("{?&a b: c}", 2),
        ("a: &an:chor value", 7), ("a: !!str &b@c d", 12), ("[&a?b c]", 4), ("a: &b%c d", 6),
    ],
)  # fmt: skip
def test_text_that_libyaml_misreads_is_refused(text: str, column: int) -> None:
    """It would silently get another value than in YAML 1.2."""
    assert ("syntax", 1, column) in places(problems_in(text))


@pytest.mark.parametrize("escape", [r"\ud83d", r"\ude00", r"\ude00\ud83d", r"\ud83d\ud83d", r"\\ud83d\ude00"])
def test_an_escape_of_a_lone_surrogate_is_refused(escape: str) -> None:
    assert problems_in(f'a: "{escape}"')
    assert problems_in(f'{{"a": "{escape}"}}', is_json=True)


@pytest.mark.parametrize("name", [name for name, (_, value) in VALUES.items() if isinstance(value, dict)])
def test_a_sample_is_written_and_read_back(name: str) -> None:
    """In each format, with the same digest."""
    text, value = VALUES[name]
    parsed = document.parse(text.encode(), "workflow.yaml", Rules.ANY, LIMITS)
    for file_name in document.FILE_NAMES:
        written = document.parse(document.dump(value, file_name, Rules.ANY), file_name, Rules.ANY, LIMITS)
        assert (written.value, written.digest) == (value, parsed.digest)


AWKWARD = [
    "", " ", "  x", "x  ", "\t", "\n", "\n\n x\n", "x\n", "x\ny", "-", "- x", "--- x", "...", "?",
    ": x", "x: y", "x:", "#", "x # y", "!x", "&x", "*x", "|", ">", "%x", "@x", "`x", "'", '"', "\\",
    "'\"", "[x", "{x}", ",", "null", "~", "True", "no", "on", "0", "-1", "010", "0x1f", "1e3", "1.",
    ".5", ".inf", ".NaN", "1_000", "12:30", "2026-01-31", "<<", "=", "é", "日本語", "😀👩‍👩‍👧",
    "\u202eabc", "\u200b", "\ufeffx", "\x7f", "\x85", "\u2028", "<script>alert(1)</script>", "$(id)",
    "'; drop table x; --", "../../etc/passwd", "{{x}}", "%s%n", "a" * 2000, "x\r\ny", "\x1b[31m",
    "a\u0301", "ﷺ", "Ω≈ç√", "\U0010ffff",
]  # fmt: skip


@pytest.mark.parametrize("file_name", document.FILE_NAMES)
def test_awkward_strings_survive(file_name: str) -> None:
    """As values, as keys, as items and in one text, in every format."""
    value = {"list": AWKWARD, "keys": {text: text for text in AWKWARD}, "lines": "\n".join(AWKWARD) + "\n"}
    parsed = document.parse(document.dump(value, file_name), file_name, Rules.MESHHOOK, LIMITS)
    assert parsed.value == value
    assert parsed.digest == document.digest(value, Rules.MESHHOOK)
