"""Frozen dataclasses shared by all packages. Opaque Git data is bytes; everything above Git is str."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

from gitstore.names import next_number

LONGEST_TEXT: Final = 10_000
"""Maximum number of characters of a message or a description."""


class Rules(StrEnum):
    """The rule set that a project's definitions must satisfy."""

    MESHHOOK = "meshhook"
    ANY = "any"
    SCHEMA = "schema"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error or warning about a definition.

    `pointer` is an RFC 6901 JSON Pointer, `node` the id of the node concerned, `line` and `column` count
    from 1; each is None where not applicable. An `error` blocks publishing, a warning does not.
    """

    code: str
    message: str
    pointer: str | None = None
    node: str | None = None
    line: int | None = None
    column: int | None = None
    error: bool = True


MOST_PROBLEMS: Final = 100
"""Problems listed in any output: JSON, a page, the terminal of a push. Any beyond are only counted."""


class Graded(Protocol):
    """An item that is either an error or a warning."""

    @property
    def error(self) -> bool: ...


G = TypeVar("G", bound=Graded)


def listed(items: Sequence[G]) -> Sequence[G]:
    """Return those of `items` to list: at most MOST_PROBLEMS; warnings fill the places errors leave."""
    if len(items) <= MOST_PROBLEMS:
        return items
    warnings = max(MOST_PROBLEMS - sum(item.error for item in items), 0)
    room = {True: MOST_PROBLEMS, False: warnings}
    kept = []
    for item in items:
        if room[item.error]:
            room[item.error] -= 1
            kept.append(item)
    return kept


class Problems(tuple[Problem, ...]):
    """The listed problems in document order: at most MOST_PROBLEMS, errors taking precedence over warnings.

    `errors` and `warnings` count all problems, including those not listed.
    """

    errors: int = 0
    warnings: int = 0

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Problems:
        """List `problems`, which are in document order."""
        if isinstance(problems, Problems):
            return problems
        every = tuple(problems)
        errors = sum(problem.error for problem in every)
        return cls.counted(every, errors, len(every) - errors)

    @classmethod
    def counted(cls, problems: Sequence[Problem], errors: int, warnings: int) -> Problems:
        """List `problems`, which may be incomplete: `errors` and `warnings` are the full counts."""
        listing = cls(listed(problems))
        listing.errors, listing.warnings = errors, warnings
        return listing

    def after(self, first: Sequence[Problem]) -> Problems:
        """Return a copy with `first`, warnings about the whole file, in front."""
        return self.counted((*first, *self), self.errors, self.warnings + len(first)) if first else self

    @property
    def total(self) -> int:
        return self.errors + self.warnings

    @property
    def more(self) -> int:
        """The number of problems not listed."""
        return self.total - len(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on a definition and on a push (docs/operations.md). Sizes are in bytes.

    `memory` is the address space of the process that unpacks; `cpu` is in seconds of CPU time per request.
    """

    pack: int = 16 * 2**20
    pack_objects: int = 100_000
    commands: int = 10_000
    memory: int = 192 * 2**20
    inflated: int = 64 * 2**20
    object: int = 4 * 2**20
    definition: int = 2**20
    any_definition: int = 4 * 2**20
    depth: int = 64
    nodes: int = 50_000
    cpu: int = 5

    @property
    def largest_definition(self) -> int:
        """The size of a definition under any rules."""
        return max(self.definition, min(self.any_definition, self.object))

    def under(self, rules: Rules) -> Limits:
        """Return the limits under `rules`: MeshHook's definitions are smaller than other engines' files."""
        return self if rules is Rules.MESHHOOK else replace(self, definition=self.largest_definition)


@dataclass(frozen=True, slots=True)
class Definition:
    """A parsed definition.

    `value` is the mapping itself, or a list under other rules than MeshHook's; None if JSON has no form for
    the text (for example, several documents), which is then versioned as bytes only. `problems` are its
    errors and warnings in document order. `digest` is "sha256:<hex>" of its canonical JSON without layout and
    editor-only fields, or "sha256-bytes:<hex>" of `raw`. `schema` is the commit of the schema that judged it.
    """

    raw: bytes
    value: Any
    digest: str
    problems: Problems = field(default_factory=Problems)
    schema: str | None = None

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


@dataclass(frozen=True, slots=True)
class Actor(Person):
    """The identity of an actor. Name and address are decoration, which a user may change.

    `issuer` and `subject`, a user's at an identity provider, do not change. `on_behalf_of` names the user for
    whom a program claims to act. `request` is the id of the request, as in the log.
    """

    issuer: str | None = None
    subject: str | None = None
    on_behalf_of: str | None = None
    request: str | None = None


@dataclass(frozen=True, slots=True)
class FileNames:
    """The names of a project's definitions besides `workflow.*`, in the order in which they were given.

    A commit has the first of them that is there, so that a later name changes the content of no earlier
    commit. `preferred` is the name of new files.
    """

    own: tuple[str, ...] = ()
    preferred: str = "workflow.yaml"

    def named(self, *, json: bool) -> str:
        """Return the name of a new file, JSON or YAML."""
        if self.preferred.endswith(".json") is json:
            return self.preferred
        return "workflow.json" if json else "workflow.yaml"


