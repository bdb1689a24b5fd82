"""Makes the rows of `workflows` and `workflow_versions` again, from Git alone, in one transaction.

Afterwards every row equals what stood there, unless it was wrong. No event is emitted: nothing happened.
What was under way when a process was killed is mirrored before, with its events.

Where Git contradicts its ledger, or what a row bears witness of, rebuilding would hide it: that is refused,
naming each contradiction, unless told to accept Git. Then a version is what a tag and the ledger agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, LiteralString

from gitstore.errors import Code, GitstoreError
from gitstore.reading import Reading
from gitstore.versions import is_slug
from sync import derive, rows, verify
from sync.db import Database, Transaction
from sync.reconcile import reconcile
from sync.writing import MirroredWrites, exclusive

Progress = Callable[[int, int], None]

_BEGIN: Final[LiteralString] = """
    select set_config('gitstore.upkeep', 'on', true)
"""
_DELETE_VERSIONS: Final[LiteralString] = (
    "delete from gitstore.workflow_versions where project_id = %(project)s"
)
_DELETE_WORKFLOWS: Final[LiteralString] = "delete from gitstore.workflows where project_id = %(project)s"


def rebuild(
    database: Database,
    readings: Sequence[Reading],
    *,
    accept_git: bool = False,
    progress: Progress | None = None,
) -> int:
    """Rebuild the projects of `readings`; returns how many versions there are now, drafts included.

    Raises `integrity` with `findings` (a list of str) where Git contradicts its ledger or a row.
    """
    for reading in readings:
        reconcile(MirroredWrites(database, reading))
    with exclusive(database.as_owner, readings, database.lock_seconds) as tx:
        tx.run(_BEGIN)
        findings: list[verify.Finding] = []
        for reading in readings:
            findings += contradictions(tx, reading)
        if findings and not accept_git:
            raise _refused(findings)
        return sum(_rebuild_one(tx, reading, progress) for reading in readings)


def contradictions(tx: Transaction, reading: Reading) -> list[verify.Finding]:
    """What rebuilding a project would hide."""
    known = {slug for (slug,) in tx.tuples(verify.SLUGS, project=reading.project)}
    slugs = sorted(known | set(reading.slugs()))
    return [finding for slug in slugs for finding in verify.contradictions(tx, reading, slug)]


def _rebuild_one(tx: Transaction, reading: Reading, progress: Progress | None) -> int:
    tx.run(_DELETE_VERSIONS, project=reading.project)
    tx.run(_DELETE_WORKFLOWS, project=reading.project)
    slugs = [slug for slug in reading.slugs() if is_slug(slug)]
    count = 0
    for done, slug in enumerate(slugs):
        if progress is not None:
            progress(done, len(slugs))
        count += _fill(tx, reading, slug)
    if progress is not None:
        progress(len(slugs), len(slugs))
    return count


def _fill(tx: Transaction, reading: Reading, slug: str) -> int:
    """Insert the rows of one workflow; how many versions it has."""
    derived = derive.everything(reading, slug, derive.agreed(reading, slug))
    if derived is None:
        return 0
    row, entries, draft = derived
    tx.run(rows.UPSERT_WORKFLOWS, workflows=rows.of([row]))
    for batch in derive.batches(reading, (derive.published_row(reading, slug, entry) for entry in entries)):
        tx.run(rows.UPSERT_VERSIONS, versions=rows.of(batch))
    if draft is not None:
        tx.run(rows.UPSERT_VERSIONS, versions=rows.of([draft]))
    return len(entries) + (draft is not None)


def _refused(findings: Sequence[verify.Finding]) -> GitstoreError:
    shown = [str(finding) for finding in findings]
    return GitstoreError(
        Code.INTEGRITY,
        "Git and what was recorded contradict each other, and rebuilding would hide it:\n  "
        + "\n  ".join(shown)
        + "\nTo make the rows from what Git and its ledger agree on: gitstore rebuild --accept-git",
        findings=shown,
    )
