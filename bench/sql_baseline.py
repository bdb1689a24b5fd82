"""The baseline for publishing and history: the same rows without Git, by routes of the service's own app.

    POST /baseline/<slug>/draft     the row of a draft, its event and its line of the audit log
    POST /baseline/<slug>/publish   the row of a version, its two events and their lines of the audit log
    GET  /baseline/<slug>/versions  a page of the history: one statement, as `json` prints what it gives

Run by bench/baseline_server.py. Callers are authenticated and authorized as in the product. The writes are
one transaction, which locks the workflow, reads its state, and writes with the mirror's own statement. The
page is plain SQL: no transaction, no row-level security, no model.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import cache
from hashlib import sha1
from typing import Any, Final, LiteralString
from uuid import uuid4
from zlib import crc32

from flask import Blueprint, Flask, Response, request
from psycopg_pool import ConnectionPool

from gitstore.definition.document import parse
from gitstore.model import LedgerEntry, LedgerKind, Limits, Permission, Person, Rules
from gitstore.names import version_id, workflow_id
from service import app as product
from service.api.http import answer
from service.api.versions import Version
from service.caller import Caller
from service.config import Config
from service.context import enter
from sync import audit, catalog, events, mirror, rows
from sync.db import Locks, Transaction
from sync.embedded.server import SUPERUSER
from sync.events import Fact
from sync.mirror import MIRRORED_STATES, MirroredState
from sync.rows import VersionRow, WorkflowRow
from tests.stories.instance import definition

MAKER = "bench.sql_baseline:create_app"
PAGE: Final[LiteralString] = """
    select v.id, v.workflow_id, v.version_number, v.state, v.valid, v.commit_sha, v.digest, v.message,
        v.author_name, v.author_email, v.published_by, v.created_at, v.published_at
    from gitstore.workflow_versions v
    where v.workflow_id = %s and v.version_number < %s order by v.version_number desc limit %s
"""
_CONTENT: Final = parse(definition("Straight").encode(), "workflow.yaml", Rules.MESHHOOK, Limits())

blueprint = Blueprint("straight", __name__)


def create_app(config: Config) -> Flask:
    app = product.create_app(config)
    app.register_blueprint(blueprint)
    return app


@blueprint.post("/baseline/<slug>/draft")
def draft(slug: str) -> Response:
    caller = enter(Permission.EDIT, "saving")
    with _held(caller, slug) as tx:
        before = _standing(tx, caller, slug)
        row = replace(before, draft_commit=_made_up(), updated_at=datetime.now(UTC))
        made = _version(row, row.latest_number + 1, "draft", _person(caller))
        _write(tx, caller, row, made, [events.draft_updated(row, made)])
    return _told(caller, made, row, current=False)


@blueprint.post("/baseline/<slug>/publish")
def publish(slug: str) -> Response:
    caller = enter(Permission.PUBLISH, "publishing")
    with _held(caller, slug) as tx:
        before = _standing(tx, caller, slug)
        number = before.latest_number + 1
        entry = _entry(caller, number)
        row = replace(
            before,
            latest_number=number,
            current_version_id=version_id(before.id, number),
            ledger_oid=entry.oid,
            updated_at=entry.when,
        )
        made = _version(row, number, "published", _person(caller))
        facts = [
            events.published(row, made, entry),
            events.current_changed(row, before.latest_number or None, entry),
        ]
        _write(tx, caller, row, made, facts)
    return _told(caller, made, row, current=True)


@blueprint.get("/baseline/<slug>/versions")
def history(slug: str) -> Response:
    caller = enter(Permission.READ, "reading")
    before, limit = (int(request.args[name]) for name in ("before", "limit"))
    with _pool(caller.services.database.conninfo).connection() as connection:
        found = connection.execute(PAGE, [workflow_id(caller.project_id, slug), before, limit]).fetchall()
    return Response(json.dumps(found, default=str), content_type="application/json")


@cache
def _pool(conninfo: str) -> ConnectionPool:
    """Connections of the embedded Postgres' superuser, with autocommit."""
    kwargs = {"autocommit": True, "user": SUPERUSER}
    return ConnectionPool(conninfo, kwargs=kwargs, min_size=1, max_size=16, open=True)


def _held(caller: Caller, slug: str) -> AbstractContextManager[Transaction]:
    return caller.services.database.as_mirror(Locks(shared=[], exclusive=[crc32(slug.encode())]))


def _standing(tx: Transaction, caller: Caller, slug: str) -> WorkflowRow:
    found = tx.row(MirroredState, MIRRORED_STATES, project=caller.project_id, slugs=[slug])
    if found is not None:
        return WorkflowRow(**rows.values(found, WorkflowRow))
    now, identity = datetime.now(UTC), workflow_id(caller.project_id, slug)
    columns = _columns(WorkflowRow, id=identity, project_id=caller.project_id, slug=slug, name=slug)
    columns |= {"description": "", "held": False, "created_at": now, "updated_at": now}
    return WorkflowRow(**columns | {"latest_number": 0, "ledger_oid": _made_up()})


def _version(row: WorkflowRow, number: int, state: str, person: Person) -> VersionRow:
    now = datetime.now(UTC)
    published = state == "published"
    columns = _columns(
        VersionRow,
        id=version_id(row.id, number),
        workflow_id=row.id,
        project_id=row.project_id,
        version_number=number,
        state=state,
        created_at=now,
        published_at=now if published else None,
        commit_sha=row.draft_commit or _made_up(),
        ref_oid=_made_up(),
        tree_sha=_made_up(),
        blob_sha=_made_up(),
        file_name="workflow.yaml",
        digest=_CONTENT.digest,
        definition=_CONTENT.value,
        definition_text=json.dumps(_CONTENT.value),
        valid=True,
        message=f"Publish {row.slug} v{number}",
        author_name=person.name,
        author_email=person.email,
        published_by=person.name if published else None,
    )
    return VersionRow(**columns)


def _columns(shape: type[Any], **given: Any) -> dict[str, Any]:
    """Return the columns of a row: null, but for the given ones."""
    return {field.name: None for field in fields(shape)} | given


def _entry(caller: Caller, number: int) -> LedgerEntry:
    return LedgerEntry(
        oid=_made_up(),
        parent=None,
        kind=LedgerKind.PUBLISHED,
        actor=_person(caller),
        when=datetime.now(UTC),
        message="",
        latest=number,
        current=number,
        held=False,
        version=number,
    )


def _write(tx: Transaction, caller: Caller, row: WorkflowRow, made: VersionRow, facts: list[Fact]) -> None:
    noted = [
        audit.row(caller.project_id, caller.origin, fact.type.value, fact.object, {"event": str(fact.id)})
        for fact in facts
    ]
    mark = {"workflow_id": row.id, "project_id": row.project_id, "highest": made.version_number}
    written = tx.value(
        mirror._WRITE,
        workflows=rows.as_json([row]),
        versions=rows.as_json([made]),
        marks=rows.as_json([mark] if made.published_at else []),
        events=events.as_json(facts),
        audit=rows.as_json(noted),
    )
    assert written == [made.id]


def _told(caller: Caller, made: VersionRow, row: WorkflowRow, *, current: bool) -> Response:
    shown = catalog.Version.of(made, row.slug, is_current=current)
    return answer(Version.of(shown, caller), 201)


def _person(caller: Caller) -> Person:
    return caller.principal.person


def _made_up() -> str:
    """An object id that names nothing."""
    return sha1(uuid4().bytes).hexdigest()
