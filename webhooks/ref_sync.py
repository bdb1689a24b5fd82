"""One sync of a source: import new refs of the upstream, push new local refs and report divergences.

A sync does not overwrite or delete a ref on either side, except a draft for which a person decided to take
the upstream's; the local draft is then kept as superseded. The findings of a sync are in its `Result`, which
webhooks/source_sync.py records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from gitstore import names
from gitstore.errors import BusyError, Code, ConflictError, GitstoreError, IntegrityError, StaleDraftError
from gitstore.model import Limits, Person
from gitstore.names import DraftRef, VersionRef
from gitstore.policy import Effect
from gitstore.store import Store
from gitstore.upstream.importer import Blocked, Outcome, UpstreamImport
from gitstore.upstream.refs import Layout, RefMatching, RemoteRef, gaps, misnamed_refs
from gitstore.upstream.remote import Remote
from webhooks.divergences import DELETED, PUSH_REFUSED, Detected, Recorded, reason
from webhooks.sources import Direction, Filter

Progress = Callable[[int, int], None]

_AHEAD: Final = "the draft upstream is neither the pushed one nor behind the draft here"


@dataclass(frozen=True, slots=True)
class Job:
    """The input of a sync.

    `synced` selects the refs. `others` are the addresses under which the project's other sources import.
    `seen` maps the full names of the upstream's refs to ids as of the last sync; `known` maps refs to their
    recorded divergences. `full` examines known divergences again. With `activate_invalid`, versions with an
    invalid definition become current, too.
    """

    source_id: UUID
    url: str
    layout: Layout
    direction: Direction
    synced: Filter
    others: Collection[str]
    seen: Mapping[str, str]
    known: Mapping[str, Recorded]
    full: bool = False
    activate_invalid: bool = False

    @property
    def label(self) -> str:
        """The name of the source in logs and in the ledger."""
        return "source:" + self.url.partition("://")[2]

    @property
    def actor(self) -> Person:
        return Person(self.label, address_of(self.source_id))


def address_of(source_id: UUID) -> str:
    """Return the address of the author of what a source imports, as in the ledger."""
    return f"{source_id}@sources.gitstore"


@dataclass
class Result:
    """The findings of a sync.

    `seen` maps the upstream's current refs to ids; `diverged` are new divergences, `untouched` known ones.
    `error` is the first error that stopped the sync or a part of it; the other parts were completed.
    """

    seen: dict[str, str] = field(default_factory=dict)
    diverged: dict[str, Detected] = field(default_factory=dict)
    untouched: set[str] = field(default_factory=set)
    published: dict[str, list[int]] = field(default_factory=dict)
    saved: list[str] = field(default_factory=list)
    pushed: list[str] = field(default_factory=list)
    gaps: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    error: GitstoreError | None = None

    @property
    def report(self) -> dict[str, Any] | None:
        """The changes that the sync made, as JSON, or None if it made none."""
        if not (self.published or self.saved or self.pushed):
            return None
        return {
            "published": {slug: len(numbers) for slug, numbers in self.published.items()},
            "gaps": self.gaps,
            "drafts": self.saved,
            "pushed": self.pushed,
        }


class Sync:
    """A sync of `job` with the project's `store`. `check` raises to stop it."""

    def __init__(
        self,
        job: Job,
        store: Store,
        limits: Limits,
        *,
        check: Callable[[], None] = lambda: None,
        progress: Progress = lambda _done, _total: None,
    ) -> None:
        self._job = job
        self._store = store
        self._matching = RefMatching(store, job.layout)
        self._import = UpstreamImport(
            store, job.layout, job.actor, limits, check, progress, job.activate_invalid
        )
        self._advertised: dict[bytes, bytes] = {}
        self._creators: dict[str, str | None] = {}
        self._held: dict[bytes, bytes] = {}
        self.result = Result()

    def run(self, connect: Callable[[], Remote]) -> Result:
        """Sync and return the result. Raises errors of the whole sync; the result holds all others."""
        remote, prefixes = connect(), self._job.layout.prefixes
        advertised = remote.refs(prefixes)
        self._advertised = {ref: oid for ref, oid in advertised.items() if self._job.synced.includes(ref)}
        self._held = {
            name: oid for prefix in prefixes for name, oid in self._store.refs.below(prefix).items()
        }
        wanted = self._compare()
        self._import.fetch(remote, wanted)
        self._record_deleted()
        self._import_refs(wanted)
        if self._job.direction.pushes:
            try:
                self._push(connect())
            except GitstoreError as error:
                self._fail(error)
        return self.result

    # Comparing the advertised refs with local and recorded ones

    def _compare(self) -> list[RemoteRef]:
        """Return the refs to import. Record the refs that the upstream holds and unchanged divergences."""
        wanted = []
        for offer in self._matching.match(self._advertised):
            ref, ours = names.show(offer.remote), self._held.get(offer.name)
            self.result.seen[ref] = offer.theirs.decode()
            if ours == offer.theirs:
                continue
            if self._is_settled(ref, ours, offer):
                self.result.untouched.add(ref)
            elif self._job.direction.pulls:
                wanted.append(offer)
            elif ours is not None:
                self._compare_to_push(offer, ours)
        if self._job.direction.pulls:
            self._compare_misnamed()
        return wanted

    def _compare_misnamed(self) -> None:
        """Record a divergence for each ref that only looks like a draft or a version."""
        for target in misnamed_refs(self._advertised, self._job.layout):
            ref, theirs = names.show(target.name), self._advertised[target.name].decode()
            workflow = names.workflow_id(self._store.project, target.slug)
            explanation = f"not imported: {target.reason}"
            one = Detected(target, ref, workflow, None, theirs, str(Code.INVALID_NAME), explanation)
            known = self._job.known.get(one.ref)
            if known is not None and known.theirs == theirs and (known.kept or not self._job.full):
                self.result.untouched.add(one.ref)
            else:
                self.result.diverged[one.ref] = one

    def _is_settled(self, ref: str, ours: bytes | None, offer: RemoteRef) -> bool:
        """Return whether a ref needs no new verdict: it has not moved since the last sync or decision."""
        known, theirs = self._job.known.get(ref), offer.theirs.decode()
        is_draft = isinstance(offer.target, DraftRef)
        if known is None or known.theirs != theirs:
            # A draft that was imported and then discarded here is not imported again until it moves upstream.
            return is_draft and known is None and self._job.seen.get(ref) == theirs
        if known.kept:
            return is_draft or known.ours == _text(ours)
        return known.ours == _text(ours) and not (known.decision or self._job.full)

    def _compare_to_push(self, offer: RemoteRef, ours: bytes) -> None:
        """Record a divergence of a push-only source: a differing tag or a draft that is not behind ours."""
        if isinstance(offer.target, VersionRef):
            error = ConflictError(Code.VERSION_IMMUTABLE, "")
            self._record_divergence(offer, ours, error.code, reason(offer.target, error))
        elif not self._is_behind(offer.theirs, ours):
            self._record_divergence(offer, ours, Code.NOT_FAST_FORWARD, _AHEAD)

    def _is_behind(self, theirs: bytes, ours: bytes) -> bool:
        objects = self._store.objects
        return theirs in objects and objects.is_ancestor(theirs, ours)

    def _record_deleted(self) -> None:
        """Record a divergence for each version that was deleted upstream. The version is kept here."""
        deleted = set(self._job.seen) - set(self.result.seen)
        deleted |= {ref for ref, known in self._job.known.items() if known.code == DELETED and not known.kept}
        for ref in sorted(deleted - set(self.result.seen)):
            target = names.parse(ref.encode())
            if not isinstance(target, VersionRef):
                continue
            deleted_ref = self._matching.here(target)
            ours = self._held.get(deleted_ref.name)
            elsewhere = any(name in self._advertised for name in self._matching.there(target))
            if ours is not None and not elsewhere:
                explanation = f"v{target.number} was deleted upstream; the version published here is kept"
                self._diverge(deleted_ref, ours.decode(), None, DELETED, explanation)

    # Importing

    def _import_refs(self, wanted: list[RemoteRef]) -> None:
        before = {offer.target.slug: 0 for offer in wanted}
        for name in self._held:
            target = names.parse(name)
            if isinstance(target, VersionRef) and (slug := self._matching.here(target).target.slug) in before:
                before[slug] = max(before[slug], target.number)
        decided = {offer.name: known for offer in wanted if (known := self._decided(offer))}
        for offer in wanted:
            if offer.name in decided:
                self._replace(offer, decided[offer.name])
        for outcome in self._import.apply([offer for offer in wanted if offer.name not in decided]):
            if isinstance(outcome, Blocked):
                self._block(outcome)
            else:
                self._record(outcome)
        for slug, numbers in self.result.published.items():
            if missing := gaps(numbers, before.get(slug, 0)):
                self.result.gaps[slug] = missing

    def _decided(self, offer: RemoteRef) -> Recorded | None:
        known = self._job.known.get(names.show(offer.remote))
        if known is None or known.decision != "theirs" or known.theirs != offer.theirs.decode():
            return None
        ours = _text(self._held.get(offer.name))
        return known if ours is not None and known.ours == ours else None

    def _replace(self, offer: RemoteRef, known: Recorded) -> None:
        try:
            explanation = f"{known.decided_by or 'an owner'} chose the draft of {self._job.label}"
            self._record(self._import.replace_draft(offer, self._held[offer.name], explanation))
        except (StaleDraftError, BusyError, IntegrityError) as error:
            self._block(Blocked(offer.target.slug, error))

    def _record(self, outcome: Outcome) -> None:
        offer, refusal = outcome.ref, outcome.refusal
        match outcome.effect, offer.target:
            case Effect.PUBLISH, VersionRef(slug, number):
                self.result.published.setdefault(slug, []).append(number)
            case Effect.SAVE, DraftRef(slug):
                self.result.saved.append(slug)
        if refusal is not None:
            self._record_divergence(offer, outcome.ours, refusal.code, reason(offer.target, refusal))

    def _record_divergence(self, offer: RemoteRef, ours: bytes | None, code: str, explanation: str) -> None:
        known = self._job.known.get(names.show(offer.remote))
        # A tag that was not imported is soon below the latest version, which is not why it was not imported.
        if (
            known is not None
            and code == Code.WRONG_NUMBER
            and (known.ours, known.theirs) == (_text(ours), offer.theirs.decode())
        ):
            code, explanation = known.code, known.reason
        self._diverge(offer, _text(ours), offer.theirs.decode(), code, explanation)

    def _diverge(
        self, offer: RemoteRef, ours: str | None, theirs: str | None, code: str, explanation: str
    ) -> None:
        ref, workflow = names.show(offer.remote), self._store.identity(offer.target.slug)
        self.result.diverged[ref] = Detected(
            offer.target, ref, workflow, ours, theirs, str(code), explanation
        )

    def _block(self, blocked: Blocked) -> None:
        """Record a workflow that cannot be written now. Its refs keep their last seen ids, for a retry."""
        self._fail(blocked.error.reworded(f"{blocked.slug}: {blocked.error.message}"))
        for ref in [ref for ref in self.result.seen if self._is_of(ref, blocked.slug)]:
            self.result.untouched.add(ref)
            del self.result.seen[ref]
            if ref in self._job.seen:
                self.result.seen[ref] = self._job.seen[ref]

    def _is_of(self, ref: str, slug: str) -> bool:
        target = names.parse(ref.encode())
        return target is not None and self._matching.here(target).target.slug == slug

    def _fail(self, error: GitstoreError) -> None:
        self.result.error = self.result.error or error

    # Pushing

    def _push(self, remote: Remote) -> None:
        before = {ref.encode() for ref in (*self._job.seen, *self._job.known)}
        planned = {
            offer.remote: offer
            for offer in self._matching.pushable(self._advertised, before, self._job.synced.includes)
            if self._may_push(offer)
        }
        if not planned:
            return
        new = {name: offer.theirs for name, offer in planned.items()}
        # The next sync handles refs that moved since they were listed.
        for name, refusal in remote.push(self._store.objects, new, self._advertised).items():
            offer = planned[name]
            ref, ours = names.show(name), offer.theirs.decode()
            if refusal is None:
                self.result.seen[ref] = ours
                self.result.pushed.append(ref)
            else:
                theirs, explanation = _text(self._advertised.get(name)), f"the upstream refused it: {refusal}"
                known = self._job.known.get(ref)
                if known is not None and known.kept and (known.ours, known.theirs) == (ours, theirs):
                    continue  # acknowledged
                self._diverge(offer, ours, theirs, PUSH_REFUSED, explanation)

    def _may_push(self, offer: RemoteRef) -> bool:
        """Return whether to push a ref.

        A ref that was deleted upstream is not pushed, nor one that diverges and has not moved since, nor one
        of a workflow of another source.
        """
        if self._is_of_another(offer.target.slug):
            return False
        ref, theirs = names.show(offer.remote), _text(self._advertised.get(offer.remote))
        known, ours = self._job.known.get(ref), offer.theirs.decode()
        if theirs is None and ref in self._job.seen:
            is_new = isinstance(offer.target, DraftRef) and self._job.seen[ref] != ours
            if not is_new:
                return False
        if ref in self.result.diverged:
            return False
        if known is not None and (known.ours, known.theirs) == (ours, theirs) and not self._job.full:
            self.result.untouched.add(ref)
            return False
        return True

    def _is_of_another(self, slug: str) -> bool:
        """Return whether another source created the workflow here: in the direction `both`, it stays there.

        A workflow whose ledger cannot be read is treated in the same way.
        """
        if self._job.direction is not Direction.BOTH or not self._job.others:
            return False
        if slug not in self._creators:
            try:
                first = deque(self._store.ledger(slug), maxlen=1)
                self._creators[slug] = first[0].actor.email if first else None
            except GitstoreError:
                return True
        return self._creators[slug] in self._job.others


def _text(oid: bytes | None) -> str | None:
    return oid.decode() if oid is not None else None
