"""Input and output of the API for sources, as pydantic models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from service.api.inputs import Body, Parameters
from service.api.schemas import Answer
from webhooks import divergence_decisions, sources
from webhooks.addresses import LONGEST_URL
from webhooks.forges import Forge
from webhooks.sources import LONGEST_POLL, POLL_SECONDS, SHORTEST_POLL

Url = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)]
ForgeName = Annotated[Forge, Field(strict=False)]
LayoutName = Literal["refs", "folders"]
DirectionName = Literal["pull", "push", "both"]
Secret = Annotated[str, StringConstraints(max_length=1000)]
Poll = Annotated[int, Field(ge=SHORTEST_POLL, le=LONGEST_POLL)]

_CREDENTIAL = "`user:password`, or an access token alone; never shown again"
_SECRET = "of the webhook; never shown again"  # noqa: S105
_FORGE = "who sends webhooks; `any`: signed per Standard Webhooks"

# Bodies


class CreateSource(Body):
    """Without `forge`: what the URL's host tells. Without `secret`: a new one."""

    url: Url = Field(
        description="of a Git repository, http or https", examples=["https://github.com/acme/flows.git"]
    )
    forge: ForgeName | None = Field(None, description=_FORGE)
    credential: Secret | None = Field(None, description=_CREDENTIAL)
    secret: Secret | None = Field(None, description=_SECRET)
    layout: LayoutName | None = Field(
        "refs",
        description="`refs`: the same refs as here; `folders`: workflows/<slug>/ of one repository, "
        "tags <slug>/v<N> on any commit",
    )
    direction: DirectionName | None = "pull"
    poll_seconds: Poll | None = POLL_SECONDS


class ChangeSource(Body):
    """What is absent stays. An empty `credential` removes it."""

    forge: ForgeName | None = Field(None, description=_FORGE)
    credential: Secret | None = Field(None, description=_CREDENTIAL)
    secret: Secret | None = Field(None, description=_SECRET)
    layout: LayoutName | None = None
    direction: DirectionName | None = None
    poll_seconds: Poll | None = None
    paused: bool | None = None


class Resolve(Body):
    take: Literal["theirs", "ours"] = Field(
        description="`theirs`: the next sync replaces the draft, and keeps ours as superseded; "
        "`ours`: it is left alone until the upstream's draft moves"
    )


# Parameters


class SourcePath(Parameters):
    id: str = Field(json_schema_extra={"format": "uuid"})


class DivergencePath(SourcePath):
    divergence: str = Field(json_schema_extra={"format": "uuid"})


# Answers


class Source(Answer):
    id: UUID
    url: str
    forge: Forge
    layout: LayoutName
    direction: DirectionName
    poll_seconds: int
    paused: bool
    has_credential: bool
    webhook_url: str = Field(description="where the forge is to send its webhooks")
    state: sources.State = Field(
        description="`poison`: three syncs in a row crashed; it is not synced until it is changed, or its "
        "sync is asked for"
    )
    last_error: str | None = Field(description="null where the last sync succeeded")
    failures: int = Field(description="in a row")
    tried_at: datetime | None
    succeeded_at: datetime | None
    next_sync_at: datetime | None = Field(description="null while it is paused or poison")
    report: dict[str, Any] = Field(
        description="the last sync that brought anything: `published`, `gaps` (runs of numbers that the "
        "upstream lacks, by workflow), `drafts`, `pushed`, `at`"
    )
    created_at: datetime

    @classmethod
    def of(cls, row: sources.Source, public_url: str, **more: Any) -> Source:
        return cls.model_construct(
            id=row.id,
            url=row.url,
            forge=Forge(row.forge),
            layout=row.layout,
            direction=row.direction,
            poll_seconds=row.poll_seconds,
            paused=row.paused,
            has_credential=row.has_credential,
            webhook_url=hook_url(public_url, row.id),
            state=row.state,
            last_error=row.last_error,
            failures=row.failures,
            tried_at=_utc(row.tried_at),
            succeeded_at=_utc(row.succeeded_at),
            next_sync_at=None if row.state in ("paused", "poison") else _utc(row.due_at),
            report=row.report,
            created_at=_utc(row.created_at),
            **more,
        )


class Webhook(Answer):
    """What to paste into the forge's settings of the repository."""

    url: str
    secret: str = Field(description="shown this once")
    content_type: str
    events: list[str] = Field(description="as the forge calls them")

    @classmethod
    def of(cls, row: sources.Source, public_url: str, secret: str) -> Webhook:
        return cls.model_construct(
            url=hook_url(public_url, row.id),
            secret=secret,
            content_type="application/json",
            events=list(Forge(row.forge).profile.subscribe_to),
        )


class NewSource(Source):
    webhook: Webhook


class Divergence(Answer):
    """Where both sides have something different under one name. Nobody overwrites either."""

    id: UUID
    ref: str
    workflow: str = Field(description="the workflow's slug")
    version_number: int | None = Field(description="null for a draft")
    ours: str | None = Field(description="what the ref holds here; null where it is not here")
    theirs: str | None = Field(description="what it holds upstream; null where it is not there")
    code: str
    reason: str
    first_seen_at: datetime
    last_seen_at: datetime
    decision: Literal["theirs"] | None = Field(description="to be carried out by the next sync")
    decided_by: str | None
    resolved_at: datetime | None
    resolution: Literal["theirs", "ours", "gone"] | None

    @classmethod
    def of(cls, row: divergence_decisions.Divergence) -> Divergence:
        return cls.model_construct(
            id=row.id,
            ref=row.ref,
            workflow=row.slug,
            version_number=row.version_number,
            ours=row.ours,
            theirs=row.theirs,
            code=row.code,
            reason=row.reason,
            first_seen_at=_utc(row.first_seen_at),
            last_seen_at=_utc(row.last_seen_at),
            decision=row.decision,
            decided_by=row.decided_by,
            resolved_at=_utc(row.resolved_at),
            resolution=row.resolution,
        )


class FullSource(Source):
    divergences: list[Divergence] = Field(description="the open ones, by workflow and version; 1000 at most")


class SourceList(Answer):
    sources: list[Source]


BODIES = (CreateSource, ChangeSource, Resolve)
ANSWERS = (Source, NewSource, FullSource, SourceList, Divergence)


def hook_url(public_url: str, source_id: UUID) -> str:
    return f"{public_url}/hooks/{source_id}"


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment else None
