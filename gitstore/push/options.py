"""Push options: `git push -o name=value` (gitprotocol-pack(5)). `OPTIONS` is the one table of them.

A pusher sends them after its commands, in a section of their own. An unknown option is ignored and reported
to the pusher, as options are often set once for every remote (`push.pushOption` in git's configuration).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dulwich.errors import GitProtocolError
from dulwich.protocol import Protocol

from gitstore.errors import MalformedError

CAPABILITY: Final = b"push-options"

_MOST: Final = 32  # options of one push
_LONGEST: Final = 1024  # bytes of one option
_SHOWN: Final = 100  # characters of a pusher's option that a message repeats
_DIGITS: Final = 9


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
    read: Callable[[str], int]


DISCARD: Final = Option(
    "gitstore.discard",
    "<count>",
    "The push discards exactly this many drafts; other updates may accompany them.",
    _count,
)
OPTIONS: Final = (DISCARD,)


@dataclass(frozen=True, slots=True)
class PushOptions:
    """The options of one push: `discard` is the announced count of discards, or None.

    `ignored` are the unknown options, in printable form.
    """

    discard: int | None = None
    ignored: tuple[str, ...] = ()


def read_options(read: Callable[[int], bytes]) -> PushOptions:
    """Read the section of options, up to its flush packet; of an option given twice, the last counts.

    Raises `malformed` for a damaged section, for more or longer options than are accepted, for unprintable
    ones, and for a value that a known option does not take.
    """
    protocol = Protocol(read, lambda _: None)
    lines: list[bytes] = []
    try:
        while (line := protocol.read_pkt_line()) is not None:
            line = line.removesuffix(b"\n")
            if len(lines) == _MOST or len(line) > _LONGEST:
                limits = f"{_MOST} push options of at most {_LONGEST:,} bytes each"
                raise MalformedError(f"a push takes at most {limits}")
            lines.append(line)
    except (GitProtocolError, ValueError, OSError) as error:
        raise MalformedError("this is no git push: its push options are damaged or cut short") from error
    return _parsed([_text(line) for line in lines])


def _parsed(texts: Sequence[str]) -> PushOptions:
    values: dict[str, int] = {}
    ignored: list[str] = []
    known = {option.name: option for option in OPTIONS}
    for text in texts:
        name, _, value = text.partition("=")
        option = known.get(name)
        if option is None:
            ignored.append(_clip(text))
            continue
        try:
            values[name] = option.read(value)
        except ValueError:
            raise MalformedError(f"push option {_clip(text)!r}: expected {name}={option.expected}") from None
    return PushOptions(values.get(DISCARD.name), tuple(ignored))


def _text(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    if not text.isprintable():
        raise MalformedError("a push option holds characters that can't be printed")
    return text


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
