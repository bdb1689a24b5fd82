"""Structured log on stderr: one line per request and per key action.

    action(Event.PUBLISHED, project="default", workflow="order-sync", version=3, principal="ci")

Readable text on a terminal, JSON elsewhere, times in UTC (RFC 3339). Secrets are always masked, whichever
code logs them, and control characters of untrusted text never reach a terminal.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from enum import StrEnum, auto
from functools import lru_cache
from http import HTTPStatus
from select import PIPE_BUF
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gitstore.masking import masked

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_OWN: Final = frozenset({"timestamp", "level", "endpoint"})
_REPEATED: Final = frozenset({"method", "path", "principal", "project"})
"""Facts that many lines have in common: up to _SHORT characters, they are masked once."""
_SHORT: Final = 200
_NUMBERS: Final = frozenset({"status", "duration_ms"})
_OUR_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""The form of the request ids that this service generates."""
_POLLED: Final = {"ui.show_changes", "workflows.read_changes"}
"""Endpoints that each open page asks every other second: that nothing has changed is logged as `debug`."""


class Event(StrEnum):
    """Events of the log. docs/operations.md has a table of them."""

    REQUEST = auto()
    SLOW_REQUEST = auto()
    REPLICA_LAGS = auto()
    REPLICA_FOLLOWS = auto()
    CREATED = auto()
    DESCRIBED = auto()
    RENAMED = auto()
    ARCHIVED = auto()
    UNARCHIVED = auto()
    DELETED = auto()
    SAVED = auto()
    REVERTED = auto()
    DISCARDED = auto()
    RESTORED = auto()
    PUBLISHED = auto()
    CURRENT_MOVED = auto()
    CURRENT_CLEARED = auto()
    ENVIRONMENT_MOVED = auto()
    ENVIRONMENT_REMOVED = auto()
    ENVIRONMENTS_CHANGED = auto()
    PROMOTED = auto()
    SCHEDULED = auto()
    SCHEDULE_CANCELLED = auto()
    SCHEDULE_DONE = auto()
    SCHEDULE_STOPPED = auto()
    SCHEDULE_LOOP_FAILED = auto()
    YANKED = auto()
    UNYANKED = auto()
    ANNOTATED = auto()
    RELEASED = auto()
    RELEASE_ROLLED_BACK = auto()
    REFUSED = auto()
    SIGNED_IN = auto()
    TOKEN_CREATED = auto()
    TOKEN_REVOKED = auto()
    PROJECT_CREATED = auto()
    PROJECT_CHANGED = auto()
    PROJECT_DELETED = auto()
    MEMBER_CHANGED = auto()
    MEMBER_REMOVED = auto()
    SOURCE_CREATED = auto()
    SOURCE_CHANGED = auto()
    SOURCE_ROTATED = auto()
    SOURCE_DELETED = auto()
    HOOK_RECEIVED = auto()
    SYNCED = auto()
    SYNC_FAILED = auto()
    SYNC_LOOP_FAILED = auto()
    SYNC_CRASHED = auto()
    SOURCE_POISONED = auto()
    IMPORTING = auto()
    DIVERGED = auto()
    GAPS = auto()
    DIVERGENCE_RESOLVED = auto()
    SOURCES_DISABLED = auto()
    DELIVERIES_DISABLED = auto()
    SUBSCRIPTION_CREATED = auto()
    SUBSCRIPTION_CHANGED = auto()
    SUBSCRIPTION_ROTATED = auto()
    SUBSCRIPTION_DELETED = auto()
    SUBSCRIPTION_DISABLED = auto()
    DELIVERED = auto()
    DELIVERY_FAILED = auto()
    DELIVERY_LOOP_FAILED = auto()
    DELIVERY_CRASHED = auto()
    DELIVERY_POISONED = auto()
    REDELIVERED = auto()
    REPLAYED = auto()
    RECONCILED = auto()
    RECONCILE_FAILED = auto()
    FULL_RECONCILIATION = auto()
    LEFTOVERS_REMOVED = auto()
    LEFTOVERS_FAILED = auto()
    PACKED_REFS_REPAIRED = auto()
    GC = auto()
    GC_FAILED = auto()
    DELIVERIES_PRUNED = auto()
    UPKEEP_CRASHED = auto()
    UPKEEP_SUSPENDED = auto()
    POSTGRES_UNAVAILABLE = auto()
    POSTGRES_AVAILABLE = auto()
    POSTGRES_EXITED = auto()
    POSTGRES_START_FAILED = auto()
    POSTGRES_RESTARTED = auto()
    WAITING_FOR_POSTGRES = auto()
    MIGRATED = auto()
    SECRET_KEY_CREATED = auto()
    UNKNOWN_SETTING = auto()
    FEW_OPEN_FILES = auto()
    METRICS_LISTENING = auto()
    EDITOR_NOT_BUILT = auto()
    READY = auto()
    STOPPING = auto()
    STOPPED = auto()
    WEB_EXITED = auto()
    WEB_PROCESS_EXITED = auto()
    WEB_PROCESS_HUNG = auto()
    KEYS_UNREACHABLE = auto()
    WORKER_EXITED = auto()
    WORKER_STALLED = auto()
    CHILD_FAILED = auto()
    CONNECTIONS_CLOSED = auto()
    CHILD_KILLED = auto()
    INTERNAL_ERROR = auto()


