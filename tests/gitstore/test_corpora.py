"""Files that others wrote: YAML's own test suite, Argo's workflows, and strings that break things.

They are kept beside the repository, in ../shared/data, and not everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gitstore.definition import document
from gitstore.errors import GitstoreError
from gitstore.model import Limits, Rules
from tests.gitstore.parsed import plain_value, yaml_value

DATA = Path(__file__).parents[3] / "shared" / "data"
LIMITS = Limits()

# Where libyaml, which does our syntax, differs from YAML 1.2 (https://matrix.yaml.info lists the same).
# Refused although valid, by libyaml or since libyaml would read another value:
TOO_STRICT = {
    "2LFX": "a reserved directive",
    "2SXE": "a colon in an anchor",
    "4MUZ": "a colon on the line after a flow key",
    "4MUZ-2": "a colon on the line after a flow key",
    "4MUZ-3": "a colon on the line after a flow key",
    "58MP": "a flow value that starts with a colon",
    "5MUD": "a colon on the line after a flow key",
    "5T43": "a flow value that starts with a colon",
    "6BCT": "a tab between a dash and its item",
    "6CA3": "a tab before a flow collection",
    "652Z": "a flow key that starts with a question mark; libyaml reads another value",
    "6LVF": "a reserved directive",
    "8XYN": "an anchor that is not ASCII",
    "96NN": "a tab at the start of a block scalar",
    "96NN-2": "a tab at the start of a block scalar",
    "9SA2": "a flow key of several lines",
    "A2M4": "a tab between a dash and its item",
    "BEC7": "%YAML 1.3",
    "DBG4": "a flow value that starts with a colon",
    "DK3J": "a block scalar at the root that is not indented",
    "DK95": "a tab after the indentation",
    "DK95-4": "a tab on an empty line",
    "DK95-5": "a tab on an empty line",
    "FP8R": "a block scalar at the root that is not indented",
    "HM87": "a flow value that starts with a colon",
    "HM87-2": "a flow value that starts with a question mark; libyaml reads another value",
    "HWV9": "the end of a document that never began",
    "K3WX": "a colon on the line after a flow key",
    "MUS6-6": "a reserved directive",
    "MUS6-7": "a reserved directive",
    "NJ66": "a flow key of several lines",
    "Q5MG": "a tab before a flow collection",
    "QT73": "the end of a document that never began",
    "R4YG": "a tab at the start of a block scalar",
    "VJP3-2": "a colon on the line after a flow key",
    "W5VH": "an anchor with signs in it",
    "Y2GN": "a colon in an anchor; libyaml reads another value",
    "Y79Y-2": "a tab at the start of a block scalar",
    "Y79Y-11": "a tab between a dash and its item",
    "ZYU8": "an odd directive",
    "ZYU8-2": "an odd directive",
    "ZYU8-3": "an odd directive",
    "ZYU8-4": "an odd directive",
}
# It accepts what is not:
TOO_LENIENT = {
    "9C9N": "a flow collection that is not indented",
    "9JBA": "a comment without a space before it",
    "CVW2": "a comment without a space before it",
    "DK95-2": "a line that is indented by a tab",
    "G5U8": "a dash alone in a flow list",
    "MUS6": "a comment without a space after %YAML",
    "QB6E": "a quoted text of several lines that is not indented",
    "S98Z": "a block scalar whose first, empty line is indented too far",
    "SU5Z": "a comment without a space before it",
    "X4QW": "a comment without a space before it",
    "Y79Y-4": "a dash and a tab in a flow list",
    "YJV2": "a dash alone in a flow list",
}
# Tags that are not the core schema's are refused (docs/definition.md).
FOREIGN_TAGS = frozenset(
    ["2XXW", "565N", "6CK3", "7FWL", "C4HZ", "CC74", "CUP7", "J7PZ", "M5C3", "P76L", "UGM3", "Z67P", "Z9M4"]
)


def files(folder: str, pattern: str) -> list[Path]:
    return sorted((DATA / folder / "data").rglob(pattern))


def needs(folder: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (DATA / folder).is_dir(), reason=f"../shared/data/{folder} is not here")


def suite() -> Iterator[Any]:
    """(text, whether it must be refused, its documents as JSON or None) of every case with an answer."""
    for path in files("yaml-test-suite", "*.yaml"):
        case: dict[str, Any] = {}
        for number, changes in enumerate(yaml.safe_load(path.read_text()), 1):
            case = case | {"fail": False} | changes
            expected = None if case["fail"] else documents(case.get("json"))
            if case["fail"] or expected is not None:
                name = path.stem if number == 1 else f"{path.stem}-{number}"
                yield pytest.param(name, as_written(case["yaml"]), expected, id=name)


SHOWN_AS = str.maketrans({"␣": " ", "↵": "", "←": "\r", "⇔": "\ufeff"})


def as_written(text: str) -> str:
    """Replace the suite's visible symbols for white space, byte order marks and a missing last line end."""
    text = re.sub("—*»", "\t", text).translate(SHOWN_AS)
    return text.removesuffix("∎\n")


