"""Requests and answers of the API: JSON bodies, conditional headers (RFC 9110), answers and their schemas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, Literal, Self, TypeVar
from urllib.parse import urlencode

from flask import Request, Response, request
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from gitstore.definition import document
from gitstore.definition.quoting import clip
from gitstore.errors import Code, GitstoreError, InvalidDefinitionError, MalformedError
from gitstore.model import MOST_PROBLEMS, Limits, Problems
from gitstore.store import ANY
from service import errors
from service.caller import Backend, Caller
from service.context import read_body
from service.errors import HttpCode
from service.inputs import most_json, validated
from service.lookup import cursor_to

M = TypeVar("M", bound=BaseModel)

JSON: Final = "application/json"
IMMUTABLE: Final = "private, immutable, max-age=31536000"
CHANGING: Final = "private, no-cache"
JSON_TAG: Final = "-json"
"""Suffix of the ETag of a definition as JSON, if it is not stored as JSON."""

_SPELLING: Final = {"etag": "ETag"}  # spelled as in RFC 9110; some clients compare case-sensitively
_ITEM: Final = re.compile(r'[ \t,]*+(?:(W/)?"([^"]*+)"|([^ \t,"]++))[ \t]*+(?=,|$)')
_END: Final = re.compile(r"[ \t,]*+")


# Schemas


class Answer(BaseModel):
    """Every member is always present."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    @classmethod
    def from_row(cls, row: object, **values: Any) -> Self:
        """Return an answer with the fields of `row`, times in UTC; `values` are others, or override them."""
        return cls.model_construct(**cls.fields_of(row, **values))

    @classmethod
    def fields_of(cls, row: object, **values: Any) -> dict[str, Any]:
        """Return the fields of `from_row` in their order; for a long list, a model of each takes too long."""
        for name in cls.model_fields:
            value = values.pop(name) if name in values else getattr(row, name)
            values[name] = value.astimezone(UTC) if type(value) is datetime else value
        return values


class DefinitionProblem(Answer):
    """A problem of a definition. An `error` blocks publishing, a `warning` does not."""

    code: str = Field(examples=["http_url_missing"])
    message: str
    severity: Literal["error", "warning"]
    pointer: str | None = Field(description="RFC 6901 JSON Pointer into the definition")
    node: str | None = Field(description="id of the node concerned")
    line: int | None
    column: int | None


class Judged(Answer):
    """The problems of a definition."""

    problems: list[DefinitionProblem] = Field(description=f"errors and warnings: {MOST_PROBLEMS} at most")
    problems_total: int = Field(description="number of problems, including those that are not listed")


def problems_of(problems: Problems) -> dict[str, Any]:
    """Return the fields of `Judged`."""
    listed = [DefinitionProblem.model_validate(errors.problem_json(problem)) for problem in problems]
    return {"problems": listed, "problems_total": problems.total}


