"""The doors of the service, in this process: each performs the same actions, and shows its refusals."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, ClassVar

from click.testing import CliRunner
from dulwich.object_format import DEFAULT_OBJECT_FORMAT
from dulwich.objects import Blob, ShaFile, Tree
from dulwich.pack import write_pack_objects
from dulwich.protocol import PktLineParser, pkt_line
from structlog.testing import capture_logs

from gitstore import names
from gitstore.git.commits import new_commit
from gitstore.model import Person
from gitstore.push.receive import CAPABILITIES
from gitstore.push.request import ZERO
from service import errors
from service.cli.main import commands
from tests.contract.world import World
from tests.service.api.conftest import Client
from tests.service.serve_process import environment
from tests.ui.visitor import Visitor

_ADA = Person("Ada", "ada@example.test")
_ABOUT_DRAFT = {"stale_draft", "base_moved", "draft_exists", "precondition_required"}
_STATUS = {code.value: int(status) for code, status in errors.STATUS.items()}


@dataclass(frozen=True)
class Answer:
    """The answer of a door: `status` is HTTP's or the command's, `code` the error's where the door has it."""

    ok: bool
    status: int
    text: str
    code: str | None = None


@dataclass(frozen=True)
class Action:
    """An action with its arguments; each door takes those that it has fields for."""

    name: str
    slug: str = "order-sync"
    text: bytes = b""
    seen: str = ""
    """Commit of the draft that the actor has seen."""
    version: int = 1
    token: str = "ci"
    """Name of a new token, or id of the token to revoke."""
    role: str = "viewer"
    user: str = "11111111-1111-4111-8111-111111111111"
    """Id of a user who becomes a member, or is one no more."""


@dataclass
class Door:
    """A way into the service with a token of a project; without a token if `token` is empty."""

    world: World
    token: str
    name: ClassVar[str]
    """The door as the audit log names it."""

    def perform(self, action: Action) -> Answer:
        method: Callable[[Action], Answer] = getattr(self, action.name)
        return method(action)

    def check_refusal(self, answer: Answer, code: str) -> None:
        """Check that the door shows this refusal as it shows every one."""
        assert not answer.ok, (answer.status, answer.text[-500:])
        assert answer.status == _STATUS[code], (answer.status, answer.text[-500:])
        assert answer.code in (code, None), answer.text
        assert answer.text.strip()


class Api(Door):
    """JSON over HTTP with a bearer token; refusals are problem+json."""

    name = "http"

    def create(self, action: Action) -> Answer:
        body = {"slug": action.slug, "definition": action.text.decode()}
        return self._send("POST", "/workflows", json=body)

    def save(self, action: Action) -> Answer:
        path = f"/workflows/{action.slug}/versions/draft"
        return self._send("PUT", path, match=_tag(action), data=action.text, type="application/yaml")

    def publish(self, action: Action) -> Answer:
        return self._send("POST", f"/workflows/{action.slug}/versions/publish", match=_tag(action))

    def discard(self, action: Action) -> Answer:
        return self._send("DELETE", f"/workflows/{action.slug}/versions/draft", match=_tag(action))

    def restore(self, action: Action) -> Answer:
        return self._send("POST", f"/workflows/{action.slug}/versions/draft/restore")

    def revert(self, action: Action) -> Answer:
        path = f"/workflows/{action.slug}/versions/{action.version}/revert"
        return self._send("POST", path, match=_tag(action))

    def move_current(self, action: Action) -> Answer:
        return self._send("PUT", f"/workflows/{action.slug}/current", json={"version": action.version})

    def clear_current(self, action: Action) -> Answer:
        return self._send("DELETE", f"/workflows/{action.slug}/current")

    def create_token(self, action: Action) -> Answer:
        return self._send("POST", "/tokens", json={"name": action.token, "role": action.role})

    def revoke_token(self, action: Action) -> Answer:
        return self._send("DELETE", f"/tokens/{action.token}")

    def set_member(self, action: Action) -> Answer:
        return self._send("PUT", self._project(f"/members/{action.user}"), json={"role": action.role})

    def remove_member(self, action: Action) -> Answer:
        return self._send("DELETE", self._project(f"/members/{action.user}"))

    def rename_project(self, action: Action) -> Answer:
        return self._send("PATCH", self._project(), json={"slug": action.slug})

    def change_rules(self, action: Action) -> Answer:
        return self._send("PATCH", self._project(), json={"rules": "any"})

    def delete_project(self, action: Action) -> Answer:
        return self._send("DELETE", self._project(f"?confirm={action.slug}"))

    def _project(self, rest: str = "") -> str:
        return f"/projects/{self.world.project.id}{rest}"

    def _send(self, method: str, path: str, **options: Any) -> Answer:
        response = Client(self.world.app, self.token)(method, path, **options)
        if response.status_code < 400:
            return Answer(True, response.status_code, response.text)
        assert response.content_type == "application/problem+json"
        problem = response.json
        assert problem["status"] == response.status_code
        assert problem["title"]
        if problem["code"] in _ABOUT_DRAFT:
            assert problem["etag"] == f'"{self.world.draft}"'
        return Answer(False, problem["status"], problem["detail"], problem["code"])


