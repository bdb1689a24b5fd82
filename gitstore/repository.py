"""One project's repository: versions, drafts and definitions on top of its refs and ledgers."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from dulwich.objects import Blob, Commit, ShaFile, Tag, Tree

from gitstore import ledger, names
from gitstore.definition import document as definitions
from gitstore.definition.document import DefinitionCache
from gitstore.definition.editing import Edited, edit
from gitstore.definition.quoting import clip
from gitstore.definition.schema import UNUSABLE, Schema
from gitstore.errors import (
    Code,
    GitstoreError,
    IntegrityError,
    InvalidDefinitionError,
    NotFoundError,
)
from gitstore.git.commits import person, text, utc
from gitstore.git.objects import Objects, UnrelatedCommits, WritableObjects
from gitstore.git.process import BatchReader
from gitstore.git.refs import WritableRefs
from gitstore.git.small_packs import SmallPacks
from gitstore.ledger_reader import LedgerReader, contradiction
from gitstore.model import (
    Definition,
    FileNames,
    LedgerEntry,
    Limits,
    Problems,
    Rules,
    Snapshot,
    Superseded,
    Version,
    WorkflowState,
)

FOLDER = b"workflows"
SCHEMA_FILE = b"schema.json"
LONGEST_MESSAGE: Final = 10_000
"""Characters read of a commit or tag message: the same limit as for messages sent over HTTP."""


@dataclass(frozen=True, slots=True)
class Caches:
    """Caches that the repositories of a process share."""

    definitions: DefinitionCache = field(default_factory=DefinitionCache)
    unrelated: UnrelatedCommits = field(default_factory=UnrelatedCommits)
    small_packs: SmallPacks = field(default_factory=SmallPacks)


class Repository(LedgerReader):
    """One project's repository at `path`, read-only. `objects` may be a quarantine in front of it.

    `rules` judge drafts and new versions. A version was judged by those that its ledger entry names, or else
    by `first_rules`, the first that the project had. The rules `schema` judge by `schema`.
    """

    def __init__(
        self,
        path: Path,
        project: UUID,
        *,
        rules: Rules = Rules.MESHHOOK,
        first_rules: Rules | None = None,
        file_names: FileNames | None = None,
        limits: Limits | None = None,
        objects: Objects | None = None,
        caches: Caches | None = None,
    ) -> None:
        super().__init__(path, project, objects or Objects(path / "objects"))
        self.rules = rules
        self.first_rules = first_rules or rules
        self.file_names = file_names or FileNames()
        self.limits = (limits or Limits()).under(rules)
        self._caches = caches or Caches()
        self.objects.unrelated = self._caches.unrelated
        self.objects.small_packs = self._caches.small_packs

    def preload(self, slugs: Sequence[str]) -> None:
        """Read all versions, drafts and ledgers of `slugs` into the cache, as far as they fit."""
        tips = set[bytes]()
        for slug in slugs:
            with suppress(IntegrityError):
                tips.update(oid.encode() for oid in self.version_tags(slug).values())
                heads = (self.refs.read(name) for name in (names.draft(slug), names.ledger(slug)))
                tips.update(oid for oid in heads if oid is not None)
        self.preload_from(tips, slugs)

    def preload_from(self, tips: Set[bytes], slugs: Collection[str]) -> None:
        """Read `tips`, which are of versions, drafts or ledgers of `slugs`, and the objects below them.

        A damaged or missing object is reported when it is needed.
        """
        self.objects.close()
        folders = (name.slug for slug in slugs for name in self.former(slug))
        wanted = {*definitions.FILE_NAMES, *self.file_names.own, FOLDER.decode(), *slugs, *folders}
        seen: set[bytes] = set()
        with BatchReader(self.path) as reader:
            while tips:
                seen |= tips
                found = self.objects.keep_read(reader.read(sorted(tips)))
                tips = {oid for item in found for oid in _below(item, wanted)} - seen

    def through(self, objects: Objects) -> Repository:
        """Return this repository read through `objects`, a quarantine; the caches are shared."""
        seen = Repository(
            self.path,
            self.project,
            rules=self.rules,
            first_rules=self.first_rules,
            file_names=self.file_names,
            limits=self.limits,
            objects=objects,
            caches=self._caches,
        )
        seen.refs, seen.floors, seen.level = self.refs, self.floors, self.level
        seen._former, seen._entries = self._former, self._entries
        return seen

    # Versions and drafts

    def discarded(self, slug: str) -> Iterator[Superseded]:
        """Yield the discarded drafts of `slug` that can be restored, newest first.

        A superseded ref may also keep a replaced ledger, which holds no definition and is left out.
        """
        for name in reversed(self.all_names(slug)):
            for ref, oid in reversed(self.refs.below(names.superseded_of(name)).items()):
                when = names.superseded_at(ref)
                if when is not None and self._holds_definition(slug, oid):
                    yield Superseded(when, oid.decode(), ref)

    def _holds_definition(self, slug: str, oid: bytes) -> bool:
        try:
            self.locate(self.objects.commit(oid), slug)
        except GitstoreError:
            return False
        return True

    def version(
        self, slug: str, number: int, entry: LedgerEntry | None = None, *, judged: bool = True
    ) -> Version:
        """Return a published version. Pass its counting ledger entry as `entry` to avoid a lookup.

        Unless `judged`, its definition may come without problems.
        """
        held = self.refs.read(self.tag(slug, number))
        if held is None:
            raise NotFoundError(Code.VERSION_NOT_FOUND, f"{slug} has no version v{number}")
        if entry is None:
            entry = next((e for e in self._published(slug) if e.version == number), None)
        if entry is None:
            raise contradiction(slug, f"v{number} has a tag that is not in the ledger")
        commit, tag = self.objects.peel(held)
        # A version without errors need not be judged again: a schema gives no warnings.
        schema = self.schema_at(entry.schema) if entry.schema is not None and entry.invalid else None
        snapshot = self.snapshot(
            slug, commit.decode(), entry.rules or self.first_rules, schema, judged=judged
        )
        if entry.created_at is not None:
            snapshot = replace(snapshot, created_at=entry.created_at)
        elsewhere = entry.tagger if entry.published_at is not None else None
        message = text(tag.message).strip() if tag is not None else ""
        return Version(
            slug=slug,
            number=number,
            ref_oid=held.decode(),
            snapshot=snapshot,
            message=clip(message or entry.message, LONGEST_MESSAGE),
            published_by=elsewhere or entry.actor,
            published_at=entry.published_at or entry.when,
            invalid=entry.invalid,
            external_id=next(iter(entry.external_ids), None),
        )

    # Content of a commit

    def holds_latest(self, state: WorkflowState) -> bool:
        """Return whether the draft has nothing new to publish: it is not open, or equals the latest version.

        One that is not open may be older, if the writer of that version was killed before it moved the draft.
        A draft that was opened after the version was yanked may be published, also with equal content.
        """
        if state.latest_commit is None or state.draft is None:
            return False
        if not state.draft_open:
            return True
        if state.latest in state.yanked:
            return False
        commits = (self.objects.commit(tip.encode()) for tip in (state.draft, state.latest_commit))
        ours, latest = (self.locate(commit, state.slug)[2] for commit in commits)
        return ours == latest

    def snapshot(
        self,
        slug: str,
        commit: str,
        rules: Rules | None = None,
        schema: Schema | None = None,
        *,
        judged: bool = True,
    ) -> Snapshot:
        """Return the definition of `slug` in `commit`, with the commit's metadata.

        It is judged by `rules` and `schema`; without `rules`, by those of the project.
        Raises `definition_missing`; if the definition does not parse, the snapshot's `definition` is None.
        """
        content = self.objects.commit(commit.encode())
        file_name, blob, folder = self.locate(content, slug)
        parsed: Definition | None = None
        try:
            parsed = self._parse(blob, file_name, rules, schema, judged=judged)
            problems = parsed.problems
        except InvalidDefinitionError as error:
            problems = Problems.of(error.problems)
        return Snapshot(
            commit=commit,
            tree=folder.decode(),
            blob=blob.decode(),
            file_name=file_name,
            definition=parsed,
            problems=problems,
            author=person(content.author, content.encoding),
            message=message_of(content),
            created_at=utc(content.commit_time),
        )

    def definition(self, commit: bytes, slug: str) -> Definition:
        """Return the parsed definition; raise `definition_missing` or `definition_unparsable`."""
        file_name, blob, _ = self.locate(self.objects.commit(commit), slug)
        return self._parse(blob, file_name)

    def parse(self, raw: bytes, file_name: str) -> Definition:
        """Return the definition in `raw`, which need not be stored; raise `definition_unparsable`."""
        return self._judged(Blob.from_string(raw).id, raw, file_name, self.rules, self.schema())

    def edit(self, old: Definition, new: Any, file_name: str) -> Edited:
        """Return the definition `old` with the value `new`, edited in place, as `editing.edit` does."""
        edited = edit(old, new, file_name, self.rules, self.limits)
        if self.rules is Rules.SCHEMA:
            return replace(edited, definition=self.parse(edited.definition.raw, file_name))
        blob = Blob.from_string(edited.definition.raw).id
        self.cache_definition(blob, file_name, edited.definition)
        return edited

    def cache_content(self, slug: str, commit: bytes, definition: Definition) -> None:
        """Cache `definition` as the content of `commit` for `slug`."""
        file_name, blob, _ = self.locate(self.objects.commit(commit), slug)
        self.cache_definition(blob, file_name, definition)

    def cache_definition(self, blob: bytes, file_name: str, definition: Definition) -> None:
        """Cache `definition` as the result of parsing `blob`."""
        self._caches.definitions.put(
            (self.project, self.rules, definition.schema, blob, file_name), definition
        )

    def _parse(
        self,
        blob: bytes,
        file_name: str,
        rules: Rules | None = None,
        schema: Schema | None = None,
        *,
        judged: bool = True,
    ) -> Definition:
        if rules is None:
            rules, schema = self.rules, self.schema()
        return self._judged(blob, None, file_name, rules, schema, judged=judged)

    def _judged(
        self,
        blob: bytes,
        raw: bytes | None,
        file_name: str,
        rules: Rules,
        schema: Schema | None,
        *,
        judged: bool = True,
    ) -> Definition:
        """Return the definition in `blob`, whose content is `raw` or else in the repository.

        Unless `judged`, it may come without problems; it is not cached then.
        """
        key = (self.project, rules, schema.commit if schema is not None else None, blob, file_name)
        definition = self._caches.definitions.get(key)
        if definition is None:
            content = self.objects.blob(blob) if raw is None else raw
            definition = definitions.parse(content, file_name, rules, self.limits, schema, judged=judged)
            if judged and not any(problem.code == UNUSABLE for problem in definition.problems):
                self._caches.definitions.put(key, definition)  # an unreadable schema may be repaired
        return definition

    def locate(self, commit: Commit, slug: str) -> tuple[str, bytes, bytes]:
        """Return the definition's (file name, blob, folder tree): at the root or in workflows/<slug>/."""
        root = self.objects.tree(commit.tree)
        located = self._definition_in(root, definitions.FILE_NAMES)
        if located is None:
            workflows = self._subtree(root, FOLDER)
            folder = self._subtree(workflows, slug.encode())
            if folder is None and workflows is not None:  # in a commit of before it was renamed
                folders = (self._subtree(workflows, name.slug.encode()) for name in self.former(slug))
                folder = next(filter(None, reversed(list(folders))), None)
            located = self._definition_in(folder, definitions.FILE_NAMES)
            own = ((name, tree) for name in self.file_names.own for tree in (root, folder))
            while located is None and (candidate := next(own, None)):
                located = self._definition_in(candidate[1], (candidate[0],))
        if located is None:
            names = dict.fromkeys((*definitions.FILE_NAMES, *self.file_names.own))
            raise GitstoreError(
                Code.DEFINITION_MISSING,
                f"no definition: the commit needs a file {', '.join(names)} "
                f"at its root or in workflows/{slug}/",
            )
        return located

    def _subtree(self, tree: Tree | None, name: bytes) -> Tree | None:
        if tree is None or name not in tree or not stat.S_ISDIR(tree[name][0]):
            return None
        return self.objects.tree(tree[name][1])

    @staticmethod
    def _definition_in(tree: Tree | None, names: Sequence[str]) -> tuple[str, bytes, bytes] | None:
        if tree is None:
            return None
        present = [name for name in names if name.encode() in tree]
        if not present:
            return None
        if len(present) > 1:
            raise GitstoreError(
                Code.DEFINITION_MISSING, f"several definitions ({', '.join(present)}): keep exactly one"
            )
        mode, blob = tree[present[0].encode()]
        if not stat.S_ISREG(mode):
            raise GitstoreError(Code.DEFINITION_MISSING, f"{present[0]} is not a regular file")
        return present[0], blob, tree.id

    # Schema

    def schema(self) -> Schema | None:
        """Return the project's schema, if its rules are `schema` and it has one."""
        if self.rules is not Rules.SCHEMA:
            return None
        try:
            tip = self.refs.read(names.SCHEMA)
        except IntegrityError:
            return Schema("", None)
        return self.schema_at(tip.decode()) if tip is not None else None

    def schema_at(self, commit: str) -> Schema | None:
        """Return the schema in a commit of its history; None if that removes it."""
        try:
            tree = self.objects.tree(self.objects.commit(commit.encode()).tree)
            if SCHEMA_FILE not in tree:
                return None
            return Schema(commit, self.objects.blob(tree[SCHEMA_FILE][1]))
        except GitstoreError:
            return Schema(commit, None)


