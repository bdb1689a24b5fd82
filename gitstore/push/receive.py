"""git push: read the commands, quarantine the objects, carry the commands out, report the actual result.

The protocol is git-receive-pack's (gitprotocol-pack(5), gitprotocol-http(5)); dulwich frames its packets.
"ok" is reported for a ref only when it holds the pushed value on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO

from dulwich.protocol import pkt_line

from gitstore import budget, names
from gitstore.changes import Authorship
from gitstore.diff.summary import what_changes
from gitstore.errors import (
    GitstoreError,
    TooLargeError,
)
from gitstore.git.files import machine_fault
from gitstore.git.quarantine import quarantine
from gitstore.masking import masked_text
from gitstore.model import Definition
from gitstore.names import VersionRef
from gitstore.policy import (
    Effect,
    Verdict,
    discards_refused,
)
from gitstore.policy_facts import Authorize, PushFacts, in_a_shallow_clone
from gitstore.push.report import PushReport
from gitstore.push.request import (
    CAPABILITY,
    ZERO,
    PushOptions,
    Request,
    read_options,
    read_request,
)
from gitstore.push.writer import PushWriter, has_content
from gitstore.repository import Repository
from gitstore.store import Store

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
            facts = PushFacts(
                self._store.through(held.objects), self._authorize, held, shallow=request.shallow
            )
            refused = discards_refused(request.commands, options.discard)
            writer = PushWriter(self._store, self._authorship, facts, held, self._report, no_discards=refused)
            verdicts = writer.write(request.commands, atomic=b"atomic" in request.capabilities)
        self._report.conclude(verdicts, self._changes(verdicts))
        return Receipt(verdicts, _answer(request, b"unpack ok", verdicts, self._report.lines))

    def _changes(self, verdicts: Sequence[Verdict]) -> dict[VersionRef, str]:
        """Summarize the change of each published version, within a limit of CPU time."""
        summaries: dict[VersionRef, str] = {}
        published = [v for v in verdicts if v.effect is Effect.PUBLISH and not v.refusal and has_content(v)]
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
