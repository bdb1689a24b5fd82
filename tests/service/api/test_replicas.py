"""Reads from a streaming replica: by a read node without repositories, and by a full node."""

from __future__ import annotations

import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service import replicas
from service.app import create_app
from service.config import Config
from sync import replication
from sync.db import Database
from sync.embedded.binaries import find_binaries
from sync.embedded.server import SUPERUSER, USER
from sync.migrate import migrate
from sync.replication import Position, Progress
from tests import postgres_server
from tests.conftest import temporary_folder
from tests.helpers import until
from tests.service.api.conftest import Client, House, opened, problem
from tests.service.serve_process import GITSTORE, running

VERSIONS = "/workflows/order-sync/versions"
LAG = "2"


@dataclass
class Pair:
    """A full node on the primary, `beside` it one that reads from the replica; and a read node."""

    house: House
    owner: Client
    beside: Client
    reader: Client
    replica: str
    """The conninfo of the replica's database."""
    folder: Path
    """The primary's folder."""

    def follow(self) -> None:
        """Wait until the replica shows all that is committed, and knows that it does."""
        replication.beat(self.house.database)
        position = replication.position(self.house.database)
        assert position
        headers = {"Gitstore-Position": position}
        until(lambda: self.replay("pg_last_wal_replay_lsn() >= %s", position.partition(":")[2]))
        until(lambda: self.reader.get("/workflows", headers=headers).status_code != 503)

    def replay(self, call: str, *values: str) -> object:
        admin = make_conninfo(self.replica, user=SUPERUSER)
        with psycopg.connect(admin, autocommit=True) as connection:
            row = connection.execute(sql.SQL("select " + call), values).fetchone()
            return row[0] if row else None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the replay, so that the replica lags."""
        self.follow()
        self.replay("pg_wal_replay_pause()")
        until(lambda: self.replay("pg_get_wal_replay_pause_state()") == "paused")
        try:
            yield
        finally:
            self.replay("pg_wal_replay_resume()")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    programs = find_binaries() / "bin"
    with (
        temporary_folder(shared=True) as folder,
        postgres_server.running(programs, folder / "primary") as admin,
    ):
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(sql.SQL("create database migrated owner {}").format(sql.Identifier(USER)))
        migrate(make_conninfo(admin, user=USER, dbname="migrated"))
        with (
            opened(admin, "migrated") as house,
            postgres_server.replica(programs, folder / "primary", folder / "replica") as socket,
        ):
            name = str(conninfo_to_dict(house.config.database_url or "")["dbname"])
            replica = make_conninfo("", host=str(socket), port=postgres_server.PORT, user=USER, dbname=name)
            owner = house.client()
            lag = {"GITSTORE_READ_LAG_SECONDS": LAG}
            environ = {"DATABASE_URL": replica, "GITSTORE_DATA": str(folder / "none"), **lag}
            public = {"GITSTORE_PUBLIC_URL": "https://gitstore.example"}
            alone = create_app(Config.from_env({**environ, **public, "GITSTORE_READ_ONLY": "true"}))
            beside = create_app(replace(house.config, read_url=replica, read_lag_seconds=int(LAG)))
            pair = Pair(
                house,
                owner,
                replace(owner, app=beside),
                replace(owner, app=alone),
                replica,
                folder / "primary",
            )
            owner.create()
            assert owner.publish(url="https://1.example/").status_code == 201
            assert owner.publish(url="https://2.example/").status_code == 201
            pair.follow()
            yield pair


def test_readers_that_wait_for_a_position_do_not_hold_up_others(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two wait for a position that does not come; the primary answers a third one at once."""
    monkeypatch.setattr(replicas, "WAIT_SECONDS", 60.0)
    far, arrived, looks = Position(1, 2**60), threading.Event(), Counter[int]()

    def has(_progress: Progress, _position: Position) -> bool:
        looks[threading.get_ident()] += 1
        return arrived.is_set()

    monkeypatch.setattr(Progress, "has", has)
    with closing(Database(pair.replica)) as database:
        replica = replicas.Replica(database, 3600.0)
        waiting = [threading.Thread(target=replica.can_answer, args=(far,)) for _ in range(2)]
        try:
            for thread in waiting:
                thread.start()
            until(lambda: len([count for count in looks.values() if count > 1]) == len(waiting))
            assert not replica.can_answer(far)
            assert replica.can_answer(None)
            assert all(thread.is_alive() for thread in waiting)
        finally:
            arrived.set()
            for thread in waiting:
                thread.join()


def test_a_read_node_answers_engines_histories_and_differences_as_the_primary_does(pair: Pair) -> None:
    pair.follow()
    for path in (
        f"{VERSIONS}/current",
        f"{VERSIONS}/1",
        f"{VERSIONS}/1/definition",
        f"{VERSIONS}/1?project=default",
        f"{VERSIONS}/1/definition?project=default",
        VERSIONS,
        "/workflows/order-sync/diff?from=1&to=2",
        "/workflows/order-sync",
        "/workflows",
    ):
        expected = pair.owner.get(path)
        assert expected.status_code == 200
        for client in (pair.reader, pair.beside):
            found = client.get(path)
            assert (found.status_code, found.data) == (200, expected.data), path
    text = {"Accept": "text/x-diff"}
    path = "/workflows/order-sync/diff?from=1&to=2"
    assert pair.reader.get(path, headers=text).data == pair.owner.get(path, headers=text).data


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/workflows"),
        ("POST", f"{VERSIONS}/publish"),
        ("DELETE", f"{VERSIONS}/draft"),
        ("GET", f"{VERSIONS}/draft"),
        ("GET", "/ui/workflows"),
        ("GET", "/default.git/info/refs?service=git-upload-pack"),
        ("GET", "/sources"),
    ],
)
def test_a_read_node_refuses_what_it_does_not_serve_in_words(pair: Pair, method: str, path: str) -> None:
    refused = problem(pair.reader(method, path), 403, "read_only_node")
    assert "another node" in refused["detail"]


