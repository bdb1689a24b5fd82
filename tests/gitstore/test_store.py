"""The Store: drafts, publishing, reverting and current, on a real repository, without Postgres."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from gitstore.drafts import Content
from gitstore.errors import Code, GitstoreError, StaleDraftError
from gitstore.model import LedgerKind, Person, Rules
from gitstore.repository import Repository
from gitstore.store import ANY, Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.gitstore.conftest import Git

PROJECT = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
ANN = Actors(Person("token:ci", "1@tokens.gitstore"), Person("Ann", "ann@example.test"))
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def yaml(label: str, valid: bool = True) -> Content:
    """A definition that differs by its label."""
    kind = "webhook" if valid else "httpCall"
    text = f"nodes:\n  - id: n-1\n    type: {kind}\n    data: {{label: {label}, config: {{}}}}\n"
    return Content(raw=text.encode())


@pytest.fixture
def store(bare: Path) -> Iterator[Store]:
    store = Store(bare, PROJECT, FileUnitOfWork, clock=lambda: NOW)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def _sound(bare: Path, git: Git) -> Iterator[None]:
    """After each test, git fsck --strict finds nothing, and no lock or temporary file is left."""
    yield
    git("fsck", "--strict")
    assert [path for path in bare.rglob("*") if path.suffix == ".lock" and path.name != "gitstore.lock"] == []
    assert list(bare.rglob("tmp_*")) == []


def refusal(call: Callable[..., object], *args: object, **named: object) -> GitstoreError:
    with pytest.raises(GitstoreError) as caught:
        call(*args, **named)
    return caught.value


def publish(store: Store, slug: str, label: str, **named: object) -> int:
    """Save a draft with `label` and publish it."""
    state = store.state(slug) if store.exists(slug) else None
    if state is None:
        store.create_workflow(slug, yaml(label), ANN)
    elif state.draft_open:
        store.save_draft(slug, yaml(label), ANN, expected=ANY)
    else:
        store.create_draft(slug, yaml(label), ANN)
    return store.publish(slug, ANN, **named).number  # type: ignore[arg-type]


def text(store: Store, slug: str, commit: str | None) -> str:
    return store.objects.blob(store.snapshot(slug, commit or "").blob.encode()).decode()


def test_a_workflow_begins_with_a_draft(store: Store) -> None:
    """Bytes in are bytes out; the ledger records its creator and its name."""
    content = yaml("one")
    saved = store.create_workflow("a", content, ANN, name="Order sync", description="Copies\norders")
    state = store.state("a")
    assert (state.draft, state.draft_open, state.latest, state.current) == (saved.commit, True, 0, None)
    assert text(store, "a", saved.commit).encode() == content.raw
    (entry,) = store.ledger("a")
    assert (entry.kind, entry.name, entry.description) == (LedgerKind.CREATED, "Order sync", "Copies\norders")
    assert entry.actor == ANN.actor
    assert store.snapshot("a", saved.commit).author == ANN.author
    assert refusal(store.create_workflow, "a", content, ANN).code is Code.WORKFLOW_EXISTS
    assert refusal(store.create_workflow, "A", content, ANN).code is Code.INVALID_NAME


def test_without_a_definition_the_draft_is_a_valid_starter(store: Store) -> None:
    """It can be published as it is."""
    store.create_workflow("a", None, ANN, name="First")
    assert store.publish("a", ANN).number == 1
    assert store.version("a", 1).snapshot.definition is not None


def test_a_reader_cannot_write_and_a_store_needs_a_unit_of_work(bare: Path) -> None:
    repository = Repository(bare, PROJECT)
    for part, name in ((repository, "publish"), (repository.refs, "update"), (repository.objects, "write")):
        assert not hasattr(part, name)
    with pytest.raises(TypeError, match="unit_of_work"):
        Store(bare, PROJECT)  # type: ignore[call-arg]


def test_a_draft_is_saved_only_over_the_state_that_was_read(store: Store) -> None:
    """A stale If-Match is refused with the current draft; the same content again changes nothing."""
    first = store.create_workflow("a", yaml("one"), ANN)
    second = store.save_draft("a", yaml("two"), ANN, expected=first.commit)
    error = refusal(store.save_draft, "a", yaml("three"), ANN, expected=first.commit)
    assert error.code is Code.STALE_DRAFT
    assert isinstance(error, StaleDraftError)
    assert error.draft is not None
    assert (error.draft.commit, error.draft.author) == (second.commit, ANN.author)
    assert store.save_draft("a", yaml("two"), ANN, expected=second.commit).commit == second.commit
    assert store.save_draft("a", yaml("three"), ANN, expected=ANY).commit != second.commit


def test_an_unparsable_definition_leaves_nothing_behind(store: Store, bare: Path) -> None:
    first = store.create_workflow("a", yaml("one"), ANN)
    before = sorted(bare.rglob("*"))
    error = refusal(store.save_draft, "a", Content(raw=b"nodes: ["), ANN, expected=ANY)
    assert error.code is Code.DEFINITION_UNPARSABLE
    assert store.state("a").draft == first.commit
    assert sorted(bare.rglob("*")) == before


def test_publishing_twice_is_publishing_once(store: Store) -> None:
    """The second call finds the same content and makes no version; the version is in tag and ledger."""
    store.create_workflow("a", yaml("one"), ANN)
    first = store.publish("a", ANN, message="Go")
    second = store.publish("a", ANN, message="Go again")
    assert (first.number, first.new, second.number, second.new) == (1, True, 1, False)
    version = store.version("a", 1)
    assert (version.message, version.published_by, version.published_at) == ("Go", ANN.actor, NOW)
    assert store.state("a").draft_open is False


def test_publishing_syncs_a_pack_and_two_refs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its folder: each fsync takes half a millisecond or more."""
    publish(store, "a", "one")
    store.create_draft("a", yaml("two"), ANN)
    synced: list[int] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(handle)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    store.publish("a", ANN)
    assert len(synced) == 7


