"""Clients of a cluster, as a program on a machine of its own: they publish and push through the proxy.

Each retries as a real client does: an HTTP publish with the same content, a push of the same refs, until the
answer is definite. A line of JSON records each acknowledged write: what was written, when, how long it took
with all retries, and after how many attempts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any
from urllib.error import HTTPError

from tests.stories.instance import Author, Caller, Pushed, definition

GIVE_UP = 180.0
"""Seconds after which a client calls the cluster broken."""
_PAUSE = 0.5
_ANSWER = 20.0  # seconds that a client waits for an answer
_ABANDONED = 15.0
"""Seconds after which a draft in the way is taken over: an attempt that did not come to its end left it."""
SHARED = "shared"


class BrokenError(Exception):
    """A write was refused, or not acknowledged in time."""


@dataclass
class Clients:
    """Their common state: the record, and the counts of failed attempts by cause."""

    caller: Caller
    out: Path
    folder: Path
    until: Path | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    failures: Counter[str] = field(default_factory=Counter)

    def record(self, **facts: Any) -> None:
        with self.lock, self.out.open("a") as file:
            file.write(json.dumps(facts) + "\n")

    def failed(self, cause: str) -> None:
        with self.lock:
            self.failures[cause[:160]] += 1

    def turns(self, count: int) -> Iterator[int]:
        """Yield 0, 1, …: `count` numbers, and on until the file `until` exists."""
        index = 0
        while index < count or (self.until is not None and not self.until.exists()):
            yield index
            index += 1

    # HTTP

    def publish(self, slug: str, mark: str) -> None:
        """Publish a definition named `mark` in one call, until it is acknowledged."""
        began, attempts, match, patience = time.time(), 0, "", _ABANDONED
        drafts: dict[str, float] = {}  # when each was first in the way
        body = json.dumps({"definition": definition(mark)}).encode()
        while True:
            attempts += 1
            status, answer = self._post(f"/workflows/{slug}/versions/publish", body, match)
            if status in (200, 201):
                break
            if "workflow_not_found" in answer:  # its first version needs it
                made, _ = self._post("/workflows", json.dumps({"slug": slug}).encode())
                patience = 0.0 if made == 201 else _ABANDONED  # the draft in the way is its own
            elif 400 <= status < 500 and status not in (404, 408, 409, 412, 429):
                raise BrokenError(f"publish {slug}: {status} {answer}")
            etag = json.loads(answer).get("etag", "") if status in (409, 412) else ""
            since = drafts.setdefault(etag, time.time())
            match = etag if time.time() - since >= patience else ""
            self.failed(f"publish {status} {_reason(answer)}")
            self._pause(began, f"publish {slug} {mark}: {status} {answer}")
        now = time.time()
        number = json.loads(answer)["version_number"]
        self.record(
            kind="publish", slug=slug, number=number, mark=mark, began=began, at=now, attempts=attempts
        )

    def _post(self, path: str, body: bytes, match: str = "") -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self.caller.token}", "Content-Type": "application/json"}
        if match:
            headers["If-Match"] = match
        request = urllib.request.Request(self.caller.url + path, body, headers, method="POST")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error, suppress(OSError, HTTPException):
                return error.code, error.read().decode()
            return error.code, ""
        except (OSError, HTTPException) as error:
            return 0, str(error)

    @staticmethod
    def _pause(began: float, what: str) -> None:
        if time.time() - began > GIVE_UP:
            raise BrokenError(what)
        time.sleep(_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311

    # git

    def push(self, author: Author, *refs: str) -> bool:
        """Push until the answer is definite; return whether the refs were accepted."""
        began = time.time()
        while True:
            try:
                pushed = author.push("--porcelain", *refs)
            except TimeoutExpired:
                pushed = Pushed(False, "no answer")
            if pushed.ok:
                return True
            if "already" in pushed.output or "published and can't change" in pushed.output:
                return False
            self.failed(f"push {' '.join(pushed.output.split()[-30:])}")
            self._pause(began, f"push {refs}: {pushed.output}")

    def clone(self, name: str) -> Author:
        """Clone as an author with a token of its own: a service works on one push of a token at a time."""
        answer = self.caller.call("POST", "/tokens", {"name": name, "role": "publisher"})
        assert answer.status == 201, answer.raw
        caller = replace(self.caller, token=json.loads(answer.raw)["token"])
        author = Author(self.folder / name, caller, name)
        began = time.time()
        while True:
            try:
                author.clone()
            except (AssertionError, TimeoutExpired) as error:
                self.failed(f"clone {error}")
                self._pause(began, f"clone: {error}")
            else:
                return author


def _reason(answer: str) -> str:
    """Return the explanation in an answer of gitstore; what the proxy answers has none."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(answer)["detail"])
    return answer


