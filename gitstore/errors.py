"""The errors of gitstore: a class for each kind that a caller handles, a code for each case.

The code is stable, for programs; the message is for people: what failed, and what to do next. `data` holds
the facts that the message was made from, as JSON-able values without secrets, for programs outside. Code in
the product depends on the class and its typed fields, never on `data`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from gitstore.model import Problem, Snapshot


class Code(StrEnum):
    """The code of each error. Packages above define codes of their own for their subjects."""

    # The request is malformed.
    MALFORMED = "malformed"
    INVALID_NAME = "invalid_name"
    TOO_LARGE = "too_large"
    FORBIDDEN = "forbidden"
    # The object does not exist, or belongs to another tenant.
    NOT_FOUND = "not_found"
    PROJECT_NOT_FOUND = "project_not_found"
    WORKFLOW_NOT_FOUND = "workflow_not_found"
    VERSION_NOT_FOUND = "version_not_found"
    VERSION_LOST = "version_lost"
    NOT_PUBLISHED = "not_published"
    ENVIRONMENT_NOT_FOUND = "environment_not_found"
    # Conflict with the current state.
    PROJECT_EXISTS = "project_exists"
    PROJECT_ARCHIVED = "project_archived"
    PROJECT_NOT_ARCHIVED = "project_not_archived"
    LAST_OWNER = "last_owner"
    WORKFLOW_EXISTS = "workflow_exists"
    WORKFLOW_RENAMED = "workflow_renamed"
    DRAFT_EXISTS = "draft_exists"
    NO_DRAFT = "no_draft"
    BASE_MOVED = "base_moved"
    STALE_DRAFT = "stale_draft"
    MERGE_CONFLICT = "merge_conflict"
    EXPECTED_REQUIRED = "precondition_required"
    LIMIT_REACHED = "limit_reached"
    RELEASE_EXISTS = "release_exists"
    RELEASE_CONFLICT = "release_conflict"
    RELEASE_REFUSED = "release_refused"
    VERSION_UNUSABLE = "version_unusable"
    ENVIRONMENT_USED = "environment_used"
    ENVIRONMENT_MOVED = "environment_moved"
    ENVIRONMENT_REFUSED = "environment_refused"
    ENVIRONMENT_INVALID = "environment_invalid"
    TOO_EARLY = "too_early"
    SCHEDULE_ENDED = "schedule_ended"
    SCHEDULE_EXISTS = "schedule_exists"
    SCHEDULE_MISSED = "schedule_missed"
    WORKFLOW_ARCHIVED = "workflow_archived"
    WORKFLOW_PUBLISHED = "workflow_published"
    NOT_RUNNING = "not_running"
    UPGRADE_UNFINISHED = "upgrade_unfinished"
    # Definitions.
    DEFINITION_UNPARSABLE = "definition_unparsable"
    DEFINITION_INVALID = "definition_invalid"
    DEFINITION_MISSING = "definition_missing"
    SCHEMA_INVALID = "schema_invalid"
    STALE_SCHEMA = "stale_schema"
    NO_JSON = "no_json"
    # Pushes.
    NOT_FAST_FORWARD = "not_fast_forward"
    WRONG_NUMBER = "wrong_number"
    VERSION_IMMUTABLE = "version_immutable"
    REF_NOT_ACCEPTED = "ref_not_accepted"
    DISCARD_NOT_ALONE = "discard_not_alone"
    ATOMIC_REFUSED = "atomic_refused"
    SHALLOW = "shallow"
    OBJECTS_MISSING = "objects_missing"
    OBJECTS_REFUSED = "objects_refused"
    # Other repositories.
    ADDRESS_REFUSED = "address_refused"
    UNREACHABLE = "unreachable"
    UPSTREAM_FAILED = "upstream_failed"
    SOURCE_EXISTS = "source_exists"
    SOURCE_PAUSED = "source_paused"
    BAD_SIGNATURE = "bad_signature"
    # Temporary failures, damage, and failures that an operator resolves.
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    PUBLISHED_NOT_MIRRORED = "published_not_mirrored"
    INTEGRITY = "integrity"
    CONFIG = "config"
    INTERNAL = "internal"


class GitstoreError(Exception):
    """An expected error. Raise a subclass of it where one describes the case.

    `problems` lists everything that is wrong with a definition, as `gitstore.model.Problem`.
    """

    problems: Sequence[Problem] = ()

    def __init__(self, code: StrEnum, message: str, **data: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = {name: value for name, value in data.items() if value is not None}

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle an error without its constructor, whose parameters differ, for another process."""
        return _restored, (type(self), self.message, self.__dict__)

    def reworded(self, message: str, **data: Any) -> Self:
        """Return a copy with another message, and with `data` in addition."""
        other = type(self).__new__(type(self), message)
        other.__dict__.update(self.__dict__, message=message, data={**self.data, **data})
        return other


def _restored(kind: type[GitstoreError], message: str, fields: dict[str, Any]) -> GitstoreError:
    error = kind.__new__(kind, message)
    error.__dict__.update(fields)
    return error


class MalformedError(GitstoreError):
    """The request cannot be read."""

    def __init__(self, message: str, *, problems: Sequence[Problem] = (), **data: Any) -> None:
        super().__init__(Code.MALFORMED, message, **{**data, **({"problems": problems} if problems else {})})
        self.problems = problems


