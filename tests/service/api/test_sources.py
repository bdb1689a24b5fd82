"""/sources and /hooks over HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Response as WsgiResponse

from service.app import create_app
from tests.service.api.conftest import Client, House, Response, problem
from tests.webhooks.test_forges import SAMPLES
from tests.webhooks.test_forges import signed as by_forge
from webhooks.addresses import Allowed
from webhooks.forges import MOST_BYTES, Forge
from webhooks.secrets import ID, SIGNATURE, TIMESTAMP

SECRET = "It's-a-secret-to-everybody"
URL = "http://git.example:8000/acme/flows.git"
TAG = {"ref": "refs/tags/order-sync/v1", "before": "0" * 40, "after": "a" * 40}


@pytest.fixture
def house(house: House) -> House:
    """With git.example allowed, which does not resolve."""
    config = replace(house.config, egress_allow=Allowed.parse("git.example:8000,git.example:80"))
    return replace(house, app=create_app(config, database=house.database), config=config)


def added(owner: Client, url: str = URL, **body: Any) -> dict[str, Any]:
    made = owner.post("/sources", json={"url": url, "forge": "github", "secret": SECRET, **body})
    assert made.status_code == 201, made.text
    return dict(made.json)


@pytest.fixture
def source(owner: Client) -> dict[str, Any]:
    return added(owner)


def ring(
    house: House, source: str, payload: object = TAG, *, event: str = "push", delivery: str = "d-1",
    secret: str = SECRET, **headers: str,
) -> Response:  # fmt: skip
    """Send a webhook as GitHub does."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    sent = {**signed(body, event=event, delivery=delivery, secret=secret), **headers}
    return Client(house.app, "")("POST", f"/hooks/{source}", data=body, headers=sent)


def signed(
    body: bytes, *, event: str = "push", delivery: str = "d-1", secret: str = SECRET
) -> dict[str, str]:
    return {
        "X-Hub-Signature-256": "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex(),
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "Content-Type": "application/json",
    }


def due(house: House) -> int:
    with house.database.as_owner() as tx:
        return int(tx.value("select count(*) from gitstore.sources where due_at <= now()"))


@pytest.fixture
def quiet(house: House, source: dict[str, Any]) -> str:
    """The id of a source that is not due."""
    with house.database.as_owner() as tx:
        tx.run("update gitstore.sources set due_at = now() + interval '1 hour', full_sync = false")
    return str(source["id"])


# Sources


def test_creating_a_source_returns_its_webhook(owner: Client) -> None:
    """The URL and, only once, the secret."""
    source = added(owner, credential="ghp_123456")
    assert source["webhook"] == {
        "url": f"https://gitstore.example/hooks/{source['id']}",
        "secret": SECRET,
        "secret_as": None,
        "content_type": "application/json",
        "events": ["push", "create", "delete"],
    }
    assert (source["forge"], source["layout"], source["direction"]) == ("github", "refs", "pull")
    assert (source["poll_seconds"], source["state"], source["has_credential"]) == (300, "new", True)
    assert (source["workflows"], source["drafts"]) == (["*"], False)
    for path in (f"/sources/{source['id']}", "/sources"):
        shown = owner.get(path)
        assert SECRET not in shown.text
        assert "ghp_123456" not in shown.text
        assert shown.headers["Cache-Control"] == "private, no-cache"


def test_a_secret_is_generated_by_default(owner: Client) -> None:
    """For a sender that is not a forge, one of Standard Webhooks."""
    made = owner.post("/sources", json={"url": URL})
    assert made.json["forge"] == "any"
    assert made.json["webhook"]["secret"].startswith("whsec_")
    assert made.json["webhook"]["secret_as"] is None
    sent = added(owner, URL + "3", forge="header")["webhook"]["secret_as"]
    assert sent == "the value of the header X-Gitstore-Token"
    refused = owner.post("/sources", json={"url": URL + "2", "secret": "not-a-standard-one"})
    assert "Standard Webhooks" in problem(refused, 400, "malformed")["detail"]