class Page(Door):
    """Forms of a signed-in browser; refusals are pages with the status of the error."""

    name = "page"

    def create(self, action: Action) -> Answer:
        return self._send("new-workflow", slug=action.slug)

    def save(self, action: Action) -> Answer:
        fields = {"etag": action.seen, "base": str(self.world.latest), "definition": action.text.decode()}
        return self._send(f"workflows/{action.slug}/edit", **fields)

    def publish(self, action: Action) -> Answer:
        return self._send(f"workflows/{action.slug}/publish", etag=action.seen, activate="yes")

    def discard(self, action: Action) -> Answer:
        return self._send(f"workflows/{action.slug}/discard", etag=action.seen)

    def restore(self, action: Action) -> Answer:
        return self._send(f"workflows/{action.slug}/restore", ref=self.world.discarded)

    def revert(self, action: Action) -> Answer:
        return self._send(f"workflows/{action.slug}/versions/{action.version}/revert", etag=action.seen)

    def move_current(self, action: Action) -> Answer:
        seen = str(self.world.current or "")
        return self._send(f"workflows/{action.slug}/versions/{action.version}/current", seen=seen)

    def create_token(self, action: Action) -> Answer:
        return self._send("tokens", name=action.token, role=action.role)

    def revoke_token(self, action: Action) -> Answer:
        return self._send(f"tokens/{action.token}/revoke")

    def _send(self, path: str, **fields: str) -> Answer:
        visitor = Visitor(self.world.app.test_client(), Client(self.world.app, self.token))
        if self.token:
            visitor.sign_in()
        answer = visitor.post(f"/ui/{path}", **fields)
        ok = answer.status < 400
        return Answer(ok, answer.status, "" if ok else answer.page.text)


class Git(Door):
    """A push over smart HTTP; refusals are `ng` lines, or text for a request that is refused as a whole."""

    name = "git"

    def create(self, action: Action) -> Answer:
        return self._push(names.draft(action.slug), ZERO, self._commit(action.text))

    def save(self, action: Action) -> Answer:
        seen = action.seen.encode()
        return self._push(names.draft(action.slug), seen or ZERO, self._commit(action.text, seen))

    def publish(self, action: Action) -> Answer:
        return self._push(names.tag(action.slug, action.version), ZERO, (action.seen.encode(), []))

    def discard(self, action: Action) -> Answer:
        return self._push(names.draft(action.slug), action.seen.encode(), (ZERO, []))

    def publish_new(self, slug: str, number: int, text: bytes, parent: bytes) -> Answer:
        """Push the tag of a version on a new commit, which no branch has."""
        return self._push(names.tag(slug, number), ZERO, self._commit(text, parent))

    def _commit(self, text: bytes, *parents: bytes) -> tuple[bytes, list[ShaFile]]:
        blob, tree = Blob.from_string(text), Tree()
        tree.add(b"workflow.yaml", 0o100644, blob.id)
        commit = new_commit(
            tree=tree.id, parents=[parent for parent in parents if parent], author=_ADA, committer=_ADA,
            when=datetime.now(UTC), message="Edit",
        )  # fmt: skip
        return commit.id, [blob, tree, commit]

    def _push(self, ref: bytes, old: bytes, made: tuple[bytes, list[ShaFile]]) -> Answer:
        new, objects = made
        command = b" ".join((old, new, ref)) + b"\0" + CAPABILITIES.replace(b" push-options", b"")
        pack = BytesIO()
        if new != ZERO:
            write_pack_objects(pack, objects, DEFAULT_OBJECT_FORMAT)
        headers = {"Content-Type": "application/x-git-receive-pack-request"}
        if self.token:
            headers["Authorization"] = "Basic " + b64encode(f"git:{self.token}".encode()).decode()
        with capture_logs() as lines:
            response = self.world.app.test_client().post(
                f"/{self.world.project.slug}.git/git-receive-pack", headers=headers, buffered=True,
                data=pkt_line(command) + pkt_line(None) + pack.getvalue(),
            )  # fmt: skip
        if response.status_code != 200:
            assert response.content_type == "text/plain; charset=utf-8"
            return Answer(False, response.status_code, response.text)
        report = _report(response.data)
        if f"ok {ref.decode()}" in report:
            return Answer(True, 200, report)
        assert f"ng {ref.decode()} " in report
        (code,) = [line["code"] for line in lines if line["event"] == "refused"]
        return Answer(False, _STATUS[code], report, code)


