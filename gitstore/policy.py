"""Every rule on a ref update, for pushes and HTTP alike. Pure: all facts are passed in.

A set of commands is judged together: drafts first, then version tags ordered by (slug, number), each against
the state that the commands before it leave, and discards last. So `git push --tags` of v1 ... v11 works in
any order that git sends, and so does a draft together with its tag in one push.

A push discards one draft and nothing else: `git push --prune` and `--mirror` delete every remote ref that
the clone lacks, which is rarely intended. To discard more, the pusher gives the exact count of discards as a
push option. A discard is refused if another command of the push is refused.

An imported version was published, and judged, upstream. Therefore any larger number is accepted, and gaps
remain; the commit need not descend from the version before it, its tag object may have any name, and its
definition may be invalid or unparsable: the version is recorded as it is. All other rules of a push apply:
above all, a version published here does not change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

from gitstore import names
from gitstore.definition.quoting import clip
from gitstore.errors import (
    BaseMovedError,
    Code,
    ConflictError,
    GitstoreError,
    InvalidDefinitionError,
    StaleDraftError,
)
from gitstore.model import Definition, Permission, Problems
from gitstore.names import DraftRef, VersionRef, next_number

DISCARD_OPTION: Final = "gitstore.discard"
"""The push option with the exact count of discards."""
ATOMIC_FAILED: Final = "atomic transaction failed"
"""The reason that git's own server gives for every ref of an atomic push when one fails."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a push: update `ref` from `old` to `new`. None means that the ref does not exist."""

    ref: bytes
    old: bytes | None
    new: bytes | None


class Effect(StrEnum):
    """The effect of an accepted command."""

    NOTHING = "nothing"
    SAVE = "save"
    PUBLISH = "publish"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for a command: a refusal, or an effect.

    For SAVE and PUBLISH, `commit` is the new value peeled to a commit and `definition` its content: None for
    an imported version that does not parse. `problems` are those of a published definition. For a DISCARD
    that was carried out, `kept` is the superseded ref that keeps the draft's head.
    """

    command: Command
    refusal: GitstoreError | None = None
    effect: Effect = Effect.NOTHING
    target: DraftRef | VersionRef | None = None
    commit: bytes = b""
    definition: Definition | None = None
    problems: Problems = field(default_factory=Problems)
    kept: bytes = b""


@dataclass(slots=True)
class WorkflowTip:
    """The tips of a workflow; while a set is judged, the tips that the commands so far will leave.

    `floor` is the highest number ever assigned: a number is never reused, even if its version is no longer in
    the repository.
    """

    draft: bytes | None
    latest: int
    latest_commit: bytes | None
    floor: int = 0
    archived: bool = False

    @property
    def following(self) -> int:
        """The number of the next version."""
        return next_number(self.latest, self.floor)


class Facts(Protocol):
    """The facts about the repository, the pushed objects and the pusher that the rules depend on."""

    def authorize(self, permission: Permission, what: str) -> None:
        """Raise `forbidden` unless the pusher has the permission that `what`, a phrase, needs."""
        ...

    def tip(self, slug: str) -> WorkflowTip:
        """Return the workflow's tips; raise `integrity` if tags and ledger contradict each other."""
        ...

    def holds(self, ref: bytes) -> bytes | None: ...

    def peel(self, oid: bytes) -> tuple[bytes, bytes | None]:
        """Return the commit that a version's tag holds, and the name in the tag object if there is one.

        Raises the error found in it.
        """
        ...

    def draft_commit(self, oid: bytes) -> None:
        """Raise unless `oid` is a commit."""
        ...

    def is_ancestor(self, ancestor: bytes, descendant: bytes) -> bool: ...

    def definition(self, commit: bytes, slug: str) -> Definition:
        """Return the parsed definition; raise `definition_missing` or `definition_unparsable`."""
        ...


def require_active(slug: str, *, archived: bool) -> None:
    """Raise `workflow_archived` if the workflow is archived."""
    if archived:
        raise archived_error(slug)


def archived_error(slug: str) -> ConflictError:
    """Return the error for any change of an archived workflow."""
    return ConflictError(
        Code.WORKFLOW_ARCHIVED,
        f"{slug} is archived and takes no change: unarchive it first (gitstore unarchive {slug})",
    )


