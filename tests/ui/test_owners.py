"""Pages for owners: subscriptions, sources, divergences and tokens. Messages are those of the API."""

from __future__ import annotations

import re
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.service.api.conftest import House
from tests.ui.visitor import Answer, Visitor, visitor
from webhooks import delivery_log
from webhooks.subscriptions import SUBSCRIBABLE

ADDRESS = "https://subscriber.example/hooks"
REPOSITORY = "https://github.com/acme/flows.git"


def secret_of(answer: Answer, pattern: str) -> str:
    """Return the secret in an answer, which must not be cached."""
    assert answer.status == 201
    assert answer.headers["Cache-Control"] == "no-store"
    (secret,) = {
        code.text for code in answer.page.all("code") if re.fullmatch(pattern, code.text)
    }  # fmt: skip
    return secret


def subscription(ann: Visitor) -> dict[str, Any]:
    (row,) = ann.api.get("/subscriptions").json["subscriptions"]
    return dict(row)


def source(ann: Visitor) -> dict[str, Any]:
    (row,) = ann.api.get("/sources").json["sources"]
    return dict(row)


@pytest.fixture
def subscribed(ann: Visitor) -> str:
    """The page of a subscription."""
    created = ann.api.post("/subscriptions", json={"url": ADDRESS}).json
    return f"/ui/webhooks/{created['id']}"


@pytest.fixture
def followed(ann: Visitor) -> str:
    """The page of a source."""
    created = ann.api.post("/sources", json={"url": REPOSITORY, "credential": "a-token"}).json
    return f"/ui/sources/{created['id']}"


# Subscriptions


def test_adding_a_subscription_shows_its_secret_once(ann: Visitor) -> None:
    """Only the answer to the form has it."""
    form = ann.get("/ui/new-webhook").page
    offered = [
        box.attributes["value"] for box in form.all("input", name="events") if "checked" in box.attributes
    ]
    assert offered == list(SUBSCRIBABLE)
    answer = ann.post("/ui/new-webhook", url=ADDRESS, events="workflow.version.published")
    secret = secret_of(answer, r"whsec_\S{43}=")
    row = subscription(ann)
    assert (row["url"], row["events"]) == (ADDRESS, ["workflow.version.published"])
    for path in ("/ui/webhooks", f"/ui/webhooks/{row['id']}", f"/ui/webhooks/{row['id']}/edit"):
        page = ann.get(path)
        assert ADDRESS in page.html
        assert secret not in page.html


@pytest.mark.parametrize(
    ("url", "events", "status"),
    [("http://127.0.0.1/x", "workflow.draft.updated", 422), (ADDRESS, "no.such.event", 400), ("", "", 400)],
)
def test_invalid_subscriptions_are_refused_as_by_the_api(
    ann: Visitor, url: str, events: str, status: int
) -> None:
    """With the same message, and with the input."""
    answer = ann.post("/ui/new-webhook", url=url, events=events)
    detail = ann.api.post("/subscriptions", json={"url": url, "events": [events]}).json["detail"]
    assert answer.status == status
    assert detail[1:] in answer.page.all("div", role="alert")[0].text
    assert answer.page.value("url") == url
    assert ann.api.get("/subscriptions").json["subscriptions"] == []


def test_a_subscription_is_changed_paused_and_resumed(ann: Visitor, subscribed: str) -> None:
    answer = ann.post(f"{subscribed}/edit", url=f"{ADDRESS}/2", events="workflow.draft.updated")
    assert answer.location == subscribed
    assert subscription(ann)["url"] == f"{ADDRESS}/2"
    refused = ann.post(f"{subscribed}/edit", url="http://10.0.0.1/", events="workflow.draft.updated")
    assert (refused.status, refused.page.value("url")) == (422, "http://10.0.0.1/")
    answer = ann.post(f"{subscribed}/state", state="paused")
    assert subscription(ann)["state"] == "paused"
    assert "Paused. Events are queued" in ann.get(str(answer.location)).page.text
    assert "Activate" in ann.get(subscribed).page.text
    ann.post(f"{subscribed}/state", state="active")
    assert subscription(ann)["state"] == "active"
    assert ann.post(f"{subscribed}/state", state="disabled").status == 400


def test_a_test_event_leads_to_its_delivery(ann: Visitor, subscribed: str) -> None:
    answer = ann.post(f"{subscribed}/test")
    assert answer.status == 303
    page = ann.get(str(answer.location)).page
    assert page.title() == "webhook.test"
    assert "Test event queued." in page.text


