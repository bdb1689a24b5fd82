"""Access to /metrics, and the cost of a scrape."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import closing
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from gitstore.errors import Code, GitstoreError, UnavailableError
from service.config import METRICS_FOLDER, Config
from service.errors import HttpCode
from service.metrics import Metrics
from service.scraping import GAUGES_SECONDS, Scraper, authorize, serving

TOKEN = "b2c1d97f0a6e4d5890aa"
PLAIN = Config.from_env({})
WITH_TOKEN = Config.from_env({"GITSTORE_METRICS_TOKEN": TOKEN})
WITH_BIND = Config.from_env({"GITSTORE_METRICS_BIND": "127.0.0.1:9090"})
BEARER = {"REMOTE_ADDR": "198.51.100.7", "HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}


class Measured:
    """Stub of the database and the projects of a Scraper, which counts measurements."""

    def __init__(self) -> None:
        self.times = 0

    def mirror_lag(self, _now: float) -> float:
        self.times += 1
        return 0.5

    def as_mirror(self) -> Any:
        raise UnavailableError("no database")


def scraper(clock: Any = None) -> tuple[Scraper, Measured]:
    measured = Measured()
    more = {"clock": clock} if clock else {}
    return Scraper(Metrics(), measured, measured, **more), measured  # type: ignore[arg-type]


def refusal(config: Config, **environ: str) -> StrEnum | None:
    try:
        authorize(config, environ)
    except GitstoreError as error:
        return error.code
    return None


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
def test_clients_of_this_machine_have_access(peer: str) -> None:
    """By the address of the TCP connection, and without a proxy."""
    assert refusal(PLAIN, REMOTE_ADDR=peer) is None
    for header in ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP"):
        assert refusal(PLAIN, REMOTE_ADDR=peer, **{header: "127.0.0.1"}) is Code.NOT_FOUND


@pytest.mark.parametrize("peer", ["198.51.100.7", "10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "", "unix:"])
def test_other_machines_have_no_access(peer: str) -> None:
    assert refusal(PLAIN, REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR="127.0.0.1") is Code.NOT_FOUND
    assert refusal(PLAIN, REMOTE_ADDR=peer) is Code.NOT_FOUND


@pytest.mark.parametrize(
    "given",
    ["", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xff", "Bearer "],
)
def test_a_configured_token_is_required(given: str) -> None:
    """From this machine, too."""
    assert refusal(WITH_TOKEN, **BEARER) is None
    assert refusal(WITH_TOKEN, **{**BEARER, "HTTP_AUTHORIZATION": f"bearer  {TOKEN}"}) is None
    environ = {"REMOTE_ADDR": "127.0.0.1", "HTTP_AUTHORIZATION": given}
    assert refusal(WITH_TOKEN, **environ) is HttpCode.UNAUTHENTICATED


def test_a_separate_address_is_the_only_one() -> None:
    """The service's own address then has no metrics, with or without the token."""
    assert refusal(WITH_BIND, REMOTE_ADDR="127.0.0.1") is Code.NOT_FOUND
    both = replace(WITH_BIND, metrics_token=TOKEN)
    assert refusal(both, **BEARER) is Code.NOT_FOUND
    authorize(both, BEARER, own_listener=True)
    with pytest.raises(GitstoreError):
        authorize(both, {"REMOTE_ADDR": "127.0.0.1"}, own_listener=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"GITSTORE_METRICS_TOKEN": "short"},
        {"GITSTORE_METRICS_TOKEN": "with a space in it all"},
        {"GITSTORE_METRICS_BIND": "9090"},
        {"GITSTORE_METRICS_BIND": "127.0.0.1:8080"},
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(GitstoreError) as caught:
        Config.from_env(settings)
    assert caught.value.data["settings"] == sorted(settings)
    assert "short" not in caught.value.message


def test_gauges_are_measured_every_few_seconds() -> None:
    """Scrapes in between reuse the measured values."""
    now = [100.0]
    tested, measured = scraper(lambda: now[0])
    for _ in range(5):
        assert b"gitstore_mirror_lag_seconds 0.5" in tested.answer().data
    assert measured.times == 1
    now[0] += GAUGES_SECONDS
    tested.answer()
    assert measured.times == 2


def test_the_listener_serves_metrics_only() -> None:
    """Stalled connections do not block it."""
    config = replace(WITH_BIND, metrics_token=TOKEN)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        with serving(listener, config, scraper()[0]):
            stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
            stalled[0].sendall(b"GET /metr")

            def get(path: str, token: str = TOKEN, method: str = "GET") -> int:
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}{path}",
                    headers={"Authorization": f"Bearer {token}"},
                    method=method,
                )
                try:
                    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                        return int(answer.status)
                except HTTPError as error:
                    with error:
                        return error.code

            assert get("/metrics") == 200
            assert get("/metrics", "another") == 401
            assert get("/livez") == 404
            assert get("/metrics", method="POST") == 405
            for each in stalled:
                each.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "metrics"]


COUNT_ALL = """
import sys
from pathlib import Path
from service.app import create_app
from service.config import Config
from service.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
app = create_app(Config.from_env({"DATABASE_URL": "postgresql://nowhere/x"}), metrics=metrics)
for endpoint in [None, *app.view_functions]:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW", "X" * 9):
        for status in (200, 304, 404, 503):
            metrics.request(endpoint=endpoint, method=method, status=status, seconds=0.01)
for outcome in ("immediate", "queued", "refused"):
    metrics.heavy(outcome)
"""


def test_series_are_bounded(tmp_path: Path) -> None:
    """Every route, method and class of status together give fewer than 1,200 lines."""
    environ = Config.from_env({}).environment(**{METRICS_FOLDER: str(tmp_path)})
    subprocess.run([sys.executable, "-c", COUNT_ALL, str(tmp_path)], env=environ, check=True)
    lines = [line for line in Metrics(tmp_path).exposition({}).splitlines() if not line.startswith(b"#")]
    assert 300 < len(lines) < 1_500