def judge(
    commands: Sequence[Command],
    facts: Facts,
    *,
    atomic: bool = False,
    imported: bool = False,
    no_discards: str | None = None,
) -> list[Verdict]:
    """Return a verdict for each of `commands`, in their order.

    `no_discards` is the result of `discards_refused` for the whole push, of which `commands` may be a part.
    """
    rules = _Rules(facts, imported, no_discards)
    verdicts = {command.ref: rules.verdict(command) for command in sorted(commands, key=_order)}
    for ref, times in Counter(command.ref for command in commands).items():
        if times > 1:
            what = f"{clip(names.show(ref))} is named twice in this push"
            error = ConflictError(Code.REF_NOT_ACCEPTED, what)
            verdicts[ref] = replace(verdicts[ref], refusal=error)
    refused = [ref for ref, verdict in verdicts.items() if verdict.refusal]
    if refused:
        _refuse_beside(verdicts, clip(names.show(refused[0])), atomic=atomic)
    return [verdicts[command.ref] for command in commands]


def discards_refused(commands: Sequence[Command], announced: int | None) -> str | None:
    """Return the reason why a push of `commands` may discard no draft, or None if it may.

    `announced` is the count of discards that the pusher gave as a push option, or None.
    """
    count = sum(
        command.new is None and isinstance(names.parse(command.ref), DraftRef) for command in commands
    )
    if announced is None:
        return None if len(commands) == 1 else "a push discards one draft and nothing else"
    return None if announced == count else f"{DISCARD_OPTION} is {announced}, and the push discards {count}"


