"""Data folders with projects of 10 to 100,000 versions, made once and copied for each run.

A data folder has one project for each size, `size-<versions>`, whose workflows have ten versions each. The
definitions are all different and have twelve nodes. Objects and refs are written by `git fast-import`, as
gitstore writes them (a draft, annotated tags and a ledger for each workflow), and the rows by `gitstore
rebuild`. The embedded Postgres is in the folder and stopped.

A folder is kept in `bench/.cache` under a hash of what it depends on: what the script makes, and the schema.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

from gitstore import ledger, names
from gitstore.git.process import environment, git
from gitstore.model import LedgerKind, Person, Rules
from service.config import Config
from service.projects import Projects, make_data_folder
from service.run.bootstrap import create_project
from sync import catalog
from sync.db import Database
from sync.embedded.server import EmbeddedPostgres
from sync.migrate import migrate
from tests.conftest import temporary_folder

SIZES: Final = (10, 1_000, 10_000, 100_000)
VERSIONS: Final = 10
"""Versions of a workflow."""
CACHE: Final = Path(__file__).parent / ".cache"
ANN: Final = Person("Ann", "ann@example.test")
_BEGUN: Final = datetime(2024, 1, 1, tzinfo=UTC)
_MIGRATIONS: Final = Path(migrate.__code__.co_filename).parent / "migrations"

Report = Callable[[str], object]


def slug(number: int) -> str:
    return f"flow-{number:06}"


def project(size: int) -> str:
    return f"size-{size}"


def definition(label: str) -> dict[str, object]:
    """Return a valid definition of twelve nodes in a row, 2.5 KB of YAML, which differs by `label`."""
    kinds: list[tuple[str, dict[str, object]]] = [("webhook", {})]
    for step in range(1, 11):
        url = f"https://warehouse.example/{label}/{step}"
        kinds.append(
            ("httpCall", {"url": url, "method": "POST", "headers": {"X-Step": str(step)}})
            if step % 2
            else ("transform", {"expression": "{order: order, total: sum(items[].price)}"})
        )
    kinds.append(("terminate", {"reason": "done"}))
    nodes = [
        {"id": f"n{at}", "type": kind, "position": {"x": 260 * at, "y": 0},
         "data": {"label": f"Step {at}", "config": config}}
        for at, (kind, config) in enumerate(kinds)
    ]  # fmt: skip
    edges = [{"id": f"e{at}", "source": f"n{at}", "target": f"n{at + 1}"} for at in range(len(nodes) - 1)]
    return {"name": label, "description": f"Orders of {label}", "nodes": nodes, "edges": edges}


def as_yaml(value: object, indent: str = "") -> str:
    """Return mappings and lists as block YAML, 50 times as fast as a library that may meet any text."""
    lines = []
    if isinstance(value, dict):
        for key, item in value.items():
            nested = isinstance(item, dict | list) and item
            lines.append(
                f"{indent}{key}:" + ("\n" + as_yaml(item, indent + "  ") if nested else _scalar(item))
            )
    elif isinstance(value, list):
        for item in value:
            text = as_yaml(item, indent + "  ")
            lines.append(f"{indent}- {text.lstrip()}")
    return "\n".join(lines)


def _scalar(value: object) -> str:
    return " {}" if value == {} else f" {value}" if isinstance(value, int) else f' "{value}"'


def object_id(kind: bytes, content: bytes) -> bytes:
    """Return the id that git gives to an object, in hexadecimal."""
    return hashlib.sha1(b"%s %d\0%s" % (kind, len(content), content)).hexdigest().encode()


# The script for git-fast-import(1). A ledger entry names the id of its tag, so all ids are computed here.


def script(workflows: int, *, versions: int = VERSIONS, ledgers: bool = True) -> Iterator[bytes]:
    """Yield what git fast-import reads to make `workflows`, with a ledger each unless not wanted."""
    for number in range(workflows):
        yield from workflow(slug(number), versions, ledgers=ledgers)


def workflow(of: str, versions: int, *, ledgers: bool) -> Iterator[bytes]:
    """Yield what makes one workflow."""
    entry = ledger.draft_entry(None, None, LedgerKind.CREATED, ANN, _BEGUN)
    entries, parent = [entry], b""
    for number in range(1, versions + 1):
        when = _BEGUN + timedelta(seconds=number)
        name = f"{of}/v{number}".encode()
        content = as_yaml(definition(f"{of}/v{number}")).encode() + b"\n"
        identity = b"Ann <ann@example.test> %d +0000" % when.timestamp()
        blob = bytes.fromhex(object_id(b"blob", content).decode())
        tree = object_id(b"tree", b"100644 workflow.yaml\0" + blob)
        parents = b"parent %s\n" % parent if parent else b""
        message, words = b"Change %s\n" % name, b"Publish %s\n" % name
        commit = object_id(
            b"commit",
            b"tree %s\n%sauthor %s\ncommitter %s\n\n%s" % (tree, parents, identity, identity, message),
        )
        tag = object_id(
            b"tag", b"object %s\ntype commit\ntag %s\ntagger %s\n\n%s" % (commit, name, identity, words)
        )
        parent = commit
        yield b"commit %s\nmark :1\ncommitter %s\n%s" % (names.draft(of), identity, _data(message))
        yield b"M 100644 inline workflow.yaml\n%s\n" % _data(content)
        yield b"tag %s\nfrom :1\ntagger %s\n%s" % (name, identity, _data(words))
        published = replace(
            entry, kind=LedgerKind.PUBLISHED, when=when, latest=number, current=number, version=number,
            target=tag.decode(),
        )  # fmt: skip
        entries.append(published)
    for entry in entries if ledgers else ():
        made = ledger.compose(of, entry)
        yield b"commit %s\nauthor %s %d +0000\ncommitter %s %d +0000\n%s\n" % (
            names.ledger(of), made.author, made.author_time, made.committer, made.commit_time,
            _data(made.message),
        )  # fmt: skip


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def fill(repository: Path, parts: Iterator[bytes]) -> None:
    """Run a script for an empty bare repository, and pack the refs, without an fsync.

    git makes a file of each ref first, which a disk takes minutes for: this is done in RAM where it can be.
    """
    with temporary_folder() as folder:
        made = folder / "made.git"
        run = [git(), "-C", str(made), "-c", "core.fsync=none"]
        subprocess.run([git(), "init", "-q", "--bare", str(made)], check=True, env=environment())
        command = [*run, "fast-import", "--quiet", "--force"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment()) as child:
            assert child.stdin is not None
            with child.stdin:
                child.stdin.writelines(parts)
        assert child.returncode == 0
        subprocess.run([*run, "pack-refs", "--all"], check=True, env=environment())
        for pack in (made / "objects/pack").glob("*.pack"):  # as `gitstore gc` writes it
            index = [*run, "index-pack", "--rev-index", str(pack)]
            subprocess.run(index, check=True, env=environment(), stdout=subprocess.DEVNULL)
        shutil.copytree(made / "objects", repository / "objects", dirs_exist_ok=True)
        shutil.copy(made / "packed-refs", repository / "packed-refs")


# Data folders

_FORM: Final = b"2"  # changes when `fill` makes other files of the same script


def _key(sizes: Sequence[int]) -> str:
    schema = (file.read_bytes() for file in sorted(_MIGRATIONS.glob("*.sql")))
    return hashlib.sha256(b"".join([_FORM, repr(sizes).encode(), *script(2), *schema])).hexdigest()[:16]


def seeded(sizes: Sequence[int], report: Report = print, cache: Path = CACHE) -> Path:
    """Return the data folder in the cache with projects of `sizes`. It is made if it is not there."""
    made = cache / f"seeds-{_key(tuple(sizes))}"
    if not made.is_dir():
        cache.mkdir(mode=0o711, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=cache, prefix="making-"))
        folder.chmod(0o711)
        try:
            _make(folder / "data", sizes, report)
            (folder / "data").rename(made)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return made


def copied(sizes: Sequence[int], folder: Path, report: Report = print, cache: Path = CACHE) -> Path:
    """Copy the data folder with projects of `sizes` to `folder`; share blocks where the file system can."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(seeded(sizes, report, cache)), str(folder)], check=True)
    for repository in (folder / "repos").iterdir():
        (repository / "gitstore-gc").touch()  # else the worker maintains them at once, beside the measures
    return folder