class TooLargeError(GitstoreError):
    """The request exceeds a limit."""

    def __init__(self, message: str, *, limit: float | None = None, **data: Any) -> None:
        super().__init__(Code.TOO_LARGE, message, limit=limit, **data)


class ForbiddenError(GitstoreError):
    """The principal lacks the permission."""

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(Code.FORBIDDEN, message, **data)


class NotFoundError(GitstoreError):
    """The object does not exist, is no longer available, or belongs to another tenant."""


class RenamedError(NotFoundError):
    """The workflow that was called `former` is called `slug` by now."""

    def __init__(self, former: str, slug: str) -> None:
        super().__init__(Code.WORKFLOW_RENAMED, f"{former} is called {slug} by now", slug=slug)
        self.former = former
        self.slug = slug


class ConflictError(GitstoreError):
    """The request contradicts the current state. `draft` is the open draft, if the conflict is about it."""

    def __init__(self, code: StrEnum, message: str, *, draft: Snapshot | None = None, **data: Any) -> None:
        super().__init__(code, message, **data)
        self.draft = draft


class BaseMovedError(ConflictError):
    """A version was published that the draft does not include."""

    def __init__(self, message: str, *, latest: int, **data: Any) -> None:
        super().__init__(Code.BASE_MOVED, message, latest=latest, base_version=latest, **data)
        self.latest = latest


class StaleDraftError(ConflictError):
    """The draft is not the one that the caller has seen."""

    def __init__(self, message: str, code: StrEnum = Code.STALE_DRAFT, **data: Any) -> None:
        super().__init__(code, message, **data)


class ReleaseRefusedError(ConflictError):
    """Nothing of a release happened. `refusals` are the reasons, each with the workflow that it concerns."""

    def __init__(self, code: StrEnum, message: str, refusals: Sequence[tuple[str, GitstoreError]]) -> None:
        items = [
            {"workflow": slug, "code": error.code.value, "message": error.message, "problems": error.problems}
            for slug, error in refusals
        ]
        super().__init__(code, message, items=items)
        self.refusals = refusals


class EnvironmentRefusedError(ConflictError):
    """No pointer was moved. `refusals` are the reasons, each with the workflow that it concerns."""

    def __init__(self, message: str, refusals: Sequence[tuple[str, GitstoreError]]) -> None:
        items = [
            {"workflow": slug, "code": error.code.value, "message": error.message} for slug, error in refusals
        ]
        super().__init__(Code.ENVIRONMENT_REFUSED, message, items=items)
        self.refusals = refusals


class InvalidDefinitionError(GitstoreError):
    """A definition, a schema or the settings of environments do not parse, or break rules."""

    def __init__(self, code: StrEnum, message: str, *, problems: Sequence[Problem] = (), **data: Any) -> None:
        super().__init__(code, message, problems=problems, **data)
        self.problems = problems


class NoJsonError(GitstoreError):
    """JSON has no form for a definition. `problems` has the reason."""

    def __init__(self, message: str, *, problems: Sequence[Problem] = ()) -> None:
        super().__init__(Code.NO_JSON, message, problems=problems)
        self.problems = problems


class ObjectsMissingError(GitstoreError):
    """An object is referenced and does not exist. `lines` are git's messages."""

    def __init__(self, message: str, *, oid: str | None = None, lines: Sequence[str] = ()) -> None:
        super().__init__(Code.OBJECTS_MISSING, message, oid=oid, lines=list(lines) or None)
        self.lines = list(lines) or [message]


class ObjectsRefusedError(GitstoreError):
    """git refused the objects of a pack. `lines` are git's messages."""

    def __init__(self, message: str, *, lines: Sequence[str] = ()) -> None:
        super().__init__(Code.OBJECTS_REFUSED, message, lines=list(lines) or None)
        self.lines = list(lines) or [message]


class IntegrityError(GitstoreError):
    """Data is damaged, or Git and the database contradict each other: about `workflow`, if that is known."""

    def __init__(self, message: str, *, workflow: str | None = None, **data: Any) -> None:
        super().__init__(Code.INTEGRITY, message, workflow=workflow, **data)
        self.workflow = workflow


class TemporaryError(GitstoreError):
    """The same request may succeed later, after `retry_after` seconds if that is known."""

    def __init__(self, code: StrEnum, message: str, *, retry_after: int | None = None, **data: Any) -> None:
        super().__init__(code, message, retry_after=retry_after, **data)
        self.retry_after = retry_after


class BusyError(TemporaryError):
    """Another writer holds a lock, or has just moved a ref."""

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(Code.BUSY, message, **data)


class UnavailableError(TemporaryError):
    """A part that the request depends on does not answer; nothing was written."""

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(Code.UNAVAILABLE, message, **data)


class NotMirroredError(TemporaryError):
    """Git has the write, and the database does not yet. `latest` maps workflow -> latest version."""

    def __init__(self, message: str, latest: Mapping[str, int]) -> None:
        workflows: Collection[str] = list(latest)
        super().__init__(
            Code.PUBLISHED_NOT_MIRRORED, message, workflows=workflows, latest=dict(latest), retry_after=5
        )
        self.latest = latest


class ConfigError(GitstoreError):
    """The installation is misconfigured: an operator must act."""

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(Code.CONFIG, message, **data)


def too_large(what: str, size: int, limit: int, unit: str = "bytes") -> TooLargeError:
    """Return a `too_large` error; `size` equals the limit if `what` already states that it is exceeded."""
    return TooLargeError(f"{what} {size:,} {unit}; the limit is {limit:,}", size=size, limit=limit)
