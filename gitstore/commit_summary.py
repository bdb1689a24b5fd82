"""What a commit changes of another, in one sentence, for messages that nobody wrote."""

from __future__ import annotations

from gitstore.diff.summary import NOTHING, summary_of
from gitstore.errors import GitstoreError
from gitstore.model import Definition
from gitstore.repository import Repository


def what_changes(reading: Repository, slug: str, before: bytes | None, after: Definition) -> str:
    """What `after` changes of what the commit `before` holds; "" where nothing differs or can be compared."""
    if before is None:
        return ""
    try:
        old = reading.definition(before, slug)
    except GitstoreError:
        return ""  # an import may hold what does not parse
    said = summary_of(old.value, after.value, reading.rules)
    return "" if said == NOTHING else said
