"""Write a new state of a draft: new content, or the content of a version, committed on top of the base.

The change is judged as a push would be, and recorded in the ledger. Requires the workflow's lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dulwich.objects import Commit

from gitstore import changes, ledger, names
from gitstore.changes import ChangeSet
from gitstore.commit_summary import what_changes
from gitstore.content import Content, File, put_file, put_folder, to_file
from gitstore.definition import document as definitions
from gitstore.git.objects import new_commit
from gitstore.model import Person, Problems, WorkflowState
from gitstore.policy import Command
from gitstore.policy_facts import accepted
from gitstore.repository import FOLDER, WritableRepository


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
    """One save of the draft of `recorder.slug` by `author`. `state` is None for a new workflow."""

    repository: WritableRepository
    recorder: ChangeSet
    state: WorkflowState | None
    author: Person
    message: str = ""

    def save(self, content: Content, otherwise: str, merged: bytes | None = None) -> Saved:
        """Commit `content` next to the other files of the tree; `merged` becomes a second parent.

        Without a message, the message is a summary of the change, or `otherwise` if nothing can be compared.
        """
        repository, slug, base = self.repository, self.recorder.slug, self._base()
        root = before = None
        path: list[bytes] = []
        if base is not None:
            name, blob, folder = repository.locate(base, slug)
            root, before = repository.objects.tree(base.tree), File(name, repository.objects.blob(blob))
            path = [] if folder == base.tree else [FOLDER, slug.encode()]
        file = to_file(content, before, repository.rules)
        # Parse before anything is written, so that an unparsable definition leaves nothing behind.
        parsed = definitions.parse(file.raw, file.name, repository.rules, repository.limits)
        changed = self.message or what_changes(
            repository, slug, base.id if base is not None else None, parsed
        )
        made = put_file(repository.objects, root, path, file)
        repository.remember(made[0].id, file.name, parsed)
        repository.objects.write(made)
        commit = self._commit(base, made[-1].id, changed or otherwise, merged)
        return Saved(commit, self._number, parsed.problems.after(file.warnings))

    def restore(self, version: bytes, otherwise: str) -> Saved:
        """Commit the content of the commit `version`; `otherwise` is the message if none was given."""
        repository, slug, base = self.repository, self.recorder.slug, self._base()
        held = repository.objects.commit(version)
        _, _, folder = repository.locate(held, slug)
        tree: bytes = held.tree
        if base is not None and folder != tree and repository.locate(base, slug)[2] != base.tree:
            # A repository of several workflows: restoring this one must not revert the others in the tree.
            path = [FOLDER, slug.encode()]
            made = put_folder(repository.objects, repository.objects.tree(base.tree), path, folder)
            repository.objects.write(made)
            tree = made[-1].id
        commit = self._commit(base, tree, self.message or otherwise)
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

    def _commit(self, base: Commit | None, tree: bytes, message: str, merged: bytes | None = None) -> str:
        """Commit `tree` and return the draft's commit; no new commit if the open draft already holds it."""
        repository, recorder = self.repository, self.recorder
        if merged is not None and (base is None or repository.objects.is_ancestor(merged, base.id)):
            merged = None
        is_open = self.state is not None and self.state.draft_open
        if is_open and base is not None and tree == base.tree and not merged:
            return base.id.decode()
        commit = new_commit(
            tree=tree,
            parents=[parent for parent in (base.id if base is not None else None, merged) if parent],
            author=self.author,
            committer=ledger.COMMITTER,
            when=recorder.occasion.when,
            message=message,
        )
        repository.objects.write([commit])
        name = names.draft(recorder.slug)
        before = repository.refs.read(name)
        accepted(repository, Command(name, before, commit.id))
        recorder.create_unless_there()
        recorder.move(name, before, commit.id)
        changes.write_one(repository, recorder)
        return commit.id.decode()
