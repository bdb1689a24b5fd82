"""Workflow definitions: bytes -> value and problems, the digest of a value's meaning, and value -> bytes.

docs/definition.md describes the format and its rules. Bytes are stored unchanged; values are views of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import rfc8785

from gitstore.definition import meaning, parsing, yaml_reader, yaml_writer
from gitstore.definition.quoting import quote
from gitstore.definition.rules.elements import Finding
from gitstore.definition.rules.graph_rules import check
from gitstore.errors import Code, InvalidDefinitionError, MalformedError
from gitstore.model import Definition, Limits, Problem, Problems, Rules, listed

FILE_NAMES = ("workflow.yaml", "workflow.yml", "workflow.json")

_ENVELOPE = Limits(depth=8, nodes=1_000)
"""Allowance for a JSON body around a definition, on top of the definition's own limits."""

_LIST_ITEM = re.compile(r"/(nodes|edges)/([0-9]+)(?:/|$)")


def parse(raw: bytes, file_name: str, rules: Rules, limits: Limits) -> Definition:
    """Parse the definition in `raw`, the content of a file called `file_name`.

    Its problems are the findings of `rules`, in document order. Raises only `definition_unparsable`, with
    every syntax error as data `problems`.
    """
    try:
        document = parsing.read(raw, limits, is_json=_is_json(file_name))
        value = _root(document)
    except parsing.Unparsable as error:
        message = f"{file_name} can't be read: {error.summary}"
        raise InvalidDefinitionError(Code.DEFINITION_UNPARSABLE, message, problems=error.problems) from None
    problems = _problems(document) if rules is Rules.MESHHOOK else Problems()
    return Definition(raw, value, digest(value, rules), problems)


def parse_json(raw: bytes, limits: Limits) -> Any:
    """Parse any JSON value under the limits of a definition. Raises `malformed`, with line and column.

    The caller limits the size of the body; the limits include an allowance for the parts around a definition.
    """
    around = replace(
        limits,
        definition=max(len(raw), limits.definition),
        depth=limits.depth + _ENVELOPE.depth,
        nodes=limits.nodes + _ENVELOPE.nodes,
    )
    try:
        return parsing.read(raw, around, is_json=True).value
    except parsing.Unparsable as error:
        message = f"the body is not acceptable JSON: {error.summary}"
        raise MalformedError(message, problems=error.problems) from None


def canonical(value: dict[str, Any], rules: Rules = Rules.MESHHOOK) -> bytes:
    """Return `value`'s meaning as canonical JSON (RFC 8785); MeshHook's rules omit layout and leftovers."""
    return rfc8785.dumps(meaning.meaning(value) if rules is Rules.MESHHOOK else value)


def digest(value: dict[str, Any], rules: Rules) -> str:
    """Return "sha256:<hex>" of `canonical`: equal for equal meaning, regardless of formatting."""
    return "sha256:" + hashlib.sha256(canonical(value, rules)).hexdigest()


def dump(value: dict[str, Any], file_name: str, rules: Rules = Rules.MESHHOOK) -> bytes:
    """Serialize `value`, as returned by `parse` or `parse_json`, for a file called `file_name`.

    `parse` returns the same value from it, except for editor leftovers, which MeshHook's rules drop.
    """
    kept = meaning.without_leftovers(value) if rules is Rules.MESHHOOK else value
    if _is_json(file_name):
        return (json.dumps(kept, ensure_ascii=False, indent=2) + "\n").encode()
    return yaml_writer.write(kept).encode()


def has_comments(raw: bytes, file_name: str) -> bool:
    """Return whether the file, which parses, has comments that `dump` would drop."""
    return not _is_json(file_name) and b"#" in raw and yaml_reader.has_comments(raw.decode(errors="replace"))


def describe(problem: Problem) -> str:
    """Format a problem on one line: `nodes[3] "call-api": url is required for an HTTP call`."""
    item = _LIST_ITEM.match(problem.pointer or "")
    if item is not None:
        node = "" if problem.node is None else " " + quote(problem.node)
        return f"{item[1]}[{item[2]}]{node}: {problem.message}"
    if problem.pointer is None and problem.line is not None:
        return f"line {problem.line}, column {problem.column}: {problem.message}"
    return problem.message


def _is_json(file_name: str) -> bool:
    return file_name.endswith(".json")


def _root(document: parsing.Document) -> dict[str, Any]:
    if isinstance(document.value, dict):
        return document.value
    message = "the document is empty" if document.value is None else "the document must be a mapping"
    line, column = document.source.place(document.marks.at)
    raise parsing.Unparsable([Problem("not_a_mapping", message, line=line, column=column)])


def _problems(document: parsing.Document) -> Problems:
    """Return the findings of the rules, in document order."""
    found = sorted(check(document.value), key=lambda finding: document.locate(finding.path)[1])
    errors = sum(finding.error for finding in found)
    shown = [_located(document, finding) for finding in listed(found)]
    return Problems.counted(shown, errors, len(found) - errors)


def _located(document: parsing.Document, finding: Finding) -> Problem:
    """Add the position to a finding. The pointer ends at the last existing step, so it always resolves."""
    steps, at = document.locate(finding.path)
    line, column = document.source.place(at)
    pointer = "".join(f"/{step}" for step in finding.path[:steps])
    return Problem(finding.code, finding.message, pointer, finding.node, line, column, error=finding.error)