def test_events_since_a_time_are_sent_again(
    ann: Visitor, subscribed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form offers the last day, explains an invalid time, and continues after many events."""
    ann.api.create()
    since = ann.get(subscribed).page.value("since")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", since)
    refused = ann.post(f"{subscribed}/replay", since="yesterday")
    assert (refused.status, refused.page.value("since")) == (400, "yesterday")
    assert "RFC 3339" in refused.page.all("div", role="alert")[0].text
    answer = ann.post(f"{subscribed}/replay", since=since)
    assert answer.location == subscribed
    assert "Events queued again." in ann.get(str(answer.location)).page.text
    monkeypatch.setattr(delivery_log, "replay", partial(delivery_log.replay, most=1))
    answer = ann.post(f"{subscribed}/replay", since=since)
    assert "1 event queued again. There are more" in answer.page.text
    assert answer.page.value("since") > since


def test_a_disabled_subscription_has_a_banner(house: House, ann: Visitor, subscribed: str) -> None:
    """On the list and on its page, with the reason and what happens to its events."""
    assert ann.get("/ui/webhooks").page.all("div", role="alert") == []
    with house.database.as_owner() as tx:
        tx.run("update gitstore.subscriptions set state = 'disabled', reason = 'it answered 410 Gone', "
               "failing_since = now() - interval '90 days'")  # fmt: skip
    for path in ("/ui/webhooks", subscribed):
        (banner,) = ann.get(path).page.all("div", role="alert")
        assert "disabled: it answered 410 Gone." in banner.text
        assert "sent when you activate it" in banner.text
    ann.api.create()
    for path in ("/ui/workflows", "/ui/sources", "/ui/new-source", "/ui/tokens", "/ui/workflows/order-sync"):
        (banner,) = ann.get(path).page.all("div", role="alert")
        assert "1 webhook subscription disabled" in banner.text
    editor = visitor(house, "editor")
    assert editor.get("/ui/workflows").page.all("div", role="alert") == []
    since = ann.get(subscribed).page.value("since")
    assert ann.post(f"{subscribed}/replay", since=since).status == 303
    ann.post(f"{subscribed}/state", state="active")
    for path in ("/ui/webhooks", "/ui/workflows"):
        assert ann.get(path).page.all("div", role="alert") == []


def test_a_rotated_secret_is_shown_once(ann: Visitor, house: House, subscribed: str) -> None:
    """The old one stays valid for a day."""
    answer = ann.post(f"{subscribed}/rotate")
    assert secret_of(answer, r"whsec_\S{43}=")
    assert "For 24 hours, deliveries are signed with both the old and the new" in answer.page.text
    with house.database.as_owner() as tx:
        assert tx.value("select count(*) from gitstore.subscription_secrets") == 2


def test_deleting_a_subscription_asks_for_confirmation(ann: Visitor, subscribed: str) -> None:
    question = ann.get(f"{subscribed}/delete").page
    assert ADDRESS in question.text
    assert subscription(ann)
    assert ann.post(f"{subscribed}/delete").location == "/ui/webhooks"
    assert ann.api.get("/subscriptions").json["subscriptions"] == []
    assert ann.get(subscribed).status == 404


# Sources


def test_adding_a_source_shows_the_values_of_its_webhook(ann: Visitor) -> None:
    """URL, secret, content type and events, as the API and the CLI do; never the credential."""
    answer = ann.post(
        "/ui/new-source", url=REPOSITORY, layout="folders", direction="both", credential="s3cret-token",
        poll_seconds="60", workflows="order-*, refunds", drafts="yes",
    )  # fmt: skip
    secret_of(answer, r"whsec_\S{43}=|[0-9A-Za-z_-]{32,}")
    row = source(ann)
    assert (row["forge"], row["layout"], row["direction"]) == ("github", "folders", "both")
    assert (row["poll_seconds"], row["has_credential"]) == (60, True)
    assert (row["workflows"], row["drafts"]) == (["order-*", "refunds"], True)
    form = ann.get(f"/ui/sources/{row['id']}").page
    assert form.value("workflows") == "order-* refunds"
    assert "checked" in form.all("input", name="drafts")[0].attributes
    assert "order-* refunds , with drafts" in ann.get("/ui/sources").page.text
    assert row["webhook_url"] in answer.page.text
    assert "push, create, delete" in answer.page.text
    for path in ("/ui/sources", f"/ui/sources/{row['id']}"):
        assert "s3cret-token" not in ann.get(path).html


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"url": "file:///etc"}, 422),
        ({"url": REPOSITORY, "poll_seconds": "soon"}, 400),
        ({"url": REPOSITORY, "poll_seconds": "1"}, 400),
        ({"url": REPOSITORY, "secret": "short"}, 400),
        ({"url": REPOSITORY, "forge": "sourceforge"}, 400),
        ({"url": REPOSITORY, "workflows": "Order-*"}, 400),
        ({}, 400),
    ],
)
def test_invalid_sources_are_refused_and_the_input_is_kept(
    ann: Visitor, given: dict[str, str], status: int
) -> None:
    """Except for secrets."""
    answer = ann.post("/ui/new-source", **given)
    assert answer.status == status
    assert answer.page.value("url") == given.get("url", "")
    assert "short" not in {each.attributes.get("value") for each in answer.page.all("input", type="password")}
    assert ann.api.get("/sources").json["sources"] == []


def test_a_source_is_changed_paused_and_resumed(ann: Visitor, followed: str) -> None:
    """Empty fields are unchanged; a checkbox removes the credential."""
    form = ann.get(followed).page
    assert [each.attributes["value"] for each in form.all("option") if "selected" in each.attributes] == [
        "github", "refs", "pull",
    ]  # fmt: skip
    ann.post(followed, forge="gitlab", layout="folders", direction="pull", poll_seconds="120")
    row = source(ann)
    assert (row["forge"], row["layout"], row["poll_seconds"]) == ("gitlab", "folders", 120)
    assert row["has_credential"]
    ann.post(followed, forget="yes")
    assert not source(ann)["has_credential"]
    assert ann.post(f"{followed}/pause", paused="yes").location == "/ui/sources"
    assert source(ann)["paused"]
    assert "Sync now" not in ann.get("/ui/sources").page.text
    assert "Resume" in ann.get("/ui/sources").page.text
    ann.post(f"{followed}/pause", paused="")
    assert not source(ann)["paused"]
    assert "Sync now" in ann.get("/ui/sources").page.text
    assert ann.post(followed, direction="sideways").status == 400


def test_the_secret_of_a_source_is_rotated(ann: Visitor, followed: str) -> None:
    """The new one is shown once; the form says until when the old one is accepted."""
    assert "stays valid for 24 hours" in ann.get(followed).page.text
    secret = secret_of(ann.post(f"{followed}/rotate"), r"whsec_\S{43}=")
    page = ann.get(followed)
    assert "The previous secret is accepted until" in page.page.text
    assert secret not in page.html
    assert source(ann)["previous_secret_until"] is not None


def test_poisoned_sources_and_deliveries_show_the_reason_and_a_retry(
    house: House, ann: Visitor, followed: str
) -> None:
    ann.api.post("/subscriptions", json={"url": ADDRESS})
    ann.api.post(f"/subscriptions/{subscription(ann)['id']}/test")
    with house.database.as_owner() as tx:
        tx.run("update gitstore.sources set crashes = 3, failures = 3, poisoned_at = now(), "
               "last_error = 'the sync ran wild'")  # fmt: skip
        tx.run("update gitstore.deliveries set state = 'poison', crashes = 3, due_at = null, "
               "ended_at = now(), last_error = 'the attempt ran wild'")  # fmt: skip
    text = ann.get("/ui/sources").page.text
    assert "poison" in text
    assert "no longer synced: sync it now or edit it to try again" in text
    assert "the sync ran wild" in text
    assert ann.post(f"{followed}/sync").status == 303
    assert source(ann)["state"] == "failing"
    sent = ann.get("/ui/webhooks?state=poison").page.text
    assert "the attempt ran wild" in sent
    (row,) = ann.api.get("/deliveries?state=poison").json["deliveries"]
    assert "The attempt ran wild." in ann.get(f"/ui/deliveries/{row['id']}").page.text


def test_removing_a_source_asks_for_confirmation(ann: Visitor, followed: str) -> None:
    """The question says that imported versions are kept."""
    assert "Imported versions are kept." in ann.get(f"{followed}/remove").page.text
    assert source(ann)
    assert ann.post(f"{followed}/remove").location == "/ui/sources"
    assert ann.api.get("/sources").json["sources"] == []


def diverge(house: House, source_id: str, ref: str, number: int | None) -> UUID:
    """Insert a divergence as a sync does."""
    divergence_id = uuid4()
    with house.database.as_owner() as tx:
        tx.run(
            "insert into gitstore.divergences (id, source_id, project_id, ref, slug, version_number, ours, "
            "theirs, code, reason) select %(id)s, id, project_id, %(ref)s, 'order-sync', %(number)s, "
            "%(ours)s, %(theirs)s, 'not_fast_forward', 'they went different ways' from gitstore.sources "
            "where id = %(source)s",
            id=divergence_id, source=source_id, ref=ref, number=number, ours="1" * 40, theirs="2" * 40,
        )  # fmt: skip
    return divergence_id


def test_divergences_are_resolved(ann: Visitor, house: House, followed: str) -> None:
    """Of a draft, theirs at the next sync, ours at once. That of a version can only be acknowledged."""
    source_id = source(ann)["id"]
    one = diverge(house, source_id, "refs/heads/drafts/order-sync", None)
    diverge(house, source_id, "refs/tags/order-sync/v1", 1)
    page = ann.get("/ui/sources").page
    assert [button.attributes["value"] for button in page.all("button", name="take")] == [
        "acknowledge", "ours", "theirs",
    ]  # fmt: skip
    path = f"{followed}/divergences/{one}"
    assert ann.post(path, take="theirs").location == "/ui/sources"
    assert "theirs, chosen by" in ann.get("/ui/sources").page.text
    assert ann.post(path, take="ours").location == "/ui/sources"
    (left,) = ann.api.get(f"/sources/{source_id}").json["divergences"]
    assert left["version_number"] == 1
    assert ann.post(f"{followed}/divergences/{left['id']}", take="theirs").status == 409
    assert ann.post(path, take="both").status == 400
    acknowledged = ann.post(f"{followed}/divergences/{left['id']}", take="acknowledge")
    assert acknowledged.location == "/ui/sources"
    assert "Acknowledged." in ann.get("/ui/sources").page.text
    assert ann.api.get(f"/sources/{source_id}").json["divergences"] == []


# Tokens


def test_a_new_token_is_shown_once_and_is_active(ann: Visitor, house: House) -> None:
    """With its role, until the end of its last day."""
    answer = ann.post("/ui/tokens", name="engine", role="viewer", last_day="2999-12-31")
    token = secret_of(answer, r"gst_\S{43}")
    listed = {row["name"]: row for row in ann.api.get("/tokens").json["tokens"]}
    assert (listed["engine"]["role"], listed["engine"]["expires_at"]) == ("viewer", "2999-12-31T23:59:59Z")
    assert (
        house.app.test_client().get("/workflows", headers={"Authorization": f"Bearer {token}"}).status_code
        == 200
    )
    page = ann.get("/ui/tokens")
    assert "engine" in page.page.text
    assert token not in page.html


@pytest.mark.parametrize(
    "given",
    [
        {"name": "", "role": "viewer"},
        {"name": "x", "role": "god"},
        {"name": "x", "role": "viewer", "last_day": "2001-01-01"},
        {"name": "x", "role": "viewer", "last_day": "tomorrow"},
    ],
)
def test_invalid_tokens_are_refused(ann: Visitor, given: dict[str, str]) -> None:
    before = len(ann.api.get("/tokens").json["tokens"])
    answer = ann.post("/ui/tokens", **given)
    assert answer.status == 400
    assert answer.page.value("name") == given["name"]
    assert len(ann.api.get("/tokens").json["tokens"]) == before


def test_revoking_asks_for_confirmation_and_ends_sessions(ann: Visitor, house: House) -> None:
    """Also of the own token: the next page is the sign-in."""
    other = visitor(house, "editor")
    rows = ann.api.get("/tokens").json["tokens"]
    ids = {row["id"] for row in rows if row["role"] == "editor"}
    (theirs,) = ids
    assert "editor" in ann.get(f"/ui/tokens/{theirs}/revoke").page.text
    assert other.get("/ui/workflows").status == 200
    assert ann.post(f"/ui/tokens/{theirs}/revoke").location == "/ui/tokens"
    assert other.get("/ui/workflows").status == 303
    assert ann.get(f"/ui/tokens/{theirs}/revoke").status == 404
    own = next(
        link.removesuffix("/revoke").rpartition("/")[2]
        for link in ann.get("/ui/tokens").page.links() if link.endswith("/revoke")
        and "signed in with" in ann.get(link).page.text
    )  # fmt: skip
    assert ann.post(f"/ui/tokens/{own}/revoke").status == 303
    assert ann.get("/ui/tokens").location is not None


# All of them


def test_actions_in_the_pages_are_in_the_audit_log(ann: Visitor, house: House, subscribed: str) -> None:
    """With the door that was used."""
    ann.post(f"{subscribed}/state", state="paused")
    with house.database.as_owner() as tx:
        entries = tx.tuples("select action, door from gitstore.audit_log where action like 'subscription.%%' "
                          "order by at", nothing=None)  # fmt: skip
    assert entries == [("subscription.created", "http"), ("subscription.changed", "page")]


# Archived projects


def test_the_pages_of_an_archived_project_say_that_it_is_read_only(ann: Visitor) -> None:
    """A form that writes is refused with the message of the API."""
    ann.api.create()
    assert "This project is archived" not in ann.get("/ui/workflows").page.text
    ann.api.patch("/projects/default", json={"archived": True})
    for path in ("/ui/workflows", "/ui/workflows/order-sync", "/ui/tokens"):
        assert "This project is archived: it can be read only." in ann.get(path).page.text
    refused = ann.post("/ui/workflows/order-sync/discard", etag="0" * 40)
    assert (refused.status, "is archived" in refused.page.text) == (409, True)
