"""/workflows/{id}/diff: the difference between two versions."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, request
from pydantic import Field

from gitstore.definition.quoting import clip
from gitstore.diff.text import text_diff
from gitstore.model import Permission
from service import lookup
from service.api import inputs
from service.api.answers import CHANGING, answer
from service.api.bodies import JSON
from service.api.diff_schemas import Diff
from service.api.openapi import new_blueprint, says
from service.comparison import compare, files, sides
from service.context import enter

blueprint = new_blueprint("diff", "What differs between two versions of a workflow.")

_TEXT: Final = "text/x-diff"
_WHICH: Final = "^(v?[1-9][0-9]{0,9}|draft|current|latest)$"
_ANSWERS: Final = says(200, Diff, "Vary", refuses=(409, 410, 422))
_OK: Final[Any] = _ANSWERS[200]
_OK["description"] = "As JSON; or what `git diff` would give between the stored files, if Accept prefers it."
_OK["content"][_TEXT] = {"schema": {"type": "string"}}


class DiffQuery(inputs.Query):
    """`from` and `to`: `3`, `v3`, `draft`, `current` or `latest`."""

    old: str | None = Field(
        None,
        alias="from",
        description="without it, the version before `to` where `to` is a number or the current version, "
        "and else the current version",
        json_schema_extra={"pattern": _WHICH},
    )
    to: str | None = Field(
        None,
        description="without it, the draft where one is open, and else the latest version",
        json_schema_extra={"pattern": _WHICH},
    )
    layout: bool = Field(
        False, description="whether to tell of positions, sizes and the editor's leftovers, too"
    )


@blueprint.get("/workflows/<id>/diff", responses=_ANSWERS)
def read_diff(path: inputs.WorkflowPath, query: DiffQuery) -> Response:
    """What makes one version of another: nodes and edges, or lines of text. Secrets are masked."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, path.id)
        versions = sides(tx, workflow, query.old, query.to)
    lookup.admit(caller, workflow.slug, *(each.version_number for each in versions))
    if request.accept_mimetypes.best_match([JSON, _TEXT], JSON) == _TEXT:
        with caller.opened() as store:
            old, new = files(store, versions)
        text = text_diff(old, new, caller.services.config.limits)
        headers = {"Cache-Control": CHANGING, "Vary": "Accept"}
        return Response(text, headers=headers, content_type=f"{_TEXT}; charset=utf-8")
    found = compare(versions, caller.rules, layout=query.layout)
    made = Diff.of(found, versions, caller.services.config.public_url, layout=query.layout)
    return answer(made, vary="Accept")
