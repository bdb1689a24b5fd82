"""A database that goes away, a full disk, processes that are killed, clients that stall.

Each is told in a clean way, heals by itself, and loses nothing that was acknowledged.
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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

import psutil
import pytest

from tests.stories.running import Caller, Service, definition, wait_for

ROUNDS = int(os.environ.get("GITSTORE_TEST_ROUNDS", "30"))
READY_SECONDS = 5.0


def owner_of(service: Service) -> Caller:
    return Caller(service.url, "default", service.owner_token)


def family(service: Service) -> list[psutil.Process]:
    """The service's process and all below it."""
    assert service.process is not None
    top = psutil.Process(service.process.pid)
    return [top, *top.children(recursive=True)]


def postmaster(service: Service) -> psutil.Process:
    (found,) = [p for p in family(service)[0].children() if p.name() == "postgres"]
    return found


def save(owner: Caller, slug: str, label: str) -> int:
    """The status of saving a draft, by whichever call is right where the workflow stands."""
    body = {"definition": definition(label)}
    answer = owner.call("POST", "/workflows", {"slug": slug, **body})
    if answer.status == 409:
        answer = owner.call("POST", f"/workflows/{slug}/versions", body)
    if answer.status == 409:
        answer = owner.call("PUT", f"/workflows/{slug}/versions/draft", body, headers={"If-Match": "*"})
    return answer.status


def repository(service: Service) -> Path:
    (found,) = (service.data / "repos").glob("*.git")
    return found


def leftovers(service: Service) -> list[Path]:
    path = repository(service)
    locks = [Path(folder, name) for folder, _, files in os.walk(path / "refs") for name in files
             if name.endswith(".lock")]  # fmt: skip
    return [*(path / "objects").glob("tmp_*"), *locks]


def check_sound(service: Service) -> None:
    """Rows, refs and objects agree; git finds nothing."""
    done = service.cli("verify", check=False)
    assert done.returncode == 0, done.stdout
    subprocess.run(
        ["git", "--git-dir", str(repository(service)), "fsck", "--strict", "--no-dangling"], check=True
    )


class Publishers:
    """Callers who publish as fast as they can, and remember what they were told."""

    def __init__(self, service: Service, count: int) -> None:
        self.acknowledged: dict[tuple[str, int], str] = {}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(owner_of(service), f"w{number}"))
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, owner: Caller, slug: str) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            label = f"{slug} {time.time_ns()}"
            try:
                if save(owner, slug, label) < 300:
                    answer = owner.call("POST", f"/workflows/{slug}/versions/publish")
                    if answer.status == 201:
                        self.acknowledged[slug, answer.json["version_number"]] = label
            except (OSError, URLError):
                return  # the service is gone

    def join(self) -> dict[tuple[str, int], str]:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.acknowledged


def kill_and_restart(service: Service, rounds: int) -> tuple[int, float]:
    """Kill all processes at a random moment, again and again: (versions acknowledged, slowest start)."""
    draw = random.Random(7)  # noqa: S311
    acknowledged: dict[tuple[str, int], str] = {}
    slowest = 0.0
    for _ in range(rounds):
        publishers = Publishers(service, 3)
        wait_for(lambda p=publishers: p.acknowledged, "nothing is published")
        time.sleep(draw.uniform(0.0, 1.0))
        for process in family(service):
            process.kill()
        service.stop()
        acknowledged.update(publishers.join())
        started = time.monotonic()
        service.start()
        slowest = max(slowest, time.monotonic() - started)
        for (slug, number), label in acknowledged.items():
            assert owner_of(service).definition(slug, number) == definition(label).encode()
        # Each can be written at once, or as soon as the worker has swept.
        for number in range(3):
            slug = f"w{number}"
            wait_for(lambda s=slug: save(owner_of(service), s, "after") < 300, f"{slug} stays locked")
    check_sound(service)
    wait_for(lambda: leftovers(service) == [], f"left over: {leftovers(service)}")
    return len(acknowledged), slowest


