"""Parsing of request bodies: the size is checked before the bytes, the media type before the content.

A draft is sent as its own bytes (YAML or JSON, stored unchanged) or in an envelope, a JSON object around it.
A JSON object is an envelope if it has a key of `SaveDraft` and no `nodes`, or no key at all; any other is the
definition itself. So a definition for the rules `any` that has such a key must be sent in an envelope.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

from flask import Request
from pydantic import BaseModel, ValidationError

from gitstore.definition import document
from gitstore.definition.quoting import clip
from gitstore.drafts import Content
from gitstore.errors import Code, GitstoreError, InvalidDefinitionError, MalformedError, too_large
from gitstore.model import Limits, Person, Problem, Problems
from service.api.inputs import Authored, SaveDraft
from service.errors import HttpCode

M = TypeVar("M", bound=BaseModel)

JSON: Final = "application/json"
YAML: Final = ("application/yaml", "text/yaml", "application/x-yaml", "text/x-yaml")
SLACK: Final = 64 * 1024
"""Bytes of a JSON body in addition to a definition."""

_ESCAPED: Final = 2  # growth of a text by the escapes of a JSON string; at most this factor for real text
_GRAMMAR: Final = frozenset({"syntax", "not_utf8"})
_ENVELOPE: Final = frozenset(SaveDraft.model_fields)
_STEP: Final = re.compile(r"[~/]")


def author_of(body: Authored) -> Person | None:
    return Person(body.author.name, body.author.email) if body.author else None


def read_json(request: Request, model: type[M], limits: Limits) -> M:
    """Return the body as a `model`. A missing body counts as an empty object.

    Raises `malformed` with every problem, `unsupported_media_type` or `too_large`.
    """
    raw = read_body(request, most_json(limits))
    if not raw:
        return validated(model, {})
    if request.mimetype != JSON:
        raise _unsupported(request, JSON)
    return validated(model, document.parse_json(raw, limits))


def read_draft(request: Request, limits: Limits, model: type[M]) -> tuple[Content | None, M]:
    """Return a draft's content, if the body has one, and the envelope as a `model`, empty for raw bytes.

    Raises as `read_json` does, and `definition_unparsable` for well-formed JSON that is refused.
    """
    if request.mimetype in YAML:
        raw = read_body(request, limits.definition)
        return Content(raw=raw, json=False), validated(model, {})
    raw = read_body(request, most_json(limits))
    if not raw:
        return None, validated(model, {})
    if request.mimetype != JSON:
        raise _unsupported(request, JSON, *YAML)
    value = _definition_or_envelope(raw, limits)
    if isinstance(value, dict) and value and ("nodes" in value or not _ENVELOPE & value.keys()):
        check_size(raw, limits)
        return Content(raw=raw, json=True), validated(model, {})
    envelope = validated(model, value)
    return content_of(getattr(envelope, "definition", None), limits), envelope


def content_of(given: Any, limits: Limits) -> Content | None:
    """Return the content in the `definition` of an envelope; text is kept unchanged."""
    if isinstance(given, str):
        raw = given.encode()
        check_size(raw, limits)
        return Content(raw=raw)
    return None if given is None else Content(value=given)


def check_size(raw: bytes, limits: Limits) -> None:
    if len(raw) > limits.definition:
        raise too_large("the definition has", len(raw), limits.definition)


def _definition_or_envelope(raw: bytes, limits: Limits) -> Any:
    try:
        return document.parse_json(raw, limits)
    except MalformedError as error:
        problems = error.problems
        if any(problem.code in _GRAMMAR for problem in problems):
            raise
        # Valid JSON by RFC 8259, except for duplicate keys, levels and numbers that a definition must not
        # have.
        raise InvalidDefinitionError(Code.DEFINITION_UNPARSABLE, error.message, problems=problems) from error


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
            found["type"],
            found["msg"].removeprefix("Value error, "),
            "".join("/" + _STEP.sub(_escape, clip(str(step))) for step in found["loc"]),
        )
        for found in error.errors(include_url=False, include_context=False, include_input=False)
    )
    first = problems[0]
    message = f"{where} is not as documented: {first.pointer or '/'}: {first.message}"
    return MalformedError(message, problems=problems)


def _escape(found: re.Match[str]) -> str:
    return "~0" if found[0] == "~" else "~1"


def most_json(limits: Limits) -> int:
    """Return the maximum size of a JSON body in bytes."""
    return _ESCAPED * limits.definition + SLACK


def read_body(request: Request, most: int) -> bytes:
    """Return the body, at most `most` bytes; a larger declared length is refused before reading."""
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise GitstoreError(
            HttpCode.UNSUPPORTED_MEDIA_TYPE, "send the body as it is: no Content-Encoding is accepted"
        )
    told = request.content_length
    if told is not None and told > most:
        raise too_large("the body has", told, most)
    # Werkzeug truncates a body at its limit silently, and takes a body that ended early for complete if the
    # server declares that it terminates the input itself (as bridge.py does). So one byte more, and then both
    # checks.
    request.max_content_length = most + 1
    try:
        raw = request.get_data(cache=False)
    except GitstoreError:
        raise
    except Exception as error:
        raise MalformedError("the body is damaged, or took too long to come") from error
    if len(raw) > most:
        raise too_large("the body has more than", most, most)
    if told is not None and len(raw) != told:
        raise MalformedError(f"the body ended after {len(raw):,} of {told:,} bytes")
    return raw


def _unsupported(request: Request, *accepted: str) -> GitstoreError:
    given = clip(request.mimetype) or "nothing"
    return GitstoreError(
        HttpCode.UNSUPPORTED_MEDIA_TYPE,
        f"Content-Type is {given}: send {' or '.join(accepted)}",
        accepted=list(accepted),
    )
