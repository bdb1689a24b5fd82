"""An unavailable database, a full disk, killed processes, stalled clients.

Each gives a clean error, ends without intervention, and loses nothing that was acknowledged.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from service.config import Config
from sync.embedded.server import SUPERUSER, EmbeddedPostgres
from tests.helpers import until
from tests.stories.instance import Caller, Service, definition

ROUNDS = int(os.environ.get("GITSTORE_TEST_ROUNDS", "30"))
READY_SECONDS = 5.0


def postmaster(service: Service) -> psutil.Process:
    (server,) = [p for p in service.family()[0].children() if p.name() == "postgres"]
    return server


def leftovers(service: Service) -> list[Path]:
    path = service.repository
    locks = [Path(folder, name) for folder, _, files in os.walk(path / "refs") for name in files
             if name.endswith(".lock")]  # fmt: skip
    return [*(path / "objects").glob("tmp_*"), *locks]


def check_sound(service: Service) -> None:
    """Rows, refs and objects agree; git finds nothing."""
    done = service.cli("verify", check=False)
    assert done.returncode == 0, done.stdout
    subprocess.run(
        ["git", "--git-dir", str(service.repository), "fsck", "--strict", "--no-dangling"], check=True
    )


class Publishers:
    """Callers that publish as fast as they can, and record the acknowledged versions."""

    def __init__(self, service: Service, count: int) -> None:
        self.acknowledged: dict[tuple[str, int], str] = {}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(service.owner, f"w{number}")) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, owner: Caller, slug: str) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            label = f"{slug} {time.time_ns()}"
            try:
                if owner.save(slug, label) < 300:
                    answer = owner.call("POST", f"/workflows/{slug}/versions/publish")
                    if answer.status == 201:
                        self.acknowledged[slug, answer.json["version_number"]] = label
            except (OSError, HTTPException):
                return  # the service is gone

    def join(self) -> dict[tuple[str, int], str]:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.acknowledged


def kill_and_restart(service: Service, rounds: int) -> tuple[int, float]:
    """Kill all processes at random moments; return the acknowledged versions and the slowest start."""
    draw = random.Random(7)  # noqa: S311
    acknowledged: dict[tuple[str, int], str] = {}
    slowest = 0.0
    for _ in range(rounds):
        publishers = Publishers(service, 3)
        until(lambda p=publishers: p.acknowledged, "nothing is published")
        time.sleep(draw.uniform(0.0, 1.0))
        service.kill()
        acknowledged.update(publishers.join())
        started = time.monotonic()
        service.start()
        slowest = max(slowest, time.monotonic() - started)
        for (slug, number), label in acknowledged.items():
            assert service.owner.definition(slug, number) == definition(label).encode()
        # Each can be written at once, or as soon as the worker has swept.
        for number in range(3):
            slug = f"w{number}"
            until(lambda s=slug: service.owner.save(s, "after") < 300, f"{slug} stays locked")
    check_sound(service)
    until(lambda: leftovers(service) == [], f"left over: {leftovers(service)}")
    return len(acknowledged), slowest


def test_kills_lose_no_acknowledged_version(own_service: Service) -> None:
    """SIGKILL of the whole process tree during publications."""
    acknowledged, _ = kill_and_restart(own_service, 2)
    assert acknowledged > 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_kills_lose_no_acknowledged_version(
    own_service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    acknowledged, slowest = kill_and_restart(own_service, ROUNDS)
    with capsys.disabled():
        print(f"\n  {ROUNDS} kills of the tree, {acknowledged} acknowledged, slowest start {slowest:.2f} s")


def kill_postgres(service: Service) -> None:
    """Suspend it, then kill it with all its processes."""
    server = postmaster(service)
    server.suspend()
    for child in server.children():
        child.kill()
    server.kill()


def stop_postgres(service: Service) -> None:
    """Stop it in order, ending connections, as a restart does."""
    postmaster(service).send_signal(signal.SIGINT)


@contextmanager
def crowded(service: Service) -> Iterator[None]:
    """Allow the service no connection, and end those that it has."""
    postgres = EmbeddedPostgres(Config.from_env(service.settings()).postgres_folder)
    url = postgres.conninfo(user=SUPERUSER, dbname=SUPERUSER)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("alter role gitstore connection limit 0")
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'gitstore'")
        try:
            yield
        finally:
            admin.execute("alter role gitstore connection limit -1")


def publish_eventually(owner: Caller, refused: Counter[str]) -> None:
    """Publish; every answer until that succeeds is a 503 with Retry-After."""
    deadline = time.monotonic() + 60
    while (answer := owner.call("POST", "/workflows/a/versions/publish")).status not in (200, 201):
        assert answer.status == 503, answer.raw
        assert int(answer.headers["Retry-After"]) >= 1
        refused[answer.json["code"]] += 1
        assert time.monotonic() < deadline, refused


def test_an_unavailable_postgres_is_503(own_service: Service) -> None:
    """Killed, restarted, out of connections: the service recovers, loses nothing, and leaks no connection."""
    owner = own_service.owner
    refused: Counter[str] = Counter()
    for number, harm in enumerate((kill_postgres, stop_postgres, kill_postgres), 1):
        assert owner.save("a", f"v{number}") < 300
        harm(own_service)
        publish_eventually(owner, refused)
    assert owner.save("a", "crowded") < 300
    with crowded(own_service):
        for _ in range(3):
            for answer in (owner.get("/workflows"), owner.call("POST", "/workflows/a/versions/publish")):
                assert (answer.status, answer.json["code"]) == (503, "unavailable")
                assert int(answer.headers["Retry-After"]) >= 1
        assert owner.get("/livez").status == 200
        assert owner.get("/readyz").status == 503
    publish_eventually(owner, refused)
    assert set(refused) <= {"unavailable", "busy", "published_not_mirrored"}
    assert owner.get("/workflows/a/versions/latest").json["version_number"] == 4
    with own_service.owning() as tx:
        used = tx.value("select count(*) from pg_stat_activity where application_name = 'gitstore web'")
        idle = tx.value("select count(*) from pg_stat_activity where state = 'idle in transaction'")
    assert used <= 16
    assert idle == 0
    check_sound(own_service)


def on_small_disk(folder: Path, size: str, start: Callable[[], Service]) -> Iterator[Service]:
    """A service with `folder` on a disk of that size."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0711", "tmpfs", str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    service: Service | None = None
    try:
        service = start()
        yield service
    finally:
        if service is not None and service.process is not None:
            service.stop()
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path, cluster: Path) -> Iterator[Service]:
    """A service whose repositories are on a small disk."""
    service = Service(tmp_path / "data", cluster=cluster)
    yield from on_small_disk(service.data / "repos", "4m", service.start)


