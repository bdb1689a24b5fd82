"""What was compared before: `gitstore verify` passes over workflows that have not changed since.

The fingerprint of a workflow is over the tips of its refs, over the transactions that wrote its rows last,
and over all that its rows are derived by: the rules, the limits and this release. Damage on a disk changes
nothing of it, so a full run compares everything. A full run that was killed is continued for a day.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from typing import Final, Literal, LiteralString

from gitstore import names
from gitstore.errors import IntegrityError
from gitstore.repository import Repository
from sync.db import Transaction

_RELEASE: Final = version("gitstore")

Kind = Literal["verify", "rebuild"]

# A row that was written again has another xmin, even with equal values.
_ROWS: Final[LiteralString] = """
    select w.slug, count(v.id) filter (where v.state in ('published', 'draft')),
        md5(concat_ws(' ', w.id, w.xmin::text, m.xmin::text,
            string_agg(v.id || ':' || v.xmin, ' ' order by v.id),
            (select string_agg(s.version_number || ':' || s.xmin, ' ' order by s.version_number)
             from gitstore.version_states s where s.workflow_id = w.id),
            (select string_agg(e.name || ':' || e.xmin, ' ' order by e.name)
             from gitstore.environments e where e.workflow_id = w.id)))
    from gitstore.workflows w
    left join gitstore.workflow_versions v on v.workflow_id = w.id
    left join gitstore.number_marks m on m.workflow_id = w.id
    where w.project_id = %(project)s and (%(slugs)s::text[] is null or w.slug = any(%(slugs)s))
    group by w.id, w.slug, w.xmin::text, m.xmin::text
"""
_CHECKED: Final[LiteralString] = """
    select slug, fingerprint, versions from gitstore.checks
    where project_id = %(project)s and kind = %(kind)s and checked_at >= coalesce(%(since)s, checked_at)
"""
_RECORD: Final[LiteralString] = """
    insert into gitstore.checks (project_id, kind, slug, fingerprint, versions)
    select %(project)s, %(kind)s, slug, fingerprint, versions
    from unnest(%(slugs)s::text[], %(fingerprints)s::text[], %(versions)s::integer[])
        as given (slug, fingerprint, versions) order by slug
    on conflict (project_id, kind, slug) do update
        set fingerprint = excluded.fingerprint, versions = excluded.versions, checked_at = clock_timestamp()
"""
_BEGIN: Final[LiteralString] = """
    insert into gitstore.check_runs as run (project_id, kind) values (%(project)s, %(kind)s)
    on conflict (project_id, kind) do update
        set begun_at = greatest(run.begun_at, clock_timestamp() - interval '1 day')
    returning begun_at
"""
_END: Final[LiteralString] = """
    delete from gitstore.check_runs where project_id = %(project)s and kind = %(kind)s
"""

Fingerprints = Mapping[str, tuple[str, int]]
"""Slug -> (fingerprint, number of versions that exist, the open draft included)."""


def begin(tx: Transaction, repository: Repository, kind: Kind) -> datetime:
    """Return the time at which the full run began that this one is, or continues."""
    begun: datetime = tx.value(_BEGIN, project=repository.project, kind=kind)
    return begun


def end(tx: Transaction, repository: Repository, kind: Kind) -> None:
    tx.run(_END, project=repository.project, kind=kind)


def checked(
    tx: Transaction, repository: Repository, kind: Kind, since: datetime | None = None
) -> dict[str, int]:
    """Return the workflows found in order (`since` a time) and unchanged: slug -> number of versions."""
    known = tx.tuples(_CHECKED, project=repository.project, kind=kind, since=since)
    if not known:
        return {}
    present = fingerprints(tx, repository)
    return {slug: count for slug, seen, count in known if present.get(slug, ("", 0))[0] == seen}


def record(tx: Transaction, repository: Repository, kind: Kind, found: Fingerprints) -> None:
    """Record that the workflows of `found` were in order when they had these fingerprints."""
    tx.run(
        _RECORD,
        project=repository.project,
        kind=kind,
        slugs=list(found),
        fingerprints=[fingerprint for fingerprint, _ in found.values()],
        versions=[versions for _, versions in found.values()],
    )


def fingerprints(
    tx: Transaction, repository: Repository, slugs: Collection[str] | None = None
) -> dict[str, tuple[str, int]]:
    """Return the fingerprints of `slugs`, or of all workflows. Those without a row have none."""
    refs: dict[str, list[bytes]] = defaultdict(list)
    for slug, name, oid in _tips(repository, slugs):
        refs[slug] += (name, oid)
    derived_by = repr(
        (_RELEASE, repository.rules, repository.first_rules, repository.file_names, repository.limits)
    )
    listed = list(slugs) if slugs is not None else None
    found = {}
    for slug, count, written in tx.tuples(_ROWS, project=repository.project, slugs=listed):
        content = [derived_by.encode(), written.encode(), *refs[slug]]
        found[slug] = (hashlib.sha256(b"\0".join(content)).hexdigest(), count)
    return found


def _tips(repository: Repository, slugs: Collection[str] | None) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield (slug, ref, id) for the tags, drafts and ledgers of `slugs`, or of all workflows."""
    if slugs is None:
        for prefix in (names.TAGS, names.DRAFTS, names.LEDGERS):
            for name, oid in repository.refs.below(prefix).items():
                yield names.show(name[len(prefix) :]).partition("/")[0], name, oid
        return
    for slug in slugs:
        for name, oid in repository.refs.below(names.tags_of(slug)).items():
            yield slug, name, oid
        for name in (names.draft(slug), names.ledger(slug)):
            with suppress(IntegrityError):  # a damaged one is left out, as `below` does
                if (tip := repository.refs.read(name)) is not None:
                    yield slug, name, tip
