"""Discarding drafts by push, and restoring them: with stock git."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.stories.instance import Author, Caller, Pushed, definition


def drafts(author: Author) -> dict[str, str]:
    """slug -> commit, as the remote has them."""
    lines = author.git("ls-remote", "origin", "refs/heads/drafts/*").splitlines()
    return {ref.rpartition("/")[2]: commit for commit, ref in (line.split("\t") for line in lines)}


def many(author: Author, count: int) -> None:
    """Push `count` drafts, each of them the commit of the first."""
    author.draft("d-0", definition("one"))
    pushed = author.push(*(f"HEAD:refs/heads/drafts/d-{number}" for number in range(count)))
    assert pushed.ok, pushed.output


def commands(pushed: Pushed) -> list[str]:
    """The commands that the terminal shows, one a line."""
    return re.findall(r"^remote:   (git .*?) *$", pushed.output, re.MULTILINE)


def test_no_shape_of_prune_discards_what_a_clone_lacks(ann: Author, owner: Caller, tmp_path: Path) -> None:
    """Of 49 drafts, a clone with one branch discards none; its other updates are saved."""
    many(ann, 49)
    before = drafts(ann)
    bob = Author(tmp_path / "bob", owner, "Bob")
    bob.clone("--single-branch", "--branch", "drafts/d-7")
    every = "refs/heads/drafts/*:refs/heads/drafts/*"
    deletions = [f":refs/heads/drafts/d-{number}" for number in range(8, 49)]
    for arguments in (
        ("--prune", "origin", "refs/heads/*"),
        ("--prune", "origin", every),
        ("--prune", "--force", "origin", every),
        ("--prune", "--atomic", "origin", every),
        ("-o", "gitstore.discard=3", "--prune", "origin", every),
        ("--mirror", "origin"),
        ("origin", *deletions),
        ("origin", "--delete", "drafts/d-1", "drafts/d-2"),
    ):
        pushed = bob.run("push", *arguments)
        assert not pushed.ok
        assert drafts(ann) == before, arguments
        assert "git push origin --delete drafts/d-" in pushed.output
    head = bob.draft("d-7", definition("bob"))
    pushed = bob.run("push", "--prune", "origin", "refs/heads/*")
    assert not pushed.ok
    assert drafts(ann) == {**before, "d-7": head}


def test_the_printed_command_discards_all_and_each_has_one_that_restores_it(
    ann: Author, owner: Caller, tmp_path: Path
) -> None:
    """Both are pasted from the terminal, in a clone that has one of the branches."""
    many(ann, 4)
    before = drafts(ann)
    bob = Author(tmp_path / "bob", owner, "Bob")
    bob.clone("--single-branch", "--branch", "drafts/d-0")
    refused = bob.run("push", "--prune", "origin", "refs/heads/*")
    (command,) = commands(refused)
    assert command == "git push -o gitstore.discard=3 origin --delete drafts/d-1 drafts/d-2 drafts/d-3"
    done = bob.run(*command.split()[1:])
    assert done.ok, done.output
    assert sorted(drafts(ann)) == ["d-0"]
    restorations = commands(done)
    assert len(restorations) == 3
    for line in restorations:
        bob.paste(line)
    assert drafts(ann) == before
    ann.git("fetch", "-q", "origin", "refs/ledger/*:refs/ledger/*")
    log = ann.git("log", "--format=%s", "refs/ledger/d-2").splitlines()
    assert log == ["Restored the draft of d-2", "Discarded the draft of d-2", "Created d-2"]
    assert owner.get("/workflows/d-2/versions/draft").json["commit"] == before["d-2"]


@pytest.mark.parametrize("protocol", ["0", "1", "2"])
def test_options_of_stock_git(ann: Author, protocol: str) -> None:
    """With objects and without, by each version of the protocol; an unknown one is ignored and reported."""
    config = ("-c", f"protocol.version={protocol}")
    first = ann.draft("a", definition("one"))
    pushed = ann.run(*config, "push", "-o", "ci.skip", "-o", "gitstore.dicsard=2", "origin", "drafts/a")
    assert pushed.ok, pushed.output
    assert "unknown push options are ignored: ci.skip, gitstore.dicsard=2" in pushed.output
    assert "known: gitstore.discard=<count>" in pushed.output
    ann.git("checkout", "-q", "-b", "drafts/b")
    wrong = ann.run(*config, "push", "-o", "gitstore.discard=two", "origin", ":drafts/a", "drafts/b")
    assert not wrong.ok
    assert "push option 'gitstore.discard=two': expected gitstore.discard=<count>" in wrong.output
    assert drafts(ann) == {"a": first}
    # An exact count permits other updates beside the discard, and `--signed=if-asked` asks for nothing here.
    both = ("-o", "gitstore.discard=1", "--signed=if-asked", "origin", ":drafts/a", "drafts/b")
    assert not ann.push(":drafts/a", "drafts/b").ok
    ann.draft("b", definition("two"))
    pushed = ann.run(*config, "push", *both)
    assert pushed.ok, pushed.output
    assert sorted(drafts(ann)) == ["b"]
    again = ann.run(*config, "push", "-o", "gitstore.discard=1", "origin", "--delete", "drafts/b")
    assert again.ok, again.output
    assert drafts(ann) == {}
