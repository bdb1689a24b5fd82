"""Reconciliation: mirror the rows that lag behind Git after a crash. Rows are only added.

`reconcile` visits the workflows that have markers; `full_pass` compares every workflow with its row, by one
query and one listing of refs. A workflow that can't be mirrored does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, LiteralString

from gitstore.errors import ConfigError, GitstoreError, UnavailableError
from gitstore.names import is_slug
from sync import derive
from sync.audit import WORKER
from sync.events import Fact
from sync.unit_of_work import MirrorUnitOfWork

Progress = Callable[[int, int], None]

_ROWS: Final[LiteralString] = """
    select slug, draft_commit, ledger_oid from gitstore.workflows where project_id = %(project)s
"""


@dataclass(frozen=True, slots=True)
class Report:
    """The mirrored facts, oldest first in each workflow, and the failures: slug -> error."""

    facts: list[Fact] = field(default_factory=list)
    failures: dict[str, GitstoreError] = field(default_factory=dict)


def reconcile(writes: MirrorUnitOfWork, progress: Progress | None = None) -> Report:
    """Mirror the workflows that have markers. Waits for their active writers.

    Raises `unavailable` where Postgres does not answer.
    """
    return _heal(writes, writes.markers.pending(), progress)


def full_pass(writes: MirrorUnitOfWork, progress: Progress | None = None) -> Report:
    """Mirror every workflow of the project whose row differs from its refs."""
    with writes.database.as_mirror() as tx:
        rows = {
            slug: (draft, ledger)
            for slug, draft, ledger in tx.tuples(_ROWS, project=writes.repository.project)
        }
    # Refs are listed after rows, so that a concurrent write is visited once too often and never missed.
    tips = writes.repository.tips()
    gone = [slug for slug, tip in rows.items() if slug not in tips and tip != (None, None)]
    report = _heal(writes, [slug for slug, tip in tips.items() if rows.get(slug) != tip], progress)
    for slug in gone:
        report.failures[slug] = derive.contradiction(slug, "it has rows, and no refs any more")
    return report


def _heal(writes: MirrorUnitOfWork, slugs: Iterable[str], progress: Progress | None) -> Report:
    report = Report()
    wanted = [slug for slug in sorted(set(slugs)) if is_slug(slug)]
    for done, slug in enumerate(wanted):
        if progress is not None:
            progress(done, len(wanted))
        try:
            report.facts.extend(writes.mirror_now([slug], WORKER))
        except (UnavailableError, ConfigError):
            raise
        except GitstoreError as error:
            report.failures[slug] = error
    if progress is not None and wanted:
        progress(len(wanted), len(wanted))
    return report
