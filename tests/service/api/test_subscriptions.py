"""/subscriptions and /deliveries: an owner's webhooks, and their isolation from others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from gitstore.system import now, rfc3339
from service import scraping
from tests.service.api.conftest import Client, House, problem
from tests.webhooks.receiver import Receiver, receiving, respond
from webhooks import delivery_queue
from webhooks.delivery_queue import Room
from webhooks.sender import Sender

URL = "https://example.com/hooks?x=1"
TYPES = [
    "workflow.version.published",
    "workflow.draft.updated",
    "workflow.current.changed",
    "workflow.version.yanked",
    "workflow.version.unyanked",
    "workflow.version.annotated",
    "workflow.archived",
    "workflow.unarchived",
    "workflow.updated",
    "workflow.renamed",
    "workflow.environment.changed",
    "workflow.schedule.stopped",
    "workflow.version.diverged",
    "release.created",
    "subscription.disabled",
]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def settings(receiver: Receiver) -> dict[str, str]:
    """Allow requests to the test's receiver."""
    return {"GITSTORE_EGRESS_ALLOW": receiver.allow}


def subscribe(owner: Client, url: str = URL, **body: Any) -> dict[str, Any]:
    made = owner.post("/subscriptions", json={"url": url, **body})
    assert made.status_code == 201, made.text
    return dict(made.json or {})


def deliver(house: House) -> int:
    """Send what is due, as the worker does."""
    here = house.app.extensions["gitstore"]
    sender = Sender(house.database, here.egress, here.sealer())
    with house.database.as_mirror() as tx:
        delivery_queue.fan_out(tx)
        found = delivery_queue.claim(tx, Room(100, 100, 100, {}), timedelta(seconds=60))
    for due in found:
        sender.deliver(due)
    return len(found)


def test_the_secret_of_a_subscription_is_shown_once(owner: Client) -> None:
    """In the answer that created it, which must not be stored."""
    made = owner.post("/subscriptions", json={"url": "https://Example.com/hooks"})
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    body = dict(made.json or {})
    secret = body.pop("secret")
    assert secret.startswith("whsec_")
    assert made.headers["Location"] == f"https://gitstore.example/subscriptions/{body['id']}"
    assert (body["url"], body["events"], body["state"]) == ("https://example.com/hooks", TYPES, "active")
    for path in ("/subscriptions", f"/subscriptions/{body['id']}"):
        shown = owner.get(path)
        assert secret not in shown.text
        assert body["id"] in shown.text
    assert owner.get(f"/subscriptions/{body['id']}").json == body


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://0x7f.1/",
        "http://169.254.169.254/",
        "http://user@example.com/",
        "ftp://a.b/",
    ],
)
def test_a_url_that_must_not_be_reached_is_refused(owner: Client, url: str) -> None:
    """Without a lookup; a change to such a URL is refused, too."""
    problem(owner.post("/subscriptions", json={"url": url}), 422, "address_refused")
    made = subscribe(owner)
    problem(owner("PATCH", f"/subscriptions/{made['id']}", json={"url": url}), 422, "address_refused")
    assert (owner.get(f"/subscriptions/{made['id']}").json or {})["url"] == URL


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": ""},
        {"url": 1},
        {"url": URL, "events": []},
        {"url": URL, "events": ["workflow.version.publish"]},
        {"url": URL, "events": "workflow.version.published"},
        {"url": URL, "secret": "mine"},
        {"url": URL, "state": "paused"},
        {"url": "https://example.com/" + "a" * 2000},
        [],
    ],
)
def test_an_invalid_body_is_malformed(owner: Client, body: Any) -> None:
    """With a pointer to the invalid member."""
    problem(owner.post("/subscriptions", json=body), 400, "malformed")


def test_a_subscription_is_changed_paused_and_reactivated(owner: Client) -> None:
    """Absent members are unchanged."""
    path = f"/subscriptions/{subscribe(owner)['id']}"
    changed = owner("PATCH", path, json={"events": ["workflow.version.published"]}).json or {}
    assert (changed["url"], changed["events"]) == (URL, ["workflow.version.published"])
    assert (owner("PATCH", path, json={"state": "paused"}).json or {})["state"] == "paused"
    changed = owner("PATCH", path, json={"url": "https://example.org/", "state": "active"}).json or {}
    assert (changed["url"], changed["state"]) == ("https://example.org/", "active")
    problem(owner("PATCH", path, json={"state": "disabled"}), 400, "malformed")


