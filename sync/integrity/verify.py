"""Read-only verification of a project: its workflows in groups (differences.py), its releases and objects.

A difference is checked again under the workflow's lock before it is reported, so that a concurrent write is
not reported as damage.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Final, LiteralString

from gitstore import names, pending
from gitstore.definition.quoting import quote
from gitstore.errors import GitstoreError, IntegrityError
from gitstore.git.maintenance import fsck
from gitstore.git.packed_refs import packed_refs_damaged
from gitstore.model import LedgerKind
from gitstore.names import is_slug
from gitstore.repository import Repository
from sync import environments, git_objects, releases, rows
from sync.db import Database
from sync.integrity import checks
from sync.integrity.differences import ACCEPT, BATCH, REBUILD, RECONCILE, RENEW, RESTORE, Finding, differences
from sync.integrity.processes import in_groups
from sync.reconcile import Progress
from sync.unit_of_work import locks_of

REPOSITORY: Final = "(repository)"
_OID: Final = re.compile(r"\b[0-9a-f]{40}\b")

_TO_KEEP: Final[LiteralString] = """
    select w.slug, v.version_number, v.ref_oid
    from gitstore.workflow_versions v join gitstore.workflows w on w.id = v.workflow_id
    where w.project_id = %(project)s and v.state in ('published', 'lost') order by w.slug, v.version_number