def test_killed_at_random_everything_acknowledged_is_there(own_service: Service) -> None:
    """The whole process tree, with SIGKILL, in the middle of publications."""
    acknowledged, _ = kill_and_restart(own_service, 2)
    assert acknowledged > 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_random_many_times(own_service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    acknowledged, slowest = kill_and_restart(own_service, ROUNDS)
    with capsys.disabled():
        print(f"\n  {ROUNDS} kills of the tree, {acknowledged} acknowledged, slowest start {slowest:.2f} s")


def test_postgres_killed_is_503_and_comes_back_by_itself(own_service: Service) -> None:
    """With Retry-After, and nothing written meanwhile; afterwards no connection is left over."""
    owner = owner_of(own_service)
    assert save(owner, "a", "one") == 201
    refused = []
    for _ in range(3):
        server = postmaster(own_service)
        server.suspend()  # so that it is away for long enough to be noticed
        for child in server.children():
            child.kill()
        server.kill()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            answer = owner.call("POST", "/workflows/a/versions/publish")
            if answer.status in (200, 201):
                break
            assert answer.status == 503, answer.raw
            assert int(answer.headers["Retry-After"]) >= 1
            refused.append(answer.json["code"])
        assert answer.status in (200, 201)
    assert set(refused) <= {"unavailable", "busy", "published_not_mirrored"}
    with own_service.owning() as tx:
        used = tx.value("select count(*) from pg_stat_activity where application_name = 'gitstore web'")
        idle = tx.value("select count(*) from pg_stat_activity where state = 'idle in transaction'")
    assert used <= 16
    assert idle == 0
    check_sound(own_service)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Service]:
    """A service whose repositories are on a disk of 4 MiB."""
    folder = tmp_path / "data" / "repos"
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    service = Service(tmp_path / "data")
    try:
        service.start()
        yield service
    finally:
        if service.process is not None:
            service.stop()
        subprocess.run(["umount", str(folder)], check=True)


def fill(service: Service, leave: int) -> Path:
    """A file that leaves so many bytes of the disk."""
    filler = service.data / "repos" / "filler"
    free = os.statvfs(filler.parent).f_bavail * os.statvfs(filler.parent).f_frsize
    with filler.open("wb") as file:
        file.write(bytes(max(free - leave, 0)))
    return filler


def test_a_full_disk_is_a_clean_error_and_nothing_is_left(small_disk: Service, tmp_path: Path) -> None:
    """For HTTP and for git, with more and less room left; once there is room, the same succeeds."""
    owner = owner_of(small_disk)
    assert save(owner, "a", "one") == 201
    assert owner.call("POST", "/workflows/a/versions/publish").status == 201
    ann = owner.author(tmp_path / "ann")
    for leave in (0, 8 * 1024, 24 * 1024, 40 * 1024):
        filler = fill(small_disk, leave)
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
        assert "the disk is full" in pushed.said
        assert leftovers(small_disk) == []
        filler.unlink()
        assert ann.push("drafts/a").ok
    assert "Traceback" not in owner.get("/workflows/a").raw.decode()
    assert owner.call("POST", "/workflows/a/versions/publish").json["version_number"] == 2
    check_sound(small_disk)


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Service]:
    """A service that works on one request at a time."""
    service = Service(tmp_path / "data", {"GITSTORE_THREADS": "1"}).start()
    yield service
    service.stop(signal.SIGTERM)


def test_clients_who_are_slow_hold_up_nobody(narrow: Service) -> None:
    """Not sending anything, a part of a head, of a body, of a push; not reading what they asked for."""
    owner, address = owner_of(narrow), urlsplit(narrow.url)
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
        # They were served beside those, and not after them.
        for request, client in slow:
            if "GET" not in request:
                client.setblocking(False)
                with pytest.raises(BlockingIOError):
                    client.recv(1)
