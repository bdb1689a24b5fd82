"""Saves and publications, against the same rows straight to Postgres, and the events of publications."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from bench import peers, seeds
from bench.load import Job, Operation, request
from bench.measures import (
    Figure,
    Figures,
    at_least,
    at_most,
    beside,
    by_turns,
    measure,
    median,
    p99,
    ratio,
    seconds,
)
from bench.rig import Rig, Side
from tests.stories.instance import Caller
from tests.webhooks.receiver import receiving

_JSON = {"Content-Type": "application/json"}
_NUMBERS = count(1)  # no definition is sent twice

Make = Callable[[Side, int, str, str], Operation]


def _post(side: Side, client: int, path: str, body: object) -> bytes:
    return request("POST", path, side.bearer(client), json.dumps(body).encode(), _JSON)


def saved(side: Side, client: int, slug: str, label: str) -> Operation:
    """Save a draft over the one that is there."""
    body = json.dumps({"definition": seeds.definition(label)}).encode()
    headers = {**_JSON, "If-Match": "*"}
    return [request("PUT", f"/workflows/{slug}/versions/draft", side.bearer(client), body, headers)]


def published(side: Side, client: int, slug: str, label: str) -> Operation:
    """Save a draft and publish it, in one call."""
    definition = {"definition": seeds.definition(label)}
    return [_post(side, client, f"/workflows/{slug}/versions/publish", definition)]


def published_apart(side: Side, client: int, slug: str, label: str) -> Operation:
    """Save a draft, and publish it by another call."""
    definition = {"definition": seeds.definition(label)}
    return [
        _post(side, client, f"/workflows/{slug}/versions", definition),
        _post(side, client, f"/workflows/{slug}/versions/publish", {}),
    ]


def create(owner: Caller, make: Make, slugs: Sequence[str]) -> None:
    """Make workflows as `make` wants them: with a draft to save over, or with a version."""
    for slug in slugs:
        body = {"slug": slug, "definition": seeds.definition(slug)}
        assert owner.call("POST", "/workflows", body).status == 201
        if make is not saved:
            assert owner.call("POST", f"/workflows/{slug}/versions/publish").status == 201


def job(rig: Rig, make: Make, side: Side, slugs: Sequence[str], _: int) -> Job:
    each = rig.form.count * (4 if len(slugs) == 1 else 1)

    def operations(client: int, slug: str) -> list[Operation]:
        return [make(side, client, slug, f"{slug}-{next(_NUMBERS)}") for _ in range(each)]

    return Job(side.port, [operations(client, slug) for client, slug in enumerate(slugs)])


def _writing(rig: Rig, make: Make, clients: int) -> Figures:
    slugs = [f"{make.__name__.replace('_', '-')}-{clients}-{number}" for number in range(clients)]
    owner = rig.fresh()
    create(owner, make, slugs)
    sides = (rig.ours(owner.project, clients), rig.flask)
    here, there = rig.loads(*((side, partial(job, rig, make, side, slugs)) for side in sides))
    return {
        "rate": ratio(here.rate, there.rate, "/s"),
        "time": ratio(median(here.last), median(there.last), "ms"),
        "p99": beside(p99(here.last), p99(there.last), "ms"),
        "CPU": beside(1000 * here.cpu, 1000 * there.cpu, "ms"),
    }


@measure("save-8", rate=at_least(0.6), p99=at_most(100, "ms"), CPU=at_most(6, "ms"))
def save_by_many(rig: Rig, size: int) -> Figures:
    """PUT a draft, 8 clients, against Flask."""
    return _writing(rig, saved, 8)


@measure("publish-8", rate=at_least(0.6), p99=at_most(100, "ms"), CPU=at_most(10, "ms"))
def publish_by_many(rig: Rig, size: int) -> Figures:
    """POST a definition to publish, 8 clients, against Flask, which writes draft and version, too."""
    return _writing(rig, published, 8)


@measure("publish-apart-8", rate=at_least(0.6), p99=at_most(100, "ms"), CPU=at_most(10, "ms"))
def publish_by_many_apart(rig: Rig, size: int) -> Figures:
    """POST a draft, then publish it, 8 clients, against Flask (times of the publication, CPU of both)."""
    return _writing(rig, published_apart, 8)


@measure("save-1", time=at_most(2.0))
def save_by_one(rig: Rig, size: int) -> Figures:
    """PUT a draft, one client, against Flask."""
    return _writing(rig, saved, 1)


@measure("publish-1", time=at_most(2.0))
def publish_by_one(rig: Rig, size: int) -> Figures:
    """POST a definition to publish, one client, against Flask, which writes draft and version, too."""
    return _writing(rig, published, 1)


@measure("publish-apart-1", time=at_most(2.0))
def publish_by_one_apart(rig: Rig, size: int) -> Figures:
    """POST a draft, then publish it, one client, against Flask (times of the publication, CPU of both)."""
    return _writing(rig, published_apart, 1)


@measure("publish-sql")
def publish_by_sql(rig: Rig, size: int) -> Figures:
    """POST a definition to publish, one client, against the statements alone, in one transaction."""
    owner, slug = rig.fresh(), "straight"
    create(owner, published, [slug])
    side = rig.ours(owner.project)
    with rig.sql() as connection:
        who = peers.authenticate(connection)

        def written() -> None:
            content = json.dumps(seeds.definition(f"{slug}-{next(_NUMBERS)}"))
            with connection.transaction():
                peers.save(connection, who, slug, content)
                peers.publish(connection, who, slug)

        def here(turn: int) -> list[float]:
            return rig.clients.run(job(rig, published, side, [slug], turn)).whole()

        def there(_: int) -> list[float]:
            return [1000 * seconds(written) for _ in range(4 * rig.form.count)]

        ours, theirs = by_turns(rig.form.rounds + 1, here, there)
    sent, stated = ([one for turn in turns[1:] for one in turn] for turns in (ours, theirs))
    return {"time": ratio(median(sent), median(stated), "ms")}


def _by_size(rig: Rig, make: Make) -> Figures:
    slug = f"{make.__name__}-by-size"
    sides = [rig.ours(seeds.project(size)) for size in (rig.largest, rig.smallest)]
    for size in {rig.largest, rig.smallest}:
        create(rig.owner(seeds.project(size)), make, [slug])
    here, there = rig.loads(*((side, partial(job, rig, make, side, [slug])) for side in sides))
    return {"time": ratio(median(here.last), median(there.last), "ms")}


@measure("save-size", time=at_most(1.1))
def save_by_size(rig: Rig, size: int) -> Figures:
    """PUT a draft, one client, in the largest project against the smallest."""
    return _by_size(rig, saved)


@measure("publish-size", time=at_most(1.1))
def publish_by_size(rig: Rig, size: int) -> Figures:
    """POST a definition to publish, one client, in the largest project against the smallest."""
    return _by_size(rig, published)


_SOON = at_most(50, "ms")


@measure("event", delivered=_SOON, notified=_SOON)
def event(rig: Rig, size: int) -> Figures:
    """From the request that publishes until its event is delivered; until its NOTIFY arrives."""
    owner = rig.fresh()
    create(owner, published, ["event"])
    notified: list[float] = []
    delivered: list[float] = []
    with receiving() as receiver, peers.connect(rig.conninfo) as connection:
        hook = {"url": receiver.url("/hook"), "events": ["workflow.version.published"]}
        made = owner.call("POST", "/subscriptions", hook)
        assert made.status == 201, made.raw
        connection.execute("listen gitstore_events")
        for _ in range(2 * rig.form.count + 1):
            body = {"definition": seeds.definition(f"event-{next(_NUMBERS)}")}
            assert owner.call("POST", "/workflows/event/versions", body).status == 201
            _drain(connection)
            before, arrivals = len(receiver.got), list[float]()
            listening = threading.Thread(target=_first, args=(connection, arrivals))
            listening.start()
            begun = time.monotonic()
            assert owner.call("POST", "/workflows/event/versions/publish").status == 201
            delivered.append(1000 * (receiver.wait(before + 1)[before].at - begun))
            listening.join()
            notified += [1000 * (at - begun) for at in arrivals]
    return {
        "delivered": _alone(delivered[1:]),
        "notified": _alone(notified[1:]),
    }


def _alone(times: Sequence[float]) -> Figure:
    return beside(median(times), None, "ms")


def _drain(connection: peers.Connection) -> None:
    for _ in connection.notifies(timeout=0.05):
        pass


def _first(connection: peers.Connection, arrivals: list[float]) -> None:
    """Note the time of the first notification."""
    for _ in connection.notifies(timeout=5, stop_after=1):
        arrivals.append(time.monotonic())
