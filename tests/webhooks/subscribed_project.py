"""A project with subscriptions and couriers, for tests of deliveries."""

from __future__ import annotations

import threading
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
from webhooks.delivery_queue import Room
from webhooks.egress import Egress, Lookup, lookup
from webhooks.payload import ABOUT_WORKFLOWS
from webhooks.secrets import Sealer, new_key
from webhooks.sender import AttemptEvent, DeliveryAttempt, DeliveryLoop, Means
from webhooks.subscriptions import Subscription


@dataclass
class Post:
    """Sends what happens in `house` to whom it may reach."""

    house: House
    allow: str
    sealer: Sealer = field(default_factory=lambda: Sealer([new_key()]))
    told: list[AttemptEvent] = field(default_factory=list)
    troubles: list[BaseException] = field(default_factory=list)
    now: Callable[[], datetime] | None = None
    resolve: Lookup = lookup

    @property
    def database(self) -> Database:
        return self.house.database

    def means(self) -> Means:
        return Means(
            database=self.database,
            egress=Egress(Allowed.parse(self.allow), resolve=self.resolve),
            sealer=self.sealer,
            tell=self.told.append,
            trouble=self.troubles.append,
            now=self.now,
            dice=lambda: 0.0,
        )

    def subscribe(self, url: str, *events: str) -> tuple[Subscription, str]:
        with self.database.as_user(self.house.claims) as tx:
            return subscriptions.create(tx, self.sealer, self.house.project, url, events or ABOUT_WORKFLOWS)

    def state(self, subscription: Subscription) -> Subscription:
        with self.database.reading(self.house.claims) as tx:
            found = subscriptions.subscription(tx, self.house.project, subscription.id)
        assert found is not None
        return found

    @contextmanager
    def courier(self, **options: Any) -> Iterator[DeliveryLoop]:
        """A courier at work, for the time of the block."""
        stop = threading.Event()
        made = DeliveryLoop(self.means(), stop, **options)
        thread = threading.Thread(target=made.run)
        thread.start()
        try:
            yield made
        finally:
            stop.set()
            made.wake()
            thread.join()

    def once(self, **options: Any) -> list[AttemptEvent]:
        """Send all that is due now, one after the other; what was told."""
        return send_all(self, **options)

    def rows(self, table: str) -> list[dict[str, Any]]:
        return self.house.rows(table)

    def attempts(self) -> list[tuple[str, int | None]]:
        """URL and status of all."""
        with self.database.as_owner() as tx:
            return tx.tuples("select url, status from gitstore.delivery_attempts order by started_at")

    def deliveries(self, subscription: UUID | None = None) -> list[dict[str, Any]]:
        found = self.rows("deliveries")
        return [row for row in found if subscription in (None, row["subscription_id"])]


class Clock:
    """A time that passes when it is told to."""

    def __init__(self, start: datetime | None = None) -> None:
        self.time = start or datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time

    def pass_(self, wait: timedelta) -> None:
        self.time += wait


def send_all(post: Post, **options: Any) -> list[AttemptEvent]:
    before = len(post.told)
    sender = DeliveryAttempt(post.means(), threading.Event(), **options)
    while True:
        now = post.now() if post.now else None
        with post.database.as_mirror() as tx:
            delivery_queue.fan_out(tx, now)
            found = delivery_queue.claim(tx, Room(100, 100, 100, {}), timedelta(seconds=60), now)
        if not found:
            return post.told[before:]
        for due in found:
            sender.deliver(due)
