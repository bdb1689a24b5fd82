"""Import an upstream's version tags and, in the layout `refs`, its drafts.

Objects are fetched into a quarantine, where git checks them as for a push, and are moved in once everything
that their tips need is present. Then `policy.judge` decides on each ref, one workflow at a time under its
lock, versions in ascending order. A refused ref blocks only itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
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
from gitstore.git.quarantine import Quarantine, quarantine
from gitstore.model import Definition, Limits, Person
from gitstore.names import DraftRef, VersionRef
from gitstore.policy import Command, Effect, Verdict, WorkflowTip, judge
from gitstore.policy_facts import RepositoryFacts
from gitstore.store import Store
from gitstore.upstream.refs import Blocked, Layout, Outcome, RemoteRef
from gitstore.upstream.remote import Refs, Remote

BATCH: Final = 100  # versions imported by one transaction
_MOST_FETCHES: Final = 40  # per import, when refused objects are isolated from the rest
_OBJECTS_WRONG: Final = (ObjectsRefusedError, ObjectsMissingError, TooLargeError)
# Errors that block a whole workflow for now, rather than refuse one of its refs.
_WAITS: Final = (IntegrityError, BusyError)


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
    _broken: dict[bytes, GitstoreError] = field(default_factory=dict)
    _admitted: list[bytes] = field(default_factory=list)
    _fetches: int = 0
    _overflowed: bool = False

    # Objects

    def fetch(self, remote: Remote, choose: Callable[[Refs], Sequence[RemoteRef]]) -> None:
        """Fetch the objects of the refs that `choose` selects from the upstream's advertisement."""
        missing: list[bytes] = []

        def chosen(advertised: Refs) -> list[bytes]:
            tips = dict.fromkeys(offer.theirs for offer in choose(advertised))
            missing.extend(tip for tip in tips if tip not in self.store.objects)
            return missing

        try:
            self._fetch(remote, chosen)
        except GitstoreError as error:
            self._fetch_parts(remote, missing, error)

    def _fetch_parts(self, remote: Remote, tips: Sequence[bytes], error: GitstoreError) -> None:
        """Fetch the tips in halves after objects of some tip were refused, to import the other tips.

        If the objects are too large in total, none is imported: the limit is one of the whole import.
        """
        if not isinstance(error, _OBJECTS_WRONG) or not tips:
            raise error
        if len(tips) == 1 or self._overflowed or self._fetches >= _MOST_FETCHES:
            self._broken.update(dict.fromkeys(tips, error))
            return
        middle = len(tips) // 2
        for part in (tips[:middle], tips[middle:]):
            wanted = [tip for tip in part if tip not in self.store.objects]
            try:
                if wanted:
                    self._fetch(remote, lambda _, wanted=wanted: wanted)  # type: ignore[misc]
            except GitstoreError as refusal:
                self._fetch_parts(remote, wanted, refusal)

    def _fetch(self, remote: Remote, choose: Callable[[Refs], list[bytes]]) -> None:
        self._fetches += 1
        tips: list[bytes] = []

        def chosen(advertised: Refs) -> list[bytes]:
            tips.extend(choose(advertised))
            return tips

        with quarantine(self.store.path) as held:
            with ExitStack() as spool:
                sink: Callable[[bytes], int] | None = None

                def write(chunk: bytes) -> int:
                    nonlocal sink
                    self.check()
                    if sink is None:
                        sink = spool.enter_context(held.incoming(self.limits))
                    return sink(chunk)

                try:
                    remote.fetch(self.layout.prefixes, chosen, self._haves(), write)
                except GitstoreError as error:
                    # The limit of the whole import is exceeded: retrying with fewer tips would not help.
                    self._overflowed |= isinstance(error, TooLargeError)
                    raise
            if tips:
                self._admit(held, tips)

    def _admit(self, held: Quarantine, tips: Sequence[bytes]) -> None:
        """Move all fetched objects in, provided that `tips` are complete."""
        self.check()
        held.admit(held.needed_by(tips))
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

    def take(self, wanted: Sequence[RemoteRef]) -> Iterator[Outcome | Blocked]:
        """Judge `wanted`, whose objects were fetched, and write the accepted ones."""
        done = 0
        self.progress(done, len(wanted))
        for slug, group in groupby(wanted, key=lambda offer: offer.target.slug):
            try:
                for batch in _batches(list(group)):
                    self.check()
                    yield from self._take(slug, batch)
                    done += len(batch)
                    self.progress(done, len(wanted))
            except _WAITS as error:
                yield Blocked(slug, error)

    def _take(self, slug: str, batch: Sequence[RemoteRef]) -> list[Outcome]:
        store, outcomes = self.store, [self._outcome(offer) for offer in batch if self._is_broken(offer)]
        sound = [offer for offer in batch if not self._is_broken(offer)]
        if not sound:
            return outcomes
        # After `published_not_mirrored`, it is on disk, and the rows follow.
        with suppress(NotMirroredError), store.unit_of_work.begin([slug]):
            verdicts = self._judge([self._command(offer) for offer in sound], _ImportFacts(self))
            self._write(verdicts)
            outcomes += [self._outcome(o, v) for o, v in zip(sound, verdicts, strict=True)]
        return outcomes

    def replace_draft(self, offer: RemoteRef, ours: bytes, message: str) -> Outcome:
        """Replace the draft by the upstream's; the local draft, `ours`, is kept as superseded.

        This is a person's decision, recorded with the reason `message`. Raises `stale_draft` if the draft has
        moved since.
        """
        slug, outcome = offer.target.slug, self._outcome(offer)
        if self._is_broken(offer):
            return outcome
        with suppress(NotMirroredError), self.store.unit_of_work.begin([slug]):
            self._check_draft(offer, ours)
            facts = _ImportFacts(self, without_draft=True)
            (verdict,) = self._judge([Command(offer.name, None, offer.theirs)], facts)
            outcome = self._outcome(offer, verdict)
            if verdict.refusal is None:
                if not changes.discard(self.store, DraftRef(slug), ours, self._occasion(message)):
                    raise changes.concurrent_update([offer.name])
                self._write([verdict])
        return outcome

    @staticmethod
    def _judge(commands: Sequence[Command], facts: _ImportFacts) -> list[Verdict]:
        verdicts = judge(commands, facts, imported=True)
        for verdict in verdicts:
            if isinstance(verdict.refusal, _WAITS):
                raise verdict.refusal  # about the workflow, not about the upstream's refs
        return verdicts

    def _check_draft(self, offer: RemoteRef, ours: bytes) -> None:
        if self.store.refs.read(offer.name) != ours:
            raise StaleDraftError("the draft has moved since that was decided")

    def _write(self, verdicts: Sequence[Verdict]) -> None:
        accepted = [v for v in verdicts if v.refusal is None and v.effect in (Effect.SAVE, Effect.PUBLISH)]
        if accepted:
            moved = changes.write(self.store, [changes.record(self.store, accepted, self._occasion())])
            if moved:
                raise changes.concurrent_update(moved)

    def _occasion(self, message: str = "") -> Authorship:
        return Authorship(self.actor, self.store.clock(), message, imported=True)

    def _command(self, offer: RemoteRef) -> Command:
        return Command(offer.name, self.store.refs.read(offer.name), offer.theirs)

    def _is_broken(self, offer: RemoteRef) -> bool:
        return offer.theirs in self._broken

    def _outcome(self, offer: RemoteRef, verdict: Verdict | None = None) -> Outcome:
        refusal = self._broken.get(offer.theirs) if verdict is None else verdict.refusal
        ours = self.store.refs.read(offer.name) if refusal else None
        return Outcome(offer, verdict.effect if verdict else Effect.NOTHING, refusal, ours)


