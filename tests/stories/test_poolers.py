"""A service behind PgBouncer in transaction mode, which has fewer backends than the service has clients."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from tests.conftest import MakeDatabase
from tests.helpers import until
from tests.pooler import left_behind, pooler
from tests.stories.instance import Caller, Service, definition
from tests.webhooks.receiver import receiving

CLIENTS = 8
VERSIONS = 3
BACKENDS = 3
SETTINGS = "select current_setting('search_path'), current_setting('timezone'), current_user"


def test_clients_share_few_backends_without_an_error(make_database: MakeDatabase, tmp_path: Path) -> None:
    """Saves, publications, reads and pushes at once; every event is delivered; others see none of it."""
    direct = make_database()
    with psycopg.connect(direct) as connection:
        defaults = set(connection.execute(SETTINGS).fetchall())
    with pooler(direct, size=BACKENDS) as through, receiving() as subscriber:
        environment = {
            "DATABASE_URL": through,
            "GITSTORE_DATABASE_CONNECTIONS": "4",
            "GITSTORE_EGRESS_ALLOW": "127.0.0.0/8",
        }
        service = Service(tmp_path / "data", environment).start()
        try:
            wanted = {"url": subscriber.url(), "events": ["workflow.version.published"]}
            assert service.owner.call("POST", "/subscriptions", wanted).status == 201
            stop = threading.Event()
            with ThreadPoolExecutor(CLIENTS + 1) as threads:
                other = threads.submit(watch, through, stop)
                work = [threads.submit(use, service.owner, n, tmp_path / f"c{n}") for n in range(CLIENTS)]
                for client in work:
                    client.result()
                stop.set()
                assert other.result() == defaults
            subscriber.wait(CLIENTS * VERSIONS)
            until(lambda: not service.owner.get("/deliveries?state=pending").json["deliveries"], "pending")
            assert "1 project" in service.cli("backup", str(tmp_path / "backup.tar")).stdout
            assert left_behind(through, BACKENDS) == []
            assert service.cli("verify").stdout == ""
        finally:
            assert service.stop() == 0
        assert not [line for line in service.log().splitlines() if '"error"' in line or "unavailable" in line]


def use(caller: Caller, number: int, folder: Path) -> None:
    """Work as one client: every other one pushes, the others use the API."""
    slug = f"flow-{number}"
    author = caller.author(folder) if number % 2 else None
    for version in range(1, VERSIONS + 1):
        content = definition(f"Version {version} of {slug}")
        if author is not None:
            author.draft(slug, content)
            author.tag(slug, version)
            pushed = author.push(f"drafts/{slug}", f"{slug}/v{version}")
            assert pushed.ok, pushed.output
        else:
            caller.publish(slug, f"Version {version} of {slug}")
        for path in ("versions/current", f"versions/{version}", "versions", ""):
            answer = caller.get(f"/workflows/{slug}/{path}".rstrip("/"))
            assert answer.status == 200, answer.raw
        assert caller.definition(slug, "current") == caller.definition(slug, version)


def watch(conninfo: str, stop: threading.Event) -> set[tuple[str, str, str]]:
    """What another client of the pooler sees meanwhile, which sets nothing itself."""
    seen = set()
    with psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as connection:
        while not stop.wait(0.01):
            seen.update(connection.execute(SETTINGS).fetchall())
    return seen
