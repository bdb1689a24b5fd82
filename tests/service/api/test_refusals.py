"""Error answers: their form and headers, in place of Flask's own."""

from __future__ import annotations

import errno
import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha1
from http import HTTPStatus
from typing import Any

import pytest
from dulwich.protocol import pkt_line

from gitstore.errors import BusyError, Code, GitstoreError, StaleDraftError
from gitstore.model import Problem
from service import errors, logs
from service.app import create_app
from service.errors import HttpCode
from sync import tokens
from tests.service.api.conftest import Client, House, definition, problem


def test_every_code_has_a_status() -> None:
    """Only `internal` is a 5xx other than 503."""
    assert set(errors.STATUS) == {*Code, *errors.HttpCode}
    fives = {code for code, status in errors.STATUS.items() if status >= 500 and status != 503}
    assert fives == {Code.INTERNAL}


def test_the_data_of_an_error_never_overrides_its_members() -> None:
    data: dict[str, Any] = {"status": 200, "title": "x", "problems": [Problem("a", "b", "/c", "n", 1, 2)]}
    answer = errors.problem(StaleDraftError("moved", etag='"x"', **data), "r-1")
    body = json.loads(answer.data)
    assert answer.status_code == body["status"] == 412
    assert body["code"] == "stale_draft"
    assert body["title"] == "Stale draft"
    assert body["etag"] == '"x"'
    assert body["instance"] == "urn:gitstore:request:r-1"
    assert body["problems"] == [
        {
            "code": "a",
            "message": "b",
            "severity": "error",
            "pointer": "/c",
            "node": "n",
            "line": 1,
            "column": 2,
        }
    ]


def test_git_gets_errors_as_text_that_it_prints() -> None:
    """text/plain, with a Basic challenge."""
    answer = errors.plain(GitstoreError(HttpCode.UNAUTHENTICATED, "who are you?"))
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.data == b"who are you?\n"
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="gitstore"'
    busy = errors.plain(BusyError("later", retry_after=7))
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "7")


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/workflows/", "/workflows/a/b", "/workflows/a/versions/1/x", "/%00",
     "/%ff%fe", "/workflows/../tokens", "/ui%0d%0aX: y", "/docs/../app.py", "/docs/x.js", "/.git/config"],
)  # fmt: skip
def test_an_unknown_address_is_not_found(owner: Client, path: str) -> None:
    """No redirects, no HTML."""
    problem(owner.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/workflows", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("PUT", "/workflows/a", {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH"}),
        ("DELETE", "/workflows/a/versions/1", {"GET", "HEAD", "OPTIONS", "PATCH"}),
        ("PUT", "/workflows/a/versions/1", {"GET", "HEAD", "OPTIONS", "PATCH"}),
        ("POST", "/workflows/a/versions/draft", {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "PUT"}),
        ("GET", "/workflows/a/current", {"DELETE", "OPTIONS", "PUT"}),
        ("GET", "/workflows/a/validate", {"OPTIONS", "POST"}),
        ("TRACE", "/workflows", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("BREW", "/livez", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/openapi.json", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_an_unsupported_method_lists_the_supported_ones(
    owner: Client, method: str, path: str, allowed: set[str]
) -> None:
    response = owner(method, path)
    problem(response, 405, "method_not_allowed")
    assert set(response.headers["Allow"].split(", ")) == allowed


def test_the_request_id_is_returned(owner: Client) -> None:
    """A valid one is kept, any other is replaced; an error names it."""
    response = owner.get("/nowhere", headers={"X-Request-Id": "night-shift/7"})
    assert response.headers["X-Request-Id"] == "night-shift/7"
    assert response.json["instance"] == "urn:gitstore:request:night-shift/7"
    for insane in ("", "a b", "x" * 129, "a\tb", "ä", '"', "<script>"):
        made = owner.get("/livez", headers={"X-Request-Id": insane}).headers["X-Request-Id"]
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made), insane