def test_a_deleted_subscription_is_not_found(owner: Client) -> None:
    """By every endpoint."""
    path = f"/subscriptions/{subscribe(owner)['id']}"
    assert owner.delete(path).status_code == 204
    problem(owner.get(path), 404, "not_found")
    problem(owner("PATCH", path, json={"state": "paused"}), 404, "not_found")
    problem(owner.post(f"{path}/rotate"), 404, "not_found")
    problem(owner.post(f"{path}/test"), 404, "not_found")
    problem(owner.post(f"{path}/replay", json={"since": rfc3339(now())}), 404, "not_found")
    problem(owner.delete(path), 404, "not_found")
    assert owner.get("/subscriptions").json == {"subscriptions": []}


def test_a_project_has_at_most_a_hundred_subscriptions(owner: Client, house: House) -> None:
    """An event costs one delivery for each."""
    with house.database.as_owner() as tx:
        tx.run(
            "insert into gitstore.subscriptions (project_id, url, events) "
            "select %(project)s, 'https://example.com/', '{x}' from generate_series(1, 100)",
            project=house.project.id,
        )
    problem(owner.post("/subscriptions", json={"url": URL}), 409, "limit_reached")


def test_a_published_version_is_delivered(owner: Client, house: House, receiver: Receiver) -> None:
    """Verified with the secret of the answer, and listed with its attempt."""
    made = subscribe(owner, receiver.url(), events=["workflow.version.published"])
    owner.create()
    owner.publish()
    assert deliver(house) == 1
    message = receiver.got[0].verified(made["secret"])
    assert message["data"]["workflow"] == "order-sync"
    page = owner.get(f"/deliveries?subscription={made['id']}&state=succeeded").json or {}
    (one,) = page["deliveries"]
    assert one["webhook_id"] == receiver.got[0].id
    assert one["attempts"] == 1
    full = owner.get(f"/deliveries/{one['id']}").json or {}
    (attempt,) = full.pop("history")
    assert full == one
    assert (attempt["number"], attempt["status"], attempt["response"], attempt["error"]) == (
        1,
        200,
        "ok",
        None,
    )
    assert owner.get("/deliveries?state=failed").json == {"deliveries": [], "next_cursor": None}


def test_a_failed_delivery_can_be_redelivered(owner: Client, house: House, receiver: Receiver) -> None:
    """With the same id."""
    receiver.answers = respond(500, b"no")
    subscribe(owner, receiver.url(), events=["workflow.version.published"])
    owner.create()
    owner.publish()
    deliver(house)
    (one,) = (owner.get("/deliveries?state=pending").json or {})["deliveries"]
    assert (one["last_status"], one["last_error"]) == (500, "answered 500")
    assert one["next_attempt_at"] > one["created_at"]
    receiver.answers = None
    again = owner.post(f"/deliveries/{one['id']}/redeliver")
    assert again.status_code == 202
    assert deliver(house) == 1
    shown = owner.get(f"/deliveries/{one['id']}").json or {}
    assert (shown["state"], shown["next_attempt_at"]) == ("succeeded", None)
    assert [attempt["status"] for attempt in shown["history"]] == [500, 200]
    assert len({got.id for got in receiver.got}) == 1


