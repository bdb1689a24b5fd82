"""The process that serves HTTP: gunicorn with threads, as a child of `gitstore serve`.

    python -m service.web <pid of serve> <fd of the listening socket>

The settings come by its environment. The application's modules are loaded here, once, and shared by the
workers that are forked; each makes its own application. That takes a while, in which `serve` sees to
Postgres: so it says on stdin, by a line of JSON, which database it is, when that is ready.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]

from service import fairness, gthread, logs
from service.config import Config
from service.lifeline import end_with
from service.metrics import forget_process
from service.supervisor import GRACEFUL_SECONDS

_HEARTBEAT_SECONDS: Final = 60
_KEEPALIVE_SECONDS: Final = 15
_RAM: Final = "/dev/shm"  # noqa: S108 (gunicorn makes its heartbeat files with tempfile)

MakeApp = Callable[[Config], Any]
"""Makes the WSGI application."""


class Web(BaseApplication):  # type: ignore[misc]
    """gunicorn, told everything by arguments: neither its command line nor its files are read."""

    def __init__(self, config: Config, socket: int, make_app: MakeApp) -> None:
        self._config = config
        self._socket = socket
        self._make_app = make_app
        super().__init__()

    def load_config(self) -> None:
        settings = {
            "bind": f"fd://{self._socket}",
            "worker_class": gthread.worker(self._config.threads + fairness.QUEUED),
            "workers": self._config.workers,
            "threads": max(gthread.CONNECTIONS, 2 * self._config.threads),
            "timeout": _HEARTBEAT_SECONDS,
            "graceful_timeout": GRACEFUL_SECONDS,
            "keepalive": _KEEPALIVE_SECONDS,
            "control_socket_disable": True,
            "logger_class": _Log,
            # A heartbeat on a disk that is busy comes too late.
            "worker_tmp_dir": _RAM if Path(_RAM).is_dir() else None,
            "post_fork": _forked,
            "child_exit": self._child_exit,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._make_app(self._config)

    def _child_exit(self, _arbiter: Arbiter, worker: Worker) -> None:
        forget_process(self._config.metrics_folder, worker.pid)
        worker.loads.leave(worker.age)


class _Log(Logger):  # type: ignore[misc]
    """What gunicorn has to say goes where everything goes."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in list(self.error_log.handlers):
            self.error_log.removeHandler(handler)
        self.error_log.propagate = True
        self.error_log.setLevel(0)  # as the root of all loggers


def _forked(_arbiter: Arbiter, worker: Worker) -> None:
    end_with(worker.ppid)


def main(arguments: Sequence[str], make_app: str = "service.app:create_app") -> None:
    """Serve until SIGTERM. `make_app` is where the application's maker is found, as module:name."""
    parent, socket = (int(argument) for argument in arguments)
    end_with(parent)
    module, _, name = make_app.partition(":")
    maker: MakeApp = getattr(importlib.import_module(module), name)
    line = sys.stdin.readline()
    if not line:
        return  # it did not come to that
    config = Config.from_env(overrides={"DATABASE_URL": json.loads(line)})
    logs.configure(config.log_format, config.log_level)
    Web(config, socket, maker).run()


if __name__ == "__main__":
    main(sys.argv[1:])
