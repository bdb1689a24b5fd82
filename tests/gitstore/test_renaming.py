"""A renamed workflow: one chain of versions under several names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from gitstore import names, releases
from gitstore.errors import Code, RenamedError
from gitstore.model import FormerName, LedgerKind
from gitstore.names import workflow_id
from gitstore.policy import Command, judge
from gitstore.policy_facts import RepositoryFacts
from gitstore.releases import Wanted
from gitstore.store import ANY, Store
from gitstore.unit_of_work import FileUnitOfWork
from gitstore.upstream.definition_files import DefinitionFiles
from gitstore.upstream.recorded import RecordedImport, RecordedVersion, RecordedWorkflow, Result, compare
from tests.gitstore.conftest import Git
from tests.gitstore.test_store import ANN, publish, refusal, text, yaml

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PROJECT = UUID(int=7)


@pytest.fixture
def store(bare: Path, git: Git) -> Iterator[Store]:
    store = Store(bare, PROJECT, FileUnitOfWork, clock=lambda: NOW)
    yield store
    store.close()
    git("fsck", "--strict")


def test_draft_and_ledger_continue_and_versions_stay(store: Store, git: Git) -> None:
    publish(store, "orders", "one")
    publish(store, "orders", "two")
    draft = store.create_draft("orders", yaml("three"), ANN).commit
    store.rename("orders", "sales", ANN, message="Marketing wants it")
    state = store.state("sales")
    assert (state.draft, state.latest, state.current) == (draft, 2, 2)
    assert state.former == (FormerName("orders", 2),)
    newest = next(store.ledger("sales"))
    assert (newest.kind, newest.renamed, newest.message) == (
        LedgerKind.RENAMED,
        "sales",
        "Marketing wants it",
    )
    assert git("log", "-1", "--format=%s", "refs/ledger/sales") == "Renamed orders to sales"
    assert store.publish("sales", ANN).number == 3
    assert [store.version("sales", number).number for number in (1, 2, 3)] == [1, 2, 3]
    refs = git("for-each-ref", "--format=%(refname)").split()
    assert refs == [
        "refs/heads/drafts/sales", "refs/ledger/sales", "refs/renamed/orders",
        "refs/tags/orders/v1", "refs/tags/orders/v2", "refs/tags/sales/v3",
    ]  # fmt: skip
    assert sorted(store.version_tags("sales")) == [1, 2, 3]
    assert store.slugs() == ["sales"]
    assert store.identity("sales") == store.identity("orders") == workflow_id(PROJECT, "orders")
    store.move_current("sales", 1, ANN)
    assert store.revert("sales", 2, ANN, expected=ANY).number == 4
    assert "two" in text(store, "sales", store.state("sales").draft)


def test_a_former_name_is_refused_with_the_new_one_and_never_used_again(store: Store) -> None:
    publish(store, "a", "one")
    store.rename("a", "b", ANN)
    publish(store, "b", "two")
    store.rename("b", "c", ANN)
    assert (store.renamed_to("a"), store.renamed_to("b"), store.renamed_to("c")) == ("c", "c", None)
    for slug in ("a", "b"):
        for call in (store.publish, store.discard_draft, store.clear_current):
            error = refusal(call, slug, ANN)
            assert isinstance(error, RenamedError)
            assert error.slug == "c"
        assert refusal(store.create_workflow, slug, None, ANN).code is Code.WORKFLOW_EXISTS
        assert refusal(store.rename, "c", slug, ANN).code is Code.WORKFLOW_EXISTS
    store.create_workflow("other", None, ANN)
    assert refusal(store.rename, "c", "other", ANN).code is Code.WORKFLOW_EXISTS
    assert refusal(store.rename, "none", "new", ANN).code is Code.WORKFLOW_NOT_FOUND
    head = store.state("other").draft or ""
    commands = [Command(ref, None, head.encode()) for ref in (names.draft("a"), names.tag("b", 3))]
    for verdict in judge(commands, RepositoryFacts(store)):
        assert verdict.refusal is not None
        assert verdict.refusal.code is Code.WORKFLOW_RENAMED
        assert "git push origin HEAD:refs/heads/drafts/c" in verdict.refusal.message
    assert store.identity("c") == workflow_id(PROJECT, "a")
    assert sorted(store.version_tags("c")) == [1, 2]


def test_a_workflow_without_a_version_and_one_in_a_folder_are_renamed(store: Store, git: Git) -> None:
    store.create_workflow("young", yaml("one"), ANN)
    store.discard_draft("young", ANN)
    store.rename("young", "younger", ANN)
    store.restore_draft("younger", ANN)
    assert store.publish("younger", ANN).number == 1
    assert refusal(store.create_workflow, "young", None, ANN).code is Code.WORKFLOW_EXISTS
    publish(store, "plain", "p")
    releases.create(store, "r", [Wanted("younger", version=1), Wanted("plain", version=1)], ANN)
    commit = git("rev-parse", "refs/releases/r")
    store.rename("plain", "fancy", ANN)
    assert store.snapshot("fancy", commit).definition is not None
    assert releases.roll_back(store, "r", ANN, force=True) == []


def raw(label: str) -> bytes:
    content = yaml(label).raw
    assert content is not None
    return content


def test_files_under_a_former_name_are_imported_into_the_renamed_workflow(
    store: Store, tmp_path: Path
) -> None:
    """Nothing again for equal contents, the next version for others, and one file for each workflow."""
    files = DefinitionFiles(tmp_path)
    (tmp_path / "orders.yaml").write_bytes(raw("one"))
    importing = RecordedImport(store, ANN.actor, files.load, as_it_runs=True)

    def imported() -> tuple[list[list[int]], Result]:
        notes = Result()
        workflows = list(files.workflows(store, notes))
        compared = [compare(store, each, files.load, store.rules).published for each in workflows]
        recorded = [importing.record(each).published for each in workflows]
        assert compared == recorded
        return recorded, notes

    assert imported()[0] == [[1]]
    store.rename("orders", "sales", ANN)
    assert imported() == ([[]], Result(kept=['"orders.yaml" becomes sales']))
    (tmp_path / "orders.yaml").write_bytes(raw("two"))
    assert imported()[0] == [[2]]
    (tmp_path / "sales.yaml").write_bytes(raw("three"))
    recorded, notes = imported()
    assert (recorded, notes.refused) == ([[]], ['"sales.yaml": "orders.yaml" is the workflow sales'])
    assert store.slugs() == ["sales"]
    assert (store.state("sales").latest, store.state("sales").current) == (2, 2)


def test_versions_recorded_elsewhere_continue_a_renamed_workflow(store: Store) -> None:
    """As from a MeshHook, which keeps the former name: numbers, ids and the current version are followed."""
    contents = {number: raw(f"v{number}") for number in (1, 2, 3)}

    def load(versions: Sequence[RecordedVersion]) -> list[bytes]:
        return [contents[version.number] for version in versions]

    def recorded(*numbers: int) -> RecordedWorkflow:
        return RecordedWorkflow(
            "orders",
            [
                RecordedVersion(n, n, 9, ANN.author, NOW, published_at=NOW, file_name="workflow.yaml")
                for n in numbers
            ],
        )

    importing = RecordedImport(store, ANN.actor, load, as_it_runs=True)
    assert importing.record(recorded(1)).published == [1]
    store.rename("orders", "sales", ANN)
    assert compare(store, recorded(1, 3), load, store.rules).published == [3]
    result = importing.record(recorded(1, 3))
    assert (result.published, result.refused) == ([3], [])
    result = importing.record(recorded(1))
    assert (result.published, store.state("sales").current) == ([], 1)
