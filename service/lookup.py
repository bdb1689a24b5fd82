"""Resolution of names from outside: ids, slugs, versions and cursors, to rows and to states in Git.

An invalid name is "not found" like a missing object or another tenant's, and never reaches Postgres or Git.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from gitstore import environments, names
from gitstore.definition.quoting import clip
from gitstore.errors import (
    Code,
    GitstoreError,
    MalformedError,
    NotFoundError,
    ObjectsMissingError,
    RenamedError,
)
from gitstore.names import is_slug, parse_number, parse_version, version_id, workflow_id
from gitstore.repository import Repository
from gitstore.states import newest_usable
from service.caller import Caller
from sync import catalog, releases
from sync import environments as pointers
from sync.catalog import InEnvironment, Which
from sync.db import SingleReading, Transaction
from sync.listing import Archived, Filter, Sort, Wanted
from sync.releases import ShownItem, ShownRelease

T = TypeVar("T")

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ENTRY: Final = re.compile(r"[0-9a-f]{40}")
_LONGEST_CURSOR: Final = 1500


def uuid_of(text: str) -> UUID | None:
    return UUID(text) if _UUID.fullmatch(text) else None


def find(noun: str, name: str, read: Callable[[UUID], T | None], details: str = "") -> T:
    """Return what `read` returns for the id `name`; raises `not_found` for None, and for an invalid id."""
    known = uuid_of(name)
    row = read(known) if known is not None else None
    if row is None:
        raise not_found(noun, name, details)
    return row


def not_found(noun: str, name: str, details: str = "") -> GitstoreError:
    return NotFoundError(Code.NOT_FOUND, f"there is no {noun} {clip(name)!r}{details}")


# Workflows


def id_of(caller: Caller, name: str) -> UUID:
    """Return the id of the workflow with this id or slug; the workflow need not exist."""
    known = uuid_of(name)
    if known is None and is_slug(name):
        known = workflow_id(caller.project_id, name)
    if known is None:
        raise unknown_workflow(name)
    return known


def workflow(tx: Transaction | SingleReading, caller: Caller, name: str) -> catalog.Workflow:
    """Return the workflow with this id or slug, or with a version of this id; raises `workflow_not_found`.

    The id of a version may be its id here or in the system that it was imported from. Raises
    `workflow_renamed` for a former slug.
    """
    row, known = catalog.workflow(tx, id_of(caller, name)), uuid_of(name)
    if row is None and known is not None:
        row = catalog.workflow_of_id(tx, caller.project_id, known)
    elif row is None:  # the id of a renamed workflow is that of its first slug
        row = catalog.workflow_by_slug(tx, caller.project_id, name)
    if row is not None and row.project_id == caller.project_id and not row.deleted:
        check_name(name, row.slug)
        return row
    if known is None and catalog.project_by_id(tx, caller.project_id) is not None:
        with caller.opened(shown=True) as repository:
            if (to := repository.renamed_to(name)) is not None:
                raise RenamedError(name, to)
    raise unknown_workflow(name)


def check_running(slug: str, wanted: Which, *, archived: bool) -> None:
    """Raise `not_running` for the version to run of an archived workflow; a number or an id is no choice."""
    if archived and not isinstance(wanted, int | UUID) and wanted != "draft":
        raise GitstoreError(
            Code.NOT_RUNNING,
            f"{slug} is archived, so nothing runs: read a version by its number, or unarchive it "
            f"(gitstore unarchive {slug})",
        )


def check_name(name: str, slug: str) -> None:
    """Raise `workflow_renamed` if `name`, of the workflow `slug`, is a former slug."""
    if is_slug(name) and name != slug:
        raise RenamedError(name, slug)


def slug_of(caller: Caller, name: str) -> str:
    """Return the slug of the workflow with this id or slug; for a slug, the Store checks that it exists."""
    if is_slug(name):
        return name
    with caller.reading() as tx:
        return workflow(tx, caller, name).slug


def existing(repository: Repository, slug: str) -> None:
    """Raise `workflow_not_found` unless Git has the workflow; `workflow_renamed` for a former slug."""
    repository.check_exists(slug)


def open_draft(repository: Repository, slug: str) -> str:
    """Return the commit of the open draft; raises `version_not_found` if none is open."""
    state = repository.state(slug)
    if not state.draft_open or state.draft is None:
        raise no_draft(slug)
    return state.draft


def draft_of(repository: Repository, slug: str) -> str | None:
    """Return the commit of the draft's branch, or None if it does not exist."""
    commit = repository.refs.read(names.draft(slug))
    return commit.decode() if commit else None


