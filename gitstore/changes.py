"""Apply accepted commands: write the ledger entries, then the refs in one compare-and-swap.

The order on disk is objects, ledger, tags, draft. After a kill between two steps the repository holds a
valid prefix of the change, and repeating the same request completes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from dulwich.objects import Commit, ShaFile

from gitstore import budget, environments, ledger, names, pending
from gitstore.definition.document import summarize
from gitstore.definition.quoting import clip
from gitstore.errors import BusyError, GitstoreError
from gitstore.git.commits import person, text, utc
from gitstore.git.objects import Objects, WritableObjects
from gitstore.git.refs import RefUpdate
from gitstore.model import LedgerEntry, LedgerKind, Person
from gitstore.names import DraftRef, VersionRef
from gitstore.pending import Removal
from gitstore.policy import Effect, Verdict
from gitstore.repository import Repository, WritableRepository, message_of
from gitstore.schedules import Scheduled

_MANY = 50  # ledger entries; more than this are written as one pack instead of one file each


@dataclass(frozen=True, slots=True)
class Authorship:
    """Actor, time and reason of a change, as recorded in the ledger.

    For an `imported` version, the reason and the tagger come from its tag, or else from its commit. Any other
    version without a reason has that of its commit if its tag has no message, as a lightweight tag.
    An imported version with an invalid definition becomes current only with `activate_invalid`. The change
    carries out the schedule `scheduled`, if there is one.
    """

    actor: Person
    when: datetime
    message: str = ""
    activate: bool = True
    imported: bool = False
    activate_invalid: bool = False
    scheduled: Scheduled | None = None


class Prepared:
    """Ledger entries composed and made durable in one pack before any lock is taken.

    If a workflow changes in between, its entries differ and are written the usual way.
    """

    def __init__(self) -> None:
        self._commits: dict[tuple[str, LedgerEntry], Commit] = {}
        self._durable: set[bytes] = set()

    def compose(self, slug: str, entry: LedgerEntry) -> Commit:
        commit = self._commits.get((slug, entry))
        if commit is None:
            commit = self._commits[slug, entry] = ledger.compose(slug, entry)
        return commit

    def write(self, objects: WritableObjects) -> None:
        """Make every entry composed so far durable."""
        if self._commits:
            objects.write_pack([ledger.EMPTY_TREE, *self._commits.values()])
            self._durable.update(commit.id for commit in self._commits.values())

    def missing(self, commits: Sequence[Commit]) -> list[Commit]:
        """Return those of `commits` that are not yet written."""
        return [commit for commit in commits if commit.id not in self._durable]


@dataclass
class ChangeSet:
    """Collects the changes of one workflow to be written together. Requires the workflow's lock.

    `append` adds a ledger entry on top of the existing ones, `add` adds objects that are written with the
    change, `move` moves a ref, and `updates` returns all ref updates as one set.
    """

    repository: Repository
    slug: str
    authorship: Authorship
    prepared: Prepared = field(default_factory=Prepared)
    commits: list[Commit] = field(default_factory=list)
    refs: list[RefUpdate] = field(default_factory=list)
    objects: list[ShaFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._before = self.repository.refs.read(names.ledger(self.slug))
        self._tip = self._before.decode() if self._before else None
        self.newest = self.repository.newest_counting(self.slug)

    def append(self, kind: LedgerKind, **facts: object) -> LedgerEntry:
        """Add an entry of `kind`; `facts` are fields of LedgerEntry. Raises `upgrade_unfinished`."""
        ledger.check_level(kind, self.repository.level)
        entry = ledger.draft_entry(self.newest, self._tip, kind, self.authorship.actor, self.authorship.when)
        scheduled = self.authorship.scheduled
        given = {
            "message": self.authorship.message,
            "schedule": scheduled.id if scheduled is not None else None,
            **facts,
        }
        entry = replace(entry, **given)  # type: ignore[arg-type]  # the callers name fields
        commit = self.prepared.compose(self.slug, entry)
        self.commits.append(commit)
        self._tip = commit.id.decode()
        self.newest = replace(entry, oid=self._tip)
        return self.newest

    def create_unless_there(
        self, name: str | None = None, description: str | None = None, created_at: datetime | None = None
    ) -> None:
        """Begin the ledger, or begin the workflow again if it was deleted."""
        newest = self.newest
        if newest is None or (newest.archived and self.repository.was_deleted(self.slug)):
            facts = {"name": name, "description": description, "created_at": created_at}
            self.append(LedgerKind.CREATED, **facts, archived=False)

    def add(self, objects: Sequence[ShaFile]) -> None:
        """Add new objects, each after those that it refers to. They can be read from now on."""
        self.repository.objects.stage(objects)
        self.objects += objects

    def move(self, name: bytes, old: bytes | None, new: bytes) -> None:
        if old != new:
            self.refs.append(RefUpdate(name, old, new))

    def updates(self) -> list[RefUpdate]:
        """Return every ref update, the ledger's first."""
        if self._tip is None or not self.commits:
            return self.refs
        return [RefUpdate(names.ledger(self.slug), self._before, self._tip.encode()), *self.refs]

    def publish(self, verdict: Verdict, *, active: bool = True, **facts: object) -> LedgerEntry:
        """Record the publication of `verdict`; unless `active`, it does not become current.

        `facts` are further fields of the entry.
        """
        assert isinstance(verdict.target, VersionRef) and verdict.command.new  # noqa: S101, PT018
        number, oid = verdict.target.number, verdict.command.new
        held = self.newest.held if self.newest else False
        latest = self.newest.latest if self.newest else 0
        current = self.newest.current if self.newest else None
        invalid = summarize(verdict.problems) if verdict.problems.errors else None
        usable = active and (invalid is None or self.authorship.activate_invalid)
        activate = usable and self.authorship.activate
        pointers = self.newest.environments if self.newest else ()
        entry = self.append(
            LedgerKind.PUBLISHED,
            version=number,
            target=oid.decode(),
            latest=number,
            after=latest if number > latest + 1 else None,
            rules=self.repository.rules,
            schema=verdict.definition.schema if verdict.definition is not None else None,
            invalid=invalid,
            **{
                "current": number if activate and not held else current,
                "environments": environments.followed(self.repository, pointers, number)
                if usable
                else pointers,
                **self._reason(oid),
                **facts,
            },
        )
        self.move(names.tag(self.slug, number), None, oid)
        return entry

    def _reason(self, oid: bytes) -> dict[str, object]:
        """Return the entry's facts about why the version with the tag `oid` is published, and by whom."""
        objects = self.repository.objects
        if self.authorship.imported:
            return _upstream_facts(objects, oid)
        commit, tag = objects.peel(oid)
        if self.authorship.message or (tag is not None and text(tag.message).strip()):
            return {}
        content = objects.commit(commit)
        return {"message": message_of(content)}

    def discard(self, head: bytes) -> bytes:
        """Record the discard of the draft at `head`; return the name of the superseded ref that keeps it."""
        self.append(LedgerKind.DISCARDED, target=head.decode())
        kept = self.repository.superseded(self.slug, self.authorship.when)
        self.move(kept, None, head)
        return kept

    def restore(self, head: bytes) -> None:
        """Record that the discarded draft at `head` is restored; the caller moves the draft."""
        self.append(LedgerKind.RESTORED, target=head.decode())


