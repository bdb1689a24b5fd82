"""A project with subscriptions, and a sender of its deliveries, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sync.db import Database
from tests.sync.conftest import House
from webhooks import delivery_queue, subscriptions
from webhooks.addresses import Allowed
from webhooks.attempts import Verdict
from webhooks.delivery_queue import Room
from webhooks.egress import Egress, Lookup, lookup
from webhooks.secrets import Sealer, new_key
from webhooks.sender import SECONDS, DeliveryLoop, Sender
from webhooks.subscriptions import ABOUT_WORKFLOWS, Subscription


@dataclass
class Post:
    """A sender of the events of `house` to the addresses in `allow`."""

    house: House
    allow: str
    sealer: Sealer = field(default_factory=lambda: Sealer([new_key()]))
    verdicts: list[Verdict] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    now: Callable[[], datetime] | None = None
    resolve: Lookup = lookup

    @property
    def database(self) -> Database:
        return self.house.database

    def sender(self, **options: Any) -> Sender:
        return Sender(
            database=self.database,
            egress=Egress(Allowed.parse(self.allow), resolve=self.resolve),
            sealer=self.sealer,
            on_attempt=lambda _due, _attempt, verdict: self.verdicts.append(verdict),
            report=self.errors.append,
            now=self.now,
            dice=lambda: 0.0,
            **options,
        )

    def subscribe(self, url: str, *events: str) -> tuple[Subscription, str]:
        with self.database.as_user(self.house.claims) as tx:
            return subscriptions.create(tx, self.sealer, self.house.project, url, events or ABOUT_WORKFLOWS)

    def state(self, subscription: Subscription) -> Subscription:
        with self.database.reading(self.house.claims) as tx:
            current = subscriptions.subscription(tx, self.house.project, subscription.id)
        assert current is not None
        return current

    @contextmanager
    def delivering(self, *, seconds: float = SECONDS, **options: Any) -> Iterator[DeliveryLoop]:
        """Run a delivery loop until the block ends."""
        loop = DeliveryLoop(self.sender(seconds=seconds), **options)
        with loop.running():
            yield loop

    def send_due(self) -> list[Verdict]:
        """Send all due deliveries, one after the other. Return the verdicts on the attempts."""
        before, sender = len(self.verdicts), self.sender()
        while True:
            now = sender.given_now()
            with self.database.as_mirror() as tx:
                delivery_queue.fan_out(tx, now)
                claimed = delivery_queue.claim(tx, Room(100, 100, 100, {}), timedelta(seconds=60), now)
            if not claimed:
                return self.verdicts[before:]
            for due in claimed:
                sender.deliver(due)

    def rows(self, table: str) -> list[dict[str, Any]]:
        return self.house.rows(table)

    def attempts(self) -> list[tuple[str, int | None]]:
        """Return the URL and status of every attempt, oldest first."""
        with self.database.as_owner() as tx:
            return tx.tuples("select url, status from gitstore.delivery_attempts order by started_at")

    def deliveries(self, subscription: UUID | None = None) -> list[dict[str, Any]]:
        return [row for row in self.rows("deliveries") if subscription in (None, row["subscription_id"])]


class Clock:
    """A clock that a test advances."""

    def __init__(self, start: datetime | None = None) -> None:
        self.time = start or datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, wait: timedelta) -> None:
        self.time += wait
