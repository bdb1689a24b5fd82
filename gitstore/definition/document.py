"""Workflow definitions: bytes -> value and problems, the digest of a value's meaning, and value -> bytes.

docs/definition.md describes the format and its rules. Bytes are stored unchanged; values are views of them.
Input is untrusted: nothing here recurses before the depth is known.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import rfc8785

from gitstore.budget import spending
from gitstore.definition import json_reader, yaml_reader, yaml_writer
from gitstore.definition.builder import NO_ENVELOPE, AbortParse, Marks, Source, SyntaxErrors
from gitstore.definition.elements import Finding, meaning, without_leftovers
from gitstore.definition.json_reader import DoubtError
from gitstore.definition.quoting import clip, quote
from gitstore.definition.rules.graph_rules import check
from gitstore.definition.schema import LIMITS as SCHEMA_LIMITS
from gitstore.definition.schema import VIOLATION, Schema, flaws, violations
from gitstore.errors import Code, InvalidDefinitionError, MalformedError, too_large
from gitstore.model import Definition, Limits, Problem, Problems, Rules, listed

FILE_NAMES = ("workflow.yaml", "workflow.yml", "workflow.json")

_ENVELOPE = Limits(depth=8, nodes=1_000)
"""Allowance for a JSON body around a definition, on top of the definition's own limits."""

CACHE_SIZE: Final = 2**20
"""Bytes of cached definitions, which take some twenty times that in memory once parsed."""

BYTES_ONLY: Final = "sha256-bytes:"
"""Prefix of the digest of bytes instead of a meaning."""

CacheKey = tuple[UUID, Rules, str | None, bytes, str]
"""Project, rules, schema's commit, blob and file name. Do not modify a cached definition: it is shared."""

_MOST_DESCRIBED: Final = 3
_LONGEST_SUMMARY: Final = 500
# The standard library's encoder takes a fifth of the time of rfc8785's. It differs in how it writes floats,
# and in the order of keys: RFC 8785 compares UTF-16, where U+10000 and more come before U+E000 to U+FFFF.
_UNTIL_FLOAT = re.compile(
    r"""((?:[^"0-9-]++|"(?:[^"\\]++|\\.)*+"|-?[0-9]++(?![.e0-9]))++)|(?P<float>-?[0-9.]++(?:e[-+]?[0-9]++)?)"""
)
_BEYOND_FFFF = re.compile("[\U00010000-\U0010ffff]")
_JUST_BELOW = re.compile("[\ue000-\uffff]")

_LIST_ITEM = re.compile(r"/(nodes|edges)/([0-9]+)(?:/|$)")