def test_events_since_a_time_are_sent_again(owner: Client, house: House, receiver: Receiver) -> None:
    """With the same id; the audit log tells who asked for it."""
    made = subscribe(owner, receiver.url(), events=["workflow.version.published"])
    path = f"/subscriptions/{made['id']}/replay"
    owner.create()
    owner.publish()
    deliver(house)
    again = owner.post(path, json={"since": rfc3339(now() - timedelta(hours=1))})
    assert (again.status_code, again.json) == (202, {"deliveries": 1, "next_since": None})
    assert deliver(house) == 1
    assert len({got.id for got in receiver.got}) == 1
    assert owner.post(path, json={"since": rfc3339(now() + timedelta(hours=1))}).json == {
        "deliveries": 0, "next_since": None,
    }  # fmt: skip
    with house.database.as_owner() as tx:
        counts = tx.tuples(
            "select object, details -> 'deliveries' from gitstore.audit_log "
            "where action = 'subscription.replayed' order by at"
        )
    assert counts == [(made["id"], 1), (made["id"], 0)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"since": None},
        {"since": 0},
        {"since": "yesterday"},
        {"since": "2026-11-27T09:00:00"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"since": "9999-12-31T23:59:59-14:00"},
        {"since": rfc3339(now() - timedelta(days=30, minutes=1))},
    ],
)
def test_a_replay_needs_a_time_within_the_retention(owner: Client, body: Any) -> None:
    problem(owner.post(f"/subscriptions/{subscribe(owner)['id']}/replay", json=body), 400, "malformed")


def test_rotated_secrets_overlap(owner: Client, house: House, receiver: Receiver) -> None:
    """Deliveries are signed with both; a test event shows it."""
    made = subscribe(owner, receiver.url())
    rotated = owner.post(f"/subscriptions/{made['id']}/rotate", json={"overlap_hours": 1})
    assert rotated.headers["Cache-Control"] == "no-store"
    tested = owner.post(f"/subscriptions/{made['id']}/test")
    assert tested.status_code == 202
    assert tested.headers["Location"].endswith(f"/deliveries/{(tested.json or {})['id']}")
    deliver(house)
    for secret in (made["secret"], (rotated.json or {})["secret"]):
        assert receiver.got[0].verified(secret)["type"] == "webhook.test"
    problem(owner.post(f"/subscriptions/{made['id']}/rotate", json={"overlap_hours": -1}), 400, "malformed")


def test_deliveries_are_paged(owner: Client) -> None:
    """Newest first, each once."""
    made = subscribe(owner)
    tests = [(owner.post(f"/subscriptions/{made['id']}/test").json or {})["id"] for _ in range(5)]
    seen: list[str] = []
    path = "/deliveries?limit=2"
    for _ in range(3):
        page = owner.get(path)
        body = page.json or {}
        seen += [one["id"] for one in body["deliveries"]]
        path = f"/deliveries?limit=2&cursor={body['next_cursor']}"
        assert ("Link" in page.headers) == (body["next_cursor"] is not None)
    assert seen == tests[::-1]
    for cursor in ("x", "", "MjAyNi0wMS0wMQ", "MjAyNi0wMS0wMSB4", "YWJj"):
        problem(owner.get(f"/deliveries?cursor={cursor}"), 400, "malformed")


def test_every_change_is_in_the_audit_log(owner: Client, house: House) -> None:
    """Without URL or secret, as others can read it."""
    made = subscribe(owner)
    path = f"/subscriptions/{made['id']}"
    owner("PATCH", path, json={"state": "paused"})
    rotated = owner.post(f"{path}/rotate").json or {}
    owner.delete(path)
    with house.database.as_owner() as tx:
        rows = tx.tuples("select action, object, details::text from gitstore.audit_log order by at")
    noted = [row for row in rows if row[0].startswith("subscription.")]
    assert [row[0].removeprefix("subscription.") for row in noted] == [
        "created",
        "changed",
        "rotated",
        "deleted",
    ]
    assert {row[1] for row in noted} == {made["id"]}
    for secret in (made["secret"], rotated["secret"], "example.com"):
        assert not any(secret in row[2] for row in noted)


def test_metrics_report_the_lag_of_deliveries(
    owner: Client, house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 if everything is sent."""
    monkeypatch.setattr(scraping, "GAUGES_SECONDS", 0.0)
    line = "gitstore_delivery_lag_seconds "
    assert f"{line}0.0\n" in owner.get("/metrics").text
    made = subscribe(owner, receiver.url())
    owner.post(f"/subscriptions/{made['id']}/test")
    shown = owner.get("/metrics").text
    assert f"{line}0.0\n" not in shown
    assert "gitstore_deliveries_pending 1.0\n" in shown
    assert 'gitstore_subscriptions{state="active"} 1.0\n' in shown
    assert "gitstore_source_success_age_seconds 0.0\n" in shown
    deliver(house)
    assert f"{line}0.0\n" in owner.get("/metrics").text
