"""Files of other engines under the rules `any`: what has a value, what has bytes only, what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gitstore.definition import document
from gitstore.diff.structure import apply, diff
from gitstore.diff.summary import summary
from gitstore.drafts import Content
from gitstore.errors import Code, GitstoreError
from gitstore.model import Definition, FileNames, Limits, Person, Rules
from gitstore.repository import Repository
from gitstore.store import ANY, Actors, Store
from gitstore.unit_of_work import FileUnitOfWork

PROJECT = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
ANN = Actors(Person("token:ci", "1@tokens.gitstore"), Person("Ann", "ann@example.test"))
LIMITS = Limits()
FLOWS: list[dict[str, Any]] = [
    {"id": "t1", "type": "tab", "label": "Flow 1"},
    {"id": "n1", "type": "inject", "z": "t1", "x": 100, "wires": [["n2"]]},
    {"id": "n2", "type": "debug", "z": "t1", "x": 300, "wires": []},
]


@pytest.fixture
def store(bare: Path) -> Iterator[Store]:
    store = Store(bare, PROJECT, FileUnitOfWork, rules=Rules.ANY)
    yield store
    store.close()


def parse(raw: bytes | str, file_name: str = "workflow.yaml", limits: Limits = LIMITS) -> Definition:
    content = raw.encode() if isinstance(raw, str) else raw
    return document.parse(content, file_name, Rules.ANY, limits)


def refused(raw: bytes | str, rules: Rules = Rules.ANY, limits: Limits = LIMITS) -> list[str]:
    """The codes of the problems for which a file is refused."""
    with pytest.raises(GitstoreError) as caught:
        document.parse(raw.encode() if isinstance(raw, str) else raw, "workflow.yaml", rules, limits)
    assert caught.value.code is Code.DEFINITION_UNPARSABLE
    return [problem.code for problem in caught.value.problems]


# Lists


@pytest.mark.parametrize("value", [FLOWS, [], [[]], [None, "a", [1, {"b": []}]]])
def test_a_list_is_read_written_and_digested_like_a_mapping(value: list[object]) -> None:
    for name in ("workflow.yaml", "workflow.json"):
        written = parse(document.dump(value, name, Rules.ANY), name)
        assert written.value == value
        assert written.digest == document.digest(value, Rules.ANY)
    assert refused(json.dumps(value), Rules.MESHHOOK) == ["not_a_mapping"]


@pytest.mark.parametrize("text", ["1", "text", "", "# nothing", "null"])
def test_a_scalar_is_no_definition(text: str) -> None:
    assert refused(text) == ["not_a_mapping"]


def test_lists_are_compared_by_their_items() -> None:
    moved = [FLOWS[0], FLOWS[2], {**FLOWS[1], "x": 120}]
    for rules in Rules:  # versions stay when a project's rules change
        difference = diff(FLOWS, moved, rules)
        assert apply(difference, FLOWS) == moved
        assert summary(difference) == "x of n1 changed, items reordered"
    mixed = diff(FLOWS, {"flows": FLOWS})
    assert apply(mixed, FLOWS) == {"flows": FLOWS}
    assert summary(mixed) == "the whole definition changed"


def test_a_list_is_a_draft_and_a_version(store: Store) -> None:
    """As bytes, whose format is recognised, and as a value."""
    store.create_workflow("red", Content(raw=json.dumps(FLOWS).encode()), ANN)
    assert store.publish("red", ANN).number == 1
    assert store.version("red", 1).snapshot.file_name == "workflow.json"
    store.create_draft("red", Content(value=FLOWS[:2]), ANN)
    store.publish("red", ANN)
    version = store.version("red", 2)
    assert version.snapshot.definition is not None
    assert version.snapshot.definition.value == FLOWS[:2]
    assert version.snapshot.message == "n2 removed"


def test_files_may_be_larger_than_meshhooks() -> None:
    """The limits of one object, of nodes and of levels hold."""
    large = "text: " + "x" * 2**20
    assert parse(large).value
    assert refused(large, Rules.MESHHOOK) == ["too_large"]
    assert refused("text: " + "x" * 2**22) == ["too_large"]
    assert refused(large, limits=Limits(object=2**20)) == ["too_large"]
    assert parse(large, limits=Limits(definition=2**21, any_definition=2)).value
    assert refused("- a\n" * 50_001) == ["too_many_nodes"]
    assert refused("[" * 65 + "]" * 65) == ["too_deep"]


# Bytes only

CLOUDFORMATION = "Resources:\n  Bucket: {Name: !Sub 'x-${Env}'}\nOutputs:\n  A: !GetAtt [Bucket, Arn]\n"
TEKTON = "# tasks\n---\nkind: Task\n---\nkind: Pipeline\nspec: &s {a: 1}\n---\nkind: Run\n"


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        (TEKTON, "workflow.yaml", ("several_documents", 4, 1)),
        ("---\n---\na: 1\n", "workflow.yaml", ("several_documents", 2, 1)),
        (CLOUDFORMATION, "workflow.yaml", ("tag_not_supported", 2, 18)),
        ("a: !include x.yaml\nb: !!set {x}\n", "workflow.yml", ("tag_not_supported", 1, 4)),
        ("- !mine {a: 1}\n", "workflow.yaml", ("tag_not_supported", 1, 3)),
        ("a: 1\nb: -9007199254740993", "workflow.yaml", ("number_out_of_range", 2, 4)),
        ("a: 0xffffffffffffffffffff", "workflow.yaml", ("number_out_of_range", 1, 4)),
        ('{"a": [12345678901234567890]}', "workflow.json", ("number_out_of_range", 1, 8)),
        ("\n".join(f"k{n}: !Ref x" for n in range(300)), "workflow.yaml", ("tag_not_supported", 1, 5)),
    ],
)
def test_what_json_has_no_form_for_has_bytes_only(text: str, name: str, reason: tuple[str, int, int]) -> None:
    """The first reason is a warning. MeshHook's rules refuse the file, with the same place."""
    parsed = parse(text, name)
    assert (parsed.value, parsed.raw, parsed.valid) == (None, text.encode(), True)
    assert parsed.digest == "sha256-bytes:" + hashlib.sha256(text.encode()).hexdigest()
    assert [(p.code, p.line, p.column, p.error) for p in parsed.problems] == [(*reason, False)]
    with pytest.raises(GitstoreError) as caught:
        document.parse(text.encode(), name, Rules.MESHHOOK, LIMITS)
    first = caught.value.problems[0]
    assert (first.code, first.line, first.column) == reason


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: 1\n---\nb: [", "syntax"),
        ("a: !Ref x\na: 2", "duplicate_key"),
        ("a: 1\n---\nb: 1\nb: 2", "duplicate_key"),
        ("a: !Ref x\n1: 2", "key_not_a_string"),
        ("9007199254740993: 2", "key_not_a_string"),
        ("a: &x 1\n---\nb: *x", "alias_refused"),
        ('a: !Ref x\nb: "\\0"', "character_not_allowed"),
        ("a: !Ref x\nb: !!int c", "tag_not_supported"),
        ("a: !Ref x\nb: 1e999", "number_out_of_range"),
        ("a: !Ref x\nb: .inf", "number_not_finite"),
        ("!Ref x", "not_a_mapping"),
        ("x\n---\ny", "not_a_mapping"),
        ("---\n---\n", "not_a_mapping"),
        ("a: !Ref x\nb: " + "[" * 64 + "]" * 64, "too_deep"),
        ("---\n- a\n" * 25_001, "too_many_nodes"),
    ],
)
def test_what_is_wrong_elsewhere_is_refused(text: str, code: str) -> None:
    assert code in refused(text)