@pytest.fixture
def small_database(tmp_path: Path, cluster: Path) -> Iterator[Service]:
    """A service whose Postgres is on a small disk."""
    service = Service(tmp_path / "data", {"GITSTORE_RECONCILE_SECONDS": "1"}, cluster)
    yield from on_small_disk(service.data / "postgres", "200m", service.start)


def fill(folder: Path, leave: int) -> Path:
    """Create a file that leaves `leave` bytes of the disk."""
    filler = folder / "filler"
    free = os.statvfs(filler.parent).f_bavail * os.statvfs(filler.parent).f_frsize
    with filler.open("wb") as file:
        file.write(bytes(max(free - leave, 0)))
    return filler


def test_a_full_disk_is_a_clean_error(small_disk: Service, tmp_path: Path) -> None:
    """For HTTP and git, with more and less space; no leftovers, and the retry with enough space succeeds."""
    owner = small_disk.owner
    assert owner.save("a", "one") == 201
    assert owner.call("POST", "/workflows/a/versions/publish").status == 201
    ann = owner.author(tmp_path / "ann")
    for leave in (0, 8 * 1024, 24 * 1024, 40 * 1024):
        filler = fill(small_disk.data / "repos", leave)
        answer = owner.call(
            "POST", "/workflows", {"slug": f"full-{leave}", "definition": definition("x" * 9000)}
        )
        assert answer.status in (201, 503), answer.raw
        if answer.status == 503:
            assert answer.json["code"] == "unavailable"
            assert int(answer.headers["Retry-After"]) >= 1
        ann.draft("a", definition(f"left {leave}") + f"# {os.urandom(40_000).hex()}\n")
        pushed = ann.push("drafts/a")
        assert not pushed.ok
        assert "the disk is full" in pushed.output
        assert leftovers(small_disk) == []
        filler.unlink()
        assert ann.push("drafts/a").ok
    assert "Traceback" not in owner.get("/workflows/a").raw.decode()
    assert owner.call("POST", "/workflows/a/versions/publish").json["version_number"] == 2
    check_sound(small_disk)


