"""What every measure uses: a service with seeded projects, its peers, its clients, and the CPU of each."""

from __future__ import annotations

import http.client
import os
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import psutil

from bench import peers, seeds
from bench.load import Clients, Job, Taken
from bench.measures import Form, by_turns, median, seconds
from gitstore.model import Rules
from service.config import Config
from sync import catalog
from sync.embedded.server import EmbeddedPostgres
from tests.stories.instance import Caller, Service

_TICK = 1 / os.sysconf("SC_CLK_TCK")
"""The seconds in which the kernel counts CPU."""


@dataclass
class Side:
    """One of the two servers: its port, the Authorization of its clients, and the process that began it."""

    port: int
    tokens: Sequence[str]
    pids: Callable[[], Sequence[int]]

    def bearer(self, client: int) -> str:
        return f"Bearer {self.tokens[client % len(self.tokens)]}"

    def basic(self, client: int) -> str:
        return "Basic " + b64encode(f"git:{self.tokens[client % len(self.tokens)]}".encode()).decode()

    def cpu(self) -> float:
        """The seconds of CPU that its processes have used, with those of their children that ended."""
        return sum(_cpu(process) for pid in self.pids() for process in _tree(pid))


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    return []


def _cpu(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return sum(process.cpu_times()[:4])
    return 0.0


@dataclass
class Load:
    """What came of one side's jobs, all rounds together: `cpu` is the seconds for each operation."""

    taken: list[Taken] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        return median(one.rate for one in self.taken)

    @property
    def last(self) -> list[float]:
        return [time for one in self.taken for time in one.last()]

    @property
    def whole(self) -> list[float]:
        return [time for one in self.taken for time in one.whole()]


class Rig:
    """A service on a copy of a seeded data folder, with peers and clients that start at their first use."""

    def __init__(
        self, form: Form, report: Callable[[str], object] = print, cache: Path = seeds.CACHE
    ) -> None:
        self.form, self.report = form, report
        self._cache = cache
        self._stack = ExitStack()
        self._tokens: dict[tuple[str, int], list[str]] = {}
        self._etags: dict[tuple[int, str], str] = {}
        self._count = 0

    def __enter__(self) -> Self:
        self._cache.mkdir(mode=0o711, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(dir=self._cache, prefix="run-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.chmod(0o711)
        seeds.copied(self.form.sizes, self.folder / "data", self.report, self._cache)
        settings = {"GITSTORE_WORKERS": "2", "GITSTORE_EGRESS_ALLOW": "127.0.0.0/8"}
        self.service = Service(self.folder / "data", settings).start()
        self._stack.callback(self.service.stop)
        self.clients = Clients()
        self._stack.callback(self.clients.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def largest(self) -> int:
        return max(self.form.sizes)

    @property
    def smallest(self) -> int:
        return min(self.form.sizes)

    @property
    def conninfo(self) -> str:
        return EmbeddedPostgres(Config.from_env(self.service.settings()).postgres_folder).conninfo()

    def path(self, project: str) -> Path:
        """The repository of a project."""
        with self.service.owning() as transaction:
            row = catalog.project(transaction, project)
        assert row is not None
        return self.service.data / "repos" / f"{row.id}.git"

    def fresh(self, name: str = "fresh", rules: Rules = Rules.MESHHOOK) -> Caller:
        """The owner of a new, empty project."""
        self._count += 1
        return self.service.project(f"{name}-{self._count}", rules)

    def owner(self, project: str) -> Caller:
        """An owner of a project."""
        return Caller(self.service.url, project, self.ours(project).tokens[0])

    def ours(self, project: str, clients: int = 1) -> Side:
        """gitstore, with a token for each client: requests of one token may take turns."""
        tokens = self._tokens.setdefault((project, clients), [])
        while len(tokens) < clients:
            tokens.append(self.service.caller(project, "owner").token)
        port = int(self.service.url.rpartition(":")[2])
        return Side(port, tokens, self._service_pids)

    def _service_pids(self) -> list[int]:
        assert self.service.process is not None
        return [self.service.process.pid]

    def sql(self) -> peers.Connection:
        """A connection to the tables of the Flask application."""
        assert self.flask
        return peers.connect(self.conninfo)

    @cached_property
    def flask(self) -> Side:
        """The Flask application, which reads the largest seeded project. Its CPU includes Postgres'."""
        peers.prepare(self.conninfo, seeds.project(self.largest))
        serving = peers.serving_flask(self.service.settings(), self.conninfo, self.folder / "peer.log")
        port, pid = self._stack.enter_context(serving)
        return Side(port, [peers.TOKEN], lambda: [pid, *self._postgres()])

    def _postgres(self) -> list[int]:
        family = self.service.family()
        return [process.pid for process in family if process.name() == "postgres"][:1]

    @cached_property
    def git(self) -> Side:
        """git's own server, of the repositories in `plain` and of the service's, below /git/."""
        plain = self.folder / "data" / "plain"
        plain.mkdir()
        port, pid = self._stack.enter_context(peers.serving_git(self.folder / "data", self.folder))
        return Side(port, ["-"], lambda: [pid])

    def plain(self, project: str) -> str:
        """The path, at git's own server, of a copy of a project's repository, for pushes."""
        path = self.folder / "data" / "plain" / f"{project}.git"
        if self.git and not path.exists():
            peers.plain_copy(self.path(project), path)
        return f"/git/plain/{path.name}"

    def etag(self, side: Side, path: str) -> str:
        """The ETag of the answer to a GET."""
        if (side.port, path) not in self._etags:
            self._etags[side.port, path] = self._answer(side, path, side.bearer(0))[0] or '"none"'
        return self._etags[side.port, path]

    def get(self, side: Side, path: str, authorization: str) -> bytes:
        """The body of the answer to a GET."""
        return self._answer(side, path, authorization)[1]

    def _answer(self, side: Side, path: str, authorization: str) -> tuple[str | None, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", side.port)) as connection:
            connection.request("GET", path, headers={"Authorization": authorization})
            answer = connection.getresponse()
            return answer.headers.get("ETag"), answer.read()

    def loads(self, *sides: tuple[Side, Callable[[int], Job]]) -> list[Load]:
        """Run jobs of the sides by turns, after a first round (0) that warms up."""

        def working(job: Callable[[int], Job]) -> Callable[[int], Taken]:
            return lambda number: self.clients.run(job(number))

        return self.turns(*((side, working(job)) for side, job in sides))

    def timed(self, *sides: tuple[Side, Callable[[int], object]]) -> list[Load]:
        """Run works that are one operation each, as `loads` does."""

        def timing(work: Callable[[int], object]) -> Callable[[int], Taken]:
            def run(number: int) -> Taken:
                taken = seconds(lambda: work(number))
                return Taken([(taken,)], taken)

            return run

        return self.turns(*((side, timing(work)) for side, work in sides))

    def turns(self, *sides: tuple[Side, Callable[[int], Taken]]) -> list[Load]:
        """Run works of the sides by turns, after a first round (0) that warms up."""
        loads = [Load() for _ in sides]

        def turn(at: int) -> Callable[[int], None]:
            side, work = sides[at]

            def run(number: int) -> None:
                before = side.cpu()
                taken = work(number)
                if number:
                    loads[at].taken.append(taken)
                    loads[at].cpu += side.cpu() - before

            return run

        by_turns(self.form.rounds + 1, *(turn(at) for at in range(len(sides))))
        for load in loads:
            load.cpu = max(load.cpu, _TICK) / sum(len(taken.operations) for taken in load.taken)
        return loads
