"""Backups that are made while people work, and restored on another machine."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result

from gitstore.system import wait_until
from service.cli.main import commands
from service.config import Config
from service.run.database import connection_string
from sync.backup_archive import BackedUp, Writer
from sync.backup_tables import DERIVED, TABLES
from sync.db import Database
from sync.migrate import migrate, shipped
from tests.helpers import PATIENCE
from tests.stories.instance import Caller, Service, definition

PASSPHRASE = "GITSTORE_BACKUP_PASSPHRASE_FILE"
_LINK = "projects/00000000-0000-0000-0000-000000000000/members/000001"


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text("correct horse battery staple\n")
    return file


class Here:
    """A database and a data folder, and commands on them in this process."""

    def __init__(self, data: Path, database: str, passphrase: Path | None = None) -> None:
        self.data = data
        self.settings = {"GITSTORE_DATA": str(data), "DATABASE_URL": database}
        if passphrase is not None:
            self.settings[PASSPHRASE] = str(passphrase)

    def __call__(self, *arguments: str, status: int = 0, given: bytes | None = None) -> Result:
        done = CliRunner(env=self.settings).invoke(commands, arguments, input=given)
        assert done.exit_code == status, done.output
        assert isinstance(done.exception, SystemExit | None), done.exception
        return done

    def refuses(self, source: Path) -> str:
        """The error of a restore that changes nothing."""
        error = self("restore", str(source), status=1).stderr
        assert not list(self.data.glob("repos/*"))
        with psycopg.connect(self.settings["DATABASE_URL"]) as connection:
            assert connection.execute("select to_regclass('gitstore.projects')").fetchone() == (None,)
        return error


class Publisher:
    """A thread that publishes versions of its own workflow over HTTP; `done` are those acknowledged."""

    def __init__(self, caller: Caller, slug: str) -> None:
        self.slug = slug
        self.done = 0
        self._caller = caller
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self._caller.publish(self.slug, f"{self.slug} {self.done + 1}")
            self.done += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)


@contextmanager
def writing(caller: Caller) -> Iterator[list[Publisher]]:
    writers = [Publisher(caller, f"busy-{number}") for number in range(2)]
    try:
        yield writers
    finally:
        for writer in writers:
            writer.stop()


def acknowledged(writers: list[Publisher]) -> dict[str, int]:
    return {writer.slug: writer.done for writer in writers}


NOT_CONTENT = {"migrations", "feature_level", "checks", "check_runs"}
"""Tables that say nothing about projects: the schema, and what was compared when."""


def rows(settings: Mapping[str, str]) -> dict[str, list[str]]:
    """The rows of each table with the content of projects, without the record of a restore."""
    query = "select (to_jsonb(t))::text from gitstore.{} t order by 1"
    with (
        connection_string(Config.from_env(settings)) as conninfo,
        psycopg.connect(conninfo) as connection,
    ):
        found = {
            name: [row for (row,) in connection.execute(query.format(name).encode())]
            for name in {table.name for table in TABLES} | DERIVED.keys() - NOT_CONTENT
        }
    found["audit_log"] = [row for row in found["audit_log"] if "project.restored" not in row]
    return found


def packed(path: Path) -> int:
    """The bytes of Git objects in a backup."""
    with tarfile.open(path) as tar:
        return sum(member.size for member in tar if member.name.split("/")[-2:-1] == ["pack"])


@pytest.fixture
def made(
    tmp_path: Path, make_database: Callable[..., str], passphrase: Path
) -> Iterator[tuple[Here, Service]]:
    """An installation, and its service, which runs."""
    made = Here(tmp_path / "data", make_database(), passphrase)
    service = Service(made.data, made.settings).start()
    yield made, service
    service.stop()


@pytest.mark.slow
def test_a_backup_under_load_is_restored_elsewhere(
    made: tuple[Here, Service], empty: Here, tmp_path: Path, make_database: Callable[..., str]
) -> None:
    """Each has all that was acknowledged before it; what follows is added; tokens and secrets work."""
    (original, service), folder = made, tmp_path / "backups"
    owner = service.owner
    hook = {"url": "https://hooks.example/in", "events": ["workflow.version.published"]}
    assert owner.call("POST", "/subscriptions", hook).status == 201
    assert owner.call("POST", "/sources", {"url": "https://forge.example/flows.git"}).status == 201
    viewer = original("token", "create", "default", "--role", "viewer", "--name", "engine").stdout.strip()
    assert owner.save("released", "released") == 201
    draft = owner.get("/workflows/released/versions/draft").json["commit"]
    items = [{"workflow": "released", "draft": draft}]
    release = owner.call("POST", "/releases", {"name": "autumn", "items": items, "message": "Autumn"})
    assert release.status == 201, release.raw
    ann = owner.author(tmp_path / "ann")
    ann.draft("pushed", definition("pushed"))
    assert ann.push("drafts/pushed").ok

    with writing(owner) as writers:
        assert wait_until(lambda: min(acknowledged(writers).values()) > 1, PATIENCE)
        before = acknowledged(writers)
        first = json.loads(original("backup", str(folder), "--json").stdout)
        ann.tag("pushed", 1)
        assert ann.push("pushed/v1").ok
        second = json.loads(original("backup", str(folder), "--json").stdout)
    service.stop()
    assert second["predecessor"] == first["id"]
    assert first["secrets_left_out"] == second["secrets_left_out"] == 0
    last = original("backup", str(folder), "--verify").stdout
    assert ", adds to gitstore-" in last
    assert ", verified" in last
    files = sorted(folder.glob("gitstore-*.tar"))
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3

    # The newest, on an empty machine: the same rows, the same bytes.
    empty("restore", str(folder))
    assert rows(empty.settings) == rows(original.settings)
    assert "every secret can be decrypted" in empty("secrets", "check").stdout
    restored = Service(empty.data, empty.settings).start()
    try:
        reader = Caller(restored.url, "default", viewer)
        for slug, count in acknowledged(writers).items():
            assert reader.definition(slug, count) == definition(f"{slug} {count}").encode()
        assert reader.definition("pushed", 1) == definition("pushed").encode()
        Caller(restored.url, "default", owner.token).publish("pushed", "next")
        assert reader.get("/workflows/pushed/versions/current").json["version_number"] == 2
        empty("verify")
    finally:
        restored.stop()

    # The first one: everything that was acknowledged before.
    older = Here(tmp_path / "older", make_database())
    older("restore", str(files[0]), "--without-secrets", "--paused")
    there = rows(older.settings)
    found = {json.loads(row)["slug"]: json.loads(row)["latest_number"] for row in there["workflows"]}
    assert {slug: found[slug] >= count for slug, count in before.items()} == dict.fromkeys(before, True)
    assert found["pushed"] == 0
    (subscription,) = there["subscriptions"]
    assert json.loads(subscription)["state"] == "paused"


# Refusals


@pytest.fixture
def here(tmp_path: Path, make_database: Callable[..., str], passphrase: Path) -> Here:
    """A small installation with a secret."""
    flows = tmp_path / "flows"
    flows.mkdir()
    for number in range(2):
        (flows / f"flow-{number}.yaml").write_text(definition(f"flow {number}"))
    here = Here(tmp_path / "data", make_database(), passphrase)
    here("migrate")
    here("project", "create", "team", "--rules", "any")
    here("import", "folder", str(flows), "--project", "team")
    here("source", "add", "team", "https://forge.example/a.git")
    return here


@pytest.fixture
def empty(tmp_path: Path, make_database: Callable[..., str], passphrase: Path) -> Here:
    return Here(tmp_path / "other", make_database(), passphrase)


def changed(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of a backup, with other content of its members; None leaves one out."""
    copy = path.with_name(f"changed{path.suffix}")
    with tarfile.open(path) as old, tarfile.open(copy, "w") as new:
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            content = change(member.name, file.read())
            if content is not None:
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    return copy


