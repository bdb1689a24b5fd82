"""/tokens, and authentication of the API."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.service.api.conftest import Client, House, problem


def test_a_token_is_shown_once_and_works(owner: Client, house: House) -> None:
    """Afterwards it is neither listed nor logged."""
    made = owner.post("/tokens", json={"name": "ci", "role": "viewer"})
    assert made.status_code == 201
    secret = made.json["token"]
    assert secret.startswith("gst_")
    assert len(secret) == 47
    assert made.headers["Cache-Control"] == "no-store"
    assert made.headers["Location"] == f"https://gitstore.example/tokens/{made.json['id']}"
    assert Client(house.app, secret).get("/workflows").status_code == 200
    listed = owner.get("/tokens")
    assert secret not in listed.text
    found = {token["name"]: token for token in listed.json["tokens"]}
    assert found["ci"]["role"] == "viewer"
    assert found["ci"]["last_used_at"].endswith("Z")
    assert found["ci"]["expires_at"] is None
    assert set(found["ci"]) == {
        "id", "name", "role", "created_at", "last_used_at", "expires_at", "revoked_at",
    }  # fmt: skip


def test_a_revoked_token_stops_working(owner: Client, house: House) -> None:
    made = owner.post("/tokens", json={"name": "ci", "role": "editor"}).json
    assert owner.delete(f"/tokens/{made['id']}").status_code == 204
    problem(Client(house.app, made["token"]).get("/workflows"), 401, "unauthenticated")
    problem(owner.delete(f"/tokens/{made['id']}"), 404, "not_found")
    tokens = owner.get("/tokens").json["tokens"]
    assert next(token for token in tokens if token["name"] == "ci")["revoked_at"] is not None


def test_a_token_can_revoke_itself(owner: Client) -> None:
    (own,) = owner.get("/tokens").json["tokens"]
    assert owner.delete(f"/tokens/{own['id']}").status_code == 204
    problem(owner.get("/tokens"), 401, "unauthenticated")


def test_a_failed_revocation_is_not_in_the_audit_log(owner: Client, house: House) -> None:
    problem(owner.delete("/tokens/f006bb46-fe48-4d75-9eed-9f211fa75bee"), 404, "not_found")
    with house.database.as_owner() as tx:
        assert tx.value("select count(*) from gitstore.audit_log where action = 'token.revoked'") == 0


def test_a_token_expires(owner: Client, house: House) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = owner.post("/tokens", json={"name": "soon", "role": "viewer", "expires_at": soon})
    assert made.status_code == 201
    assert datetime.fromisoformat(made.json["expires_at"]) == datetime.fromisoformat(soon)
    with house.database.as_owner() as tx:
        tx.run("update gitstore.access_tokens set expires_at = now() where id = %(id)s", id=made.json["id"])
    problem(Client(house.app, made.json["token"]).get("/workflows"), 401, "unauthenticated")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x"},
        {"role": "viewer"},
        {"name": "", "role": "viewer"},
        {"name": " ", "role": "viewer"},
        {"name": "a\nb", "role": "viewer"},
        {"name": "\u202egnp.exe", "role": "viewer"},
        {"name": "x" * 101, "role": "viewer"},
        {"name": "x", "role": "root"},
        {"name": "x", "role": 1},
        {"name": "x", "role": None},
        {"name": "x", "role": "viewer", "token": "gst_mine"},
        {"name": "x", "role": "viewer", "expires_at": "tomorrow"},
        {"name": "x", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "x", "role": "viewer", "expires_at": "2099-01-01T00:00:00"},
        {"name": "x", "role": "viewer", "expires_at": "0001-01-01T00:00:00+23:59"},
        {"name": "x", "role": "viewer", "expires_at": "9999-12-31T23:59:59-23:59"},
        {"name": "x", "role": "viewer", "expires_at": 4102444800},
        {"name": "x", "role": "viewer", "expires_at": True},
    ],
)
def test_an_invalid_token_is_not_created(owner: Client, body: Any) -> None:
    problem(owner.post("/tokens", json=body), 400, "malformed")
    assert len(owner.get("/tokens").json["tokens"]) == 1


def _basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer gst_" + "A" * 43,
        "Bearer gst_" + "A" * 42,
        "Bearer gst_" + "A" * 44,
        "Bearer gst_" + "ä" * 43,
        "Bearer \xff",
        "Digest x",
        _basic("x:gst_" + "A" * 43),
        "Basic !",
    ],
)
def test_an_unauthenticated_request_gets_a_challenge(house: House, authorization: str | None) -> None:
    """401 (RFC 6750), the same for every invalid credential."""
    headers = {} if authorization is None else {"Authorization": authorization}
    response = Client(house.app, "").get("/workflows", headers=headers)
    problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="gitstore"'


def test_the_api_refuses_basic_credentials(owner: Client, house: House) -> None:
    """A browser would send them automatically, for another site's form."""
    stranger = Client(house.app, "")
    problem(
        stranger.get("/workflows", headers={"Authorization": _basic(f"x:{owner.token}")}),
        401,
        "unauthenticated",
    )
    assert stranger.get("/workflows", headers={"Authorization": f"bearer {owner.token}"}).status_code == 200


def test_creating_and_revoking_tokens_is_audited(owner: Client, house: House) -> None:
    made = owner.post("/tokens", json={"name": "ci", "role": "viewer"}).json
    owner.delete(f"/tokens/{made['id']}")
    with house.database.as_owner() as tx:
        rows = tx.tuples(
            "select action, door, details ->> 'name' from gitstore.audit_log where object = %(id)s",
            id=made["id"],
        )
    assert sorted(rows) == [("token.created", "http", "ci"), ("token.revoked", "http", None)]
