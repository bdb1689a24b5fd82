"""The request of a push up to its pack: commands and push options, read within limits (gitprotocol-pack(5)).

All of it is untrusted: a compressed body of some kilobytes may hold lines for hours, or names of gigabytes.

A push option is `git push -o name=value`; `OPTIONS` is the table of them. An unknown option is ignored and
reported to the pusher, as options are often set once for every remote (`push.pushOption` in git's
configuration).

A push is applied in slices, each of which is one unit of work under the locks of its own workflows. A
non-atomic push need not lock all of its workflows at once: it locks them in the order of their slugs, a slice
at a time, and other writers wait no longer than one slice takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from dulwich.errors import GitProtocolError
from dulwich.protocol import Protocol

from gitstore import names
from gitstore.definition.quoting import clip
from gitstore.errors import GitstoreError, IntegrityError, MalformedError, too_large
from gitstore.names import VersionRef
from gitstore.policy import DISCARD_OPTION, Command

ZERO: Final = b"0" * 40
CAPABILITY: Final = b"push-options"

_OID: Final = re.compile(rb"[0-9a-f]{40}")
_MOST_REF: Final = 1024  # bytes of a ref's name: valid ones have less than 100
_MOST_LINE: Final = 512  # bytes allowed before the pack for each ref, `shallow` lines included
_SMALL: Final = 256 * 1024  # bytes allowed in any case
_MOST_OPTIONS: Final = 32
_LONGEST_OPTION: Final = 1024  # bytes
_ECHOED: Final = 99  # characters of a pusher's option that a message repeats
_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Request:
    """The commands of a push; `shallow` means that the pusher's clone lacks history."""

    commands: tuple[Command, ...]
    capabilities: frozenset[bytes]
    shallow: bool


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise ValueError(text)
    return int(text)


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `read` converts the text after "="; it raises ValueError unless the text is `expected`."""

    name: str
    expected: str
    meaning: str
    read: Callable[[str], int | bool | str]


DISCARD: Final = Option(
    DISCARD_OPTION,
    "<count>",
    "The push discards exactly this many drafts; other updates may accompany them.",
    _count,
)
ACTIVATE: Final = Option(
    "gitstore.activate",
    "<true or false>",
    "Whether the published versions become current; true by default.",
    {"true": True, "false": False}.__getitem__,
)
MESSAGE: Final = Option(
    "gitstore.message",
    "<text>",
    "The reason that the ledger records, and the message of a version whose tag has none of its own.",
    str,
)
OPTIONS: Final = (DISCARD, ACTIVATE, MESSAGE)


@dataclass(frozen=True, slots=True)
class PushOptions:
    """The options of one push: `discard` is the announced count of discards, or None.

    `ignored` are the unknown options, in printable form.
    """

    discard: int | None = None
    ignored: tuple[str, ...] = ()
    activate: bool = True
    message: str = ""


def read_request(read: Callable[[int], bytes], most: int) -> Request | None:
    """Read the commands of a push, up to the pack. Return None for git's empty probe.

    Raises `malformed` if it is not a push, `too_large` for more than `most` commands, or for more bytes than
    so many take: a compressed body may hold `shallow` lines for hours.
    """
    commands: list[Command] = []
    capabilities: frozenset[bytes] = frozenset()
    shallow = False
    size, largest = 0, _SMALL + most * _MOST_LINE
    for line in _packets(read, "malformed or truncated pkt-line"):
        size += len(line)
        if size > largest:
            raise too_large("what comes before the pack has more than", largest, largest)
        if line.startswith(b"shallow "):
            shallow = True
            continue
        command, _, offered = line.partition(b"\0")
        if not commands:
            capabilities = frozenset(offered.split())
        commands.append(_command(command.rstrip(b"\n")))
        if len(commands) > most:
            error = too_large("the push names at least", len(commands), most, unit="refs")
            raise error.reworded(f"{error.message}: name those to push, as in git push origin <branch> <tag>")
    return Request(tuple(commands), capabilities, shallow) if commands else None


def read_options(read: Callable[[int], bytes]) -> PushOptions:
    """Read the section of options, up to its flush packet; of an option given twice, the last counts.

    Raises `malformed` for a damaged section, for more or longer options than are accepted, for unprintable
    ones, and for a value that a known option does not take.
    """
    lines: list[bytes] = []
    for packet in _packets(read, "malformed or truncated push options"):
        line = packet.removesuffix(b"\n")
        if len(lines) == _MOST_OPTIONS or len(line) > _LONGEST_OPTION:
            limits = f"{_MOST_OPTIONS} push options of at most {_LONGEST_OPTION:,} bytes each"
            raise MalformedError(f"a push takes at most {limits}")
        lines.append(line)
    values: dict[str, Any] = {}
    ignored: list[str] = []
    known = {option.name: option for option in OPTIONS}
    for text in map(_text, lines):
        name, _, value = text.partition("=")
        option = known.get(name)
        if option is None:
            ignored.append(clip(text, _ECHOED))
            continue
        try:
            values[name] = option.read(value)
        except (ValueError, KeyError):
            expected = f"{name}={option.expected}"
            raise MalformedError(f"push option {clip(text, _ECHOED)!r}: expected {expected}") from None
    return PushOptions(
        values.get(DISCARD.name),
        tuple(ignored),
        activate=values.get(ACTIVATE.name, True),
        message=values.get(MESSAGE.name, "").strip(),
    )


def _packets(read: Callable[[int], bytes], fault: str) -> Iterator[bytes]:
    """Yield the packets up to a flush packet. Raises `malformed` with the reason `fault`."""
    protocol = Protocol(read, lambda _: None)
    try:
        while (line := protocol.read_pkt_line()) is not None:
            yield line
    except (GitProtocolError, ValueError, OSError) as error:
        raise MalformedError(f"not a git push: {fault}") from error


def _command(line: bytes) -> Command:
    old, _, rest = line.partition(b" ")
    new, _, ref = rest.partition(b" ")
    if not (_OID.fullmatch(old) and _OID.fullmatch(new) and ref):
        raise MalformedError("not a git push: a command is not `<old> <new> <ref>`")
    if len(ref) > _MOST_REF:
        raise MalformedError(f"a ref's name is longer than {_MOST_REF:,} bytes")
    return Command(ref, None if old == ZERO else old, None if new == ZERO else new)


def _text(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    if not text.isprintable():
        raise MalformedError("a push option contains unprintable characters")
    return text


# Slices

MOST_WORKFLOWS: Final = 64
MOST_COMMANDS: Final = 256
"""Limit of one slice: some 100 ms of work, which bounds the wait for a workflow's lock."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Commands of a push, and the workflows that they affect, sorted."""

    slugs: tuple[str, ...]
    commands: tuple[Command, ...]

    def without_contradiction(self, fault: GitstoreError) -> Slice | None:
        """Return the rest if rows and Git contradict each other on one of several workflows, else None."""
        slug = fault.workflow if isinstance(fault, IntegrityError) else None
        if slug not in self.slugs or len(self.slugs) == 1:
            return None
        rest = [c for c in self.commands if (ref := names.parse(c.ref)) is None or ref.slug != slug]
        return Slice(tuple(other for other in self.slugs if other != slug), tuple(rest))


