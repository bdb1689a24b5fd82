"""The `remote: ...` lines in a pusher's terminal, with the same wording as over HTTP and in the UI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gitstore.definition.document import describe
from gitstore.definition.elements import mapping
from gitstore.definition.quoting import clip
from gitstore.errors import BaseMovedError, Code, GitstoreError
from gitstore.masking import masked_text
from gitstore.model import Definition, Problem, Problems
from gitstore.names import DraftRef, VersionRef, draft, short, show
from gitstore.policy import Effect, Verdict
from gitstore.push.request import DISCARD, OPTIONS

_MOST_DISCARDS = 100  # drafts in one printed command


class PushReport:
    """Collects lines about a push. `url_of(slug, number)` returns the URL of a version's page."""

    def __init__(self, url_of: Callable[[str, int], str]) -> None:
        self._url_of = url_of
        self._lines: list[str] = []

    @property
    def lines(self) -> list[str]:
        """The lines, with secrets masked: a terminal's output ends up in the logs of builds."""
        return [masked_text(line) for line in self._lines]

    def conclude(self, verdicts: Sequence[Verdict], changes: Mapping[VersionRef, str]) -> None:
        """Report the result of each command: drafts, then versions in their order.

        `changes` maps a published version to a summary of its change against the previous one, if any.
        """
        for verdict in sorted(verdicts, key=_order):
            if verdict.refusal is not None:
                self._refusal(verdict, verdict.refusal)
                continue
            if verdict.effect is Effect.NOTHING and verdict.command.new is None:
                self._lines.append(f"{clip(show(verdict.command.ref))} does not exist: nothing to delete")
            match verdict.target, verdict.effect:
                case DraftRef(slug), Effect.SAVE if verdict.definition is not None:
                    self._saved(slug, verdict.definition)
                case DraftRef(slug), Effect.DISCARD:
                    self._lines.append(f"{slug}: draft discarded; this restores it:")
                    self._lines.append(f"  {restore_command(slug, verdict.kept)}")
                case VersionRef(slug, number) as version, Effect.PUBLISH:
                    what = f" ({changes[version]})" if changes.get(version) else ""
                    self._lines.append(f"published {slug} v{number}{what}: {self._url_of(slug, number)}")
        self._discards_refused(verdicts)

    def ignored_options(self, options: Sequence[str]) -> None:
        """Report the unknown push options, and list the known ones."""
        if options:
            known = ", ".join(f"{option.name}={option.expected}" for option in OPTIONS)
            self._lines.append(f"unknown push options are ignored: {', '.join(options)} (known: {known})")

    def refused_objects(self, refusal: GitstoreError) -> None:
        self._lines.extend(getattr(refusal, "lines", [refusal.message]))

    def mirrored_later(self) -> None:
        line = "database unavailable: your push is stored and will be mirrored when the database returns"
        if line not in self._lines:  # every slice may report it
            self._lines.append(line)

    def _saved(self, slug: str, definition: Definition) -> None:
        parts = [(name, mapping(definition.value).get(name + "s")) for name in ("node", "edge")]
        sizes = [_count(len(part), name) for name, part in parts if isinstance(part, list)]
        self._lines.append(", ".join([f"{slug}: draft saved", *sizes]))
        errors, warnings = definition.problems.errors, definition.problems.warnings
        if errors:
            self._lines.append(f"{slug}: {_count(errors, 'problem')} would block publishing")
            self._problems(definition.errors, errors)
        if warnings:
            self._lines.append(f"{slug}: {_count(warnings, 'warning')}")
            self._problems(definition.warnings, warnings)

    def _refusal(self, verdict: Verdict, refusal: GitstoreError) -> None:
        problems = Problems.of(refusal.problems)
        errors = [problem for problem in problems if problem.error]
        if verdict.target is not None and errors:
            if refusal.code is Code.DEFINITION_UNPARSABLE:
                # A parser stops at the first problem, and the message has its position.
                self._lines.append(f"{verdict.target.slug}: {refusal.message}")
            else:
                self._lines.append(refusal.message)
                self._problems(errors, problems.errors)
        if isinstance(refusal, BaseMovedError) and isinstance(verdict.target, VersionRef):
            # Forced, because the pusher's clone may have both tags: the one just refused, and one with the
            # name of the latest version from an earlier, late attempt.
            ours, latest = short(verdict.target), short(VersionRef(verdict.target.slug, refusal.latest))
            self._lines += [
                f"{ours} can't be published yet: merge {latest}, then tag and push again",
                f"  git fetch -f origin tag {latest} && git merge {latest}",
                f"  git tag -f -a {ours} && git push origin {ours}",
            ]

    def _discards_refused(self, verdicts: Sequence[Verdict]) -> None:
        """Print the command for several refused discards; for a single one, the ref's own reason has it."""
        drafts = [
            short(verdict.target)
            for verdict in verdicts
            if verdict.target and verdict.refusal and verdict.refusal.code is Code.DISCARD_NOT_ALONE
        ]
        if len(drafts) < 2:
            return
        option = f"-o {DISCARD.name}={len(drafts)}"
        self._lines.append(f"{len(drafts)} drafts were not discarded; to discard all of them:")
        if len(drafts) <= _MOST_DISCARDS:
            self._lines.append(f"  git push {option} origin --delete {' '.join(sorted(drafts))}")
        else:
            self._lines.append(f"  push their deletions, and nothing else, with {option}")

    def _problems(self, problems: Sequence[Problem], total: int) -> None:
        self._lines.extend("  " + describe(problem) for problem in problems)
        if total > len(problems):
            self._lines.append(f"  and {total - len(problems)} more")


def restore_command(slug: str, kept: bytes) -> str:
    """Return the command that pushes the discarded head in the ref `kept` as the draft of `slug` again."""
    return f"git fetch origin {show(kept)} && git push origin FETCH_HEAD:{show(draft(slug))}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _order(verdict: Verdict) -> tuple[bool, str, int]:
    match verdict.target:
        case VersionRef(slug, number):
            return (True, slug, number)
        case DraftRef(slug):
            return (False, slug, 0)
    return (True, "~", 0)