def is_written(verdict: Verdict) -> bool:
    return verdict.refusal is None and verdict.effect in (Effect.SAVE, Effect.PUBLISH)


def by_workflow(verdicts: Iterable[Verdict]) -> list[list[Verdict]]:
    """Group the accepted verdicts by workflow, leaving out workflows without a write."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.refusal is None and verdict.target is not None:
            groups.setdefault(verdict.target.slug, []).append(verdict)
    return [group for group in groups.values() if any(map(is_written, group))]


def record(
    repository: Repository,
    verdicts: Sequence[Verdict],
    authorship: Authorship,
    prepared: Prepared | None = None,
) -> ChangeSet:
    """Build the change set of one workflow's accepted saves and publications, in policy's order."""
    slug = next(verdict.target.slug for verdict in verdicts if verdict.target)
    change = ChangeSet(repository, slug, authorship, prepared or Prepared())
    known = change.newest is not None
    change.create_unless_there()
    before = draft = repository.refs.read(names.draft(slug))
    for verdict in verdicts:
        if verdict.effect is Effect.SAVE:
            draft = verdict.command.new
            if known and before is None and draft is not None and _was_discarded(repository, slug, draft):
                change.restore(draft)
    # A draft named in the push was reported "ok" for the pushed value, so it must not be moved further.
    named = any(isinstance(verdict.target, DraftRef) for verdict in verdicts)
    published = [verdict for verdict in verdicts if verdict.effect is Effect.PUBLISH]
    for verdict in sorted(published, key=_number):
        change.publish(verdict)
        if draft is not None and not named and repository.objects.is_ancestor(draft, verdict.commit):
            draft = verdict.commit
    if draft is not None:
        change.move(names.draft(slug), before, draft)
    return change


def _was_discarded(repository: Repository, slug: str, head: bytes) -> bool:
    """Return whether a superseded ref of `slug` keeps `head`: a draft starting there is a restored one."""
    kept = (repository.refs.below(names.superseded_of(name)).values() for name in repository.all_names(slug))
    return any(head in heads for heads in kept)


def _upstream_facts(objects: Objects, oid: bytes) -> dict[str, object]:
    """Return publisher, time and reason from an annotated tag, or from the commit of a lightweight tag."""
    commit, tag = objects.peel(oid)
    if tag is not None and tag.tagger is not None:
        tagger, when = person(tag.tagger), utc(tag.tag_time or 0)
        return {"message": text(tag.message).strip(), "tagger": tagger, "tagged_at": when}
    content = objects.commit(commit)
    tagger, when = person(content.committer, content.encoding), utc(content.commit_time)
    return {"message": text(content.message, content.encoding).strip(), "tagger": tagger, "tagged_at": when}


def _number(verdict: Verdict) -> int:
    return verdict.target.number if isinstance(verdict.target, VersionRef) else 0


def write(
    repository: WritableRepository, change_sets: Sequence[ChangeSet], staged: Sequence[ShaFile] = ()
) -> list[bytes]:
    """Write `staged` objects, and all refs of `change_sets` or none.

    Return the refs whose old value did not match.
    """
    commits = [c for change in change_sets for c in change.prepared.missing(change.commits)]
    objects = [item for change in change_sets for item in change.objects]
    if staged or commits or objects:
        # The first entry of a ledger includes the empty tree, which must be durable before the ledger ref.
        begins = any(not commit.parents for commit in commits)
        many = len(commits) > _MANY
        new = [*staged, *objects, *([ledger.EMPTY_TREE] if begins else []), *commits]
        (repository.objects.write_pack if many else repository.objects.write_together)(new)
    for change in change_sets:
        repository.objects.keep(change.commits)
    # Sort by kind so that a directory shared by many workflows is synced once: ledgers, tags, the rest.
    updates = sorted((u for change in change_sets for u in change.updates()), key=_kind)
    if updates:
        budget.lift()
    moved = repository.refs.update(updates) if updates else []
    drafts = [update.name for update in updates if update.name.startswith(names.DRAFTS)]
    if drafts and not moved:
        repository.point_head(drafts)
    return moved


def decide(
    repository: WritableRepository,
    what: str,
    change_sets: Sequence[ChangeSet],
    *,
    discarded: Sequence[Removal] = (),
    staged: Sequence[ShaFile] = (),
    also: Sequence[RefUpdate] = (),
) -> list[bytes]:
    """Decide that all of `change_sets` happen, and `also`; `staged` objects are written, too.

    Return the refs that do not hold their old value, as `pending.decide` does.
    """
    commits = [c for change in change_sets for c in change.prepared.missing(change.commits)]
    begun = [ledger.EMPTY_TREE] if any(not commit.parents for commit in commits) else []
    updates = [*(update for change in change_sets for update in change.updates()), *also]
    objects = [item for change in change_sets for item in change.objects]
    moved = pending.decide(repository, what, updates, discarded, [*staged, *objects, *begun, *commits])
    for change in change_sets:
        repository.objects.keep(change.commits)
    return moved


def _kind(update: RefUpdate) -> int:
    kinds = (names.LEDGERS, names.TAGS)
    return next((rank for rank, prefix in enumerate(kinds) if update.name.startswith(prefix)), len(kinds))


def write_one(repository: WritableRepository, change: ChangeSet) -> None:
    """Write one change set as `write` does; raise `busy` if a ref has another value than expected."""
    if moved := write(repository, [change]):
        raise concurrent_update(moved)


def discard(
    repository: WritableRepository, target: DraftRef, head: bytes, authorship: Authorship
) -> bytes | None:
    """Keep the draft's head under a superseded ref, then delete the draft; return that ref's name.

    Return None, and keep the draft, if it moved concurrently.
    """
    name = names.draft(target.slug)
    change = ChangeSet(repository, target.slug, authorship)
    kept = change.discard(head)
    if write(repository, [change]) or not repository.refs.delete(name, head):
        return None
    repository.point_head([])
    return kept


def concurrent_update(refs: Sequence[bytes]) -> GitstoreError:
    """Return the `busy` error for `refs` that another writer moved without the lock; nothing was written."""
    shown = ", ".join(names.show(ref) for ref in refs)
    return BusyError(f"{clip(shown)} moved concurrently: try again", refs=shown)