def replaced(manifest: bytes) -> Callable[[str, bytes], bytes]:
    return lambda name, content: manifest if name == "manifest.json" else content


def flipped(part: str) -> Callable[[str, bytes], bytes]:
    return lambda name, raw: raw[:-1] + bytes([raw[-1] ^ 1]) if name == part else raw


def in_manifest(**values: Any) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        return json.dumps({**json.loads(content), **values}).encode() if name == "manifest.json" else content

    return change


def test_damage_is_refused_and_changes_nothing(here: Here, empty: Here, tmp_path: Path) -> None:
    """A byte of any part, a missing part, a cut, another file, a newer schema or format."""
    path = tmp_path / "whole.tar"
    here("backup", str(path))
    assert "exists already" in here("backup", str(path), status=1).stderr
    with tarfile.open(path) as tar:
        parts = [member.name for member in tar if member.name != "manifest.json"]
    for part in parts:
        assert f"the checksum of {part} is wrong" in empty.refuses(changed(path, flipped(part)))
    lacking = changed(path, lambda name, raw: None if name == parts[0] else raw)
    assert "not those of its manifest" in empty.refuses(lacking)
    assert "interrupted" in empty.refuses(changed(path, lambda name, raw: None if name[0] == "m" else raw))
    newer = changed(path, in_manifest(migration=9999, gitstore="9.0"))
    assert "made by gitstore 9.0 with a newer schema" in empty.refuses(newer)
    assert "is of a newer gitstore" in empty.refuses(changed(path, in_manifest(format=2)))
    for manifest in (b"", b"[]", b"{}", b"[" * 100_000):
        assert "its manifest can't be read" in empty.refuses(changed(path, replaced(manifest)))
    cut = tmp_path / "cut.tar"
    for size in (0, 100, 700, path.stat().st_size // 2):
        cut.write_bytes(path.read_bytes()[:size])
        assert "is damaged" in empty.refuses(cut)
    assert "there is no backup" in empty.refuses(tmp_path / "absent.tar")
    assert "there is no backup" in empty.refuses(tmp_path)


def test_an_archive_cannot_name_a_path(here: Here, empty: Here, tmp_path: Path) -> None:
    """Links, devices, sparse and repeated members are refused, and names never become paths."""
    path = tmp_path / "whole.tar"
    here("backup", str(path))
    for kind, name in (
        (tarfile.SYMTYPE, _LINK),
        (tarfile.LNKTYPE, _LINK),
        (tarfile.FIFOTYPE, _LINK),
        (tarfile.DIRTYPE, "projects"),
    ):
        hostile = tmp_path / "hostile.tar"
        shutil.copy(path, hostile)
        with tarfile.open(hostile, "a") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        assert "is none of a backup" in empty.refuses(hostile)
    with tarfile.open(path) as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        manifest = json.loads(file.read())
    for name in ("../../escaped", "/tmp/escaped", "projects/../../x/members/000001"):  # noqa: S108
        part = {"name": name, "size": 1, "sha256": sha256(b"x").hexdigest()}
        listed = json.dumps({**manifest, "parts": [*manifest["parts"], part]}).encode()
        hostile = changed(path, replaced(listed))
        with tarfile.open(hostile, "a") as tar:
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
        assert "its manifest can't be read" in empty.refuses(hostile)


def made_up(path: Path, streams: Mapping[str, bytes]) -> Path:
    """A backup with right checksums and these streams of one project."""
    identity = UUID(int=7)
    with path.open("wb") as file:
        writer = Writer(file)
        for name, content in streams.items():
            with writer.stream(f"projects/{identity}/{name}") as put:
                put(content)
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        project = BackedUp(id=identity, slug="team", created_at=moment)
        writer.finish([project], shipped()[-1].number, None)
    return path


def gzipped(*rows: object) -> bytes:
    return gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows))


