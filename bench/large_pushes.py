"""Measure a large push to a running service, and how long other clients of the project wait during it.

One client creates workflows, one saves a draft, and one pushes small drafts; each sends one request after
the other. The bench prints the slowest request of each client, with and without the large push.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.pushes import Server, Wire
from gitstore import names
from gitstore.push.request import ZERO
from tests.stories.instance import Caller, Service, definition
from tests.sync.large_push import LargePush


def drafts(count: int) -> LargePush:
    return LargePush().drafts(f"w-{number:05}" for number in range(count))


def versions(count: int, workflows: int) -> LargePush:
    """`count` versions, evenly of `workflows`."""
    large = LargePush()
    for number in range(workflows):
        large.versions(f"w-{number:05}", count // workflows)
    return large


class Beside:
    """Other clients of the project, and the seconds of their slowest request.

    The pusher has a token of its own: the pushes of one token take turns.
    """

    def __init__(self, service: Service, owner: Caller) -> None:
        self._owner = owner
        self._pusher = service.caller(owner.project, "editor")
        self._count = 0
        self.slowest: dict[str, float] = {}

    @contextmanager
    def working(self) -> Iterator[None]:
        done = threading.Event()
        self.slowest = {}
        self._put("save")
        works = {"POST /workflows": self._create, "save": self._save, "small push": self._push}
        threads = [threading.Thread(target=self._run, args=(*work, done)) for work in works.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join()

    def _run(self, name: str, work: Callable[[], None], done: threading.Event) -> None:
        while not done.is_set():
            began = time.perf_counter()
            work()
            self.slowest[name] = max(self.slowest.get(name, 0.0), time.perf_counter() - began)

    def _slug(self) -> str:
        self._count += 1
        return f"beside-{self._count}-{threading.get_ident() % 1000}"

    def _put(self, slug: str) -> None:
        body = {"slug": slug}
        assert self._owner.call("POST", "/workflows", body).status in (201, 409)

    def _create(self) -> None:
        self._put(self._slug())

    def _save(self) -> None:
        headers = {"If-Match": "*", "Content-Type": "application/yaml"}
        content = definition(f"Save {time.time()}").encode()
        answer = self._owner.call("PUT", "/workflows/save/versions/draft", content, headers=headers)
        assert answer.status == 200, answer.raw

    def _push(self) -> None:
        small = LargePush()
        small.put(names.draft(slug := self._slug()), small.commit(slug), ZERO)
        wire(self._pusher).push(small.request(), refs=1)


def wire(owner: Caller) -> Wire:
    return Wire(Server(f"{owner.url}/{owner.project}.git", owner.token))


def report(what: str, seconds: float, slowest: dict[str, float]) -> None:
    shown = ", ".join(f"{name} {1000 * taken:.0f} ms" for name, taken in slowest.items())
    print(f"{what}: {seconds:.1f} s; the slowest beside it: {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drafts", type=int, default=5000)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--workflows", type=int, default=100, help="that the versions are of")
    options = parser.parse_args()
    shapes = {
        f"{options.drafts} new drafts": drafts(options.drafts),
        f"{options.versions} versions of {options.workflows} workflows": versions(
            options.versions, options.workflows
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "data", {"GITSTORE_WORKERS": "2"}).start()
        try:
            for number, (what, large) in enumerate(shapes.items()):
                if not large.refs:
                    continue
                request = large.request()
                alone, others = service.project(f"alone-{number}"), service.project(f"beside-{number}")
                began = time.perf_counter()
                wire(alone).push(request, refs=len(large.refs))
                report(what, time.perf_counter() - began, {})
                beside = Beside(service, others)
                with beside.working():
                    time.sleep(3)
                report("  nothing", 3, beside.slowest)
                began = time.perf_counter()
                with beside.working():
                    wire(others).push(request, refs=len(large.refs))
                    taken = time.perf_counter() - began
                report(f"  {what}, beside others", taken, beside.slowest)
        finally:
            service.stop()


if __name__ == "__main__":
    main()
