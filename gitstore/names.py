"""The grammar of slugs and versions, their ids, and all refs; the only module that spells ref names.

    slug     = [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?     not shaped like a UUID
    version  = "v" N      N = 1, 2, 3 ... without a leading zero, at most 2^31 - 1 (Postgres' integer)

    refs/heads/drafts/<slug>                  the draft of a workflow
    refs/tags/<slug>/v<N>                     a published version
    refs/ledger/<slug>                        the workflow's history, appended to by gitstore alone
    refs/superseded/<slug>/<time>             the kept head of a discarded draft
    refs/renamed/<slug>                       the ledger entry that gave the workflow <slug> another name
    refs/releases/<name>                      the release <name> of several workflows, immutable
    refs/gitstore/schema                      the JSON Schema of the project, with its history
    refs/gitstore/environments                the environments of the project, with their history
    refs/gitstore/pending/<id>                a write to several workflows that is decided and not complete

A workflow's id is uuid5(project id, its first slug); a version's is uuid5(workflow id, "v<N>"). The ids can
therefore be derived from the repository alone. Versions keep their tags when the workflow is renamed.

Ref names are bytes, as in Git; slugs and numbers are str and int, as everywhere above Git.
See git-check-ref-format(1) for the names that Git itself allows.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID, uuid5

from dulwich.refs import Ref, check_ref_format

from gitstore.definition.quoting import clip
from gitstore.errors import Code, GitstoreError

SLUG_PATTERN = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,95}\.(yaml|yml|json)$"
"""A name that a project may give to its definitions, besides `workflow.yaml`, `.yml` and `.json`."""
HIGHEST_NUMBER = 2**31 - 1

RELEASE_PATTERN = r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?"
RELEASE_RULE = (
    "1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit at either end, no '..' and no '.lock'"
)
"""The grammar of a release's name as shown in messages."""

SLUG_RULE = "1 to 63 of a-z, 0-9 and '-', no '-' at either end, and not the shape of a UUID"
"""The slug grammar as shown in messages."""

PREFIX = b"refs/"
DRAFTS = b"refs/heads/drafts/"
TAGS = b"refs/tags/"
LEDGERS = b"refs/ledger/"
SUPERSEDED = b"refs/superseded/"
RELEASES = b"refs/releases/"
RENAMED = b"refs/renamed/"
PENDING = b"refs/gitstore/pending/"
SCHEMA = b"refs/gitstore/schema"
ENVIRONMENTS = b"refs/gitstore/environments"
NO_REFS = b"refs/none/"
"""A prefix of no ref."""

_SLUG = re.compile(SLUG_PATTERN)
_RELEASE = re.compile(RELEASE_PATTERN)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_LONGEST_BASE = 54
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_LIKE_VERSION = re.compile(r"[vV][0-9]+")
_LONGEST_MISNAMED = 512
_PLAIN = re.compile(rb"refs(/[A-Za-z0-9-]+)+")
_TIME = "%Y%m%dT%H%M%S.%fZ"
_LONGEST_TIME = 32
_ACCEPTED = "refs/heads/drafts/<slug> (a draft) and refs/tags/<slug>/v<N> (a version)"


def is_slug(text: str) -> bool:
    """Return whether `text` is a valid slug of a workflow or a project."""
    return _SLUG.fullmatch(text) is not None and not is_uuid(text)


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def check_slug(text: str) -> str:
    """Return `text`, or raise `invalid_name` with the slug grammar."""
    if not is_slug(text):
        raise GitstoreError(
            Code.INVALID_NAME,
            f"{clip(text)!r} is not a slug: use {SLUG_RULE}",
            slug=clip(text),
        )
    return text


def check_release(text: str) -> str:
    """Return `text`, or raise `invalid_name` with the grammar of releases."""
    if _RELEASE.fullmatch(text) is None or not is_ref(release(text)):
        raise GitstoreError(
            Code.INVALID_NAME,
            f"{clip(text)!r} is not the name of a release: use {RELEASE_RULE}",
            release=clip(text),
        )
    return text


def slug_from(text: str, otherwise: str = "workflow") -> str:
    """Return `text` if it is a slug, and else a slug made from it, or from `otherwise` if nothing remains.

    It is always the same for the same text, and differs from those of other texts by a hash.
    """
    if is_slug(text):
        return text
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = _NOT_SLUG.sub("-", plain).strip("-")[:_LONGEST_BASE].strip("-")
    return f"{words or otherwise}-{sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


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


@dataclass(frozen=True, slots=True)
class DraftRef:
    """The branch that holds the draft of `slug`."""

    slug: str


@dataclass(frozen=True, slots=True)
class VersionRef:
    """The tag of version `number` of `slug`."""

    slug: str
    number: int


@dataclass(frozen=True, slots=True)
class MisnamedRef:
    """A ref that looks like a draft or a version and is none. `slug` is the text in the place of a slug."""

    name: bytes
    slug: str
    reason: str


def draft(slug: str) -> bytes:
    return DRAFTS + slug.encode()


def tag(slug: str, number: int) -> bytes:
    return tags_of(slug) + f"v{number}".encode()


