"""Scheduled changes in the ledger: whether one was carried out, and what has moved since it was made.

The entry that carries out a schedule has its id as a trailer. So the ledger decides whether that has
happened, also after the process was killed or the database was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from uuid import UUID

from gitstore.environments import state_of
from gitstore.errors import Code, ConflictError
from gitstore.model import LedgerEntry
from gitstore.repository import Repository


def _check_nothing() -> None:
    """Accept every schedule."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The schedule that a change carries out.

    `since` is the newest entry that counted when the schedule was made; None for a workflow without any.
    `check` raises if the schedule is not the caller's to carry out any more. It is called under the lock of
    the workflow.
    """

    id: UUID
    since: str | None
    check: Callable[[], None] = _check_nothing


def carried_out(repository: Repository, slug: str, scheduled: Scheduled) -> LedgerEntry | None:
    """Return the entry that carried out a schedule, or None."""
    return next((new for new, _ in _since(repository, slug, scheduled) if new.schedule == scheduled.id), None)


def is_done(
    repository: Repository, slug: str, scheduled: Scheduled | None, pointer: str | None = None
) -> LedgerEntry | None:
    """Return the entry that carried out `scheduled`; None if it has to be carried out now.

    Raises `environment_moved` if `pointer` was moved since, other than by a schedule. Requires the lock of
    the workflow.
    """
    if scheduled is None:
        return None
    if (entry := carried_out(repository, slug, scheduled)) is not None:
        return entry
    scheduled.check()
    if pointer is None:
        return None
    for new, old in _since(repository, slug, scheduled):
        before = state_of(old, pointer) if old is not None else None
        if new.schedule is None and state_of(new, pointer) != before:
            raise ConflictError(
                Code.ENVIRONMENT_MOVED,
                f"{new.actor.name} moved {pointer} of {slug} after this was scheduled: "
                "check, and schedule it again",
            )
    return None


def _since(
    repository: Repository, slug: str, scheduled: Scheduled
) -> Iterator[tuple[LedgerEntry, LedgerEntry | None]]:
    """Yield the entries that count since the schedule was made, newest first, each with the one before."""
    counting = (entry for entry in repository.ledger(slug) if repository.counts(slug, entry))
    for new, old in pairwise(chain(counting, [None])):
        if new is None or new.oid == scheduled.since:
            return
        yield new, old
