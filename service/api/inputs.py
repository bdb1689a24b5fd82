"""Input of the API, as pydantic models: request bodies, and parameters of paths and queries.

The OpenAPI document is generated from these. `service/api/bodies.py` parses bodies into them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from gitstore.definition.quoting import INVISIBLE
from gitstore.names import HIGHEST_NUMBER, SLUG_PATTERN
from service.auth import Role

LONGEST_PAGE: Final = 100
LONGEST_TEXT: Final = 10_000  # characters of a message, of a description
_NUMBER: Final = "v?[1-9][0-9]{0,9}"


def _definition(value: Any) -> Any:
    if value is not None and not isinstance(value, dict | str):
        raise ValueError("a definition is an object, or a string of YAML or JSON")
    return value


def _which(value: Any) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
        raise ValueError("a version is a number, as 3, or a string, as v3 or current")
    return value


def _time(value: Any) -> datetime | None:
    try:
        moment = None if value is None else datetime.fromisoformat(value)
        offset = moment and moment.utcoffset()
        if moment is None or offset is not None:
            return moment and moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError("a time is written as in RFC 3339, with its zone: 2030-01-31T12:00:00Z")


def _plain(value: str) -> str:
    if INVISIBLE.search(value) or not value.strip():
        raise ValueError("visible characters are needed, and no others")
    return value.strip()


def _ident(value: str) -> str:
    if "<" in value or ">" in value:
        raise ValueError("git gives < and > a meaning of their own: leave them out")
    return _plain(value)


Definition = Annotated[
    Any,
    AfterValidator(_definition),
    WithJsonSchema(
        {
            "anyOf": [{"type": "object"}, {"type": "string"}, {"type": "null"}],
            "description": "an object, or a string of YAML or JSON that is kept byte for byte",
        }
    ),
]
_VERSIONS: Final = (
    {"type": "integer", "minimum": 1, "maximum": HIGHEST_NUMBER},
    {"type": "string", "pattern": f"^({_NUMBER}|current|latest)$"},
)
_VERSIONS_ARE: Final = "`3`, `v3`, `current` or `latest`"
WhichVersion = Annotated[
    Any,
    AfterValidator(_which),
    WithJsonSchema({"anyOf": [*_VERSIONS], "description": _VERSIONS_ARE}),
]
FromVersion = Annotated[
    Any,
    AfterValidator(_which),
    WithJsonSchema({"anyOf": [*_VERSIONS, {"type": "null"}], "description": _VERSIONS_ARE}),
]
Moment = Annotated[
    datetime | None,
    BeforeValidator(_time),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
]
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]


class Body(BaseModel):
    """What is not named here is refused; null is the same as absent."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Author(Body):
    """The person for whom the caller acts."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_ident)]
    email: Annotated[str, StringConstraints(min_length=1, max_length=254), AfterValidator(_ident)]


class Authored(Body):
    author: Author | None = None


class Explained(Authored):
    message: Text | None = None


class CreateWorkflow(Authored):
    """Without `definition`, the draft is a starter of one node."""

    slug: str = Field(json_schema_extra={"pattern": f"^{SLUG_PATTERN}$"})
    name: Annotated[str, StringConstraints(max_length=200), AfterValidator(_plain)] | None = None
    description: Text | None = None
    definition: Definition = None


class CreateDraft(Explained):
    """Without `definition` and `from_version`: a copy of the current version."""

    definition: Definition = None
    from_version: FromVersion = None


class SaveDraft(CreateDraft):
    """`definition` or `from_version`."""

    base_version: Annotated[int, Field(ge=1, le=HIGHEST_NUMBER)] | None = Field(
        None, description="the version published meanwhile that was taken into account"
    )


class Publish(Explained):
    activate: bool | None = Field(True, description="whether it becomes the current version")


class Revert(Explained):
    """Why, and for whom."""


class RestoreDraft(Body):
    """Without `at`: the draft that was discarded last."""

    at: Moment = None


class MoveCurrent(Body):
    version: WhichVersion
    message: Text | None = None
    hold: bool | None = Field(False, description="held, publishing does not move it")


class Validate(Body):
    """Without `definition`: the draft as it is saved."""

    definition: Definition = None


class CreateToken(Body):
    name: Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_plain)]
    role: Role = Field(strict=False)
    expires_at: Moment = None


# Parameters


class Parameters(BaseModel):
    """Those of a path, or of a query; others of a query are passed over."""


class Query(Parameters):
    project: str | None = Field(None, description="the project's slug or id, where the caller has several")

    @classmethod
    def model_json_schema(cls, *_: Any, **options: Any) -> dict[str, Any]:
        """Return the schema, computed once: flask-openapi3 requests it for every request."""
        return cls._schema(**options)

    @classmethod
    @cache
    def _schema(cls, **options: Any) -> dict[str, Any]:
        return super().model_json_schema(**options)


class PageQuery(Query):
    limit: int = Field(20, ge=1, le=LONGEST_PAGE)
    cursor: str | None = Field(None, description="`next_cursor` of the page before")


class WorkflowsQuery(PageQuery):
    q: str | None = Field(None, description="what slug, name or description must hold", max_length=200)


class HistoryQuery(PageQuery):
    state: Literal["draft", "published", "lost"] | None = None


class WorkflowPath(Parameters):
    id: str = Field(description="the workflow's UUID, or its slug")


class VersionPath(WorkflowPath):
    version: str = Field(
        description="`3`, `v3`, `draft`, `current` or `latest`",
        json_schema_extra={"pattern": f"^({_NUMBER}|draft|current|latest)$"},
    )


class TokenPath(Parameters):
    id: str = Field(json_schema_extra={"format": "uuid"})
