"""A server for the baselines of bench/ratios.py: another WSGI application behind service/run/web.py.

    python -m bench.baseline_server <module:maker> <pid of the bench> <fd of the listening socket>

It runs as many processes and threads as the measured service and shares its data folder and its Postgres, so
that the ratio compares the applications. Only its metrics folder is separate.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from service.config import METRICS_FOLDER, Bind, Config
from service.run import web
from service.run.listener_socket import answers
from service.run.serve import metrics_folder
from sync.embedded.server import EmbeddedPostgres
from tests.helpers import until
from tests.stories.instance import Service


@contextmanager
def serving_baseline(service: Service, maker: str) -> Iterator[str]:
    """Serve the application that `maker` (module:name) makes, for as long as the block; its URL."""
    conninfo = EmbeddedPostgres(Config.from_env(service.settings()).postgres_folder).conninfo()
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener, metrics_folder() as figures:
        port = listener.getsockname()[1]
        settings = {**service.settings(), "GITSTORE_BIND": f"127.0.0.1:{port}", METRICS_FOLDER: str(figures)}
        command = [
            sys.executable,
            "-m",
            "bench.baseline_server",
            maker,
            str(os.getpid()),
            str(listener.fileno()),
        ]
        log = service.data.parent / f"{maker.partition(':')[0]}.log"
        with log.open("a") as file:
            child = subprocess.Popen(
                command, env=settings, stdin=subprocess.PIPE, stdout=file, stderr=file,
                pass_fds=[listener.fileno()],
            )  # fmt: skip
        listener.close()
        try:
            assert child.stdin is not None
            with child.stdin:
                child.stdin.write(json.dumps(conninfo).encode() + b"\n")
            until(lambda: answers(Bind("127.0.0.1", port), 5), f"{maker} does not answer: see {log}")
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate()
            child.wait()


if __name__ == "__main__":
    web.main(sys.argv[2:], sys.argv[1])
