"""How the API reports late background work, and sources and deliveries that were given up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from gitstore.model import Rules
from service.app import create_app
from service.run.heartbeats import STALL_SECONDS, Heartbeats
from service.scraping import Scraper
from sync import catalog
from tests.service.api.conftest import Client, House, problem
from tests.service.api.test_sources import added
from webhooks.addresses import Allowed


@pytest.fixture
def beats(tmp_path: Path) -> Iterator[Heartbeats]:
    with closing(Heartbeats(tmp_path)) as made:
        made.begin(time.monotonic())
        yield made


@pytest.fixture
def house(house: House, tmp_path: Path) -> House:
    """As under `gitstore serve`, which has a worker; git.example is allowed."""
    allowed = Allowed.parse("git.example:8000,127.0.0.1:1")
    config = replace(house.config, metrics_folder=tmp_path, egress_allow=allowed)
    made = create_app(replace(config, metrics_folder=None), database=house.database)
    services = made.extensions["gitstore"]
    scraper = Scraper(services.metrics, services.projects, house.database, tmp_path)
    made.extensions["gitstore"] = replace(services, config=config, scraper=scraper)
    return replace(house, app=made, config=config)


def figure(owner: Client, name: str) -> float:
    lines = [line for line in owner.get("/metrics").text.splitlines() if line.startswith(name + " ")]
    assert len(lines) == 1, name
    return float(lines[0].rpartition(" ")[2])


def tamper(house: House, query: str) -> None:
    with house.database.as_owner() as tx:
        tx.connection.execute(query.encode())


def test_readiness_reports_a_stalled_worker(owner: Client, beats: Heartbeats) -> None:
    """With 200, as versions can be read. A loop that is off is not stalled."""
    assert owner.get("/readyz").json == {"status": "ok", "worker": "ok"}
    beats.begin(time.monotonic() - STALL_SECONDS - 10)
    stalled = owner.get("/readyz")
    assert (stalled.status_code, stalled.json) == (200, {"status": "degraded", "worker": "stalled"})
    for loop in ("sync", "delivery"):
        beats.off(loop)
    for loop in ("schedule", "upkeep"):
        beats.beat(loop)
    assert owner.get("/readyz").json == {"status": "ok", "worker": "ok"}


def test_a_node_without_its_volume_is_not_ready(house: House, owner: Client) -> None:
    """An empty folder where the volume should be mounted; one lost repository alone changes nothing."""
    other = uuid4()
    house.app.extensions["gitstore"].projects.init(other)
    with house.database.as_owner() as tx:
        catalog.create_project(tx, other, "second", "Second", Rules.ANY)
    repository = house.repository()
    away = repository.with_suffix(".away")
    repository.rename(away)
    assert owner.get("/readyz").status_code == 200
    folder = repository.parent
    folder.rename(folder.with_name("unmounted"))
    folder.mkdir()
    assert "is its volume mounted" in problem(owner.get("/readyz"), 503, "unavailable")["detail"]
    folder.rmdir()
    folder.with_name("unmounted").rename(folder)
    away.rename(repository)
    assert owner.get("/readyz").status_code == 200


def test_metrics_report_heartbeats_and_replaced_workers(owner: Client, beats: Heartbeats) -> None:
    """By loop, and by reason."""
    beats.begin(time.monotonic() - 100)
    beats.off("delivery")
    beats.count("stalled")
    assert 100 <= figure(owner, 'gitstore_worker_beat_age_seconds{loop="sync"}') < 110
    assert 'loop="delivery"' not in owner.get("/metrics").text
    assert figure(owner, 'gitstore_worker_replacements_total{reason="stalled"}') == 1
    assert figure(owner, 'gitstore_worker_replacements_total{reason="ended"}') == 0


@pytest.mark.usefixtures("beats")
def test_readiness_and_metrics_report_late_work(house: House, owner: Client) -> None:
    """A source or a delivery that is overdue; not one that is paused, in work or given up."""
    added(owner)
    tamper(house, "update gitstore.sources set due_at = now() - interval '10 minutes'")
    assert owner.get("/readyz").json == {"status": "degraded", "worker": "late"}
    assert 600 <= figure(owner, "gitstore_source_lag_seconds") < 660
    for state in (
        "update gitstore.sources set paused = true",
        "update gitstore.sources set paused = false, poisoned_at = now()",
        "update gitstore.sources set poisoned_at = null, claimed_until = now() + interval '1 minute'",
    ):
        tamper(house, state)
        assert owner.get("/readyz").json == {"status": "ok", "worker": "ok"}
    owner.post("/subscriptions", json={"url": "http://127.0.0.1:1/"})
    (subscription,) = owner.get("/subscriptions").json["subscriptions"]
    owner.post(f"/subscriptions/{subscription['id']}/test")
    tamper(house, "update gitstore.deliveries set due_at = now() - interval '10 minutes'")
    assert owner.get("/readyz").json == {"status": "degraded", "worker": "late"}


@pytest.mark.parametrize("way", ["PATCH", "POST"])
def test_a_source_is_poison_until_an_owner_acts(house: House, owner: Client, way: str) -> None:
    """Its state and reason are in the API and on the page; a change or a sync clears it."""
    source = added(owner)
    tamper(
        house,
        "update gitstore.sources set crashes = 3, failures = 3, poisoned_at = now(), "
        "last_error = 'the sync needed more than 1024 MiB of memory'",
    )
    shown = owner.get(f"/sources/{source['id']}").json
    assert (shown["state"], shown["next_sync_at"]) == ("poison", None)
    assert shown["last_error"] == "the sync needed more than 1024 MiB of memory"
    assert figure(owner, 'gitstore_sources{state="poison"}') == 1
    if way == "PATCH":
        shown = owner("PATCH", f"/sources/{source['id']}", json={"poll_seconds": 60}).json
    else:
        shown = owner.post(f"/sources/{source['id']}/sync").json
    assert shown["state"] == "failing"
    assert shown["next_sync_at"] is not None
    with house.database.as_owner() as tx:
        assert tx.value("select crashes from gitstore.sources") == 0


def test_a_poison_delivery_is_found_and_redelivered(house: House, owner: Client) -> None:
    """Found by its state; redelivered, it is as new."""
    owner.post("/subscriptions", json={"url": "http://127.0.0.1:1/"})
    (subscription,) = owner.get("/subscriptions").json["subscriptions"]
    owner.post(f"/subscriptions/{subscription['id']}/test")
    tamper(
        house,
        "update gitstore.deliveries set state = 'poison', crashes = 3, due_at = null, ended_at = now(), "
        "claimed = true, last_error = 'the attempt made no progress'",
    )
    assert owner.get("/deliveries?state=pending").json["deliveries"] == []
    (delivery,) = owner.get("/deliveries?state=poison").json["deliveries"]
    assert (delivery["state"], delivery["last_error"]) == ("poison", "the attempt made no progress")
    again = owner.post(f"/deliveries/{delivery['id']}/redeliver").json
    assert again["state"] == "pending"
    with house.database.as_owner() as tx:
        assert tx.tuples("select crashes, claimed from gitstore.deliveries") == [(0, False)]
