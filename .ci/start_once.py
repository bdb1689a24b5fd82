"""Start an installed gitstore, publish a workflow with the printed commands, read it, set a schema, stop.

python start_once.py <path of the command gitstore> <data folder>
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

SECONDS = 60


def main(command: str, data: str) -> None:
    environment = {"PATH": os.environ["PATH"], "GITSTORE_DATA": data, "GITSTORE_BIND": "127.0.0.1:0"}
    with subprocess.Popen([command, "serve"], env=environment, stdout=subprocess.PIPE, text=True) as service:
        try:
            url, lines = greeting(service)
            with tempfile.TemporaryDirectory() as home:
                shell = {"PATH": os.environ["PATH"], "HOME": home, "GIT_CONFIG_NOSYSTEM": "1"}
                subprocess.run(["sh", "-e"], input=lines, text=True, cwd=home, env=shell, check=True)
            token = Path(data, "owner-token").read_text().strip()
            for path in ("/workflows/hello/versions/current/definition", "/metrics", "/openapi.json"):
                request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}"})
                with urllib.request.urlopen(request, timeout=SECONDS) as response:
                    assert response.status == 200, path
                    assert response.read(), path
            schema = urllib.request.Request(
                url + "/projects/default/schema",
                b'{"type": "object"}',
                {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                method="PUT",
            )
            with urllib.request.urlopen(schema, timeout=SECONDS) as response:
                assert response.status == 204, "the schema was not accepted"
        finally:
            service.send_signal(signal.SIGTERM)
        assert service.wait(SECONDS) == 0, service.returncode


def greeting(service: subprocess.Popen[str]) -> tuple[str, str]:
    """The address, and the five commands that the greeting prints."""
    assert service.stdout is not None
    first = service.stdout.readline()
    assert first.startswith("gitstore is ready: "), first
    address = first.split()[3].partition("/ui")[0].rstrip("/")
    lines: list[str] = []
    for line in service.stdout:
        if lines and not line.strip():
            break
        if line.strip().startswith("git clone") or lines:
            lines.append(line)
    return address, "".join(lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
