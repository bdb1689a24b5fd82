"""Import an upstream's version tags and, in the layout `refs`, its drafts.

Layouts: with `refs`, the upstream has the same refs as this repository. With `folders`, a team keeps its
definitions in workflows/<slug>/ of one repository and tags <slug>/v<N> on any commit of it; its branches are
not considered.

Objects are fetched into a quarantine, where git checks them as for a push, and are moved in once everything
that their tips need is present. Then `policy.judge` decides on each ref, for several workflows at a time
under their locks, versions in ascending order. A refused ref blocks only itself. A version with an invalid or
unparsable definition is recorded as it is, and becomes current only with `activate_invalid`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from typing import Final

from gitstore import changes, names
from gitstore.changes import Authorship
from gitstore.errors import (
    BusyError,
    Code,
    GitstoreError,
    IntegrityError,
    NotMirroredError,
    ObjectsMissingError,
    ObjectsRefusedError,
    StaleDraftError,
    TooLargeError,
)
from gitstore.git.process import sizes
from gitstore.git.quarantine import quarantine
from gitstore.model import Definition, Limits, Person
from gitstore.names import DraftRef, VersionRef
from gitstore.policy import Command, Effect, Verdict, WorkflowTip, judge
from gitstore.policy_facts import RepositoryFacts
from gitstore.store import Store
from gitstore.upstream.refs import Layout, RemoteRef
from gitstore.upstream.remote import Remote

BATCH: Final = 100  # versions imported by one transaction
_MOST_WORKFLOWS: Final = 64  # that one transaction locks
_FEW: Final = 10  # versions whose objects are read one by one
_MOST_FETCHES: Final = 40  # per import, when refused objects are isolated from the rest
_OBJECTS_WRONG: Final = (ObjectsRefusedError, ObjectsMissingError, TooLargeError)
# Errors that block a whole workflow for now, rather than refuse one of its refs.
_BLOCKING: Final = (IntegrityError, BusyError)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for a remote ref: an effect, or a refusal with the local value of the ref."""

    ref: RemoteRef
    effect: Effect = Effect.NOTHING
    refusal: GitstoreError | None = None
    ours: bytes | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """A workflow whose refs cannot be imported for now, and the error."""

    slug: str
    error: GitstoreError


