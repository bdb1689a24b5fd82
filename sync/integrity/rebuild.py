"""Rebuilding the rows of `workflows` and `workflow_versions` from Git alone, in one transaction.

Only rows that differ are written, and none is deleted, as tables of a host may refer to them: a published
row without a counterpart in Git becomes `lost`, a draft's row `discarded`. No event is emitted, since no fact
is new. Writes that a killed process left incomplete are mirrored first, with their events.

If Git contradicts its ledger or a recorded row, a rebuild would hide the contradiction. It is refused, and
each contradiction is listed, unless `accept_git` is set. Then the versions are those on which tags and ledger
agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final, LiteralString
from uuid import UUID, uuid5

from gitstore import ledger, names
from gitstore.changes import Authorship, ChangeSet, write_one
from gitstore.errors import GitstoreError, IntegrityError
from gitstore.model import LedgerKind
from gitstore.names import is_slug, version_id, workflow_id
from gitstore.repository import Repository, WritableRepository
from gitstore.system import now
from sync import derive, environments, git_objects, releases, rows
from sync.db import Database, Transaction
from sync.integrity.verify import ACCEPT, Finding, contradictions
from sync.reconcile import Progress, reconcile, tracked
from sync.rows import Recorded
from sync.unit_of_work import MirrorUnitOfWork, exclusive

_CORRECT_ID: Final[LiteralString] = "update gitstore.workflow_versions set id = %(new)s where id = %(old)s"
_RETIRE: Final[LiteralString] = """
    update gitstore.workflow_versions set state = case state when 'draft' then 'discarded' else 'lost' end
    where workflow_id = %(workflow)s and state in ('draft', 'published') and id <> all(%(kept)s)
"""
_CLEAR: Final[LiteralString] = """
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
    with exclusive(database.upkeep, repositories, database.lock_seconds) as tx:
        findings: list[Finding] = []
        for repository in repositories:
            for slug in rows.slugs(tx, repository):
                findings += contradictions(repository, rows.recorded(tx, repository, slug))
            findings += [
                Finding(f"release {name}", None, problem, ACCEPT)
                for name, problem, is_lost in releases.differences(tx, repository)
                if is_lost
            ]
        if findings and not accept_git:
            raise _refusal(findings)
        if findings:
            for repository in repositories:
                with closing(WritableRepository.of(repository)) as writable:
                    _accept_losses(writable)
        return sum(correct_all(tx, repository, progress) for repository in repositories)


def losses(tx: Transaction, repository: Repository) -> list[str]:
    """Return a line for each published version and draft that accepting Git would discard or rewrite."""
    lines = []
    for slug in rows.slugs(tx, repository):
        entries = derive.ledger_delta(repository, slug, None).published() if is_slug(slug) else []
        agreed = {entry.version: entry.target for entry in entries}
        draft = repository.refs.read(names.draft(slug)) if is_slug(slug) else None
        for number, version in rows.recorded(tx, repository, slug).versions.items():
            ref = version.ref_oid
            if version.state == "draft" and (draft is None or draft.decode() != ref):
                lines.append(f"{slug}: the draft {ref}: Git has {draft.decode() if draft else 'none'}")
            elif version.state == "published" and agreed.get(number) != ref:
                becomes = f"is rewritten as {agreed[number]}" if number in agreed else "becomes lost"
                published = f"published by {version.published_by} on {version.published_at:%Y-%m-%d} as {ref}"
                lines.append(f"{slug}/v{number}, {published}: {becomes}")
    return lines


def _accept_losses(repository: WritableRepository) -> None:
    """Append the remaining state to ledgers whose latest version has lost its tag, to permit new writes."""
    for slug in filter(is_slug, repository.slugs()):
        newest, left = repository.newest_counting(slug), derive.consistent_state(repository, slug)
        if newest is None or newest.latest <= left.latest:
            continue
        reason = "Give up what the repository has lost"
        change = ChangeSet(repository, slug, Authorship(ledger.COMMITTER, now(), reason))
        kind = LedgerKind.CLEARED if left.current is None else LedgerKind.CURRENT
        change.append(
            kind,
            version=left.current,
            latest=left.latest,
            current=left.current,
            held=left.held,
            environments=left.environments,
        )
        write_one(repository, change)


def correct_all(tx: Transaction, repository: Repository, progress: Progress | None = None) -> int:
    """Write every row of a project that Git determines and that differs; return the number of versions.

    Requires a transaction of `Database.upkeep` and the repository's exclusive lock.
    """
    count = 0
    for slug in tracked(list(filter(is_slug, rows.slugs(tx, repository))), progress):
        count += correct(tx, repository, slug)
    releases.correct(tx, repository)
    environments.correct(tx, repository)
    return count


def correct(tx: Transaction, repository: Repository, slug: str) -> int:
    """Write the rows of one workflow that differ; return its number of versions in Git, draft included.

    Requires a transaction of `Database.upkeep` and the workflow's lock.
    """
    workflow = workflow_id(repository.project, slug)
    rows.raise_mark_to_rows(tx, workflow)
    rows.load_marks(tx, repository, [slug])
    derived = derive.workflow_rows(repository, slug)
    if derived is None:
        tx.run(_RETIRE, workflow=workflow, kept=[])
        tx.run(_CLEAR, workflow=workflow)
        return 0
    row, entries, draft = derived
    numbers = [*(entry.version or 0 for entry in entries), *([draft.version_number] if draft else [])]
    _correct_ids(tx, workflow, rows.recorded(tx, repository, slug))
    tx.run(_RETIRE, workflow=workflow, kept=[version_id(workflow, number) for number in numbers])
    tx.run(rows.UPSERT_WORKFLOWS, workflows=rows.as_json([row]))
    for batch in derive.batches(
        repository, (derive.published_row(repository, slug, entry) for entry in entries)
    ):
        tx.run(rows.CORRECT_VERSIONS, versions=rows.as_json(batch))
    if draft is not None:
        tx.run(rows.CORRECT_VERSIONS, versions=rows.as_json([draft]))
    rows.raise_mark_to_rows(tx, workflow)
    git_objects.keep_missing(tx, repository, slug)
    return len(numbers)


def _correct_ids(tx: Transaction, workflow: UUID, recorded: Recorded) -> None:
    """Reset the ids of manually edited rows to those of their numbers, so that upserts find them."""
    expected = {
        version.id: version_id(workflow, number)
        for number, version in recorded.versions.items()
        if version.id != version_id(workflow, number)
    }
    # In two steps, since two rows may have swapped ids.
    between = {identity: uuid5(identity, "corrected") for identity in expected}
    for old, new in between.items():
        tx.run(_CORRECT_ID, old=old, new=new)
    for old, new in expected.items():
        tx.run(_CORRECT_ID, old=between[old], new=new)


def _refusal(findings: Sequence[Finding]) -> GitstoreError:
    lines = [str(finding) for finding in findings]
    return IntegrityError(
        "Git contradicts its ledger or the database, and rebuilding would hide it:\n  "
        + "\n  ".join(lines)
        + "\nTo accept the state that Git and its ledger agree on, run gitstore rebuild --accept-git",
        findings=lines,
    )