TEAM = {
    "id": str(UUID(int=7)), "slug": "team", "name": "Team", "rules": "any", "first_rules": "any",
    "checked_rules": "any", "activate_invalid": False, "file_names": [], "created_at": "2026-01-01T00:00:00Z",
}  # fmt: skip
_ZEROS = gzip.compress(b"0" * (80 << 20), 1)


MADE_UP: tuple[tuple[dict[str, bytes], str], ...] = (
    ({}, "lacks rows of its projects"),
    ({"projects": gzipped({**TEAM, "id": str(UUID(int=8))})}, "lacks rows of its projects"),
    ({"projects": gzipped({**TEAM, "rules": "none"})}, "the rows of projects in the backup"),
    ({"projects": gzipped({**TEAM, "created_at": "no time"})}, "the rows of projects in the backup"),
    ({"projects": gzip.compress(b"{]\n")}, "the rows of projects in the backup"),
    ({"projects": gzip.compress(b"\xff\n")}, "can't be read"),
    ({"projects": gzipped(TEAM)[:-1]}, "can't be read"),
    ({"projects": gzipped(TEAM) + b"more"}, "can't be read"),
    ({"projects": _ZEROS}, "can't be read"),
    ({"projects": b"no gzip"}, "can't be read"),
    ({"projects": gzipped(TEAM), "pack": b"no pack"}, "git index-pack"),
    ({"projects": gzipped(TEAM), "refs": b"a" * 40 + b" refs/../../x\n"}, "is not a ref"),
    ({"projects": gzipped(TEAM), "refs": b"a" * 40 + b" refs/x.lock\n"}, "is not a ref"),
    ({"projects": gzipped(TEAM), "refs": b"a" * 40 + b" HEAD\n"}, "a line of its refs"),
    ({"projects": gzipped(TEAM), "refs": b"HEAD ../x\n"}, "a line of its refs"),
    ({"projects": gzipped(TEAM), "refs": b"a" * 40 + b" refs/heads/x\n"}, "git rev-list failed"),
)