def test_an_invalid_draft_is_not_published(store: Store, bare: Path) -> None:
    """All problems are listed, and no tag object is left behind."""
    store.create_workflow("a", yaml("one", valid=False), ANN)
    before = sorted(bare.rglob("*"))
    error = refusal(store.publish, "a", ANN)
    assert error.code is Code.DEFINITION_INVALID
    assert {problem.code for problem in error.data["problems"]} >= {"http_url_missing", "http_method_missing"}
    assert sorted(bare.rglob("*")) == before


def test_a_project_with_rules_any_takes_any_mapping(bare: Path) -> None:
    store = Store(bare, PROJECT, FileUnitOfWork, rules=Rules.ANY)
    store.create_workflow("a", Content(raw=b"kind: Workflow\n"), ANN)
    assert store.publish("a", ANN).number == 1
    store.close()


def test_a_draft_opens_on_top_of_the_latest_version(store: Store) -> None:
    """Only one at a time; without content, it copies the current version."""
    publish(store, "a", "one")
    latest = store.state("a").latest_commit
    copied = store.create_draft("a", None, ANN)
    assert store.objects.commit(copied.commit.encode()).parents == [(latest or "").encode()]
    assert text(store, "a", copied.commit) == text(store, "a", latest)
    assert store.state("a").draft_open
    assert refusal(store.create_draft, "a", yaml("x"), ANN).code is Code.DRAFT_EXISTS
    assert store.publish("a", ANN) == store.publish("a", ANN)  # the same content: still v1
    assert store.state("a").latest == 1


def test_a_draft_from_a_version_holds_its_content(store: Store) -> None:
    publish(store, "a", "one")
    publish(store, "a", "two")
    opened = store.create_draft_from("a", 1, ANN)
    assert "one" in text(store, "a", opened.commit)
    assert refusal(store.create_draft_from, "a", 9, ANN).code is Code.DRAFT_EXISTS


def test_a_discarded_draft_is_kept(store: Store) -> None:
    """Its head stays under a superseded ref, and the ledger records the actor."""
    saved = store.create_workflow("a", yaml("one"), ANN)
    assert refusal(store.discard_draft, "a", ANN, expected="0" * 40).code is Code.STALE_DRAFT
    store.discard_draft("a", ANN)
    assert store.state("a").draft is None
    kept = store.refs.below(b"refs/superseded/a/")
    assert list(kept.values()) == [saved.commit.encode()]
    assert next(store.ledger("a")).kind is LedgerKind.DISCARDED
    assert refusal(store.publish, "a", ANN).code is Code.NO_DRAFT
    assert refusal(store.discard_draft, "a", ANN).code is Code.VERSION_NOT_FOUND
    assert store.create_draft("a", yaml("again"), ANN)