def tags_of(slug: str) -> bytes:
    """Return the prefix of a workflow's version tags."""
    return TAGS + slug.encode() + b"/"


def ledger(slug: str) -> bytes:
    return LEDGERS + slug.encode()


def superseded(slug: str, when: datetime) -> bytes:
    """Return the ref that keeps the head of a draft discarded at `when` (UTC)."""
    return superseded_of(slug) + when.strftime(_TIME).encode()


def superseded_at(ref: bytes) -> datetime | None:
    """Return the discard time (UTC) from a superseded ref; None if `superseded` did not create that name."""
    _, _, time = ref.rpartition(b"/")
    if not ref.startswith(SUPERSEDED) or len(time) > _LONGEST_TIME:
        return None
    try:
        return datetime.strptime(show(time), _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def superseded_of(slug: str) -> bytes:
    """Return the prefix of a workflow's discarded drafts."""
    return SUPERSEDED + slug.encode() + b"/"


def renamed(slug: str) -> bytes:
    """Return the ref that records that a workflow is not called `slug` any more."""
    return RENAMED + slug.encode()


def release(name: str) -> bytes:
    return RELEASES + name.encode()


def release_of(ref: bytes) -> str | None:
    """Return the name of the release that `ref` holds; None for every other ref."""
    name = show(ref.removeprefix(RELEASES))
    return name if ref.startswith(RELEASES) and _RELEASE.fullmatch(name) else None


def pending(identity: str) -> bytes:
    return PENDING + identity.encode()


def slug_of(ref: bytes) -> str | None:
    """Return the workflow that `ref`, of any kind, belongs to; None for every other ref."""
    for prefix in (DRAFTS, TAGS, LEDGERS, SUPERSEDED, RENAMED):
        if ref.startswith(prefix):
            slug = show(ref.removeprefix(prefix)).partition("/")[0]
            return slug if is_slug(slug) else None
    return None


def is_ref(name: bytes) -> bool:
    """Return whether `name` is a valid ref name: git-check-ref-format(1), below refs/."""
    if _PLAIN.fullmatch(name):
        return True  # the common case; the full check examines each byte and is slow
    return name.startswith(PREFIX) and check_ref_format(Ref(name))


def parse(ref: bytes) -> DraftRef | VersionRef | None:
    """Parse a ref that users may write; return None for every other ref."""
    try:
        text = ref.decode("ascii")
    except UnicodeDecodeError:
        return None
    if ref.startswith(DRAFTS):
        slug = text[len(DRAFTS) :]
        return DraftRef(slug) if is_slug(slug) else None
    if ref.startswith(TAGS):
        slug, _, version = text[len(TAGS) :].partition("/")
        number = parse_version(version)
        return VersionRef(slug, number) if is_slug(slug) and number is not None else None
    return None


def misnamed(ref: bytes) -> MisnamedRef | None:
    """Return the ref and what is wrong with its name if it only looks like a draft or a version.

    A tag looks like a version if its last part is v or V and digits: `Order-Sync/v1`, `x/V1`, `x/v01`.
    """
    if len(ref) > _LONGEST_MISNAMED or parse(ref) is not None or not is_ref(ref):
        return None
    if ref.startswith(DRAFTS):
        slug, version = show(ref[len(DRAFTS) :]), ""
    else:
        slug, _, version = show(ref[len(TAGS) :]).rpartition("/")
        if not (ref.startswith(TAGS) and slug and _LIKE_VERSION.fullmatch(version)):
            return None
    if is_slug(slug):
        wrong = f"{clip(version)!r} is not a version: use v1 to v{HIGHEST_NUMBER}, without a leading zero"
    else:
        wrong = f"{clip(slug)!r} is not a slug: use {SLUG_RULE}"
    return MisnamedRef(ref, slug, wrong)


def accepted_instead(ref: bytes) -> str:
    """Describe the refs that users may write, for a refusal of `ref`; with the slug grammar if relevant."""
    if ref.startswith(RENAMED):
        return f"{_ACCEPTED}; a workflow is renamed over HTTP or in its settings on the page"
    if ref.startswith(RELEASES):
        return f"{_ACCEPTED}; gitstore release create makes a release, and no push changes one"
    if ref == SCHEMA:
        return f"{_ACCEPTED}; an owner sets the schema with gitstore project schema, or over HTTP"
    grammar = f"; a slug is {SLUG_RULE}" if ref.startswith((DRAFTS, TAGS)) else ""
    return _ACCEPTED + grammar


def full(ref: DraftRef | VersionRef) -> bytes:
    """Return the full ref name of a parsed ref; the inverse of `parse`."""
    return draft(ref.slug) if isinstance(ref, DraftRef) else tag(ref.slug, ref.number)


def show(ref: bytes) -> str:
    """Return a ref as text for people; bytes that are not UTF-8 are escaped."""
    return ref.decode("utf-8", "backslashreplace")


def short(ref: DraftRef | VersionRef) -> str:
    """Return the short form that git prints: `drafts/<slug>`, `<slug>/v<N>`."""
    return f"drafts/{ref.slug}" if isinstance(ref, DraftRef) else f"{ref.slug}/v{ref.number}"
