"""A whole cluster: three nodes of gitstore on a replicated volume, behind HAProxy, and the faults in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.databases import Databases
from tests.cluster.machines import Machine, Network, network, wait_for
from tests.cluster.volume import Volume
from tests.service.serve_process import GITSTORE, environment

PORT = "8080"
SERVE = "service."  # in the command line of each process of gitstore
START_SECONDS = 90.0
_PROXY = """
global
    maxconn 500
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout check 10s
    option redispatch
    retries 2
frontend gitstore
    bind {address}:{port}
    default_backend nodes
backend nodes
    balance roundrobin
    option httpchk GET /readyz
    default-server check inter 1s fall 2 rise 2 on-marked-down shutdown-sessions
{servers}
"""


@dataclass
class Cluster:
    """The machines of a cluster, and what is done to them."""

    network: Network
    nodes: list[Machine]
    volume: Volume
    databases: Databases
    proxy: Machine
    clients: Machine
    mounts: dict[str, Path] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.proxy.address}:{PORT}"

    @property
    def data(self) -> Path:
        """The data folder, through the mount of the first node."""
        return self.mounts[self.nodes[0].name]

    @property
    def token(self) -> str:
        return (self.data / "owner-token").read_text().strip()

    def settings(self, node: Machine) -> dict[str, str]:
        return environment(
            DATABASE_URL=self.databases.url,
            GITSTORE_DATA=str(self.mounts[node.name]),
            GITSTORE_BIND=f"{node.address}:{PORT}",
            GITSTORE_PUBLIC_URL=self.url,
            GITSTORE_TRUSTED_PROXIES=self.proxy.address,
            GITSTORE_RECONCILE_SECONDS="5",
            GITSTORE_WORKERS="1",
            GITSTORE_DATABASE_CONNECTIONS="8",
            TMPDIR=str(node.folder),
        )

    def create(self) -> None:
        self.volume.create()
        self.databases.create()
        for node in self.nodes:
            self.mounts[node.name] = node.folder / "volume"
            self.volume.mount(node, self.mounts[node.name])
        for node in self.nodes:  # the first one migrates; the others find it done
            self.serve(node)
            self.wait_until_ready(node)
        self.start_proxy()
        wait_for(lambda: self._status(self.url) == 200, "the proxy does not answer")

    def serve(self, node: Machine) -> None:
        node.start(*GITSTORE, "serve", environment=self.settings(node))

    def wait_until_ready(self, node: Machine, seconds: float = START_SECONDS) -> None:
        url = f"http://{node.address}:{PORT}"
        wait_for(lambda: self._status(url) == 200, f"{node.name} is not ready: {node.log()}", seconds)

    def wait_until_whole(self) -> None:
        """Fail unless all nodes and bricks serve again, after a fault."""
        wait_for(self.volume.is_online, "a brick is missing", START_SECONDS)
        for node in self.nodes:
            self.wait_until_ready(node)

    def start_proxy(self) -> None:
        servers = "\n".join(f"    server {node.name} {node.address}:{PORT}" for node in self.nodes)
        path = self.proxy.folder / "haproxy.cfg"
        path.write_text(_PROXY.format(address=self.proxy.address, port=PORT, servers=servers))
        self.proxy.start("haproxy", "-db", "-f", str(path), log="haproxy.log")

    def cli(self, *arguments: str, node: int = 0, check: bool = True) -> str:
        """Run `gitstore` on a node."""
        machine = self.nodes[node]
        done = subprocess.run(
            machine.command(*GITSTORE, *arguments), env=self.settings(machine), capture_output=True,
            text=True, check=False, timeout=240, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start_clients(self, out: Path, **options: object) -> subprocess.Popen[bytes]:
        """Start the program of the clients, whose acknowledged writes are lines of `out`."""
        pairs = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = (
            sys.executable,
            "-P",
            "-m",
            "tests.cluster.clients",
            f"--url={self.url}",
            f"--out={out}",
            *pairs,
        )
        root = str(Path(__file__).parents[2])
        return self.clients.start(
            *command, environment={**os.environ, "GITSTORE_TEST_TOKEN": self.token, "PYTHONPATH": root}
        )

    def _status(self, url: str) -> int:
        """Return the status of /readyz, asked from the machine of the clients."""
        script = (
            "import sys, urllib.request, urllib.error\n"
            "try: print(urllib.request.urlopen(sys.argv[1], timeout=5).status)\n"
            "except urllib.error.HTTPError as error: print(error.code)\n"
            "except OSError: print(0)"
        )
        return int(self.clients.run(sys.executable, "-c", script, f"{url}/readyz") or 0)

    # Faults: each returns when the fault is over, and what was killed is started again.

    def kill_node(self, node: Machine, seconds: float) -> None:
        """Kill all processes of gitstore on a node; start it again after `seconds`."""
        node.kill(SERVE)
        time.sleep(seconds)
        self.serve(node)

    def lose_volume(self, node: Machine, seconds: float) -> None:
        """Kill the client of the volume on a node, which goes on running; mount it again after `seconds`."""
        node.kill("glusterfs")
        time.sleep(seconds)
        self.volume.mount(node, self.mounts[node.name])

    def pause(self, machine: Machine, seconds: float, words: str = "") -> None:
        """Stop the processes of a machine for `seconds`; its kernel goes on answering for them."""
        pids = machine.pids(words)
        machine.signal(signal.SIGSTOP, pids)
        try:
            time.sleep(seconds)
        finally:
            machine.signal(signal.SIGCONT, pids)

    def cut_off(self, machine: Machine, seconds: float) -> None:
        """Take a machine off the network for `seconds`."""
        machine.cut()
        try:
            time.sleep(seconds)
        finally:
            machine.join()

    def kill_brick(self, brick: Machine, seconds: float) -> None:
        """Kill a server of the volume; start it again after `seconds`, when the others heal it."""
        brick.kill()
        time.sleep(seconds)
        self.volume.start(brick)

    def kill_pooler(self, seconds: float) -> None:
        self.databases.pooler.kill("pgbouncer")
        time.sleep(seconds)
        self.databases.start_pooler()

    def fail_over(self, how: str, seconds: float) -> None:
        """Kill, pause or cut off the primary; promote the replica after `seconds`, and add a new replica."""
        primary = self.databases.primary
        if how == "kill":
            primary.kill()
        elif how == "pause":
            primary.signal(signal.SIGSTOP, primary.pids())
        else:
            primary.cut()
        time.sleep(seconds)
        self.databases.promote()
        self.databases.follow()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A running cluster, of which nothing is left after the block."""
    folder.chmod(0o755)
    with network(folder) as made:
        bricks = [made.machine(f"brick{number}") for number in (1, 2, 3)]
        servers = [made.machine(name) for name in ("db1", "db2", "pooler", "proxy", "clients")]
        nodes = [made.machine(f"node{number}") for number in (1, 2, 3)]
        primary, replica, pooler, proxy, clients = servers
        running = Cluster(made, nodes, Volume(bricks), Databases(primary, replica, pooler), proxy, clients)
        running.create()
        yield running