@dataclass
class UpstreamImport:
    """One import into `store`, on behalf of `actor`.

    `check` is called often and stops the import by raising. `progress` receives (refs done, refs in total).
    """

    store: Store
    layout: Layout
    actor: Person
    limits: Limits
    check: Callable[[], None] = lambda: None
    progress: Callable[[int, int], None] = lambda _done, _total: None
    activate_invalid: bool = False
    _broken: dict[bytes, GitstoreError] = field(default_factory=dict, init=False)
    _admitted: list[bytes] = field(default_factory=list, init=False)
    _fetches: int = field(default=0, init=False)
    _overflowed: bool = field(default=False, init=False)

    # Objects

    def fetch(self, remote: Remote, refs: Iterable[RemoteRef]) -> None:
        """Fetch the objects of `refs` that are missing here."""
        self._fetch_or_halve(remote, self._missing(ref.theirs for ref in refs))

    def _missing(self, tips: Iterable[bytes]) -> list[bytes]:
        wanted = list(dict.fromkeys(tips))
        held = sizes(self.store.path, wanted)
        return [tip for tip in wanted if tip not in held]

    def _fetch_or_halve(self, remote: Remote, tips: Sequence[bytes]) -> None:
        """Fetch `tips`; in halves after objects of some tip were refused, to import the other tips.

        If the objects are too large in total, none is imported: the limit is one of the whole import.
        """
        if not tips:
            return
        try:
            self._fetch(remote, tips)
        except _OBJECTS_WRONG as error:
            if len(tips) == 1 or self._overflowed or self._fetches >= _MOST_FETCHES:
                self._broken.update(dict.fromkeys(tips, error))
                return
            middle = len(tips) // 2
            for half in (tips[:middle], tips[middle:]):
                self._fetch_or_halve(remote, self._missing(half))

    def _fetch(self, remote: Remote, tips: Sequence[bytes]) -> None:
        """Fetch the objects that `tips` need, and move them in if they are complete."""
        self._fetches += 1
        with quarantine(self.store.path) as held:
            with held.incoming(self.limits) as write:

                def checked_write(chunk: bytes) -> int:
                    self.check()
                    return write(chunk)

                try:
                    remote.fetch(tips, self._haves(), checked_write)
                except TooLargeError:
                    # The limit of the whole import is exceeded: retrying with fewer tips would not help.
                    self._overflowed = True
                    raise
            self.check()
            self.store.objects.write_together(held.admit(held.needed_by(tips)))
            self._admitted.extend(tips)

    def _haves(self) -> Iterator[bytes]:
        """Yield commits that exist here: first the fetched tips, then the newest of each workflow."""
        newest: dict[str, tuple[int, bytes]] = {}
        for name, oid in self.store.refs.below(names.TAGS).items():
            match names.parse(name):
                case VersionRef(slug, number) if number > newest.get(slug, (0, b""))[0]:
                    newest[slug] = (number, oid)
        drafts = self.store.refs.below(names.DRAFTS).values()
        tips = [*reversed(self._admitted), *drafts, *(oid for _, oid in newest.values())]
        for oid in dict.fromkeys(tips):
            try:
                yield self.store.objects.peel(oid)[0]
            except GitstoreError:
                continue  # damaged or not a commit, so of no use here

    # Refs

    def apply(self, refs: Sequence[RemoteRef]) -> Iterator[Outcome | Blocked]:
        """Judge `refs`, whose objects were fetched, and write the accepted ones."""
        done = 0
        self.progress(done, len(refs))
        waiting = deque(_groups(refs))
        while waiting:
            group = waiting.popleft()
            before = done
            try:
                for batch in _batches(group):
                    self.check()
                    yield from self._apply_batch(batch)
                    done += len(batch)
                    self.progress(done, len(refs))
            except _BLOCKING as error:
                if len(group) == 1:
                    yield Blocked(group[0][0].target.slug, error)
                else:  # one blocks the others: each by itself
                    done = before
                    waiting.extendleft([workflow] for workflow in reversed(group))

    def _apply_batch(self, batch: Sequence[RemoteRef]) -> list[Outcome]:
        store, outcomes = self.store, [self._outcome(ref) for ref in batch if ref.theirs in self._broken]
        sound = [ref for ref in batch if ref.theirs not in self._broken]
        if not sound:
            return outcomes
        slugs = {ref.target.slug for ref in sound}
        if len(sound) > _FEW:
            store.preload_from({ref.theirs for ref in sound}, slugs)
        # After `published_not_mirrored`, it is on disk, and the rows follow.
        with suppress(NotMirroredError), store.unit_of_work.begin(slugs):
            commands = [Command(ref.name, store.refs.read(ref.name), ref.theirs) for ref in sound]
            verdicts = _judge(commands, _ImportFacts(self, next(iter(slugs)) if len(slugs) == 1 else None))
            self._write(verdicts)
            outcomes += [self._outcome(ref, verdict) for ref, verdict in zip(sound, verdicts, strict=True)]
        return outcomes

    def replace_draft(self, ref: RemoteRef, ours: bytes, message: str) -> Outcome:
        """Replace the draft by the upstream's; the local draft, `ours`, is kept as superseded.

        This is a person's decision, recorded with the reason `message`. Raises `stale_draft` if the draft has
        moved since.
        """
        slug, outcome = ref.target.slug, self._outcome(ref)
        if ref.theirs in self._broken:
            return outcome
        with suppress(NotMirroredError), self.store.unit_of_work.begin([slug]):
            if self.store.refs.read(ref.name) != ours:
                raise StaleDraftError("the draft has moved since the decision")
            facts = _ImportFacts(self, slug, without_draft=True)
            (verdict,) = _judge([Command(ref.name, None, ref.theirs)], facts)
            outcome = self._outcome(ref, verdict)
            if verdict.refusal is None:
                if not changes.discard(self.store, DraftRef(slug), ours, self._authorship(message)):
                    raise changes.concurrent_update([ref.name])
                self._write([verdict])
        return outcome

    def _write(self, verdicts: Sequence[Verdict]) -> None:
        accepted = filter(changes.is_written, verdicts)
        change_sets = [
            changes.record(self.store, group, self._authorship()) for group in changes.by_workflow(accepted)
        ]
        if moved := changes.write(self.store, change_sets):
            raise changes.concurrent_update(moved)

    def _authorship(self, message: str = "") -> Authorship:
        return Authorship(
            self.actor,
            self.store.clock(),
            message,
            imported=True,
            activate_invalid=self.activate_invalid,
        )

    def _outcome(self, ref: RemoteRef, verdict: Verdict | None = None) -> Outcome:
        refusal = self._broken.get(ref.theirs) if verdict is None else verdict.refusal
        ours = self.store.refs.read(ref.name) if refusal else None
        return Outcome(ref, verdict.effect if verdict else Effect.NOTHING, refusal, ours)


