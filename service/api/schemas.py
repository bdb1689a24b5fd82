"""Output of the API, as pydantic models for the OpenAPI document; `of` builds a model from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from gitstore.model import MOST_PROBLEMS, Problems, Snapshot, Superseded
from gitstore.names import show, version_id
from service import errors
from service.auth import Role
from sync import catalog, tokens


class Answer(BaseModel):
    """Every field is always there."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class DefinitionProblem(Answer):
    """Something about a definition. An `error` blocks publishing, a `warning` does not."""

    code: str = Field(examples=["http_url_missing"])
    message: str
    severity: Literal["error", "warning"]
    pointer: str | None = Field(description="RFC 6901 JSON Pointer into the definition")
    node: str | None = Field(description="the id of the node it is about")
    line: int | None
    column: int | None


class Judged(Answer):
    """What is wrong with a definition."""

    problems: list[DefinitionProblem] = Field(
        description=f"what would block publishing, and warnings: {MOST_PROBLEMS} at most"
    )
    problems_total: int = Field(description="how many there are, those that are not listed included")


def problems_of(found: Problems) -> dict[str, Any]:
    """Return the fields of `Judged`."""
    listed = [DefinitionProblem.model_validate(errors.problem_json(problem)) for problem in found]
    return {"problems": listed, "problems_total": found.total}


class Problem(BaseModel):
    """A refusal (RFC 9457). Further members say what stands there now, for example `etag` and `author`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="stable: what programs read")
    instance: str | None = None
    problems: list[DefinitionProblem] | None = Field(None, description=f"{MOST_PROBLEMS} at most")
    problems_total: int | None = Field(None, description="how many problems there are, listed or not")
    etag: str | None = None


class Person(Answer):
    name: str
    email: str


class Version(Answer):
    """A version that was published, or the open draft, which is numbered as the next version."""

    id: UUID
    workflow_id: UUID
    workflow: str = Field(description="the workflow's slug")
    version_number: int
    state: Literal["draft", "published", "lost"] = Field(
        description="`lost`: published, but missing from the repository; its number is not used again"
    )
    is_current: bool = Field(description="whether it is the one that the engine runs")
    valid: bool
    commit: str
    digest: str | None = Field(description="`sha256:` of what it means; null where it does not parse")
    message: str
    author: Person
    published_by: str | None
    created_at: datetime
    published_at: datetime | None
    url: str

    @classmethod
    def of(cls, row: catalog.Version, public_url: str, **more: Any) -> Version:
        shown = "draft" if row.state == "draft" else str(row.version_number)
        return cls(
            id=row.id,
            workflow_id=row.workflow_id,
            workflow=row.slug,
            version_number=row.version_number,
            state=row.state,
            is_current=row.is_current,
            valid=row.valid,
            commit=row.commit_sha,
            digest=row.digest,
            message=row.message,
            author=Person(name=row.author_name, email=row.author_email),
            published_by=row.published_by,
            created_at=_utc(row.created_at),
            published_at=_utc(row.published_at) if row.published_at else None,
            url=f"{public_url}/ui/workflows/{row.slug}/versions/{shown}",
            **more,
        )


class FullVersion(Version):
    definition: dict[str, Any] | None = Field(description="null where an imported one does not parse")


class SavedDraft(Judged, Version):
    """The draft as it was saved."""


class SupersededDraft(Answer):
    """A discarded draft that can be restored."""

    at: datetime = Field(description="when it was discarded: `at` of the call that restores it")
    commit: str
    ref: str = Field(description="the ref that git can fetch it by")
    author: Person
    message: str
    created_at: datetime

    @classmethod
    def of(cls, kept: Superseded, snapshot: Snapshot) -> SupersededDraft:
        return cls(
            at=kept.at,
            commit=kept.commit,
            ref=show(kept.ref),
            author=Person(name=snapshot.author.name, email=snapshot.author.email),
            message=snapshot.message,
            created_at=snapshot.created_at,
        )


class SupersededList(Answer):
    superseded: list[SupersededDraft] = Field(description="the newest first, a hundred at most")


class VersionPage(Answer):
    versions: list[Version]
    next_cursor: str | None


class Workflow(Answer):
    id: UUID
    project: str = Field(description="the project's slug")
    slug: str
    name: str
    description: str
    held: bool = Field(description="whether publishing leaves the current version as it is")
    latest_version: int | None
    current: Version | None = Field(description="the version that the engine runs")
    draft: Version | None
    created_at: datetime
    updated_at: datetime
    url: str

    @classmethod
    def of(
        cls,
        row: catalog.Workflow,
        versions: Mapping[UUID, catalog.Version],
        project: str,
        public_url: str,
        **more: Any,
    ) -> Workflow:
        """Build a workflow from its row. `versions` holds the rows of `summarized`, by id."""
        current, draft = (versions.get(found) if found else None for found in _summarized(row))
        return cls.model_construct(
            id=row.id,
            project=project,
            slug=row.slug,
            name=row.name,
            description=row.description,
            held=row.held,
            latest_version=row.latest_number or None,
            current=Version.of(current, public_url) if current else None,
            draft=Version.of(draft, public_url) if draft else None,
            created_at=_utc(row.created_at),
            updated_at=_utc(row.updated_at),
            url=f"{public_url}/ui/workflows/{row.slug}",
            **more,
        )


class CreatedWorkflow(Judged, Workflow):
    """The workflow as it was created, with its first draft."""


class WorkflowPage(Answer):
    workflows: list[Workflow]
    next_cursor: str | None


class Validation(Judged):
    valid: bool
    digest: str | None


class Token(Answer):
    id: UUID
    name: str
    role: Role
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: tokens.Token, **more: Any) -> Token:
        return cls.model_construct(
            id=row.id,
            name=row.name,
            role=Role(row.role),
            created_at=_utc(row.created_at),
            last_used_at=_utc(row.last_used_at) if row.last_used_at else None,
            expires_at=_utc(row.expires_at) if row.expires_at else None,
            revoked_at=_utc(row.revoked_at) if row.revoked_at else None,
            **more,
        )


class NewToken(Token):
    token: str = Field(description="the secret: shown this once")


class TokenList(Answer):
    tokens: list[Token]


class Health(Answer):
    status: Literal["ok"]


class Ready(Answer):
    status: Literal["ok", "degraded"] = Field(
        description="`degraded`: requests are served, and background work is late"
    )
    worker: Literal["ok", "late", "stalled", "unknown"] = Field(
        description="`late`: a source or a delivery has been due for over five minutes; `stalled`: a loop of "
        "the background worker does not respond; `unknown`: `gitstore serve` did not start this process"
    )


def summarized(rows: Sequence[catalog.Workflow]) -> list[UUID]:
    """Return the ids of the versions that `Workflow.of` shows for `rows`."""
    return [found for row in rows for found in _summarized(row) if found]


def _summarized(row: catalog.Workflow) -> tuple[UUID | None, UUID | None]:
    draft = version_id(row.id, row.draft_number) if row.draft_number is not None else None
    return row.current_version_id, draft


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