def test_a_discarded_draft_is_restored(store: Store) -> None:
    """The same commit, by its time or as the latest; not over an open draft; with a ledger entry."""
    store.clock = iter(NOW + timedelta(minutes=minute) for minute in range(100)).__next__
    commits: list[str] = []
    kept = []
    for label in ("one", "two"):
        open_ = store.create_draft if commits else store.create_workflow
        commits.append(open_("a", yaml(label), ANN).commit)
        kept.append(store.discard_draft("a", ANN))
    assert [(one.at, one.commit) for one in store.discarded("a")] == [
        (one.at, one.commit) for one in reversed(kept)
    ]
    assert store.restore_draft("a", ANN).commit == commits[1] == store.state("a").draft
    assert refusal(store.restore_draft, "a", ANN).code is Code.DRAFT_EXISTS
    store.discard_draft("a", ANN)
    assert store.restore_draft("a", ANN, at=kept[0].at).commit == commits[0]
    entry = next(store.ledger("a"))
    assert (entry.kind, entry.target, entry.actor) == (LedgerKind.RESTORED, commits[0], ANN.actor)
    store.discard_draft("a", ANN)
    assert refusal(store.restore_draft, "a", ANN, at=NOW).code is Code.VERSION_NOT_FOUND
    assert refusal(store.restore_draft, "b", ANN).code is Code.WORKFLOW_NOT_FOUND


def test_a_draft_is_restored_on_top_of_later_versions(store: Store) -> None:
    """After a later version, its content is committed on top, with a ledger entry."""
    discarded = store.create_workflow("a", yaml("one"), ANN)
    store.discard_draft("a", ANN)
    publish(store, "a", "two")
    restored = store.restore_draft("a", ANN)
    assert restored.commit != discarded.commit
    assert text(store, "a", restored.commit) == text(store, "a", discarded.commit)
    state = store.state("a")
    assert (state.draft, state.draft_open) == (restored.commit, True)
    entry = next(store.ledger("a"))
    assert (entry.kind, entry.target) == (LedgerKind.RESTORED, discarded.commit)
    assert store.publish("a", ANN).number == 2


def test_only_drafts_are_restored(store: Store, git: Git) -> None:
    """Superseded refs with a ledger or with another form of name are left out."""
    store.create_workflow("a", yaml("one"), ANN)
    ledger = git("rev-parse", "refs/ledger/a")
    draft = git("rev-parse", "refs/heads/drafts/a")
    git("update-ref", "refs/superseded/a/20260101T000000.000000Z", ledger)
    for name in ("latest", "20261301T000000.000000Z", "9" * 200):
        git("update-ref", f"refs/superseded/a/{name}", draft)
    assert list(store.discarded("a")) == []


def test_a_moved_base_is_refused_until_it_is_merged(store: Store, git: Git) -> None:
    """A draft from before v2 is not v3, unless it is saved with base_version 2."""
    publish(store, "a", "one")
    publish(store, "a", "two")
    old = git("rev-parse", "refs/tags/a/v1^{commit}")
    stale = git("commit-tree", f"{old}^{{tree}}", "-p", old, "-m", "from v1")
    git("update-ref", "refs/heads/drafts/a", stale)
    store.save_draft("a", yaml("three"), ANN, expected=ANY)
    error = refusal(store.publish, "a", ANN)
    assert (error.code, error.data["base_version"]) == (Code.BASE_MOVED, 2)
    store.save_draft("a", yaml("three"), ANN, expected=ANY, base_version=2)
    assert store.publish("a", ANN).number == 3


def test_reverting_makes_a_draft_and_touches_nothing_live(store: Store) -> None:
    """A new commit on top with the old content; an open draft needs its ETag."""
    publish(store, "a", "one")
    publish(store, "a", "two")
    first = store.revert("a", 1, ANN)
    assert store.state("a").current == 2
    assert "one" in text(store, "a", first.commit)
    assert refusal(store.revert, "a", 2, ANN).code is Code.EXPECTED_REQUIRED
    assert refusal(store.revert, "a", 2, ANN, expected="0" * 40).code is Code.STALE_DRAFT
    second = store.revert("a", 2, ANN, expected=first.commit)
    assert store.objects.commit(second.commit.encode()).parents == [first.commit.encode()]
    assert refusal(store.revert, "a", 7, ANN, expected=ANY).code is Code.VERSION_NOT_FOUND


