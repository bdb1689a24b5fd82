"""A workflow with very many versions, made in a moment: objects, ledger and refs as gitstore writes them.

The state after 100,000 publications without making each: annotated tags on a chain of commits, and a ledger
entry for each, all packed. There are ten different definitions among them, so that `gitstore rebuild`, which
makes the rows from Git, does not parse 100,000.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from dulwich.objects import Blob, Commit, ObjectID, ShaFile, Tag, Tree

from gitstore import ledger, names
from gitstore.git.commits import ident, new_commit
from gitstore.git.objects import WritableObjects
from gitstore.model import LedgerEntry, LedgerKind, Person
from tests.stories.instance import definition

ANN = Person("Ann", "ann@example.test")
BEGUN = datetime(2024, 1, 1, tzinfo=UTC)
KINDS: Final = 10
_BATCH: Final = 20_000


def many_versions(repository: Path, slug: str, count: int) -> None:
    """v1 to v`count` of `slug`, in an empty bare repository without another writer."""
    objects = WritableObjects(repository / "objects")
    trees = [_tree(objects, f"{slug} {kind}") for kind in range(KINDS)]
    entry = ledger.draft_entry(None, None, LedgerKind.CREATED, ANN, BEGUN)
    first = ledger.compose(slug, entry)
    new: list[ShaFile] = [ledger.EMPTY_TREE, first]
    newest, parents = first.id.decode(), list[bytes]()
    lines: list[tuple[bytes, bytes, bytes]] = []
    for number in range(1, count + 1):
        when = BEGUN + timedelta(seconds=number)
        commit = new_commit(
            tree=trees[number % KINDS], parents=parents, author=ANN, committer=ANN, when=when,
            message=f"Change {number}",
        )  # fmt: skip
        tag = _tag(commit, f"{slug}/v{number}", when)
        entry_commit = ledger.compose(slug, _entry(newest, number, tag, when))
        newest, parents = entry_commit.id.decode(), [commit.id]
        lines.append((names.tag(slug, number), tag.id, commit.id))
        new += [commit, tag, entry_commit]
        if len(new) > _BATCH:
            objects.write_pack(new)
            new = []
    objects.write_pack(new)
    objects.close()
    _pack_refs(repository, slug, newest, lines)


def _tree(objects: WritableObjects, label: str) -> bytes:
    blob, tree = Blob.from_string(definition(label).encode()), Tree()
    tree.add(b"workflow.yaml", 0o100644, blob.id)
    objects.write([blob, tree])
    return tree.id


def _tag(commit: Commit, name: str, when: datetime) -> Tag:
    tag = Tag()
    tag.name, tag.object = name.encode(), (Commit, ObjectID(commit.id))
    tag.tagger, tag.tag_time, tag.tag_timezone = ident(ANN), int(when.timestamp()), 0
    tag.message = f"Publish {name}\n".encode()
    return tag


def _entry(parent: str, number: int, tag: Tag, when: datetime) -> LedgerEntry:
    return LedgerEntry(
        oid="", parent=parent, kind=LedgerKind.PUBLISHED, actor=ANN, when=when, message="", latest=number,
        current=number, held=False, version=number, target=tag.id.decode(),
    )  # fmt: skip


def _pack_refs(repository: Path, slug: str, newest: str, lines: list[tuple[bytes, bytes, bytes]]) -> None:
    """As `git pack-refs --all` leaves them."""
    refs = {name: b"%s %s\n^%s\n" % (tag, name, commit) for name, tag, commit in lines}
    draft, tip = names.draft(slug), names.ledger(slug)
    refs[draft] = b"%s %s\n" % (lines[-1][2], draft)
    refs[tip] = b"%s %s\n" % (newest.encode(), tip)
    content = b"".join(refs[name] for name in sorted(refs))
    head = b"# pack-refs with: peeled fully-peeled sorted \n"
    (repository / "packed-refs").write_bytes(head + content)
    (repository / "HEAD").write_bytes(b"ref: " + draft + b"\n")
