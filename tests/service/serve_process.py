"""`gitstore serve` as a real process for tests, which end or kill it."""

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

# `gitstore serve` with a stub in place of the application.
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
    """Return the environment of a command, with these settings only."""
    ours = {setting.name for setting in SETTINGS} | {METRICS_FOLDER}
    return {**{name: text for name, text in os.environ.items() if name not in ours}, **settings}


class Running:
    """Process of `gitstore serve` in `folder`, on a free port."""

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
        defaults["TMPDIR"] = str(folder)  # removed with the test, also after a kill
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
        """URL of the service, from its greeting."""
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
        """Return pid -> command line of all descendants."""
        commands: dict[int, str] = {}
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            with suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                waiting += map(int, children.split())
                commands[pid] = command
        commands.pop(self.process.pid, None)
        self._seen |= set(commands)
        return commands

    def child(self, words: str) -> int:
        """Return the pid of the only child whose command line contains `words`."""
        pids: list[int] = []

        def is_one() -> bool:
            # For a moment after the fork, a child has the command line of its parent.
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            commands = self.tree()
            pids[:] = [int(pid) for pid in children if words in commands.get(int(pid), "")]
            return len(pids) == 1

        until(is_one)
        return pids[0]

    def children(self, pid: int) -> list[int]:
        """Return the pids of the children of the process `pid`."""
        self.tree()
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def gone(self) -> bool:
        """Return whether all descendants seen so far have ended."""
        return not any(alive(pid) for pid in self._seen)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send the signal; return the exit status."""
        self.tree()
        self.process.send_signal(signum)
        return self.process.wait(PATIENCE)

    def kill(self, *, tree: bool) -> None:
        """Kill the supervisor, with `tree` also its descendants."""
        below = self.tree()
        self.process.kill()
        self.process.wait()
        for pid in below if tree else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
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
    """Run a service within the block, and kill what is left of it afterwards.

    With a `cluster` (the fixture), it starts on a copy of that instead of running initdb.
    """
    service = Running(folder, command, cluster, **settings)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.kill(tree=True)
        until(service.gone, "processes were left behind")


def gitstore(*arguments: str, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `gitstore` to its end."""
    return subprocess.run(
        [*GITSTORE, *arguments],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
