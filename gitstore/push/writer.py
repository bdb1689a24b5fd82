"""Judging the commands of a push, and writing those that are accepted, in units of work.

A plain push is carried out slice by slice, an atomic one at once. The verdicts are about what is on disk.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from dulwich.objects import ShaFile

from gitstore import budget, changes, names, pending
from gitstore.changes import Authorship, Prepared
from gitstore.errors import BusyError, Code, GitstoreError, IntegrityError, NotMirroredError
from gitstore.git.files import machine_fault
from gitstore.git.quarantine import Quarantine
from gitstore.names import DraftRef
from gitstore.policy import ATOMIC_FAILED, Command, Effect, Verdict, judge, settle_discards
from gitstore.policy_facts import PushFacts
from gitstore.push.report import PushReport
from gitstore.push.request import Slice, divide
from gitstore.store import Store
from gitstore.unit_of_work import check_count

_UNSURE = frozenset({Code.INTEGRITY, Code.WRONG_NUMBER})
_TOGETHER = 4  # slices that are judged together: what they read stays in the caches until they are written
_WITH_CONTENT = 1_000  # commands of a plain push whose verdicts keep the content of a version


class PushWriter:
    """Carries out the commands of one push into `store`, whose new objects are in `held`.

    `no_discards` is the reason why it may discard no draft, if there is one.
    """

    def __init__(
        self,
        store: Store,
        authorship: Authorship,
        facts: PushFacts,
        held: Quarantine,
        report: PushReport,
        *,
        no_discards: str | None,
    ) -> None:
        self._store = store
        self._authorship = authorship
        self._facts = facts
        self._held = held
        self._report = report
        self._no_discards = no_discards
        self._prepared = Prepared()
        self._is_begun = False  # whether a slice has been carried out
        self._stopped: GitstoreError | None = None

    def write(self, commands: Sequence[Command], *, atomic: bool) -> list[Verdict]:
        """Return a verdict for each command. Raises `unavailable` before anything is written."""
        return self._at_once(commands) if atomic else self._in_slices(commands)

    def _judge(self, commands: Sequence[Command], *, atomic: bool = False) -> list[Verdict]:
        return judge(commands, self._facts, atomic=atomic, no_discards=self._no_discards)

    def _at_once(self, commands: Sequence[Command]) -> list[Verdict]:
        """Carry out an atomic push in one unit of work."""
        slices = divide(commands)
        slugs = sorted({slug for part in slices for slug in part.slugs})
        try:
            check_count(len(slugs))
        except GitstoreError as refusal:
            self._report.refused_objects(refusal)
            return [Verdict(command, refusal) for command in commands]
        self._facts.survey(commands)
        if len(slices) > 1:
            verdicts = self._judge(commands, atomic=True)
            if not any(map(_is_pending, verdicts)):
                return verdicts  # refused without locking so many workflows against other writers
        verdicts, fault = self._unit(Slice(tuple(slugs), tuple(commands)), atomic=True)
        if fault is None:
            return verdicts
        failed = fault.reworded(f"{ATOMIC_FAILED}: {fault.message}")
        return [replace(verdict, refusal=verdict.refusal and failed) for verdict in verdicts]

    def _in_slices(self, commands: Sequence[Command]) -> list[Verdict]:
        """Carry out a plain push slice by slice, discards last, because any refusal also refuses them."""
        slices = divide(commands)
        if len(slices) < 2:
            self._facts.survey(commands)
            whole = Slice(slices[0].slugs if slices else (), tuple(commands))
            if any(command.new is None for command in commands):
                return self._unit(whole)[0]
            final = self._write_slices([whole])
            return [final[command.ref] for command in commands]
        # What names no workflow, or is named twice, is refused, and is in no slice.
        counts = Counter(command.ref for command in commands)
        apart = [c for c in commands if counts[c.ref] > 1 or names.parse(c.ref) is None]
        self._facts.survey(apart)
        final = {verdict.command.ref: verdict for verdict in self._judge(apart)}
        slices = divide(command for command in commands if command.ref not in final)
        for start in range(0, len(slices), _TOGETHER):
            for ref, verdict in self._write_together(slices[start : start + _TOGETHER]).items():
                # The first slice that names a draft decides on it.
                final.setdefault(ref, verdict if len(final) < _WITH_CONTENT else _without_content(verdict))
        budget.lift()  # what follows completes the push
        final = {verdict.command.ref: verdict for verdict in settle_discards(list(final.values()))}
        discards = [v.command for v in final.values() if _is_pending(v) and v.effect is Effect.DISCARD]
        final |= self._write_slices(divide(discards))
        return [final[command.ref] for command in commands]

    def _write_together(self, slices: Sequence[Slice]) -> dict[bytes, Verdict]:
        """Judge some slices of a push together, then write them, except discards; return the verdicts by ref.

        They are judged before any lock is taken: a refusal there is final, and definitions are parsed and
        ledger entries composed while no other writer waits.
        """
        if self._stopped is not None:
            return self._write_slices(slices)
        commands = list(dict.fromkeys(command for part in slices for command in part.commands))
        try:
            verdicts = self._judge_before_locks(commands)
        except OSError as error:
            if (fault := machine_fault(error)) is None or not self._is_begun:
                raise
            self._stopped = fault
            return self._write_slices(slices)
        # Judged again under the lock: another writer's refs may look like a contradiction for a moment, and
        # the numbers that were assigned before a restore are known only there.
        unsure = {v.command for v in verdicts if v.refusal is not None and v.refusal.code in _UNSURE}
        wanted = unsure | {v.command for v in verdicts if changes.is_written(v)}
        parts = divide(v.command for v in verdicts if v.refusal is None or v.command in unsure)
        parts = [part for part in parts if not wanted.isdisjoint(part.commands)]
        with budget.kept():
            written = self._write_slices(parts, discards=False)
        self._facts.forget_definitions()
        return {verdict.command.ref: verdict for verdict in verdicts} | written

    def _judge_before_locks(self, commands: Sequence[Command]) -> list[Verdict]:
        """Judge `commands` and write their ledger entries, valid if nothing changes until locks are held."""
        self._facts.survey(commands)
        self._prepared = Prepared()
        with self._store.refs.cached_reads():
            verdicts = self._judge(commands)
            for group in changes.by_workflow(verdicts):
                with suppress(GitstoreError):  # it recurs under the lock and is reported there
                    changes.record(self._facts.repository, group, self._authorship, self._prepared)
            self._prepared.write(self._store.objects)
        return verdicts

    def _write_slices(self, parts: Sequence[Slice], *, discards: bool = True) -> dict[bytes, Verdict]:
        """Return the verdicts on `parts` by ref. Raises `unavailable` before anything is written."""
        final: dict[bytes, Verdict] = {}
        waiting = deque(parts)
        while waiting:
            part = waiting.popleft()
            if self._stopped is not None:
                verdicts = [self._on_disk(command, self._stopped) for command in part.commands]
            else:
                try:
                    verdicts, self._stopped = self._unit(part, discards=discards)
                except GitstoreError as error:
                    if not self._is_begun:
                        raise
                    self._stopped = error
                    verdicts = [self._on_disk(command, error) for command in part.commands]
                stopped = self._stopped
                if stopped is not None and (rest := part.without_contradiction(stopped)) is not None:
                    # The rows of one workflow contradict Git: the other workflows are not affected.
                    waiting.appendleft(rest)
                    verdicts = [v for v in verdicts if v.command not in rest.commands]
                    self._stopped = None
                self._is_begun = True
            for verdict in verdicts:
                if discards or verdict.effect is not Effect.DISCARD:
                    final.setdefault(verdict.command.ref, verdict)
        return final

    def _unit(
        self,
        part: Slice,
        *,
        atomic: bool = False,
        discards: bool = True,
    ) -> tuple[list[Verdict], GitstoreError | None]:
        """Judge and write `part` under the locks of its workflows: one unit of work.

        Also returns the fault that stopped it, if any. Raises `unavailable` if nothing was written.
        """
        verdicts: list[Verdict] = []
        try:
            with self._store.unit_of_work.begin(part.slugs):
                verdicts = self._judge(part.commands, atomic=atomic)
                verdicts = self._write(verdicts, atomic=atomic, discards=discards)
        except OSError as error:
            if (fault := machine_fault(error)) is None:
                raise
            return [self._on_disk(command, fault) for command in part.commands], fault
        except NotMirroredError:
            # It is on disk, so it is ok; the next reconcile updates the rows.
            self._report.mirrored_later()
        except (IntegrityError, BusyError) as error:
            return [self._on_disk(command, error) for command in part.commands], error
        return verdicts, None

    def _on_disk(self, command: Command, fault: GitstoreError) -> Verdict:
        """Return the verdict after a partial failure: ok for a ref with its new value, else `fault`."""
        try:
            done = names.is_ref(command.ref) and self._store.refs.read(command.ref) == command.new
        except GitstoreError:  # a damaged ref, which may be the fault itself
            done = False
        return Verdict(command, None if done else fault, target=names.parse(command.ref))

    def _write(self, verdicts: list[Verdict], *, atomic: bool, discards: bool) -> list[Verdict]:
        """Write the accepted commands, discards only if `discards`; return the final verdicts."""
        accepted = [v for v in verdicts if v.refusal is None and v.target is not None]
        at_once = atomic and self._store.level >= pending.LEVEL and sum(map(_is_pending, accepted)) > 1
        for verdict in accepted:
            # Check before any object is moved in that would then be unused.
            self._store.refs.check_place(verdict.command.ref)
            if verdict.target is not None:
                self._store.refs.check_place(names.ledger(verdict.target.slug))
        written = filter(changes.is_written, accepted)  # the objects of other refs are here
        needed = self._held.needed_by(v.command.new for v in written if v.command.new)
        staged = self._held.admit(needed)
        self._store.objects.adopt(self._held.objects, needed)
        for verdict in accepted:
            if verdict.target is not None and verdict.definition is not None:
                self._facts.repository.cache_content(verdict.target.slug, verdict.commit, verdict.definition)
        change_sets = [
            changes.record(self._facts.repository, group, self._authorship, self._prepared)
            for group in changes.by_workflow(accepted)
        ]
        if at_once:
            return self._decide(verdicts, change_sets, staged)
        failed = self._write_refs(change_sets, staged, atomic=atomic)
        kept: dict[bytes, bytes] = {}
        for ref, verdict in [(v.command.ref, v) for v in accepted if discards and v.effect is Effect.DISCARD]:
            name = None if failed else self._discard(verdict)
            if name is None:
                failed[ref] = changes.concurrent_update([*failed] or [ref])
            else:
                kept[ref] = name
        refs = [(v.command.ref, v) for v in verdicts]
        return [replace(v, refusal=failed.get(ref, v.refusal), kept=kept.get(ref, b"")) for ref, v in refs]

    def _write_refs(
        self, change_sets: Sequence[changes.ChangeSet], staged: Sequence[ShaFile], *, atomic: bool
    ) -> dict[bytes, GitstoreError]:
        """Write all of `change_sets` at once, and `staged` objects; return ref -> error for the failures.

        A ref that another process moved without a lock fails its own workflow, or the whole atomic push.
        """
        moved = changes.write(self._store, change_sets, staged)
        if not moved:
            return {}
        if atomic or len(change_sets) == 1:
            return {update.name: changes.concurrent_update(moved) for r in change_sets for update in r.refs}
        failed: dict[bytes, GitstoreError] = {}
        for change in change_sets:
            failed |= self._write_refs([change], [], atomic=atomic)
        return failed

    def _decide(
        self,
        verdicts: Sequence[Verdict],
        change_sets: Sequence[changes.ChangeSet],
        staged: Sequence[ShaFile],
    ) -> list[Verdict]:
        """Decide on an atomic push of several refs, which then happens as a whole, also after a kill."""
        by_slug = {change.slug: change for change in change_sets}
        removals: list[pending.Removal] = []
        kept: dict[bytes, bytes] = {}
        for verdict in verdicts:
            match verdict.target, verdict.command.old, verdict.effect:
                case DraftRef(slug), bytes(head), Effect.DISCARD:
                    change = by_slug.get(slug) or changes.ChangeSet(self._store, slug, self._authorship)
                    by_slug[slug] = change
                    kept[verdict.command.ref] = change.discard(head)
                    removals.append(pending.Removal(verdict.command.ref, head))
        what = f"Push {len(verdicts)} refs at once"
        decided = list(by_slug.values())
        if moved := changes.decide(self._store, what, decided, discarded=removals, staged=staged):
            failed = changes.concurrent_update(moved)
            return [replace(v, refusal=v.refusal or (failed if _is_pending(v) else None)) for v in verdicts]
        return [replace(v, kept=kept.get(v.command.ref, b"")) for v in verdicts]

    def _discard(self, verdict: Verdict) -> bytes | None:
        target, head = verdict.target, verdict.command.old
        if not isinstance(target, DraftRef) or head is None:
            return None
        return changes.discard(self._store, target, head, self._authorship)


def _is_pending(verdict: Verdict) -> bool:
    return verdict.refusal is None and verdict.effect is not Effect.NOTHING


def has_content(verdict: Verdict) -> bool:
    """Return whether the verdict still has the content of its definition."""
    return verdict.definition is not None and verdict.definition.raw != b""


def _without_content(verdict: Verdict) -> Verdict:
    """Return the verdict on a published version without its content: thousands of them take much memory."""
    if verdict.effect is not Effect.PUBLISH or verdict.definition is None:
        return verdict
    return replace(verdict, definition=replace(verdict.definition, raw=b"", value=None))