def _make(data: Path, sizes: Sequence[int], report: Report) -> None:
    settings = {"GITSTORE_DATA": str(data)}
    config = Config.from_env({**os.environ, **settings})
    make_data_folder(config)
    postgres = EmbeddedPostgres(config.postgres_folder, settings={"fsync": "off", "max_wal_size": "4GB"})
    try:
        migrate(postgres.start())
        with closing(Database(postgres.conninfo(), application="bench")) as database:
            for size in sizes:
                begun = time.perf_counter()
                with database.as_owner() as transaction:
                    create_project(
                        transaction, Projects(config), uuid4(), project(size), project(size), Rules.MESHHOOK
                    )
                    row = catalog.project(transaction, project(size))
                assert row is not None
                fill(Projects(config).path(row.id), script(size // VERSIONS))
                imported = time.perf_counter()
                command = [sys.executable, "-m", "service.cli", "rebuild", project(size)]
                subprocess.run(
                    command, env={**os.environ, **settings}, check=True,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                rows = time.perf_counter() - imported
                report(f"seeded {size:,} versions: Git in {imported - begun:.0f} s, rows in {rows:.0f} s")
    finally:
        postgres.stop()


if __name__ == "__main__":
    print(seeded(tuple(map(int, sys.argv[1:])) or SIZES))
