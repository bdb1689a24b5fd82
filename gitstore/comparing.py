"""What a commit changes of another, in one sentence, for messages that nobody wrote."""

from __future__ import annotations

from gitstore.diff import diff
from gitstore.difference.summarizing import summary
from gitstore.errors import GitstoreError
from gitstore.model import Definition
from gitstore.reading import Reading


def what_changes(reading: Reading, slug: str, before: bytes | None, after: Definition) -> str:
    """What `after` changes of what the commit `before` holds; "" where nothing differs or can be compared."""
    if before is None:
        return ""
    try:
        old = reading.definition(before, slug)
    except GitstoreError:
        return ""  # an import may hold what does not parse
    found = diff(old.value, after.value, reading.rules)
    return "" if found.empty and not found.unseen else summary(found)
