"""git push: read the commands, quarantine the objects, judge, write, and answer honestly.

The protocol is git-receive-pack's (gitprotocol-pack(5), gitprotocol-http(5)); dulwich frames its packets.
"ok" is said of a ref only when it holds the pushed value on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO

from dulwich.protocol import pkt_line

from gitstore import names, recording
from gitstore.comparing import what_changes
from gitstore.disk.faults import of_system
from gitstore.disk.quarantine import Quarantine, quarantine
from gitstore.errors import Code, GitstoreError
from gitstore.judging import StoreFacts
from gitstore.locks import MOST_WORKFLOWS
from gitstore.model import Definition, Permission
from gitstore.names import DraftRef, VersionRef
from gitstore.policy import Command, Effect, Verdict, discards_refused, judge
from gitstore.push_head import ZERO, Request, read_request
from gitstore.push_options import CAPABILITY, PushOptions, read_options
from gitstore.reading import Reading
from gitstore.recording import Occasion
from gitstore.store import Store
from gitstore.telling import Telling

CAPABILITIES = (
    b"report-status delete-refs side-band-64k quiet atomic ofs-delta push-options object-format=sha1 "
    b"agent=gitstore"
)

_BAND_SIZE = 65_515  # side-band-64k: 65,520 with the length and the band's number
_REPORT, _PROGRESS = 1, 2
_MOST_CHANGES = 50  # versions of a push whose line says what they change


@dataclass
class Receipt:
    """What became of a push: a verdict for each command, and the bytes to answer with."""

    verdicts: list[Verdict] = field(default_factory=list)
    answer: bytes = b""


def advertise(store: Reading) -> bytes:
    """The ref advertisement for a pusher: every ref that it may name, the ledgers included.

    Ledgers are there so that `git push --mirror` asks to delete them, is refused, and so discards nothing.
    """
    refs: dict[bytes, bytes] = {}
    for prefix in (names.DRAFTS, names.LEDGERS, names.TAGS):
        refs.update(store.refs.below(prefix))
    lines = [oid + b" " + name for name, oid in sorted(refs.items())] or [ZERO + b" capabilities^{}"]
    lines[0] += b"\0" + CAPABILITIES
    packets = [pkt_line(b"# service=git-receive-pack\n"), pkt_line(None)]
    packets += [pkt_line(line + b"\n") for line in lines]
    return b"".join([*packets, pkt_line(None)])


class Receiver:
    """One push into `store`. `occasion` says who pushes; `may` what they are allowed."""

    def __init__(
        self, store: Store, occasion: Occasion, may: Callable[[Permission], bool], telling: Telling
    ) -> None:
        self._store = store
        self._occasion = occasion
        self._may = may
        self._telling = telling

    def receive(self, read: Callable[[int], bytes]) -> Receipt:
        """Carry out the push that `read` yields.

        Raises what concerns the request as a whole (`malformed`, `unavailable` before anything is written);
        everything else is told in the receipt's answer.
        """
        request = read_request(read, self._store.limits.commands)
        if request is None:
            return Receipt()
        try:
            return self._carry_out(request, read)
        except OSError as error:
            # Told in the report, as git shows nobody what comes with a status 503.
            if (fault := of_system(error)) is None:
                raise
            return self._refuse_all(request, fault)

    def _carry_out(self, request: Request, read: Callable[[int], bytes]) -> Receipt:
        try:
            options = read_options(read) if CAPABILITY in request.capabilities else PushOptions()
        except GitstoreError as refusal:
            return self._refuse_all(request, refusal)
        self._telling.ignored_options(options.ignored)
        with quarantine(self._store.path) as held:
            try:
                if any(command.new for command in request.commands):
                    held.receive(read, self._store.limits)
            except GitstoreError as refusal:
                return self._refuse_all(request, _in_a_shallow_clone(refusal) if request.shallow else refusal)
            verdicts = self._judge_and_write(request, held, options)
        self._telling.conclude(verdicts, self._changes(verdicts))
        return Receipt(verdicts, _answer(request, b"unpack ok", verdicts, self._telling.lines))

    def _changes(self, verdicts: Sequence[Verdict]) -> dict[VersionRef, str]:
        """What each version that was published changes, in words. Of very many, nobody reads them."""
        found: dict[VersionRef, str] = {}
        published = [v for v in verdicts if v.refusal is None and v.effect is Effect.PUBLISH]
        for verdict in published[:_MOST_CHANGES]:
            match verdict.target, verdict.definition:
                case VersionRef(slug, number) as version, Definition() as after:
                    # The push is done: what becomes of these words must not make it look undone.
                    with suppress(Exception):
                        previous = self._store.predecessor(slug, number)
                        tag = self._store.refs.read(names.tag(slug, previous)) if previous else None
                        before = self._store.objects.peel(tag)[0] if tag else None
                        found[version] = what_changes(self._store, slug, before, after)
        return found

    def _refuse_all(self, request: Request, refusal: GitstoreError) -> Receipt:
        verdicts = [Verdict(command, refusal) for command in request.commands]
        self._telling.refused_objects(refusal)
        unpack = b"unpack " + _one_line(refusal.message)
        return Receipt(verdicts, _answer(request, unpack, verdicts, self._telling.lines))

    def _judge_and_write(self, request: Request, held: Quarantine, options: PushOptions) -> list[Verdict]:
        facts = _PushFacts(self._store.through(held.objects), self._may, held, shallow=request.shallow)
        for command in request.commands:
            facts.survey(command.new)
        targets = [names.parse(command.ref) for command in request.commands]
        slugs = sorted({target.slug for target in targets if target is not None})
        atomic = b"atomic" in request.capabilities
        no_discards = discards_refused(request.commands, options.discard)
        verdicts: list[Verdict] = []
        try:
            if len(slugs) > MOST_WORKFLOWS:
                verdicts = judge(request.commands, facts, atomic=atomic, no_discards=no_discards)
                if all(verdict.refusal or verdict.effect is Effect.NOTHING for verdict in verdicts):
                    return verdicts  # nobody else has to wait for so many to be refused
            with self._store.locks.writing(slugs):
                verdicts = judge(request.commands, facts, atomic=atomic, no_discards=no_discards)
                verdicts = self._write(verdicts, held, atomic=atomic)
        except OSError as error:
            if (fault := of_system(error)) is None:
                raise
            verdicts = [self._on_disk(command, fault) for command in request.commands]
        except GitstoreError as error:
            match error.code:
                case Code.PUBLISHED_NOT_MIRRORED:
                    # On disk, so it is ok; the rows follow by the next reconcile.
                    self._telling.mirrored_later()
                case Code.INTEGRITY | Code.BUSY:
                    verdicts = [self._on_disk(command, error) for command in request.commands]
                case _:
                    raise
        return verdicts

    def _on_disk(self, command: Command, fault: GitstoreError) -> Verdict:
        """After a fault in the middle: what holds its value is done, the rest is to be pushed again."""
        try:
            done = names.is_ref(command.ref) and self._store.refs.read(command.ref) == command.new
        except GitstoreError:  # it is damaged, which may be the fault
            done = False
        return Verdict(command, None if done else fault, target=names.parse(command.ref))

    def _write(self, verdicts: list[Verdict], held: Quarantine, *, atomic: bool) -> list[Verdict]:
        """Write what was accepted, a workflow at a time (an atomic push at once); the final verdicts."""
        accepted = [v for v in verdicts if v.refusal is None and v.target is not None]
        for verdict in accepted:
            # Before an object is there that nobody would need.
            self._store.refs.check_place(verdict.command.ref)
            if verdict.target is not None:
                self._store.refs.check_place(names.ledger(verdict.target.slug))
        needed = held.needed_by(v.command.new for v in accepted if v.command.new)
        held.admit(needed)
        self._store.objects.adopt(held.objects, needed)
        by_slug: dict[str, list[Verdict]] = {}
        for verdict in accepted:
            if verdict.target is not None:
                by_slug.setdefault(verdict.target.slug, []).append(verdict)
        recorders = [
            recording.record(self._store, group, self._occasion)
            for group in by_slug.values()
            if any(v.effect in (Effect.SAVE, Effect.PUBLISH) for v in group)
        ]
        failed: dict[bytes, GitstoreError] = {}
        for batch in [recorders] if atomic else [[recorder] for recorder in recorders]:
            moved = recording.write(self._store, batch)
            if moved:
                failed.update((update.name, recording.raced(moved)) for r in batch for update in r.refs)
        kept: dict[bytes, bytes] = {}
        for ref, verdict in [(v.command.ref, v) for v in accepted if v.effect is Effect.DISCARD]:
            name = None if failed else self._discard(verdict)
            if name is None:
                failed[ref] = recording.raced([*failed] or [ref])
            else:
                kept[ref] = name
        refs = [(v.command.ref, v) for v in verdicts]
        return [replace(v, refusal=failed.get(ref, v.refusal), kept=kept.get(ref, b"")) for ref, v in refs]

    def _discard(self, verdict: Verdict) -> bytes | None:
        target, head = verdict.target, verdict.command.old
        if not isinstance(target, DraftRef) or head is None:
            return None
        return recording.discard(self._store, target, head, self._occasion)


class _PushFacts(StoreFacts):
    """Facts with the quarantine in front: a tip whose objects are not all there has none."""

    def __init__(
        self, reading: Reading, may: Callable[[Permission], bool], held: Quarantine, *, shallow: bool
    ) -> None:
        super().__init__(reading, may)
        self._held = held
        self._shallow = shallow
        self._broken: dict[bytes, GitstoreError] = {}
        self._surveyed: set[bytes] = set()

    def survey(self, tip: bytes | None) -> None:
        """Walk what `tip` needs, before any lock is taken."""
        if tip is None or tip in self._surveyed:
            return
        self._surveyed.add(tip)
        try:
            self._held.check(tip)
        except GitstoreError as error:
            self._broken[tip] = _in_a_shallow_clone(error) if self._shallow else error

    def peel(self, oid: bytes) -> bytes:
        self._check(oid)
        return super().peel(oid)

    def draft_commit(self, oid: bytes) -> None:
        self._check(oid)
        super().draft_commit(oid)

    def _check(self, oid: bytes) -> None:
        if oid in self._broken:
            raise self._broken[oid]


def _in_a_shallow_clone(error: GitstoreError) -> GitstoreError:
    """Missing objects, of a pusher whose clone lacks history, are that history."""
    if error.code is not Code.OBJECTS_MISSING:
        return error
    return GitstoreError(Code.SHALLOW, "shallow clone: git fetch --unshallow, then push")


def _answer(request: Request, unpack: bytes, verdicts: Sequence[Verdict], lines: Sequence[str]) -> bytes:
    """The report, with `lines` before it where the pusher reads the side band."""
    report = BytesIO()
    report.write(pkt_line(unpack + b"\n"))
    for verdict in verdicts:
        ref = verdict.command.ref
        if verdict.refusal is None:
            report.write(pkt_line(b"ok " + ref + b"\n"))
        else:
            report.write(pkt_line(b"ng " + ref + b" " + _one_line(verdict.refusal.message) + b"\n"))
    report.write(pkt_line(None))
    wanted = report.getvalue() if b"report-status" in request.capabilities else b""
    if b"side-band-64k" not in request.capabilities:
        return wanted
    said = "".join(line + "\n" for line in lines).encode("utf-8", "replace")
    return _band(_PROGRESS, said) + _band(_REPORT, wanted) + pkt_line(None)


def _band(number: int, data: bytes) -> bytes:
    pieces = range(0, len(data), _BAND_SIZE)
    return b"".join(pkt_line(bytes([number]) + data[at : at + _BAND_SIZE]) for at in pieces)


def _one_line(message: str) -> bytes:
    """A reason as git prints it: one line, without control characters."""
    printable = "".join(char if char.isprintable() else " " for char in message)
    return printable[:900].encode("utf-8", "replace")
