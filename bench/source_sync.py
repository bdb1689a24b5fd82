"""The time from a publication upstream until the version is current here.

    uv run python -m bench.source_sync [--tags 20] [--hooks 300] [--import 1000]

Starts a service of its own and an upstream behind `git http-backend`, all on this machine, and prints:
the response time of a webhook (one client, kept alive), the time from a tag's push upstream and its webhook
until the version is readable here, and the time of a first import of many tags.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import http.client
import json
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.helpers import until
from tests.stories.instance import Caller, Service
from tests.webhooks.upstream import Upstream, flow, upstream_in

SECRET = "It's-a-secret-to-everybody"


class HookTarget:
    """The forge of the upstream, as GitHub signs."""

    def __init__(self, owner: Caller, url: str) -> None:
        made = owner.call("POST", "/sources", {"url": url, "forge": "github", "secret": SECRET})
        assert made.status == 201, made.raw
        self.path = f"/hooks/{made.json['id']}"
        address = urlsplit(owner.url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port)
        self._count = 0

    def send(self) -> float:
        """Seconds until the answer."""
        self._count += 1
        body = json.dumps(
            {"ref": f"refs/tags/x/v{self._count}", "before": "0" * 40, "after": "a" * 40}
        ).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Hub-Signature-256": "sha256=" + hmac.digest(SECRET.encode(), body, hashlib.sha256).hex(),
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": f"bench-{self._count}",
        }
        started = time.perf_counter()
        self._connection.request("POST", self.path, body, headers)
        answer = self._connection.getresponse()
        answer.read()
        assert answer.status == 202, answer.status
        return time.perf_counter() - started


def report(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"{what}: median {statistics.median(ordered) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms")


def latency(owner: Caller, upstream: Upstream, bell: HookTarget, tags: int) -> list[float]:
    """From the webhook that follows a push, to the version being readable."""
    found = []
    for number in range(1, tags + 1):
        upstream.version("order-sync", number)
        started = time.perf_counter()
        bell.send()
        while owner.get(f"/workflows/order-sync/versions/{number}").status != 200:
            time.sleep(0.005)
        found.append(time.perf_counter() - started)
    return found


def first_import(owner: Caller, upstream: Upstream, tags: int) -> float:
    """Of an upstream that has many tags already."""
    for number in range(1, tags + 1):
        upstream.commit("workflow.yaml", flow(f"https://v{number}.example/"))
        upstream.git("tag", "-a", "-m", "Ship it", f"many/v{number}")
    upstream.push("--tags")
    started = time.perf_counter()
    owner.call("POST", "/sources", {"url": upstream.url})
    until(lambda: owner.get(f"/workflows/many/versions/{tags}").status == 200, "it did not end")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tags", type=int, default=20)
    parser.add_argument("--hooks", type=int, default=300)
    parser.add_argument("--import", type=int, default=1000, dest="many")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, upstream_in(Path(folder) / "a") as upstream:
        service = Service(Path(folder) / "data", {"GITSTORE_EGRESS_ALLOW": "127.0.0.0/8"}).start()
        try:
            owner = service.project("bench")
            bell = HookTarget(owner, upstream.url)
            there = lambda: owner.get("/sources").json["sources"][0]["state"] == "ok"  # noqa: E731
            until(there, "the worker is not there")
            report("a webhook, until it is answered", [bell.send() for _ in range(options.hooks)])
            seconds = latency(owner, upstream, bell, options.tags)
            report("a tag upstream and its webhook, until the version is readable here", seconds)
            with upstream_in(Path(folder) / "b") as other:
                taken = first_import(service.project("many"), other, options.many)
            print(f"first import of {options.many} tags: {taken:.1f} s")
            lines = [line for line in service.log().splitlines() if "importing" in line]
            print(f"lines of progress in the log: {len(lines)}; the last: {lines[-1][:200]}")
        finally:
            service.stop()


if __name__ == "__main__":
    main()
