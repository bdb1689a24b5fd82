"""/workflows/{id}/versions/draft/edit and /merge: change the text of a definition in place.

Only the lines concerned change: comments, the order of keys and quotes stay. Nothing is saved unless asked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from flask import Response, request
from pydantic import Field, StringConstraints, WithJsonSchema

from gitstore import model
from gitstore.definition.quoting import clip
from gitstore.diff.merge import Side
from gitstore.errors import MalformedError
from gitstore.model import Permission
from gitstore.names import HIGHEST_NUMBER
from service import lookup
from service.actions import drafts as actions
from service.actions import merging
from service.actions.workflows import raw_content
from service.api import http
from service.api.drafts import content_of
from service.api.openapi import NUMBER, Query, WorkflowPath, declares, new_blueprint
from service.api.versions import PublishedVersion, Version
from service.caller import Caller
from service.context import enter
from service.inputs import Definition, Explained

blueprint = new_blueprint(
    "edits", "Changes of a definition's text: by a JSON Patch, or by a three-way merge."
)

CommitId = Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")]
MergeBase = Annotated[
    PublishedVersion,
    Field(description="the commit or the version from which both sides began", examples=["v3"]),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": HIGHEST_NUMBER},
                {"type": "string", "pattern": f"^({NUMBER}|current|latest|[0-9a-f]{{40}})$"},
            ],
        }
    ),
]


class EditDraft(Explained):
    """A JSON Patch of `text`, or else of the definition in `commit`, or else of the open draft."""

    patch: list[dict[str, Any]] = Field(
        description="operations of RFC 6902", examples=[[{"op": "replace", "path": "/name", "value": "Sync"}]]
    )
    text: str | None = Field(None, description="a definition as YAML or JSON")
    commit: CommitId | None = None
    save: bool | None = Field(False, description="whether to save the result as the draft; requires If-Match")


class MergeDraft(Explained):
    """`definition` or `commit`: what to merge into the open draft, else into the latest version."""

    base: MergeBase
    definition: Definition = None
    commit: CommitId | None = Field(None, description="of a draft, a version, or a discarded draft")
    decisions: dict[str, Literal["ours", "theirs"]] = Field(
        {}, description="the side to take for conflicts, by their paths; ours is what is sent"
    )
    save: bool | None = Field(False, description="whether to save the result as the draft; requires If-Match")


class EditedText(http.Judged):
    """The edited definition, with its problems. `saved` is the draft, if that was asked for."""

    text: str
    valid: bool
    digest: str
    saved: Version | None


class MergeConflict(http.Answer):
    """A value that both sides changed, differently. A decision about it is keyed by `path`."""

    path: str = Field(examples=["/nodes/call/data/config/url"])
    node: str | None = Field(description="id of the node concerned")
    base: Any
    ours: Any
    theirs: Any
    absent: list[Literal["base", "ours", "theirs"]] = Field(
        description="the sides that lack the value, which is null here"
    )


class MergedText(EditedText):
    """The merged definition, which has their values where a conflict is not decided."""

    conflicts: list[MergeConflict]
    merged_into: str = Field(description="the commit of theirs")


@blueprint.post(
    "/workflows/<id>/versions/draft/edit",
    **declares(200, EditedText, "ETag", errors=(406, 409, 412, 422, 428), body=EditDraft, match=False),
)
def edit_draft(path: WorkflowPath, query: Query) -> Response:
    """Apply a JSON Patch to the text of a definition, of which only the lines concerned change."""
    caller = enter(Permission.EDIT, f"editing {clip(path.id)}", project=query.project)
    body = http.read_json(caller, EditDraft)
    if body.text is not None and body.commit is not None:
        raise MalformedError("send a text or a commit, not both")
    slug = lookup.slug_of(caller, path.id)
    edited = actions.edited(caller, slug, body.patch, text=body.text, commit=body.commit)
    saved = None
    if body.save:
        limits = caller.limits
        saved = actions.save(
            caller,
            slug,
            raw_content(edited.raw, limits),
            expected=http.expected(request),
            author=body.person,
            message=body.message or "",
        )
    answer = EditedText.model_construct(**_text(caller, edited, saved))
    return http.answer(answer, etag=f'"{saved.commit}"' if saved else None)


@blueprint.post(
    "/workflows/<id>/versions/draft/merge",
    **declares(200, MergedText, "ETag", errors=(406, 409, 412, 422, 428), body=MergeDraft, match=False),
)
def merge_draft(path: WorkflowPath, query: Query) -> Response:
    """Merge a definition, or a commit, with what changed in the draft since their common base.

    Changes of different fields merge by themselves. The text is an edit of theirs in place.
    """
    caller = enter(Permission.EDIT, f"editing {clip(path.id)}", project=query.project)
    body = http.read_json(caller, MergeDraft)
    ours = body.commit or content_of(caller, body.definition)
    if ours is None or (body.commit is not None and body.definition is not None):
        raise MalformedError("send a definition or a commit to merge, one of them")
    slug = lookup.slug_of(caller, path.id)
    decided = {path: Side(side) for path, side in body.decisions.items()}
    merged = merging.merged(caller, slug, base=str(body.base), ours=ours, decided=decided)
    saved = None
    if body.save:
        saved = merging.save(
            caller,
            slug,
            merged,
            expected=http.expected(request),
            author=body.person,
            message=body.message or "",
        )
    answer = MergedText.model_construct(
        **_text(caller, merged.definition, saved),
        conflicts=[MergeConflict.model_construct(**merging.described(one)) for one in merged.conflicts],
        merged_into=merged.theirs,
    )
    return http.answer(answer, etag=f'"{saved.commit}"' if saved else None)


def _text(caller: Caller, edited: model.Definition, saved: actions.SavedDraft | None) -> dict[str, Any]:
    """Return the fields of `EditedText`."""
    return {
        "text": edited.raw.decode(),
        "valid": edited.valid,
        "digest": edited.digest,
        "saved": Version.of(saved.version, caller) if saved else None,
        **http.problems_of(edited.problems),
    }