def test_a_full_disk_of_the_database_is_503(small_database: Service) -> None:
    """Acknowledged drafts survive, and what is in Git alone is mirrored once there is space."""
    owner = small_database.owner
    filler = fill(small_database.data / "postgres", 0)
    acknowledged, refused = {}, Counter[str]()
    for number in range(200):
        text = f"# {os.urandom(400_000).hex()}\n{definition(str(number))}"
        answer = owner.call("POST", "/workflows", {"slug": f"w{number}", "definition": text})
        if answer.status == 201:
            acknowledged[f"w{number}"] = text
            continue
        assert answer.status == 503, answer.raw
        assert int(answer.headers["Retry-After"]) >= 1
        refused[answer.json["code"]] += 1
        if refused.total() == 3:
            break
    assert set(refused) <= {"unavailable", "published_not_mirrored"}
    assert refused
    assert leftovers(small_database) == []
    filler.unlink()
    until(lambda: owner.get("/readyz").status == 200, "the service does not recover")
    until(lambda: owner.save("w0", "after") < 300, "nothing can be saved")
    for slug, text in list(acknowledged.items())[1:]:
        assert owner.definition(slug, "draft") == text.encode()
    until(lambda: small_database.cli("verify", check=False).returncode == 0, "rows do not follow")
    check_sound(small_database)


@pytest.fixture
def narrow(tmp_path: Path, cluster: Path) -> Iterator[Service]:
    """A service that handles one request at a time."""
    service = Service(tmp_path / "data", {"GITSTORE_THREADS": "1"}, cluster).start()
    yield service
    service.stop(signal.SIGTERM)


def test_slow_clients_do_not_delay_others(narrow: Service) -> None:
    """They send nothing, or a part of a head, a body or a push, or do not read the answer."""
    owner, address = narrow.owner, urlsplit(narrow.url)
    large = f"# {'x' * 900_000}\n{definition('large')}".encode()
    made = owner.call("POST", "/workflows", {"slug": "a", "definition": large.decode()})
    assert made.status == 201
    who = f"Host: x\r\nAuthorization: Bearer {owner.token}\r\n"
    basic = f"Host: x\r\nAuthorization: Basic {b64encode(f'x:{owner.token}'.encode()).decode()}\r\n"
    head = f"POST /workflows HTTP/1.1\r\n{who}Content-Type: application/json\r\nContent-Length: 1000\r\n"
    push = (
        "POST /default.git/git-receive-pack HTTP/1.1\r\nContent-Type: application/x-git-receive-pack-request"
    )
    sent = [
        "",
        head,
        head + "\r\n{",
        f"{push}\r\n{basic}Content-Length: 1000\r\n\r\n00",
        f"{push}\r\n{basic}Transfer-Encoding: chunked\r\n\r\n5\r\n",
        f"GET /workflows/a/versions/draft/definition HTTP/1.1\r\n{who}\r\n" * 9,
    ]
    with ExitStack() as stack:
        slow = []
        for request in sent * 4:
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((address.hostname or "", address.port or 0))
            client.sendall(request.encode())
            slow.append((request, client))
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: owner.get("/workflows").status, range(20)))
        assert set(answers) == {200}
        # The slow requests have no answer yet.
        for request, client in slow:
            if "GET" not in request:
                client.setblocking(False)
                with pytest.raises(BlockingIOError):
                    client.recv(1)
