"""Coded errors with data. No HTTP here: `service/errors.py` is the only mapping from code to status.

An error has a code (stable, for programs), a message (for people: what failed, and what to do next) and
data (the values the message was built from, JSON-able, never a secret).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Every error code of gitstore. The value is the `code` member of a problem+json."""

    # The request is malformed.
    MALFORMED = "malformed"
    INVALID_NAME = "invalid_name"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    TOO_LARGE = "too_large"
    # Authentication and authorization.
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    BAD_SIGNATURE = "bad_signature"
    # The object does not exist (or belongs to another tenant).
    NOT_FOUND = "not_found"
    PROJECT_NOT_FOUND = "project_not_found"
    WORKFLOW_NOT_FOUND = "workflow_not_found"
    VERSION_NOT_FOUND = "version_not_found"
    VERSION_LOST = "version_lost"
    NOT_PUBLISHED = "not_published"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    # Conflict with the current state.
    PROJECT_EXISTS = "project_exists"
    WORKFLOW_EXISTS = "workflow_exists"
    DRAFT_EXISTS = "draft_exists"
    NO_DRAFT = "no_draft"
    BASE_MOVED = "base_moved"
    INTEGRITY = "integrity"
    STALE_DRAFT = "stale_draft"
    PRECONDITION_REQUIRED = "precondition_required"
    LIMIT_REACHED = "limit_reached"
    # Definitions.
    DEFINITION_UNPARSABLE = "definition_unparsable"
    DEFINITION_INVALID = "definition_invalid"
    DEFINITION_MISSING = "definition_missing"
    # Pushes.
    NOT_FAST_FORWARD = "not_fast_forward"
    WRONG_NUMBER = "wrong_number"
    VERSION_IMMUTABLE = "version_immutable"
    REF_NOT_ACCEPTED = "ref_not_accepted"
    DISCARD_NOT_ALONE = "discard_not_alone"
    ATOMIC_REFUSED = "atomic_refused"
    SHALLOW = "shallow"
    OBJECTS_MISSING = "objects_missing"
    OBJECTS_REFUSED = "objects_refused"
    # Outside addresses.
    ADDRESS_REFUSED = "address_refused"
    UNREACHABLE = "unreachable"
    # Temporary failures.
    BUSY = "busy"
    TOO_MANY_REQUESTS = "too_many_requests"
    UNAVAILABLE = "unavailable"
    PUBLISHED_NOT_MIRRORED = "published_not_mirrored"
    # Sources: other repositories.
    SOURCE_EXISTS = "source_exists"
    SOURCE_PAUSED = "source_paused"
    UPSTREAM_FAILED = "upstream_failed"
    # For the operator.
    CONFIG = "config"
    INTERNAL = "internal"


class GitstoreError(Exception):
    """An expected error.

    `data` holds JSON-able facts by name, for example `etag` and `author` of the current state, or `problems`,
    a list of `gitstore.model.Problem` about a definition.
    """

    def __init__(self, code: Code, message: str, **data: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return self.message