def test_what_a_replica_lacks_is_asked_of_the_primary_or_of_another_node(pair: Pair) -> None:
    with pair.paused():
        made = pair.owner.publish(url="https://3.example/")
        number = made.json["version_number"]
        assert pair.beside.get(f"{VERSIONS}/{number}").status_code == 200
        late = pair.reader.get(f"{VERSIONS}/{number}")
        problem(late, 503, "unavailable")
        assert int(late.headers["Retry-After"]) > 0
        # Engines with a new token are known to the primary alone.
        fresh = pair.house.client("viewer")
        assert replace(fresh, app=pair.beside.app).get(f"{VERSIONS}/1").status_code == 200
    pair.follow()
    assert pair.reader.get(f"{VERSIONS}/{number}").status_code == 200


def test_a_reader_with_the_position_of_a_write_sees_it(pair: Pair) -> None:
    with pair.paused():
        made = pair.owner.publish(url="https://4.example/")
        number, position = made.json["version_number"], made.headers["Gitstore-Position"]
        seen = {"Gitstore-Position": position}
        assert pair.beside.get(f"{VERSIONS}/current").json["version_number"] == number - 1
        assert pair.beside.get(f"{VERSIONS}/current", headers=seen).json["version_number"] == number
        problem(pair.reader.get(f"{VERSIONS}/current", headers=seen), 503, "unavailable")
    pair.follow()
    assert pair.reader.get(f"{VERSIONS}/current", headers=seen).json["version_number"] == number
    for wrong in ("1", "0/16B3748", "00000001:0/16b3748", "x" * 5000):
        headers = {"Gitstore-Position": wrong}
        problem(pair.reader.get(f"{VERSIONS}/current", headers=headers), 400, "malformed")


def test_a_replica_that_lags_is_left_so_that_revoked_tokens_end(pair: Pair) -> None:
    viewer = pair.house.client("viewer")
    reader, beside = (replace(viewer, app=client.app) for client in (pair.reader, pair.beside))
    pair.follow()
    assert reader.get(f"{VERSIONS}/1").status_code == 200
    assert reader.get("/readyz").status_code == 200
    for client in (reader, beside):
        assert 0 <= lag_shown(client) < float(LAG) + 5
    with pair.paused():
        held = [
            token for token in pair.owner.get("/tokens").json["tokens"] if token["name"].startswith("viewer")
        ]
        for token in held:
            assert pair.owner.delete(f"/tokens/{token['id']}").status_code in (200, 204)
        until(lambda: reader.get("/readyz").status_code == 503, seconds=20)
        until(lambda: min(lag_shown(client) for client in (reader, beside)) > float(LAG), seconds=20)
        problem(reader.get(f"{VERSIONS}/1"), 503, "unavailable")
        problem(beside.get(f"{VERSIONS}/1"), 401, "unauthenticated")
    pair.follow()
    until(lambda: reader.get("/readyz").status_code == 200)
    problem(reader.get(f"{VERSIONS}/1"), 401, "unauthenticated")


def lag_shown(client: Client) -> float:
    shown = client.get("/metrics").text
    [line] = [line for line in shown.splitlines() if line.startswith("gitstore_replica_lag_seconds ")]
    return float(line.rpartition(" ")[2])


def test_a_read_node_goes_on_when_its_replica_is_promoted(pair: Pair) -> None:
    """It reads a primary then: what that lacks does not exist, positions of both timelines are reached."""
    programs = find_binaries() / "bin"
    with (
        temporary_folder(shared=True) as folder,
        postgres_server.replica(programs, pair.folder, folder / "second") as socket,
    ):
        second = make_conninfo(pair.replica, host=str(socket))
        environ = {
            "DATABASE_URL": second,
            "GITSTORE_DATA": str(folder / "none"),
            "GITSTORE_READ_ONLY": "true",
            "GITSTORE_PUBLIC_URL": "https://gitstore.example",
        }
        reader = replace(pair.owner, app=create_app(Config.from_env(environ)))
        replication.beat(pair.house.database)
        before = replication.position(pair.house.database)
        assert before
        until(lambda: reader.get(f"{VERSIONS}/1", headers={"Gitstore-Position": before}).status_code == 200)
        problem(reader.get(f"{VERSIONS}/999"), 503, "unavailable")
        with psycopg.connect(make_conninfo(second, user=SUPERUSER), autocommit=True) as admin:
            assert admin.execute("select pg_promote()").fetchone() == (True,)
        until(lambda: reader.get(f"{VERSIONS}/999").status_code == 404)
        with closing(Database(second)) as database:
            after = replication.position(database)
        assert after
        assert Position.parse(after) > Position.parse(before)
        for position in (before, after):
            assert reader.get(f"{VERSIONS}/1", headers={"Gitstore-Position": position}).status_code == 200
        assert reader.get("/readyz").status_code == 200


def test_a_served_read_node_needs_a_replica_and_no_volume(pair: Pair, ram_path: Path) -> None:
    pair.follow()
    command = (*GITSTORE, "serve", "--read-only")
    with running(ram_path, command, DATABASE_URL=pair.replica) as service:
        service.ready()
        replication.beat(pair.house.database)
        headers = {"Authorization": f"Bearer {pair.owner.token}"}
        request = urllib.request.Request(f"{service.url}{VERSIONS}/1/definition", headers=headers)  # noqa: S310
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            assert answer.read() == pair.owner.get(f"{VERSIONS}/1/definition").data
        assert not service.data.exists()
        assert service.stop() == 0