def test_a_slow_request_is_logged_with_where_its_time_went(
    house: House, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publication waits for Postgres, writes to Git and parses; an engine's read does the first alone."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(logs, "action", lambda event, **facts: lines.append({"event": event, **facts}))
    app = create_app(replace(house.config, slow_request=1), database=house.database)
    client = Client(app, owner.token)
    client.create()
    client.publish()
    slow = {line["endpoint"]: line for line in lines if line["event"] == "slow_request"}
    assert {"database_ms", "git_ms", "parse_ms"} <= slow["workflows.create_workflow"].keys()
    assert slow["versions.publish"]["git_ms"] > 0
    for line in slow.values():
        parts = sum(line.get(f"{part}_ms", 0) for part in ("database", "git", "parse", "other"))
        assert parts == pytest.approx(line["duration_ms"], abs=1)


def test_browsers_must_not_run_or_frame_an_answer(owner: Client) -> None:
    """Errors included."""
    for path in ("/workflows", "/nowhere", "/livez", "/metrics", "/openapi.json"):
        headers = owner.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_an_unexpected_error_is_shown_to_the_operator_only(
    owner: Client, monkeypatch: pytest.MonkeyPatch, unexpected: list[Exception]
) -> None:
    """The caller gets `internal` and the request id; the log has the traceback."""
    lines: list[dict[str, Any]] = []

    def broken(*_: Any) -> None:
        raise RuntimeError("the secret is in here")

    monkeypatch.setattr(tokens, "tokens", broken)
    monkeypatch.setattr(logs, "action", lambda event, **facts: lines.append({"event": event, **facts}))
    response = owner.get("/tokens", headers={"X-Request-Id": "r-1"})
    refused = problem(response, 500, "internal")
    assert "secret" not in response.text
    assert refused["instance"] == "urn:gitstore:request:r-1"
    assert any(line["event"] == "internal_error" and line["exc_info"] for line in lines)
    assert len(unexpected) == 1
    unexpected.clear()


def test_a_request_is_one_log_line(owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the route, the principal and the duration, but never the token."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(logs, "request", lambda **facts: lines.append(facts))
    owner.get("/workflows/x%0ay?project=default")
    (line,) = lines
    assert line["endpoint"] == "workflows.read_workflow"
    assert (line["method"], line["status"], line["path"]) == ("GET", 404, "/workflows/x\ny")
    assert line["project"] == "default"
    assert line["principal"].startswith("owner-")
    assert line["duration_ms"] > 0
    assert owner.token not in str(line)


def test_every_ref_of_a_push_is_logged(owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many the push has."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(logs, "action", lambda event, **facts: lines.append({"event": event, **facts}))
    refs = [f"refs/heads/other-{number}" for number in range(120)]
    commands = [f"{'0' * 40} {'a' * 40} {ref}".encode() for ref in refs]
    commands[0] += b"\0report-status"
    pack = b"PACK" + bytes([0, 0, 0, 2, 0, 0, 0, 0])
    body = b"".join(map(pkt_line, [*commands, None])) + pack + sha1(pack).digest()
    login = "Basic " + b64encode(f"git:{owner.token}".encode()).decode()
    answer = owner.post(
        "/default.git/git-receive-pack",
        data=body,
        type="application/x-git-receive-pack-request",
        headers={"Authorization": login},
    )
    assert answer.data.count(b"ng refs/heads/other-") == len(refs)
    assert [line["ref"] for line in lines if line["event"] == "refused"] == refs


def test_key_actions_are_logged(owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(logs, "action", lambda event, **facts: lines.append((event, facts)))
    owner.create()
    owner.publish()
    owner.publish(url="")
    owner.put("/workflows/order-sync/current", json={"version": 1})
    owner.delete("/workflows/order-sync/current")
    owner.delete("/workflows/order-sync/versions/draft")
    owner.post("/workflows/order-sync/versions/draft/restore")
    owner.post("/workflows/order-sync/versions/1/revert", match="*")
    events = [event for event, _ in lines if event != "request"]
    assert events == [
        "created", "published", "refused", "saved", "refused", "current_moved", "current_cleared",
        "discarded", "restored", "reverted",
    ]  # fmt: skip
    published = lines[[event for event, _ in lines].index("published")][1]
    assert published["version"] == 1
    assert published["workflow"] == "order-sync"
    assert {"project", "principal", "duration_ms"} <= set(published)


def test_publishes_and_requests_are_counted(owner: Client) -> None:
    owner.create()
    owner.publish()
    owner.publish()
    owner.publish(url="")
    figures = owner.get("/metrics")
    assert figures.status_code == 200
    assert figures.content_type.startswith("text/plain")
    assert 'gitstore_publishes_total{door="http",outcome="published"} 1.0' in figures.text
    assert 'gitstore_publishes_total{door="http",outcome="definition_invalid"} 1.0' in figures.text
    assert 'gitstore_requests_total{area="versions",method="POST",status="2xx"}' in figures.text
    assert "gitstore_mirror_lag_seconds 0.0" in figures.text


def test_without_the_database_nothing_is_written(house: House, owner: Client) -> None:
    """503 with Retry-After from the API, the pages and git; the draft is unchanged."""
    tag = owner.create().headers["ETag"]
    before = sorted(path.name for path in house.repository().rglob("*"))
    conninfo, house.database.conninfo = house.database.conninfo, "host=/nonexistent dbname=x"
    house.database.close()
    body = {"definition": definition("https://b.example/")}
    for response in (
        owner.get("/workflows"),
        owner.put("/workflows/order-sync/versions/draft", json=body, match=tag),
        owner.publish(),
        owner.get("/readyz"),
        owner.get("/workflows/order-sync/versions/draft/definition"),
    ):
        problem(response, 503, "unavailable")
        assert int(response.headers["Retry-After"]) > 0
    assert owner.get("/livez").status_code == 200
    assert owner.get("/metrics").status_code == 200
    assert sorted(path.name for path in house.repository().rglob("*")) == before
    house.database.close()
    house.database.conninfo = conninfo
    assert owner.get("/readyz").status_code == 200
    assert owner.get("/workflows/order-sync/versions/draft").headers["ETag"] == tag


def test_readiness_requires_writable_repositories(house: House, owner: Client) -> None:
    assert owner.get("/readyz").json == {"status": "ok", "worker": "unknown"}
    house.config.repositories.rename(house.config.repositories.with_suffix(".away"))
    problem(owner.get("/readyz"), 503, "unavailable")


def test_health_requires_no_token(house: House) -> None:
    stranger = Client(house.app, "")
    for path in ("/livez", "/readyz", "/metrics"):
        response = stranger.get(path)
        assert response.status_code == HTTPStatus.OK
        assert response.headers["Cache-Control"] == "no-store"


def test_a_full_disk_or_a_lost_volume_is_logged_in_one_line(
    owner: Client,
    monkeypatch: pytest.MonkeyPatch,
    unexpected: list[Exception],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a traceback for each request; a bug has one."""

    def fails(error: Exception) -> str:
        def raising(*_arguments: object, **_named: object) -> None:
            raise error

        logs.configure("json")
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr("service.projects.Projects.reader", raising)
            patch.setattr("service.projects.Projects.writer", raising)
            owner.post("/workflows", json={"slug": "a"})
        unexpected.clear()
        return capsys.readouterr().err

    assert "the volume is not mounted" in fails(
        OSError(errno.ENOTCONN, "Transport endpoint is not connected")
    )
    full = fails(OSError(errno.ENOSPC, "No space left on device"))
    assert "the disk is full" in full
    assert "Traceback" not in full
    assert full.count("internal_error") == 1
    assert "Traceback" in fails(ValueError("x"))
