"""Template filters: display of times, versions and messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from gitstore.definition.quoting import clip
from gitstore.diff.summary import count as count
from gitstore.system import now, rfc3339
from sync.catalog import Version

_UNITS: Final = (("year", 31_557_600), ("month", 2_629_800), ("day", 86_400), ("hour", 3_600), ("minute", 60))


def ago(then: datetime) -> str:
    """Return an age such as "3 hours ago". A time ahead of our clock is "just now"."""
    seconds = (now() - then).total_seconds()
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{count(int(seconds // size), unit)} ago"
    return "just now"


def moment(then: datetime) -> str:
    """Return the time for the attribute `datetime`."""
    return rfc3339(then, "seconds")


def whole(then: datetime) -> str:
    """Return the exact time for display."""
    return then.astimezone(UTC).strftime("%-d %B %Y, %H:%M:%S UTC")


def called(version: Version) -> str:
    """Return the display name of a version: "v3", or "draft"."""
    return "draft" if version.state == "draft" else f"v{version.version_number}"


def sentence(text: str) -> str:
    """Return a message as a sentence; a first word that is a name ("v3", "order-sync") is unchanged."""
    word = text.partition(" ")[0]
    begun = text[:1].upper() + text[1:] if word.isalpha() else text
    return begun if begun.endswith((".", "?", "!")) else begun + "."


def headline(text: str) -> str:
    return clip(text.strip().partition("\n")[0])