def test_current_moves_is_held_and_is_cleared(store: Store) -> None:
    """Held, publishing does not move it; cleared, nothing runs until the next publication."""
    publish(store, "a", "one")
    publish(store, "a", "two")
    store.move_current("a", 1, ANN, message="Night", hold=True)
    publish(store, "a", "three")
    assert (store.state("a").current, store.state("a").held) == (1, True)
    store.move_current("a", 3, ANN)
    publish(store, "a", "four", activate=False)
    assert (store.state("a").current, store.state("a").held) == (3, False)
    store.clear_current("a", ANN)
    assert store.state("a").current is None
    entries = sum(1 for _ in store.ledger("a"))
    store.clear_current("a", ANN)
    assert sum(1 for _ in store.ledger("a")) == entries
    assert publish(store, "a", "five") == 5
    assert store.state("a").current == 5
    assert refusal(store.move_current, "a", 9, ANN).code is Code.VERSION_NOT_FOUND


def test_a_teams_repository_keeps_its_other_files(store: Store, git: Git) -> None:
    """Definitions in workflows/<slug>/: saving or reverting one does not change the others."""

    def blob(label: str) -> str:
        return git("hash-object", "-w", "--stdin", input=yaml(label).raw or b"")

    inner = {slug: git("mktree", input=f"100644 blob {blob(slug)}\tworkflow.yml\n") for slug in ("a", "b")}
    folder = git("mktree", input="".join(f"040000 tree {tree}\t{slug}\n" for slug, tree in inner.items()))
    root = git("mktree", input=f"040000 tree {folder}\tworkflows\n")
    git("update-ref", "refs/heads/drafts/a", git("commit-tree", root, "-m", "team"))
    saved = store.save_draft("a", yaml("new"), ANN, expected=ANY)
    assert "new" in git("show", f"{saved.commit}:workflows/a/workflow.yml")
    assert "b" in git("show", f"{saved.commit}:workflows/b/workflow.yml")
    store.publish("a", ANN)
    store.create_draft("a", yaml("newer"), ANN)
    store.publish("a", ANN)
    reverted = store.revert("a", 1, ANN)
    assert git("rev-parse", f"{reverted.commit}^{{tree}}") == git("rev-parse", f"{saved.commit}^{{tree}}")


def test_an_object_is_written_in_the_files_own_format(store: Store, git: Git) -> None:
    """A JSON draft stays JSON, a YAML file keeps its comments; a warning reports those that are dropped."""
    store.create_workflow("j", Content(raw=b'{"nodes": []}', json=True), ANN)
    value = {"nodes": [{"id": "n", "type": "webhook", "data": {"label": "x"}, "selected": True}]}
    saved = store.save_draft("j", Content(value=value), ANN, expected=ANY)
    snapshot = store.snapshot("j", saved.commit)
    assert snapshot.file_name == "workflow.json"
    assert snapshot.definition is not None
    assert "selected" not in snapshot.definition.value["nodes"][0]
    store.create_workflow("y", Content(raw=b"# why\nnodes: []\n"), ANN)
    saved = store.save_draft("y", Content(value=value), ANN, expected=ANY)
    assert "comments_dropped" not in {problem.code for problem in saved.problems}
    assert git("show", f"{saved.commit}:workflow.yaml").startswith("# why\nnodes:\n  - id: n\n")
    # An anchor that is changed, and that a key repeats.
    store.create_workflow("z", Content(raw=b"name: &n a\n# why\nnodes: []\nmore: {*n : 1}\n"), ANN)
    saved = store.save_draft(
        "z", Content(value={"name": "b", "nodes": [], "more": {"a": 1}}), ANN, expected=ANY
    )
    assert "comments_dropped" in {problem.code for problem in saved.problems}


@pytest.mark.parametrize("slug", ["unknown", "Unknown", "a" * 200, "a\0b", "../x"])
def test_an_unknown_workflow_is_not_found_by_any_method(store: Store, slug: str) -> None:
    """Valid or invalid, the name is only looked up."""
    for call in (store.publish, store.discard_draft, store.clear_current):
        assert refusal(call, slug, ANN).code is Code.WORKFLOW_NOT_FOUND
    assert refusal(store.create_draft, slug, yaml("x"), ANN).code is Code.WORKFLOW_NOT_FOUND


