"""Input of the API's bodies and the pages' forms: pydantic models, and validation with every problem at once.

Bodies that only the API accepts are beside their views.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)

from gitstore import model
from gitstore.definition.quoting import INVISIBLE, clip
from gitstore.errors import GitstoreError, MalformedError
from gitstore.model import LONGEST_TEXT, Limits, Problem, Problems
from gitstore.names import SLUG_PATTERN
from service.access import Role
from webhooks.addresses import LONGEST_URL
from webhooks.forges import Forge
from webhooks.sources import LONGEST_GLOB, LONGEST_POLL, MOST_GLOBS, POLL_SECONDS, SHORTEST_POLL
from webhooks.subscriptions import LONGEST_OVERLAP, SUBSCRIBABLE

M = TypeVar("M", bound=BaseModel)

SLACK: Final = 64 * 1024
"""Bytes of a JSON body in addition to a definition."""

_ESCAPED: Final = 2  # growth of a text by the escapes of a JSON string; at most this factor for real text
_STEP: Final = re.compile(r"[~/]")


def most_json(limits: Limits) -> int:
    """Return the maximum size of a JSON body in bytes."""
    return _ESCAPED * limits.definition + SLACK


def validated(model: type[M], value: Any) -> M:
    """Return `value` as a `model`; raises `malformed` with every problem."""
    if not isinstance(value, dict):
        raise MalformedError("the body must be a JSON object")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise malformed(error) from None


def malformed(error: ValidationError, where: str = "the body") -> GitstoreError:
    """Convert pydantic's errors about a body, a path or a query to `malformed`."""
    problems = Problems.of(
        Problem(
            detail["type"],
            detail["msg"].removeprefix("Value error, "),
            "".join("/" + _STEP.sub(_escape, clip(str(step))) for step in detail["loc"]),
        )
        for detail in error.errors(include_url=False, include_context=False, include_input=False)
    )
    first = problems[0]
    return MalformedError(f"{where} is invalid: {first.pointer or '/'}: {first.message}", problems=problems)


def _escape(match: re.Match[str]) -> str:
    return "~0" if match[0] == "~" else "~1"


# Types


def _check_definition(value: Any) -> Any:
    if value is not None and not isinstance(value, dict | list | str):
        raise ValueError("must be an object, a list, or a string of YAML or JSON")
    return value


def _parse_time(value: Any) -> datetime | None:
    try:
        moment = None if value is None else datetime.fromisoformat(value)
        offset = moment and moment.utcoffset()
        if moment is None or offset is not None:
            return moment and moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError("must be a time as in RFC 3339, with its zone: 2030-01-31T12:00:00Z")


def check_printable(value: str) -> str:
    if INVISIBLE.search(value) or not value.strip():
        raise ValueError("must contain printable characters only")
    return value.strip()


def _check_ident(value: str) -> str:
    if "<" in value or ">" in value:
        raise ValueError("must not contain < or >")
    return check_printable(value)


def _check_events(value: list[str]) -> list[str]:
    unknown = [event for event in value if event not in SUBSCRIBABLE]
    if unknown or not value:
        raise ValueError(f"must be some of {', '.join(SUBSCRIBABLE)}")
    return list(dict.fromkeys(value))


Definition = Annotated[
    Any,
    AfterValidator(_check_definition),
    WithJsonSchema(
        {
            "anyOf": [{"type": "object"}, {"type": "array"}, {"type": "string"}, {"type": "null"}],
            "description": "an object, a list, or a string of YAML or JSON that is stored unchanged",
        }
    ),
]
Moment = Annotated[
    datetime | None,
    BeforeValidator(_parse_time),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
]
Events = Annotated[
    list[str],
    AfterValidator(_check_events),
    WithJsonSchema({"type": "array", "minItems": 1, "items": {"type": "string", "enum": list(SUBSCRIBABLE)}}),
]
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]
ProjectName = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(check_printable)]
WorkflowName = Annotated[str, StringConstraints(max_length=200), AfterValidator(check_printable)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)]
Secret = Annotated[str, StringConstraints(max_length=1000)]
ForgeName = Annotated[Forge, Field(strict=False)]
LayoutName = Literal["refs", "folders"]
DirectionName = Literal["pull", "push", "both"]
Globs = Annotated[
    list[Annotated[str, StringConstraints(max_length=LONGEST_GLOB)]], Field(max_length=MOST_GLOBS)
]
OverlapHours = Annotated[int, Field(ge=0, le=LONGEST_OVERLAP)]
PollSeconds = Annotated[int, Field(ge=SHORTEST_POLL, le=LONGEST_POLL)]


