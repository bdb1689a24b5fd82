"""A tenant beside ten abusive clients, and beside ten ordinary ones that send as often.

    uv run python -m bench.abuse [--seconds 15] [--rate 2] [--each 2]

Starts a service of its own in a temporary folder. The tenant reads, saves and validates small definitions
20 times a second. Beside it are ten clients of another project: first ordinary ones, which do the same as the
tenant, then one of each kind of abuse, with tokens of their own or none. Each client begins `rate` requests a
second over `each` connections. Prints the tenant's errors, its median and 99th percentile beside both, the
ratio of the two, and what the abusive clients were answered.

The clients run in a process of their own, on the cores of the service.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from urllib.parse import urlsplit

from tests.stories.instance import Caller, Service, definition

TENANT_CLIENTS = 4
TENANT_RATE = 5.0
_TIMEOUT = 30.0
_MOST_STALLED = 300  # connections of each client that stalls
_JSON = {"Content-Type": "application/json"}
_YAML = {"Content-Type": "application/yaml"}
_ZERO = "0" * 40

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Request:
    """One request, the same each time; "%d" in the path or the body stands for a number that grows."""

    method: str
    path: str
    body: bytes = b""
    headers: Headers = field(default_factory=dict)


@dataclass(frozen=True)
class Client:
    """What one client sends, in turn; or how it stalls: what its connections send before they fall silent."""

    name: str
    requests: tuple[Request, ...] = ()
    stalls: tuple[bytes, ...] = ()


# What they send


def ordinary(name: str, caller: Caller, slug: str) -> Client:
    """Reads, small saves and small validations of a workflow of its own."""
    bearer = {"Authorization": f"Bearer {caller.token}"}
    small = json.dumps({"definition": definition("Small %d")}).encode()
    return Client(
        name,
        (
            Request("GET", f"/workflows/{slug}/versions/current", headers=bearer),
            Request("GET", f"/workflows/{slug}/versions/current/definition", headers=bearer),
            Request("GET", "/workflows", headers=bearer),
            Request("POST", f"/workflows/{slug}/validate", small, {**bearer, **_JSON}),
            Request("GET", f"/workflows/{slug}/versions", headers=bearer),
            Request("PUT", f"/workflows/{slug}/versions/draft", small, {**bearer, **_JSON, "If-Match": "*"}),
        ),
    )


def abusive(service: Service, folder: Path) -> list[Client]:
    """One of each kind."""
    bad = service.project("bad")
    prepare_wide(bad)

    def viewer() -> Headers:
        return {"Authorization": f"Bearer {service.caller('bad', 'viewer').token}"}

    def validate(name: str, body: bytes, kind: Headers) -> Client:
        return Client(name, (Request("POST", "/workflows/wide/validate", body, {**viewer(), **kind}),))

    host = urlsplit(service.url).netloc
    nodes = [{"id": f"n{n}", "type": "transform", "data": {"label": f"Node {n}"}} for n in range(4000)]
    cycle = [{"id": f"e{n}", "source": f"n{n}", "target": f"n{(n + 1) % 4000}"} for n in range(4000)]
    expression = definition("x").replace("https://warehouse.example/shipments", "{{" * 100_000)
    anchors = "name: x\nnodes: []\nextra:\n" + "".join(f"  - &a{n} {n}\n" for n in range(20_000))
    unknown = json.dumps({"definition": {"nodes": []}, "a" * 1_000_000: 1})
    return [
        validate("expressions", expression.encode(), _YAML),
        validate("huge validate", json.dumps({"nodes": nodes, "edges": []}).encode(), _JSON),
        validate("huge cycle", json.dumps({"nodes": nodes, "edges": cycle}).encode(), _JSON),
        validate("anchors", anchors.encode(), _YAML),
        validate("empty nodes", json.dumps({"nodes": [{}] * 40_000}).encode(), _JSON),
        validate("unknown key", unknown.encode(), _JSON),
        Client("wide diff", (Request("GET", "/workflows/wide/diff?from=1&to=2", headers=viewer()),)),
        Client("metrics", tuple(Request("GET", "/metrics", headers={"X-Forwarded-For": "::"}) for _ in "ab")),
        Client("pushes", (push(service.caller("bad", "editor"), folder),)),
        Client(
            "stalled",
            stalls=(
                f"GET /livez HTTP/1.1\r\nHost: {host}\r\n".encode(),
                f"POST /workflows HTTP/1.1\r\nHost: {host}\r\nContent-Length: 50\r\n\r\n{{".encode(),
                f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(),
            ),
        ),
    ]


def prepare_wide(bad: Caller) -> None:
    """Two versions of a workflow with a list of 15,000 items each."""
    for number in (1, 2):
        value = {
            "nodes": [{"id": "a", "type": "webhook", "data": {"label": "A", "config": {}}}],
            "wide": [n * number for n in range(15_000)],
        }
        path = "/workflows" if number == 1 else "/workflows/wide/versions"
        made = bad.call("POST", path, {"slug": "wide", "definition": value} if number == 1 else value)
        assert made.status == 201, made.raw
        done = bad.call("POST", "/workflows/wide/versions/publish", {})
        assert done.status == 201, done.raw


def push(editor: Caller, folder: Path) -> Request:
    """A push of a new draft with 3 MB that do not compress; the same pack each time, for another draft."""
    git = ("git", "-C", str(folder))
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    (folder / "workflow.yaml").write_text(definition("Big"))
    (folder / "data").write_bytes(os.urandom(3 * 2**20))
    subprocess.run([*git, "add", "."], check=True)
    identity = ("-c", "user.name=Bad", "-c", "user.email=bad@example.test")
    subprocess.run([*git, *identity, "commit", "--quiet", "-m", "Big"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    pack = subprocess.run(
        [*git, "pack-objects", "--stdout", "--revs", "-q"], input=b"HEAD\n", capture_output=True, check=True
    ).stdout
    command = f"{_ZERO} {head.strip()} refs/heads/drafts/big-%06d\0report-status"
    line = f"{len(command % 0) + 4:04x}{command}0000".encode()
    basic = b64encode(f"git:{editor.token}".encode()).decode()
    return Request(
        "POST",
        "/bad.git/git-receive-pack",
        line + pack,
        {"Authorization": f"Basic {basic}", "Content-Type": "application/x-git-receive-pack-request"},
    )


# How they send it


class Load:
    """Clients that send for some seconds, and what they were answered."""

    def __init__(self, url: str, seconds: float) -> None:
        self._address = urlsplit(url)
        self._seconds = seconds
        self._numbers = count(1)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.answers: Counter[str] = Counter()

    def run(self, clients: list[Client], rate: float, each: int) -> None:
        """Each client begins `rate` requests a second, over `each` connections."""
        start = time.perf_counter()
        threads = [
            threading.Thread(target=self._run, args=(client, start, place, rate / each))
            for place, client in enumerate(clients * each)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run(self, client: Client, start: float, place: int, rate: float) -> None:
        if client.stalls:
            self._stall(client, start)
            return
        due = start + (place % 10) / 10 / rate
        connection = self._connect()
        for turn in count(place):
            time.sleep(max(due - time.perf_counter(), 0.0))
            if time.perf_counter() > start + self._seconds:
                break
            begun = time.perf_counter()
            request = client.requests[turn % len(client.requests)]
            outcome = self._send(connection, request)
            self.times[f"{request.method} {request.path}"].append((time.perf_counter() - begun) * 1000)
            self.answers[f"{client.name}: {outcome}"] += 1
            if not outcome.isdigit():
                connection.close()
                connection = self._connect()
            due = max(due + 1 / rate, time.perf_counter())
        connection.close()

    def _send(self, connection: http.client.HTTPConnection, request: Request) -> str:
        """The status, or the name of what went wrong."""
        number = next(self._numbers)
        body = request.body
        if b"%" in body[:1000]:
            head, rest = body[:1000], body[1000:]
            body = head.replace(b"%06d", b"%06d" % number).replace(b"%d", b"%d" % number) + rest
        try:
            connection.request(request.method, request.path, body or None, dict(request.headers))
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        return str(answer.status)

    def _stall(self, client: Client, start: float) -> None:
        held: list[socket.socket] = []
        while time.perf_counter() < start + self._seconds:
            if len(held) < _MOST_STALLED:
                with suppress(OSError):
                    held.append(self._stalled(client.stalls[len(held) % len(client.stalls)]))
                    self.answers[f"{client.name}: opened"] += 1
            time.sleep(0.05)
        for each in held:
            each.close()

    def _stalled(self, sent: bytes) -> socket.socket:
        made = socket.create_connection((self._address.hostname or "", self._address.port or 80), _TIMEOUT)
        made.sendall(sent)
        return made

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=_TIMEOUT)


def others(url: str, seconds: float, clients: list[Client], rate: float, each: int) -> None:
    """The ten clients, in a process of their own."""
    load = Load(url, seconds)
    load.run(clients, rate, each)
    for outcome, times in sorted(load.answers.items()):
        print(f"    {outcome:<40} {times:>6}")


def measure(url: str, name: str, tenant: Client, clients: list[Client], given: argparse.Namespace) -> float:
    """The tenant's 99th percentile beside `clients`, in milliseconds."""
    beside = multiprocessing.get_context("fork").Process(
        target=others, args=(url, given.seconds + 1, clients, given.rate, given.each)
    )
    beside.start()
    time.sleep(1.0)
    load = Load(url, given.seconds)
    load.run([tenant] * TENANT_CLIENTS, TENANT_RATE, 1)
    beside.join()
    times = sorted(chain.from_iterable(load.times.values()))
    p99 = times[int(len(times) * 0.99)]
    errors = {
        outcome: times
        for outcome, times in load.answers.items()
        if outcome.split(": ")[1] not in ("200", "201")
    }
    print(
        f"beside {name:<18} {len(times):>6} requests {statistics.median(times):>8.1f} median "
        f"{p99:>8.1f} p99 {times[-1]:>8.1f} longest   errors: {errors or 'none'}",
        flush=True,
    )
    for path, each in load.times.items():
        print(f"    {path:<50} {statistics.median(each):>8.1f} median {max(each):>8.1f} longest")
    return p99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--each", type=int, default=2)
    parser.add_argument("--only", default="", help="kinds of abuse, with commas between")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gitstore-bench-") as folder:
        service = Service(Path(folder) / "data", {"GITSTORE_WORKERS": "2"}).start()
        try:
            run(service, Path(folder), given)
        finally:
            service.stop()


def run(service: Service, folder: Path, given: argparse.Namespace) -> None:
    good, neighbour = service.project("good"), service.project("neighbour")
    for caller, slugs in ((good, ["flow"]), (neighbour, [f"flow-{n}" for n in range(10)])):
        for slug in slugs:
            made = {"slug": slug, "definition": definition("x")}
            assert caller.call("POST", "/workflows", made).status == 201
            assert caller.call("POST", f"/workflows/{slug}/versions/publish", {}).status == 201
            assert caller.call("POST", f"/workflows/{slug}/versions", {}).status == 201
    tenant = ordinary("tenant", good, "flow")
    beside = [ordinary("ordinary", service.caller("neighbour", "editor"), f"flow-{n}") for n in range(10)]
    abuse = abusive(service, folder / "big")
    kinds = [kind.strip() for kind in given.only.split(",") if kind.strip()]
    abuse = [client for client in abuse if not kinds or client.name in kinds]
    calm = measure(service.url, "ordinary clients", tenant, beside, given)
    p99 = measure(service.url, "abusive clients", tenant, abuse, given)
    print(f"ratio of the 99th percentiles: {p99 / calm:.1f}")


if __name__ == "__main__":
    main()