def test_content_that_was_made_up_is_refused(empty: Here, tmp_path: Path) -> None:
    """With right checksums: it is still checked as the content of a push is, and nothing is restored."""
    empty("migrate")
    for streams, reason in MADE_UP:
        path = made_up(tmp_path / "made-up.tar", streams)
        assert reason in empty("restore", str(path), status=1).stderr
        assert list((empty.data / "repos").iterdir()) == []
    assert json.loads(empty("project", "list", "--json").stdout) == []


def test_the_passphrase_must_be_that_of_the_backup(here: Here, empty: Here, tmp_path: Path) -> None:
    """Without one, a restore says how to go on; a backup without one says what it lacks."""
    path, other = tmp_path / "whole.tar", tmp_path / "wrong"
    here("backup", str(path))
    other.write_text("wrong")
    empty.settings[PASSPHRASE] = str(other)
    assert "the passphrase is not that of the backup" in empty.refuses(path)
    del empty.settings[PASSPHRASE]
    assert "--without-secrets" in empty.refuses(path)
    del here.settings[PASSPHRASE]
    noted = here("backup", str(tmp_path / "open.tar")).stderr
    assert "1 secret of subscriptions and sources left out" in noted
    output = empty("restore", str(tmp_path / "open.tar")).stdout
    assert "its webhook secret was lost: set a new one here and in the forge" in output
    assert "every secret can be decrypted" in empty("secrets", "check").stdout


def test_a_restore_needs_an_empty_place(here: Here, empty: Here, tmp_path: Path) -> None:
    path = tmp_path / "whole.tar"
    here("backup", str(path))
    assert "is not empty" in here("restore", str(path), status=1).stderr
    moved = Here(tmp_path / "moved", here.settings["DATABASE_URL"], Path(here.settings[PASSPHRASE]))
    assert "the database has projects already" in moved("restore", str(path), status=1).stderr
    assert here("verify").exit_code == 0
    assert "would be restored: 1 project, no differences" in empty("restore", str(path), "--dry-run").stdout
    assert "restored: 1 project, no differences" in empty("restore", "-", given=path.read_bytes()).stdout
    assert empty("verify").exit_code == 0


def test_a_chain_needs_all_its_backups(here: Here, empty: Here, tmp_path: Path) -> None:
    """An addition has no objects of those before; it is refused without them, and by another folder's."""
    folder = tmp_path / "chain"
    for _ in range(3):
        here("backup", str(folder))
    files = sorted(folder.glob("*.tar"))
    assert packed(files[0]) > 0
    assert packed(files[1]) == packed(files[2]) == 0
    first = files[0].rename(tmp_path / "first.tar")
    assert "which is not in" in empty.refuses(folder)
    first.rename(files[0])
    assert "adds to" not in here("backup", str(folder), "--full").stdout
    files[1].unlink()  # not needed by the newest
    assert "no differences" in empty("restore", str(folder)).stdout


