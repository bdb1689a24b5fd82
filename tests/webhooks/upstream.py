"""A real upstream: a bare repository behind `git http-backend` on loopback, with a work tree."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

AUTHOR = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.test",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.test",
}
TAGGED = 1_700_000_000


def flow(url: str = "https://a.example/", **top: Any) -> str:
    """Return a valid definition, as YAML."""
    call = {"label": "Call", "config": {"url": url, "method": "POST"}}
    nodes = [
        {"id": "hook", "type": "webhook", "data": {"label": "Hook", "config": {}}},
        {"id": "call", "type": "httpCall", "data": call},
    ]
    edges = [{"id": "e", "source": "hook", "target": "call"}]
    return yaml.safe_dump({**top, "nodes": nodes, "edges": edges})


BROKEN = "nodes: []\n"


class Upstream:
    """The repository at `url`, and its authors, who use `git` in a work tree."""

    def __init__(self, folder: Path, port: int) -> None:
        self.bare, self.tree = folder / "team.git", folder / "tree"
        self.url = f"http://127.0.0.1:{port}/team.git"
        self.requests: list[str] = []
        self.password: str | None = None
        self.broken: int | None = None
        self.delay = 0.0
        self._clock = TAGGED
        self._run("init", "-q", "--bare", "-b", "main", str(self.bare))
        self._run("--git-dir", str(self.bare), "config", "http.receivepack", "true")
        self._run("init", "-q", "-b", "main", str(self.tree))

    def _run(self, *arguments: str, input: bytes = b"") -> str:
        self._clock += 1
        dates = {"GIT_AUTHOR_DATE": f"@{self._clock} +0000", "GIT_COMMITTER_DATE": f"@{self._clock} +0000"}
        done = subprocess.run(
            ["git", *arguments], input=input, capture_output=True, check=False, env={**AUTHOR, **dates}
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def git(self, *arguments: str, input: bytes = b"") -> str:
        return self._run("-C", str(self.tree), *arguments, input=input)

    def in_bare(self, *arguments: str) -> str:
        return self._run("--git-dir", str(self.bare), *arguments)

    def write(self, path: str, content: str) -> None:
        file = self.tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def commit(self, path: str, content: str, message: str = "Change it") -> str:
        self.write(path, content)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def version(
        self, slug: str, number: int, content: str | None = None, *, path: str = "workflow.yaml",
        message: str = "", lightweight: bool = False,
    ) -> str:  # fmt: skip
        """Commit a definition, tag it `<slug>/v<N>` and push the tag. Return the definition."""
        self.commit(path, flow(f"https://v{number}.example/") if content is None else content)
        return self.tag(f"{slug}/v{number}", message=message or f"Ship v{number}", lightweight=lightweight)

    def without_definition(self, slug: str, number: int, *options: str) -> str:
        """Tag a commit as `<slug>/v<N>` that holds no definition, which is refused, and push the tag."""
        self.git("rm", "-q", "--ignore-unmatch", "workflow.yaml")
        self.commit("README", f"no definition {number}")
        return self.tag(f"{slug}/v{number}", *options)

    def tag(self, name: str, *options: str, message: str = "Ship it", lightweight: bool = False) -> str:
        how = [] if lightweight else ["-a", "-m", message]
        self.git("tag", *how, *options, name)
        self.push(f"refs/tags/{name}", "--force")
        return self.git("rev-parse", f"refs/tags/{name}")

    def push(self, *arguments: str) -> None:
        self.git("push", "-q", str(self.bare), *arguments)

    def draft(self, slug: str, content: str, path: str = "workflow.yaml") -> str:
        made = self.commit(path, content)
        self.push(f"HEAD:refs/heads/drafts/{slug}", "--force")
        return made

    def many(self, slug: str, tags: int, *, padding: int = 0) -> None:
        """Create `tags` versions at once, each with so many bytes that do not compress."""
        command = ["git", "--git-dir", str(self.bare), "fast-import", "--quiet"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=AUTHOR) as child:
            assert child.stdin is not None
            with child.stdin:
                for part in _versions(slug, tags, padding):
                    child.stdin.write(part)
        assert child.returncode == 0

    def refs(self) -> dict[str, str]:
        lines = self.in_bare("for-each-ref", "--format=%(objectname) %(refname)").splitlines()
        return {name: oid for oid, _, name in (line.partition(" ") for line in lines)}

    def hook(self, name: str, script: str) -> None:
        path = self.bare / "hooks" / name
        path.write_text(script)
        path.chmod(0o755)


def _versions(slug: str, tags: int, padding: int) -> Iterator[bytes]:
    """Return a script for git-fast-import(1)."""
    for number in range(1, tags + 1):
        files = {b"workflow.yaml": flow(f"https://v{number}.example/").encode()}
        if padding:
            files[b"padding"] = hashlib.shake_256(b"%d" % number).digest(padding)
        who = b"Ann <ann@example.test> %d +0000" % (TAGGED + number)
        yield b"commit refs/heads/%s\nmark :%d\ncommitter %s\ndata 1\nx\n" % (slug.encode(), number, who)
        if number > 1:
            yield b"from :%d\n" % (number - 1)
        for path, content in files.items():
            yield b"M 100644 inline %s\ndata %d\n%s\n" % (path, len(content), content)
        name = b"%s/v%d" % (slug.encode(), number)
        yield b"tag %s\nfrom :%d\ntagger %s\ndata 4\nShip\n" % (name, number, who)


class _Handler(BaseHTTPRequestHandler):
    """The CGI of git http-backend, in HTTP/1.0: the end of the connection ends the response."""

    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        upstream = self.server.upstream
        upstream.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        deadline = time.monotonic() + upstream.delay
        while upstream.delay and time.monotonic() < deadline:
            time.sleep(0.02)
        if upstream.broken is not None:
            self._say(upstream.broken, b"out of order")
        elif upstream.password is not None and not self._authorized(upstream.password):
            self._say(401, b"who is it", ("WWW-Authenticate", 'Basic realm="x"'))
        else:
            with suppress(BrokenPipeError, ConnectionResetError):
                self._backend(upstream, body)

    def _authorized(self, password: str) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        return base64.b64decode(given).decode().partition(":")[2] == password

    def _say(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _backend(self, upstream: Upstream, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        environ = {
            **AUTHOR,
            "GIT_PROJECT_ROOT": str(upstream.bare.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_USER": "ann",
            "REMOTE_ADDR": "127.0.0.1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        with subprocess.Popen(
            ["git", "http-backend"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=environ,
        ) as child:  # fmt: skip
            output = child.stdout
            assert child.stdin is not None
            assert output is not None
            with suppress(BrokenPipeError), child.stdin:
                child.stdin.write(body)
            head = list(iter(lambda: output.readline().strip().decode(), ""))
            headers = [(name, value) for name, _, value in (line.partition(": ") for line in head)]
            status = next((int(value[:3]) for name, value in headers if name == "Status"), 200)
            others = [header for header in headers if header[0] != "Status"]
            try:
                self._say(status, b"", *others)
                shutil.copyfileobj(output, self.wfile, 2**16)
            finally:
                child.kill()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    upstream: Upstream


@contextmanager
def upstream_in(folder: Path) -> Iterator[Upstream]:
    """Serve an upstream until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.upstream = Upstream(folder, server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.upstream
        finally:
            server.shutdown()
            thread.join()
