"""Reconciliation: mirror the rows that lag behind Git after a crash. Rows are only added.

`reconcile` visits the workflows that have markers, and those whose current version the owner of the database
set to null; `full_pass` compares every workflow with its row, by one query, one listing of refs and the
newest entry of each ledger. A workflow that cannot be mirrored does not stop the others. `recheck_drafts`
follows a change of the project's rules or schema.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, LiteralString

from gitstore import names, pending
from gitstore.errors import ConfigError, GitstoreError, UnavailableError
from gitstore.names import is_slug
from gitstore.repository import Repository
from sync import derive, mirror, releases
from sync.audit import WORKER
from sync.events import Fact
from sync.unit_of_work import MirrorUnitOfWork

Progress = Callable[[int, int], None]
"""Called with the number of workflows that are done, and of all of them."""

_ROWS: Final[LiteralString] = """
    select w.slug, w.draft_commit, w.ledger_oid, w.held, v.version_number as current_number
    from gitstore.workflows w left join gitstore.workflow_versions v on v.id = w.current_version_id
    where w.project_id = %(project)s
"""
_RULES_CHANGED: Final[LiteralString] = """
    select true from gitstore.projects
    where id = %(project)s and rules = %(rules)s
        and (checked_rules <> rules or checked_schema is distinct from %(schema)s)
"""
_RULES_CHECKED: Final[LiteralString] = """
    update gitstore.projects set checked_rules = %(rules)s, checked_schema = %(schema)s
    where id = %(project)s
"""
_WITHOUT_CURRENT: Final[LiteralString] = _ROWS + " and w.current_version_id is null and w.latest_number > 0"


@dataclass(frozen=True, slots=True)
class _Row:
    """The refs and the state of the ledger in the row of a workflow."""

    slug: str
    draft_commit: str | None
    ledger_oid: str | None
    held: bool
    current_number: int | None

    def is_edited(self, repository: Repository) -> bool:
        """Return whether the row has another current version than the ledger, or the ledger is damaged."""
        try:
            return not mirror.follows_ledger(repository, self.slug, self.current_number, held=self.held)
        except GitstoreError:
            return True


@dataclass(frozen=True, slots=True)
class Report:
    """The mirrored facts, oldest first in each workflow, and the failures: slug -> error."""

    facts: list[Fact] = field(default_factory=list)
    failures: dict[str, GitstoreError] = field(default_factory=dict)


def reconcile(unit_of_work: MirrorUnitOfWork, progress: Progress | None = None) -> Report:
    """Mirror the workflows that have markers or lost their current version. Waits for their active writers.

    Raises `unavailable` where Postgres does not answer.
    """
    repository = unit_of_work.repository
    with unit_of_work.database.as_mirror() as tx:
        empty = tx.rows(_Row, _WITHOUT_CURRENT, project=repository.project)
    edited = [row.slug for row in empty if row.is_edited(repository)]
    report = _complete_pending(unit_of_work)
    return _mirror_each(unit_of_work, [*unit_of_work.markers.pending(), *edited], progress, report)


def full_pass(unit_of_work: MirrorUnitOfWork, progress: Progress | None = None) -> Report:
    """Mirror every workflow of the project whose row differs from its refs."""
    repository = unit_of_work.repository
    with unit_of_work.database.as_mirror() as tx:
        rows = {row.slug: row for row in tx.rows(_Row, _ROWS, project=repository.project)}
    report = _complete_pending(unit_of_work)
    # Refs are listed after rows, so that a concurrent write is visited once too often and never missed.
    tips = repository.tips()
    recorded = {slug: (row.draft_commit, row.ledger_oid) for slug, row in rows.items()}
    missing = [
        slug
        for slug, tip in recorded.items()
        if slug not in tips and tip != (None, None) and repository.renamed_to(slug) is None
    ]
    behind = [
        slug for slug, tip in tips.items() if recorded.get(slug) != tip or rows[slug].is_edited(repository)
    ]
    report = _mirror_each(unit_of_work, behind, progress, report)
    with unit_of_work.database.as_mirror() as tx:
        releases.mirror_missing(tx, repository)
    for slug in missing:
        report.failures[slug] = derive.contradiction(slug, "it has rows, but its refs are missing")
    return report


def recheck_drafts(
    unit_of_work: MirrorUnitOfWork, progress: Progress | None = None, *, seconds: float = math.inf
) -> bool:
    """Check every open draft again if the rules or the schema of the project have changed since.

    Return False if that takes longer than `seconds`; the next call begins again.
    """
    repository, database = unit_of_work.repository, unit_of_work.database
    schema = repository.schema()
    about = {
        "project": repository.project,
        "rules": repository.rules.value,
        "schema": schema.commit if schema is not None else None,
    }
    with database.as_mirror() as tx:
        if not tx.value(_RULES_CHANGED, **about):
            return True
    deadline = time.monotonic() + seconds
    for slug in tracked(list(filter(is_slug, repository.slugs())), progress):
        if time.monotonic() > deadline:
            return False
        try:
            unit_of_work.recheck_draft(slug)
        except (UnavailableError, ConfigError):
            raise
        except GitstoreError:
            continue  # a contradiction, which the mirror and `verify` report
    with database.as_mirror() as tx:
        tx.run(_RULES_CHECKED, **about)
    return True


def tracked(slugs: Sequence[str], progress: Progress | None) -> Iterator[str]:
    """Yield `slugs`, and report each to `progress`."""
    report = progress or (lambda _done, _total: None)
    for done, slug in enumerate(slugs):
        report(done, len(slugs))
        yield slug
    if slugs:
        report(len(slugs), len(slugs))


def _complete_pending(unit_of_work: MirrorUnitOfWork) -> Report:
    """Complete the writes to several workflows that a kill interrupted."""
    report = Report()
    for operation in pending.listed(unit_of_work.repository):
        try:
            report.facts.extend(unit_of_work.complete(operation))
        except (UnavailableError, ConfigError):
            raise
        except GitstoreError as error:
            report.failures[names.show(operation.ref)] = error
    return report


def _mirror_each(
    unit_of_work: MirrorUnitOfWork, slugs: Iterable[str], progress: Progress | None, report: Report
) -> Report:
    for slug in tracked(sorted(filter(is_slug, set(slugs))), progress):
        try:
            report.facts.extend(unit_of_work.mirror_now([slug], WORKER))
        except (UnavailableError, ConfigError):
            raise
        except GitstoreError as error:
            report.failures[slug] = error
    return report
