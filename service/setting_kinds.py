"""Kinds of values of settings: how a text is parsed, and what is expected instead of an invalid one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from webhooks.secrets import keys_in

_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_SIZE: Final = re.compile(r"(\d++)\s*+([kmg]?)(?:ib)?", re.IGNORECASE | re.ASCII)
_BIND: Final = re.compile(r"(\[[0-9A-Fa-f:.]++\]|[^\s:/@]++):(\d{1,5})", re.ASCII)
_TOKEN: Final = re.compile(r"[!-~]{16,200}", re.ASCII)
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 (as settings contain them)


@dataclass(frozen=True, slots=True)
class Bind:
    """Listening address of the service. Port 0 is any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """URL of the service on this machine."""
        host = _ANYWHERE.get(self.host) or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Kind:
    """Kind of value: `read` parses it or raises ValueError, `expected` describes it."""

    read: Callable[[str], Any]
    expected: str
    secret: bool = False
    flag: bool = False
    """Whether the option takes no value."""


def number(low: int, high: int, noun: str = "a number") -> Kind:
    def read(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return Kind(read, f"{noun} from {low} to {high}")


def one_of(*choices: str) -> Kind:
    def read(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(text)
        return text.lower()

    return Kind(read, f"{', '.join(choices[:-1])} or {choices[-1]}")


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * _UNITS[match[2].lower()] if match else 0
    if not 1 <= size <= 2**40:
        raise ValueError(text)
    return size


def folder(text: str) -> Path:
    try:
        path = Path(text).expanduser().resolve()
    except (OSError, RuntimeError) as error:  # a loop of links; no such user
        raise ValueError(text) from error
    if path.exists() and not path.is_dir():
        raise ValueError(text)
    return path


def file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError(text)
    return path.resolve()


def bind(text: str) -> Bind:
    match = _BIND.fullmatch(text)
    if match is None or int(match[2]) > 65535:
        raise ValueError(text)
    return Bind(match[1].strip("[]"), int(match[2]))


def http_url(text: str) -> str:
    parts = urlsplit(text)  # raises ValueError
    _ = parts.port
    bare = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
    if not bare or "@" in parts.netloc or re.search(r"\s", text):
        raise ValueError(text)
    return text.rstrip("/")


def _database_url(text: str) -> str:
    import psycopg.conninfo  # imported only if used: `serve` starts its children sooner

    try:
        parameters = psycopg.conninfo.conninfo_to_dict(text)  # libpq's own parser
    except psycopg.Error as error:
        raise ValueError("not a connection string") from error
    if not parameters:
        raise ValueError("no parameters")
    return text


def token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError("too short, or not valid in a header")
    return text


def secret_key(text: str) -> str:
    keys_in(text)
    return text


DATABASE: Final = Kind(
    _database_url,
    "a Postgres connection string, such as postgresql://user:password@host:5432/database",
    secret=True,
)
FLAG: Final = Kind({"true": True, "false": False}.__getitem__, "true or false", flag=True)
SIZE: Final = Kind(_size, "a size up to 1024 GiB, such as 16777216, 16M or 16MiB")
