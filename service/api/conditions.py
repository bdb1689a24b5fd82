"""If-Match and If-None-Match (RFC 9110 section 13.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from flask import Request

from gitstore.store import ANY

JSON_TAG: Final = "-json"
"""Suffix of the ETag of a definition as JSON, if it is not stored as JSON."""

_ITEM: Final = re.compile(r'[ \t,]*+(?:(W/)?"([^"]*+)"|([^ \t,"]++))[ \t]*+(?=,|$)')
_END: Final = re.compile(r"[ \t,]*+")
_NO_COMMIT: Final = "another"


def expected(request: Request, draft: str | None) -> str | None:
    """Return the draft's state that If-Match expects: a commit, ANY, or None if the header is not sent.

    `draft` is the draft's present commit. By strong comparison: a weak tag never matches. The tag of the
    definition as JSON counts as the draft's. Tags without quotes, as users type them, are accepted, too.
    """
    header = request.headers.get("If-Match", "").strip()
    if not header:
        return None
    if header == "*":
        return ANY
    commits = {tag.removesuffix(JSON_TAG) for weak, tag in _tags(header) if not weak}
    return draft if draft is not None and draft in commits else _NO_COMMIT


def not_modified(request: Request, tag: str) -> bool:
    """Return whether If-None-Match contains `tag` (with its quotes), by weak comparison."""
    header = request.headers.get("If-None-Match", "").strip()
    return header == "*" or tag.strip('"') in {found for _, found in _tags(header)}


def _tags(header: str) -> Iterator[tuple[bool, str]]:
    """Yield (weak, tag) for each tag of a list; nothing for a malformed list."""
    at, found = 0, []
    while item := _ITEM.match(header, at):
        found.append((item[1] is not None, item[2] if item[2] is not None else item[3]))
        at = item.end()
    end = _END.match(header, at)
    if end is not None and end.end() == len(header):
        yield from found
