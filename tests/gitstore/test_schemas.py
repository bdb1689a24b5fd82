"""Rules `schema`: a project's JSON Schema judges its definitions, and cannot stop the store."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gitstore import names, schemas
from gitstore.definition import document
from gitstore.definition.schema import CPU_SECONDS, LARGEST, Schema
from gitstore.drafts import Content
from gitstore.errors import Code, GitstoreError, IntegrityError, InvalidDefinitionError
from gitstore.model import MOST_PROBLEMS, Definition, Limits, Person, Rules
from gitstore.policy import Command, judge
from gitstore.policy_facts import RepositoryFacts
from gitstore.repository import Repository
from gitstore.schemas import NONE
from gitstore.store import ANY, Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.helpers import object_file

ROOT = Path(__file__).parents[2]
PROJECT = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
ADA = Person("Ada", "ada@example.test")
ANN = Actors(Person("token:ci", "1@tokens.gitstore"), Person("Ann", "ann@example.test"))
STEP = {
    "type": "object",
    "required": ["run"],
    "properties": {"run": {"type": "string"}},
    "additionalProperties": False,
}
STEPS = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["steps"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z-]+$"},
        "steps": {"type": "array", "items": STEP},
    },
}


def text(schema: Any) -> bytes:
    return json.dumps(schema).encode()


def parse(raw: str, schema: Any, file_name: str = "workflow.yaml") -> Definition:
    return document.parse(raw.encode(), file_name, Rules.SCHEMA, Limits(), Schema("c" * 40, text(schema)))


def refused(schema: bytes) -> list[tuple[str, str | None]]:
    """The problems of a schema: their messages, and what they point at."""
    with pytest.raises(InvalidDefinitionError) as caught:
        document.parse_schema(schema)
    assert caught.value.code is Code.SCHEMA_INVALID
    assert all(problem.line and problem.column for problem in caught.value.problems)
    return [(problem.message, problem.pointer) for problem in caught.value.problems]


@pytest.fixture
def store(bare: Path) -> Iterator[Store]:
    store = Store(bare, PROJECT, FileUnitOfWork, rules=Rules.SCHEMA)
    yield store
    store.close()


# Definitions


def test_violations_have_pointer_line_and_column_in_document_order() -> None:
    """In YAML and in JSON; a missing key is reported at the mapping that lacks it."""
    raw = "steps:\n  - run: a\n    a/b: 1\n  - {}\nname: Ünfit\n"
    found = parse(raw, STEPS).problems
    assert [(p.pointer, p.line, p.column, p.code) for p in found] == [
        ("/steps/0", 2, 5, "schema_violation"),
        ("/steps/1", 4, 5, "schema_violation"),
        ("/name", 5, 7, "schema_violation"),
    ]
    assert [p.message for p in found] == [
        "Additional properties are not allowed ('a/b' was unexpected)",
        '"run" is a required property',
        'the value does not match "^[a-z-]+$"',
    ]
    assert document.summarize(found).startswith(
        "3 problems: line 2, column 5: Additional properties are not allowed ('a/b' was unexpected); line 4, "
    )
    slashed = parse('{"steps": [], "a/b~": 1}', {"properties": {"a/b~": {"type": "null"}}}, "workflow.json")
    assert [(p.pointer, p.line, p.column) for p in slashed.problems] == [("/a~1b~0", 1, 23)]
    assert parse("steps: [{run: a}]", STEPS).valid


def test_many_violations_are_counted_and_a_hundred_listed() -> None:
    """Each violation counts once, however often a schema demands the same."""
    found = parse("[" + "a, " * 9_000 + "]", {"items": {"type": "null"}}).problems
    assert len(found) == MOST_PROBLEMS
    assert found.total == 9_000
    assert [p.pointer for p in found[:3]] == ["/0", "/1", "/2"]
    assert parse("a: 1", {"allOf": [{"required": ["b"]}] * 3}).problems.total == 1


def test_a_file_without_json_form_violates_every_schema() -> None:
    """Without a schema, it is accepted as under the rules `any`."""
    raw = b"a: !Ref b\n"
    assert [p.code for p in parse(raw.decode(), {}).errors] == ["tag_not_supported"]
    assert document.parse(raw, "workflow.yaml", Rules.SCHEMA, Limits()).valid


def test_messages_are_short_and_printable() -> None:
    """They repeat keys and the schema, which may hold anything."""
    key = "\x1b[2J\u202e" + "k" * 5_000
    [problem] = parse(json.dumps({key: 1}), {"additionalProperties": False}, "workflow.json").problems
    assert len(problem.message) < 400
    assert problem.message.isprintable()


# Schemas


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "text"}, "/type"),
        ({"pattern": "("}, "/pattern"),
        ({"pattern": "(?=a)b"}, "/pattern"),
        ({"pattern": "(a)\\1"}, "/pattern"),
        ({"pattern": "((a{1000}){1000}){1000}"}, "/pattern"),
        ({"$ref": "#/$defs/nope"}, ""),
        ({"$ref": "https://example.com/schema.json"}, ""),
        ({"$ref": "file:///etc/passwd"}, ""),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
        ({"$schema": 5}, "/$schema"),
    ],
)
def test_an_invalid_schema_is_refused_with_its_problems(schema: Any, pointer: str) -> None:
    """Nothing is fetched, and only regular expressions of linear time are taken."""
    assert [where for _, where in refused(text(schema))] == [pointer]


def test_all_problems_of_a_schema_are_reported() -> None:
    schema = {"type": 5, "properties": {"a": {"minLength": -1}, "b": {"required": "x"}}}
    assert [where for _, where in refused(text(schema))] == [
        "/type", "/properties/a/minLength", "/properties/b/required"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"a": 1, "a": 2}',
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b" " * LARGEST + b"{}",
    ],
)
def test_a_schema_that_is_no_bounded_json_is_refused(schema: bytes) -> None:
    with pytest.raises(InvalidDefinitionError) as caught:
        document.parse_schema(schema)
    assert caught.value.problems


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"allOf": [{"properties": {"a": {"$ref": "#"}}}] * 2}, nested(60)),
        ({"$ref": "#/$defs/d0", "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2}
                                          for i in range(60)} | {"d60": {}}}, nested(1)),
    ],
)  # fmt: skip
def test_a_schema_of_exponential_time_ends(schema: Any, value: Any) -> None:
    """The process that applies it is stopped; the definition can't be published then."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    [problem] = parse(json.dumps(value), schema, "workflow.json").problems
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (problem.code, problem.error) == ("schema_unusable", True)
    assert after.ru_utime - before.ru_utime < CPU_SECONDS + 1


