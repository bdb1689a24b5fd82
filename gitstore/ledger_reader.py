"""Read the refs and ledgers of one project's repository: its workflows, their names, versions and states."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from gitstore import ledger, names
from gitstore.definition.quoting import clip
from gitstore.errors import Code, GitstoreError, IntegrityError, NotFoundError, RenamedError
from gitstore.git.objects import Objects
from gitstore.git.refs import Refs
from gitstore.model import FormerName, LedgerEntry, LedgerKind, WorkflowState
from gitstore.names import is_slug, next_number

NEWEST_LEVEL: Final = max(ledger.LEVELS.values())
_MOST_ENTRIES: Final = 1_000  # ledger entries that an instance keeps


class LedgerReader:
    """The workflows of the repository at `path`, from its refs and ledgers. No definition is read."""

    def __init__(self, path: Path, project: UUID, objects: Objects) -> None:
        self.path = path
        self.project = project
        self.refs = Refs(path)
        self.objects = objects
        # slug -> the highest number ever assigned, as far as the unit of work knows.
        self.floors: dict[str, int] = {}
        # The feature level of the installation, as far as the unit of work knows.
        self.level = NEWEST_LEVEL
        # slug -> the former names of its workflow. Names are not used again, so what was read stays true.
        self._former: dict[str, tuple[FormerName, ...]] = {}
        # The newest entries of a ledger are read repeatedly, and parsed once.
        self._entries: dict[bytes, LedgerEntry] = {}

    def close(self) -> None:
        self.objects.close()
        self._entries.clear()

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
                self._former[slug] = next(self.ledger_from(tip)).former
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

    # Ledger and state of a workflow

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
                raise contradiction(slug, f"v{number} has a tag that is not in the ledger")
        if not latest:
            return None
        held = self.refs.read(self.tag(slug, latest))
        if held is None:
            raise contradiction(slug, f"v{latest} is published in the ledger, but its tag is missing")
        return self.objects.peel(held)[0]

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


def contradiction(slug: str, what: str) -> GitstoreError:
    return IntegrityError(f"{slug}: {what}: nothing is published until gitstore verify finds no difference")
