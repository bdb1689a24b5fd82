"""A real `gitstore serve` for the stories, and its users: authors with git, callers with HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from uuid import uuid4

import psutil

from gitstore.model import Rules
from service.actions import projects
from service.config import Config
from service.projects import Projects
from service.run.bootstrap import OPERATOR, create_project
from sync import catalog
from sync.db import Database, Transaction
from sync.embedded.server import EmbeddedPostgres
from tests.conftest import copy_cluster
from tests.helpers import PATIENCE

PLAIN = {
    "PATH": os.defpath + os.pathsep + "/usr/local/bin",
    "HOME": os.devnull,
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
}


def definition(label: str, url: str = "https://warehouse.example/shipments") -> str:
    """A valid definition: a webhook that calls `url`."""
    return (
        f"name: {label}\nnodes:\n"
        f"  - id: hook-1\n    type: webhook\n    data: {{label: Paid, config: {{}}}}\n"
        f"  - id: call-1\n    type: httpCall\n    data:\n      label: Ship\n"
        f"      config: {{url: '{url}', method: POST}}\n"
        "edges:\n  - {id: e1, source: hook-1, target: call-1}\n"
    )


@dataclass
class Service:
    """`gitstore serve` with its own data folder, on a port that the system chooses.

    With a `cluster` (the fixture), its first start uses a copy of that instead of running initdb.
    """

    data: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    cluster: Path | None = None
    process: subprocess.Popen[str] | None = None
    url: str = ""

    def settings(self) -> dict[str, str]:
        settings = {"GITSTORE_DATA": str(self.data), "GITSTORE_BIND": "127.0.0.1:0", "GITSTORE_WORKERS": "1"}
        ours = ("GITSTORE", "DATABASE")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        return {**inherited, **settings, **self.environment}

    def start(self) -> Service:
        """Start it and wait until it prints that it is ready."""
        if self.cluster is not None and not (self.data / "postgres/data").exists():
            copy_cluster(self.cluster, self.data / "postgres")
        log = (self.data.parent / f"{self.data.name}.log").open("a")
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service.cli", "serve"],
                env=self.settings(), stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        ready = re.match(r"gitstore is ready: (http://[^/]+)/", line)
        if not ready:
            self.stop()
        assert ready, f"it printed {line!r}; its log: {self.log()[-4000:]}"
        self.url = ready[1]
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop it; its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(how)
        with self.process:
            status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def family(self) -> list[psutil.Process]:
        """Its process and all descendants."""
        assert self.process is not None
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def arguments(self) -> str:
        """The command lines of all its processes, as `ps` shows them."""
        lines = []
        for process in self.family():
            with suppress(psutil.NoSuchProcess):  # a child that has ended, reaped or not yet
                lines.append(" ".join(process.cmdline()))
        return "\n".join(lines)

    def kill(self) -> None:
        """Kill all its processes at once."""
        for process in self.family():
            with suppress(psutil.NoSuchProcess):  # a child of git that had ended
                process.kill()
        self.stop()

    def log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text()

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`gitstore <arguments>` beside the running service."""
        command = [sys.executable, "-m", "service.cli", *arguments]
        done = subprocess.run(command, env=self.settings(), capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    @property
    def owner_token(self) -> str:
        return (self.data / "owner-token").read_text().strip()

    @property
    def owner(self) -> Caller:
        """Owner of the project `default`."""
        return Caller(self.url, "default", self.owner_token)

    @property
    def repository(self) -> Path:
        """Repository of the only project."""
        (path,) = (self.data / "repos").glob("*.git")
        return path

    @contextmanager
    def owning(self) -> Iterator[Transaction]:
        """A transaction like those of `gitstore project` and `gitstore token`, without a process for each."""
        postgres = EmbeddedPostgres(Config.from_env(self.settings()).postgres_folder)
        with closing(Database(postgres.conninfo())) as database, database.as_owner() as transaction:
            yield transaction

    def project(self, slug: str, rules: Rules = Rules.MESHHOOK) -> Caller:
        """A new project; its owner."""
        with self.owning() as transaction:
            projects = Projects(Config.from_env(self.settings()))
            create_project(transaction, projects, uuid4(), slug, slug, rules)
        return self.caller(slug, "owner")

    def caller(self, project: str, role: str) -> Caller:
        """A caller with a new token of that role."""
        with self.owning() as transaction:
            row = catalog.project(transaction, project)
            assert row is not None
            _, secret = projects.insert_token(transaction, row.id, OPERATOR, f"{role} of {project}", role)
        return Caller(self.url, project, secret)


@dataclass(frozen=True)
class Answer:
    """The response to a request."""

    status: int
    headers: Message
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


@dataclass(frozen=True)
class Caller:
    """A user of the HTTP API with a token."""

    url: str
    project: str
    token: str

    def call(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """`body` is sent as JSON, bytes as they are."""
        sent = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        if body is not None and "Content-Type" not in sent:
            sent["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, data, sent, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
                return Answer(answer.status, answer.headers, answer.read())
        except HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, headers=headers)

    def save(self, slug: str, label: str) -> int:
        """Save a draft, by the call that the state of the workflow requires; return the status."""
        body = {"definition": definition(label)}
        answer = self.call("POST", "/workflows", {"slug": slug, **body})
        if answer.status == 409:
            answer = self.call("POST", f"/workflows/{slug}/versions", body)
        if answer.status == 409:
            answer = self.call("PUT", f"/workflows/{slug}/versions/draft", body, headers={"If-Match": "*"})
        return answer.status

    def publish(self, slug: str, label: str) -> None:
        """Save a draft and publish it."""
        assert self.save(slug, label) in (200, 201)
        assert self.call("POST", f"/workflows/{slug}/versions/publish").status == 201

    def definition(self, slug: str, version: object) -> bytes:
        answer = self.get(f"/workflows/{slug}/versions/{version}/definition")
        assert answer.status == 200, answer.raw
        return answer.raw

    def author(self, folder: Path, name: str = "Ann") -> Author:
        """A clone of the project, in `folder`."""
        author = Author(folder, self, name)
        author.clone()
        return author


@dataclass(frozen=True)
class Pushed:
    """The result of `git push` or another command: whether it succeeded, and what it printed."""

    ok: bool
    output: str


@dataclass(frozen=True)
class Author:
    """A user of stock git. A credential helper gives the token as the password; no URL contains it."""

    folder: Path
    caller: Caller
    name: str = "Ann"

    def git(self, *arguments: str, check: bool = True, within: Path | None = None) -> str:
        """`git <arguments>`; its output."""
        done = self._run(arguments, within)
        assert not check or done.ok, done.output
        return done.output.strip()

    def push(self, *arguments: str) -> Pushed:
        """`git push origin <arguments>`."""
        return self._run(("push", "origin", *arguments), None)

    def run(self, *arguments: str) -> Pushed:
        """`git <arguments>`, which may fail."""
        return self._run(arguments, None)

    def paste(self, line: str) -> None:
        """Run a line of the terminal in a shell; an editor that it starts writes "Ship it"."""
        done = self._done(["sh", "-ec", line], self.folder, GIT_EDITOR="echo Ship it >")
        assert done.ok, done.output

    def _run(self, arguments: tuple[str, ...], within: Path | None) -> Pushed:
        return self._done(["git", *arguments], within or self.folder)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of git, or of a shell, in which the author has a name and the token."""
        helper = '!f() { echo username=git; echo "password=$GITSTORE_TEST_TOKEN"; }; f'
        email = f"{self.name.lower()}@example.test"
        who = {f"GIT_{role}_NAME": self.name for role in ("AUTHOR", "COMMITTER")}
        who |= {f"GIT_{role}_EMAIL": email for role in ("AUTHOR", "COMMITTER")}
        config = (("credential.helper", ""), ("credential.helper", helper), ("advice.detachedHead", "false"))
        for number, (key, value) in enumerate(config):
            who |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        count = {"GIT_CONFIG_COUNT": str(len(config)), "GITSTORE_TEST_TOKEN": self.caller.token}
        return {**PLAIN, **who, **count}

    def _done(self, command: list[str], where: Path, **environment: str) -> Pushed:
        done = subprocess.run(
            command, cwd=where, env={**self.environment, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        return Pushed(done.returncode == 0, done.stdout)

    @property
    def remote(self) -> str:
        return f"{self.caller.url}/{self.caller.project}.git"

    def clone(self, *flags: str) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.git("clone", "-q", *flags, self.remote, str(self.folder), within=self.folder.parent)

    def draft(self, slug: str, content: str, message: str = "Edit") -> str:
        """Write the definition on the branch drafts/<slug> and commit it; the commit."""
        branches = self.git("branch", "--list", f"drafts/{slug}")
        self.git("checkout", "-q", *(() if branches else ("-b",)), f"drafts/{slug}")
        (self.folder / "workflow.yaml").write_text(content)
        self.git("add", "workflow.yaml")
        self.git("commit", "-qm", message)
        return self.git("rev-parse", "HEAD")

    def tag(self, slug: str, number: int, message: str = "Ship it") -> None:
        self.git("tag", "-a", f"{slug}/v{number}", "-m", message)


def everything(tx: Transaction) -> list[str]:
    """Every row of every gitstore table, as text."""
    tables = tx.tuples("select tablename from pg_tables where schemaname = 'gitstore'")
    query = "select coalesce(string_agg(t::text, ' '), '') from gitstore.{} t"
    return [str(tx.connection.execute(query.format(name).encode()).fetchone()) for (name,) in tables]


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below `folder`, but for those that git's maintenance removes meanwhile."""
    for within, _, names in os.walk(folder):  # unlike rglob it passes over folders that vanish
        for path in (Path(within, name) for name in names):
            with suppress(FileNotFoundError):
                yield path, path.read_bytes()