def test_catastrophic_patterns_and_endless_references_are_harmless() -> None:
    schema = {"properties": {"a": {"pattern": "^(a+)+$"}, "b": {"$ref": "#/properties/b"}}}
    raw = json.dumps({"a": "a" * 100_000 + "!", "b": 1})
    assert [p.pointer for p in parse(raw, schema, "workflow.json").problems] == ["/a"]


# In a repository


def test_the_schema_has_a_history_and_is_replaced_only_if_expected(store: Store) -> None:
    with pytest.raises(GitstoreError) as caught:
        schemas.current(store)
    assert caught.value.code is Code.NOT_FOUND
    first = schemas.change(store, text(STEPS), ADA, {NONE})
    assert schemas.change(store, text(STEPS), ADA, {ANY}) == first
    for expected in (None, {NONE}, {"0" * 40}):
        with pytest.raises(GitstoreError) as caught:
            schemas.change(store, text({}), ADA, expected)
        assert caught.value.code is (Code.STALE_SCHEMA if expected else Code.EXPECTED_REQUIRED)
    schemas.change(store, None, ANN.author, {first})
    assert store.schema() is None
    with pytest.raises(GitstoreError) as caught:
        schemas.change(store, text({}), ADA, {ANY})
    assert caught.value.code is Code.STALE_SCHEMA
    schemas.change(store, b"{}\n", ADA, None)
    assert schemas.current(store).text == b"{}\n"
    assert [(each.by, each.removed) for each in schemas.history(store)] == [
        (ADA, False), (ANN.author, True), (ADA, False)
    ]  # fmt: skip


