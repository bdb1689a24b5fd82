"""The log: lines, levels, and masked secrets."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from select import PIPE_BUF
from typing import Any

import pytest
import structlog

from gitstore import budget
from gitstore.errors import ConfigError, UnavailableError
from gitstore.masking import HIDDEN
from service import logs
from service.logs import Event
from service.metrics import Metrics
from service.middleware import RequestMiddleware

TOKEN = "gst_0123456789abcdefghijABCDEFGHIJ0123456789_-x"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Restore the log's configuration, which is global to the process, after each test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    structlog.contextvars.clear_contextvars()  # left by answers that another test did not close
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines() -> Callable[[], list[dict[str, Any]]]:
    """Configure a JSON log; return a function that returns its lines."""
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_action_is_one_line_of_json(lines: Callable[[], list[dict[str, Any]]]) -> None:
    """With its time in UTC (RFC 3339), and without facts that are None."""
    logs.action(Event.PUBLISHED, project="default", version=3, principal=None, note="a\nb")
    (line,) = lines()
    assert list(line) == ["timestamp", "level", "event", "project", "version", "note"]
    assert line["timestamp"].endswith("Z")
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)
    assert (line["level"], line["event"], line["version"]) == ("info", "published", 3)


def test_a_request_is_one_line(lines: Callable[[], list[dict[str, Any]]]) -> None:
    """Its level is error for a 5xx other than 503."""
    for status in (200, 409, 503, 500):
        logs.request(method="GET", path="/workflows", status=status, duration_ms=1.2345, request_id="r")
    assert [(line["status"], line["level"]) for line in lines()] == [
        (200, "info"),
        (409, "info"),
        (503, "info"),
        (500, "error"),
    ]
    assert lines()[0]["duration_ms"] == 1.2


def test_lines_of_a_block_have_its_facts(lines: Callable[[], list[dict[str, Any]]]) -> None:
    """Lines after the block do not."""
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
def test_text_that_looks_like_a_secret_is_masked(
    text: str, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """In any fact, at any depth, in tracebacks, and in lines of libraries."""
    logs.action(Event.REFUSED, path=text, more={"inner": [text, {text}]}, error=ConfigError(text))
    logging.getLogger("library").warning("saw %s", text)
    try:
        int(text)
    except ValueError:
        logs.action(Event.INTERNAL_ERROR, level="error", exc_info=True)
    text = json.dumps(lines())
    assert "Traceback" in text
    for part in ("hunter2", "aHVudGVy", TOKEN[4:], "hunter2 hunter2"):
        assert part not in text
    assert HIDDEN in text


def test_facts_with_the_name_of_a_secret_are_masked(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    """Whatever their value."""
    logs.action(Event.REFUSED, token="1", Authorization=["a"], inner={"password": 5, "name": "ada"})
    (line,) = lines()
    assert (line["token"], line["Authorization"]) == (HIDDEN, [HIDDEN])
    assert line["inner"] == {"password": HIDDEN, "name": "ada"}


def test_lines_are_readable_on_a_terminal() -> None:
    """Control characters in facts are escaped."""
    stream = Terminal()
    logs.configure("auto", "info", stream)
    logs.action(Event.SAVED, path="/a\x1b[2J\nb\u202e", workflow="order-sync")
    (line,) = stream.getvalue().splitlines()
    assert "saved" in line
    assert "order-sync" in line
    assert "\x1b[2J" not in line
    assert "\\x1b[2J\\nb\\u202e" in line


def test_lines_are_json_elsewhere() -> None:
    """With the format `auto`."""
    stream = io.StringIO()
    logs.configure("auto", "info", stream)
    logs.action(Event.SAVED)
    assert json.loads(stream.getvalue())["event"] == "saved"


def test_lines_below_the_level_are_left_out() -> None:
    """Libraries log warnings and errors only, except at the level debug."""
    stream = io.StringIO()
    logs.configure("json", "warning", stream)
    logs.action(Event.SAVED)
    logging.getLogger("library").info("hello")
    assert stream.getvalue() == ""
    logs.configure("json", "debug", stream)
    logs.action(Event.GC, level="debug")
    logging.getLogger("library").info("hello")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["gc", "hello"]


def test_a_closed_log_is_no_error() -> None:
    """`gitstore serve 2>&1 | head` continues to serve."""
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    stream.close()
    logs.action(Event.PUBLISHED)


class Writes(io.StringIO):
    """A stream that remembers what each write sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def write(self, text: str) -> int:
        self.sent.append(text)
        return super().write(text)


def test_lines_of_a_batch_are_written_together_in_pieces_that_a_pipe_takes_whole() -> None:
    """In their order; a longer line is alone."""
    stream = Writes()
    logs.configure("json", "info", stream)
    with logs.batch():
        for number in range(500):
            logs.action(Event.SAVED, version=number, note="é" * (5_000 if number == 250 else 10))
        assert stream.sent == []
    logs.action(Event.READY)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("version") for line in lines] == [*range(500), None]
    sizes = [len(part.encode()) for part in stream.sent]
    assert len([size for size in sizes if size > PIPE_BUF]) == 1
    assert len(sizes) < 40
    assert all(part.endswith("\n") for part in stream.sent)


def test_the_cause_of_an_error_is_one_line() -> None:
    """The driver's message, for the operator."""
    error = UnavailableError("the database does not answer")
    assert logs.cause_of(error) is None
    error.__cause__ = OSError("connection refused\nis the server running?")
    assert logs.cause_of(error) == "connection refused"


def test_a_slow_request_is_logged_with_its_parts(lines: Callable[[], list[dict[str, Any]]]) -> None:
    """A part within another one counts once; a fast request is not logged."""

    def application(_environ: Any, start: Any) -> list[bytes]:
        with budget.spending("git"):
            time.sleep(0.03)
            with budget.spending("database"):
                time.sleep(0.06)
        start("200 OK", [])
        return [b""]

    def answer(slow: int) -> None:
        wrapped = RequestMiddleware(application, Metrics(), 5, slow=slow)
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "HTTP_X_REQUEST_ID": "edge-1"}
        parts: Any = wrapped(environ, lambda *_: lambda _part: None)
        parts.close()

    answer(20)
    answer(60_000)
    answer(0)
    (line,) = [line for line in lines() if line["event"] == "slow_request"]
    assert (line["level"], line["request_id"], line["path"]) == ("warning", "edge-1", "/x")
    assert 30 <= line["git_ms"] <= line["duration_ms"] - 60
    assert line["database_ms"] >= 60
    parts = line["git_ms"] + line["database_ms"] + line["other_ms"]
    assert parts == pytest.approx(line["duration_ms"], abs=1)
