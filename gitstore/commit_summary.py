"""One-sentence summaries of a change, used as the default commit message."""

from __future__ import annotations

from gitstore.diff.summary import NOTHING, summary_of
from gitstore.errors import GitstoreError
from gitstore.model import Definition
from gitstore.repository import Repository


def what_changes(repository: Repository, slug: str, before: bytes | None, after: Definition) -> str:
    """Summarize the change from the commit `before` to `after`; "" if they are equal or not comparable."""
    if before is None:
        return ""
    try:
        old = repository.definition(before, slug)
    except GitstoreError:
        return ""  # an imported version may hold a definition that does not parse
    said = summary_of(old.value, after.value, repository.rules)
    return "" if said == NOTHING else said
