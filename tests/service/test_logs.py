"""The log: its lines, and what never stands in them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

from gitstore.errors import ConfigError, UnavailableError
from service import logs
from service.logs import Event

TOKEN = "gst_0123456789abcdefghijABCDEFGHIJ0123456789_-x"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The log is a process's: the next test shall find it as this one did."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    structlog.contextvars.clear_contextvars()  # of an answer that some other test never closed
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines() -> Callable[[], list[dict[str, Any]]]:
    """Configures a JSON log; gives what was written to it."""
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_action_is_one_line_of_json(lines: Callable[[], list[dict[str, Any]]]) -> None:
    """With its time in UTC, as RFC 3339 writes it; what is not known is left out."""
    logs.action(Event.PUBLISHED, project="default", version=3, principal=None, note="a\nb")
    (line,) = lines()
    assert list(line) == ["timestamp", "level", "event", "project", "version", "note"]
    assert line["timestamp"].endswith("Z")
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)
    assert (line["level"], line["event"], line["version"]) == ("info", "published", 3)


def test_a_request_is_one_line(lines: Callable[[], list[dict[str, Any]]]) -> None:
    """An answer that is our fault is an error; a 503, which says when to come again, is not."""
    for status in (200, 409, 503, 500):
        logs.request(method="GET", path="/workflows", status=status, duration_ms=1.2345, request_id="r")
    assert [(line["status"], line["level"]) for line in lines()] == [
        (200, "info"),
        (409, "info"),
        (503, "info"),
        (500, "error"),
    ]
    assert lines()[0]["duration_ms"] == 1.2


def test_lines_of_a_block_tell_what_it_is_about(lines: Callable[[], list[dict[str, Any]]]) -> None:
    """And those after it do not."""
    with logs.about(request_id="r-1"):
        logs.action(Event.SAVED)
        logging.getLogger("library").warning("careful")
    logs.action(Event.READY)
    assert [line.get("request_id") for line in lines()] == ["r-1", "r-1", None]


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"http://git:{TOKEN}@127.0.0.1/default.git",
        "Authorization: Bearer hunter2hunter2",
        "Basic aHVudGVyMmh1bnRlcjI=",
        "postgresql://gitstore:hunter2hunter2@db:5432/flows",
        "host=db password=hunter2hunter2 dbname=flows",
        "host=db password='hunter2 hunter2'",
    ],
)
def test_what_looks_like_a_secret_never_gets_through(
    text: str, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """In whatever fact, at whatever depth, in a traceback, from whatever library."""
    logs.action(Event.REFUSED, path=text, more={"inner": [text, {text}]}, error=ConfigError(text))
    logging.getLogger("library").warning("saw %s", text)
    try:
        int(text)
    except ValueError:
        logs.action(Event.INTERNAL_ERROR, level="error", exc_info=True)
    told = json.dumps(lines())
    assert "Traceback" in told
    for part in ("hunter2", "aHVudGVy", TOKEN[4:], "hunter2 hunter2"):
        assert part not in told
    assert logs.HIDDEN in told


def test_what_is_called_a_secret_is_hidden_whatever_it_is(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    """By the name of the fact."""
    logs.action(Event.REFUSED, token="1", Authorization=["a"], inner={"password": 5, "name": "ada"})
    (line,) = lines()
    assert (line["token"], line["Authorization"]) == (logs.HIDDEN, logs.HIDDEN)
    assert line["inner"] == {"password": logs.HIDDEN, "name": "ada"}


def test_on_a_terminal_lines_are_for_reading() -> None:
    """One a line, and nobody's text moves the cursor or paints."""
    stream = Terminal()
    logs.configure("auto", "info", stream)
    logs.action(Event.SAVED, path="/a\x1b[2J\nb\u202e", workflow="order-sync")
    (line,) = stream.getvalue().splitlines()
    assert "saved" in line
    assert "order-sync" in line
    assert "\x1b[2J" not in line
    assert "\\x1b[2J\\nb\\u202e" in line


def test_where_nobody_reads_lines_are_json() -> None:
    """`auto` looks at the stream."""
    stream = io.StringIO()
    logs.configure("auto", "info", stream)
    logs.action(Event.SAVED)
    assert json.loads(stream.getvalue())["event"] == "saved"


def test_lines_below_the_level_are_left_out() -> None:
    """And of libraries only what is wrong is told, unless somebody looks for it."""
    stream = io.StringIO()
    logs.configure("json", "warning", stream)
    logs.action(Event.SAVED)
    logging.getLogger("library").info("hello")
    assert stream.getvalue() == ""
    logs.configure("json", "debug", stream)
    logs.action(Event.GC, level="debug")
    logging.getLogger("library").info("hello")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["gc", "hello"]


def test_a_log_that_nobody_reads_any_more_stops_nothing() -> None:
    """`gitstore serve 2>&1 | head` goes on serving."""
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    stream.close()
    logs.action(Event.PUBLISHED)


def test_the_cause_of_a_refusal_is_one_line() -> None:
    """What the driver said, for the operator."""
    error = UnavailableError("the database does not answer")
    assert logs.cause_of(error) is None
    error.__cause__ = OSError("connection refused\nis the server running?")
    assert logs.cause_of(error) == "connection refused"
