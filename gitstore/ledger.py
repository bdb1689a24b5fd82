"""The ledger of a workflow: refs/ledger/<slug>, a chain of commits that only gitstore appends to.

An entry is a commit on the empty tree. Its author is the authenticated principal, its committer date the
server's clock. The message consists of a subject line for people, an optional reason (any text), and a last
paragraph of trailers (git-interpret-trailers(1)). Only the reason and the trailers are parsed:

    Published order-sync v3

    Ship the new warehouse

    Gitstore-Event: published
    Gitstore-Version: v3                  published, current-moved
    Gitstore-Object: <id>                 published: the object id in the tag; for a draft: its head
    Gitstore-Tagger: Ann <ann@a.example>  published, if imported from upstream: the tagger there
    Gitstore-Tagged: 2026-01-31T12:00:00+00:00                           and the time of tagging
    Gitstore-After: v2                    published, if it left a gap: the latest version before
    Gitstore-Rules: schema                published: the rules that judged it
    Gitstore-Schema: <id>                 and the commit of the project's schema, if there was one
    Gitstore-Invalid: "1 problem: ..."     published, if imported with errors: what they are, as JSON
    Gitstore-External-Ids: <uuid> ...     published, draft-imported: ids in another system
    Gitstore-Published-At: <time>         published in another system, by the tagger, at this time
    Gitstore-Created-At: <time>           published, created: the time of creation in another system
    Gitstore-Name: "Order sync"           created, described: as JSON; else the definition's name counts
    Gitstore-Description: "..."           created, described: likewise
    Gitstore-Issuer: "https://id.example" the issuer of a user who is the author, as JSON
    Gitstore-Subject: "..."               and the user's id there; name and address may change
    Gitstore-On-Behalf-Of: "..."          the user for whom the author, a program, acts
    Gitstore-Request: "..."               the id of the request, as in the log and the audit log, as JSON
    Gitstore-Environment: prod            environment-moved, environment-removed
    Gitstore-Title: "..."                 version-annotated: as JSON; absent without a title
    Gitstore-Notes: "..."                 version-annotated: likewise
    Gitstore-Renamed: <slug>              renamed: the slug of the workflow from then on
    Gitstore-Release: <name>              the release that the entry belongs to
    Gitstore-Schedule: <uuid>             the schedule that the entry carries out
    Gitstore-From: staging                of a promotion: the environment that had the version
    Gitstore-Rollback: yes                the release was rolled back
    Gitstore-Saved: yes                   published: the draft was saved in the same write
    Gitstore-Latest: v3                   the state after this entry, so that the newest entry is sufficient:
    Gitstore-Current: v3                  "none" if unset
    Gitstore-Held: no
    Gitstore-Environments: prod=v3 staging=v4:90,v3:10,held    the others are absent if they are empty:
    Gitstore-Yanked: v1 v2                by name; the first of two versions has its weight in percent
    Gitstore-Archived: yes
    Gitstore-Former: orders:v3 sales:none the slugs that it had, and the latest version under each

An entry is written just before its ref. A publishing entry counts once the tag holds its object id. An entry
left behind by a kill never counts, and the next entry records the actual state.

A later version of gitstore may write other kinds of events. An entry of an unknown kind counts, and its state
is taken over; its other trailers are skipped. The state in an entry of a new kind must therefore hold as soon
as the entry is written. A process of an older gitstore would drop state that it does not know: later kinds
are written only from their feature level on (`LEVELS`), which no older process serves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from dulwich.objects import Commit, Tree

from gitstore.errors import Code, ConflictError, IntegrityError
from gitstore.git.commits import ident, new_commit, person, text, utc
from gitstore.git.objects import Objects
from gitstore.model import Actor, Environment, FormerName, LedgerEntry, LedgerKind, Person, Rules
from gitstore.names import parse_version

COMMITTER = Person("gitstore", "gitstore@localhost")
EMPTY_TREE = Tree()

_PREFIX = "Gitstore-"
_NONE = "none"
_SUBJECTS = {
    LedgerKind.CREATED: "Created {slug}",
    LedgerKind.DESCRIBED: "Described {slug}",
    LedgerKind.PUBLISHED: "Published {slug} {version}",
    LedgerKind.CURRENT: "{verb} current of {slug} to {version}",
    LedgerKind.CLEARED: "Cleared current of {slug}",
    LedgerKind.DISCARDED: "Discarded the draft of {slug}",
    LedgerKind.RESTORED: "Restored the draft of {slug}",
    LedgerKind.IMPORTED: "Imported the draft of {slug}",
    LedgerKind.POINTED: "{verb} {environment} of {slug} to {version}",
    LedgerKind.UNPOINTED: "Removed {environment} of {slug}",
    LedgerKind.YANKED: "Yanked {slug} {version}",
    LedgerKind.UNYANKED: "Took back the yank of {slug} {version}",
    LedgerKind.ANNOTATED: "Annotated {slug} {version}",
    LedgerKind.ARCHIVED: "Archived {slug}",
    LedgerKind.UNARCHIVED: "Unarchived {slug}",
    LedgerKind.RENAMED: "Renamed {slug} to {renamed}",
}
LEVELS = dict.fromkeys(
    (
        LedgerKind.POINTED,
        LedgerKind.UNPOINTED,
        LedgerKind.YANKED,
        LedgerKind.UNYANKED,
        LedgerKind.ANNOTATED,
        LedgerKind.ARCHIVED,
        LedgerKind.UNARCHIVED,
        LedgerKind.RENAMED,
    ),
    2,
)
"""The feature level from which on a kind of entry may be written; 0 if it is not listed."""
_RULES = {rules.value: rules for rules in Rules}
_KINDS = {kind.value: kind for kind in LedgerKind}


def compose(slug: str, entry: LedgerEntry) -> Commit:
    """Return the commit that records `entry` (ignoring its `oid`) on top of `entry.parent`."""
    actor = entry.actor if isinstance(entry.actor, Actor) else Actor(entry.actor.name, entry.actor.email)
    trailers: dict[str, str | None] = {
        "Event": entry.kind,
        "Version": _show(entry.version) if entry.version is not None else None,
        "Object": entry.target,
        "Tagger": ident(entry.tagger).decode() if entry.tagger is not None else None,
        "Tagged": _time(entry.tagged_at),
        "After": _show(entry.after or None) if entry.after is not None else None,
        "Rules": entry.rules,
        "Schema": entry.schema,
        "Invalid": _quote(entry.invalid),
        "External-Ids": " ".join(map(str, entry.external_ids)) or None,
        "Published-At": _time(entry.published_at),
        "Created-At": _time(entry.created_at),
        "Name": _quote(entry.name),
        "Description": _quote(entry.description or None),
        "Issuer": _quote(actor.issuer),
        "Subject": _quote(actor.subject),
        "On-Behalf-Of": _quote(actor.on_behalf_of),
        "Request": _quote(actor.request),
        "Environment": entry.environment,
        "Title": _quote(entry.title),
        "Notes": _quote(entry.notes),
        "Renamed": entry.renamed,
        "Release": entry.release,
        "Schedule": str(entry.schedule) if entry.schedule is not None else None,
        "From": entry.promoted_from,
        "Rollback": "yes" if entry.rolled_back else None,
        "Saved": "yes" if entry.saved else None,
        "Latest": _show(entry.latest or None),
        "Current": _show(entry.current),
        "Held": "yes" if entry.held else "no",
        "Environments": " ".join(map(_show_environment, entry.environments)) or None,
        "Yanked": " ".join(map(_show, entry.yanked)) or None,
        "Archived": "yes" if entry.archived else None,
        "Former": " ".join(f"{name.slug}:{_show(name.latest or None)}" for name in entry.former) or None,
    }
    block = "\n".join(f"{_PREFIX}{key}: {value}" for key, value in trailers.items() if value is not None)
    reason = entry.message.strip()
    paragraphs = [_subject(slug, entry), *([reason] if reason else []), block]
    return new_commit(
        tree=EMPTY_TREE.id,
        parents=[entry.parent.encode()] if entry.parent else [],
        author=entry.actor,
        committer=COMMITTER,
        when=entry.when,
        message="\n\n".join(paragraphs),
    )


def parse(commit: Commit) -> LedgerEntry:
    """Parse an entry. Raises `integrity` for a commit that gitstore did not write."""
    oid = commit.id.decode()
    paragraphs = text(commit.message).rstrip("\n").split("\n\n")
    lines = [line.partition(": ") for line in paragraphs[-1].split("\n")]
    trailers = {key.removeprefix(_PREFIX): value for key, _, value in lines}
    try:
        entry = LedgerEntry(
            oid=oid,
            parent=commit.parents[0].decode() if commit.parents else None,
            kind=trailers["Event"],
            actor=person(commit.author),
            when=utc(commit.commit_time),
            message="\n\n".join(paragraphs[1:-1]),
            latest=_number(trailers["Latest"]) or 0,
            current=_number(trailers["Current"]),
            held=trailers["Held"] == "yes",
            environments=tuple(map(_environment, trailers.get("Environments", "").split())),
            yanked=tuple(_some_number(shown) for shown in trailers.get("Yanked", "").split()),
            archived="Archived" in trailers,
            former=tuple(map(_former, trailers.get("Former", "").split())),
        )
        if (kind := _KINDS.get(entry.kind)) is None:
            return entry
        return replace(
            entry,
            kind=kind,
            actor=actor_of(entry.actor, trailers),
            version=_number(trailers.get("Version", _NONE)),
            target=trailers.get("Object"),
            name=_unquote(trailers.get("Name")),
            description=_unquote(trailers.get("Description")),
            after=_number(trailers["After"]) or 0 if "After" in trailers else None,
            invalid=_unquote(trailers.get("Invalid")),
            tagger=person(trailers["Tagger"].encode()) if "Tagger" in trailers else None,
            tagged_at=_parsed_time(trailers.get("Tagged")),
            external_ids=tuple(map(UUID, trailers.get("External-Ids", "").split())),
            published_at=_parsed_time(trailers.get("Published-At")),
            created_at=_parsed_time(trailers.get("Created-At")),
            rules=_RULES.get(trailers.get("Rules", "")),
            schema=trailers.get("Schema"),
            environment=trailers.get("Environment"),
            title=_unquote(trailers.get("Title")),
            notes=_unquote(trailers.get("Notes")),
            renamed=trailers.get("Renamed"),
            release=trailers.get("Release"),
            schedule=UUID(trailers["Schedule"]) if "Schedule" in trailers else None,
            promoted_from=trailers.get("From"),
            rolled_back="Rollback" in trailers,
            saved="Saved" in trailers,
        )
    except (KeyError, ValueError) as error:
        raise IntegrityError(
            f"{oid} is not a ledger entry written by gitstore: run gitstore verify", oid=oid
        ) from error


def walk(objects: Objects, tip: bytes | None) -> Iterator[LedgerEntry]:
    """Yield every entry from `tip` back to the first, newest first."""
    while tip is not None:
        entry = parse(objects.commit(tip))
        yield entry
        tip = entry.parent.encode() if entry.parent else None


def draft_entry(
    previous: LedgerEntry | None, parent: str | None, kind: LedgerKind, actor: Person, when: datetime
) -> LedgerEntry:
    """Return an entry of `kind` that keeps the state of `previous` (the newest counting entry) unchanged.

    `parent` is the tip of the chain, which may contain entries that do not count. Adjust the result with
    `dataclasses.replace`.
    """
    return LedgerEntry(
        oid="",
        parent=parent,
        kind=kind,
        actor=actor,
        when=when,
        message="",
        latest=previous.latest if previous else 0,
        current=previous.current if previous else None,
        held=previous.held if previous else False,
        environments=previous.environments if previous else (),
        yanked=previous.yanked if previous else (),
        archived=previous.archived if previous else False,
        former=previous.former if previous else (),
    )


def check_level(kind: LedgerKind, level: int) -> None:
    """Raise `upgrade_unfinished` if entries of `kind` may not be written at the feature level `level`."""
    require_level(LEVELS.get(kind, 0), level)


def require_level(wanted: int, level: int) -> None:
    """Raise `upgrade_unfinished` if the feature level `level` is below `wanted`."""
    if level < wanted:
        raise ConflictError(
            Code.UPGRADE_UNFINISHED,
            "processes of an older gitstore may still run: an operator finishes the upgrade with "
            "gitstore migrate --finish, then try again",
        )


def _subject(slug: str, entry: LedgerEntry) -> str:
    if not isinstance(entry.kind, LedgerKind):
        raise ValueError(f"an entry of the unknown kind {entry.kind!r} cannot be written")  # noqa: TRY004
    held, version = entry.held, _show(entry.version)
    for environment in entry.environments:
        if entry.kind is LedgerKind.POINTED and environment.name == entry.environment:
            held, version = environment.held, show_pointer(environment)
    verb = "Held" if held else "Moved"
    return _SUBJECTS[entry.kind].format(
        slug=slug, version=version, verb=verb, environment=entry.environment, renamed=entry.renamed
    )


def _show_environment(environment: Environment) -> str:
    return f"{environment.name}={show_pointer(environment)}{',held' if environment.held else ''}"


def show_pointer(environment: Environment) -> str:
    """Return the version of a pointer, or its versions with their weights, as text."""
    if environment.second is None:
        return _show(environment.version)
    first, second = environment.weight, 100 - environment.weight
    return f"v{environment.version}:{first},v{environment.second}:{second}"


def _former(shown: str) -> FormerName:
    slug, _, latest = shown.partition(":")
    return FormerName(slug, _number(latest) or 0)


def _environment(shown: str) -> Environment:
    name, _, value = shown.partition("=")
    parts = value.split(",")
    held = parts[-1] == "held"
    versions = [part.partition(":") for part in (parts[:-1] if held else parts)]
    numbers = [_some_number(version) for version, _, _ in versions]
    if len(numbers) == 1:
        return Environment(name, numbers[0], held=held)
    first, second = numbers
    return Environment(name, first, int(versions[0][2]), second, held)


def _show(number: int | None) -> str:
    return _NONE if number is None else f"v{number}"


def _number(shown: str) -> int | None:
    if shown == _NONE:
        return None
    number = parse_version(shown)
    if number is None:
        raise ValueError(shown)
    return number


def _some_number(shown: str) -> int:
    number = _number(shown)
    if number is None:
        raise ValueError(shown)
    return number


def _time(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()


def _parsed_time(shown: str | None) -> datetime | None:
    return None if shown is None else datetime.fromisoformat(shown)


def trailers_of(actor: Person) -> list[tuple[str, str]]:
    """Return the trailers about an author that has more than name and address."""
    if not isinstance(actor, Actor):
        return []
    facts = {"Issuer": actor.issuer, "Subject": actor.subject, "On-Behalf-Of": actor.on_behalf_of}
    return [(name, json.dumps(value, ensure_ascii=False)) for name, value in facts.items() if value]


def actor_of(known: Person, trailers: dict[str, str]) -> Person:
    """Return the author of an entry: an Actor if the trailers have more than name and address."""
    facts = [_unquote(trailers.get(name)) for name in ("Issuer", "Subject", "On-Behalf-Of", "Request")]
    return Actor(known.name, known.email, *facts) if any(facts) else known


def _quote(value: str | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _unquote(value: str | None) -> str | None:
    return None if value is None else str(json.loads(value))
