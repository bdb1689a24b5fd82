"""Reconciliation: mirror the rows that lag behind Git after a crash. Rows are only added.

`reconcile` visits the workflows that have markers; `full_pass` compares every workflow with its row, by one
query and one listing of refs. A workflow that cannot be mirrored does not stop the others. `recheck_drafts`
follows a change of the project's rules.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, LiteralString

from gitstore.errors import ConfigError, GitstoreError, UnavailableError
from gitstore.names import is_slug
from sync import derive
from sync.audit import WORKER
from sync.events import Fact
from sync.unit_of_work import MirrorUnitOfWork

Progress = Callable[[int, int], None]
"""Called with the number of workflows that are done, and of all of them."""

_ROWS: Final[LiteralString] = """
    select slug, draft_commit, ledger_oid from gitstore.workflows where project_id = %(project)s
"""
_RULES_CHANGED: Final[LiteralString] = """
    select true from gitstore.projects
    where id = %(project)s and rules = %(rules)s and checked_rules <> rules
"""
_RULES_CHECKED: Final[LiteralString] = """
    update gitstore.projects set checked_rules = %(rules)s where id = %(project)s
"""


@dataclass(frozen=True, slots=True)
class Report:
    """The mirrored facts, oldest first in each workflow, and the failures: slug -> error."""

    facts: list[Fact] = field(default_factory=list)
    failures: dict[str, GitstoreError] = field(default_factory=dict)


def reconcile(unit_of_work: MirrorUnitOfWork, progress: Progress | None = None) -> Report:
    """Mirror the workflows that have markers. Waits for their active writers.

    Raises `unavailable` where Postgres does not answer.
    """
    return _mirror_each(unit_of_work, unit_of_work.markers.pending(), progress)


def full_pass(unit_of_work: MirrorUnitOfWork, progress: Progress | None = None) -> Report:
    """Mirror every workflow of the project whose row differs from its refs."""
    with unit_of_work.database.as_mirror() as tx:
        rows = {
            slug: (draft, ledger)
            for slug, draft, ledger in tx.tuples(_ROWS, project=unit_of_work.repository.project)
        }
    # Refs are listed after rows, so that a concurrent write is visited once too often and never missed.
    tips = unit_of_work.repository.tips()
    missing = [slug for slug, tip in rows.items() if slug not in tips and tip != (None, None)]
    report = _mirror_each(
        unit_of_work, [slug for slug, tip in tips.items() if rows.get(slug) != tip], progress
    )
    for slug in missing:
        report.failures[slug] = derive.contradiction(slug, "it has rows, but its refs are missing")
    return report


def recheck_drafts(
    unit_of_work: MirrorUnitOfWork, progress: Progress | None = None, *, seconds: float = math.inf
) -> bool:
    """Check every open draft again if the rules of the project have changed since the last time.

    Return False if that takes longer than `seconds`; the next call begins again.
    """
    repository, database = unit_of_work.repository, unit_of_work.database
    about = {"project": repository.project, "rules": repository.rules.value}
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


def _mirror_each(unit_of_work: MirrorUnitOfWork, slugs: Iterable[str], progress: Progress | None) -> Report:
    report = Report()
    for slug in tracked(sorted(filter(is_slug, set(slugs))), progress):
        try:
            report.facts.extend(unit_of_work.mirror_now([slug], WORKER))
        except (UnavailableError, ConfigError):
            raise
        except GitstoreError as error:
            report.failures[slug] = error
    return report
