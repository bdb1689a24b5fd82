"""From a `git push` to a subscriber: signed deliveries of a real service to a real receiver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.helpers import until
from tests.stories.instance import Caller, Service, definition
from tests.webhooks.receiver import Receiver, hang, receiving, respond

EVENT = "workflow.version.published"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, cluster: Path) -> Iterator[Service]:
    """A service that may deliver to this machine."""
    environment = {"GITSTORE_EGRESS_ALLOW": "127.0.0.0/8"}
    running = Service(tmp_path_factory.mktemp("service") / "data", environment, cluster).start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def team(service: Service, request: pytest.FixtureRequest) -> Caller:
    return service.project(request.node.name.replace("_", "-")[-60:].strip("-"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as subscriber:
        yield subscriber


def subscribe(team: Caller, receiver: Receiver, *events: str) -> dict[str, Any]:
    created = team.call("POST", "/subscriptions", {"url": receiver.url(), "events": list(events or [EVENT])})
    assert created.status == 201, created.raw
    return dict(created.json)


def deliveries(team: Caller, subscription: dict[str, Any], state: str) -> list[dict[str, Any]]:
    path = f"/deliveries?subscription={subscription['id']}&state={state}"
    return list(team.get(path).json["deliveries"])


def test_a_pushed_tag_is_delivered_signed_and_can_be_redelivered(
    team: Caller, receiver: Receiver, tmp_path: Path
) -> None:
    """The reference library verifies it, and its ids lead to the API."""
    subscription = subscribe(team, receiver)
    ann = team.author(tmp_path / "ann")
    ann.draft("order-sync", definition("Order sync"))
    ann.tag("order-sync", 1, "Ship it")
    assert ann.push("drafts/order-sync", "order-sync/v1").ok
    (first,) = receiver.wait(1)
    payload = first.verified(subscription["secret"])
    assert (payload["type"], payload["data"]["workflow"], payload["data"]["version_number"]) == (
        EVENT,
        "order-sync",
        1,
    )
    assert payload["data"]["commit"] == ann.git("rev-parse", "order-sync/v1^{commit}")
    assert team.get("/workflows/order-sync/versions/1").json["commit"] == payload["data"]["commit"]
    with pytest.raises(WebhookVerificationError):
        Webhook(subscription["secret"]).verify(
            first.body.replace(b"order-sync", b"order-sink"), first.headers
        )
    (delivery,) = until(lambda: deliveries(team, subscription, "succeeded"), "it was not recorded")
    assert delivery["webhook_id"] == first.id
    again = team.call("POST", f"/deliveries/{delivery['id']}/redeliver")
    assert again.status == 202
    (_, second) = receiver.wait(2)
    assert (second.id, second.verified(subscription["secret"])) == (first.id, payload)
    attempts = until(
        lambda: (
            (found := team.get(f"/deliveries/{delivery['id']}").json["history"]) and len(found) == 2 and found
        ),
        "the second attempt was not recorded",
    )
    assert [attempt["status"] for attempt in attempts] == [200, 200]


def test_a_hanging_subscriber_does_not_delay_another(team: Caller, receiver: Receiver) -> None:
    with receiving(hang) as dead:
        subscribe(team, dead, "workflow.draft.updated")
        healthy = subscribe(team, receiver, "workflow.draft.updated")
        for number in range(10):
            body = {"slug": f"flow-{number}", "definition": definition("Flow")}
            assert team.call("POST", "/workflows", body).status == 201
        slugs = {got.verified(healthy["secret"])["data"]["workflow"] for got in receiver.wait(10)}
        assert slugs == {f"flow-{number}" for number in range(10)}
        assert until(lambda: dead.got, "the hanging subscriber received nothing")
        assert deliveries(team, {"id": healthy["id"]}, "failed") == []


def test_a_paused_subscription_catches_up_and_a_gone_one_is_disabled(
    team: Caller, receiver: Receiver
) -> None:
    """Others receive the event of that; once an owner activates it, it catches up, too."""
    held = subscribe(team, receiver, "workflow.draft.updated", "subscription.disabled")
    path = f"/subscriptions/{held['id']}"
    assert team.call("PATCH", path, {"state": "paused"}).json["state"] == "paused"
    with receiving(respond(410)) as gone:
        left = subscribe(team, gone, "workflow.draft.updated")
        team.call("POST", "/workflows", {"slug": "one", "definition": definition("One")})
        gone.wait(1)
        row = until(
            lambda: (found := team.get(f"/subscriptions/{left['id']}").json)["state"] == "disabled" and found,
            "it was not disabled",
        )
        assert row["reason"] == "it answered 410 Gone"
        team.call("POST", "/workflows", {"slug": "two", "definition": definition("Two")})
        # The held deliveries exist, and none was sent too early.
        until(lambda: len(deliveries(team, held, "pending")) == 3, "it was not held")
        assert receiver.got == []
        assert team.call("PATCH", path, {"state": "active"}).status == 200
        kinds = [got.verified(held["secret"])["type"] for got in receiver.wait(3)]
        assert sorted(kinds) == ["subscription.disabled", "workflow.draft.updated", "workflow.draft.updated"]
        assert len(gone.got) == 1
        gone.answers = None
        assert team.call("PATCH", f"/subscriptions/{left['id']}", {"state": "active"}).status == 200
        team.call("POST", "/workflows", {"slug": "three", "definition": definition("Three")})
        sent = [got.verified(left["secret"])["data"]["workflow"] for got in gone.wait(3)[1:]]
        assert sorted(sent) == ["three", "two"]