def divide(commands: Iterable[Command]) -> list[Slice]:
    """Return the slices of `commands` ordered by (slug, number), without commands that name no workflow.

    The versions of one workflow may take several slices. The command on its draft is in each of them, because
    it decides whether publishing moves the draft.
    """
    slices: list[Slice] = []
    slugs: list[str] = []
    taken: list[Command] = []
    for slug, part in _parts(commands):
        if taken and (len(slugs) == MOST_WORKFLOWS or len(taken) + len(part) > MOST_COMMANDS):
            slices.append(Slice(tuple(slugs), tuple(taken)))
            slugs, taken = [], []
        slugs.append(slug)
        taken += part
    return [*slices, Slice(tuple(slugs), tuple(taken))] if taken else slices


def _parts(commands: Iterable[Command]) -> Iterator[tuple[str, list[Command]]]:
    """Yield (slug, commands), each small enough for a slice."""
    keyed = [
        (target.slug, target.number if isinstance(target, VersionRef) else 0, command)
        for command in commands
        if (target := names.parse(command.ref)) is not None
    ]
    keyed.sort(key=lambda item: item[:2])
    for slug, group in groupby(keyed, key=lambda item: item[0]):
        drafts: list[Command] = []
        tags: list[Command] = []
        for _, number, command in group:
            (tags if number else drafts).append(command)
        size = MOST_COMMANDS - len(drafts)
        for start in range(0, max(len(tags), 1), size):
            yield slug, [*drafts, *tags[start : start + size]]
