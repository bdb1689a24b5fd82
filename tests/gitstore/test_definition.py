"""Whole definitions: accepted and refused input, and the line that describes a problem."""

from __future__ import annotations

import json
import string
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.definition import document
from gitstore.errors import Code, GitstoreError
from gitstore.model import Problem, Rules
from tests.gitstore.parsed import LIMITS, parse

SMALL = b"""\
name: Order sync
nodes:
  - id: hook-1
    type: webhook
    position: {x: 0, y: 0}
    data: {label: Order paid, config: {}}
  - id: call-1
    type: default
    position: {x: 260, y: 0}
    data: {label: Create shipment, type: httpCall, config: {url: "https://a.example", method: POST}}
edges:
  - {id: e1, source: hook-1, target: call-1}
"""


# Reading


def test_a_definition_is_read() -> None:
    """The unchanged bytes, the value, its digest, and no problem."""
    definition = parse(SMALL)
    assert definition.raw == SMALL
    assert definition.value["nodes"][1]["data"]["config"] == {"url": "https://a.example", "method": "POST"}
    assert definition.problems == ()
    assert definition.valid


@pytest.mark.parametrize("file_name", document.FILE_NAMES)
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[]", "the document must be a mapping, line 1, column 1"),
        (b' "x"', "the document must be a mapping, line 1, column 2"),
    ],
)
def test_the_root_is_a_mapping(raw: bytes, message: str, file_name: str) -> None:
    with pytest.raises(GitstoreError, match=message) as caught:
        parse(raw, file_name)
    assert caught.value.code is Code.DEFINITION_UNPARSABLE


@pytest.mark.parametrize("raw", [b"", b"# nothing\n", b"---\n", b"null"])
def test_an_empty_document_is_refused(raw: bytes) -> None:
    """The message does not mention null."""
    with pytest.raises(GitstoreError, match=r"the document is empty, line \d, column \d$"):
        parse(raw)


def test_the_message_names_the_first_error() -> None:
    """`problems` holds all; the message ends with the position of the first."""
    with pytest.raises(GitstoreError) as caught:
        parse(b"a: 1\nb: 2\na: 3\nb: .nan\n")
    assert caught.value.message == (
        "workflow.yaml can't be read: "
        'duplicate key "a" (the first of 3 problems), line 3, column 1'
    )  # fmt: skip
    assert [document.describe(problem) for problem in caught.value.data["problems"]] == [
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


def test_any_mapping_is_valid_without_rules() -> None:
    """Under the rules `any` there are no problems."""
    assert parse(b"nodes: 1", rules=Rules.ANY).problems == ()
    assert not parse(b"nodes: 1").valid


@given(st.binary(max_size=100), st.sampled_from(document.FILE_NAMES), st.sampled_from(list(Rules)))
def test_any_bytes_are_a_definition_or_refused(raw: bytes, file_name: str, rules: Rules) -> None:
    """Only coded errors are raised."""
    _parse_or_refuse(raw, file_name, rules)


@given(st.data())
def test_a_damaged_file_is_a_definition_or_refused(data: st.DataObject) -> None:
    """With a few bytes changed, dropped or inserted, only coded errors are raised."""
    file_name = data.draw(st.sampled_from(document.FILE_NAMES))
    raw = bytearray(document.dump(parse(SMALL).value, file_name))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3)
            | st.sampled_from([b"[", b"{", b"&a ", b"*a", b"!!int ", b": ", b"\n", b"- ", b'"'])
        )
    _parse_or_refuse(bytes(raw), file_name, Rules.MESHHOOK)


def _parse_or_refuse(raw: bytes, file_name: str, rules: Rules) -> None:
    try:
        definition = document.parse(raw, file_name, rules, LIMITS)
    except GitstoreError as refused:
        definition = None
        code, problems = refused.code, refused.data["problems"]
    if definition is None:
        assert code is Code.DEFINITION_UNPARSABLE
        assert problems
    else:
        assert document.dump(definition.value, file_name, rules)
        assert all(document.describe(problem) for problem in definition.problems)


# JSON bodies


def test_a_json_body_may_be_any_value() -> None:
    """Under the limits of a definition, with an allowance around it."""
    assert document.parse_json(b'{"message": "x", "definition": null}', LIMITS) == {
        "message": "x",
        "definition": None,
    }
    assert document.parse_json(b"[1]", LIMITS) == [1]
    deep = b"[" * 64 + b"]" * 64
    assert document.parse_json(b'{"definition": ' + deep + b"}", LIMITS)
    assert document.parse_json(b'"' + b"x" * 2**21 + b'"', LIMITS)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"a": 1, "a": 1}', b"NaN", b'"\\u0000"', b'"\\ud800"', b"[" * 10**6]
)
def test_a_bad_json_body_is_malformed(raw: bytes) -> None:
    """The message has the position."""
    with pytest.raises(GitstoreError, match=r"line \d+, column \d+$") as caught:
        document.parse_json(raw, LIMITS)
    assert caught.value.code is Code.MALFORMED


# Descriptions


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
def test_a_problem_is_described_in_one_line(problem: Problem, line: str) -> None:
    """Position, then message; no character in it can move a terminal's cursor."""
    assert document.describe(problem) == line


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


@pytest.mark.parametrize("file_name", document.FILE_NAMES)
@pytest.mark.parametrize("nodes", [50, 1400])
def test_written_objects_of_any_size_are_read(nodes: int, file_name: str) -> None:
    """20 KB and nearly a megabyte."""
    raw = document.dump(workflow(nodes), file_name)
    assert parse(raw, file_name).valid


def test_reading_is_thread_safe() -> None:
    """Many threads parse different definitions at once; warnings are errors."""
    value = workflow(20)
    for node in value["nodes"]:
        node["data"] |= {"type": "conditional", "config": {"condition": "status == `success`"}}
    raw = document.dump(value, "workflow.yaml")
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