def publisher(clients: Clients, number: int, count: int) -> None:
    """Publish `count` versions: most to a workflow of its own, every fourth to one that all share."""
    for index in clients.turns(count):
        slug = SHARED if index % 4 == 3 else f"http-{number}"
        clients.publish(slug, f"h{number}-{index}")


def pusher(clients: Clients, number: int, count: int) -> None:
    """Push a draft, and a tag that publishes it, `count` times."""
    author, slug = clients.clone(f"pusher{number}"), f"git-{number}"
    for index in clients.turns(count):
        began, mark = time.time(), f"g{number}-{index}"
        author.draft(slug, definition(mark))
        author.tag(slug, index + 1, mark)
        if not clients.push(author, f"drafts/{slug}", f"{slug}/v{index + 1}"):
            raise BrokenError(f"{slug}/v{index + 1} was refused")
        clients.record(
            kind="push", slug=slug, number=index + 1, mark=mark, began=began, at=time.time(), attempts=1,
            oid=author.git("rev-parse", f"{slug}/v{index + 1}"),
        )  # fmt: skip


def race(clients: Clients, count: int) -> None:
    """Let two authors push different tags of one name at the same time; both get a definite answer."""
    authors = [clients.clone(f"racer{which}") for which in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        for index in clients.turns(count):
            slug, began = "race", time.time()
            first, second = authors
            first.draft(slug, definition(f"r-{index}"))
            clients.push(first, f"drafts/{slug}")
            second.git("fetch", "-q", str(first.folder), f"drafts/{slug}")
            second.git("checkout", "-q", "-B", f"drafts/{slug}", "FETCH_HEAD")
            for which, author in enumerate(authors):
                author.git("tag", "-f", "-a", f"{slug}/v{index + 1}", "-m", f"racer {which}")
            won = list(pool.map(partial(_pushes, clients, f"{slug}/v{index + 1}"), authors))
            oids = [author.git("rev-parse", f"{slug}/v{index + 1}") for author in authors]
            clients.record(
                kind="race", slug=slug, number=index + 1, mark=f"r-{index}", began=began, at=time.time(),
                attempts=1, won=won, oids=oids, oid=oids[won.index(True)] if True in won else None,
            )  # fmt: skip


def _pushes(clients: Clients, ref: str, author: Author) -> bool:
    return clients.push(author, ref)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--publishers", type=int, default=4)
    parser.add_argument("--publishes", type=int, default=10, help="of each publisher")
    parser.add_argument("--pushers", type=int, default=1)
    parser.add_argument("--pushes", type=int, default=5, help="of each pusher")
    parser.add_argument("--races", type=int, default=3)
    parser.add_argument("--until", type=Path, help="go on beyond the counts until this file exists")
    given = parser.parse_args()
    caller = Caller(given.url, "default", os.environ["GITSTORE_TEST_TOKEN"])
    given.folder.mkdir()
    clients = Clients(caller, given.out, given.folder, given.until)
    with ThreadPoolExecutor(given.publishers + given.pushers + 1) as pool:
        running = [
            pool.submit(publisher, clients, number, given.publishes) for number in range(given.publishers)
        ]
        running += [pool.submit(pusher, clients, number, given.pushes) for number in range(given.pushers)]
        running.append(pool.submit(race, clients, given.races))
    errors = [repr(error) for error in (future.exception() for future in running) if error is not None]
    clients.record(kind="end", errors=errors, failures=clients.failures.most_common(40))


if __name__ == "__main__":
    main()