def test_a_file_without_json_is_compared_as_text(store: Store) -> None:
    """From a version with a value, too; saving a value again replaces the file."""
    store.create_workflow("pipe", Content(raw=b"kind: Task\n"), ANN)
    store.publish("pipe", ANN)
    store.create_draft("pipe", Content(raw=TEKTON.encode()), ANN)
    assert store.publish("pipe", ANN).number == 2
    assert store.version("pipe", 2).snapshot.message == "text changed, 7 lines"
    store.create_draft("pipe", Content(raw=TEKTON.replace("Run", "Walk").encode()), ANN)
    store.publish("pipe", ANN)
    snapshot = store.version("pipe", 3).snapshot
    assert snapshot.message == "text changed, 1 line"
    assert snapshot.definition is not None
    assert snapshot.definition.raw.endswith(b"Walk\n")
    store.create_draft("pipe", Content(value={"kind": "Task"}), ANN)
    store.publish("pipe", ANN)
    again = store.version("pipe", 4).snapshot.definition
    assert again is not None
    assert again.value == {"kind": "Task"}


# Names of files


def names_in(store: Store, slug: str) -> list[str]:
    commit = store.objects.commit((store.state(slug).draft or "").encode())
    return sorted(name.decode() for name in store.objects.tree(commit.tree))


def test_a_project_s_definitions_may_have_a_name_of_its_own(store: Store) -> None:
    """If its ending fits. The names from before are recognised, and no earlier commit changes."""
    store.create_workflow("old", Content(raw=b"a: 1\n"), ANN)
    store.publish("old", ANN)
    store.file_names = FileNames(("flows.json",), "flows.json")
    store.create_workflow("red", Content(raw=json.dumps(FLOWS).encode()), ANN)
    assert names_in(store, "red") == ["flows.json"]
    store.save_draft("red", Content(value=FLOWS[:1]), ANN, expected=ANY)
    assert names_in(store, "red") == ["flows.json"]
    store.publish("red", ANN)
    store.create_draft("red", Content(raw=b"- a\n"), ANN)
    assert names_in(store, "red") == ["workflow.yaml"]
    store.create_draft("old", Content(raw=b"a: 2\n"), ANN)
    assert names_in(store, "old") == ["workflow.yaml"]
    store.file_names = FileNames(("flows.json", "t.yaml"), "t.yaml")
    assert store.version("red", 1).snapshot.file_name == "flows.json"
    store.create_workflow("new", Content(value={"a": 1}), ANN)
    assert names_in(store, "new") == ["t.yaml"]


@pytest.mark.parametrize(
    ("own", "files", "found"),
    [
        (("t.yaml", "f.json"), ["f.json", "t.yaml"], "t.yaml"),
        (("f.json", "t.yaml"), ["f.json", "t.yaml"], "f.json"),
        (("t.yaml",), ["t.yaml", "workflow.json"], "workflow.json"),
        (("t.yaml",), ["t.yaml", "workflows/a/workflow.yml"], "workflow.yml"),
        (("f.json", "t.yaml"), ["t.yaml", "workflows/a/f.json"], "f.json"),
        (("t.yaml",), ["workflows/a/t.yaml", "x.yaml"], "t.yaml"),
        ((), ["t.yaml"], None),
    ],
)
def test_the_name_that_was_given_first_counts(
    bare: Path, commit: Callable[..., str], own: tuple[str, ...], files: list[str], found: str | None
) -> None:
    made = commit(files=dict.fromkeys(files, "{}\n"))
    repository = Repository(bare, PROJECT, file_names=FileNames(own))
    try:
        assert repository.locate(repository.objects.commit(made.encode()), "a")[0] == found
    except GitstoreError as error:
        assert (error.code, found) == (Code.DEFINITION_MISSING, None)
    repository.close()