def settle_discards(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Refuse the discards among `verdicts`, those of a whole push, if any other command of it is refused."""
    by_ref = {verdict.command.ref: verdict for verdict in verdicts}
    refused = next((ref for ref, verdict in by_ref.items() if verdict.refusal), None)
    if refused is not None:
        _refuse_beside(by_ref, names.show(refused), atomic=False)
    return [by_ref[verdict.command.ref] for verdict in verdicts]


def _refuse_beside(verdicts: dict[bytes, Verdict], refused: str, *, atomic: bool) -> None:
    """Refuse the commands that depend on a refused one.

    These are all commands of an atomic push and, in any push, the discards, so that `git push --mirror`
    destroys nothing.
    """
    for ref, verdict in verdicts.items():
        if verdict.refusal:
            continue
        if atomic:
            error = ConflictError(Code.ATOMIC_REFUSED, f"{ATOMIC_FAILED}: {refused} was refused")
        elif verdict.effect is Effect.DISCARD:
            error = ConflictError(
                Code.DISCARD_NOT_ALONE,
                f"{refused} was refused, so no draft is discarded: {_deletion(verdict.target)}",
            )
        else:
            continue
        verdicts[ref] = replace(verdict, refusal=error)


def _deletion(draft: DraftRef | VersionRef | None) -> str:
    """Return the git command that discards one draft and nothing else."""
    return f"git push origin --delete {names.short(draft) if draft else ''}"


def _order(command: Command) -> tuple[int, str, int]:
    match names.parse(command.ref):
        case VersionRef(slug, number):
            return (1, slug, number)
        case DraftRef(slug) if command.new is not None:
            return (0, slug, 0)
        case _:
            return (2, "", 0)


@dataclass
class _Rules:
    """The rules on one set of commands, each judged against the tips that the commands before it leave."""

    facts: Facts
    imported: bool = False
    no_discards: str | None = None
    tips: dict[str, WorkflowTip] = field(default_factory=dict)

    def verdict(self, command: Command) -> Verdict:
        target = names.parse(command.ref)
        try:
            # An invalid ref name cannot exist, so do not report it as already deleted either.
            if names.is_ref(command.ref) and self.facts.holds(command.ref) == command.new:
                return Verdict(command, target=target)
            match target:
                case VersionRef():
                    return self._publish(command, target)
                case DraftRef() if command.new is not None:
                    return self._save(command, target, command.new)
                case DraftRef():
                    return self._discard(command, target)
        except GitstoreError as refusal:
            return Verdict(command, refusal, target=target)
        shown = clip(names.show(command.ref))
        what = f"{shown} is not accepted here: push {names.accepted_instead(command.ref)}"
        return Verdict(command, ConflictError(Code.REF_NOT_ACCEPTED, what))

    def _tip(self, slug: str) -> WorkflowTip:
        if slug not in self.tips:
            self.tips[slug] = self.facts.tip(slug)
        return self.tips[slug]

    def _fresh_tip(self, command: Command, slug: str) -> WorkflowTip:
        """Return the tip for a change of the draft. Raises `forbidden` or `stale_draft`."""
        what = "discarding a draft" if command.new is None else "saving a draft"
        self.facts.authorize(Permission.EDIT, what)
        tip = self._tip(slug)
        require_active(slug, archived=tip.archived)
        if command.old != tip.draft:
            raise StaleDraftError("the draft moved since you fetched; pull, then push again")
        return tip

    def _save(self, command: Command, target: DraftRef, new: bytes) -> Verdict:
        tip = self._fresh_tip(command, target.slug)
        self.facts.draft_commit(new)
        # An upstream's draft that is behind ours or behind the latest version changes nothing.
        commits = [commit for commit in (tip.draft, tip.latest_commit) if commit is not None]
        if self.imported and any(self.facts.is_ancestor(new, commit) for commit in commits):
            return Verdict(command, target=target)
        if tip.draft is not None and not self.facts.is_ancestor(tip.draft, new):
            raise ConflictError(
                Code.NOT_FAST_FORWARD,
                "not a fast-forward: rebase onto it, "
                "or delete the draft and push again (the old one is kept)",
            )
        definition = self.facts.definition(new, target.slug)
        tip.draft = new
        return Verdict(command, None, Effect.SAVE, target, new, definition)

    def _discard(self, command: Command, target: DraftRef) -> Verdict:
        tip = self._fresh_tip(command, target.slug)
        if self.no_discards is not None:
            message = f"not discarded, as {self.no_discards}: {_deletion(target)}"
            raise ConflictError(Code.DISCARD_NOT_ALONE, message)
        tip.draft = None
        return Verdict(command, None, Effect.DISCARD, target)

    def _publish(self, command: Command, target: VersionRef) -> Verdict:
        slug, number = target.slug, target.number
        tip = self._tip(slug)
        if command.new is None or self.facts.holds(command.ref) is not None:
            raise ConflictError(
                Code.VERSION_IMMUTABLE,
                f"v{number} is published and can't change; the next version is v{tip.following}",
                version=number,
                next=tip.following,
            )
        self.facts.authorize(Permission.PUBLISH, "publishing")
        require_active(slug, archived=tip.archived)
        commit, name = self.facts.peel(command.new)
        if number < tip.following or (number > tip.following and not self.imported):
            raise self._wrong_number(target, tip, commit)
        own = names.short(target)
        if name is not None and name != own.encode() and not self.imported:
            raise ConflictError(
                Code.REF_NOT_ACCEPTED,
                f"the tag object calls itself {clip(names.show(name))}, not {own}: "
                f"git tag -f -a {own} {commit[:12].decode()} && git push origin {own}",
            )
        base = None if self.imported else tip.latest_commit
        if base is not None and not self.facts.is_ancestor(base, commit):
            latest = names.short(VersionRef(slug, tip.latest))
            raise BaseMovedError(
                f"v{tip.latest} was published after this draft began: git merge {latest}, then tag again",
                latest=tip.latest,
            )
        definition, problems = self._published_content(commit, slug)
        tip.latest, tip.latest_commit = number, commit
        return Verdict(command, None, Effect.PUBLISH, target, commit, definition, problems)

    def _published_content(self, commit: bytes, slug: str) -> tuple[Definition | None, Problems]:
        """Return the definition to publish and its problems. Only an import may have errors."""
        try:
            definition = self.facts.definition(commit, slug)
        except InvalidDefinitionError as error:
            if self.imported:
                return None, Problems.of(error.problems)
            raise
        count = definition.problems.errors
        if count and not self.imported:
            raise InvalidDefinitionError(
                Code.DEFINITION_INVALID,
                f"{slug} can't be published: {count} problem{'' if count == 1 else 's'}",
                problems=definition.problems,
            )
        return definition, definition.problems

    def _wrong_number(self, target: VersionRef, tip: WorkflowTip, commit: bytes) -> GitstoreError:
        number, following = target.number, tip.following
        reasons = []
        if tip.latest < number <= tip.floor:
            reasons = [
                f"v{number} is taken: numbers up to v{tip.floor} were assigned before and are never reused"
            ]
        elif self.imported:
            reasons = [f"v{number} is below v{tip.latest}, the latest version here; gaps are never filled"]
        if not self.imported:
            wrong, right = names.short(target), names.short(VersionRef(target.slug, following))
            retag = (
                f"git tag -d {wrong} && git tag -a {right} {commit[:12].decode()} && git push origin {right}"
            )
            reasons.append(f"the next version is v{following}: {retag}")
        return ConflictError(Code.WRONG_NUMBER, "; ".join(reasons), next=following)
