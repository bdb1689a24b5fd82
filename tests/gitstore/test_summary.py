"""Summaries of changes, as default commit messages and in the report of a push."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from gitstore.drafts import Content
from gitstore.model import Person
from gitstore.push import receive
from gitstore.push.request import ZERO
from gitstore.store import ANY, Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.gitstore.conftest import ENVIRONMENT
from tests.gitstore.test_receive import Author, request, send

PROJECT = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
ANN = Actors(Person("token:ci", "1@tokens.gitstore"), Person("Ann", "ann@example.test"))
YAML = "nodes:\n- {id: a, type: webhook, position: {x: %s}, data: {label: %s}}\n"


@pytest.fixture
def store(bare: Path) -> Iterator[Store]:
    opened = Store(bare, PROJECT, FileUnitOfWork)
    yield opened
    opened.close()


@pytest.fixture
def author(tmp_path: Path) -> Author:
    folder = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(folder)], check=True, env=ENVIRONMENT)
    return Author(folder)


def content(label: str, x: int = 0, more: str = "") -> Content:
    return Content(raw=(YAML % (x, label) + more).encode())


def test_the_default_message_of_a_save_summarizes_the_change(store: Store) -> None:
    """Since the draft or, without one, since the latest version."""

    def save(new: Content, message: str = "") -> str:
        saved = store.save_draft("a", new, ANN, expected=ANY, message=message)
        return store.snapshot("a", saved.commit).message

    created = store.create_workflow("a", content("one"), ANN)
    assert store.snapshot("a", created.commit).message == "Create the draft"
    assert save(content("two")) == "label of a changed"
    assert save(content("three"), "Mine") == "Mine"
    assert save(content("three", 7)) == "only the layout changed"
    assert save(content("three", 7, "# why\n")) == "only comments changed"
    assert save(content("three", 7, "# because\n")) == "only comments changed"
    assert save(content("'three'", 7, "# because\n")) == "Save the draft"
    store.publish("a", ANN)
    opened = store.create_draft("a", content("four", 7), ANN)
    assert store.snapshot("a", opened.commit).message == "label of a changed"
    store.publish("a", ANN)
    opened = store.create_draft("a", content("four", 7, "# more\n"), ANN)
    assert store.snapshot("a", opened.commit).message == "only comments changed"


def test_a_save_on_top_of_an_unparsable_draft_has_a_plain_message(store: Store, bare: Path) -> None:
    """It may have been imported."""
    store.create_workflow("a", content("one"), ANN)
    blob = subprocess.run(
        ["git", "--git-dir", str(bare), "hash-object", "-w", "--stdin"],
        input=b"nodes: [", capture_output=True, check=True,
    ).stdout.strip()  # fmt: skip
    author = Author(bare)
    tree = author.git("mktree", input=b"100644 blob " + blob + b"\tworkflow.yaml\n")
    before = (store.state("a").draft or "").encode()
    author.git("update-ref", "refs/heads/drafts/a", author.commit_tree(tree, before).decode())
    saved = store.save_draft("a", content("two"), ANN, expected=ANY)
    assert store.snapshot("a", saved.commit).message == "Save the draft"


def push(store: Store, author: Author, *labels: str) -> tuple[list[str], str]:
    """Push versions 1, 2, ... together; return the report and the text for the terminal."""
    tips: list[bytes] = []
    for label in labels:
        tips.append(author.commit({"workflow.yaml": YAML % (0, label)}, *tips[-1:]))
    commands = [(ZERO, tip, b"refs/tags/a/v%d" % number) for number, tip in enumerate(tips, 1)]
    return send(store, request(*commands, pack=author.pack(*tips)))


def test_the_report_of_a_push_summarizes_each_version(store: Store, author: Author) -> None:
    """Except the first version, and one without a change of meaning."""
    _, text = push(store, author, "one", "two", "'two'")
    assert text.splitlines() == [
        "published a v1: http://gitstore.test/a/1",
        "published a v2 (label of a changed): http://gitstore.test/a/2",
        "published a v3: http://gitstore.test/a/3",
    ]


def test_a_failing_summary_does_not_fail_the_push(
    store: Store, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(*_: object) -> str:
        raise RuntimeError

    monkeypatch.setattr(receive, "what_changes", fail)
    report, text = push(store, author, "one", "two")
    assert report == ["unpack ok", "ok refs/tags/a/v1", "ok refs/tags/a/v2"]
    assert "published a v2: http" in text


def test_each_version_of_a_large_push_is_summarized(store: Store, author: Author) -> None:
    _, text = push(store, author, *(f"label-{number}" for number in range(60)))
    assert text.count("(label of a changed)") == 59


def test_a_push_is_complete_without_the_summaries_that_would_take_too_long(
    store: Store, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "_SUMMARIZING", -1)
    _, text = push(store, author, "one", "two")
    assert "published a v2: http" in text