class Permission(StrEnum):
    """A permission of a principal in a project; `service/access.py` maps roles to permissions."""

    READ = "read"
    EDIT = "edit"
    PUBLISH = "publish"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of one workflow in a commit.

    `commit`, `tree` (the folder with the definition) and `blob` (the definition) are hex object ids.
    `definition` is None if the file does not parse (an import); `problems` then gives the reasons.
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
    """The kind of event that a ledger entry records."""

    CREATED = "created"
    DESCRIBED = "described"
    PUBLISHED = "published"
    CURRENT = "current-moved"
    CLEARED = "current-cleared"
    DISCARDED = "draft-discarded"
    RESTORED = "draft-restored"
    IMPORTED = "draft-imported"
    POINTED = "environment-moved"
    UNPOINTED = "environment-removed"
    YANKED = "version-yanked"
    UNYANKED = "version-unyanked"
    ANNOTATED = "version-annotated"
    ARCHIVED = "archived"
    UNARCHIVED = "unarchived"
    RENAMED = "renamed"


@dataclass(frozen=True, slots=True)
class FormerName:
    """A slug that a workflow had, and its latest version then: versions up to it keep their tags there."""

    slug: str
    latest: int


@dataclass(frozen=True, slots=True)
class Environment:
    """The pointer of a workflow in the environment `name`.

    It is on `version`, or on two versions: `version` with `weight` percent, and `second` with the rest.
    While it is `held`, a publication does not move it.
    """

    name: str
    version: int
    weight: int = 100
    second: int | None = None
    held: bool = False

    @property
    def versions(self) -> tuple[int, ...]:
        return tuple(self.weights)

    @property
    def weights(self) -> dict[int, int]:
        """The versions, each with its weight in percent."""
        if self.second is None:
            return {self.version: 100}
        return {self.version: self.weight, self.second: 100 - self.weight}


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One commit of refs/ledger/<slug>: an event, and the state of the workflow after it.

    `kind` is a LedgerKind, or another word if a newer version of gitstore wrote the entry: then only the
    state after the event is known.

    `version` and `target` (the hex id that the tag holds) are set for PUBLISHED; `version` also for CURRENT;
    `target` is the draft's head for DISCARDED, RESTORED and IMPORTED. `latest`, `current` and `held` are the
    state after the event, so that the newest counting entry is sufficient; `latest` is 0 and `current` None
    before the first publication. `name` and `description` are the ones given to the workflow, for CREATED and
    DESCRIBED; None if its definition gives them. `tagger` and `tagged_at`,
    the upstream publisher and time, for a PUBLISHED that was imported; `after`, the previous latest version,
    if the publication left a gap; `rules`, those that judged a PUBLISHED, unless an older gitstore wrote it,
    and `schema`, the commit of the schema if there was one;
    `invalid`, the errors of its definition in one line, if it was imported and has any.

    What was imported from another system than Git has its ids there, `external_ids`: one of a version, and
    those of the draft first. Its version was published there at `published_at` by the tagger. `created_at` is
    the time there of the version or, for CREATED, of the workflow.

    `environments` (by name), `yanked` (version numbers), `archived` and `former` (names, the first one first)
    are state, too. A RENAMED gives the workflow the slug `renamed`. `environment` is the
    name of the one that a POINTED or UNPOINTED concerns. YANKED, UNYANKED and ANNOTATED concern `version`; an
    ANNOTATED has the `title` and the `notes` that the version has from then on. `release` is the name of the
    release, and `schedule` the id of the schedule, that the entry belongs to. `promoted_from` is the
    environment whose version a promotion took, and `rolled_back` whether the release was rolled back. `saved`
    is whether a PUBLISHED saved the draft in the same write.
    """

    oid: str
    parent: str | None
    kind: LedgerKind | str
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
    rules: Rules | None = None
    schema: str | None = None
    invalid: str | None = None
    external_ids: tuple[UUID, ...] = ()
    published_at: datetime | None = None
    created_at: datetime | None = None
    environments: tuple[Environment, ...] = ()
    yanked: tuple[int, ...] = ()
    archived: bool = False
    environment: str | None = None
    title: str | None = None
    notes: str | None = None
    release: str | None = None
    schedule: UUID | None = None
    former: tuple[FormerName, ...] = ()
    renamed: str | None = None
    promoted_from: str | None = None
    rolled_back: bool = False
    saved: bool = False


@dataclass(frozen=True, slots=True)
class Superseded:
    """A discarded draft: the time of the discard (UTC), and its head as a hex object id, kept by `ref`."""

    at: datetime
    commit: str
    ref: bytes


@dataclass(frozen=True, slots=True)
class WorkflowState:
    """The state of a workflow in Git: its refs and the state in its ledger. Ids are hex, None if absent.

    `floor` is the highest number ever assigned, as far as the unit of work knows; it exceeds `latest` if the
    repository has lost versions.
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
    environments: tuple[Environment, ...] = ()
    yanked: tuple[int, ...] = ()
    archived: bool = False
    former: tuple[FormerName, ...] = ()

    @property
    def next_number(self) -> int:
        return next_number(self.latest, self.floor)

    @property
    def deleted(self) -> bool:
        """Whether the workflow was deleted: it is archived, and has neither a version nor a draft."""
        return self.archived and not self.latest and self.draft is None


@dataclass(frozen=True, slots=True)
class Version:
    """A published version: the content of its tag and the facts of its ledger entry.

    `invalid` describes the errors of an imported definition, None without any. `external_id` is the id in the
    system that it was imported from.
    """

    slug: str
    number: int
    ref_oid: str
    snapshot: Snapshot
    message: str
    published_by: Person
    published_at: datetime
    invalid: str | None = None
    external_id: UUID | None = None
