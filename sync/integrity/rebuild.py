"""Rebuilding the rows of `workflows` and `workflow_versions` from Git alone, in one transaction.

Only rows that differ are written, and none is deleted, as tables of a host may refer to them: a published
row without a counterpart in Git becomes `lost`, a draft's row `discarded`. No event is emitted, since no fact
is new. Writes that a killed process left incomplete are mirrored first, with their events.

If Git contradicts its ledger or a recorded row, a rebuild would hide the contradiction. It is refused, and
each contradiction is listed, unless `accept_git` is set. Then the versions are those on which tags and ledger
agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Final, LiteralString
from uuid import UUID, uuid5

from gitstore import ledger, names
from gitstore.changes import Authorship, ChangeSet, write_one
from gitstore.errors import GitstoreError, IntegrityError
from gitstore.model import LedgerKind
from gitstore.names import is_slug, version_id, workflow_id
from gitstore.repository import Repository, WritableRepository
from sync import derive, git_objects, marks, rows
from sync.db import Database, Transaction
from sync.integrity import verify
from sync.reconcile import reconcile
from sync.unit_of_work import MirrorUnitOfWork, exclusive

Progress = Callable[[int, int], None]

_UPKEEP: Final[LiteralString] = "select set_config('gitstore.upkeep', 'on', true)"
_KNOWN: Final[LiteralString] = """
    select v.version_number, v.state, v.ref_oid, v.published_by, v.published_at
    from gitstore.workflow_versions v join gitstore.workflows w on w.id = v.workflow_id
    where w.project_id = %(project)s and w.slug = %(slug)s and v.state in ('draft', 'published')
    order by v.version_number
"""
_ROWS: Final[LiteralString] = """
    select id, version_number from gitstore.workflow_versions where workflow_id = %(workflow)s
"""
_CORRECT_ID: Final[LiteralString] = "update gitstore.workflow_versions set id = %(new)s where id = %(old)s"
_RETIRE: Final[LiteralString] = """
    update gitstore.workflow_versions set state = case state when 'draft' then 'discarded' else 'lost' end
    where workflow_id = %(workflow)s and state in ('draft', 'published') and id <> all(%(kept)s)
"""
_FORGET: Final[LiteralString] = """
    update gitstore.workflows
    set current_version_id = null, held = false, latest_number = 0, draft_commit = null, ledger_oid = null
    where id = %(workflow)s and (current_version_id is not null or held or latest_number <> 0
        or draft_commit is not null or ledger_oid is not null)
"""


def rebuild(
    database: Database,
    repositories: Sequence[Repository],
    *,
    accept_git: bool = False,
    progress: Progress | None = None,
) -> int:
    """Rebuild the projects of `repositories`; return the resulting number of versions, drafts included.

    Raises `integrity` with `findings` (a list of str) if Git contradicts its ledger or a row and `accept_git`
    is not set.
    """
    for repository in repositories:
        reconcile(MirrorUnitOfWork(database, repository))
    with exclusive(database.as_owner, repositories, database.lock_seconds) as tx:
        begin_upkeep(tx)
        findings: list[verify.Finding] = []
        for repository in repositories:
            findings += contradictions(tx, repository)
        if findings and not accept_git:
            raise _refused(findings)
        if findings:
            for repository in repositories:
                with closing(WritableRepository.of(repository)) as writable:
                    _accept_losses(writable)
        return sum(_rebuild_one(tx, repository, progress) for repository in repositories)


def begin_upkeep(tx: Transaction) -> None:
    """Permit the tables' owner to change immutable rows until the transaction ends."""
    tx.run(_UPKEEP)


def contradictions(tx: Transaction, repository: Repository) -> list[verify.Finding]:
    """Return the contradictions that rebuilding a project would hide."""
    return [
        finding for slug in _slugs(tx, repository) for finding in verify.contradictions(tx, repository, slug)
    ]


def losses(tx: Transaction, repository: Repository) -> list[str]:
    """Return a line for each published version and draft that accepting Git would discard or rewrite."""
    found = []
    for slug in _slugs(tx, repository):
        entries = derive.ledger_delta(repository, slug, None).published() if is_slug(slug) else []
        agreed = {entry.version: entry.target for entry in entries}
        draft = repository.refs.read(names.draft(slug)) if is_slug(slug) else None
        for number, state, ref, by, at in tx.tuples(_KNOWN, project=repository.project, slug=slug):
            if state == "draft" and (draft is None or draft.decode() != ref):
                found.append(f"{slug}: the draft {ref}: Git has {draft.decode() if draft else 'none'}")
            elif state == "published" and agreed.get(number) != ref:
                becomes = f"is rewritten as {agreed[number]}" if number in agreed else "becomes lost"
                found.append(f"{slug}/v{number}, published by {by} on {at:%Y-%m-%d} as {ref}: {becomes}")
    return found


