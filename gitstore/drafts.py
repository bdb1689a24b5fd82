"""Write a new state of a draft: new content, or the content of a version, committed on top of the base.

New content is the bytes received, or an object, by which the file of the base is edited in place. The change
is judged as a push would be, and recorded in the ledger. Requires the workflow's lock.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dulwich.objects import Blob, Commit, ObjectID, ShaFile, Tree

from gitstore import changes, ledger, names
from gitstore.changes import ChangeSet
from gitstore.definition import document as definitions
from gitstore.definition.document import FILE_NAMES
from gitstore.definition.editing import Edited
from gitstore.diff.summary import what_changes
from gitstore.diff.values import difference
from gitstore.errors import InvalidDefinitionError, too_large
from gitstore.git.commits import new_commit
from gitstore.git.objects import Objects
from gitstore.model import Definition, FileNames, Limits, Person, Problem, Problems, Rules, WorkflowState
from gitstore.policy import Command
from gitstore.policy_facts import accepted
from gitstore.repository import FOLDER, Repository, WritableRepository

STARTER = {
    "nodes": [
        {
            "id": "hook-1",
            "type": "webhook",
            "position": {"x": 0, "y": 0},
            "data": {"label": "Webhook", "config": {}},
        }
    ],
    "edges": [],
}


@dataclass(frozen=True, slots=True)
class Content:
    """An incoming definition: `raw` bytes stored unchanged, or `value`, a value that edits the file.

    With `is_object`, `raw` is JSON text of such an object, stored where there is no file to edit. `json`
    selects the file for raw bytes; with None, the format is detected from the bytes.
    """

    raw: bytes | None = None
    value: dict[str, Any] | list[Any] | None = None
    json: bool | None = None
    is_object: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """A definition as a file."""

    name: str
    raw: bytes
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Saved:
    """A draft after a save.

    `number` is the version number it would be published as; `problems` block publishing or are warnings, for
    example about dropped comments.
    """

    commit: str
    number: int
    problems: Problems = field(default_factory=Problems)


@dataclass(frozen=True, slots=True)
class DraftWriter:
    """One save of the draft of `change.slug` by `author`. `state` is None for a new workflow."""

    repository: WritableRepository
    change: ChangeSet
    state: WorkflowState | None
    author: Person
    message: str = ""

    def save(self, content: Content, default_message: str, merged: bytes | None = None) -> Saved:
        """Write the draft that `compose` returns."""
        saved = self.compose(content, default_message, merged)
        self.write(saved.commit)
        return saved

    def compose(self, content: Content, default_message: str, merged: bytes | None = None) -> Saved:
        """Commit `content` next to the other files of the tree; `merged` becomes a second parent.

        Without a message, the commit gets a summary of the change, or `default_message` if that is empty.
        The commit is new, and not yet written, unless the open draft holds `content`.
        """
        repository, slug, base = self.repository, self.change.slug, self._base()
        root = before = None
        path: list[bytes] = []
        if base is not None:
            name, blob, folder = repository.locate(base, slug)
            root, before = repository.objects.tree(base.tree), File(name, repository.objects.blob(blob))
            path = [] if folder == base.tree else [FOLDER, slug.encode()]
        # Parse before anything is written, so that an unparsable definition leaves nothing behind.
        file, parsed = self._parsed(content, base, before)
        before_id = base.id if base is not None else None
        message = self.message or what_changes(repository, slug, before_id, parsed) or default_message
        new = put_file(repository.objects, root, path, file, before)
        repository.cache_definition(new[0].id, file.name, parsed)
        commit = self._commit(base, new[-1].id, message, merged, new)
        return Saved(commit, self._number, parsed.problems.after(file.warnings))

    def _parsed(self, content: Content, base: Commit | None, before: File | None) -> tuple[File, Definition]:
        """Return the file to save for `content`, and its definition; `before` is the file of `base`."""
        repository = self.repository
        value = content.value
        if content.is_object and content.raw is not None:
            value = repository.parse(check_size(content.raw, repository.limits), "workflow.json").value
        old = None
        if value is not None and base is not None:
            with suppress(InvalidDefinitionError):  # an import that does not parse is replaced
                old = repository.definition(base.id, self.change.slug)
        if value is not None and before is not None and old is not None and old.value is not None:
            try:
                edited = repository.edit(old, value, before.name)
            except InvalidDefinitionError:
                check_size(definitions.dump(value, before.name, repository.rules), repository.limits)
                raise
            return File(before.name, edited.definition.raw, _dropped(before, edited)), edited.definition
        file = to_file(content, before, repository.rules, repository.limits, repository.file_names)
        return file, repository.parse(file.raw, file.name)

    def restore(self, version: bytes, default_message: str) -> Saved:
        """Commit the content of the commit `version`."""
        repository, slug, base = self.repository, self.change.slug, self._base()
        restored = repository.objects.commit(version)
        _, _, folder = repository.locate(restored, slug)
        tree: bytes = restored.tree
        new: Sequence[ShaFile] = ()
        if base is not None and folder != tree and repository.locate(base, slug)[2] != base.tree:
            # A repository of several workflows: restoring this one must not revert the others in the tree.
            path = [FOLDER, slug.encode()]
            new = put_folder(repository.objects, repository.objects.tree(base.tree), path, folder)
            tree = new[-1].id
        commit = self._commit(base, tree, self.message or default_message, new=new)
        self.write(commit)
        return Saved(commit, self._number, repository.snapshot(slug, commit).problems)

    @property
    def _number(self) -> int:
        return self.state.next_number if self.state is not None else 1

    def _base(self) -> Commit | None:
        """Return the commit to build on: the open draft's, else the latest version's."""
        if self.state is None:
            return None
        tip = self.state.draft if self.state.draft_open else self.state.latest_commit
        return self.repository.objects.commit(tip.encode()) if tip else None

    def _commit(
        self,
        base: Commit | None,
        tree: bytes,
        message: str,
        merged: bytes | None = None,
        new: Sequence[ShaFile] = (),
    ) -> str:
        """Commit `tree` and return the draft's commit; no new commit if the open draft already holds it.

        `new` are the objects of the tree that are written with the commit.
        """
        change, is_ancestor = self.change, self.repository.objects.is_ancestor
        if merged is not None and (base is None or is_ancestor(merged, base.id)):
            merged = None
        is_open = self.state is not None and self.state.draft_open
        if is_open and base is not None and tree == base.tree and not merged:
            return base.id.decode()
        commit = new_commit(
            tree=tree,
            parents=[parent for parent in (base.id if base is not None else None, merged) if parent],
            author=self.author,
            committer=ledger.COMMITTER,
            when=change.authorship.when,
            message=message,
        )
        change.add([*new, commit])
        return commit.id.decode()

    def command(self, commit: str) -> Command:
        """Return the command that moves the draft to `commit`."""
        name = names.draft(self.change.slug)
        return Command(name, self.repository.refs.read(name), commit.encode())

    def move(self, command: Command) -> None:
        """Add an accepted `command` to the change."""
        self.change.create_unless_there()
        self.change.move(command.ref, command.old, command.new or b"")

    def write(self, commit: str) -> None:
        """Write the change that moves the draft to `commit`, unless it is there."""
        command = self.command(commit)
        if command.new != command.old:
            accepted(self.repository, command)
            self.move(command)
            changes.write_one(self.repository, self.change)


def is_latest(repository: Repository, state: WorkflowState, content: Content) -> bool:
    """Return whether no draft is open, and `content` is that of the latest version."""
    if state.draft_open or state.latest_commit is None:
        return False
    latest = repository.definition(state.latest_commit.encode(), state.slug)
    if content.raw is not None and not content.is_object:
        return content.raw == latest.raw
    value = content.value
    if content.raw is not None:
        value = repository.parse(content.raw, "workflow.json").value
    return difference(latest.value, value) is None


def to_file(
    content: Content, before: File | None, rules: Rules, limits: Limits, names: FileNames | None = None
) -> File:
    """Return the file to save for `content`, given the existing file `before`, if any; raises `too_large`."""
    names = names or FileNames()
    if content.raw is not None:
        return File(_name_for(content, before, names), check_size(content.raw, limits))
    name = before.name if before else names.preferred
    value = {} if content.value is None else content.value
    return File(name, check_size(definitions.dump(value, name, rules), limits))


def check_size(raw: bytes, limits: Limits) -> bytes:
    """Return the bytes of a definition; raises `too_large`."""
    if len(raw) > limits.definition:
        raise too_large("the definition has", len(raw), limits.definition)
    return raw


def _dropped(before: File, edited: Edited) -> tuple[Problem, ...]:
    """Return the warning that parts of `before` had to be rewritten without their comments."""
    lost = edited.rewritten and before.raw.count(b"#") > edited.definition.raw.count(b"#")
    if not lost or not definitions.has_comments(before.raw, before.name):
        return ()
    message = "comments were dropped: send YAML text instead of an object to keep them"
    return (Problem("comments_dropped", message, error=False),)


def _name_for(content: Content, before: File | None, names: FileNames) -> str:
    is_json = content.json if content.json is not None else _reads_as_json(content.raw or b"")
    if before is not None and before.name.endswith(".json") is is_json:
        return before.name
    return names.named(json=is_json)


def _reads_as_json(raw: bytes) -> bool:
    """JSON is almost a subset of YAML, so treat text that parses as JSON as JSON; `{a: 1}` is YAML."""
    if raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        return False
    try:
        json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> None:
    """Reject NaN and Infinity, which RFC 8259 lacks; in YAML they are plain text."""
    raise ValueError(name)


def put_file(
    objects: Objects, root: Tree | None, path: list[bytes], file: File, before: File | None = None
) -> list[ShaFile]:
    """Return new objects that put `file` into the folder `path` of `root`, replacing the definition `before`.

    All other tree entries are kept. Objects come before the objects that refer to them; the last one is the
    new root.
    """
    folder = _folder(objects, root, path)
    for name in {*FILE_NAMES, *([before.name] if before is not None else [])}:
        if name.encode() in folder:
            del folder[name.encode()]
    blob = Blob.from_string(file.raw)
    folder[file.name.encode()] = (stat.S_IFREG | 0o644, ObjectID(blob.id))
    return [blob, folder, *put_folder(objects, root, path, folder.id)]


def put_folder(objects: Objects, root: Tree | None, path: list[bytes], folder: bytes) -> list[ShaFile]:
    """Return new trees that set `path` of `root` to the tree `folder`; the last one is the new root."""
    trees: list[ShaFile] = []
    for depth in range(len(path) - 1, -1, -1):
        tree = _folder(objects, root, path[:depth])
        tree[path[depth]] = (stat.S_IFDIR, ObjectID(folder))
        trees.append(tree)
        folder = tree.id
    return trees


def _folder(objects: Objects, root: Tree | None, path: list[bytes]) -> Tree:
    """Return a copy of the tree at `path` of `root`, or an empty tree if it does not exist."""
    folder = root
    for name in path:
        exists = folder is not None and name in folder and stat.S_ISDIR(folder[name][0])
        folder = objects.tree(folder[name][1]) if folder is not None and exists else None
    copy = Tree()
    for name, mode, oid in folder.items() if folder is not None else ():
        copy.add(name, mode, oid)
    return copy
