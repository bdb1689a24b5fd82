"""Read-only view of one project's repository: refs, ledgers and commits combined."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
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
    RenamedError,
)
from gitstore.git.commits import person, text, utc
from gitstore.git.objects import Objects, UnrelatedCommits, WritableObjects
from gitstore.git.process import BatchReader
from gitstore.git.refs import Refs, WritableRefs
from gitstore.git.small_packs import SmallPacks
from gitstore.model import (
    Definition,
    FileNames,
    FormerName,
    LedgerEntry,
    LedgerKind,
    Limits,
    Problems,
    Rules,
    Snapshot,
    Superseded,
    Version,
    WorkflowState,
)
from gitstore.names import is_slug, next_number

FOLDER = b"workflows"
SCHEMA_FILE = b"schema.json"
NEWEST_LEVEL: Final = max(ledger.LEVELS.values())
LONGEST_MESSAGE: Final = 10_000
"""Characters read of a commit or tag message: the same limit as for messages sent over HTTP."""
_MOST_ENTRIES: Final = 1_000  # ledger entries that an instance keeps


@dataclass(frozen=True, slots=True)
class Caches:
    """Caches that the repositories of a process share."""

    definitions: DefinitionCache = field(default_factory=DefinitionCache)
    unrelated: UnrelatedCommits = field(default_factory=UnrelatedCommits)
    small_packs: SmallPacks = field(default_factory=SmallPacks)


class Repository:
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
        self.path = path
        self.project = project
        self.rules = rules
        self.first_rules = first_rules or rules
        self.file_names = file_names or FileNames()
        self.limits = (limits or Limits()).under(rules)
        # slug -> the highest number ever assigned, as far as the unit of work knows.
        self.floors: dict[str, int] = {}
        # The feature level of the installation, as far as the unit of work knows.
        self.level = NEWEST_LEVEL
        self.refs = Refs(path)
        self.objects = objects or Objects(path / "objects")
        self._caches = caches or Caches()
        # slug -> the former names of its workflow. Names are not used again, so what was read stays true.
        self._former: dict[str, tuple[FormerName, ...]] = {}
        # The newest entries of a ledger are read repeatedly, and parsed once.
        self._entries: dict[bytes, LedgerEntry] = {}
        self.objects.unrelated = self._caches.unrelated
        self.objects.small_packs = self._caches.small_packs

    def close(self) -> None:
        self.objects.close()
        self._entries.clear()

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

    # Workflows

    def tips(self) -> dict[str, tuple[str | None, str | None]]:
        """Return slug -> (draft, ledger): the tips of every workflow that has either."""
        tips: dict[str, list[str | None]] = {}
        for position, prefix in enumerate((names.DRAFTS, names.LEDGERS)):
            for ref, oid in self.refs.below(prefix).items():
                slug = names.show(ref[len(prefix) :])
                tips.setdefault(slug, [None, None])[position] = oid.decode()
        return {slug: (draft, ledger) for slug, (draft, ledger) in sorted(tips.items())}

    def slugs(self) -> list[str]:
        """Return every workflow that has a draft, a ledger or a version."""
        tagged = {names.show(ref[len(names.TAGS) :]).partition("/")[0] for ref in self.refs.below(names.TAGS)}
        renamed = {names.show(ref[len(names.RENAMED) :]) for ref in self.refs.below(names.RENAMED)}
        return sorted((tagged | set(self.tips())) - renamed)

    def exists(self, slug: str) -> bool:
        """Return whether the workflow exists; a lone ledger entry "created", left by a kill, is ignored.

        A former name of a workflow that has versions counts as one.
        """
        if not is_slug(slug):
            return False
        if self.refs.read(names.draft(slug)) or self.refs.read(names.tag(slug, 1)):
            return True
        return any(e.kind is not LedgerKind.CREATED and self.counts(slug, e) for e in self.ledger(slug))

    def check_exists(self, slug: str) -> None:
        """Raise `workflow_not_found`, also for a deleted one, or `workflow_renamed` for a former name."""
        if not self.exists(slug) or self.was_deleted(slug):
            to = self.renamed_to(slug) if is_slug(slug) else None
            if to is not None:
                raise RenamedError(slug, to)
            raise NotFoundError(Code.WORKFLOW_NOT_FOUND, f"there is no workflow {clip(slug)!r}")

    def was_deleted(self, slug: str) -> bool:
        """Return whether the workflow was deleted: its slug may be used again, and its ledger continues."""
        if self.refs.read(names.draft(slug)) or self.refs.read(names.tag(slug, 1)):
            return False
        newest = self.newest_counting(slug)
        return newest is not None and newest.archived and not newest.latest

    def version_tags(self, slug: str) -> dict[int, str]:
        """Return number -> object id in the tag, for every version of `slug`. Lists all tags."""
        tags = {}
        for name in self.all_names(slug):
            for ref, oid in self.refs.below(names.tags_of(name)).items():
                match names.parse(ref):
                    case names.VersionRef(_, number) if self.tag(slug, number) == ref:
                        tags[number] = oid.decode()
        return tags

    def highest_tag(self, slug: str) -> int:
        """Return the highest number among the tags of `slug`, its present name, or 0. No tag is read."""
        found = self.refs.names_below(names.tags_of(slug))
        for ref in sorted(found, key=lambda ref: (len(ref), ref), reverse=True):
            match names.parse(ref):
                case names.VersionRef(_, number) if self.tag(slug, number) == ref:
                    return number
        return 0

    # Names of a workflow

    def former(self, slug: str) -> tuple[FormerName, ...]:
        """Return the names that the workflow had before `slug`, with the latest version under each.

        Nothing if its ledger cannot be read, which those who need the ledger report.
        """
        if slug not in self._former:
            try:
                tip = self.refs.read(names.ledger(slug))
                if tip is None:
                    return ()
                self._former[slug] = ledger.parse(self.objects.commit(tip)).former
            except GitstoreError:
                return ()
        return self._former[slug]

    def all_names(self, slug: str) -> list[str]:
        """Return every name of the workflow `slug`, the first one first."""
        return [*(name.slug for name in self.former(slug)), slug]

    def tag(self, slug: str, number: int) -> bytes:
        """Return the ref of version `number` of `slug`: under the name that the workflow had then."""
        holders = (name.slug for name in self.former(slug) if number <= name.latest)
        return names.tag(next(holders, slug), number)

    def renamed_to(self, slug: str) -> str | None:
        """Return the present name of the workflow that was called `slug`; None if none was."""
        found = None
        while (oid := self.refs.read(names.renamed(slug))) is not None:
            found = slug = ledger.parse(self.objects.commit(oid)).renamed or ""
        return found

    def identity(self, slug: str) -> UUID:
        """Return the id of the workflow `slug`, also by a former name: it is that of its first name."""
        if not (former := self.former(slug)):
            slug = self.renamed_to(slug) or slug if self._lacks_ledger(slug) else slug
            former = self.former(slug)
        return names.workflow_id(self.project, former[0].slug if former else slug)

    def _lacks_ledger(self, slug: str) -> bool:
        try:
            return self.refs.read(names.ledger(slug)) is None
        except GitstoreError:  # damaged, and so there
            return False

    def superseded(self, slug: str, when: datetime) -> bytes:
        """Return an unused ref for a head discarded at `when`; after a clock jump the first may be taken."""
        while self.refs.read(name := names.superseded(slug, when)) is not None:
            when += timedelta(microseconds=1)
        return name

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

    # State of a workflow

    def ledger(self, slug: str) -> Iterator[LedgerEntry]:
        """Yield every ledger entry, newest first, including entries that do not count."""
        return self.ledger_from(self.refs.read(names.ledger(slug)))

    def ledger_from(self, tip: bytes | None) -> Iterator[LedgerEntry]:
        """Yield the entries from `tip` back, as `ledger` does; no ref needs to point at `tip`."""
        while tip is not None:
            entry = self._entries.get(tip)
            if entry is None:
                entry = ledger.parse(self.objects.commit(tip))
                if len(self._entries) >= _MOST_ENTRIES:
                    self._entries.clear()
                self._entries[tip] = entry
            yield entry
            tip = entry.parent.encode() if entry.parent else None

    def counts(self, slug: str, entry: LedgerEntry) -> bool:
        """Return whether `entry` took effect: a publishing entry counts once the tag holds its object id."""
        if entry.kind is not LedgerKind.PUBLISHED or entry.version is None:
            return True
        held = self.refs.read(self.tag(slug, entry.version))
        return held is not None and held.decode() == entry.target

    def newest_counting(self, slug: str) -> LedgerEntry | None:
        return next((entry for entry in self.ledger(slug) if self.counts(slug, entry)), None)

    def state(self, slug: str) -> WorkflowState:
        """Return the state of `slug`, at a cost independent of its number of versions.

        Raises `integrity` if the newest ledger entries and the tags contradict each other. A reader without
        the lock may run between a writer's two updates: the ledger has then moved, and is read again.
        """
        while True:
            tip = self.refs.read(names.ledger(slug))
            try:
                return self._state(slug)
            except IntegrityError:
                self.refs.invalidate()
                if self.refs.read(names.ledger(slug)) == tip:
                    raise

    def _state(self, slug: str) -> WorkflowState:
        if self.refs.read(names.ledger(slug)) is None and (to := self.renamed_to(slug)) is not None:
            raise RenamedError(slug, to)
        entry = self.newest_counting(slug)
        latest = entry.latest if entry else 0
        commit = self._latest_commit(slug, latest)
        draft = self.refs.read(names.draft(slug))
        tip = self.refs.read(names.ledger(slug))
        return WorkflowState(
            slug=slug,
            draft=draft.decode() if draft else None,
            ledger=tip.decode() if tip else None,
            latest=latest,
            latest_commit=commit.decode() if commit else None,
            current=entry.current if entry else None,
            held=entry.held if entry else False,
            draft_open=draft is not None and not (commit and self.objects.is_ancestor(draft, commit)),
            floor=self.floors.get(slug, 0),
            environments=entry.environments if entry else (),
            yanked=entry.yanked if entry else (),
            archived=entry.archived if entry else False,
            former=entry.former if entry else (),
        )

    def _latest_commit(self, slug: str, latest: int) -> bytes | None:
        for number in {latest + 1, next_number(latest, self.floors.get(slug, 0))}:
            if self.refs.read(self.tag(slug, number)) is not None:
                raise _contradiction(slug, f"v{number} has a tag that is not in the ledger")
        if not latest:
            return None
        held = self.refs.read(self.tag(slug, latest))
        if held is None:
            raise _contradiction(slug, f"v{latest} is published in the ledger, but its tag is missing")
        return self.objects.peel(held)[0]

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
            raise _contradiction(slug, f"v{number} has a tag that is not in the ledger")
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

    def predecessor(self, slug: str, number: int) -> int:
        """Return the latest version at the time v<number> was published; 0 for the first."""
        return self.predecessors(slug, [number])[number]

    def predecessors(self, slug: str, numbers: Collection[int]) -> dict[int, int]:
        """Return the predecessor of each of `numbers`, from one walk along the ledger."""
        found = {number: number - 1 for number in numbers}
        missing = set(numbers)
        for entry in self._published(slug):
            if entry.version in missing:
                missing.discard(entry.version)
                if entry.after is not None:
                    found[entry.version] = entry.after
                if not missing:
                    break
        return found

    def _published(self, slug: str) -> Iterator[LedgerEntry]:
        return (e for e in self.ledger(slug) if e.kind is LedgerKind.PUBLISHED and self.counts(slug, e))

    # Content of a commit

    def holds_latest(self, state: WorkflowState) -> bool:
        """Return whether the draft has the content of the latest version, and nothing new to publish.

        A draft that was opened after the version was yanked may be published, also with equal content.
        """
        if state.latest_commit is None or state.draft is None:
            return False
        if state.draft_open and state.latest in state.yanked:
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
            message=clip(text(content.message, content.encoding).strip(), LONGEST_MESSAGE),
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


def _below(item: ShaFile, wanted: Collection[str]) -> Iterable[bytes]:
    """Return what `preload` reads below an object: entries of trees with `wanted` names."""
    if isinstance(item, Tag):
        return [item.object[1]]
    if isinstance(item, Commit):
        return item.parents if item.tree == ledger.EMPTY_TREE.id else [item.tree]
    if isinstance(item, Tree):
        return [entry.sha for entry in item.iteritems() if entry.path.decode("utf-8", "replace") in wanted]
    return ()


def _contradiction(slug: str, what: str) -> GitstoreError:
    return IntegrityError(f"{slug}: {what}: nothing is published until gitstore verify finds no difference")