class Cli(Door):
    """Commands of the operator, who needs no token; refusals are an exit status and a line on stderr."""

    name = "cli"

    def restore(self, action: Action) -> Answer:
        return self._run("draft", "restore", self.world.project.slug, action.slug)

    def create_token(self, action: Action) -> Answer:
        options = ("--role", action.role, "--name", action.token)
        return self._run("token", "create", self.world.project.slug, *options)

    def revoke_token(self, action: Action) -> Answer:
        return self._run("token", "revoke", action.token)

    def set_member(self, action: Action) -> Answer:
        return self._run("member", "add", self.world.project.slug, action.user, "--role", action.role)

    def remove_member(self, action: Action) -> Answer:
        return self._run("member", "remove", self.world.project.slug, action.user)

    def rename_project(self, action: Action) -> Answer:
        return self._run("project", "rename", self.world.project.slug, action.slug)

    def change_rules(self, action: Action) -> Answer:
        return self._run("project", "rules", self.world.project.slug, "any")

    def delete_project(self, action: Action) -> Answer:
        return self._run("project", "delete", self.world.project.slug, "--project-name", action.slug)

    def check_refusal(self, answer: Answer, code: str) -> None:
        assert answer.status == (2 if code == "malformed" else 1), answer.text
        assert "Error: " in answer.text if code == "malformed" else answer.text.startswith("error: ")

    def _run(self, *arguments: str) -> Answer:
        config = self.world.house.config
        wanted = environment(DATABASE_URL=config.database_url or "", GITSTORE_DATA=str(config.data))
        absent: dict[str, str | None] = {name: None for name in os.environ if name not in wanted}
        result = CliRunner(env={**absent, **wanted}).invoke(commands, arguments)
        assert "Traceback" not in result.output
        return Answer(result.exit_code == 0, result.exit_code, result.stderr or result.stdout)


def _tag(action: Action) -> str | None:
    return f'"{action.seen}"' if action.seen else None


def _report(answer: bytes) -> str:
    """Return the report of a push: the lines in side band 1."""
    bands = {1: b"", 2: b""}

    def collect(packet: bytes | None) -> None:
        if packet:
            bands[packet[0]] += packet[1:]

    PktLineParser(collect).parse(answer)
    lines: list[bytes] = []
    PktLineParser(lambda packet: lines.append(packet or b"")).parse(bands[1])
    return b"".join(lines).decode()


ACTIONS = {
    "create": "editor",
    "save": "editor",
    "publish": "publisher",
    "discard": "editor",
    "restore": "editor",
    "revert": "editor",
    "move_current": "publisher",
    "clear_current": "publisher",
    "create_token": "owner",
    "revoke_token": "owner",
    "set_member": "owner",
    "remove_member": "owner",
    "rename_project": "owner",
    "change_rules": "owner",
    "delete_project": "owner",
}
"""Each action and the role that it needs."""

DOORS: tuple[type[Door], ...] = (Api, Page, Git, Cli)