class _ImportFacts(RepositoryFacts):
    """Facts about fetched refs. With `without_draft`, as if the local draft were already discarded."""

    def __init__(self, importing: UpstreamImport, *, without_draft: bool = False) -> None:
        super().__init__(importing.store)
        self._layout = importing.layout
        self._without_draft = without_draft

    def holds(self, ref: bytes) -> bytes | None:
        return None if self._without_draft else super().holds(ref)

    def standing(self, slug: str) -> WorkflowTip:
        found = super().standing(slug)
        # An import accepts any larger number, so a tag unknown to the ledger may have any higher number.
        stray = max(self._repository.version_tags(slug), default=0)
        if stray > found.latest:
            raise IntegrityError(
                f"{slug}: v{stray} has a tag that the ledger does not know: run gitstore verify",
                workflow=slug,
            )
        return replace(found, draft=None) if self._without_draft else found

    def definition(self, commit: bytes, slug: str) -> Definition:
        if self._layout is Layout.FOLDERS:
            found = self._repository.objects.commit(commit)
            if self._repository.locate(found, slug)[2] == found.tree:
                raise GitstoreError(
                    Code.DEFINITION_MISSING,
                    f"a definition at the root of the repository stands before that in workflows/{slug}/: "
                    "the layout folders needs it there alone",
                )
        return super().definition(commit, slug)


def _batches(group: list[RemoteRef]) -> list[list[RemoteRef]]:
    """Split the refs into batches of BATCH versions; the draft comes last, alone, as it is the newest."""
    versions = [offer for offer in group if isinstance(offer.target, VersionRef)]
    drafts = [offer for offer in group if isinstance(offer.target, DraftRef)]
    found = [versions[start : start + BATCH] for start in range(0, len(versions), BATCH)]
    return [*found, *([drafts] if drafts else [])]