def test_secrets_are_stored_encrypted(house: House, owner: Client) -> None:
    """With a key that is not in the database."""
    added(owner, url="http://ann:ghp_123456@git.example:8000/x.git")
    with house.database.as_owner() as tx:
        ((row,),) = tx.tuples("select to_jsonb(s)::text from gitstore.sources s")
        audited = tx.value("select string_agg(details::text, ' ') from gitstore.audit_log")
    assert "ghp_123456" not in row + audited
    assert SECRET not in row + audited


def test_a_credential_is_removed_from_the_url(owner: Client) -> None:
    """Given twice, it is refused."""
    source = added(owner, url="http://ann:p%40ss@git.example:8000/x.git")
    assert (source["url"], source["has_credential"]) == ("http://git.example:8000/x.git", True)
    twice = {"url": "http://ann:pass@git.example:8000/y.git", "credential": "token"}
    refused = owner.post("/sources", json=twice)
    assert "pass" not in problem(refused, 400, "malformed")["detail"]


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/x", "file:///etc", "/etc", "git@github.com:acme/flows.git", "ssh://git.example/x",
        "git://git.example/x", "http://127.0.0.1/x", "http://[::1]/x", "http://169.254.169.254/x",
        "http://localhost/x", "http://10.0.0.1/x.git", "https://git.example/x?y", "https://git.example/x#y",
        "http://a@b@git.example/x", "http://", "https://ann:hunter2@10.0.0.1/x",
    ],
)  # fmt: skip
def test_only_public_http_urls_are_accepted(owner: Client, url: str) -> None:
    """By the address check; the error does not repeat a password."""
    refused = owner.post("/sources", json={"url": url})
    assert "hunter2" not in refused.text
    problem(refused, 422, "address_refused")


def test_a_url_can_be_followed_only_once(owner: Client, source: dict[str, Any]) -> None:
    """In any spelling."""
    refused = owner.post("/sources", json={"url": "HTTP://u:p@Git.Example:8000/acme/flows.git/"})
    problem(refused, 409, "source_exists")


def test_the_forge_is_detected_from_the_host(house: House) -> None:
    config = replace(house.config, egress_allow=Allowed.parse("gitlab.acme.example:80,codeberg.example:80"))
    owner = Client(create_app(config, database=house.database), house.client().token)
    for host, forge, event in (
        ("gitlab.acme.example", "gitlab", "Tag push events"),
        ("codeberg.example", "forgejo", "create"),
    ):
        made = owner.post("/sources", json={"url": f"http://{host}/x/y.git"})
        assert made.json["forge"] == forge
        assert event in made.json["webhook"]["events"]


def test_a_source_is_changed_paused_and_deleted(house: House, owner: Client, source: dict[str, Any]) -> None:
    """Each change makes it due, and is in the audit log."""
    path = f"/sources/{source['id']}"
    changed = owner("PATCH", path, json={"poll_seconds": 60, "direction": "both", "paused": True}).json
    assert (changed["poll_seconds"], changed["direction"], changed["state"]) == (60, "both", "paused")
    assert changed["next_sync_at"] is None
    refused = problem(owner.post(f"{path}/sync"), 409, "source_paused")  # the worker would pass it over
    assert "resume it" in refused["detail"]
    assert owner("PATCH", path, json={"paused": False, "credential": "user:pass"}).json["has_credential"]
    assert not owner("PATCH", path, json={"credential": ""}).json["has_credential"]
    problem(owner("PATCH", path, json={"poll_seconds": 1}), 400, "malformed")
    assert owner.post(f"{path}/sync").status_code == 202
    assert owner.delete(path).status_code == 204
    problem(owner.get(path), 404, "not_found")
    with house.database.as_owner() as tx:
        actions = [action for (action,) in tx.tuples("select action from gitstore.audit_log order by at")]
    assert [action for action in actions if action.startswith("source.")] == [
        "source.created", "source.changed", "source.changed", "source.changed", "source.deleted",
    ]  # fmt: skip


