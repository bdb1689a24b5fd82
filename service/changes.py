"""What changed in a workflow since a page or a program last looked, from a token and the workflow's row.

The token holds the state that was seen. A client that polls with it gets 304 for the price of reading one
row. It is opaque to callers; one that is not understood counts as a state in which nothing is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from gitstore.repository import Repository
from service.access import who
from service.caller import Caller
from sync import catalog
from sync.catalog import Workflow
from sync.db import Transaction

_TOKEN: Final = re.compile(r"([0-9a-f]{0,40})\.([0-9]{1,10})\.([0-9]{1,10})\.([01])\.([0-9a-f]{0,40})")


@dataclass(frozen=True, slots=True)
class Token:
    """The state that was seen: the open draft's commit or "", version numbers or 0, and the ledger's tip."""

    draft: str
    latest: int
    current: int
    held: bool
    ledger: str

    @classmethod
    def of(cls, row: Workflow) -> Self:
        draft = row.draft_commit if row.draft_number and row.draft_commit else ""
        return cls(draft, row.latest_number, row.current_number or 0, row.held, row.ledger_oid or "")

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        found = _TOKEN.fullmatch(text or "")
        if found is None:
            return None
        return cls(found[1], int(found[2]), int(found[3]), found[4] == "1", found[5])

    def __str__(self) -> str:
        return f"{self.draft}.{self.latest}.{self.current}.{int(self.held)}.{self.ledger}"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened: `kind`, for programs; by whom and when, if that is known."""

    kind: str
    text: str
    by: str | None
    at: datetime | None
    version: int | None = None

    def described_to(self, name: str) -> str:
        """Return the text for someone of that name: "You published v3"."""
        return self.text.format(who="You" if self.by == name else (self.by or "Someone"))


def since(caller: Caller, row: Workflow, seen: Token) -> list[Change]:
    """Return what happened since `seen`: of several saves, or publications, the newest alone."""
    with caller.reading() as tx, caller.opened(shown=True) as repository:
        return list(_changes(tx, repository, row, seen, Token.of(row)))


def _changes(
    tx: Transaction, repository: Repository, row: Workflow, seen: Token, now: Token
) -> Iterator[Change]:
    if now.draft != seen.draft and now.draft:
        draft = catalog.version(tx, row.id, "draft")
        if draft is not None:
            verb = "saved the draft" if seen.draft else "started a draft"
            by = _name(draft.author_name)
            yield Change("draft_saved", f"{{who}} {verb}", by, draft.created_at, draft.version_number)
    if now.latest > seen.latest:
        latest = catalog.version(tx, row.id, now.latest)
        if latest is not None:
            by, number = _name(latest.published_by), latest.version_number
            yield Change("published", f"{{who}} published v{number}", by, latest.published_at, number)
    if now.ledger == seen.ledger:
        return
    entry = next(iter(repository.ledger(row.slug)), None)
    by, at = (_name(entry.actor.name), entry.when) if entry else (None, None)
    if seen.draft and not now.draft and now.latest == seen.latest:
        yield Change("draft_discarded", "{who} discarded the draft", by, at)
    if now.current != seen.current and not (now.latest > seen.latest and now.current == now.latest):
        verb = f"made v{now.current} current" if now.current else "stopped the workflow"
        yield Change("current_changed", f"{{who}} {verb}", by, at, now.current or None)
    if now.held != seen.held and now.current:
        verb = f"held v{now.current}" if now.held else f"released v{now.current}"
        yield Change("held" if now.held else "released", f"{{who}} {verb}", by, at, now.current)


def _name(name: str | None) -> str | None:
    return who(name).name if name else None
