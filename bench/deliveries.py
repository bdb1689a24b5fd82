"""How fast events reach subscribers: 100 events to 10 subscribers by two couriers, then one at a time.

    uv run python -m bench.deliveries [--events 100] [--subscribers 10] [--couriers 2] [--single 100]

Postgres is the embedded one on the disk of the temporary folder, fsync on; the subscribers are one HTTP
server on this machine, which takes its part of the cores. Prints deliveries a second from the first event's
commit to the last one's arrival; the time from an event's commit to its arrival, median and 99th percentile;
and what the queue and the NOTIFY add to the transaction of an event.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from uuid import UUID, uuid4

from gitstore.model import Rules
from sync import events
from sync.catalog import create_project
from sync.db import Database
from sync.embedded.server import EmbeddedPostgres
from sync.events import EventType
from sync.migrate import migrate
from tests.webhooks.receiver import Receiver, receiving
from tests.webhooks.test_sender import ROOT
from webhooks import subscriptions
from webhooks.secrets import Sealer, new_key

COURIER = """
import sys
from sync.db import Database
from webhooks.addresses import Allowed
from webhooks.sender import DeliveryLoop, Sender
from webhooks.egress import Egress
from webhooks.secrets import Sealer
conninfo, allow, key = sys.argv[1:]
sender = Sender(Database(conninfo, max_connections=4), Egress(Allowed.parse(allow)), Sealer([key]))
DeliveryLoop(sender).run()
"""


def happen(database: Database, project: UUID) -> float:
    """One event, committed; the seconds that took."""
    values = {
        "id": uuid4(),
        "project_id": project,
        "workflow_id": uuid4(),
        "type": EventType.PUBLISHED.value,
        "created_at": "2026-01-01T00:00:00Z",
        "data": {"workflow": "order-sync", "message": "x" * 200},
    }
    started = time.perf_counter()
    with database.as_mirror() as tx:
        events.insert(tx, [values])
    return time.perf_counter() - started


def subscribe(database: Database, sealer: Sealer, project: UUID, receiver: Receiver, count: int) -> None:
    with database.as_owner() as tx:
        for number in range(count):
            subscriptions.create(tx, sealer, project, receiver.url(f"/{number}"), [EventType.PUBLISHED.value])


@contextmanager
def couriers(count: int, *arguments: str) -> Iterator[None]:
    """So many processes, ready to be woken."""
    with ExitStack() as stack:
        for _ in range(count):
            child = subprocess.Popen([sys.executable, "-c", COURIER, *arguments], cwd=ROOT)
            stack.callback(child.wait)
            stack.callback(child.kill)
        time.sleep(3)
        yield


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("events", 100), ("subscribers", 10), ("couriers", 2), ("single", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gitstore-bench-")))
        folder.chmod(0o711)
        postgres = EmbeddedPostgres(folder / "postgres")
        stack.callback(postgres.stop)
        conninfo = postgres.start()
        migrate(conninfo)
        receiver = stack.enter_context(receiving())
        database = stack.enter_context(closing(Database(conninfo)))
        project, key = uuid4(), new_key()
        with database.as_owner() as tx:
            create_project(tx, project, "bench", "bench", Rules.ANY)
        alone = statistics.median(happen(database, project) for _ in range(200)) * 1000
        subscribe(database, Sealer([key]), project, receiver, options.subscribers)
        notified = statistics.median(happen(database, project) for _ in range(200)) * 1000
        print(f"an event's transaction: {alone:.2f} ms without subscribers, {notified:.2f} ms with")
        stack.enter_context(couriers(options.couriers, conninfo, receiver.allow, key))
        receiver.wait(200 * options.subscribers, 120)

        before, started = len(receiver.got), time.monotonic()
        for _ in range(options.events):
            happen(database, project)
        count = options.events * options.subscribers
        seconds = max(got.at for got in receiver.wait(before + count, 120)) - started
        print(f"{count} deliveries by {options.couriers} couriers: {count / seconds:.0f} a second")

        delays = []
        for _ in range(options.single):
            before = len(receiver.got)
            happen(database, project)
            committed = time.monotonic()
            delays.append(1000 * (receiver.wait(before + 1)[before].at - committed))
            receiver.wait(before + options.subscribers)
            time.sleep(0.05)
        median, worst = statistics.median(delays), percentile(delays, 0.99)
        print(f"commit to arrival: {median:.1f} ms median, {worst:.1f} p99")


if __name__ == "__main__":
    main()