def test_versions_stay_as_judged_when_the_schema_changes(store: Store) -> None:
    """The ledger names the commit of the schema; drafts follow the new schema at once."""
    free = store.create_workflow("free", Content(raw=b"a: 1\n"), ANN)
    assert not free.problems  # no schema yet
    first = schemas.change(store, text(STEPS), ADA, None)
    with pytest.raises(InvalidDefinitionError) as caught:
        store.publish("free", ANN)
    assert [p.code for p in caught.value.problems] == ["schema_violation"]
    store.create_workflow("steps", Content(raw=b"steps: []\n"), ANN)
    store.publish("steps", ANN)
    second = schemas.change(store, text({"required": ["a"]}), ADA, {first})
    assert store.version("steps", 1).snapshot.problems.errors == 0
    [entry] = [entry for entry in store.ledger("steps") if entry.version == 1]
    assert (entry.rules, entry.schema) == (Rules.SCHEMA, first)
    store.publish("free", ANN)
    assert next(entry for entry in store.ledger("free") if entry.version).schema == second
    saved = store.create_draft("steps", Content(value={"steps": []}), ANN)
    assert [(p.message, p.pointer) for p in saved.problems] == [('"a" is a required property', "")]
    changed = store.save_draft("steps", Content(value={"steps": [], "a": 1}), ANN, expected=ANY)
    assert not changed.problems


@pytest.mark.parametrize("damage", ["object", "ref"])
def test_a_damaged_schema_blocks_publishing_until_it_is_set_again(bare: Path, damage: str) -> None:
    """Drafts and versions can still be read and saved."""
    store = Store(bare, PROJECT, FileUnitOfWork, rules=Rules.SCHEMA)
    commit = schemas.change(store, text(STEPS), ADA, None)
    store.create_workflow("steps", Content(raw=b"steps: []\n"), ANN)
    if damage == "object":
        blob = store.objects.tree(store.objects.commit(commit.encode()).tree)[b"schema.json"][1].decode()
        object_file(store.path, blob).unlink()
    else:
        (store.path / names.SCHEMA.decode()).write_bytes(b"garbage\n")
    fresh = Repository(store.path, PROJECT, rules=Rules.SCHEMA)
    with closing(fresh), pytest.raises(IntegrityError):
        schemas.current(fresh)
    store.close()
    store = Store(bare, PROJECT, FileUnitOfWork, rules=Rules.SCHEMA)
    store.save_draft("steps", Content(raw=b"steps: [{run: a}]\n"), ANN, expected=ANY)
    with pytest.raises(InvalidDefinitionError) as invalid:
        store.publish("steps", ANN)
    assert [p.code for p in invalid.value.problems] == ["schema_unusable"]
    schemas.change(store, text(STEPS), ADA, None)
    assert store.publish("steps", ANN).number == 1
    store.close()


def test_a_push_to_the_ref_of_the_schema_is_refused(store: Store) -> None:
    """With a sentence that says who sets it, and how."""
    commit = schemas.change(store, text({}), ADA, None).encode()
    for command in (Command(names.SCHEMA, commit, None), Command(names.SCHEMA, commit, b"1" * 40)):
        [verdict] = judge([command], RepositoryFacts(store))
        assert verdict.refusal is not None
        assert verdict.refusal.code is Code.REF_NOT_ACCEPTED
        assert "an owner sets the schema" in verdict.refusal.message


# docs/schemas.md


def examples() -> list[Any]:
    """Each engine's schema, the definition that passes, the one that fails, and its problems."""
    sections = (ROOT / "docs" / "schemas.md").read_text().split("\n## ")[1:]
    found = (
        (part.partition("\n")[0], re.findall(r"^```(\w+)\n(.*?)^```$", part, re.M | re.S))
        for part in sections
    )
    return [pytest.param(*blocks, id=name) for name, blocks in found]


@pytest.mark.parametrize(("schema", "passes", "fails", "problems"), examples())
def test_the_examples_pass_and_fail_as_documented(
    schema: tuple[str, str], passes: tuple[str, str], fails: tuple[str, str], problems: tuple[str, str]
) -> None:
    document.parse_schema(schema[1].encode())
    known = json.loads(schema[1])
    assert list(parse(passes[1], known, f"workflow.{passes[0]}").problems) == []
    found = parse(fails[1], known, f"workflow.{fails[0]}").problems
    assert "".join(f"{p.line}:{p.column} {p.pointer} {p.message}\n" for p in found) == problems[1]
