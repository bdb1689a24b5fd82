"""Rebuilding the rows of `workflows` and `workflow_versions` from Git alone, a group of workflows at a time.

Each group has a transaction of its own. Only rows that differ are written, and none is deleted, as tables of
a host may refer to them: a published row without a counterpart in Git becomes `lost`, a draft's row
`discarded`. No event is emitted, since no fact is new. Writes that a killed process left incomplete are
mirrored first, with their events. A rebuild that was killed is continued by the next one.

If Git contradicts its ledger or a recorded row, a rebuild would hide the contradiction. That workflow is left
as it is, and each contradiction is listed, unless `accept_git` is set. Then the versions are those on which
tags and ledger agree.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Final, LiteralString
from uuid import UUID, uuid5

from gitstore import ledger, names
from gitstore.changes import Authorship, ChangeSet, write_one
from gitstore.errors import GitstoreError, IntegrityError
from gitstore.model import LedgerKind
from gitstore.names import is_slug, version_id
from gitstore.repository import Repository, WritableRepository
from gitstore.system import now
from sync import derive, environments, git_objects, releases, rows, states
from sync.db import Database, Locks, Transaction
from sync.integrity import checks
from sync.integrity.differences import ACCEPT, Finding, contradictions
from sync.integrity.processes import in_groups
from sync.reconcile import Progress, reconcile, tracked
from sync.unit_of_work import MirrorUnitOfWork, exclusive, lock_key

_IDS: Final[LiteralString] = """
    select id, workflow_id, version_number from gitstore.workflow_versions
    where workflow_id = any(%(workflows)s)
"""
_CORRECT_ID: Final[LiteralString] = "update gitstore.workflow_versions set id = %(new)s where id = %(old)s"
_RETIRE: Final[LiteralString] = """
    update gitstore.workflow_versions set state = case state when 'draft' then 'discarded' else 'lost' end
    where workflow_id = any(%(workflows)s) and state in ('draft', 'published') and id <> all(%(kept)s)
"""
_CLEAR: Final[LiteralString] = """
    update gitstore.workflows
    set current_version_id = null, held = false, latest_number = 0, draft_commit = null, ledger_oid = null
    where id = any(%(workflows)s) and (current_version_id is not null or held or latest_number <> 0
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
    is not set; the other workflows are rebuilt then.
    """
    for repository in repositories:
        reconcile(MirrorUnitOfWork(database, repository))
    made, findings = 0, list[Finding]()
    with exclusive(database.upkeep, repositories, database.lock_seconds) as tx:
        for repository in repositories:
            with database.as_owner() as run:
                passed = checks.checked(run, repository, "rebuild", checks.begin(run, repository, "rebuild"))
            made += sum(passed.values())
            slugs = [slug for slug in rows.slugs(tx, repository) if is_slug(slug) and slug not in passed]
            refused: list[str] = []
            for done in in_groups(_rebuild_group, database, repository, slugs, progress):
                made += done.versions
                refused += done.refused
                findings += done.findings
            if refused and accept_git:
                with closing(WritableRepository.of(repository)) as writable:
                    _accept_losses(writable, refused)
                made += _rebuilt(database, repository, refused)
            lost = [
                Finding(f"release {name}", None, problem, ACCEPT)
                for name, problem, is_lost in releases.differences(tx, repository)
                if is_lost
            ]
            findings += lost
            if accept_git or not lost:
                releases.correct(tx, repository)
            checks.end(tx, repository, "rebuild")
    if findings and not accept_git:
        raise _refusal(findings)
    return made


@dataclass(frozen=True, slots=True)
class _Group:
    """The result of a group: its number of versions, and the workflows left alone, with their findings."""

    versions: int
    refused: list[str]
    findings: list[Finding]


def _rebuild_group(database: Database, repository: Repository, slugs: Sequence[str]) -> _Group:
    findings: dict[str, list[Finding]] = {}
    with database.as_owner() as tx, repository.refs.cached_reads():
        repository.preload(slugs)
        for slug in slugs:
            findings[slug] = list(contradictions(repository, rows.recorded(tx, repository, slug)))
    refused = [slug for slug in slugs if findings[slug]]
    versions = _rebuilt(database, repository, [slug for slug in slugs if slug not in refused])
    return _Group(versions, refused, list(chain.from_iterable(findings.values())))


def _rebuilt(database: Database, repository: Repository, slugs: Sequence[str]) -> int:
    """Write the rows of `slugs` that differ in one transaction; return their number of versions.

    The caller's lock of the repository ends with its process, so each group has those of its workflows.
    """
    locks = Locks(shared=[], exclusive=sorted(lock_key(repository, slug) for slug in slugs))
    with database.upkeep(locks) as tx, repository.refs.cached_reads():
        made = correct(tx, repository, slugs)
        checks.record(tx, repository, "rebuild", checks.fingerprints(tx, repository, slugs))
        return made


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


def _accept_losses(repository: WritableRepository, slugs: Sequence[str]) -> None:
    """Append the remaining state to ledgers whose latest version has lost its tag, to permit new writes."""
    for slug in slugs:
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
        count += correct(tx, repository, [slug])
    releases.correct(tx, repository)
    return count


def correct(tx: Transaction, repository: Repository, slugs: Sequence[str]) -> int:
    """Write the rows of `slugs` that differ; return their number of versions in Git, drafts included.

    Requires a transaction of `Database.upkeep` and the locks of the workflows.
    """
    ids = {slug: repository.identity(slug) for slug in slugs}
    rows.raise_marks_to_rows(tx, ids.values())
    rows.load_marks(tx, repository, slugs)
    derived = [(slug, derive.workflow_rows(repository, slug)) for slug in slugs]
    gone = [ids[slug] for slug, found in derived if found is None]
    kept = [found for _, found in derived if found is not None]
    numbers = [(found.workflow.id, number) for found in kept for number in found.numbers()]
    _correct_ids(tx, ids.values())
    versions = [version_id(workflow, number) for workflow, number in numbers]
    tx.run(_RETIRE, workflows=list(ids.values()), kept=versions)
    tx.run(_CLEAR, workflows=gone)
    tx.run(rows.UPSERT_WORKFLOWS, workflows=rows.as_json(found.workflow for found in kept))
    for batch in derive.batches(
        repository, chain.from_iterable(found.versions(repository) for found in kept)
    ):
        tx.run(rows.CORRECT_VERSIONS, versions=rows.as_json(batch))
    states.correct(tx, {found.workflow.id: found.states for found in kept})
    environments.correct(tx, repository, slugs)
    rows.raise_marks_to_rows(tx, ids.values())
    git_objects.keep_missing(tx, repository, slugs)
    return len(numbers)


def _correct_ids(tx: Transaction, workflows: Collection[UUID]) -> None:
    """Reset the ids of manually edited rows to those of their numbers, so that upserts find them."""
    expected = {
        identity: right
        for identity, workflow, number in tx.tuples(_IDS, workflows=list(workflows))
        if identity != (right := version_id(workflow, number))
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
