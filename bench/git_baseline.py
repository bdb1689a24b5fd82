"""`git http-backend`, git's own server, as a WSGI application: the baseline for pushes and clones.

Run by bench/baseline_server.py. Below the data folder are the repositories of the service, to read from
(`/repos/<id>.git`), and those of `new_repository`, to push to (`/plain/<name>.git`).
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitstore.git.process import environment, git
from service.config import Config

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

MAKER = "bench.git_baseline:create_app"
SETTINGS = {"http.receivepack": "true", "core.fsync": "all", "receive.fsckObjects": "true"}
_CGI = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH", "REMOTE_ADDR")
_CHUNK = 2**16


def new_repository(data: Path, name: str) -> Path:
    """Create an empty bare repository as safe as ours: git checks objects, and syncs them to the disk."""
    path = data / "plain" / f"{name}.git"
    subprocess.run([git(), "init", "-q", "--bare", str(path)], check=True, env=environment())
    for key, value in SETTINGS.items():
        subprocess.run([git(), "-C", str(path), "config", key, value], check=True, env=environment())
    return path


def create_app(config: Config) -> WSGIApplication:
    """The CGI of the repositories below `config.data`; `/livez` is answered without it."""
    fixed = environment(
        {"GIT_PROJECT_ROOT": str(config.data), "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": "ann"}
    )

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/livez":
            start_response("200 OK", [])
            return iter([b"here\n"])
        variables = {name: str(environ.get(name, "")) for name in _CGI}
        variables["GIT_PROTOCOL"] = environ.get("HTTP_GIT_PROTOCOL", "")
        variables["HTTP_CONTENT_ENCODING"] = environ.get("HTTP_CONTENT_ENCODING", "")
        # Small bodies at once, as a web server that buffers does: git reads to their end anyway.
        body = environ["wsgi.input"].read()
        variables["CONTENT_LENGTH"] = str(len(body))
        child = subprocess.Popen(
            [git(), "http-backend"], env={**fixed, **variables},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        with child.stdin:
            child.stdin.write(body)
        head = [line.decode().strip().partition(": ") for line in iter(child.stdout.readline, b"\r\n")]
        headers = [(name, value) for name, _, value in head if name != "Status"]
        status = next((value for name, _, value in head if name == "Status"), "200 OK")
        start_response(status, headers)
        return _rest(child, child.stdout)

    return app


def _rest(child: subprocess.Popen[bytes], output: Any) -> Iterator[bytes]:
    with child:
        reader: io.BufferedReader = output
        while chunk := reader.read1(_CHUNK):
            yield chunk
