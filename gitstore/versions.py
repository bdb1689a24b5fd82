"""The grammar of slugs and versions, the ids derived from them, and the next version number.

    slug     = [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?     not shaped like a UUID
    version  = "v" N      N = 1, 2, 3 ... without a leading zero, at most 2^31 - 1 (Postgres' integer)

A workflow's id is uuid5(project id, slug); a version's is uuid5(workflow id, "v<N>"). The ids can therefore
be derived from the repository alone.
"""

from __future__ import annotations

import re
from uuid import UUID, uuid5

from gitstore.definition.quoting import clip
from gitstore.errors import Code, GitstoreError

SLUG_PATTERN = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HIGHEST_NUMBER = 2**31 - 1

SLUG_RULE = "1 to 63 of a-z, 0-9 and '-', no '-' at either end, and not the shape of a UUID"
"""The slug grammar as shown in messages."""

_SLUG = re.compile(SLUG_PATTERN)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")


def is_slug(text: str) -> bool:
    """Return whether `text` is a valid slug of a workflow or a project."""
    return _SLUG.fullmatch(text) is not None and _UUID.fullmatch(text) is None


def check_slug(text: str) -> str:
    """Return `text`, or raise `invalid_name` with the slug grammar."""
    if not is_slug(text):
        raise GitstoreError(
            Code.INVALID_NAME,
            f"{clip(text)!r} is not a slug: use {SLUG_RULE}",
            slug=clip(text),
        )
    return text


def parse_number(text: str) -> int | None:
    """Return the number in `3`, or None if `text` is not a version number."""
    if _NUMBER.fullmatch(text) is None:
        return None
    number = int(text)
    return number if number <= HIGHEST_NUMBER else None


def parse_version(text: str) -> int | None:
    """Return the number in `v3` (the form of tags), or None."""
    return parse_number(text[1:]) if text.startswith("v") else None


def workflow_id(project: UUID, slug: str) -> UUID:
    return uuid5(project, slug)


def version_id(workflow: UUID, number: int) -> UUID:
    return uuid5(workflow, f"v{number}")


def next_number(latest: int, floor: int) -> int:
    """Return the number of the next version: above the latest, and above every number ever given out."""
    return max(latest, floor) + 1