def configure(log_format: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send the log, and that of the libraries, to `stream` (stderr). Call once per process, at its start.

    `log_format` and `level` are as in the settings.
    """
    out = stream or sys.stderr
    terminal = out.isatty()
    readable = log_format == "text" or (log_format == "auto" and terminal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering = _rendering(readable, terminal)
    last: list[Processor] = [structlog.processors.format_exc_info, hide_secrets, *rendering]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Lines(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    # Only warnings and errors of the libraries: our own code logs their actions.
    root.setLevel(max(_LEVELS[level], logging.WARNING) if level != "debug" else logging.DEBUG)
    # The pool logs a line for each connection attempt; its caller gets the error, and logs it.
    logging.getLogger("psycopg.pool").setLevel(logging.NOTSET if level == "debug" else logging.ERROR)


def action(event: Event, *, level: str = "info", **facts: Any) -> None:
    """Log that `event` happened. A fact that is None is left out. `exc_info=True` adds the traceback."""
    known = {name: fact for name, fact in facts.items() if fact is not None}
    getattr(structlog.get_logger(), level)(event, **known)


def request(
    *,
    request_id: str | None = None,
    method: str,
    path: str,
    status: int,
    duration_ms: float,
    endpoint: str | None = None,
    **facts: Any,
) -> None:
    """Log one request, once its answer is complete. `path` is without the query.

    Within `about`, the id need not be given.
    """
    level = "error" if status >= 500 and status != 503 else "info"
    if endpoint in _POLLED and status == HTTPStatus.NOT_MODIFIED:
        level = "debug"
    action(
        Event.REQUEST,
        level=level,
        request_id=request_id,
        method=method,
        path=path,
        status=status,
        endpoint=endpoint,
        duration_ms=round(duration_ms, 1),
        **facts,
    )


def slow_request(*, duration_ms: float, spent: Mapping[str, float], **facts: Any) -> None:
    """Log where the time of a request went: each part, of which `spent` has the seconds, and the rest."""
    parts = {f"{part}_ms": round(seconds * 1000, 1) for part, seconds in sorted(spent.items())}
    rest = max(duration_ms - sum(spent.values()) * 1000, 0.0)
    action(
        Event.SLOW_REQUEST,
        level="warning",
        **facts,
        duration_ms=round(duration_ms, 1),
        **parts,
        other_ms=round(rest, 1),
    )


@contextmanager
def about(**facts: Any) -> Iterator[None]:
    """Add these facts to every line that this thread logs within the block: `about(request_id=...)`."""
    with structlog.contextvars.bound_contextvars(**facts):
        yield


@contextmanager
def batch() -> Iterator[None]:
    """Write the lines that this thread logs within the block at its end, many at a time."""
    lines: dict[TextIO, list[str]] = {}
    token = _batch.set(lines)
    try:
        yield
    finally:
        _batch.reset(token)
        for stream, waiting in lines.items():
            _Lines(stream).write(waiting)


def cause_of(error: BaseException) -> str | None:
    """Return the cause of an error, such as the driver's message, as one line for the operator."""
    lines = str(error.__cause__ or "").strip().splitlines()
    return lines[0] if lines else None


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask every secret (structlog processor)."""
    hidden, others = dict(event), {}
    for name, fact in event.items():
        if name in _REPEATED and isinstance(fact, str) and len(fact) <= _SHORT:
            hidden[name] = _masked(name, fact)
        elif not _is_harmless(name, fact):
            others[name] = fact
    return {**hidden, **masked(others)} if others else hidden


def _is_harmless(name: str, fact: object) -> bool:
    """Return whether no secret can be in a fact: masking was a third of what the line of a request took."""
    if name == "request_id":
        return isinstance(fact, str) and _OUR_ID.fullmatch(fact) is not None
    if name in _NUMBERS:
        return type(fact) in (int, float)
    return name in _OWN or isinstance(fact, Event)


@lru_cache(1024)
def _masked(name: str, fact: str) -> Any:
    return masked({name: fact})[name]


def _escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape characters that would move the cursor or change colours (structlog processor)."""
    texts = {key: value for key, value in event.items() if isinstance(value, str)}
    for key, text in texts.items():
        line = text if key == "exception" else text.replace("\n", "\\n")
        texts[key] = _CONTROL.sub(lambda match: ascii(match[0])[1:-1], line)
    return {**event, **texts}


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Move the fields common to all lines to the front."""
    return {**{key: event[key] for key in ("timestamp", "level", "event")}, **event}


def _rendering(readable: bool, terminal: bool) -> list[Processor]:
    if not readable:
        return [_in_order, structlog.processors.JSONRenderer()]
    traceback = structlog.dev.plain_traceback
    console = structlog.dev.ConsoleRenderer(colors=terminal, pad_event_to=12, exception_formatter=traceback)
    return [_escape_controls, console]


_batch: ContextVar[dict[TextIO, list[str]] | None] = ContextVar("gitstore_log_batch", default=None)


class _Lines:
    """Writer of whole lines, unbuffered. A log whose reader is gone (EPIPE) does not stop the process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        if (waiting := _batch.get()) is None:
            self.write([line])
        else:
            waiting.setdefault(self._stream, []).append(line)

    def write(self, lines: Sequence[str]) -> None:
        """Write as many lines at once as a pipe takes whole: processes that share one do not mix them."""
        part, size = "", 0
        with suppress(OSError, ValueError):  # ValueError: it is closed
            for line in lines:
                more = len(line.encode("utf-8", "replace")) + 1
                if part and size + more > PIPE_BUF:
                    self._send(part)
                    part, size = "", 0
                part, size = part + line + "\n", size + more
            self._send(part)

    def _send(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    debug = info = warning = error = critical = exception = msg


_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