def _slugs(tx: Transaction, repository: Repository) -> list[str]:
    """Return the sorted slugs of all workflows of a project that have a row or refs."""
    known = {slug for (slug,) in tx.tuples(verify.SLUGS, project=repository.project)}
    return sorted(known | set(repository.slugs()))


def _accept_losses(repository: WritableRepository) -> None:
    """Append the remaining state to ledgers whose latest version has lost its tag, to permit new writes."""
    for slug in filter(is_slug, repository.slugs()):
        newest, left = repository.newest_counting(slug), derive.agreed(repository, slug)
        if newest is None or newest.latest <= left.latest:
            continue
        occasion = Authorship(
            ledger.COMMITTER, datetime.now(UTC), "What the repository has lost was given up"
        )
        recorder = ChangeSet(repository, slug, occasion)
        kind = LedgerKind.CLEARED if left.current is None else LedgerKind.CURRENT
        recorder.append(kind, version=left.current, latest=left.latest, current=left.current, held=left.held)
        write_one(repository, recorder)


def _rebuild_one(tx: Transaction, repository: Repository, progress: Progress | None) -> int:
    slugs = [slug for slug in _slugs(tx, repository) if is_slug(slug)]
    count = 0
    for done, slug in enumerate(slugs):
        if progress is not None:
            progress(done, len(slugs))
        count += correct(tx, repository, slug)
    if progress is not None:
        progress(len(slugs), len(slugs))
    return count


def correct(tx: Transaction, repository: Repository, slug: str) -> int:
    """Write the rows of one workflow that differ; return its number of versions in Git, draft included.

    Requires the tables' owner, during upkeep (`begin_upkeep`), and the workflow's lock.
    """
    workflow = workflow_id(repository.project, slug)
    marks.raise_to_rows(tx, workflow)
    marks.load(tx, repository, [slug])
    derived = derive.everything(repository, slug, derive.agreed(repository, slug))
    if derived is None:
        tx.run(_RETIRE, workflow=workflow, kept=[])
        tx.run(_FORGET, workflow=workflow)
        return 0
    row, entries, draft = derived
    numbers = [*(entry.version or 0 for entry in entries), *([draft.version_number] if draft else [])]
    _correct_ids(tx, workflow)
    tx.run(_RETIRE, workflow=workflow, kept=[version_id(workflow, number) for number in numbers])
    tx.run(rows.UPSERT_WORKFLOWS, workflows=rows.of([row]))
    for batch in derive.batches(
        repository, (derive.published_row(repository, slug, entry) for entry in entries)
    ):
        tx.run(rows.CORRECT_VERSIONS, versions=rows.of(batch))
    if draft is not None:
        tx.run(rows.CORRECT_VERSIONS, versions=rows.of([draft]))
    marks.raise_to_rows(tx, workflow)
    git_objects.keep_missing(tx, repository, slug)
    return len(numbers)


def _correct_ids(tx: Transaction, workflow: UUID) -> None:
    """Reset the ids of manually edited rows to those of their numbers, so that upserts find them."""
    right = {
        identity: version_id(workflow, number)
        for identity, number in tx.tuples(_ROWS, workflow=workflow)
        if identity != version_id(workflow, number)
    }
    # In two steps, since two rows may have swapped ids.
    between = {identity: uuid5(identity, "corrected") for identity in right}
    for old, new in between.items():
        tx.run(_CORRECT_ID, old=old, new=new)
    for old, new in right.items():
        tx.run(_CORRECT_ID, old=between[old], new=new)


def _refused(findings: Sequence[verify.Finding]) -> GitstoreError:
    shown = [str(finding) for finding in findings]
    return IntegrityError(
        "Git and what was recorded contradict each other, and rebuilding would hide it:\n  "
        + "\n  ".join(shown)
        + "\nTo make the rows from what Git and its ledger agree on: gitstore rebuild --accept-git",
        findings=shown,
    )