def unknown_workflow(name: str) -> GitstoreError:
    return NotFoundError(Code.WORKFLOW_NOT_FOUND, f"there is no workflow {clip(name)!r}")


# Releases


def release(caller: Caller, name: str) -> tuple[ShownRelease, Sequence[ShownItem]]:
    """Return a release and its items; raises `not_found`."""
    if "\0" not in name:
        with caller.reading() as tx:
            found = releases.find(tx, caller.project_id, name)
        if found is not None:
            return found
    raise not_found("release", name)


# Versions


def which(name: str, key: str | None = None) -> Which:
    """Parse `{version}`: a number, an id, "draft", "current", "latest", or an environment.

    `key` is the caller of an environment. Raises `version_not_found`.
    """
    if name in ("draft", "current", "latest"):
        return name  # type: ignore[return-value] # mypy does not narrow str to these
    if environments.is_name(name):
        return InEnvironment(name, key)
    number = parse_number(name) or parse_version(name) or uuid_of(name)
    if number is None:
        raise not_a_version(name)
    return number


def not_a_version(name: str) -> GitstoreError:
    message = f"{clip(name)!r} is not a version: use 3, v3, an id, draft, current, latest or an environment"
    return NotFoundError(Code.VERSION_NOT_FOUND, message)


def number_of(repository: Repository, slug: str, version: int | str) -> int:
    """Return the number of a published version; raises `malformed` for the draft."""
    wanted = which(str(version))
    if isinstance(wanted, int):
        return wanted
    if isinstance(wanted, UUID):
        return _number_of_id(repository, slug, wanted)
    if wanted == "draft":
        raise MalformedError("a published version is required, not the draft")
    state = repository.state(slug)
    if isinstance(wanted, InEnvironment):
        _check_environment(repository, wanted.name)
        pointer = environments.state_of(state, wanted.name)
        if pointer is not None and pointer.second is not None:
            raise on_two_versions(slug, wanted.name)
        number = pointer.version if pointer is not None else None
    else:
        number = state.current if wanted == "current" else newest_usable(repository, state)
    if not number:
        raise no_version(slug, wanted)
    return number


def _number_of_id(repository: Repository, slug: str, wanted: UUID) -> int:
    """Return the number of the version with this id here, or in the system that it was imported from."""
    workflow = repository.identity(slug)
    for number in repository.version_tags(slug):
        if version_id(workflow, number) == wanted:
            return number
    for entry in repository.ledger(slug):
        if entry.version is not None and wanted in entry.external_ids and repository.counts(slug, entry):
            return entry.version
    raise no_version(slug, wanted)


def admit(caller: Caller, slug: str, *numbers: int | None) -> None:
    """Wait for the turn of a request that parses or compares these versions, if they are large.

    Call before the work, and outside of a transaction. Raises `too_many_requests`.
    """
    workflow = workflow_id(caller.project_id, slug)
    ids = [version_id(workflow, number) for number in numbers if number]
    with caller.reading() as tx:
        size = sum(catalog.definition_sizes(tx, ids).values())
    caller.admit(size)


def admit_draft(caller: Caller, repository: Repository, slug: str) -> None:
    """Wait for the turn of a request that parses the draft. Like `admit`, but with its size in Git."""
    size = 0
    with suppress(GitstoreError):  # the parser reports what is wrong with the draft
        if (commit := draft_of(repository, slug)) is not None:
            _, blob, _ = repository.locate(repository.objects.commit(commit.encode()), slug)
            size = len(repository.objects.blob(blob))
    caller.admit(size)


@contextmanager
def reading_definition(row: catalog.Version) -> Iterator[None]:
    """Raise `version_lost`, with its data, if the block misses an object of a lost version."""
    try:
        yield
    except ObjectsMissingError as error:
        if row.state != "lost":
            raise
        raise NotFoundError(
            Code.VERSION_LOST,
            f"v{row.version_number} of {row.slug} was published, and its definition is neither in the "
            "repository nor in the database: look for it in a clone or a backup",
            version_number=row.version_number,
            commit=row.commit_sha,
            digest=row.digest,
            published_at=row.published_at,
            published_by=row.published_by,
        ) from error


