"""git push: read the commands, quarantine the objects, judge, write, and report the actual result.

The protocol is git-receive-pack's (gitprotocol-pack(5), gitprotocol-http(5)); dulwich frames its packets.
"ok" is reported for a ref only when it holds the pushed value on disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO

from dulwich.objects import ShaFile
from dulwich.protocol import pkt_line

from gitstore import budget, changes, names, pending
from gitstore.changes import Authorship, Prepared
from gitstore.diff.summary import what_changes
from gitstore.errors import (
    BusyError,
    Code,
    GitstoreError,
    IntegrityError,
    NotMirroredError,
    TooLargeError,
)
from gitstore.git.files import machine_fault
from gitstore.git.quarantine import Quarantine, quarantine
from gitstore.masking import masked_text
from gitstore.model import Definition
from gitstore.names import DraftRef, VersionRef
from gitstore.policy import (
    ATOMIC_FAILED,
    Command,
    Effect,
    Verdict,
    discards_refused,
    judge,
    settle_discards,
)
from gitstore.policy_facts import Authorize, PushFacts, in_a_shallow_clone
from gitstore.push.report import PushReport
from gitstore.push.request import (
    CAPABILITY,
    ZERO,
    PushOptions,
    Request,
    Slice,
    divide,
    read_options,
    read_request,
)
from gitstore.repository import Repository
from gitstore.store import Store
from gitstore.unit_of_work import check_count

CAPABILITIES = (
    b"report-status delete-refs side-band-64k atomic ofs-delta push-options object-format=sha1 agent=gitstore"
)

MOST_ADVERTISED = 2_000
"""Number of refs beyond which a pusher is not shown all of them."""
SURVEYED = 500
"""Number of workflows of which the newest version is then shown if they have no draft."""

_ADVERTISED = (
    names.DRAFTS, names.LEDGERS, names.RELEASES, names.RENAMED, names.SUPERSEDED, names.TAGS
)  # fmt: skip
_BAND_SIZE = 65_515  # side-band-64k: 65,520 with the length and the band's number
_STATUS, _PROGRESS, _FATAL = 1, 2, 3
_DRAINED, _CHUNK = 32 * 2**20, 2**16  # bytes of a refused request that are read, so that git reads the answer
_UNSURE = frozenset({Code.INTEGRITY, Code.WRONG_NUMBER})
_SUMMARIZING = 0.5  # seconds of CPU time for the summaries in one report: some thousand, of small definitions


@dataclass
class Receipt:
    """The result of a push: a verdict for each command, and the response bytes."""

    verdicts: list[Verdict] = field(default_factory=list)
    answer: bytes = b""


def advertise(repository: Repository) -> bytes:
    """Return the ref advertisement for a pusher: every ref that it may name, including ledgers.

    Ledgers are included so that `git push --mirror` asks to delete them, is refused, and so discards nothing;
    superseded heads and releases, so that a mirror clone does not push them as new.

    Of more than `MOST_ADVERTISED` refs, those are advertised that a push needs: the drafts, so that it names
    their old values and sends only new objects, and one ledger for the sake of `--mirror`. Tags that the
    pusher then sends again are still judged by what is here.
    """
    if len(repository.refs.sample(names.PREFIX, MOST_ADVERTISED + 1)) > MOST_ADVERTISED:
        refs = _needed_by_pushers(repository)
    else:
        refs = {}
        for prefix in _ADVERTISED:
            refs |= repository.refs.below(prefix)
    first, *rest = sorted(refs.items()) or [(b"capabilities^{}", ZERO)]
    packets = [pkt_line(b"# service=git-receive-pack\n"), pkt_line(None)]
    packets += [pkt_line(b"%b %b\0%b\n" % (first[1], first[0], CAPABILITIES))]
    packets += [b"%04x%b %b\n" % (len(name) + 46, oid, name) for name, oid in rest]  # faster than pkt_line
    return b"".join([*packets, pkt_line(None)])


def _needed_by_pushers(repository: Repository) -> dict[bytes, bytes]:
    """Return the drafts, the newest versions of some workflows without a draft, and one ledger."""
    refs = repository.refs.below(names.DRAFTS)
    ledgers = repository.refs.sample(names.LEDGERS, SURVEYED)
    for slug in (ledger.removeprefix(names.LEDGERS) for ledger in ledgers):
        if names.DRAFTS + slug not in refs:
            tags = repository.refs.below(names.TAGS + slug + b"/")
            versions = [ref for ref in map(names.parse, tags) if isinstance(ref, VersionRef)]
            if versions:
                newest = names.tag(versions[0].slug, max(version.number for version in versions))
                refs[newest] = tags[newest]
    sentinel = {ledger: repository.refs.read(ledger) for ledger in ledgers[:1]}
    return refs | {ledger: oid for ledger, oid in sentinel.items() if oid is not None}


class Receiver:
    """One push into `store` with the `authorship` of its pusher, whose permissions `authorize` checks."""

    def __init__(
        self, store: Store, authorship: Authorship, authorize: Authorize, report: PushReport
    ) -> None:
        self._store = store
        self._authorship = authorship
        self._authorize = authorize
        self._report = report
        self._prepared = Prepared()
        self._no_discards: str | None = None

    def receive(self, read: Callable[[int], bytes]) -> Receipt:
        """Carry out the push that `read` yields.

        Raises errors about the request as a whole (`malformed`; `unavailable` before anything is written);
        all others are reported in the receipt's response.
        """
        try:
            request = read_request(read, self._store.limits.commands)
        except TooLargeError as refusal:
            # A pusher that was not shown all tags may send them all. git does not display the body of a 413.
            _drain(read)
            return Receipt(answer=_band(_FATAL, _one_line(refusal.message)) + pkt_line(None))
        if request is None:
            return Receipt()
        try:
            return self._carry_out(request, read)
        except OSError as error:
            # Report it in the response, because git does not display the body of a 503.
            if (fault := machine_fault(error)) is None:
                raise
            return self._refuse_all(request, fault)

    def _carry_out(self, request: Request, read: Callable[[int], bytes]) -> Receipt:
        try:
            options = read_options(read) if CAPABILITY in request.capabilities else PushOptions()
        except GitstoreError as refusal:
            return self._refuse_all(request, refusal)
        self._report.ignored_options(options.ignored)
        self._authorship = replace(self._authorship, activate=options.activate, message=options.message)
        with quarantine(self._store.path) as held:
            try:
                if any(command.new for command in request.commands):
                    held.receive(read, self._store.limits)
            except GitstoreError as refusal:
                return self._refuse_all(request, in_a_shallow_clone(refusal) if request.shallow else refusal)
            verdicts = self._judge_and_write(request, held, options)
        self._report.conclude(verdicts, self._changes(verdicts))
        return Receipt(verdicts, _answer(request, b"unpack ok", verdicts, self._report.lines))

    def _changes(self, verdicts: Sequence[Verdict]) -> dict[VersionRef, str]:
        """Summarize the change of each published version, within a limit of CPU time."""
        summaries: dict[VersionRef, str] = {}
        published = [v for v in verdicts if v.refusal is None and v.effect is Effect.PUBLISH]
        previous = self._predecessors([v.target for v in published if isinstance(v.target, VersionRef)])
        pushed = {(v.target.slug, v.commit): v.definition for v in published if v.target}
        with budget.limited(_SUMMARIZING):  # writing has lifted the budget of the request
            for verdict in published:
                # The push is complete: a failed summary must not make it look failed.
                with suppress(Exception):
                    budget.check()
                    match verdict.target, verdict.definition:
                        case VersionRef(slug) as version, Definition() as after:
                            change = self._change(slug, previous[version], verdict.commit, after, pushed)
                            summaries[version] = change
        return summaries

    def _predecessors(self, versions: Sequence[VersionRef]) -> dict[VersionRef, int]:
        numbers: dict[str, list[int]] = {}
        for version in versions:
            numbers.setdefault(version.slug, []).append(version.number)
        found: dict[VersionRef, int] = {}
        for slug, of in numbers.items():
            with suppress(GitstoreError):
                previous = self._store.predecessors(slug, of)
                found |= {VersionRef(slug, number): previous[number] for number in of}
        return found

    def _change(
        self,
        slug: str,
        previous: int,
        commit: bytes,
        after: Definition,
        pushed: Mapping[tuple[str, bytes], Definition | None],
    ) -> str:
        """Summarize the change of a version; the definitions of `pushed` commits need not be parsed again."""
        tag = self._store.refs.read(self._store.tag(slug, previous)) if previous else None
        before = self._store.objects.peel(tag)[0] if tag else None
        if before is not None and self._holds_same(slug, before, commit):
            return f"nothing changed since v{previous}"
        return what_changes(self._store, slug, before, after, old=pushed.get((slug, before or b"")))

    def _holds_same(self, slug: str, before: bytes, after: bytes) -> bool:
        """Return whether two commits hold the same bytes as the definition of `slug`."""
        blobs = {self._store.locate(self._store.objects.commit(oid), slug)[1] for oid in (before, after)}
        return len(blobs) == 1

    def _refuse_all(self, request: Request, refusal: GitstoreError) -> Receipt:
        verdicts = [Verdict(command, refusal) for command in request.commands]
        self._report.refused_objects(refusal)
        unpack = b"unpack " + _one_line(refusal.message)
        return Receipt(verdicts, _answer(request, unpack, verdicts, self._report.lines))

    def _judge_and_write(self, request: Request, held: Quarantine, options: PushOptions) -> list[Verdict]:
        facts = PushFacts(self._store.through(held.objects), self._authorize, held, shallow=request.shallow)
        for command in request.commands:
            facts.survey(command.new)
        self._no_discards = discards_refused(request.commands, options.discard)
        if b"atomic" in request.capabilities:
            return self._at_once(request.commands, facts, held)
        return self._in_slices(request.commands, facts, held)

    def _judge(self, commands: Sequence[Command], facts: PushFacts, *, atomic: bool = False) -> list[Verdict]:
        return judge(commands, facts, atomic=atomic, no_discards=self._no_discards)

    def _at_once(self, commands: Sequence[Command], facts: PushFacts, held: Quarantine) -> list[Verdict]:
        """Carry out an atomic push in one unit of work."""
        slices = divide(commands)
        slugs = sorted({slug for part in slices for slug in part.slugs})
        try:
            check_count(len(slugs))
        except GitstoreError as refusal:
            self._report.refused_objects(refusal)
            return [Verdict(command, refusal) for command in commands]
        if len(slices) > 1:
            verdicts = self._judge(commands, facts, atomic=True)
            if not any(map(_is_pending, verdicts)):
                return verdicts  # refused without locking so many workflows against other writers
        verdicts, fault = self._unit(Slice(tuple(slugs), tuple(commands)), facts, held, atomic=True)
        if fault is None:
            return verdicts
        failed = fault.reworded(f"{ATOMIC_FAILED}: {fault.message}")
        return [replace(verdict, refusal=verdict.refusal and failed) for verdict in verdicts]

    def _in_slices(self, commands: Sequence[Command], facts: PushFacts, held: Quarantine) -> list[Verdict]:
        """Carry out a non-atomic push, one slice at a time.

        Several slices are judged as a whole before any lock is taken: a refusal there is final, and
        definitions are parsed and ledger entries composed while no other writer waits. Discards come last,
        because any refusal also refuses them.
        """
        slices = divide(commands)
        if len(slices) < 2:
            whole = Slice(slices[0].slugs if slices else (), tuple(commands))
            if any(command.new is None for command in commands):
                return self._unit(whole, facts, held)[0]
            final = self._write_slices([whole], facts, held)
            return [final[command.ref] for command in commands]
        with self._store.refs.cached_reads():
            verdicts = self._judge(commands, facts)
            self._prepare(verdicts, facts)
        # Judged again under the lock: another writer's refs may look like a contradiction for a moment, and
        # the numbers that were assigned before a restore are known only there.
        unsure = {v.command for v in verdicts if v.refusal is not None and v.refusal.code in _UNSURE}
        wanted = unsure | {v.command for v in verdicts if changes.is_written(v)}
        parts = divide(v.command for v in verdicts if v.refusal is None or v.command in unsure)
        parts = [part for part in parts if not wanted.isdisjoint(part.commands)]
        final = {verdict.command.ref: verdict for verdict in verdicts}
        final |= self._write_slices(parts, facts, held, discards=False)
        final = {verdict.command.ref: verdict for verdict in settle_discards(list(final.values()))}
        discards = [v.command for v in final.values() if _is_pending(v) and v.effect is Effect.DISCARD]
        final |= self._write_slices(divide(discards), facts, held)
        return [final[command.ref] for command in commands]

    def _prepare(self, verdicts: Sequence[Verdict], facts: PushFacts) -> None:
        """Write the ledger entries for `verdicts`, valid if nothing changes until the locks are held."""
        for group in changes.by_workflow(verdicts):
            with suppress(GitstoreError):  # it recurs under the lock and is reported there
                changes.record(facts.repository, group, self._authorship, self._prepared)
        self._prepared.write(self._store.objects)

    def _write_slices(
        self, parts: Sequence[Slice], facts: PushFacts, held: Quarantine, *, discards: bool = True
    ) -> dict[bytes, Verdict]:
        """Return the verdicts on `parts` by ref. Raises `unavailable` before anything is written."""
        final: dict[bytes, Verdict] = {}
        waiting = deque(parts)
        stopped: GitstoreError | None = None
        while waiting:
            part = waiting.popleft()
            if stopped is not None:
                verdicts = [self._on_disk(command, stopped) for command in part.commands]
            else:
                try:
                    verdicts, stopped = self._unit(part, facts, held, discards=discards)
                except GitstoreError as error:
                    if not final:
                        raise
                    stopped = error
                    verdicts = [self._on_disk(command, error) for command in part.commands]
                if stopped is not None and (rest := part.without_contradiction(stopped)) is not None:
                    # The rows of one workflow contradict Git: the other workflows are not affected.
                    waiting.appendleft(rest)
                    verdicts = [v for v in verdicts if v.command not in rest.commands]
                    stopped = None
            for verdict in verdicts:
                if discards or verdict.effect is not Effect.DISCARD:
                    # The first slice that names a draft decides on it.
                    final.setdefault(verdict.command.ref, verdict)
        return final

    def _unit(
        self,
        part: Slice,
        facts: PushFacts,
        held: Quarantine,
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
                verdicts = self._judge(part.commands, facts, atomic=atomic)
                verdicts = self._write(verdicts, facts, held, atomic=atomic, discards=discards)
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

    def _write(
        self, verdicts: list[Verdict], facts: PushFacts, held: Quarantine, *, atomic: bool, discards: bool
    ) -> list[Verdict]:
        """Write the accepted commands, discards only if `discards`; return the final verdicts."""
        accepted = [v for v in verdicts if v.refusal is None and v.target is not None]
        at_once = atomic and self._store.level >= pending.LEVEL and sum(map(_is_pending, accepted)) > 1
        for verdict in accepted:
            # Check before any object is moved in that would then be unused.
            self._store.refs.check_place(verdict.command.ref)
            if verdict.target is not None:
                self._store.refs.check_place(names.ledger(verdict.target.slug))
        written = filter(changes.is_written, accepted)  # the objects of other refs are here
        needed = held.needed_by(v.command.new for v in written if v.command.new)
        staged = held.admit(needed)
        self._store.objects.adopt(held.objects, needed)
        for verdict in accepted:
            if verdict.target is not None and verdict.definition is not None:
                facts.repository.cache_content(verdict.target.slug, verdict.commit, verdict.definition)
        change_sets = [
            changes.record(facts.repository, group, self._authorship, self._prepared)
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


def _answer(request: Request, unpack: bytes, verdicts: Sequence[Verdict], lines: Sequence[str]) -> bytes:
    """Return the report, preceded by `lines` if the pusher supports the side band."""
    report = BytesIO()
    report.write(pkt_line(unpack + b"\n"))
    for verdict in verdicts:
        ref = verdict.command.ref
        if verdict.refusal is None:
            report.write(pkt_line(b"ok " + ref + b"\n"))
        else:
            report.write(
                pkt_line(b"ng " + ref + b" " + _one_line(masked_text(verdict.refusal.message)) + b"\n")
            )
    report.write(pkt_line(None))
    status = report.getvalue() if b"report-status" in request.capabilities else b""
    if b"side-band-64k" not in request.capabilities:
        return status
    progress = "".join(line + "\n" for line in lines).encode("utf-8", "replace")
    return _band(_PROGRESS, progress) + _band(_STATUS, status) + pkt_line(None)


def _drain(read: Callable[[int], bytes]) -> None:
    for _ in range(_DRAINED // _CHUNK):
        if not read(_CHUNK):
            return


def _band(number: int, data: bytes) -> bytes:
    pieces = range(0, len(data), _BAND_SIZE)
    return b"".join(pkt_line(bytes([number]) + data[at : at + _BAND_SIZE]) for at in pieces)


def _one_line(message: str) -> bytes:
    """Return a reason in the form that git prints: one line, without control characters."""
    printable = "".join(char if char.isprintable() else " " for char in message)
    return printable[:900].encode("utf-8", "replace")