def test_a_new_secret_replaces_the_old_one(house: House, owner: Client, quiet: str) -> None:
    """At once: the forge needs the new one."""
    owner("PATCH", f"/sources/{quiet}", json={"secret": "another-secret-of-it"})
    problem(ring(house, quiet), 401, "bad_signature")
    assert ring(house, quiet, secret="another-secret-of-it").status_code == 202


def test_two_secrets_are_accepted_during_a_rotation(house: House, owner: Client, quiet: str) -> None:
    """Until the overlap has passed; a second rotation, or a secret that is set, ends the first overlap."""
    path = f"/sources/{quiet}"
    assert owner.get(path).json["previous_secret_until"] is None
    rotated = owner.post(f"{path}/rotate", json={"overlap_hours": 2})
    assert (rotated.status_code, rotated.headers["Cache-Control"]) == (200, "no-store")
    assert rotated.json["url"] == f"https://gitstore.example/hooks/{quiet}"
    second = rotated.json["secret"]
    until = datetime.fromisoformat(owner.get(path).json["previous_secret_until"])
    assert timedelta(hours=1) < until - datetime.now(UTC) <= timedelta(hours=2)
    for secret, status in ((SECRET, 202), (second, 202), ("another-secret-of-it", 401)):
        assert ring(house, quiet, secret=secret).status_code == status
    third = owner.post(f"{path}/rotate", json={"secret": "a-secret-of-the-owner"}).json["secret"]
    assert third == "a-secret-of-the-owner"
    assert [ring(house, quiet, secret=one).status_code for one in (SECRET, second, third)] == [401, 202, 202]
    with house.database.as_owner() as tx:
        tx.run("update gitstore.sources set previous_secret_until = now() - interval '1 second'")
    assert [ring(house, quiet, secret=one).status_code for one in (second, third)] == [401, 202]
    assert owner.get(path).json["previous_secret_until"] is None
    owner.post(f"{path}/rotate")
    owner("PATCH", path, json={"secret": "the-only-one-from-now-on"})
    assert ring(house, quiet, secret=third).status_code == 401
    fifth = owner.post(f"{path}/rotate", json={"overlap_hours": 0}).json["secret"]
    assert ring(house, quiet, secret="the-only-one-from-now-on").status_code == 401
    assert ring(house, quiet, secret=fifth).status_code == 202
    for body in ({"overlap_hours": -1}, {"overlap_hours": 169}, {"secret": "short"}):
        problem(owner.post(f"{path}/rotate", json=body), 400, "malformed")
    with house.database.as_owner() as tx:
        stored = tx.value("select string_agg(to_jsonb(s)::text, ' ') from gitstore.sources s")
        audited = tx.tuples("select details from gitstore.audit_log where action = 'source.rotated'")
    assert next(details for (details,) in audited) == {"overlap_hours": 2}
    assert fifth not in stored


def test_a_rotation_after_the_key_was_lost_accepts_the_new_secret(
    house: House, owner: Client, quiet: str
) -> None:
    """The previous one, which cannot be decrypted, is as good as retired."""
    with house.database.as_owner() as tx:
        tx.run("update gitstore.sources set sealed_secret = 'of another key'")
    secret = owner.post(f"/sources/{quiet}/rotate").json["secret"]
    assert ring(house, quiet, secret=secret).status_code == 202
    problem(ring(house, quiet), 401, "bad_signature")


def test_a_source_syncs_the_workflows_that_its_owner_names(owner: Client, quiet: str) -> None:
    """And drafts if asked; a change makes it due. Invalid globs are refused at both doors."""
    path = f"/sources/{quiet}"
    changed = owner("PATCH", path, json={"workflows": ["order-*", "refunds", "order-*"], "drafts": True}).json
    assert (changed["workflows"], changed["drafts"]) == (["order-*", "refunds"], True)
    kept = owner("PATCH", path, json={"poll_seconds": 60}).json
    assert (kept["workflows"], kept["drafts"]) == (["order-*", "refunds"], True)
    made = added(owner, f"{URL}2", workflows=["billing"])
    assert (made["workflows"], made["drafts"]) == (["billing"], False)
    for globs in ([], ["Order-*"], ["a/*"], ["a"] * 51, ["a" * 64], "order-*", [1]):
        problem(owner("PATCH", path, json={"workflows": globs}), 400, "malformed")
        problem(owner.post("/sources", json={"url": f"{URL}3", "workflows": globs}), 400, "malformed")


