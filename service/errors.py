"""Errors as HTTP answers: code -> status and headers, as problem+json (RFC 9457) or as plain text.

The only place that maps errors to status codes. Any unexpected error is `internal` to the caller, and a
traceback in the log for the operator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from gitstore.errors import Code, ConflictError, GitstoreError
from gitstore.git.files import machine_fault
from gitstore.masking import masked
from gitstore.model import Problem, Problems
from gitstore.system import rfc3339

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.exceptions import HTTPException

PROBLEM_JSON: Final = "application/problem+json"
RETRY_AFTER: Final = 2  # seconds, if the error has no value of its own
REALM: Final = 'realm="gitstore"'
_TYPE: Final = "urn:gitstore:problem:"
_REQUEST: Final = "urn:gitstore:request:"
_INTERNAL: Final = "internal error: the operator finds its cause in the log by the request id"


class HttpCode(StrEnum):
    """Codes of errors that only an HTTP request causes."""

    UNAUTHENTICATED = "unauthenticated"
    PROJECT_REQUIRED = "project_required"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    TOO_MANY_REQUESTS = "too_many_requests"
    URI_TOO_LONG = "uri_too_long"
    HEAD_TOO_LARGE = "head_too_large"
    READ_ONLY_NODE = "read_only_node"


class UnauthenticatedError(GitstoreError):
    """The request has no valid credential."""

    def __init__(self, message: str) -> None:
        super().__init__(HttpCode.UNAUTHENTICATED, message)


STATUS: Final[Mapping[StrEnum, HTTPStatus]] = {
    Code.MALFORMED: HTTPStatus.BAD_REQUEST,
    Code.INVALID_NAME: HTTPStatus.UNPROCESSABLE_ENTITY,
    HttpCode.UNSUPPORTED_MEDIA_TYPE: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Code.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HttpCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    HttpCode.PROJECT_REQUIRED: HTTPStatus.BAD_REQUEST,
    Code.FORBIDDEN: HTTPStatus.FORBIDDEN,
    HttpCode.READ_ONLY_NODE: HTTPStatus.FORBIDDEN,
    Code.BAD_SIGNATURE: HTTPStatus.UNAUTHORIZED,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.PROJECT_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.WORKFLOW_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.VERSION_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.VERSION_LOST: HTTPStatus.GONE,
    Code.NOT_PUBLISHED: HTTPStatus.NOT_FOUND,
    HttpCode.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
    Code.PROJECT_EXISTS: HTTPStatus.CONFLICT,
    Code.PROJECT_ARCHIVED: HTTPStatus.CONFLICT,
    Code.PROJECT_NOT_ARCHIVED: HTTPStatus.CONFLICT,
    Code.LAST_OWNER: HTTPStatus.CONFLICT,
    Code.WORKFLOW_EXISTS: HTTPStatus.CONFLICT,
    Code.WORKFLOW_RENAMED: HTTPStatus.NOT_FOUND,
    Code.DRAFT_EXISTS: HTTPStatus.CONFLICT,
    Code.NO_DRAFT: HTTPStatus.CONFLICT,
    Code.BASE_MOVED: HTTPStatus.CONFLICT,
    Code.MERGE_CONFLICT: HTTPStatus.CONFLICT,
    Code.INTEGRITY: HTTPStatus.CONFLICT,
    Code.STALE_DRAFT: HTTPStatus.PRECONDITION_FAILED,
    Code.EXPECTED_REQUIRED: HTTPStatus.PRECONDITION_REQUIRED,
    Code.UPGRADE_UNFINISHED: HTTPStatus.CONFLICT,
    Code.LIMIT_REACHED: HTTPStatus.CONFLICT,
    Code.RELEASE_EXISTS: HTTPStatus.CONFLICT,
    Code.RELEASE_CONFLICT: HTTPStatus.CONFLICT,
    Code.RELEASE_REFUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.VERSION_UNUSABLE: HTTPStatus.CONFLICT,
    Code.ENVIRONMENT_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ENVIRONMENT_USED: HTTPStatus.CONFLICT,
    Code.ENVIRONMENT_MOVED: HTTPStatus.PRECONDITION_FAILED,
    Code.ENVIRONMENT_REFUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.ENVIRONMENT_INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.TOO_EARLY: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.SCHEDULE_ENDED: HTTPStatus.CONFLICT,
    Code.SCHEDULE_EXISTS: HTTPStatus.CONFLICT,
    Code.SCHEDULE_MISSED: HTTPStatus.CONFLICT,
    Code.WORKFLOW_ARCHIVED: HTTPStatus.CONFLICT,
    Code.WORKFLOW_PUBLISHED: HTTPStatus.CONFLICT,
    Code.NOT_RUNNING: HTTPStatus.GONE,
    Code.DEFINITION_UNPARSABLE: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.DEFINITION_INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.DEFINITION_MISSING: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.SCHEMA_INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.STALE_SCHEMA: HTTPStatus.PRECONDITION_FAILED,
    Code.NO_JSON: HTTPStatus.NOT_ACCEPTABLE,
    Code.NOT_FAST_FORWARD: HTTPStatus.CONFLICT,
    Code.WRONG_NUMBER: HTTPStatus.CONFLICT,
    Code.VERSION_IMMUTABLE: HTTPStatus.CONFLICT,
    Code.REF_NOT_ACCEPTED: HTTPStatus.CONFLICT,
    Code.DISCARD_NOT_ALONE: HTTPStatus.CONFLICT,
    Code.ATOMIC_REFUSED: HTTPStatus.CONFLICT,
    Code.SHALLOW: HTTPStatus.CONFLICT,
    Code.OBJECTS_MISSING: HTTPStatus.CONFLICT,
    Code.OBJECTS_REFUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.ADDRESS_REFUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.UNREACHABLE: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
    HttpCode.TOO_MANY_REQUESTS: HTTPStatus.TOO_MANY_REQUESTS,
    HttpCode.URI_TOO_LONG: HTTPStatus.REQUEST_URI_TOO_LONG,
    HttpCode.HEAD_TOO_LARGE: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.PUBLISHED_NOT_MIRRORED: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.SOURCE_EXISTS: HTTPStatus.CONFLICT,
    Code.SOURCE_PAUSED: HTTPStatus.CONFLICT,
    Code.UPSTREAM_FAILED: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.CONFIG: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}

# Errors that Flask and Werkzeug raise themselves, by status.
_REFUSED_BY_FLASK: Final[Mapping[int, tuple[StrEnum, str]]] = {
    404: (Code.NOT_FOUND, "no resource at this address: see /docs"),
    405: (HttpCode.METHOD_NOT_ALLOWED, "the method is not allowed here: see the header Allow"),
    413: (Code.TOO_LARGE, "the body is too large"),
    415: (HttpCode.UNSUPPORTED_MEDIA_TYPE, "the media type is not supported"),
}


def status_and_headers(
    error: GitstoreError, *, challenge: str = "Bearer"
) -> tuple[HTTPStatus, dict[str, str]]:
    """Return the HTTP status of an error, and the headers that any form of the answer has.

    `challenge` is the scheme of a 401's WWW-Authenticate (RFC 9110 section 11.6.1).
    """
    status = STATUS[error.code]
    headers = {"Cache-Control": "no-store"}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = f"{challenge} {REALM}"
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(error.data.get("retry_after", RETRY_AFTER))
    if "allow" in error.data:
        headers["Allow"] = ", ".join(sorted(error.data["allow"]))
    return status, headers


def problem(error: GitstoreError, request_id: str = "") -> Response:
    """Return the answer as application/problem+json."""
    status, headers = status_and_headers(error)
    data = {**error.data, **_draft_facts(error)}
    if "problems" in data:
        data["problems"] = Problems.of(data["problems"])
        data["problems_total"] = data["problems"].total
    body = {
        **{key: _jsonable(value) for key, value in data.items()},
        "type": f"{_TYPE}{error.code}",
        "title": error.code.replace("_", " ").capitalize(),
        "status": int(status),
        "detail": error.message,
        "code": error.code.value,
    }
    # An error repeats the refused input, and could so carry a secret into a log or a bug report.
    body = masked(body)
    if request_id:
        body["instance"] = f"{_REQUEST}{request_id}"
    return _answer(json.dumps(body) + "\n", status, headers, PROBLEM_JSON)


def _draft_facts(error: GitstoreError) -> dict[str, object]:
    """Return the facts about the open draft with which the request conflicts, if it does."""
    if not isinstance(error, ConflictError) or error.draft is None:
        return {}
    author = error.draft.author
    return {
        "etag": f'"{error.draft.commit}"',
        "author": {"name": author.name, "email": author.email},
        "time": error.draft.created_at,
    }


def plain(error: GitstoreError) -> Response:
    """Return the answer for git, which prints text/plain in the terminal as `remote: ...`."""
    status, headers = status_and_headers(error, challenge="Basic")
    text = masked(error.message) + "\n"
    return _answer(text, status, headers, "text/plain; charset=utf-8")


def _answer(body: str, status: HTTPStatus, headers: dict[str, str], content_type: str) -> Response:
    from flask import Response  # imported only if used: commands need the codes alone

    return Response(body, int(status), headers, content_type=content_type)


def of_flask(error: HTTPException) -> GitstoreError:
    """Convert an error that Flask raised itself to a GitstoreError."""
    code, message = _REFUSED_BY_FLASK.get(
        error.code or 400, (Code.MALFORMED, "the request is malformed or truncated")
    )
    allowed = getattr(error, "valid_methods", None)
    return GitstoreError(code, message, **({"allow": list(allowed)} if allowed else {}))


def of_unexpected(error: Exception) -> GitstoreError:
    """Convert an unexpected exception: a full disk has its own code, a bug is `internal`."""
    return machine_fault(error) or internal()


def internal() -> GitstoreError:
    """Return the error that the caller gets for an unexpected exception."""
    return GitstoreError(Code.INTERNAL, _INTERNAL)


def _jsonable(value: Any) -> Any:
    match value:
        case Problem():
            return problem_json(value)
        case datetime():
            return rfc3339(value)
        case Mapping():
            return {str(key): _jsonable(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_jsonable(inner) for inner in value]
        case None | bool() | int() | float() | str():
            return value
    return str(value)


def problem_json(problem: Problem) -> dict[str, object]:
    """Return a problem of a definition as JSON. An "error" blocks publishing, a "warning" does not."""
    return {
        "code": problem.code,
        "message": problem.message,
        "severity": "error" if problem.error else "warning",
        "pointer": problem.pointer,
        "node": problem.node,
        "line": problem.line,
        "column": problem.column,
    }
