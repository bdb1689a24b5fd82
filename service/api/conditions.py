"""If-Match and If-None-Match (RFC 9110 section 13.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from flask import Request

from gitstore.store import ANY

JSON_TAG: Final = "-json"
"""What the ETag of a definition as JSON ends in, where it is not stored as JSON."""

_ITEM: Final = re.compile(r'[ \t,]*+(?:(W/)?"([^"]*+)"|([^ \t,"]++))[ \t]*+(?=,|$)')
_END: Final = re.compile(r"[ \t,]*+")
_NO_COMMIT: Final = "another"


def expected(request: Request, draft: str | None) -> str | None:
    """What If-Match expects of the draft, whose commit is `draft` now: a commit, ANY, or None if not sent.

    By strong comparison: a weak tag never matches. The tag of the definition as JSON is taken for the
    draft's. Tags without quotes, as people type them, are taken, too.
    """
    header = request.headers.get("If-Match", "").strip()
    if not header:
        return None
    if header == "*":
        return ANY
    commits = {tag.removesuffix(JSON_TAG) for weak, tag in _tags(header) if not weak}
    return draft if draft is not None and draft in commits else _NO_COMMIT


def not_modified(request: Request, tag: str) -> bool:
    """Whether If-None-Match names `tag` (with its quotes), by weak comparison."""
    header = request.headers.get("If-None-Match", "").strip()
    return header == "*" or tag.strip('"') in {found for _, found in _tags(header)}


def _tags(header: str) -> Iterator[tuple[bool, str]]:
    """(weak, tag) for each tag of a list; none at all, where the list is damaged."""
    at, found = 0, []
    while item := _ITEM.match(header, at):
        found.append((item[1] is not None, item[2] if item[2] is not None else item[3]))
        at = item.end()
    end = _END.match(header, at)
    if end is not None and end.end() == len(header):
        yield from found
