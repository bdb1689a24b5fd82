"""Frozen dataclasses that the rooms hand to each other. Git data is bytes where it is opaque, str above."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

from gitstore.versions import next_number


class Rules(StrEnum):
    """What a project's definitions must obey."""

    MESHHOOK = "meshhook"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a definition that a person should know.

    `pointer` is an RFC 6901 JSON Pointer, `node` the id of the node it is about, `line` and `column`
    count from 1; each is None where it has no meaning. An `error` blocks publishing, a warning does not.
    """

    code: str
    message: str
    pointer: str | None = None
    node: str | None = None
    line: int | None = None
    column: int | None = None
    error: bool = True


MOST_PROBLEMS: Final = 100
"""Problems that any answer lists: JSON, a page, the terminal of a push. Beyond, they are counted."""


class Graded(Protocol):
    """What is an error, or else a warning."""

    @property
    def error(self) -> bool: ...


G = TypeVar("G", bound=Graded)


def listed(found: Sequence[G]) -> Sequence[G]:
    """Those of `found` that an answer lists: MOST_PROBLEMS, warnings as far as the errors leave room."""
    if len(found) <= MOST_PROBLEMS:
        return found
    warnings = max(MOST_PROBLEMS - sum(each.error for each in found), 0)
    room = {True: MOST_PROBLEMS, False: warnings}
    kept = []
    for each in found:
        if room[each.error]:
            room[each.error] -= 1
            kept.append(each)
    return kept


class Problems(tuple[Problem, ...]):
    """Problems as they are listed, in document order: at most MOST_PROBLEMS, errors before warnings.

    `errors` and `warnings` count all of them, those that are not listed included.
    """

    errors: int = 0
    warnings: int = 0

    @classmethod
    def of(cls, found: Iterable[Problem]) -> Problems:
        """List `found`, which is in document order."""
        if isinstance(found, Problems):
            return found
        every = tuple(found)
        errors = sum(problem.error for problem in every)
        return cls.counted(every, errors, len(every) - errors)

    @classmethod
    def counted(cls, found: Sequence[Problem], errors: int, warnings: int) -> Problems:
        """List `found`, of which there may be more: `errors` and `warnings` say how many."""
        made = cls(listed(found))
        made.errors, made.warnings = errors, warnings
        return made

    def after(self, first: Sequence[Problem]) -> Problems:
        """The same with warnings about the whole file before them."""
        return self.counted((*first, *self), self.errors, self.warnings + len(first)) if first else self

    @property
    def total(self) -> int:
        return self.errors + self.warnings

    @property
    def more(self) -> int:
        """How many are not listed."""
        return self.total - len(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on a definition and on a push (docs/operations.md). Sizes are bytes.

    `memory` is the address space of the child that unpacks, `cpu` the seconds of CPU time of one request.
    """

    pack: int = 16 * 2**20
    pack_objects: int = 100_000
    commands: int = 10_000
    memory: int = 192 * 2**20
    inflated: int = 64 * 2**20
    object: int = 4 * 2**20
    definition: int = 2**20
    depth: int = 64
    nodes: int = 50_000
    cpu: int = 5


@dataclass(frozen=True, slots=True)
class Definition:
    """A parsed definition.

    `value` is the mapping itself, `problems` errors and warnings in document order, `digest` "sha256:<hex>"
    of its canonical JSON without layout and editor leftovers.
    """

    raw: bytes
    value: dict[str, Any]
    digest: str
    problems: Problems = field(default_factory=Problems)

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.error)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if not p.error)

    @property
    def valid(self) -> bool:
        return not self.problems.errors


@dataclass(frozen=True, slots=True)
class Person:
    """A name and an e-mail address, as in a commit's author line."""

    name: str
    email: str


class Permission(StrEnum):
    """What a principal may do in a project; `service/access.py` says which role has which."""

    READ = "read"
    EDIT = "edit"
    PUBLISH = "publish"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a commit holds for one workflow.

    `commit`, `tree` (the folder with the definition) and `blob` (the definition) are hex object ids.
    `definition` is None where the file does not parse (an import), and `problems` say why.
    `created_at` is the commit's committer date, UTC.
    """

    commit: str
    tree: str
    blob: str
    file_name: str
    definition: Definition | None
    problems: Problems
    author: Person
    message: str
    created_at: datetime


class LedgerKind(StrEnum):
    """What a ledger entry says happened."""

    CREATED = "created"
    PUBLISHED = "published"
    CURRENT = "current-moved"
    CLEARED = "current-cleared"
    DISCARDED = "draft-discarded"
    RESTORED = "draft-restored"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One commit of refs/ledger/<slug>: a fact, and the state of the workflow after it.

    `version` and `target` (hex id that the tag holds) are set for PUBLISHED; `version` also for CURRENT;
    `target` is the draft's head for DISCARDED and RESTORED. `latest`, `current` and `held` are the state
    after the fact, so that the newest counting entry alone tells it; `latest` is 0 and `current` None before
    the first publication. `name` and `description` are set for CREATED alone; `tagger` and `tagged_at`, who
    published it upstream and when, for a PUBLISHED that was brought from there; `after`, the latest version
    before it, where that left a gap.
    """

    oid: str
    parent: str | None
    kind: LedgerKind
    actor: Person
    when: datetime
    message: str
    latest: int
    current: int | None
    held: bool
    version: int | None = None
    target: str | None = None
    name: str | None = None
    description: str | None = None
    tagger: Person | None = None
    tagged_at: datetime | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Superseded:
    """A discarded draft: when it was discarded (UTC), and its head as a hex object id, kept by `ref`."""

    at: datetime
    commit: str
    ref: bytes


@dataclass(frozen=True, slots=True)
class WorkflowState:
    """Where a workflow stands in Git: its refs and what its ledger says. Ids are hex, None where absent.

    `floor` is the highest number that was ever given out, as far as the unit of work knows; it is above
    `latest` where the repository has lost versions.
    """

    slug: str
    draft: str | None
    ledger: str | None
    latest: int
    latest_commit: str | None
    current: int | None
    held: bool
    draft_open: bool
    floor: int = 0

    @property
    def next_number(self) -> int:
        return next_number(self.latest, self.floor)


@dataclass(frozen=True, slots=True)
class Version:
    """A published version: what its tag holds and what the ledger says of it."""

    slug: str
    number: int
    ref_oid: str
    snapshot: Snapshot
    message: str
    published_by: Person
    published_at: datetime