def documents(text: str | None) -> list[Any] | None:
    if text is None:
        return None
    parsed, at, decoder = [], 0, json.JSONDecoder()
    text = text.strip()
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        parsed.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return parsed


def read(text: str) -> list[Any]:
    """The value in a list, or an empty list if the text is refused."""
    try:
        return [yaml_value(text)]
    except document.Unparsable:
        return []


@needs("yaml-test-suite")
@pytest.mark.parametrize(("name", "text", "expected"), list(suite()))
def test_yaml_s_own_suite(name: str, text: str, expected: list[Any] | None) -> None:
    """The expected value or refusal, except for the known differences of libyaml."""
    parsed = read(text)
    if name in TOO_LENIENT:
        assert parsed
        assert expected is None
    elif expected is None or len(expected) > 1 or name in TOO_STRICT or name in FOREIGN_TAGS:
        assert not parsed
    else:
        assert parsed == (expected or [None])


# Where a definition that MeshHook's validator accepts is refused on purpose: its worker would fail on it.
STRICTER = {
    "expression_invalid",
    "http_url_invalid",
    "delay_duration_invalid",
    "edge_id_duplicate",
    "id_not_a_string",
    "node_type_missing",
    "parent_mismatch",
    "parent_unknown",
}
# MeshHook checks the config only of nodes whose own `type` is the kind, which its editor does not write; for
# a container without a config it checks nothing.
OF_DATA_TYPE = {
    "condition_missing",
    "container_children_missing",
    "container_dimensions_missing",
    "http_method_missing",
    "http_url_missing",
    "transform_empty",
}


def meshhook_cases() -> Iterator[Any]:
    for path in files("meshhook-validator", "*.jsonl"):
        for line in path.read_text().splitlines():
            case = json.loads(line)
            if isinstance(case["meshhook_accepts"], bool):
                yield case


@needs("meshhook-validator")
def test_verdicts_agree_with_meshhook_s() -> None:
    """Except where its worker would fail, and for templates of transforms and URLs, which it runs."""
    agreed = differing = 0
    for case in meshhook_cases():
        raw = json.dumps(case["definition"]).encode()
        definition = document.parse(raw, "workflow.json", Rules.MESHHOOK, LIMITS)
        if definition.valid == case["meshhook_accepts"]:
            agreed += 1
            continue
        differing += 1
        if definition.valid:
            reasons = " ".join(case["meshhook_errors"])
            assert "JMESPath expression is required" in reasons or "Invalid URL format" in reasons, case
        else:
            codes = {problem.code for problem in definition.problems if problem.error}
            assert codes <= STRICTER | OF_DATA_TYPE, case
    assert agreed > 3 * differing > 0


def single_documents() -> list[Path]:
    return [path for path in files("corpus-argo-workflows-examples", "*.y*ml") if count_documents(path) == 1]


def count_documents(path: Path) -> int:
    events = yaml.parse(path.read_bytes(), Loader=yaml.CSafeLoader)
    return sum(isinstance(event, yaml.DocumentStartEvent) for event in events)


@needs("corpus-argo-workflows-examples")
@pytest.mark.parametrize("path", single_documents(), ids=lambda path: path.stem)
def test_argo_s_workflows_are_read_and_written(path: Path) -> None:
    """Every file of one document parses without rules, and reads back the same from either format."""
    if path.stem == "k8s-patch-json-workflow":  # it has the key "annotations" twice: Argo runs half of it
        with pytest.raises(GitstoreError, match='duplicate key "annotations"'):
            document.parse(path.read_bytes(), "workflow.yaml", Rules.ANY, LIMITS)
        return
    parsed = document.parse(path.read_bytes(), "workflow.yaml", Rules.ANY, LIMITS)
    assert plain_value(path.read_bytes()) in ("null", json.dumps(parsed.value))
    for file_name in document.FILE_NAMES:
        written = document.dump(parsed.value, file_name, Rules.ANY)
        again = document.parse(written, file_name, Rules.ANY, LIMITS)
        assert json.dumps(again.value) == json.dumps(parsed.value)
        assert again.digest == parsed.digest
        assert not document.has_comments(written, file_name)


@needs("blns")
@pytest.mark.parametrize("file_name", document.FILE_NAMES)
def test_naughty_strings_survive(file_name: str) -> None:
    """As values, as keys, and as items, in every format, digest included."""
    strings = json.loads((DATA / "blns" / "data" / "blns.json").read_text())
    value = {"list": strings, "keys": {text: text for text in strings}, "lines": "\n".join(strings) + "\n"}
    parsed = document.parse(document.dump(value, file_name), file_name, Rules.MESHHOOK, LIMITS)
    assert parsed.value == value
    assert parsed.digest == document.digest(value, Rules.MESHHOOK)


@needs("blns")
def test_naughty_lines_are_no_trouble() -> None:
    """Each line of the list as a plain scalar: read as something, or refused."""
    for line in (DATA / "blns" / "data" / "blns.txt").read_text().splitlines():
        read(f"a: {line}")
