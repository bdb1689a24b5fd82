"""gitstore compared with plain Git and plain Postgres: every ratio, in one run.

    uv run python -m bench.ratios [publish] [push] [many] [history] [clone] [memory]
        [--versions 100000] [--tags 10000] [--rounds 200] [--pushers 8] [--pushes 10]

Without names, all of them. Both sides of a ratio take turns, on the same machine and disk, in the same
minute, and their medians are printed. bench/baseline_server.py serves the other side as gitstore is served:

publish   `POST .../publish` over HTTP, against the same rows written by the same Flask application without
          Git (bench/sql_baseline.py)
push      a commit and its tag, by 8 pushers at once, against `git http-backend` with fsync and fsck on
          (bench/git_baseline.py): by git itself, and as its two requests with packs made beforehand
many      `POST .../publish` of a workflow with 100,000 versions, against one with 10
history   a page of the history out of 100,000 versions, against the bare SQL in the same Flask application
clone     clone and ls-remote of 10,000 tags, against `git http-backend` on the same repository
memory    the peak of a push near the limits, children included

The versions are made by bench/many_versions.py, and their rows by `gitstore rebuild`: minutes for 100,000.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from bench import git_baseline, memory, sql_baseline
from bench.baseline_server import serving_baseline
from bench.many_versions import many_versions
from bench.pushes import Server, Wire, Work, at_once
from service.lookup import cursor_to
from sync import catalog
from tests.stories.instance import PLAIN, Caller, Service, definition

Turn = Callable[[], float]


@dataclass(frozen=True)
class Line:
    """A row of the table. `ratio` is within its bar when it is at most that, or at least, for `rate`."""

    what: str
    ours: str
    theirs: str
    ratio: float
    bar: float
    rate: bool = False

    def __str__(self) -> str:
        within = self.ratio >= self.bar if self.rate else self.ratio <= self.bar
        bar = f"{'>=' if self.rate else '<='} {self.bar:g}"
        verdict = "within" if within else "OVER"
        return f"{self.what:<46} {self.ours:>12} {self.theirs:>12} {self.ratio:>7.2f} {bar:>7}  {verdict}"


class Client:
    """One connection, kept alive, with a token."""

    def __init__(self, caller: Caller, url: str | None = None) -> None:
        address = urlsplit(url or caller.url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port)
        self._token = caller.token

    def __call__(self, method: str, path: str, body: object = None) -> float:
        """Seconds until the whole answer is there."""
        sent = {"Authorization": f"Bearer {self._token}"}
        if body is not None:
            sent["Content-Type"] = "application/json"
        data = json.dumps(body) if body is not None else None
        begun = time.perf_counter()
        self._connection.request(method, path, data, sent)
        answer = self._connection.getresponse()
        content = answer.read()
        taken = time.perf_counter() - begun
        assert answer.status < 300, (method, path, answer.status, content)
        return taken


class Bench:
    """Starts a service and its baselines, and measures both."""

    def __init__(self, folder: Path, stack: ExitStack, options: argparse.Namespace) -> None:
        self._folder, self._stack, self._options = folder, stack, options
        workers = {"GITSTORE_WORKERS": str(options.workers)}
        self.service = Service(folder / "data", workers).start()
        stack.callback(self.service.stop)

    # What several lines need, made at first use

    @cached_property
    def sql_url(self) -> str:
        return self._stack.enter_context(serving_baseline(self.service, sql_baseline.MAKER))

    @cached_property
    def git_url(self) -> str:
        return self._stack.enter_context(serving_baseline(self.service, git_baseline.MAKER))

    @cached_property
    def large(self) -> Caller:
        """The owner of a project whose workflow `flow` has very many versions, rows included."""
        return self._filled("large", self._options.versions)

    def _filled(self, project: str, versions: int, *, mirrored: bool = True) -> Caller:
        owner = self.service.project(project)
        begun = time.perf_counter()
        many_versions(self._repository(project), "flow", versions)
        made = time.perf_counter() - begun
        if mirrored:
            self.service.cli("rebuild", project)
        taken = time.perf_counter() - begun - made
        report(f"{versions:,} versions made in {made:.0f} s, their rows in {taken:.0f} s")
        return owner

    def _repository(self, project: str) -> Path:
        with self.service.owning() as tx:
            row = catalog.project(tx, project)
            assert row is not None
        return self.service.data / "repos" / f"{row.id}.git"

    # The lines

    def publish(self) -> Iterator[Line]:
        ours, theirs = self.service.project("ours"), self.service.project("theirs")
        here, there = Client(ours), Client(theirs, self.sql_url)
        here("POST", "/workflows", {"slug": "flow", "definition": definition("first")})
        turn = publishing(here, "flow")
        here("POST", "/workflows/flow/versions/publish", {})

        def publish_rows() -> float:
            there("POST", "/baseline/flow/draft", {})
            return there("POST", "/baseline/flow/publish", {})

        yield compared("publish over HTTP / rows alone", turn, publish_rows, self._options.rounds, 3)

    def push(self) -> Iterator[Line]:
        owner = self.service.project("pushed")
        git_baseline.new_repository(self.service.data, "pushed")
        here = Server(f"{owner.url}/pushed.git", owner.token)
        there = Server(f"{self.git_url}/plain/pushed.git", owner.token)
        pushers, each, rounds = self._options.pushers, self._options.pushes, 5

        work = Work(self._folder / "by-git.git", "git", pushers, each * (rounds + 1))
        turns = [
            [[partial(work.by_git, to, one) for one in mine] for mine in work.pushes] for to in (here, there)
        ]
        yield pushed("push of commit and tag, by git", turns, each)

        raw = Work(self._folder / "raw.git", "raw", pushers, each * (rounds + 1))
        bodies = [[raw.body(push) for push in mine] for mine in raw.pushes]
        wires = [[Wire(to) for _ in bodies] for to in (here, there)]
        turns = [
            [[partial(wire.push, body) for body in mine] for wire, mine in zip(side, bodies, strict=True)]
            for side in wires
        ]
        yield pushed("push of commit and tag, as two requests", turns, each)

    def many(self) -> Iterator[Line]:
        large, small = Client(self.large), Client(self._filled("small", 10))
        most, few = publishing(large, "flow"), publishing(small, "flow")
        what = f"publish with {self._options.versions:,} versions / with 10"
        yield compared(what, most, few, self._options.rounds, 1.2)

    def history(self) -> Iterator[Line]:
        here, there = Client(self.large), Client(self.large, self.sql_url)
        versions = self._options.versions
        for limit in (20, 100):
            for where, before in (("newest", 2**31 - 1), ("deep", versions // 2)):
                path = f"/workflows/flow/versions?limit={limit}"
                path += f"&cursor={cursor_to(before)}" if where == "deep" else ""
                bare = f"/baseline/flow/versions?limit={limit}&before={before}"
                ours, theirs = asking(here, path), asking(there, bare)
                yield compared(f"history, {limit} {where} / bare SQL", ours, theirs, self._options.rounds, 2)

    def clone(self) -> Iterator[Line]:
        owner = self._filled("tags", self._options.tags, mirrored=False)
        repository = self._repository("tags")
        here = Server(f"{owner.url}/tags.git", owner.token)
        there = Server(f"{self.git_url}/repos/{repository.name}", owner.token)
        ours, theirs = (self._git(to, "ls-remote") for to in (here, there))
        yield compared(f"ls-remote of {self._options.tags:,} tags", ours, theirs, 20, 1.2)
        ours, theirs = (self._git(to, "clone", "-q", "--bare") for to in (here, there))
        yield compared(f"clone of {self._options.tags:,} tags", ours, theirs, 7, 1.2)

    def _git(self, server: Server, *command: str) -> Turn:
        target = self._folder / "cloned.git"

        def turn() -> float:
            arguments = ["git", "-c", f"http.extraHeader=Authorization: {server.authorization}", *command]
            arguments += [server.url, *([str(target)] if command[0] == "clone" else [])]
            begun = time.perf_counter()
            subprocess.run(arguments, env=PLAIN, check=True, stdout=subprocess.DEVNULL)
            taken = time.perf_counter() - begun
            shutil.rmtree(target, ignore_errors=True)
            return taken

        return turn

    def memory(self) -> Iterator[Line]:
        owner = self.service.project("heavy")
        server = Server(f"{owner.url}/heavy.git", owner.token)
        most, rest = 0.0, 0.0
        for number in range(3):
            body = memory.near_limits(f"flow-{number}")
            with memory.watched(self.service) as peak:
                Wire(server).push(body, refs=1)
            report(f"process {peak.most:.0f} MiB (at rest {peak.rest:.0f}), and its child {peak.child:.0f}")
            most, rest = max(most, peak.most + peak.child), peak.rest
        yield Line("memory of a push near the limits", f"{most:.0f} MiB", f"rest {rest:.0f}", most / 256, 1)
        name, taken = memory.worst_bomb(self._folder, report)
        yield Line(f"memory of the worst bomb ({name})", f"{taken:.0f} MiB", "", taken / 256, 1)


def report(what: str) -> None:
    print(f"    {what}", flush=True)


def publishing(client: Client, slug: str) -> Turn:
    """Saves another draft, then publishes it; the seconds of the second."""
    turn = count(1)

    def publish() -> float:
        client("POST", f"/workflows/{slug}/versions", {"definition": definition(f"again {next(turn)}")})
        return client("POST", f"/workflows/{slug}/versions/publish", {})

    return publish


def asking(client: Client, path: str) -> Turn:
    return lambda: client("GET", path)


def compared(what: str, ours: Turn, theirs: Turn, rounds: int, bar: float) -> Line:
    """Turn by turn, after a tenth of warming up."""
    for _ in range(max(rounds // 10, 1)):
        ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    here, there = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
    return Line(what, f"{here:.2f} ms", f"{there:.2f} ms", here / there, bar)


def pushed(what: str, turns: Sequence[Sequence[Sequence[Callable[[], None]]]], each: int) -> Line:
    """Round by round, `each` pushes of every pusher; the first round warms up."""
    rates: list[list[float]] = [[], []]
    for start in range(0, len(turns[0][0]), each):
        for side, pushers in zip(rates, turns, strict=True):
            side.append(at_once([mine[start : start + each] for mine in pushers]))
    here, there = (statistics.median(side[1:]) for side in rates)
    return Line(what, f"{here:.0f} a second", f"{there:.0f} a second", here / there, 2, rate=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    lines = ("publish", "push", "many", "history", "clone", "memory")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(lines)}; all without")
    defaults = {"versions": 100_000, "tags": 10_000, "rounds": 200, "pushers": 8, "pushes": 10, "workers": 2}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if unknown := set(options.names) - set(lines):
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose of {', '.join(lines)}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gitstore-bench-")))
        folder.chmod(0o711)
        bench = Bench(folder, stack, options)
        print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"{'':<46} {'ours':>12} {'theirs':>12} {'ratio':>7} {'bar':>7}")
        for name in options.names or lines:
            try:
                for line in getattr(bench, name)():
                    print(line, flush=True)
            except Exception as error:  # one line that fails is no reason to measure no other
                print(f"{name}: could not be measured: {error!r}", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
