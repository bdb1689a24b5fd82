"""Actions on published versions: yank one, take that back, and give one a title or notes."""

from __future__ import annotations

from collections.abc import Mapping

from gitstore import states
from service import lookup
from service.caller import Caller
from service.logs import Event


def yank(caller: Caller, slug: str, version: str, *, reason: str) -> int:
    """Withdraw a version; return its number."""
    with caller.acting(Event.YANKED, slug) as (store, facts):
        lookup.existing(store, slug)
        number = lookup.number_of(store, slug, version)
        facts.update(version=number)
        states.yank(store, slug, number, caller.actors(), reason=reason)
    return number


def unyank(caller: Caller, slug: str, version: str, *, reason: str = "") -> int:
    """Take back the yank of a version; return its number."""
    with caller.acting(Event.UNYANKED, slug) as (store, facts):
        lookup.existing(store, slug)
        number = lookup.number_of(store, slug, version)
        facts.update(version=number)
        states.unyank(store, slug, number, caller.actors(), reason=reason)
    return number


def annotate(caller: Caller, slug: str, version: str, given: Mapping[str, str | None]) -> int:
    """Give a version a `title`, `notes` or both; None removes one. Return its number."""
    with caller.acting(Event.ANNOTATED, slug) as (store, facts):
        lookup.existing(store, slug)
        number = lookup.number_of(store, slug, version)
        facts.update(version=number)
        states.annotate(store, slug, number, given, caller.actors())
    return number