class Problem(BaseModel):
    """An error (RFC 9457). Other members describe the current state, for example `etag` and `author`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="stable, for programs")
    instance: str | None = None
    problems: list[DefinitionProblem] | None = Field(None, description=f"{MOST_PROBLEMS} at most")
    problems_total: int | None = Field(None, description="number of problems, listed or not")
    etag: str | None = None


class Person(Answer):
    name: str
    email: str


# Requests


def read_json(caller: Caller | Backend, model: type[M]) -> M:
    """Return the body as a `model`. A missing body counts as an empty object.

    Raises `malformed` with every problem, `unsupported_media_type` or `too_large`; `definition_unparsable` if
    the body has a definition and cannot be read.
    """
    limits = caller.config.limits if isinstance(caller, Backend) else caller.limits
    raw = read_body(request, most_json(limits))
    if not raw:
        return validated(model, {})
    check_json()
    has_definition = model.model_fields.keys() & {"definition", "nodes"}
    return validated(model, (definition_in_json if has_definition else document.parse_json)(raw, limits))


def definition_in_json(raw: bytes, limits: Limits) -> Any:
    """Return the value of a JSON body with a definition in it; raises `definition_unparsable`."""
    try:
        return document.parse_json(raw, limits)
    except MalformedError as error:
        # The answer to a syntax error does not depend on the format, YAML or JSON.
        raise InvalidDefinitionError(
            Code.DEFINITION_UNPARSABLE, error.message, problems=error.problems
        ) from error


def check_json(*others: str) -> None:
    """Raise `unsupported_media_type` unless the body is JSON; the endpoint accepts `others`, too."""
    if request.mimetype != JSON:
        given, accepted = clip(request.mimetype) or "missing", [JSON, *others]
        message = f"Content-Type is {given}: send {' or '.join(accepted)}"
        raise GitstoreError(HttpCode.UNSUPPORTED_MEDIA_TYPE, message, accepted=accepted)


def expected(request: Request) -> Set[str] | None:
    """Return the commits of the draft that If-Match expects: one of them, ANY, or None without the header.

    By strong comparison: a weak tag never matches. The tag of the definition as JSON counts as the draft's.
    Tags without quotes, as users type them, are accepted, too.
    """
    header = request.headers.get("If-Match", "").strip()
    if not header:
        return None
    if header == "*":
        return {ANY}
    return {tag.removesuffix(JSON_TAG) for weak, tag in _tags(header) if not weak} - {ANY}


def not_modified(request: Request, tag: str) -> bool:
    """Return whether If-None-Match contains `tag` (with its quotes), by weak comparison."""
    return matches(request.headers.get("If-None-Match", ""), tag)


def matches(header: str, tag: str) -> bool:
    """Return whether the header If-None-Match contains `tag` (with its quotes), by weak comparison."""
    header = header.strip()
    return header == "*" or tag.strip('"') in {other for _, other in _tags(header)}


def _tags(header: str) -> Iterator[tuple[bool, str]]:
    """Yield (weak, tag) for each tag of a list; nothing for a malformed list."""
    at, tags = 0, []
    while item := _ITEM.match(header, at):
        tags.append((item[1] is not None, item[2] if item[2] is not None else item[3]))
        at = item.end()
    end = _END.match(header, at)
    if end is not None and end.end() == len(header):
        yield from tags


# Answers


def answer(model: BaseModel, status: int = HTTPStatus.OK, **headers: str | None) -> Response:
    """Return `model` as JSON. A header's key is spelled as in `cache_control`; None omits the header."""
    return answer_bytes(model.model_dump_json() + "\n", JSON, status, **headers)


def answer_bytes(
    body: str | bytes, content_type: str | None, status: int = HTTPStatus.OK, **headers: Any
) -> Response:
    """Return `body`, with headers as in `answer`; by default, caches have to revalidate it."""
    response = Response(body, status, content_type=content_type)
    if content_type is None:
        del response.headers["Content-Type"]
    for name, value in {"cache_control": CHANGING, **headers}.items():
        if value is not None:
            response.headers[_SPELLING.get(name) or name.replace("_", "-").title()] = value
    return response


def answer_page(
    caller: Caller | Backend, model: type[Answer], path: str, place: str | int | None, **rows: Any
) -> Response:
    """Return a page of a list, with a cursor and a Link header (RFC 8288) to the rows after `place`.

    The rows are models, or the fields of models.
    """
    body, link = page_of(caller, model, path, place, request.args.to_dict(), **rows)
    return answer_bytes(body, JSON, link=link)


def page_of(
    caller: Caller | Backend,
    model: type[Answer],
    path: str,
    place: str | int | None,
    query: Mapping[str, str],
    **rows: Any,
) -> tuple[bytes, str | None]:
    """Return the body and the Link header of `answer_page`, for a request with the arguments `query`."""
    cursor = link = None
    if place is not None:
        cursor = cursor_to(place)
        link = f'<{url(caller, path)}?{urlencode({**query, "cursor": cursor})}>; rel="next"'
    fields = {**rows, "next_cursor": cursor}
    return to_json({name: fields[name] for name in model.model_fields}) + b"\n", link


def unchanged(**headers: str) -> Response:
    """Return 304 Not Modified (RFC 9110 section 15.4.5), without a content type."""
    return answer_bytes(b"", None, HTTPStatus.NOT_MODIFIED, **headers)


def no_content(**headers: str) -> Response:
    """Return 204 No Content, without a content type."""
    return answer_bytes(b"", None, HTTPStatus.NO_CONTENT, cache_control=None, **headers)


def url(caller: Caller | Backend, path: str) -> str:
    """Return the public URL of a path of the API."""
    return f"{_backend(caller).config.public_url}{path}"


def _backend(caller: Caller | Backend) -> Backend:
    return caller if isinstance(caller, Backend) else caller.services
