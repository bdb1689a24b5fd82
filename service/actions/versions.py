"""Actions on versions: publish the draft, make a version current or none, yank a version, describe it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from gitstore import states
from gitstore.drafts import Content
from gitstore.errors import StaleDraftError
from gitstore.model import Person
from gitstore.schedules import Scheduled
from gitstore.store import ANY, Store
from service import lookup
from service.actions.drafts import seen_commit
from service.caller import Caller
from service.logs import Event
from sync import catalog, derive


@dataclass(frozen=True, slots=True)
class Published:
    """The version with the draft's content. `new` is False if it existed already."""

    version: catalog.Version
    new: bool

    @property
    def number(self) -> int:
        return self.version.version_number


def publish(
    caller: Caller,
    slug: str,
    content: Content | None = None,
    *,
    author: Person | None = None,
    message: str = "",
    activate: bool = True,
    expected: Collection[str] | None = None,
    scheduled: Scheduled | None = None,
) -> Published:
    """Publish the draft as the next version; with `activate`, make it current. `expected` as in `drafts`.

    `content` is saved first, in the same write, as `drafts.put` does, unless the latest version has it.
    """
    with caller.acting(Event.PUBLISHED, slug, caller.services.count_publish) as (store, facts):
        lookup.existing(store, slug)
        lookup.admit_draft(caller, store, slug)
        published = store.publish(
            slug,
            caller.actors(author),
            content,
            message=message,
            activate=activate,
            expected=seen_commit(store, slug, expected),
            scheduled=scheduled,
        )
        facts.update(version=published.number, new=published.new)
        row = derive.row_of(store, published.version)
    if content is not None and published.new:
        caller.log(Event.SAVED, workflow=slug)
    made = catalog.Version.of(row, slug, is_current=published.is_current)
    if not published.new:  # it may have a title by now
        with caller.reading() as tx:
            made = catalog.version(tx, row.workflow_id, row.version_number) or made
    return Published(made, published.new)


def move_current(
    caller: Caller,
    slug: str,
    version: int | str,
    *,
    message: str = "",
    hold: bool = False,
    expected: int | str | None = ANY,
    scheduled: Scheduled | None = None,
) -> None:
    """Make a version current; with `hold`, publishing does not change the current version.

    `expected` is the number of the current version that the caller has seen, None for none, or ANY. Raises
    `stale_draft` if it has changed.
    """
    with caller.acting(Event.CURRENT_MOVED, slug) as (store, facts):
        lookup.existing(store, slug)
        number = lookup.number_of(store, slug, version)
        facts.update(version=number, held=hold)
        current = store.state(slug).current
        if expected not in (ANY, current):
            shown = f"v{current} is current" if current else "no version is current"
            raise StaleDraftError(
                f"the current version has changed: {shown} now. Nothing was changed; check again"
            )
        store.move_current(slug, number, caller.actors(), message=message, hold=hold, scheduled=scheduled)


def clear_current(caller: Caller, slug: str) -> None:
    """Unset the current version, until a version is published or made current."""
    with caller.acting(Event.CURRENT_CLEARED, slug) as (store, _):
        lookup.existing(store, slug)
        store.clear_current(slug, caller.actors())


# Yanks, titles and notes


def yank(caller: Caller, slug: str, version: str, *, reason: str) -> int:
    """Withdraw a version; return its number."""
    with _changing(caller, Event.YANKED, slug, version) as (store, number):
        states.yank(store, slug, number, caller.actors(), reason=reason)
    return number


def unyank(caller: Caller, slug: str, version: str, *, reason: str = "") -> int:
    """Take back the yank of a version; return its number."""
    with _changing(caller, Event.UNYANKED, slug, version) as (store, number):
        states.unyank(store, slug, number, caller.actors(), reason=reason)
    return number


def annotate(caller: Caller, slug: str, version: str, given: Mapping[str, str | None]) -> int:
    """Give a version a `title`, `notes` or both; None removes one. Return its number."""
    with _changing(caller, Event.ANNOTATED, slug, version) as (store, number):
        states.annotate(store, slug, number, given, caller.actors())
    return number


@contextmanager
def _changing(caller: Caller, event: Event, slug: str, version: str) -> Iterator[tuple[Store, int]]:
    """Open the store to change a version of an existing workflow; yield it with the version's number."""
    with caller.acting(event, slug) as (store, facts):
        lookup.existing(store, slug)
        number = lookup.number_of(store, slug, version)
        facts.update(version=number)
        yield store, number