class Unparsable(Exception):  # noqa: N818 - named after the state of the bytes
    """Unparsable input. `problems` are all syntax errors, in document order; at least one."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems[0].message)
        self.problems = problems

    @property
    def summary(self) -> str:
        """One line about the first problem, ending in its line and column."""
        first, count = self.problems[0], len(self.problems)
        others = f" (the first of {count} problems)" if count > 1 else ""
        return f"{first.message}{others}, line {first.line}, column {first.column}"


@dataclass(frozen=True, slots=True)
class Document:
    """A value, and the position of each of its parts in the text.

    `no_json` is the first part that JSON has no form for, if there is one: then `value` is not the whole one.
    """

    value: Any
    source: Source
    marks: Marks
    no_json: Problem | None = None

    def locate(self, path: Sequence[str | int]) -> tuple[int, int]:
        """Return (the number of steps of `path` that exist in the document, the offset of the last one)."""
        return self.marks.locate(self.value, path)


def read(
    raw: bytes, limits: Limits, *, is_json: bool, envelope: Limits = NO_ENVELOPE, bytes_only: bool = False
) -> Document:
    """Parse UTF-8 `raw`, with or without a byte order mark. Raises only `Unparsable`.

    JSON may have an `envelope` around the definition, of so many levels and nodes. With `bytes_only`, a text
    that JSON has no form for is accepted as well.
    """
    errors = SyntaxErrors(bytes_only=bytes_only)
    source = Source("")
    try:
        if len(raw) > limits.definition:
            raise errors.stop(
                0, "too_large", too_large("the definition has", len(raw), limits.definition).message
            )
        source = _decode(raw)
        if is_json:
            built = json_reader.read(source.text, limits, errors, envelope)
        else:
            built = yaml_reader.read(source.text, limits, errors)
        if not errors:
            return Document(built.root, source, built.marks, _warning(errors, source))
    except AbortParse:
        pass
    raise Unparsable(errors.problems(source))


def _warning(errors: SyntaxErrors, source: Source) -> Problem | None:
    """Return what JSON has no form for, as a warning."""
    if errors.no_json is None:
        return None
    at, code, message = errors.no_json
    line, column = source.place(at)
    return Problem(code, f"no JSON, only bytes: {message}", line=line, column=column, error=False)


def _decode(raw: bytes) -> Source:
    raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return Source(raw.decode())
    except UnicodeDecodeError as error:
        wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        subject = f"the byte 0x{raw[error.start]:02x} is not" if not wide else "this is UTF-16, not"
        message = f"{subject} UTF-8"
        before = Source(raw[: error.start].decode())
        line, column = before.place(len(before.text))
        raise Unparsable([Problem("not_utf8", message, line=line, column=column)]) from None


@spending("parse")
def parse(
    raw: bytes,
    file_name: str,
    rules: Rules,
    limits: Limits,
    schema: Schema | None = None,
    *,
    judged: bool = True,
) -> Definition:
    """Parse the definition in `raw`, the content of a file called `file_name`.

    Its problems are the findings of `rules` and of `schema`, in document order; none if not `judged`. Other
    rules than MeshHook's accept a text that JSON has no form for, with a warning; with a schema, which cannot
    judge it, an error.
    Raises `definition_unparsable`, with every syntax error as data `problems`.
    """
    is_json, any_text = _is_json(file_name), rules is not Rules.MESHHOOK
    judge = schema.commit if schema is not None else None
    value = _plain_value(raw, limits.under(rules), is_json=is_json)
    found, more = _judged(value, rules, schema) if judged and value is not None else ([], 0)
    if value is not None and not found and not more:
        return Definition(raw, value, digest(value, rules), schema=judge)
    try:  # parse again: problems need positions
        document = read(raw, limits.under(rules), is_json=is_json, bytes_only=any_text)
        root = _root(document, rules)
    except Unparsable as error:
        message = f"{file_name} can't be read: {error.summary}"
        raise InvalidDefinitionError(Code.DEFINITION_UNPARSABLE, message, problems=error.problems) from None
    if document.no_json is not None:
        unfit = replace(document.no_json, error=schema is not None)
        return Definition(raw, None, bytes_digest(raw), Problems.of([unfit]), judge)
    if judged and value is None:
        found, more = _judged(root, rules, schema)
    problems = _problems(document, found, more)
    return Definition(raw, root, digest(root, rules), problems, judge)


def _judged(value: Any, rules: Rules, schema: Schema | None) -> tuple[Sequence[Finding], int]:
    """Return the findings of `rules` and of `schema`, and the number of errors beyond those listed."""
    if rules is Rules.MESHHOOK:
        return list(check(value)), 0
    return violations(schema, value) if schema is not None else ([], 0)


def _plain_value(raw: bytes, limits: Limits, *, is_json: bool) -> dict[str, Any] | None:
    """Return the mapping in `raw`, without positions, or None if `read` must parse it."""
    with suppress(UnicodeDecodeError, DoubtError):
        if len(raw) <= limits.definition:
            text = raw.removeprefix(codecs.BOM_UTF8).decode()
            if not is_json:
                return yaml_reader.plain_value(text, limits)
            value = json_reader.plain_value(text, limits)
            return value if isinstance(value, dict) else None
    return None


def parse_schema(raw: bytes) -> None:
    """Check a JSON Schema; raises `schema_invalid` with all of its problems, in document order."""
    try:
        document = read(raw, SCHEMA_LIMITS, is_json=True)
        value = _root(document, Rules.MESHHOOK)
    except Unparsable as error:
        message = f"the schema can't be read: {error.summary}"
        raise InvalidDefinitionError(Code.SCHEMA_INVALID, message, problems=error.problems) from None
    problems = _problems(document, *flaws(value))
    if problems:
        message = f"the schema is not a JSON Schema (2020-12): {summarize(problems)}"
        raise InvalidDefinitionError(Code.SCHEMA_INVALID, message, problems=problems)


def parse_json(raw: bytes, limits: Limits) -> Any:
    """Parse any JSON value under the limits of a definition. Raises `malformed`, with line and column.

    The caller limits the size of the body; the limits include an allowance for the parts around a definition.
    """
    around = replace(limits, definition=max(len(raw), limits.definition))
    with suppress(UnicodeDecodeError, DoubtError):
        return json_reader.plain_value(raw.removeprefix(codecs.BOM_UTF8).decode(), limits, _ENVELOPE)
    try:
        return read(raw, around, is_json=True, envelope=_ENVELOPE).value
    except Unparsable as error:
        message = f"the body is not acceptable JSON: {error.summary}"
        raise MalformedError(message, problems=error.problems) from None


def canonical(value: Any, rules: Rules = Rules.MESHHOOK) -> bytes:
    """Return `value`'s meaning as canonical JSON (RFC 8785); MeshHook's rules omit layout and leftovers."""
    meant = meaning(value) if rules is Rules.MESHHOOK else value
    text = json.dumps(meant, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if not text.isascii() and _BEYOND_FFFF.search(text) and _JUST_BELOW.search(text):
        return rfc8785.dumps(meant)
    return _UNTIL_FLOAT.sub(_as_in_rfc8785, text).encode()


def _as_in_rfc8785(match: re.Match[str]) -> str:
    return match[1] or rfc8785.dumps(float(match["float"])).decode()


def digest(value: Any, rules: Rules) -> str:
    """Return "sha256:<hex>" of `canonical`: equal for equal meaning, regardless of formatting."""
    return "sha256:" + hashlib.sha256(canonical(value, rules)).hexdigest()


def bytes_digest(raw: bytes) -> str:
    """Return "sha256-bytes:<hex>" of a text that JSON has no form for."""
    return BYTES_ONLY + hashlib.sha256(raw).hexdigest()


def is_bytes_only(digest: str | None) -> bool:
    """Return whether a digest is of a text that JSON has no form for."""
    return digest is not None and digest.startswith(BYTES_ONLY)


def dump(value: Any, file_name: str, rules: Rules = Rules.MESHHOOK) -> bytes:
    """Serialize `value`, as returned by `parse` or `parse_json`, for a file called `file_name`.

    `parse` returns the same value from it, except for editor leftovers, which MeshHook's rules drop.
    """
    kept = without_leftovers(value) if rules is Rules.MESHHOOK and isinstance(value, dict) else value
    if _is_json(file_name):
        return (json.dumps(kept, ensure_ascii=False, indent=2) + "\n").encode()
    return yaml_writer.write(kept).encode()


def has_comments(raw: bytes, file_name: str) -> bool:
    """Return whether the file, which parses, has comments that `dump` would drop."""
    return not _is_json(file_name) and b"#" in raw and yaml_reader.has_comments(raw.decode(errors="replace"))


def describe(problem: Problem) -> str:
    """Format a problem on one line: `nodes[3] "call-api": url is required for an HTTP call`.

    A violation of a schema has line and column, as its pointer may hold any characters.
    """
    if problem.line is not None and problem.code == VIOLATION:
        return f"line {problem.line}, column {problem.column}: {problem.message}"
    item = _LIST_ITEM.match(problem.pointer or "")
    if item is not None:
        node = "" if problem.node is None else " " + quote(problem.node)
        return f"{item[1]}[{item[2]}]{node}: {problem.message}"
    if problem.pointer is None and problem.line is not None:
        return f"line {problem.line}, column {problem.column}: {problem.message}"
    return problem.message


def summarize(problems: Problems) -> str:
    """Describe the errors among `problems` on one line: their number, and the first few."""
    errors = [problem for problem in problems if problem.error][:_MOST_DESCRIBED]
    more = f" and {problems.errors - len(errors)} more" if problems.errors > len(errors) else ""
    count = f"{problems.errors} problem{'' if problems.errors == 1 else 's'}"
    return clip(f"{count}: {'; '.join(map(describe, errors))}{more}", _LONGEST_SUMMARY)


def _is_json(file_name: str) -> bool:
    return file_name.endswith(".json")


def _root(document: Document, rules: Rules) -> Any:
    accepted = dict if rules is Rules.MESHHOOK else (dict, list)
    if isinstance(document.value, accepted):
        return document.value
    what = "a mapping" if rules is Rules.MESHHOOK else "a mapping or a list"
    message = "the document is empty" if document.value is None else f"the document must be {what}"
    line, column = document.source.place(document.marks.root)
    raise Unparsable([Problem("not_a_mapping", message, line=line, column=column)])


def _problems(document: Document, found: Sequence[Finding], more: int = 0) -> Problems:
    """Return what rules or a schema found, with positions, in document order; `more` errors are not given."""
    findings = sorted(found, key=lambda finding: document.locate(finding.path)[1])
    problems = []
    for finding in listed(findings):
        steps, at = document.locate(finding.path)
        # The pointer ends at the last existing step, so it always resolves.
        pointer = "".join(map(_pointer_step, finding.path[:steps]))
        position = document.source.place(at)
        problems.append(
            Problem(finding.code, finding.message, pointer, finding.node, *position, error=finding.error)
        )
    errors = sum(finding.error for finding in findings)
    return Problems.counted(problems, errors + more, len(findings) - errors)


def _pointer_step(key: str | int) -> str:
    return "/" + str(key).replace("~", "~0").replace("/", "~1")


class DefinitionCache:
    """The most recently used definitions that fit into `room`, and the very last one in any case.

    Safe to share between threads and repositories. A write judges, compares and mirrors the same definitions,
    and the next write compares with its result.
    """

    def __init__(self, room: int = CACHE_SIZE) -> None:
        self._room = room
        self._kept: OrderedDict[CacheKey, Definition] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: CacheKey) -> Definition | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: CacheKey, definition: Definition) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = definition
            self._size += len(definition.raw)
            while self._size > self._room and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._size -= len(oldest.raw)
