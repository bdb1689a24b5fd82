"""Resolution of `{id}`, `{version}` and `cursor`: external names -> objects of the catalog and the Store.

An invalid name is "not found" like a missing object or another tenant's, and never reaches Postgres or Git.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

from gitstore import names
from gitstore.definition.quoting import clip
from gitstore.errors import Code, GitstoreError, MalformedError, NotFoundError, ObjectsMissingError
from gitstore.names import is_slug, parse_number, parse_version, version_id, workflow_id
from gitstore.repository import Repository
from service import context
from service.context import Caller
from sync import catalog
from sync.catalog import Which
from sync.db import Transaction

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LONGEST_CURSOR: Final = 200


def uuid_of(text: str) -> UUID | None:
    return UUID(text) if _UUID.fullmatch(text) else None


def id_of(caller: Caller, shown: str) -> UUID:
    """Return the id of the workflow that `shown`, an id or a slug, names; the workflow need not exist."""
    found = uuid_of(shown)
    if found is None and is_slug(shown):
        found = workflow_id(caller.project_id, shown)
    if found is None:
        raise unknown_workflow(shown)
    return found


def workflow(tx: Transaction, caller: Caller, shown: str) -> catalog.Workflow:
    """Return the workflow; raises `workflow_not_found`."""
    found = catalog.workflow(tx, id_of(caller, shown))
    if found is None or found.project_id != caller.project_id:
        raise unknown_workflow(shown)
    return found


def slug_of(caller: Caller, shown: str) -> str:
    """Return the slug of the workflow for the Store, which checks that the workflow exists."""
    if is_slug(shown):
        return shown
    with caller.reading() as tx:
        return workflow(tx, caller, shown).slug


def existing(store: Repository, slug: str) -> None:
    """Raise `workflow_not_found` unless Git has the workflow."""
    if not store.exists(slug):
        raise unknown_workflow(slug)


def open_draft(store: Repository, slug: str) -> str:
    """Return the commit of the open draft; raises `version_not_found` if none is open."""
    state = store.state(slug)
    if not state.draft_open or state.draft is None:
        raise no_draft(slug)
    return state.draft


def draft_of(store: Repository, slug: str) -> str | None:
    """Return the commit of the draft's branch, or None if it does not exist."""
    found = store.refs.read(names.draft(slug))
    return found.decode() if found else None


def unknown_workflow(shown: str) -> GitstoreError:
    return NotFoundError(Code.WORKFLOW_NOT_FOUND, f"there is no workflow {clip(shown)!r}")


# Versions


def which(shown: str) -> Which:
    """Parse `{version}`: a number, "draft", "current" or "latest"; raises `version_not_found`."""
    if shown in ("draft", "current", "latest"):
        return shown  # type: ignore[return-value] # mypy does not narrow str to these
    found = parse_number(shown) or parse_version(shown)
    if found is None:
        raise NotFoundError(
            Code.VERSION_NOT_FOUND, f"{clip(shown)!r} is no version: use 3, v3, draft, current or latest"
        )
    return found


def number_of(store: Repository, slug: str, given: int | str) -> int:
    """Return the number of the published version that a body names; raises `malformed` if it is invalid."""
    wanted = which(str(given))
    if isinstance(wanted, int):
        return wanted
    if wanted == "draft":
        raise MalformedError("a published version is needed here, not the draft")
    state = store.state(slug)
    if wanted == "current" and state.current is None:
        raise not_published(slug)
    if not state.latest:
        raise NotFoundError(Code.VERSION_NOT_FOUND, f"{slug} has no version yet")
    return state.latest if wanted == "latest" else state.current or state.latest


def admit(caller: Caller, slug: str, *numbers: int | None) -> None:
    """Wait for the turn of a request that parses or compares these versions, if they are large.

    Call before the work, and outside of a transaction. Raises `too_many_requests`.
    """
    workflow = workflow_id(caller.project_id, slug)
    ids = [version_id(workflow, number) for number in numbers if number]
    with caller.reading() as tx:
        size = catalog.definition_bytes(tx, ids)
    context.admit(caller.principal, definitions=size)


def no_version(tx: Transaction, caller: Caller, shown: str, wanted: Which) -> GitstoreError:
    """Return the error for a missing version, or for a missing workflow."""
    slug = workflow(tx, caller, shown).slug
    if wanted == "current":
        return not_published(slug)
    if wanted == "draft":
        return no_draft(slug)
    return NotFoundError(
        Code.VERSION_NOT_FOUND,
        f"{slug} has no version yet" if wanted == "latest" else f"{slug} has no version v{wanted}",
    )


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
            "repository nor in the database: an operator may have it in a clone or a backup",
            version_number=row.version_number,
            commit=row.commit_sha,
            digest=row.digest,
            published_at=row.published_at,
            published_by=row.published_by,
        ) from error


def no_draft(slug: str) -> GitstoreError:
    return NotFoundError(Code.VERSION_NOT_FOUND, f"{slug} has no open draft")


def not_published(slug: str) -> GitstoreError:
    return NotFoundError(
        Code.NOT_PUBLISHED, f"nothing of {slug} runs: publish its draft, or make a version current"
    )


# Queries


def text(query: str | None) -> str:
    """Return the text to search for; raises `malformed` for text that Postgres cannot store."""
    found = query or ""
    if "\0" in found:
        raise MalformedError("q: a text with NUL in it is found nowhere")
    return found


def cursor_to(place: str | int) -> str:
    """Return an opaque cursor that continues a list after `place`."""
    return base64.urlsafe_b64encode(str(place).encode()).rstrip(b"=").decode()


def slug_in(cursor: str | None) -> str:
    """Return the slug after which a list of workflows continues; "" at its beginning."""
    if cursor is None:
        return ""
    place = _place(cursor)
    if not is_slug(place):
        raise _bad_cursor()
    return place


def number_in(cursor: str | None) -> int | None:
    """Return the version number below which a history continues; None at its beginning."""
    if cursor is None:
        return None
    number = parse_number(_place(cursor))
    if number is None:
        raise _bad_cursor()
    return number


def moment_in(cursor: str | None) -> tuple[datetime, UUID] | None:
    """Return the time and the id after which a list by time continues; None at its beginning."""
    if cursor is None:
        return None
    at, _, last = _place(cursor).partition(" ")
    found = uuid_of(last)
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise _bad_cursor() from None
    if found is None or moment.tzinfo is None:
        raise _bad_cursor()
    return moment, found


def _place(cursor: str) -> str:
    try:
        if len(cursor) > _LONGEST_CURSOR:
            raise _bad_cursor()
        place = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        raise _bad_cursor() from None
    if cursor_to(place) != cursor:
        raise _bad_cursor()
    return place


def _bad_cursor() -> GitstoreError:
    return MalformedError("cursor is none that a list here gave: begin without one")
