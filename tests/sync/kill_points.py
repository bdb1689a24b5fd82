"""Kill a writer at a named place: a process that forks a child for each write, which kills itself.

    python -m tests.sync.kill_points <repository> <project> <conninfo>

reads a line of JSON for each write, {"write": ..., "at": place, "nth": n}, and answers with one, {"killed":
bool, "ended": the result of the write or its error, "passed": how often each place was passed}. With "stop",
the child stops itself there instead, and goes on when it is continued. A place is
the beginning (`<name`) or the end (`name>`) of a function; the product has no code for it.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

from dulwich.objects import Blob, ShaFile, Tree
from dulwich.protocol import pkt_line

from gitstore import names, pointers, releases
from gitstore.changes import Authorship
from gitstore.drafts import Content
from gitstore.environments import CURRENT
from gitstore.errors import Code, GitstoreError
from gitstore.git.commits import new_commit
from gitstore.git.objects import WritableObjects
from gitstore.git.quarantine import SMALL
from gitstore.model import Person
from gitstore.push.receive import CAPABILITIES, Receiver
from gitstore.push.report import PushReport
from gitstore.push.request import ZERO
from gitstore.releases import Wanted
from gitstore.store import Actors, Store
from sync.db import Database
from sync.unit_of_work import MirrorUnitOfWork
from tests.helpers import until

ROOT = Path(__file__).parents[2]
ADA = Person("Ada", "ada@example.com")
WHO = Actors(ADA, ADA)
YAML = "nodes:\n- {id: a, type: webhook, data: {label: %s}}\n"

# Steps of a write: name -> where the function is looked up when it is called.
PLACES = {
    "marker": "sync.markers:Markers.restore",
    "object": "gitstore.git.objects:WritableObjects._write_one",
    "pack": "gitstore.git.objects:WritableObjects.write_pack",
    "small pack": "gitstore.git.small_packs:write",
    "object folder": "gitstore.git.objects:sync_fanout",
    "unpacked": "gitstore.git.unpacking:_run",
    "moved in": "pathlib:Path.rename",
    "admitted": "gitstore.git.quarantine:Quarantine.admit",
    "lock": "gitstore.git.refs:WritableRefs._lock",
    "link": "os:link",
    "tag": "gitstore.git.lock_file:LockFile.link",
    "rename": "gitstore.git.lock_file:LockFile.replace",
    "ref folder": "gitstore.git.refs:sync_folder",
    "refs": "gitstore.git.refs:WritableRefs.update",
    "head": "gitstore.git.refs:WritableRefs.point_head",
    "deleted": "gitstore.git.refs:WritableRefs.delete",
    "decided": "gitstore.pending:decide",
    "carried out": "gitstore.pending:carry_out",
    "concluded": "gitstore.pending:conclude",
    "row": "sync.mirror:Batch.flush",
    "event": "sync.events:as_json",
    "audit": "sync.audit:row",
    "commit": "sync.db:Database._commit",
    "unmarked": "sync.markers:Markers.remove",
}


class Trap:
    """Counts how often each place is passed, and kills or stops this process at one of them."""

    def __init__(
        self, at: str | None, nth: int, places: Mapping[str, str] = PLACES, *, stop: bool = False
    ) -> None:
        self.passed: Counter[str] = Counter()
        self._at, self._nth, self._places = at, nth, places
        self._signal = signal.SIGSTOP if stop else signal.SIGKILL

    def install(self) -> None:
        for name, place in self._places.items():
            module, _, path = place.partition(":")
            owner: Any = importlib.import_module(module)
            *holders, last = path.split(".")
            for holder in holders:
                owner = getattr(owner, holder)
            raw = vars(owner)[last]
            if isinstance(raw, staticmethod):
                setattr(owner, last, staticmethod(self._around(name, raw.__func__)))
            else:
                setattr(owner, last, self._around(name, raw))

    def _around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def around(*arguments: Any, **named: Any) -> Any:
            self.note(f"<{name}")
            answer = function(*arguments, **named)
            self.note(f"{name}>")
            return answer

        return around

    def note(self, place: str) -> None:
        self.passed[place] += 1
        if place == self._at and self.passed[place] == self._nth:
            os.kill(os.getpid(), self._signal)


def carry_out(store: Store, write: dict[str, Any]) -> object:
    """Carry out the write, and return its result."""
    slug = write["slug"]
    match write["kind"]:
        case "create":
            return store.create_workflow(slug, Content(value=write["definition"]), WHO).commit
        case "save":
            content = Content(value=write["definition"])
            return store.save_draft(slug, content, WHO, expected="*").commit
        case "publish":
            return store.publish(slug, WHO, message="Ship it").number
        case "one call":
            return store.publish(slug, WHO, Content(value=write["definition"]), message="Ship it").number
        case "discard":
            store.discard_draft(slug, WHO)
            return None
        case "revert":
            return store.revert(slug, 1, WHO, expected="*").commit
        case "current":
            store.move_current(slug, 1, WHO, hold=True)
            return None
        case "release":
            items = [Wanted(name, **item) for name, item in write["items"].items()]
            return releases.create(store, f"of-{slug}", items, WHO).commit
        case "roll back":
            return [each.slug for each in releases.roll_back(store, f"of-{slug}", WHO)]
        case "promote":
            return [each.slug for each in pointers.promote(store, write["items"], "staging", CURRENT, WHO)]
        case "publish many":
            return publish_many(store, slug, write["label"], write["count"])
        case "push" | "push of large files" | "push at once":
            occasion = Authorship(ADA, datetime.now(UTC))
            receiver = Receiver(store, occasion, lambda *_: None, PushReport(lambda *_: "http://x.test/"))
            receipt = receiver.receive(BytesIO(Path(write["request"]).read_bytes()).read)
            return [str(v.refusal) if v.refusal else "ok" for v in receipt.verdicts]
    raise ValueError(write)


def publish_many(store: Store, slug: str, label: str, count: int) -> dict[str, Any]:
    """Publish until `count` versions are ours: their numbers, and how long the slowest took in seconds."""
    numbers: list[int] = []
    slowest = 0.0
    for turn in itertools.count():
        if len(numbers) == count:
            break
        # Different each time: content that another process has published is not a new version.
        value = {"nodes": [{"id": "a", "type": "webhook", "data": {"label": f"{label} {turn}"}}]}
        try:
            try:
                store.create_draft(slug, Content(value=value), WHO)
            except GitstoreError as error:
                if error.code is not Code.DRAFT_EXISTS:
                    raise
                store.save_draft(slug, Content(value=value), WHO, expected="*")
            started = time.monotonic()
            published = store.publish(slug, WHO)
            slowest = max(slowest, time.monotonic() - started)
        except GitstoreError as error:
            # Another process has published the draft meanwhile.
            if error.code is not Code.VERSION_NOT_FOUND:
                raise
        else:
            numbers += [published.number] if published.new else []
    return {"numbers": numbers, "slowest": slowest}


def push_request(
    folder: Path,
    slug: str,
    author: str = "ada",
    discarded: Mapping[str, str] | None = None,
    *,
    large: bool = False,
) -> Path:
    """A push of a draft and two versions, as a file in `folder`; its pack is small unless `large`.

    With `discarded`, drafts and their heads, it is an atomic push of two workflows that also discards those.
    """
    Store.init(folder / f"{slug}-{author}")
    made: list[ShaFile] = []
    commits: list[bytes] = []
    for label in ("one", "two"):
        blob, tree = Blob.from_string((YAML % f"{slug}-{author}-{label}").encode()), Tree()
        tree.add(b"workflow.yaml", 0o100644, blob.id)
        if large:
            made.append(Blob.from_string(label.encode() * SMALL))
            tree.add(b"large.txt", 0o100644, made[-1].id)
        commit = new_commit(
            tree=tree.id, parents=commits[-1:], author=ADA, committer=ADA,
            when=datetime(2026, 1, 1, tzinfo=UTC), message=label,
        )  # fmt: skip
        made += [blob, tree, commit]
        commits.append(commit.id)
    with closing(WritableObjects(folder / f"{slug}-{author}" / "objects")) as objects:
        objects.write(made)
    pack = subprocess.run(
        ["git", "--git-dir", str(folder / f"{slug}-{author}"), "pack-objects", "--stdout", "-q"],
        input=b"\n".join(item.id for item in made), capture_output=True, check=True,
    ).stdout  # fmt: skip
    lines = [
        b" ".join([ZERO, oid, ref])
        for pushed in ([slug] if discarded is None else [slug, f"{slug}-too"])
        for oid, ref in zip(
            [*commits, commits[1]],
            [names.tag(pushed, 1), names.tag(pushed, 2), names.draft(pushed)],
            strict=True,
        )
    ]
    lines += [
        b" ".join([head.encode(), ZERO, names.draft(other)]) for other, head in (discarded or {}).items()
    ]
    wanted = CAPABILITIES if discarded is not None else CAPABILITIES.replace(b" atomic", b"")
    lines[0] += b"\0" + wanted
    options = pkt_line(b"gitstore.discard=%d" % len(discarded)) if discarded else b""
    path = folder / f"{slug}-{author}.push"
    path.write_bytes(b"".join(map(pkt_line, lines)) + pkt_line(None) + options + pkt_line(None) + pack)
    return path


class Killer:
    """The side of the test: sends writes to the process."""

    def __init__(self, repository: Path, project: UUID, conninfo: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sync.kill_points", str(repository), str(project), conninfo],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def write(self, write: dict[str, Any], at: str | None = None, nth: int = 1) -> dict[str, Any]:
        self._ask({"write": write, "at": at, "nth": nth})
        return self._answer()

    @contextmanager
    def stopped(self, write: dict[str, Any], at: str, answer: dict[str, Any]) -> Iterator[None]:
        """Run the block while the writer is stopped at a place; then continue it, and fill in `answer`."""
        self._ask({"write": write, "at": at, "nth": 1, "stop": True})
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        until(lambda: children.read_text().split(), "the writer did not begin")
        child = int(children.read_text())
        until(lambda: _state(child) == "T", f"the writer did not stop at {at}")
        try:
            yield
        finally:
            os.kill(child, signal.SIGCONT)
            answer.update(self._answer())

    def _ask(self, asked: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(30)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _in_a_child(repository: Path, project: UUID, conninfo: str, asked: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens here must not come back into the loop of the parent.
        try:
            os.close(reading)
            trap = Trap(asked["at"], asked["nth"], stop=asked.get("stop", False))
            try:
                trap.install()
                unit_of_work = partial(MirrorUnitOfWork, Database(conninfo, max_connections=1))
                store = Store(repository, project, unit_of_work)
                ended = carry_out(store, asked["write"])
            except GitstoreError as error:
                ended = f"{error.code}: {error.message}{f' ({error.__cause__!r})' if error.__cause__ else ''}"
            except Exception:
                ended = traceback.format_exc()
            os.write(writing, json.dumps({"ended": ended, "passed": trap.passed}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        line = answer.read()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    return {"killed": killed, **(json.loads(line) if line else {"ended": None, "passed": {}})}


def main(repository: str, project: str, conninfo: str) -> None:
    for line in sys.stdin:
        answer = _in_a_child(Path(repository), UUID(project), conninfo, json.loads(line))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