def test_entries_left_by_a_kill_never_count(store: Store, git: Git) -> None:
    """An entry without its tag is skipped; the next publication uses its number."""
    publish(store, "a", "one")
    publish(store, "a", "two")
    git("update-ref", "-d", "refs/heads/drafts/a")
    git("update-ref", "refs/heads/drafts/a", "refs/tags/a/v1^{commit}")
    git("update-ref", "-d", "refs/tags/a/v2")  # as if killed before the tag
    assert store.state("a").latest == 1
    assert store.state("a").current == 1
    store.create_draft("a", yaml("other"), ANN)
    assert store.publish("a", ANN).number == 2
    assert "other" in text(store, "a", store.version("a", 2).snapshot.commit)


def test_a_lone_created_entry_makes_no_workflow(store: Store, git: Git) -> None:
    """Killed between the ledger and the draft: the name is still free."""
    store.create_workflow("a", yaml("one"), ANN, name="Old")
    git("update-ref", "-d", "refs/heads/drafts/a")
    assert not store.exists("a")
    store.create_workflow("a", yaml("one"), ANN, name="New")
    assert next(store.ledger("a")).name == "New"


@pytest.mark.parametrize("hand", ["remove", "add"])
def test_a_tag_that_contradicts_the_ledger_stops_publishing(store: Store, git: Git, hand: str) -> None:
    """A tag removed or made by hand is `integrity`, for every writer."""
    publish(store, "a", "one")
    publish(store, "a", "two")
    store.move_current("a", 1, ANN)
    if hand == "remove":
        git("update-ref", "-d", "refs/tags/a/v2")
    else:
        git("update-ref", "refs/tags/a/v3", "refs/tags/a/v1")
    error = refusal(store.publish, "a", ANN)
    assert error.code is Code.INTEGRITY
    assert "gitstore verify" in error.message


def test_one_of_many_racing_savers_wins(bare: Path) -> None:
    """Eight threads save over the same commit: one succeeds, and the draft has its content."""
    first = Store(bare, PROJECT, FileUnitOfWork)
    seen = first.create_workflow("a", yaml("zero"), ANN).commit
    barrier = threading.Barrier(8)

    def save(number: int) -> str | None:
        mine = Store(bare, PROJECT, FileUnitOfWork)
        barrier.wait()
        try:
            return mine.save_draft("a", yaml(f"n{number}"), ANN, expected=seen).commit
        except GitstoreError as error:
            assert error.code is Code.STALE_DRAFT
            return None
        finally:
            mine.close()

    with ThreadPoolExecutor(8) as pool:
        winners = [commit for commit in pool.map(save, range(8)) if commit]
    assert winners == [first.state("a").draft]
    first.close()


def test_racing_publishers_make_contiguous_versions(bare: Path) -> None:
    """Four threads, five publications each: exactly twenty versions, none lost."""
    Store(bare, PROJECT, FileUnitOfWork).create_workflow("a", yaml("zero"), ANN)

    def run(worker: int) -> list[int]:
        mine = Store(bare, PROJECT, FileUnitOfWork)
        numbers = []
        for turn in range(5):
            with mine.unit_of_work.begin(["x"]):
                pass
            while True:
                try:
                    numbers.append(publish(mine, "a", f"w{worker}-{turn}"))
                    break
                except GitstoreError as error:
                    assert error.code in (Code.DRAFT_EXISTS, Code.VERSION_NOT_FOUND)
        mine.close()
        return numbers

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    store = Store(bare, PROJECT, FileUnitOfWork)
    tags = store.version_tags("a")
    assert sorted(tags) == list(range(1, len(tags) + 1))
    assert store.state("a").latest == len(tags)
    store.close()


def test_a_created_repository_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its files and folders, and then its entry: a power failure loses no project."""
    path = tmp_path / "one.git"
    synced: list[int] = []
    fsync, rename = os.fsync, Path.rename

    def noted(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    def checked(made: Path, target: Path) -> Path:
        if target == path:
            assert {one.stat().st_ino for one in (made, *made.rglob("*"))} <= set(synced)
            synced.clear()
        return rename(made, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", checked)
    Store.init(path)
    assert synced == [tmp_path.stat().st_ino]


def test_a_repository_whose_creation_was_killed_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It appears at its path by the last step."""

    class Killed(BaseException):
        pass

    def killed(_from: Path, _to: Path) -> None:
        raise Killed

    path = tmp_path / "repos" / "one.git"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(Killed):
            Store.init(path)
    assert not path.exists()
    Store.init(path)
    Store.init(path)
    assert (path / "HEAD").read_text().startswith("ref: ")
    assert list(path.parent.iterdir()) == [path]
