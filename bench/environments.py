"""Compare reads of an environment with reads of `current`, and measure the size of a pointer's move."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

from bench.load import Job, Operation, request
from bench.measures import Figures, at_most, beside, measure, ratio
from bench.rig import Rig
from gitstore import pointers
from gitstore.drafts import Content
from gitstore.environments import EnvironmentRule
from gitstore.model import Environment, Person
from gitstore.store import ANY, Actors, Store
from gitstore.unit_of_work import FileUnitOfWork

_ENGINES = 8
ADA = Person("Ada", "ada@example.com")
WHO = Actors(ADA, ADA)


@measure("environments-read", CPU=at_most(1.05))
def read(rig: Rig, size: int) -> Figures:
    """GET versions/prod, 8 engines, against versions/current."""
    owner = rig.fresh("environments")
    owner.call("PUT", "/environments", {"environments": [{"name": "prod"}]})
    owner.publish("orders", "one")
    assert owner.call("PUT", "/workflows/orders/environments/prod", {"version": 1}).status == 200
    side = rig.ours(owner.project, _ENGINES)

    def job(name: str, _: int) -> Job:
        def operations(client: int) -> list[Operation]:
            path = f"/workflows/orders/versions/{name}"
            return [[request("GET", path, side.bearer(client), None, {})]] * 10

        clients = [operations(client) for client in range(_ENGINES)]
        return Job(side.port, clients, rig.form.seconds, b"HTTP/1.1 200")

    prod, current = rig.loads((side, partial(job, "prod")), (side, partial(job, "current")))
    return {
        "CPU": ratio(1000 * prod.cpu, 1000 * current.cpu, "ms"),
        "rate": ratio(prod.rate, current.rate, "/s"),
    }


@measure("environments-move", moved=at_most(300, "B"))
def move(rig: Rig, size: int) -> Figures:
    """Bytes of a move of a pointer after git gc; one to where it is writes nothing."""
    count = 10 * rig.form.count
    with _workflow(rig.folder / "moves.git") as store:
        before = _collected(store.path)
        for number in range(count):
            wanted = Environment("prod", 1 + number % 2)
            pointers.move(store, "orders", wanted, WHO, message=f"Move {number}")
        after = _collected(store.path)
        for _ in range(count):
            pointers.move(store, "orders", wanted, WHO, message="Again")
        assert _size(store.path) == after
    return {"moved": beside((after - before) / count, None, "B")}


@contextmanager
def _workflow(path: Path) -> Iterator[Store]:
    """A repository with an environment, and a workflow with two versions."""
    Store.init(path)
    with closing(Store(path, UUID(int=7), FileUnitOfWork)) as store:
        pointers.change_rulebook(store, [EnvironmentRule("prod", "publisher")], ADA, ANY)
        for label in ("one", "two"):
            node = {"id": "a", "type": "webhook", "data": {"label": label}}
            content = Content(value={"nodes": [node]})
            if label == "one":
                store.create_workflow("orders", content, WHO)
            else:
                store.create_draft("orders", content, WHO)
            store.publish("orders", WHO)
        yield store


def _collected(path: Path) -> int:
    subprocess.run(["git", "-C", str(path), "gc", "-q", "--prune=now"], check=True)
    return _size(path)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