# Bodies


class Body(BaseModel):
    """Unknown members are refused; null is the same as absent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def given(self) -> dict[str, Any]:
        """Return the members that are not null, as arguments of an action."""
        return self.model_dump(exclude_none=True)


class Author(Body):
    """The author of the content, on whose behalf the caller acts."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_check_ident)]
    email: Annotated[str, StringConstraints(min_length=1, max_length=254), AfterValidator(_check_ident)]


class Authored(Body):
    author: Author | None = None

    @property
    def person(self) -> model.Person | None:
        return model.Person(self.author.name, self.author.email) if self.author else None


class Explained(Authored):
    message: Text | None = None


class CreateWorkflow(Authored):
    """Without `definition`, the draft is a starter of one node."""

    slug: str = Field(json_schema_extra={"pattern": f"^{SLUG_PATTERN}$"})
    name: WorkflowName | None = None
    description: Text | None = None
    definition: Definition = None


class UpdateWorkflow(Body):
    """Absent keys are left unchanged; null returns to the definition's own."""

    name: WorkflowName | None = None
    description: Text | None = None


class Annotate(Body):
    """Absent keys are left unchanged; null removes a text."""

    title: Annotated[str, StringConstraints(max_length=200)] | None = None
    notes: Text | None = None


class NewProject(Body):
    name: ProjectName


class ProjectSettings(NewProject):
    """The settings of a project that the page changes."""

    rules: model.Rules = Field(strict=False)


class RenameWorkflow(Body):
    slug: str = Field(json_schema_extra={"pattern": f"^{SLUG_PATTERN}$"})
    message: Text | None = None


class SetMember(Body):
    role: Role = Field(strict=False)


class CreateToken(Body):
    name: Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(check_printable)]
    role: Role = Field(strict=False)
    expires_at: Moment = None


_CREDENTIAL: Final = "`user:password`, or an access token alone; never shown again"
_SECRET: Final = "of the webhook; never shown again"  # noqa: S105
_WORKFLOWS: Final = "globs of slugs, with `*` and `?`: other workflows are neither imported nor pushed"
_DRAFTS: Final = "whether drafts are synced, too; the layout `folders` has none"
_FORGE: Final = (
    "the sender of the webhooks; `any`: signed per Standard Webhooks; `basic`: with the secret as the "
    "password of HTTP basic authentication; `header`: with the secret in the header X-Gitstore-Token"
)


class CreateSource(Body):
    """Without `forge`, the URL's host decides. Without `secret`, one is generated."""

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
    workflows: Globs | None = Field(["*"], description=_WORKFLOWS)
    drafts: bool | None = Field(False, description=_DRAFTS)
    poll_seconds: PollSeconds | None = POLL_SECONDS


class ChangeSource(Body):
    """Absent members are unchanged. An empty `credential` removes it."""

    forge: ForgeName | None = Field(None, description=_FORGE)
    credential: Secret | None = Field(None, description=_CREDENTIAL)
    secret: Secret | None = Field(None, description=_SECRET)
    layout: LayoutName | None = None
    direction: DirectionName | None = None
    workflows: Globs | None = Field(None, description=_WORKFLOWS)
    drafts: bool | None = Field(None, description=_DRAFTS)
    poll_seconds: PollSeconds | None = None
    paused: bool | None = None


class RotateSource(Body):
    """Without `secret`, one is generated."""

    secret: Secret | None = Field(None, description=_SECRET)
    overlap_hours: OverlapHours | None = Field(
        24, description="how long deliveries signed with the previous secret are accepted, too"
    )


class Resolve(Body):
    take: Literal["theirs", "ours", "acknowledge"] = Field(
        description="for a draft, `theirs`: the next sync replaces the draft, and keeps ours as superseded; "
        "or `ours`: ours is kept until the upstream's draft moves. For any other ref, `acknowledge`: both "
        "sides stay as they are, and it is not reported again until one of them moves"
    )


class CreateSubscription(Body):
    """Without `events`: all events."""

    url: Url = Field(description="http or https; a public address", examples=["https://example.com/hooks"])
    events: Events | None = None


class ChangeSubscription(Body):
    """Absent members are unchanged."""

    url: Url | None = None
    events: Events | None = None
    state: Literal["active", "paused"] | None = Field(
        None,
        description="`paused` holds deliveries back; `active` sends them, and re-enables a disabled one",
    )


class ReplaySubscription(Body):
    since: Annotated[datetime, BeforeValidator(_parse_time)] = Field(
        description="events that happened at this time or later are sent again"
    )