def test_a_killed_backup_leaves_no_backup(here: Here, tmp_path: Path) -> None:
    """Its leftover is removed by the next one; of two at once, one is refused."""
    folder = tmp_path / "backups"
    database = Database(here.settings["DATABASE_URL"])
    environment = {**os.environ, **here.settings}
    with closing(database), database.as_owner() as tx:
        # It waits for this lock, after it has begun its file.
        tx.run("lock table gitstore.projects in access exclusive mode")
        command = [sys.executable, "-m", "service.cli", "backup", str(folder)]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as child:
            deadline = time.monotonic() + PATIENCE
            while not list(folder.glob(".gitstore-*")) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert "is running" in here("backup", str(folder), status=1).stderr
            child.send_signal(signal.SIGKILL)
    assert [path.name for path in folder.glob("gitstore-*")] == []
    assert len(list(folder.glob(".gitstore-*.part"))) == 1
    here("backup", str(folder))
    assert len(list(folder.glob("gitstore-*.tar"))) == 1
    assert list(folder.glob(".gitstore-*.part")) == []


def test_a_damaged_repository_is_not_passed_over(here: Here, empty: Here, tmp_path: Path) -> None:
    """The backup is refused, and no file appears; the other projects can be backed up without it."""
    here("project", "create", "broken", "--rules", "any")
    here("import", "folder", str(tmp_path / "flows"), "--project", "broken")
    identity = json.loads(here("project", "show", "broken", "--json").stdout)["id"]
    for pack in (here.data / "repos" / f"{identity}.git/objects").rglob("*"):
        if pack.is_file():
            pack.unlink()
    path = tmp_path / "backup.tar"
    refused = here("backup", str(path), status=1).stderr
    assert refused.startswith("error: broken: ")
    assert "--without broken" in refused
    assert not list(tmp_path.glob("*backup.tar*"))
    here("backup", str(path), "--without", "broken")
    assert "restored: 1 project, no differences" in empty("restore", str(path)).stdout


def test_a_backup_of_an_older_schema_is_migrated(
    empty: Here, tmp_path: Path, make_database: Callable[..., str]
) -> None:
    """It is restored under its own schema first; the database is then one of this version."""
    old = Here(tmp_path / "old", make_database())
    migrate(old.settings["DATABASE_URL"], [one for one in shipped() if one.number <= 22])
    old("project", "create", "team")
    path = tmp_path / "old.tar"
    old("backup", str(path))
    empty("restore", str(path))
    assert json.loads(empty("migrate", "--plan", "--json").stdout)["pending"] == []
    assert "was already" in empty("migrate", "--finish").stdout
    set_up = Here(tmp_path / "set-up", make_database())
    set_up("migrate")
    assert "drop schema gitstore cascade" in set_up("restore", str(path), status=1).stderr


@pytest.mark.soak
def test_a_killed_restore_can_be_repeated(
    here: Here, tmp_path: Path, make_database: Callable[..., str]
) -> None:
    """At any moment: nothing was restored, or everything; leftovers are in the way of nothing."""
    path = tmp_path / "whole.tar"
    here("backup", str(path))
    for number in range(40):
        there = Here(tmp_path / f"there-{number}", make_database(), Path(here.settings[PASSPHRASE]))
        command = [sys.executable, "-m", "service.cli", "restore", str(path)]
        environment = {**os.environ, **there.settings}
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as child:
            time.sleep(0.5 + number / 40)
            child.kill()
        time.sleep(0.1)  # until Postgres has noticed
        repositories = list(there.data.glob("repos/*"))
        with psycopg.connect(there.settings["DATABASE_URL"]) as connection:
            row = connection.execute("select to_regclass('gitstore.projects') is not null").fetchone()
        if row == (True,):
            assert there("verify").exit_code == 0
            continue
        for repository in repositories:  # it was killed between the rename and the commit
            shutil.rmtree(repository)
        assert "no differences" in there("restore", str(path)).stdout
