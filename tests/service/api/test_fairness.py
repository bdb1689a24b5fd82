"""Heavy requests over HTTP, beside those of other tokens and tenants, and light ones."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from service.context import EXTENSION, Services
from service.fairness import ANONYMOUS, LARGE, FairShares, Lease
from tests.service.api.conftest import Client, House, definition
from tests.service.serve_process import until

LABEL = "x" * LARGE
SAVE = "/workflows/order-sync/versions/draft"


def large() -> dict[str, Any]:
    return definition(description=LABEL)


@pytest.fixture
def shares(house: House) -> FairShares:
    """The application's shares, with one heavy request in progress and no time to wait."""
    made = FairShares(2, None, lambda _outcome: None, wait_seconds=0.05)
    services: Services = house.app.extensions[EXTENSION]
    house.app.extensions[EXTENSION] = replace(services, shares=made)
    return made


def token_of(house: House, client: Client) -> str:
    """The id of its token."""
    found = [each for each in house.client().get("/tokens").json["tokens"] if each["role"] == "viewer"]
    return str(UUID(found[-1]["id"]))


def refused(response: Any) -> None:
    assert response.status_code == 429, response.text
    assert int(response.headers["Retry-After"]) > 0
    assert response.json["code"] == "too_many_requests"


HEAVY: dict[str, Callable[[Client], Any]] = {
    "validate": lambda by: by.post("/workflows/order-sync/validate", json=large()),
    "validate the draft": lambda by: by.post("/workflows/order-sync/validate"),
    "an unknown key": lambda by: by.post("/workflows/order-sync/validate", json={"message": "", LABEL: 1}),
    "create": lambda by: by.post("/workflows", json={"slug": "b", "definition": large()}),
    "save": lambda by: by.put(SAVE, json={"definition": large()}, match="*"),
    "save a version": lambda by: by.put(SAVE, json={"from_version": 1}, match="*"),
    "revert": lambda by: by.post("/workflows/order-sync/versions/1/revert", match="*"),
    "publish": lambda by: by.publish(),
    "edit": lambda by: by.post(f"{SAVE}/edit", json={"patch": []}),
    "diff": lambda by: by.get("/workflows/order-sync/diff?from=1&to=draft"),
}
LIGHT: dict[str, Callable[[Client], Any]] = {
    "validate": lambda by: by.post("/workflows/order-sync/validate", json=definition()),
    "read": lambda by: by.get("/workflows/order-sync/versions/1/definition"),
    "list": lambda by: by.get("/workflows"),
    "history": lambda by: by.get("/workflows/order-sync/versions"),
}


def test_heavy_requests_wait_for_their_turn(owner: Client, shares: FairShares) -> None:
    """Every route that parses large content, in its body or stored, is refused at last; no light one is."""
    owner.create(definition=large())
    assert owner.publish().status_code == 201
    owner.post("/workflows/order-sync/versions", json={"definition": large()})
    running = shares.admit("another", "credential")
    for name, call in HEAVY.items():
        assert call(owner).status_code == 429, name
        refused(call(owner))
    for name, call in LIGHT.items():
        assert call(owner).status_code == 200, name
    running.release()
    assert HEAVY["publish"](owner).status_code == 200  # the same content again
    assert not shares._running


def test_light_requests_do_not_wait(owner: Client, shares: FairShares) -> None:
    """The same routes with small definitions."""
    owner.create()
    assert owner.publish().status_code == 201
    running = shares.admit("another", "credential")
    draft = {"definition": definition("https://b.example/")}
    for answer in (
        owner.post("/workflows/order-sync/versions", json=draft),
        HEAVY["diff"](owner),
        HEAVY["validate the draft"](owner),
        HEAVY["publish"](owner),
        HEAVY["revert"](owner),
    ):
        assert answer.status_code in (200, 201), answer.text
    running.release()


def test_fetches_and_pushes_wait_for_their_turn(house: House, owner: Client, shares: FairShares) -> None:
    """Of any size; git prints the reason."""
    running = shares.admit("another", "credential")
    basic = {"Authorization": f"Basic {b64encode(f'x:{owner.token}'.encode()).decode()}"}
    asker = Client(house.app, "", basic)
    for service in ("git-upload-pack", "git-receive-pack"):
        answer = asker.get(f"/default.git/info/refs?service={service}")
        assert (answer.status_code, answer.mimetype) == (429, "text/plain")
        assert "retry in" in answer.text
        assert int(answer.headers["Retry-After"]) > 0
    running.release()
    assert asker.get("/default.git/info/refs?service=git-upload-pack").status_code == 200
    assert not shares._running


def test_a_failed_request_ends_its_turn(house: House, owner: Client, shares: FairShares) -> None:
    """An error, invalid JSON, a missing workflow."""
    for answer in (
        owner.post("/workflows/nothing/validate", json=large()),
        owner.post("/workflows/nothing/validate", data="{" * (LARGE + 1), type="application/json"),
        owner.post("/workflows", json={"slug": "b", LABEL: 1}),
        house.client("viewer").put(SAVE, json={"definition": large()}, match="*"),
        Client(house.app, "gst_nobody").post("/workflows", json=large()),
    ):
        assert 400 <= answer.status_code < 429
    assert not shares._running
    assert not shares._waiting


def test_turns_are_by_token_and_project(house: House, owner: Client) -> None:
    """Two viewers have a turn each; without a token, the address counts."""
    asked: list[tuple[str, str]] = []

    class Noted(FairShares):
        def admit(self, tenant: str, credential: str, *rest: Any) -> Lease:
            asked.append((tenant, credential))
            return super().admit(tenant, credential, *rest)

    services: Services = house.app.extensions[EXTENSION]
    house.app.extensions[EXTENSION] = replace(services, shares=Noted(2, None, lambda _outcome: None))
    owner.create()
    for client in (house.client("viewer"), house.client("viewer")):
        assert HEAVY["validate"](client).status_code == 200
    house.client("viewer", house.other).post("/workflows/none/validate", json=large())
    tenants, credentials = zip(*asked, strict=True)
    assert tenants == (str(house.project.id), str(house.project.id), str(house.other.id))
    assert len(set(credentials)) == 3
    source = owner.post("/sources", json={"url": "https://github.com/acme/flows.git"}).json
    path = "/hooks/" + source["webhook"]["url"].rpartition("/")[2]
    answer = Client(house.app, "").post(path, data=json.dumps(large()), type="application/json")
    assert answer.status_code == 401
    assert asked[-1] == (ANONYMOUS, "127.0.0.1")


def test_heavy_requests_of_two_viewers_beside_light_ones(house: House, owner: Client) -> None:
    """All are served in turn, none is refused, and at most half of the threads are heavy."""
    owner.create()
    viewers = [house.client("viewer"), house.client("viewer")]
    stranger = house.client("viewer", house.other)
    with ThreadPoolExecutor(12) as pool:
        heavy = [pool.submit(HEAVY["validate"], viewers[number % 2]) for number in range(8)]
        light = [pool.submit(stranger.get, "/workflows") for _ in range(8)]
        assert {each.result().status_code for each in heavy + light} == {200}
    shares: FairShares = house.app.extensions[EXTENSION].shares
    until(lambda: not shares._running and not shares._waiting)
