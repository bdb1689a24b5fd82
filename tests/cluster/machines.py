"""Machines of a test: network namespaces on one bridge, from which no packet leaves.

Each machine is a namespace with one address, and shares the file system and the process ids with the test. So
processes of a machine are started, stopped and killed as those of the test, and all of them are known:
`ip netns pids` lists what runs in a namespace.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from gitstore.system import wait_until
from tests.helpers import PATIENCE, until

NETWORK = "10.77.0."
PROGRAMS = ("ip", "nsenter", "setpriv", "glusterd", "gluster", "glusterfs", "haproxy", "pgbouncer", "umount")
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def missing() -> str | None:
    """Return why machines cannot be made here, or None."""
    if os.geteuid() != 0:
        return "namespaces and mounts need root"
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    if absent := [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]:
        return f"not installed: {', '.join(absent)}"
    probe = f"gitstore-{uuid4().hex[:6]}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode != 0:
        return "network namespaces cannot be made here"
    run("ip", "netns", "del", probe)
    return None


def run(*command: str, seconds: float = PATIENCE, check: bool = True) -> str:
    """Run a command to its end; return its output."""
    done = subprocess.run(
        command, env={**os.environ, "PATH": _PATH}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False, timeout=seconds,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
    return done.stdout


@dataclass
class Machine:
    """A namespace with one address on the bridge. What it prints goes to files in `folder`."""

    name: str
    namespace: str
    hub: str
    address: str
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *command: str, user: str | None = None) -> list[str]:
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *become, *command]

    def start(
        self,
        *command: str,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        log: str = "log",
    ) -> subprocess.Popen[bytes]:
        """Start a program that stays in the foreground."""
        with (self.folder / log).open("ab") as out:
            process = subprocess.Popen(
                self.command(*command, user=user), stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True,
                env={**(os.environ if environment is None else environment), "PATH": _PATH},
            )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, *command: str, user: str | None = None, check: bool = True) -> str:
        """Run a program to its end; return its output."""
        return run(*self.command(*command, user=user), check=check)

    def log(self, name: str = "log", characters: int = 3000) -> str:
        path = self.folder / name
        return path.read_text(errors="replace")[-characters:] if path.exists() else ""

    def pids(self, words: str = "", but: str | None = None) -> list[int]:
        """Return the processes here whose command line contains `words`, and not `but`."""
        found = []
        for pid in map(int, run("ip", "netns", "pids", self.namespace).split()):
            with suppress(OSError):
                line = (
                    Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                )
                if words in line and (but is None or but not in line):
                    found.append(pid)
        return found

    def signal(self, how: signal.Signals, pids: Sequence[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, how)

    def kill(self, words: str = "", but: str | None = None) -> None:
        """Kill processes until none is left, including those that they start before they end."""

        def are_gone() -> bool:
            self.signal(signal.SIGKILL, self.pids(words, but))
            self._reap()
            return not self.pids(words, but)

        until(are_gone, f"processes of {self.name} do not end")
        if not words:
            for process in self.started:
                process.wait(PATIENCE)

    def cut(self) -> None:
        """Take the machine off the network: packets are lost in silence, in both directions."""
        run("ip", "-n", self.hub, "link", "set", f"v{self.name}", "down")

    def join(self) -> None:
        run("ip", "-n", self.hub, "link", "set", f"v{self.name}", "up")

    def _reap(self) -> None:
        self.started = [process for process in self.started if process.poll() is None]


@dataclass
class Network:
    """Machines on one bridge."""

    folder: Path
    prefix: str
    hub: str
    machines: dict[str, Machine] = field(default_factory=dict)

    def machine(self, name: str) -> Machine:
        """Add a machine. Its name is that of its folder, and of its port of the bridge."""
        number = len(self.machines) + 1
        machine = Machine(name, f"{self.prefix}-{name}", self.hub, f"{NETWORK}{number}", self.folder / name)
        machine.folder.mkdir(mode=0o755)
        self.machines[name] = machine
        inside, port = machine.namespace, f"v{name}"
        run("ip", "netns", "add", inside)
        run("ip", "-n", inside, "link", "set", "lo", "up")
        run(
            "ip", "-n", inside, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self.hub
        )
        run("ip", "-n", self.hub, "link", "set", port, "master", "br0", "up")
        run("ip", "-n", inside, "addr", "add", f"{machine.address}/24", "dev", "eth0")
        run("ip", "-n", inside, "link", "set", "eth0", "up")
        return machine


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network of machines, which end with all of their processes and mounts at the end of the block."""
    prefix = f"gitstore-{uuid4().hex[:6]}"
    made = Network(folder, prefix, f"{prefix}-hub")
    run("ip", "netns", "add", made.hub)
    try:
        run("ip", "-n", made.hub, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", made.hub, "link", "set", "br0", "up")
        yield made
    finally:
        for machine in reversed(made.machines.values()):
            machine.kill()
        unmount_below(folder)
        for machine in made.machines.values():
            run("ip", "netns", "del", machine.namespace, check=False)
        run("ip", "netns", "del", made.hub, check=False)


def unmount_below(folder: Path) -> None:
    """Unmount everything below `folder`, also what does not answer any more."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        where = line.split()[1]
        if where.startswith(f"{folder}/"):
            run("umount", "-l", where, check=False)


def is_mounted(folder: Path) -> bool:
    return any(line.split()[1] == str(folder) for line in Path("/proc/self/mounts").read_text().splitlines())


def wait_for(condition: object, what: str, seconds: float = PATIENCE) -> None:
    """Fail unless the callable `condition` becomes true."""
    assert callable(condition)
    assert wait_until(condition, seconds, 0.1), what
