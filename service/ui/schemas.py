"""Page of a project's JSON Schema: the one in force, its history, and a form to try, replace or remove it."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import Final

from flask import Response, request

from gitstore import schemas
from gitstore.definition.document import FILE_NAMES
from gitstore.definition.schema import LARGEST
from gitstore.errors import (
    Code,
    GitstoreError,
    IntegrityError,
    InvalidDefinitionError,
    NotFoundError,
)
from gitstore.model import Permission, Problems, Rules
from gitstore.repository import Repository
from gitstore.schemas import SchemaChange, Trial
from service.actions import projects as actions
from service.ui.rendering import blueprint
from service.ui.texts import highlighted
from service.ui.visits import Visit, enter, field, go, upload

_MOST_CHANGES: Final = 100
_MOST_FAILING: Final = 50
_JSON: Final = FILE_NAMES[-1]
_EXAMPLE: Final = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object"
}
"""


@blueprint.get("/ui/schema")
def show_schema() -> Response:
    """Show the schema in force, or the earlier one that the query names by its commit."""
    return _page(enter(Permission.READ, "reading the schema"), at=request.args.get("at", ""))


@blueprint.post("/ui/schema")
def set_schema() -> Response:
    """Try the schema of the form on the drafts, or set it if it is the one that the form replaces."""
    visit = enter(Permission.OWN, "changing the schema")
    text = upload(LARGEST) or field("schema").encode(errors="replace")
    trial = None
    try:
        if field("do") != "save":
            trial = actions.try_schema(visit.caller, text)
        else:
            actions.change_schema(visit.caller, text, {field("seen")})
    except GitstoreError as error:
        return _page(visit, error, typed=text)
    return go("show_schema", notice="schema-set") if trial is None else _page(visit, typed=text, trial=trial)


@blueprint.get("/ui/schema/remove")
def ask_remove_schema() -> Response:
    visit = enter(Permission.OWN, "removing the schema")
    with visit.caller.opened() as repository:
        last = next(schemas.history(repository), None)
    if last is None or last.removed:
        raise NotFoundError(Code.NOT_FOUND, "the project has no schema")
    return visit.page(
        "ask.html",
        area="project",
        question="Remove the schema?",
        about=f"{visit.principal.project.slug}, schema {last.commit[:12]}",
        text="Drafts and later versions are then checked as under the rules any. Its history stays.",
        action=("remove_schema", {}),
        to=("show_schema", {}),
        fields={"seen": last.commit},
    )


@blueprint.post("/ui/schema/remove")
def remove_schema() -> Response:
    visit = enter(Permission.OWN, "removing the schema")
    try:
        actions.change_schema(visit.caller, None, {field("seen")})
    except GitstoreError as error:
        return _page(visit, error)
    return go("show_schema", notice="schema-removed")


def _page(
    visit: Visit,
    error: GitstoreError | None = None,
    *,
    at: str = "",
    typed: bytes | None = None,
    trial: Trial | None = None,
) -> Response:
    """Show the page; a refused form keeps what was `typed`, and a damaged schema is reported."""
    with visit.caller.opened() as repository:
        rows = _history(repository)
        current, damage = _current(repository)
        chosen = next((row for row in rows if row.commit == at and not row.removed), None)
        raw = _text(repository, chosen) if chosen is not None else current
    in_force = rows[0].commit if rows and not rows[0].removed else ""
    shown = typed if typed is not None else raw
    text = (shown if shown is not None else _EXAMPLE.encode()).decode("utf-8-sig", errors="replace")
    return visit.page(
        "schema.html",
        error,
        problems=Problems.of(error.problems) if isinstance(error, InvalidDefinitionError) else None,
        rules=visit.caller.rules,
        applied=visit.caller.rules is Rules.SCHEMA,
        rows=rows[:_MOST_CHANGES],
        more=len(rows) > _MOST_CHANGES,
        in_force=in_force,
        damage=damage,
        chosen=chosen if chosen is not None and chosen.commit != in_force else None,
        text=text,
        lines=highlighted(text, _JSON) if raw is not None and not visit.owns else None,
        trial=trial,
        failing=list(trial.failing.items())[:_MOST_FAILING] if trial else [],
    )


def _history(repository: Repository) -> list[SchemaChange]:
    """Return the newest changes, as far as Git has them undamaged."""
    rows: list[SchemaChange] = []
    with suppress(GitstoreError):
        rows.extend(islice(schemas.history(repository), _MOST_CHANGES + 1))
    return rows


def _current(repository: Repository) -> tuple[bytes | None, IntegrityError | None]:
    try:
        return schemas.current(repository).text, None
    except NotFoundError:
        return None, None
    except IntegrityError as error:
        return None, error


def _text(repository: Repository, row: SchemaChange) -> bytes | None:
    schema = repository.schema_at(row.commit)
    return schema.text if schema is not None else None