def test_two_tenants_can_follow_the_same_url(house: House, source: dict[str, Any]) -> None:
    stranger = house.client(project=house.other)
    assert stranger.post("/sources", json={"url": source["url"]}).status_code == 201


@pytest.mark.parametrize(
    ("ref", "number"),
    [("refs/tags/order-sync/v1", 1), ("refs/tags/Order-Sync/v1", None), ("refs/heads/drafts/a/b", None)],
)
def test_the_divergence_of_a_tag_is_acknowledged(
    house: House, owner: Client, source: dict[str, Any], ref: str, number: int | None
) -> None:
    """It is no longer open, and the audit log has who did it. Once."""
    with house.database.as_owner() as tx:
        tx.run(
            "insert into gitstore.divergences (source_id, project_id, ref, slug, version_number, theirs, "
            "code, reason) select id, project_id, %(ref)s, 'x', %(number)s, %(theirs)s, 'invalid_name', "
            "'misnamed' from gitstore.sources",
            ref=ref, number=number, theirs="2" * 40,
        )  # fmt: skip
    (one,) = owner.get(f"/sources/{source['id']}").json["divergences"]
    path = f"/sources/{source['id']}/divergences/{one['id']}/resolve"
    refused = (409, "version_immutable") if number else (400, "malformed")
    problem(owner.post(path, json={"take": "theirs"}), *refused)
    answer = owner.post(path, json={"take": "acknowledge"})
    assert (answer.status_code, answer.json["resolution"]) == (200, "ours")
    assert owner.get(f"/sources/{source['id']}").json["divergences"] == []
    problem(owner.post(path, json={"take": "acknowledge"}), 404, "not_found")
    with house.database.as_owner() as tx:
        details = tx.value("select details from gitstore.audit_log where action = 'divergence.resolved'")
    assert details == {"ref": ref, "take": "acknowledge"}


# Hooks


def test_a_delivery_marks_its_source_as_due(house: House, quiet: str) -> None:
    """It is answered at once, without information for strangers."""
    assert due(house) == 0
    answer = ring(house, quiet)
    assert (answer.status_code, answer.json) == (202, {"status": "accepted"})
    assert due(house) == 1


def test_a_replay_has_the_same_answer_and_no_effect(house: House, quiet: str) -> None:
    """The delivery's id is stored."""
    first = ring(house, quiet)
    with house.database.as_owner() as tx:
        tx.run("update gitstore.sources set due_at = now() + interval '1 hour'")
    again = ring(house, quiet)
    assert (again.status_code, again.data) == (first.status_code, first.data)
    assert due(house) == 0
    assert ring(house, quiet, delivery="d-2").status_code == 202
    assert due(house) == 1


@pytest.mark.parametrize(("event", "status"), [("ping", "pong"), ("issues", "ignored")])
def test_pings_and_other_events_have_no_effect(house: House, quiet: str, event: str, status: str) -> None:
    """They are answered with 202, so that the forge reports no failure."""
    answer = ring(house, quiet, {"zen": "x"}, event=event)
    assert (answer.status_code, answer.json) == (202, {"status": status})
    assert due(house) == 0


def test_an_invalid_signature_is_401_and_has_no_effect(house: House, quiet: str) -> None:
    """Not even the delivery's id is stored."""
    problem(ring(house, quiet, secret="something else"), 401, "bad_signature")
    problem(ring(house, quiet, **{"X-Hub-Signature-256": ""}), 401, "bad_signature")
    assert due(house) == 0
    assert ring(house, quiet).status_code == 202
    assert due(house) == 1


