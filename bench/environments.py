"""The cost of environments: reading one compared with `current`, and the bytes of a move.

    uv run python -m bench.environments [--rounds 9] [--requests 1000] [--moves 200]

read      the processor time that the service takes for `GET .../versions/prod`, against that for
          `GET .../versions/current`: over one connection, in turns, the median of the ratios
move      the bytes that each move of a pointer adds to a repository, after `git gc`
held      the bytes that a move to the value already held adds, without `git gc`: none
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import closing
from operator import truediv
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

from gitstore import pointers
from gitstore.drafts import Content
from gitstore.environments import EnvironmentRule
from gitstore.model import Environment, Person
from gitstore.store import ANY, Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.stories.instance import Service

ADA = Person("Ada", "ada@example.com")
WHO = Actors(ADA, ADA)


def processor_time(service: Service) -> float:
    """Seconds of all processes of the service but Postgres' and its own parent."""
    assert service.process is not None
    times = [process.cpu_times() for process in service.family() if "postgres" not in process.name()]
    return sum(each.user + each.system for each in times)


def reads(folder: Path, rounds: int, requests: int) -> str:
    """Measure reads of an environment beside those of `current`; return a line with the ratio."""
    service = Service(folder / "data", {"GITSTORE_WORKERS": "1"}).start()
    try:
        owner = service.project("bench")
        owner.call("PUT", "/environments", {"environments": [{"name": "prod"}]})
        owner.publish("orders", "one")
        assert owner.call("PUT", "/workflows/orders/environments/prod", {"version": 1}).status == 200
        address = urlsplit(owner.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port)
        sent = {"Authorization": f"Bearer {owner.token}"}
        taken: dict[str, list[float]] = {"prod": [], "current": []}
        for turn in range(rounds + 1):
            for name in sorted(taken, reverse=bool(turn % 2)):
                before = processor_time(service)
                for _ in range(requests):
                    connection.request("GET", f"/workflows/orders/versions/{name}", headers=sent)
                    assert b'"version_number"' in connection.getresponse().read()
                taken[name].append((processor_time(service) - before) / requests * 1000)
        prod, current = (values[1:] for values in taken.values())  # the first turn warms up
        ratio = statistics.median(map(truediv, prod, current))
    finally:
        service.stop()
    ours, theirs = (f"{statistics.median(values):.3f} ms" for values in (prod, current))
    return f"{'read an environment, processor time':<46} {ours:>12} {theirs:>12} {ratio:>7.2f} <= 1.05"


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def moves(folder: Path, count: int) -> tuple[float, int]:
    """Bytes of a move after `git gc`, and of `count` moves to the value already held."""
    path = folder / "bench.git"
    Store.init(path)
    with closing(Store(path, UUID(int=7), FileUnitOfWork)) as store:
        pointers.change_rulebook(store, [EnvironmentRule("prod", "publisher")], ADA, ANY)
        for label in ("one", "two"):
            content = Content(value={"name": label, "nodes": [{"id": "a", "type": "webhook", "data": {}}]})
            create: Callable[..., object] = (
                store.create_draft if store.exists("orders") else store.create_workflow
            )
            create("orders", content, WHO)
            store.publish("orders", WHO)
        before = collected(path)
        for number in range(count):
            pointers.move(store, "orders", Environment("prod", 1 + number % 2), WHO, message=f"Move {number}")
        after = collected(path)
        for _ in range(count):
            pointers.move(store, "orders", Environment("prod", 1 + (count - 1) % 2), WHO, message="Again")
    return (after - before) / count, size_of(path) - after


def collected(path: Path) -> int:
    subprocess.run(["git", "-C", str(path), "gc", "-q", "--prune=now"], check=True)
    return size_of(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--moves", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(reads(Path(folder), given.rounds, given.requests), flush=True)
        each, held = moves(Path(folder), given.moves)
        print(f"{'move a pointer, after gc':<46} {each:>9.0f} B")
        print(f"{f'{given.moves} moves to the value held':<46} {held:>9} B")


if __name__ == "__main__":
    main()
