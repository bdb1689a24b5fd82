"""`gitstore serve` as a real process, for tests: started, looked at, killed; gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from service.config import METRICS_FOLDER, SETTINGS
from tests.conftest import copy_cluster
from tests.helpers import PATIENCE
from tests.helpers import until as until

ROOT = Path(__file__).parents[2]

GITSTORE = (sys.executable, "-P", "-m", "service.cli")

# `gitstore serve` with the stub in the application's place.
_STUB = f"""
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever ran the tests: nohup(1) lets its children ignore it
web = "import sys; sys.path.insert(0, {str(ROOT)!r}); from service.run.web import main; " \\
    "main(sys.argv[1:], 'tests.service.stub_app:create_app')"
from service import logs
from service.config import Config
from service.run.serve import WORKER, serve
config = Config.from_env()
logs.configure(config.log_format, config.log_level)
sys.exit(serve(config, sys.stdout, web=(sys.executable, "-P", "-c", web), worker=WORKER))
"""
STUB = (sys.executable, "-P", "-c", _STUB)


def environment(**settings: str) -> dict[str, str]:
    """The environment of a command: nobody's settings but these."""
    ours = {setting.name for setting in SETTINGS} | {METRICS_FOLDER}
    return {**{name: text for name, text in os.environ.items() if name not in ours}, **settings}


class Running:
    """A `gitstore serve` in `folder`, on a free port."""

    def __init__(
        self,
        folder: Path,
        command: tuple[str, ...] = (*GITSTORE, "serve"),
        cluster: Path | None = None,
        **settings: str,
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        if cluster is not None:
            copy_cluster(cluster, self.data / "postgres")
        self.out = folder / "out"
        self.err = folder / "err"
        defaults = {"GITSTORE_DATA": str(self.data), "GITSTORE_BIND": "127.0.0.1:0", "GITSTORE_WORKERS": "1"}
        defaults["TMPDIR"] = str(folder)  # what a killed one leaves there goes with the test
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(**{**defaults, **settings}),
                cwd=folder,
                start_new_session=True,
            )
        self._seen: set[int] = set()

    @property
    def output(self) -> str:
        return self.out.read_text()

    @property
    def log(self) -> str:
        return self.err.read_text()

    @property
    def url(self) -> str:
        """Where it is, as it says itself."""
        return self.output.partition("gitstore is ready: ")[2].partition("\n")[0].removesuffix("/")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ready(self) -> Running:
        until(lambda: "gitstore is ready" in self.output or self.process.poll() is not None)
        assert self.process.poll() is None, self.log
        self.tree()
        return self

    def tree(self) -> dict[int, str]:
        """pid -> command line, of every process below this one."""
        found: dict[int, str] = {}
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            with suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                waiting += map(int, children.split())
                found[pid] = command
        found.pop(self.process.pid, None)
        self._seen |= set(found)
        return found

    def child(self, words: str) -> int:
        """The pid of its own child whose command line has these words."""
        found: list[int] = []

        def one() -> bool:
            # One that was just forked has the command line of its parent, for a moment.
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            commands = self.tree()
            found[:] = [int(pid) for pid in children if words in commands.get(int(pid), "")]
            return len(found) == 1

        until(one)
        return found[0]

    def children(self, pid: int) -> list[int]:
        """The pids of the children of the process `pid`."""
        self.tree()
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def gone(self) -> bool:
        """Whether none of the processes seen below this one lives on."""
        return not any(alive(pid) for pid in self._seen)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """The exit status."""
        self.tree()
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE)

    def kill(self, *, tree: bool) -> None:
        """`kill -9` of the supervisor, and of everything below it (`tree`)."""
        below = self.tree()
        self.process.kill()
        self.process.wait()
        for pid in below if tree else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether it runs: a zombie, whom nobody has waited for yet, does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


@contextmanager
def running(
    folder: Path,
    command: tuple[str, ...] = (*GITSTORE, "serve"),
    cluster: Path | None = None,
    **settings: str,
) -> Iterator[Running]:
    """Run it for as long as the block; whatever becomes of it, nothing is left running.

    With a `cluster` (the fixture), it finds a copy of that instead of running initdb.
    """
    service = Running(folder, command, cluster, **settings)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.kill(tree=True)
        until(service.gone, "processes were left behind")


def gitstore(*arguments: str, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*GITSTORE, *arguments],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