@pytest.mark.parametrize("forge", Forge)
def test_a_delivery_makes_only_its_source_due(house: House, owner: Client, forge: Forge) -> None:
    """Signed as its forge signs it: 202. A source of another project is unchanged."""
    added(house.client("owner", house.other))
    made = added(owner, f"{URL[:-4]}-{forge}.git", forge=forge, secret=None)
    body = json.dumps(SAMPLES[forge].payload).encode()
    sleep(house)
    headers = signed_by(forge, made["webhook"]["secret"], body)
    answer = Client(house.app, "")("POST", f"/hooks/{made['id']}", data=body, headers=headers)
    assert (answer.status_code, answer.json) == (202, {"status": "accepted"})
    assert awake(house) == [made["id"]]


def signed_by(forge: Forge, secret: str, body: bytes) -> dict[str, str]:
    if forge is Forge.ANY:
        at = int(datetime.now(UTC).timestamp())
        key = base64.b64decode(secret.removeprefix("whsec_"))
        mac = base64.b64encode(hmac.digest(key, f"d-1.{at}.".encode() + body, "sha256")).decode()
        return {"Content-Type": "application/json", ID: "d-1", TIMESTAMP: str(at), SIGNATURE: f"v1,{mac}"}
    return dict(by_forge(forge, body, secret=secret)[0])


def sleep(house: House) -> None:
    with house.database.as_owner() as tx:
        tx.run("update gitstore.sources set due_at = now() + interval '1 hour'")


def awake(house: House) -> list[str]:
    with house.database.as_owner() as tx:
        return [str(id_) for (id_,) in tx.tuples("select id from gitstore.sources where due_at <= now()")]


@pytest.mark.parametrize(
    "named", [f"{7:032x}", str(UUID(int=7)), "x", "..", "%00", "0" * 36, "{}", "a" * 5000]
)
def test_an_unknown_source_is_401(house: House, source: dict[str, Any], named: str) -> None:
    """Whatever the form of its id."""
    assert ring(house, named).status_code == 401


def test_an_oversized_webhook_is_refused_before_it_is_read(house: House, quiet: str) -> None:
    """3 MiB are accepted, one byte more is not."""
    body = b"{" + b" " * MOST_BYTES + b"}"
    problem(ring(house, quiet, body), 413, "too_large")
    assert ring(house, quiet, b"{" + b" " * (MOST_BYTES - 2) + b"}").status_code == 202


@pytest.mark.parametrize(
    ("size", "status"), [(MOST_BYTES, 202), (MOST_BYTES + 1, 413), (2 * MOST_BYTES, 413)]
)
def test_a_chunked_body_has_the_same_limit(house: House, quiet: str, size: int, status: int) -> None:
    """Without a declared length: the error is the size, not the signature."""
    body = b'{"a":"' + b"x" * (size - 8) + b'"}'
    headers = Headers(signed(body))
    sent = EnvironBuilder(path=f"/hooks/{quiet}", method="POST", headers=headers).get_environ()
    sent.pop("CONTENT_LENGTH", None)
    sent |= {"wsgi.input": BytesIO(body), "wsgi.input_terminated": True}  # as the server de-chunks it
    answer = WsgiResponse.from_app(house.app, sent)
    assert answer.status_code == status, answer.get_data(as_text=True)
    if status == 413:
        assert answer.json is not None
        assert answer.json["detail"].startswith(f"the body has more than {MOST_BYTES:,} bytes")


def test_a_truncated_webhook_is_malformed(house: House, quiet: str) -> None:
    """Not a wrong signature, for which one would look in the forge."""
    body = json.dumps(TAG).encode()
    answer = house.app.test_client().post(
        f"/hooks/{quiet}", input_stream=BytesIO(body[:20]), headers=signed(body),
        environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": str(len(body))},
    )  # fmt: skip
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["detail"] == f"the body ended after 20 of {len(body)} bytes"


@pytest.mark.parametrize("body", [b"not json", b"\xff\xfe", b"", b"[" * 100_000])
def test_a_signed_body_is_not_parsed(house: House, quiet: str, body: bytes) -> None:
    """The signature decides: a body that is not JSON, or not UTF-8, makes the source due, too."""
    assert ring(house, quiet, body).status_code == 202
    assert due(house) == 1


