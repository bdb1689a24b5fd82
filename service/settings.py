"""Table of settings: name, meaning, and parser of each.

`service/config.py` reads them; a test compares the table in docs/operations.md with this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from webhooks.addresses import Allowed
from webhooks.secrets import keys_in

_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_SIZE: Final = re.compile(r"(\d+)\s*([kmg]?)(?:ib)?", re.IGNORECASE | re.ASCII)
_BIND: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@]+):(\d{1,5})", re.ASCII)
_TOKEN: Final = re.compile(r"[!-~]{16,200}", re.ASCII)
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 (what people write, not what we bind)


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
class Setting:
    """One environment variable. `read` parses its value, or raises ValueError; `expected` describes it."""

    name: str
    default: str
    meaning: str
    expected: str
    read: Callable[[str], Any]
    field: str
    secret: bool = False


# Parsers of values


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return read


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text)
    size = int(found[1]) * _UNITS[found[2].lower()] if found else 0
    if not 1 <= size <= 2**40:
        raise ValueError(text)
    return size


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(text)
        return text.lower()

    return read


def _folder(text: str) -> Path:
    try:
        path = Path(text).expanduser().resolve()
    except (OSError, RuntimeError) as error:  # a loop of links; no such user
        raise ValueError(text) from error
    if path.exists() and not path.is_dir():
        raise ValueError(text)
    return path


def _bind(text: str) -> Bind:
    found = _BIND.fullmatch(text)
    if found is None or int(found[2]) > 65535:
        raise ValueError(text)
    return Bind(found[1].strip("[]"), int(found[2]))


def _http_url(text: str) -> str:
    parts = urlsplit(text)  # raises ValueError
    _ = parts.port
    bare = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
    if not bare or "@" in parts.netloc or re.search(r"\s", text):
        raise ValueError(text)
    return text.rstrip("/")


def _database_url(text: str) -> str:
    try:
        found = conninfo_to_dict(text)  # libpq's own parser
    except psycopg.Error as error:
        raise ValueError("not a connection string") from error
    if not found:
        raise ValueError("it names nothing")
    return text


def _token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError("too short, or not to be sent in a header")
    return text


def _secret_key(text: str) -> str:
    keys_in(text)
    return text


_SIZES: Final = "a size up to 1024 GiB, such as 16777216, 16M or 16MiB"

SETTINGS: Final = (
    Setting(
        "DATABASE_URL",
        "",
        "The Postgres (15 or newer) to use, by a direct or session-pooled connection. Without it, gitstore "
        "runs its own in the data folder.",
        "a Postgres connection string, such as postgresql://user:password@host:5432/database",
        _database_url,
        "database_url",
        secret=True,
    ),
    Setting(
        "GITSTORE_DATA",
        "./gitstore-data",
        "The data folder: repositories, the embedded Postgres, the owner's token.",
        "a folder, or the name of one to make",
        _folder,
        "data",
    ),
    Setting(
        "GITSTORE_BIND",
        "127.0.0.1:8080",
        "Where the service listens. Port 0 is any free one.",
        "host:port, such as 127.0.0.1:8080, 0.0.0.0:80 or [::1]:8080",
        _bind,
        "bind",
    ),
    Setting(
        "GITSTORE_PUBLIC_URL",
        "",
        "The address under which people reach the service, for links and printed commands. Without it, "
        "the one that it listens on.",
        "an http or https URL without user, query or fragment, such as https://gitstore.example",
        _http_url,
        "given_public_url",
    ),
    Setting(
        "GITSTORE_WORKERS", "2", "Processes that serve.", "a number from 1 to 64", _whole(1, 64), "workers"
    ),
    Setting(
        "GITSTORE_THREADS",
        "4",
        "Requests that each process works on at once. One that waits for its client is not counted.",
        "a number from 1 to 64",
        _whole(1, 64),
        "threads",
    ),
    Setting(
        "GITSTORE_RECONCILE_SECONDS",
        "60",
        "How often the worker brings into Postgres what a crash left in Git alone.",
        "a number of seconds from 1 to 86400",
        _whole(1, 86_400),
        "reconcile_seconds",
    ),
    Setting(
        "GITSTORE_KEEP_DAYS",
        "30",
        "Days for which deliveries that have ended, with their attempts, and receipts of webhooks are kept.",
        "a number of days from 1 to 3650",
        _whole(1, 3650),
        "keep_days",
    ),
    Setting("GITSTORE_MAX_PACK", "16M", "Largest pack of a push, in bytes.", _SIZES, _size, "limits.pack"),
    Setting(
        "GITSTORE_MAX_PACK_OBJECTS",
        "100000",
        "Most objects in the pack of a push.",
        "a number from 1 to 100000000",
        _whole(1, 100_000_000),
        "limits.pack_objects",
    ),
    Setting(
        "GITSTORE_MAX_COMMANDS",
        "10000",
        "Most refs that one push may update.",
        "a number from 1 to 1000000",
        _whole(1, 1_000_000),
        "limits.commands",
    ),
    Setting(
        "GITSTORE_MAX_INFLATED",
        "64M",
        "Largest sum of a push's objects, inflated.",
        _SIZES,
        _size,
        "limits.inflated",
    ),
    Setting("GITSTORE_MAX_OBJECT", "4M", "Largest object of a push.", _SIZES, _size, "limits.object"),
    Setting(
        "GITSTORE_MAX_IMPORT",
        "1G",
        "Largest pack that is fetched from a source, in bytes. Its other limits follow from it.",
        _SIZES,
        _size,
        "max_import",
    ),
    Setting("GITSTORE_MAX_DEFINITION", "1M", "Largest definition.", _SIZES, _size, "limits.definition"),
    Setting(
        "GITSTORE_MAX_DEPTH",
        "64",
        "Deepest nesting of a definition.",
        "a number from 1 to 256",
        _whole(1, 256),
        "limits.depth",
    ),
    Setting(
        "GITSTORE_MAX_NODES",
        "50000",
        "Most YAML or JSON nodes of a definition, aliases expanded.",
        "a number from 1 to 1000000",
        _whole(1, 1_000_000),
        "limits.nodes",
    ),
    Setting(
        "GITSTORE_MAX_CPU",
        "5",
        "Most seconds of CPU time that one request may take for reading, checking, comparing and showing "
        "definitions; a push may take four times as much.",
        "a number of seconds from 1 to 600",
        _whole(1, 600),
        "limits.cpu",
    ),
    Setting(
        "GITSTORE_SECRET_KEY",
        "",
        "Seals the secrets of subscriptions and sources in the database. Several, with commas between: the "
        "first seals, all open. Without it, one is made in the data folder, in the file `secret-key`. Keep a "
        "copy: without its key, no secret can be opened.",
        "32 random bytes in URL-safe base64, as `openssl rand -base64 32 | tr +/ -_` makes them",
        _secret_key,
        "secret_key",
        secret=True,
    ),
    Setting(
        "GITSTORE_METRICS_TOKEN",
        "",
        "The Bearer token that `/metrics` requires. Access tokens of projects never open it.",
        "16 to 200 visible ASCII characters, such as `openssl rand -hex 24` makes",
        _token,
        "metrics_token",
        secret=True,
    ),
    Setting(
        "GITSTORE_METRICS_BIND",
        "",
        "A listening address of its own for `/metrics`, which is then 404 at the service's. Without this and "
        "GITSTORE_METRICS_TOKEN, only clients of this machine that no proxy forwards are answered.",
        "host:port, such as 127.0.0.1:9090",
        _bind,
        "metrics_bind",
    ),
    Setting(
        "GITSTORE_EGRESS_ALLOW",
        "",
        "What webhooks and fetches may reach although it is not public: hosts with their port, and networks, "
        "with commas between them. For development, or a network of one's own.",
        "host:port and networks, such as localhost:9000,10.1.0.0/16",
        Allowed.parse,
        "egress_allow",
    ),
    Setting(
        "GITSTORE_LOG_FORMAT",
        "auto",
        "How log lines are written: `text`, `json`, or `auto` (text on a terminal, JSON elsewhere).",
        "auto, text or json",
        _one_of("auto", "text", "json"),
        "log_format",
    ),
    Setting(
        "GITSTORE_LOG_LEVEL",
        "info",
        "The least important log lines that are written.",
        "debug, info, warning or error",
        _one_of("debug", "info", "warning", "error"),
        "log_level",
    ),
)