def _judge(commands: Sequence[Command], facts: _ImportFacts) -> list[Verdict]:
    verdicts = judge(commands, facts, imported=True)
    for verdict in verdicts:
        if isinstance(verdict.refusal, _BLOCKING):
            raise verdict.refusal  # about the workflow, not about the upstream's refs
    return verdicts


class _ImportFacts(RepositoryFacts):
    """Facts about fetched refs of the workflow `slug`, also under its former names; of several without one.

    With `without_draft`, as if the local draft were already discarded.
    """

    def __init__(self, importing: UpstreamImport, slug: str | None, *, without_draft: bool = False) -> None:
        super().__init__(importing.store)
        self._slug = slug
        self._layout = importing.layout
        self._without_draft = without_draft

    def holds(self, ref: bytes) -> bytes | None:
        return None if self._without_draft else super().holds(ref)

    def tip(self, slug: str) -> WorkflowTip:
        slug = self._slug or slug
        if self._repository.renamed_to(slug) is not None:
            raise BusyError(f"{slug} was renamed during the import: the next one continues")
        tip = super().tip(slug)
        # An import accepts any larger number, so a tag unknown to the ledger may have any higher number.
        stray = self._repository.highest_tag(slug)
        if stray > tip.latest:
            raise IntegrityError(
                f"{slug}: v{stray} has a tag that is not in the ledger: run gitstore verify",
                workflow=slug,
            )
        return replace(tip, draft=None) if self._without_draft else tip

    def definition(self, commit: bytes, slug: str) -> Definition:
        if self._layout is Layout.FOLDERS:
            content = self._repository.objects.commit(commit)
            if self._repository.locate(content, slug)[2] == content.tree:
                raise GitstoreError(
                    Code.DEFINITION_MISSING,
                    f"a definition at the root of the repository takes precedence over workflows/{slug}/: "
                    "the layout `folders` requires it to be only there",
                )
        # Without the content, of which a batch may have very much: the problems are recorded, and the schema.
        return replace(super().definition(commit, slug), raw=b"", value=None)


def _groups(refs: Sequence[RemoteRef]) -> Iterator[list[list[RemoteRef]]]:
    """Yield the refs in groups of workflows that are written together.

    A large workflow is alone, and so is one that has refs under another name, here or upstream.
    """
    group: list[list[RemoteRef]] = []
    size = 0
    for _, workflow in groupby(refs, key=lambda ref: ref.target.slug):
        listed = list(workflow)
        if not all(ref.name == ref.remote == names.full(ref.target) for ref in listed):
            yield [listed]
            continue
        if group and (len(group) == _MOST_WORKFLOWS or size + len(listed) > BATCH):
            yield group
            group, size = [], 0
        group.append(listed)
        size += len(listed)
    if group:
        yield group


def _batches(group: Sequence[Sequence[RemoteRef]]) -> list[list[RemoteRef]]:
    """Split a group into batches of BATCH versions; drafts come last, as they are the newest.

    The upstream may have a ref under several names of one workflow. Each batch has one of them.
    """
    first: dict[bytes, RemoteRef] = {}
    again: list[list[RemoteRef]] = []
    drafts: list[RemoteRef] = []
    for ref in chain.from_iterable(group):
        if isinstance(ref.target, DraftRef):
            drafts.append(ref)
        elif first.setdefault(ref.name, ref) is not ref:
            again.append([ref])
    versions = list(first.values())
    batches = [versions[start : start + BATCH] for start in range(0, len(versions), BATCH)]
    return [*batches, *again, *([[draft] for draft in drafts] if len(group) == 1 else filter(None, [drafts]))]