def test_ten_deliveries_are_one_fetch(house: House, quiet: str) -> None:
    """The source is due once."""
    for number in range(10):
        assert ring(house, quiet, delivery=f"d-{number}").status_code == 202
    with house.database.as_owner() as tx:
        assert tx.value("select count(*) from gitstore.receipts") == 10
    assert due(house) == 1


def test_deliveries_in_any_order_and_number_leave_the_same_rows(house: House, quiet: str) -> None:
    """100 of them, shuffled, duplicated, replayed."""
    rng = random.Random(7)  # noqa: S311
    deliveries = [f"d-{number}" for number in range(100)] * 2
    rng.shuffle(deliveries)
    answers = {ring(house, quiet, delivery=delivery).data for delivery in [*deliveries, *deliveries[:50]]}
    assert len(answers) == 1
    with house.database.as_owner() as tx:
        assert tx.value("select count(*) from gitstore.receipts") == 100
    assert due(house) == 1


def test_webhooks_of_a_paused_source_have_no_effect(house: House, owner: Client, quiet: str) -> None:
    """The forge gets the usual answer."""
    owner("PATCH", f"/sources/{quiet}", json={"paused": True})
    with house.database.as_owner() as tx:
        tx.run("update gitstore.sources set due_at = now() + interval '1 hour'")
    assert ring(house, quiet).status_code == 202
    assert due(house) == 0


def test_no_user_can_read_receipts(house: House, owner: Client, quiet: str) -> None:
    """Nor secrets, nor upstream refs; not even the project's owners."""
    ring(house, quiet)
    with house.database.as_owner() as tx:
        token = tx.value("select id from gitstore.access_tokens where role = 'owner' limit 1")
    for query in (
        "select * from gitstore.receipts", "select sealed_secret from gitstore.sources",
        "select sealed_credential from gitstore.sources", "select * from gitstore.upstream_refs",
    ):  # fmt: skip
        with (
            pytest.raises(Exception, match="denied permission"),
            house.database.as_user({"sub": str(token)}) as tx,
        ):
            tx.tuples(query)


def test_a_stranger_cannot_tell_whether_a_source_exists(house: House, owner: Client, quiet: str) -> None:
    """An unknown source, a wrong or missing signature, password or header: one answer."""
    none = str(uuid4())
    requests = [
        ring(house, quiet, secret="something else"),
        ring(house, quiet, **{"X-Hub-Signature-256": ""}),
        ring(house, none),
        ring(house, "x"),
    ]
    for forge in (Forge.AZURE, Forge.BASIC, Forge.HEADER):
        made = added(owner, f"{URL}{forge}", forge=forge)["id"]
        for source in (made, none):
            wrong = signed_by(forge, "another secret", b"{}")
            for headers in ({}, wrong, {"Authorization": "Basic *"}, {"Authorization": "Bearer x"}):
                requests.append(ring(house, source, **headers))
    seen = {
        (answer.status_code, answer.headers["WWW-Authenticate"], answer.json["code"], answer.json["detail"])
        for answer in requests
    }
    assert len(seen) == 1
    assert {answer.status_code for answer in requests} == {401}
    for source in (quiet, none):
        problem(ring(house, source, b"x" * (MOST_BYTES + 1)), 413, "too_large")


@pytest.mark.parametrize("forge", Forge)
def test_a_signed_body_may_be_any_bytes(house: House, owner: Client, forge: Forge) -> None:
    """Invalid UTF-8 is for the forge to mend; the change that it announces is fetched."""
    made = added(owner, f"{URL[:-4]}-{forge}.git", forge=forge, secret=None)
    body = b'{"message": "\xff\xfe"}'
    headers = signed_by(forge, made["webhook"]["secret"], body)
    answer = Client(house.app, "")("POST", f"/hooks/{made['id']}", data=body, headers=headers)
    assert (answer.status_code, answer.json) == (202, {"status": "accepted"})
