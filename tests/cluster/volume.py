"""A replicated GlusterFS volume: one brick and one glusterd on each of its machines.

Options that a cluster of gitstore needs, as docs/growing.md explains them: peers that are silent are given up
after seconds, not after 42, so that the locks of a machine that is cut off are released; and no cache of
attributes, of names or of content outlives a change by another machine.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from gitstore.system import wait_until
from tests.cluster.machines import Machine, is_mounted, run, wait_for

NAME = "gitstore"
OPTIONS = {
    "network.ping-timeout": "5",
    "client.tcp-user-timeout": "5",
    "server.tcp-user-timeout": "5",
    "client.keepalive-time": "3",
    "server.keepalive-time": "3",
    "client.keepalive-interval": "1",
    "server.keepalive-interval": "1",
    "client.keepalive-count": "3",
    "server.keepalive-count": "3",
    "cluster.heal-timeout": "10",
    "cluster.quorum-type": "auto",
    "performance.stat-prefetch": "off",
    "performance.quick-read": "off",
    "performance.io-cache": "off",
    "performance.read-ahead": "off",
    "performance.readdir-ahead": "off",
    "performance.nl-cache": "off",
    "performance.write-behind": "off",
    "performance.open-behind": "off",
    "performance.flush-behind": "off",
    "features.cache-invalidation": "off",
    "storage.fips-mode-rchecksum": "on",
}
MOUNT_OPTIONS = ("--attribute-timeout=0", "--entry-timeout=0", "--negative-timeout=0")


@dataclass
class Volume:
    """The volume of the machines `bricks`."""

    bricks: list[Machine]

    def create(self) -> None:
        for brick in self.bricks:
            for name in ("state", "run", "logs", "brick"):
                (brick.folder / name).mkdir()
            self.start(brick)
        for brick in self.bricks[1:]:
            self._gluster("peer", "probe", brick.address)
        wait_for(self._are_peers, "the machines of the volume do not find each other")
        places = [f"{brick.address}:{brick.folder / 'brick' / 'b'}" for brick in self.bricks]
        self._gluster("volume", "create", NAME, "replica", str(len(places)), *places, "force")
        for name, value in OPTIONS.items():
            self._gluster("volume", "set", NAME, name, value)
        self._gluster("volume", "start", NAME)

    def start(self, brick: Machine) -> None:
        """Start glusterd, which starts its brick and the self-heal daemon."""
        options = {
            "working-directory": brick.folder / "state",
            "transport.socket.bind-address": brick.address,
            "run-directory": brick.folder / "run",
            "glusterd-sockfile": self._socket(brick),
            "cluster-test-mode": brick.folder / "logs",
        }
        pairs = [
            part
            for name, value in options.items()
            for part in ("--xlator-option", f"management.{name}={value}")
        ]
        files = (f"--log-file={brick.folder}/logs/glusterd.log", f"--pid-file={brick.folder}/run/pid")
        self._socket(brick).unlink(missing_ok=True)  # of one that was killed
        brick.start("glusterd", *pairs, *files, "--no-daemon")
        wait_for(self._socket(brick).exists, brick.log())

    def mount(self, machine: Machine, where: Path) -> subprocess.Popen[bytes]:
        """Mount the volume for the processes of `machine`."""
        if is_mounted(where):  # by a process that was killed
            run("umount", "-l", str(where))
        where.mkdir(exist_ok=True)
        servers = [f"--volfile-server={brick.address}" for brick in self.bricks]
        log = f"--log-file={machine.folder}/mount.log"
        process = machine.start(
            "glusterfs", *servers, f"--volfile-id={NAME}", *MOUNT_OPTIONS, log, "-N", str(where)
        )
        wait_for(lambda: is_mounted(where), machine.log("mount.log"))
        return process

    def is_online(self) -> bool:
        """Return whether each machine's brick and self-heal daemon run."""
        status = self._gluster("volume", "status", NAME, "--xml", check=False)
        return status.count("<status>1</status>") == 2 * len(self.bricks)

    def heal_state(self) -> str:
        """Return what the servers count as not healed, for each brick.

        It is asked of glusterd: `heal info` starts a program that finds glusterd at its usual path alone.
        """
        return self._gluster("volume", "heal", NAME, "statistics", "heal-count", check=False)

    def wait_until_healed(self, seconds: float) -> None:
        """Fail unless no brick has an entry that others lack, within `seconds`."""
        zero = "Number of entries: 0"

        def is_healed() -> bool:
            return self.heal_state().splitlines().count(zero) == len(self.bricks)

        if not wait_until(is_healed, seconds, 1):
            raise AssertionError(f"the volume does not heal: {self.heal_state()}")

    def _are_peers(self) -> bool:
        """Return whether each machine is connected to each other one."""
        others = len(self.bricks) - 1
        return all(
            self._gluster("peer", "status", on=brick).count("Peer in Cluster (Connected)") == others
            for brick in self.bricks
        )

    @staticmethod
    def _socket(brick: Machine) -> Path:
        return brick.folder / "glusterd.socket"

    def _gluster(self, *command: str, check: bool = True, on: Machine | None = None) -> str:
        machine = on or self.bricks[0]
        return machine.run(
            "gluster", "--mode=script", f"--glusterd-sock={self._socket(machine)}", *command, check=check
        )
