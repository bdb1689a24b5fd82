"""The commands that precede the pack of a push, read within limits (gitprotocol-pack(5)).

All of it is untrusted: a compressed body of some kilobytes may hold lines for hours, or names of gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dulwich.errors import GitProtocolError
from dulwich.protocol import Protocol

from gitstore.errors import MalformedError, too_large
from gitstore.policy import Command

ZERO: Final = b"0" * 40

_OID: Final = re.compile(rb"[0-9a-f]{40}")
_MOST_REF: Final = 1024  # bytes of a ref's name: valid ones have less than 100
_MOST_LINE: Final = 512  # bytes allowed before the pack for each ref, `shallow` lines included
_SMALL: Final = 256 * 1024  # bytes allowed in any case


@dataclass(frozen=True, slots=True)
class Request:
    """The commands of a push; `shallow` means that the pusher's clone lacks history."""

    commands: tuple[Command, ...]
    capabilities: frozenset[bytes]
    shallow: bool


def read_request(read: Callable[[int], bytes], most: int) -> Request | None:
    """Read the commands of a push, up to the pack. Return None for git's empty probe.

    Raises `malformed` if it is not a push, `too_large` for more than `most` commands, or for more bytes than
    so many take: a compressed body may hold `shallow` lines for hours.
    """
    protocol = Protocol(read, lambda _: None)
    commands: list[Command] = []
    capabilities: frozenset[bytes] = frozenset()
    shallow = False
    size, largest = 0, _SMALL + most * _MOST_LINE
    try:
        while (line := protocol.read_pkt_line()) is not None:
            size += len(line)
            if size > largest:
                raise too_large("what comes before the pack has more than", largest, largest)
            if line.startswith(b"shallow "):
                shallow = True
                continue
            line, _, offered = line.partition(b"\0")
            if not commands:
                capabilities = frozenset(offered.split())
            commands.append(_command(line.rstrip(b"\n")))
            if len(commands) > most:
                raise too_large("the push names more than", len(commands), most, unit="refs")
    except (GitProtocolError, ValueError, OSError) as error:
        raise MalformedError("this is no git push: a packet is damaged or cut short") from error
    return Request(tuple(commands), capabilities, shallow) if commands else None


def _command(line: bytes) -> Command:
    old, _, rest = line.partition(b" ")
    new, _, ref = rest.partition(b" ")
    if not (_OID.fullmatch(old) and _OID.fullmatch(new) and ref):
        raise MalformedError("this is no git push: a command is not `<old> <new> <ref>`")
    if len(ref) > _MOST_REF:
        raise MalformedError(f"a ref's name is longer than {_MOST_REF:,} bytes")
    return Command(ref, None if old == ZERO else old, None if new == ZERO else new)
