"""Derivation of a workflow's rows from Git: one set of functions for the mirror, verify and rebuild.

name            the name in the newest ledger entry that gives one (`created`, `described`), else the `name`
                of the definition of the current version, else of the latest, else of the draft, else the slug
description     in the same order, else ''
created_at      the time in the oldest ledger entry, or of it; without a ledger, that of the draft commit
updated_at      the time of the newest entry that counts, or of the open draft's commit if that is later
ledger_oid      the newest entry that counts; an entry left at the tip by a killed process is not recorded
a version       created_at from its commit; published_at and published_by from its ledger entry (the
                newest that counts, if a retry wrote a second one); the message from the tag or the ledger;
                valid and invalid_reason as judged when it was published, by the ledger entry
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final
from uuid import UUID

from gitstore import names
from gitstore.definition.elements import mapping
from gitstore.errors import GitstoreError, IntegrityError
from gitstore.model import LedgerEntry, LedgerKind, Snapshot, Version, WorkflowState
from gitstore.names import version_id
from gitstore.repository import Repository
from sync import states
from sync.rows import VersionRow, WorkflowRow
from sync.states import StateRow

BATCH: Final = 100  # rows
LARGEST_BATCH: Final = 4 * 2**20  # bytes of definitions; parsed, they take twenty times as much memory


@dataclass(frozen=True, slots=True)
class LedgerDelta:
    """The new entries of a ledger: those that count, oldest first, and only the newest of each version.

    `base` is the entry that was already known; `oldest` is the first entry of the ledger, or None if the walk
    ended before it.
    """

    entries: tuple[LedgerEntry, ...]
    base: LedgerEntry | None
    oldest: LedgerEntry | None

    @property
    def newest(self) -> LedgerEntry | None:
        return self.entries[-1] if self.entries else self.base

    def published(self) -> list[LedgerEntry]:
        """Return the publication entries in the order of their version numbers."""
        entries = (entry for entry in self.entries if entry.kind is LedgerKind.PUBLISHED)
        return sorted(entries, key=lambda entry: entry.version or 0)


@dataclass(frozen=True, slots=True)
class Derived:
    """All rows of a workflow: its own, those of its publications in `entries`, and the open draft's or None.

    `titling` is the row of the version that names the workflow, which is made already. `states` are the rows
    of what has changed about versions.
    """

    workflow: WorkflowRow
    entries: list[LedgerEntry]
    draft: VersionRow | None
    titling: VersionRow | None
    states: list[StateRow]

    def published_row(self, repository: Repository, entry: LedgerEntry) -> VersionRow:
        if self.titling is not None and self.titling.version_number == entry.version:
            return self.titling
        return published_row(repository, self.workflow.slug, entry)

    def versions(self, repository: Repository) -> Iterator[VersionRow]:
        """Yield the rows of all versions, the draft last."""
        yield from (self.published_row(repository, entry) for entry in self.entries)
        if self.draft is not None:
            yield self.draft

    def numbers(self) -> list[int]:
        drafts = [self.draft.version_number] if self.draft is not None else []
        return [*(entry.version or 0 for entry in self.entries), *drafts]


@dataclass(frozen=True, slots=True)
class Titles:
    """Name and description as a definition states them."""

    name: str | None = None
    description: str | None = None


def ledger_delta(repository: Repository, slug: str, until: str | None) -> LedgerDelta:
    """Return the ledger entries after the entry `until` (None: all entries).

    Raises `integrity` if `until` is not in the chain, which means that the ledger was rewritten.
    """
    entries: list[LedgerEntry] = []
    seen: set[int] = set()
    oldest = None
    for entry in repository.ledger(slug):
        oldest = entry
        if entry.oid == until:
            return LedgerDelta(tuple(reversed(entries)), entry, None)
        if entry.kind is LedgerKind.PUBLISHED and entry.version is not None:
            if entry.version in seen or not repository.counts(slug, entry):
                continue
            seen.add(entry.version)
        entries.append(entry)
    if until is not None:
        raise contradiction(slug, f"the database records the ledger entry {until}, which the ledger lacks")
    return LedgerDelta(tuple(reversed(entries)), None, oldest)


def workflow_row(
    repository: Repository,
    state: WorkflowState,
    delta: LedgerDelta,
    titles: Titles,
    draft: VersionRow | None,
    before: WorkflowRow | None,
) -> WorkflowRow:
    """Return the row of a workflow.

    `draft` is the row of the open draft, `before` the row as of the beginning of `delta`.
    """
    identity = repository.identity(state.slug)
    given = _given(delta, before)
    times = [delta.newest.when] if delta.newest else []
    times += [draft.created_at] if draft else []
    # A walk that ended before the oldest entry ended at one that `before` already includes.
    known = before.created_at if before is not None and delta.base is not None else None
    oldest = delta.oldest
    created = ((oldest.created_at or oldest.when) if oldest else known) or min(times)
    return WorkflowRow(
        id=identity,
        project_id=repository.project,
        slug=state.slug,
        name=given.name or titles.name or state.slug,
        description=given.description or titles.description or "",
        current_version_id=version_id(identity, state.current) if state.current is not None else None,
        held=state.held,
        created_at=created,
        updated_at=max(times, default=created),
        latest_number=state.latest,
        given_name=given.name,
        given_description=given.description,
        draft_commit=state.draft,
        ledger_oid=delta.newest.oid if delta.newest else None,
        external_ids=_external_ids(delta, before),
        yanked=list(state.yanked),
        archived=state.archived,
    )


def published_row(repository: Repository, slug: str, entry: LedgerEntry) -> VersionRow:
    """Return the row of the version published by `entry`, which counts, and says whether it is valid."""
    return row_of(repository, repository.version(slug, entry.version or 0, entry, judged=False))


def row_of(repository: Repository, version: Version) -> VersionRow:
    return _row(
        repository,
        version.slug,
        version.number,
        version.snapshot,
        state="published",
        ref_oid=version.ref_oid,
        message=version.message,
        published_at=version.published_at,
        published_by=version.published_by.name,
        invalid=version.invalid,
        external_id=version.external_id,
    )


def draft_row(repository: Repository, state: WorkflowState) -> VersionRow | None:
    """Return the row of the open draft, or None."""
    if not state.draft_open or state.draft is None:
        return None
    return draft_of(repository, state.slug, state.draft, state.next_number)


def draft_of(repository: Repository, slug: str, commit: str, number: int) -> VersionRow:
    """Return the row of a draft at `commit`, which need not be the tip of its branch any longer."""
    snapshot = repository.snapshot(slug, commit)
    return _row(repository, slug, number, snapshot, state="draft", ref_oid=commit, message=snapshot.message)


def batches(repository: Repository, rows: Iterable[VersionRow]) -> Iterator[list[VersionRow]]:
    """Yield `rows` in batches, limited in number and in bytes of definitions, to bound memory."""
    batch: list[VersionRow] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(repository.objects.blob(row.blob_sha.encode()))
        if len(batch) == BATCH or size > LARGEST_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def title_number(state: WorkflowState) -> int | None:
    """Return the number of the version that names the workflow: the current, else the latest, else None."""
    return state.current if state.current is not None else state.latest or None


def titles_of(definition: Any) -> Titles:
    name, description = (mapping(definition).get(key) for key in ("name", "description"))
    return Titles(_stated(name), _stated(description))


def workflow_rows(repository: Repository, slug: str) -> Derived | None:
    """Derive a whole workflow from Git alone, or return None if it does not exist."""
    if not repository.exists(slug):
        return None
    state = consistent_state(repository, slug)
    delta = ledger_delta(repository, slug, None)
    entries = delta.published()
    draft = draft_row(repository, state)
    named_after = next((entry for entry in entries if entry.version == title_number(state)), None)
    titling = published_row(repository, slug, named_after) if named_after else None
    source = titling or draft
    titles = titles_of(source.definition if source else None)
    row = workflow_row(repository, state, delta, titles, draft, None)
    changed = states.derive(repository.project, row.id, delta.entries)
    return Derived(row, entries, draft, titling, changed)


def consistent_state(repository: Repository, slug: str) -> WorkflowState:
    """Return `Repository.state` of `slug`; if tags and ledger differ, the state that they agree on."""
    try:
        return repository.state(slug)
    except IntegrityError:
        pass
    published = ledger_delta(repository, slug, None).published()
    newest = repository.newest_counting(slug)
    numbers = {entry.version for entry in published}
    latest = max((number for number in numbers if number), default=0)
    commit = repository.version(slug, latest, published[-1]).snapshot.commit if published else None
    draft, tip = (repository.refs.read(name) for name in (names.draft(slug), names.ledger(slug)))
    below = draft and commit and repository.objects.is_ancestor(draft, commit.encode())
    return WorkflowState(
        slug=slug,
        draft=draft.decode() if draft else None,
        ledger=tip.decode() if tip else None,
        latest=latest,
        latest_commit=commit,
        current=newest.current if newest and newest.current in numbers else None,
        held=newest.held if newest else False,
        draft_open=draft is not None and not below,
        floor=repository.floors.get(slug, 0),
        environments=tuple(each for each in newest.environments if numbers.issuperset(each.versions))
        if newest
        else (),
        yanked=newest.yanked if newest else (),
        archived=newest.archived if newest else False,
    )


def check_draft(known: str | None, held: str | None, slug: str, delta: LedgerDelta) -> None:
    """Raise `integrity` if the draft at `known` is missing and no entry of `delta` discards it."""
    missing = known is not None and held is None
    if missing and not any(entry.kind is LedgerKind.DISCARDED for entry in delta.entries):
        raise contradiction(slug, f"the draft {known} is missing, but the ledger does not discard it")


def contradiction(slug: str, problem: str) -> GitstoreError:
    """Return an `integrity` error: Git and the database contradict each other about `slug`."""
    return IntegrityError(f"{slug}: {problem}: run gitstore verify", workflow=slug)


def _row(
    repository: Repository,
    slug: str,
    number: int,
    snapshot: Snapshot,
    *,
    state: str,
    ref_oid: str,
    message: str,
    published_at: datetime | None = None,
    published_by: str | None = None,
    invalid: str | None = None,
    external_id: UUID | None = None,
) -> VersionRow:
    identity = repository.identity(slug)
    parsed = snapshot.definition
    if parsed is None:
        # A definition that does not parse is valid data; one that cannot be read is damage and raises here.
        repository.objects.blob(snapshot.blob.encode())
    return VersionRow(
        id=version_id(identity, number),
        workflow_id=identity,
        project_id=repository.project,
        version_number=number,
        state=state,
        created_at=snapshot.created_at,
        published_at=published_at,
        commit_sha=snapshot.commit,
        ref_oid=ref_oid,
        tree_sha=snapshot.tree,
        blob_sha=snapshot.blob,
        file_name=snapshot.file_name,
        digest=parsed.digest if parsed else None,
        definition=parsed.value if parsed else None,
        definition_text=json.dumps(parsed.value, ensure_ascii=False) if parsed else None,
        valid=parsed is not None and (parsed.valid if state == "draft" else invalid is None),
        invalid_reason=_storable(invalid),
        message=message,
        author_name=snapshot.author.name,
        author_email=snapshot.author.email,
        published_by=published_by,
        external_id=external_id,
    )


def _given(delta: LedgerDelta, before: WorkflowRow | None) -> Titles:
    naming = (LedgerKind.CREATED, LedgerKind.DESCRIBED)
    newest = next((entry for entry in reversed(delta.entries) if entry.kind in naming), None)
    if newest is not None:
        name, description = newest.name, newest.description
        return Titles(_storable(name), _storable(description))
    return Titles(before.given_name, before.given_description) if before else Titles()


def _external_ids(delta: LedgerDelta, before: WorkflowRow | None) -> list[UUID]:
    """Return the ids of imported drafts, in the order of their imports."""
    known = before.external_ids if before is not None and delta.base is not None else []
    new = (entry.external_ids for entry in delta.entries if entry.kind is LedgerKind.IMPORTED)
    return list(dict.fromkeys(chain(known, *new)))


def _stated(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _storable(value: str | None) -> str | None:
    """Replace NUL and lone surrogates (JSON escapes that Postgres cannot store); return None if empty."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode() if value else None
