"""How long each endpoint takes: 8 clients, 1,000 versions, fsync on.

    uv run python -m bench.endpoints [--seconds 5] [--clients 8] [--versions 1000] [--every 0]

Starts a service of its own in a temporary folder, fills it by `git push`, and prints the median, the 99th
percentile and the rate of each endpoint, then of a small `git push` of a commit and its tag, beside one that
has nothing to push, which is git's own share of it. The clients run on the same machine as the service, and
take their part of its cores.

By default, each client sends its next request at once: the machine is busy, and a time includes the wait for
the other clients. With `--every 0.2`, each sends five requests a second, as people and engines do.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from tests.stories.instance import Author, Caller, Service, definition

JSON = {"Content-Type": "application/json"}
Call = Callable[["Client"], object]


class Client:
    """One connection, kept alive, and a workflow of its own to write to."""

    def __init__(self, owner: Caller, number: int, middle: int) -> None:
        address = urlsplit(owner.url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port)
        self._token = owner.token
        self.slug = f"client-{number}"
        self.middle = middle
        self.turn = count(1)

    def call(self, method: str, path: str, body: object = None, **headers: str) -> http.client.HTTPResponse:
        sent = {"Authorization": f"Bearer {self._token}", **(JSON if body is not None else {}), **headers}
        data = json.dumps(body) if body is not None else None
        self._connection.request(method, path, data, sent)
        answer = self._connection.getresponse()
        answer.read()
        assert answer.status < 300, (method, path, answer.status)
        return answer

    def save(self) -> None:
        body = {"definition": definition(f"{self.slug} {next(self.turn)}")}
        self.call("PUT", f"/workflows/{self.slug}/versions/draft", body, **{"If-Match": "*"})

    def save_and_publish(self) -> None:
        body = {"definition": definition(f"{self.slug} {next(self.turn)}")}
        self.call("POST", f"/workflows/{self.slug}/versions", body)
        self.call("POST", f"/workflows/{self.slug}/versions/publish", {})


def get(path: str) -> Call:
    return lambda client: client.call("GET", path.replace("{n}", str(client.middle)))


ENDPOINTS: dict[str, Call] = {  # "{n}" stands for a version in the middle
    "GET /workflows": get("/workflows"),
    "GET /workflows/{id}": get("/workflows/bench"),
    "GET history, newest page": get("/workflows/bench/versions?limit=20"),
    "GET history, 100 a page": get("/workflows/bench/versions?limit=100"),
    "GET version": get("/workflows/bench/versions/{n}"),
    "GET current": get("/workflows/bench/versions/current"),
    "GET definition": get("/workflows/bench/versions/{n}/definition"),
    "GET current definition": get("/workflows/bench/versions/current/definition"),
    "POST validate": lambda client: client.call(
        "POST", "/workflows/bench/validate", {"definition": definition("x")}
    ),
    "PUT draft": Client.save,
}


def fill(author: Author, versions: int) -> None:
    """`versions` of the workflow `bench`, in one push."""
    stream = []
    for number in range(1, versions + 1):
        text = definition(f"v{number}")
        stream.append(
            f"commit refs/heads/drafts/bench\n"
            f"committer Ann <ann@example.test> {1_700_000_000 + number} +0000\n"
            f"data 1\nx\nM 100644 inline workflow.yaml\ndata {len(text)}\n{text}\n"
            f"reset refs/tags/bench/v{number}\nfrom refs/heads/drafts/bench\n\n"
        )
    command = ["git", "-C", str(author.folder), "fast-import", "--quiet"]
    subprocess.run(command, input="".join(stream).encode(), check=True)
    begun = time.perf_counter()
    pushed = author.push("drafts/bench", "--tags")
    assert pushed.ok, pushed.output[-2000:]
    print(f"git push of {versions:,} versions at once: {time.perf_counter() - begun:.1f} s")


def measure(call: Call, clients: list[Client], seconds: float, every: float = 0.0) -> list[float]:
    """The times of every call, in milliseconds, of all clients at once; each begins one `every` seconds."""
    times: list[float] = []
    start = time.perf_counter()

    def run(client: Client) -> None:
        # Not all at the same moment.
        due = start + every * clients.index(client) / len(clients)
        while due < start + seconds and time.perf_counter() < start + seconds:
            time.sleep(max(due - time.perf_counter(), 0.0))
            begun = time.perf_counter()
            call(client)
            times.append((time.perf_counter() - begun) * 1000)
            due = max(due + every, time.perf_counter() if not every else 0.0)

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def show(name: str, times: list[float], seconds: float) -> None:
    """One line; the first tenth is a warm-up and left out."""
    kept = sorted(times[len(times) // 10 :])
    p99 = kept[int(len(kept) * 0.99)] if kept else 0.0
    print(f"{name:<28} {statistics.median(kept):>8.1f} {p99:>8.1f} {len(times) / seconds:>9.0f}")


def measure_pushes(author: Author, pushes: int) -> None:
    """A commit and its tag, pushed with stock git, one after the other."""
    times = []
    for number in range(1, pushes + 1):
        author.draft("pushed", definition(f"p{number}"))
        author.tag("pushed", number)
        begun = time.perf_counter()
        assert author.push("drafts/pushed", f"pushed/v{number}").ok
        times.append((time.perf_counter() - begun) * 1000)
    show("git push, commit and tag", times, sum(times) / 1000)
    times = []
    for _ in range(pushes):
        begun = time.perf_counter()
        assert author.push("drafts/pushed").ok
        times.append((time.perf_counter() - begun) * 1000)
    show("git push, up to date", times, sum(times) / 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--pushes", type=int, default=30)
    parser.add_argument("--every", type=float, default=0.0, metavar="SECONDS")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gitstore-bench-") as folder:
        service = Service(Path(folder) / "data", {"GITSTORE_WORKERS": "2"}).start()
        try:
            owner = service.caller("default", "owner")
            author = owner.author(Path(folder) / "ann")
            fill(author, given.versions)
            middle = max(given.versions // 2, 1)
            clients = [Client(owner, number, middle) for number in range(given.clients)]
            for client in clients:
                client.call("POST", "/workflows", {"slug": client.slug, "definition": definition("x")})
            print(f"{'':<28} {'median':>8} {'p99':>8} {'a second':>9}      (milliseconds)")
            for name, call in ENDPOINTS.items():
                show(name, measure(call, clients, given.seconds, given.every), given.seconds)
            for client in clients:
                client.call("POST", f"/workflows/{client.slug}/versions/publish", {})
            times = measure(Client.save_and_publish, clients, given.seconds, given.every)
            show("POST draft + POST publish", times, given.seconds)
            measure_pushes(author, given.pushes)
        finally:
            service.stop()


if __name__ == "__main__":
    main()