class WritableRepository(Repository):
    """One project's repository, with refs and objects that can be written: for a Store, and for repairs."""

    refs: WritableRefs
    objects: WritableObjects

    def __init__(self, path: Path, project: UUID, **options: Any) -> None:
        super().__init__(path, project, objects=WritableObjects(path / "objects"), **options)
        self.refs = WritableRefs(path)

    @classmethod
    def of(cls, repository: Repository) -> WritableRepository:
        """Open the repository that `repository` reads. The caller holds the locks of what it writes."""
        options = {"rules": repository.rules, "first_rules": repository.first_rules}
        names = repository.file_names
        return cls(repository.path, repository.project, **options, file_names=names, limits=repository.limits)

    def point_head(self, moved: Sequence[bytes]) -> None:
        """Point HEAD to the last draft of `moved`, or away from a draft that is gone to the newest one."""
        drafts = [name for name in moved if name.startswith(names.DRAFTS)]
        if not drafts and (head := self.refs.head()) is not None and self.refs.read(head) is None:
            left = self.refs.below(names.DRAFTS)
            drafts = sorted(left, key=lambda ref: self.objects.commit(left[ref]).commit_time)[-1:]
        if drafts:
            self.refs.point_head(drafts[-1])


def message_of(commit: Commit) -> str:
    return clip(text(commit.message, commit.encoding).strip(), LONGEST_MESSAGE)


def _below(item: ShaFile, wanted: Collection[str]) -> Iterable[bytes]:
    """Return what `preload` reads below an object: entries of trees with `wanted` names."""
    if isinstance(item, Tag):
        return [item.object[1]]
    if isinstance(item, Commit):
        return item.parents if item.tree == ledger.EMPTY_TREE.id else [item.tree]
    if isinstance(item, Tree):
        return [entry.sha for entry in item.iteritems() if entry.path.decode("utf-8", "replace") in wanted]
    return ()