"""


@dataclass(slots=True)
class Notes:
    """What a full run notices that is no difference, a line for each.

    `unrecoverable` are the versions that could not be restored from the database alone, with the reason;
    `unknown` the ledger entries of an unknown kind, written by a newer gitstore.
    """

    unrecoverable: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Group:
    """The result of a group of workflows."""

    findings: list[Finding]
    unknown: list[str]


def verify(
    database: Database,
    repository: Repository,
    progress: Progress | None = None,
    *,
    full: bool = True,
    notes: Notes | None = None,
) -> Iterator[Finding]:
    """Yield every difference in one project; nothing if there are no differences.

    Unless `full`, workflows that did not change since they were found in order are passed over, and objects
    that nothing changed are not read. A full run continues one that was killed, and adds to `notes`.
    """
    if not full:
        yield from _workflows(database, repository, progress, None, Notes())
        yield from _whole(database, repository)
        return
    notes = notes if notes is not None else Notes()
    with ThreadPoolExecutor(2) as beside:  # both take as long as many groups of workflows
        in_git = beside.submit(lambda: list(fsck(repository.path)))
        in_database = beside.submit(_survey, database, repository)
        with database.as_owner() as tx:
            since = checks.begin(tx, repository, "verify")
        reported = []
        for finding in _workflows(database, repository, progress, since, notes):
            reported.append(finding.problem)
            yield finding
        damaged_refs = yield from _whole(database, repository)
        if not damaged_refs:  # git reads none of the repository otherwise
            yield from _git_problems(in_git.result(), "\n".join(reported))
        damaged, notes.unrecoverable = in_database.result()
    with database.as_owner() as tx:
        checks.end(tx, repository, "verify")
    for oid in damaged:
        yield Finding(REPOSITORY, None, f"the bytes of object {oid} in the database are damaged", RENEW)


def _workflows(
    database: Database,
    repository: Repository,
    progress: Progress | None,
    since: datetime | None,
    notes: Notes,
) -> Iterator[Finding]:
    """Yield the differences of all workflows but those that were found in order, and are unchanged."""
    with database.as_owner() as tx:
        passed = checks.checked(tx, repository, "verify", since)
        slugs = [slug for slug in rows.slugs(tx, repository) if slug not in passed]
    for group in in_groups(_verify_group, database, repository, slugs, progress):
        notes.unknown += group.unknown
        yield from group.findings


def _whole(database: Database, repository: Repository) -> Generator[Finding, None, bool]:
    """Yield the differences of no single workflow; return whether packed-refs is damaged."""
    yield from _incomplete(database, repository)
    yield from _releases(database, repository)
    if damaged := packed_refs_damaged(repository.path):
        yield Finding(REPOSITORY, None, "packed-refs is damaged, and git reads none of it", RESTORE)
    return damaged


def _unknown_entries(repository: Repository, slug: str) -> Iterator[str]:
    """Yield a line for each ledger entry of an unknown kind."""
    with suppress(GitstoreError):  # damage, which the comparison of versions reports
        for entry in repository.ledger(slug):
            if not isinstance(entry.kind, LedgerKind):
                kind = quote(entry.kind)
                yield f"{slug}: ledger entry {entry.oid} is of the unknown kind {kind}; its state is used"


def _survey(database: Database, repository: Repository) -> tuple[list[str], list[str]]:
    """Return the damaged objects in the database, and the lines of `Notes.unrecoverable`."""
    with database.as_owner() as tx:
        stored = git_objects.survey(tx, repository.project)
        versions = tx.tuples(_TO_KEEP, project=repository.project)
    lacking = ((f"{slug}/v{number}", stored.lacks(ref)) for slug, number, ref in versions)
    return stored.damaged, [f"{version}: {reason}" for version, reason in lacking if reason]


def _git_problems(lines: Iterable[str], reported: str) -> Iterator[Finding]:
    """Yield errors in refs and objects that git reports, except those of objects named in `reported`."""
    for line in lines:
        oids = _OID.findall(line)
        if not any(oid in reported for oid in oids):
            yield Finding(REPOSITORY, None, f"git fsck: {line}", RESTORE)


def _releases(database: Database, repository: Repository) -> Iterator[Finding]:
    """Yield the differences of releases, those that remain once their writers have finished."""
    with database.as_owner() as tx:
        named = [name for name, _, _ in releases.differences(tx, repository)]
    for start in range(0, len(named), BATCH):
        part = named[start : start + BATCH]
        with database.as_owner(locks_of(repository, [], part)) as tx:
            for name, problem, is_lost in releases.differences(tx, repository):
                if name in part:
                    yield Finding(f"release {name}", None, problem, ACCEPT if is_lost else REBUILD)


def _incomplete(database: Database, repository: Repository) -> Iterator[Finding]:
    """Yield the writes to several workflows that no process is completing."""
    try:
        for operation in pending.listed(repository):
            with database.as_owner(locks_of(repository, operation.slugs, operation.releases)):
                if repository.refs.read(operation.ref) is not None:
                    shown = f"{names.show(operation.ref)} is decided and not complete"
                    yield Finding(REPOSITORY, None, shown, RECONCILE)
    except IntegrityError as error:
        yield Finding(REPOSITORY, None, error.message, RESTORE)


def _verify_group(database: Database, repository: Repository, slugs: Sequence[str]) -> _Group:
    misnamed = [slug for slug in slugs if not is_slug(slug)]
    findings = [
        Finding(slug, None, "has refs, but is not a valid slug", "Delete those refs") for slug in misnamed
    ]
    # Tags are read once for the whole group, as of its beginning: a difference is looked at again.
    with database.as_owner() as tx, repository.refs.cached_reads():
        seen = checks.fingerprints(tx, repository, slugs)
        named = list(filter(is_slug, slugs))
        repository.preload(named)
        suspects = [slug for slug in named if any(differences(tx, repository, slug))]
        moved = list(environments.differences(tx, repository, _existing(repository, named)))
        unknown = {slug: list(_unknown_entries(repository, slug)) for slug in named}
        # A workflow with an unknown entry is compared each time, so that each run notes it.
        sound = {
            slug: fingerprint
            for slug, fingerprint in seen.items()
            if slug not in suspects and slug not in moved and not unknown.get(slug)
        }
        checks.record(tx, repository, "verify", sound)
    for slug in suspects:
        with database.as_owner(locks_of(repository, [slug])) as tx:
            findings += differences(tx, repository, slug)
    for slug in moved:
        with database.as_owner(locks_of(repository, [slug])) as tx:
            for _ in environments.differences(tx, repository, [slug]):
                shown = "its environments in the database differ from its ledger"
                findings.append(Finding(slug, None, shown, REBUILD))
    return _Group(findings, list(chain.from_iterable(unknown.values())))


def _existing(repository: Repository, slugs: Iterable[str]) -> list[str]:
    """Return those of `slugs` that have refs; of the others, the missing refs are reported."""
    found = []
    for slug in slugs:
        with suppress(GitstoreError):  # damage, which the comparison of versions reports
            if repository.exists(slug):
                found.append(slug)
    return found