def no_version(slug: str, wanted: Which) -> GitstoreError:
    """Return the error for a version that an existing workflow does not have."""
    if isinstance(wanted, InEnvironment):
        message = (
            f"{slug} has no version {wanted.name!r}: use a number, or an environment in which it has one"
        )
        return NotFoundError(Code.VERSION_NOT_FOUND, message)
    if wanted == "current":
        message = f"{slug} has no current version: publish its draft, or make a version current"
        return NotFoundError(Code.NOT_PUBLISHED, message)
    named = f"version v{wanted}" if isinstance(wanted, int) else f"version {wanted}"
    missing = {"draft": "open draft", "latest": "version yet"}.get(str(wanted), named)
    return NotFoundError(Code.VERSION_NOT_FOUND, f"{slug} has no {missing}")


def not_in_environment(caller: Caller, workflow: catalog.Workflow, wanted: InEnvironment) -> GitstoreError:
    """Return the error for an environment that gives a caller no version of an existing workflow."""
    with caller.reading() as tx:
        found = {row.name: row for row in pointers.of_workflow(tx, workflow.id)}
    if (row := found.get(wanted.name)) is not None and row.second_number is not None and wanted.key is None:
        return on_two_versions(workflow.slug, wanted.name)
    with caller.opened(shown=True) as repository:
        _check_environment(repository, wanted.name)
    message = f"{workflow.slug} has no version in {wanted.name}: move its pointer there first"
    return NotFoundError(Code.NOT_PUBLISHED, message)


def _check_environment(repository: Repository, name: str) -> None:
    """Raise `version_not_found` for a word that is no environment of the project."""
    if name not in (rule.name for rule in environments.rulebook(repository).rules):
        raise not_a_version(name)


def on_two_versions(slug: str, name: str) -> GitstoreError:
    return MalformedError(f"{slug} is on two versions in {name}: name the caller with ?key=…, or a number")


def no_draft(slug: str) -> GitstoreError:
    return no_version(slug, "draft")


# Queries


def text(query: str | None) -> str:
    """Return the text to search for; raises `malformed` for text that Postgres cannot store."""
    if query and "\0" in query:
        raise MalformedError("q must not contain NUL")
    return query or ""


def listed(
    caller: Caller, q: str | None, only: Filter | None, sort: Sort, archived: Archived = "false"
) -> Wanted:
    """Return what a list of workflows shows to the caller; raises `malformed` for a text with NUL."""
    me = caller.principal.person
    return Wanted(text(q), only, sort, person=me.name, email=me.email, archived=archived)


def cursor_to(place: str | int) -> str:
    """Return an opaque cursor that continues a list after `place`."""
    return base64.urlsafe_b64encode(str(place).encode()).rstrip(b"=").decode()


def slug_in(cursor: str | None) -> str:
    """Return the slug after which a list of workflows continues; "" at its beginning."""
    return place_in(cursor, lambda place: place if is_slug(place) else None) or ""


def number_in(cursor: str | None) -> int | None:
    """Return the version number below which a history continues; None at its beginning."""
    return place_in(cursor, parse_number)


def moment_in(cursor: str | None) -> tuple[datetime, UUID] | None:
    """Return the time and the id after which a list by time continues; None at its beginning."""
    return place_in(cursor, _parse_moment)


def entry_in(cursor: str | None) -> str | None:
    """Return the ledger entry at which a list continues; None at its beginning."""
    return place_in(cursor, lambda place: place if _ENTRY.fullmatch(place) else None)


def _parse_moment(place: str) -> tuple[datetime, UUID] | None:
    at, _, last = place.partition(" ")
    moment, row_id = datetime.fromisoformat(at), uuid_of(last)
    return (moment, row_id) if moment.tzinfo is not None and row_id is not None else None


def place_in(cursor: str | None, parse: Callable[[str], T | None]) -> T | None:
    """Return the place in a cursor made by `cursor_to`; raises `malformed`. None at the beginning."""
    if cursor is None:
        return None
    with suppress(binascii.Error, ValueError):
        padding = "=" * (-len(cursor) % 4)
        place = base64.urlsafe_b64decode(cursor[:_LONGEST_CURSOR] + padding).decode()
        if cursor_to(place) == cursor and (parsed := parse(place)) is not None:
            return parsed
    raise invalid_cursor()


def invalid_cursor() -> GitstoreError:
    return MalformedError("invalid cursor: start from the first page, without one")
