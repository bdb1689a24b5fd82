"""Every URL of the pages, for each role, without a session, and for another tenant."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from service.access import NEEDED, Role
from tests.service.api.conftest import House
from tests.ui.visitor import Visitor, visitor

ONE = "/ui/workflows/order-sync"
NO_ID = "6f1f7b5e-0000-4000-8000-000000000000"
URLS: list[tuple[str, str, Role, int]] = [
    ("GET", "/ui/workflows", Role.VIEWER, 200),
    ("GET", ONE, Role.VIEWER, 200),
    ("GET", f"{ONE}/versions", Role.VIEWER, 200),
    ("GET", f"{ONE}/activity", Role.VIEWER, 200),
    ("GET", "/ui/activity", Role.VIEWER, 200),
    ("GET", f"{ONE}/versions/1", Role.VIEWER, 200),
    ("GET", f"{ONE}/versions/draft", Role.VIEWER, 200),
    ("GET", f"{ONE}/versions/2/blame", Role.VIEWER, 200),
    ("GET", f"{ONE}/versions/2/download", Role.VIEWER, 200),
    ("GET", f"{ONE}/compare?from=1&to=2", Role.VIEWER, 200),
    ("POST", f"{ONE}/validate", Role.VIEWER, 200),
    ("GET", "/ui/environments", Role.VIEWER, 200),
    ("GET", "/ui/promote?from=current&to=qa&workflow=order-sync", Role.VIEWER, 200),
    ("POST", "/ui/promote", Role.EDITOR, 400),
    ("GET", f"{ONE}/environments/qa", Role.VIEWER, 200),
    ("POST", f"{ONE}/environments/qa", Role.EDITOR, 400),
    ("GET", f"{ONE}/environments/qa/remove", Role.EDITOR, 200),
    ("POST", f"{ONE}/environments/qa/remove", Role.EDITOR, 412),
    ("GET", f"{ONE}/versions/1/withdraw", Role.PUBLISHER, 200),
    ("POST", f"{ONE}/versions/1/withdraw", Role.PUBLISHER, 400),
    ("GET", f"{ONE}/versions/1/take-back", Role.PUBLISHER, 200),
    ("POST", f"{ONE}/versions/1/take-back", Role.PUBLISHER, 303),
    ("GET", f"{ONE}/versions/1/describe", Role.EDITOR, 200),
    ("POST", f"{ONE}/versions/1/describe", Role.EDITOR, 303),
    ("GET", "/ui/environment-rules", Role.OWNER, 200),
    ("POST", "/ui/environment-rules", Role.OWNER, 412),
    ("POST", f"{ONE}/cancel-schedule", Role.EDITOR, 404),
    ("GET", "/ui/releases", Role.VIEWER, 200),
    ("GET", "/ui/releases/first", Role.VIEWER, 200),
    ("GET", "/ui/releases/first/roll-back", Role.PUBLISHER, 200),
    ("POST", "/ui/releases/first/roll-back", Role.PUBLISHER, 303),
    ("GET", "/ui/new-release", Role.PUBLISHER, 200),
    ("POST", "/ui/new-release", Role.PUBLISHER, 400),
    ("GET", "/ui/new-workflow", Role.EDITOR, 200),
    ("POST", "/ui/new-workflow", Role.EDITOR, 422),
    ("GET", f"{ONE}/edit", Role.EDITOR, 200),
    ("POST", f"{ONE}/edit", Role.EDITOR, 412),
    ("POST", f"{ONE}/edit/patch", Role.EDITOR, 400),
    ("POST", f"{ONE}/merge", Role.EDITOR, 200),
    ("POST", f"{ONE}/unsaved", Role.EDITOR, 303),
    ("POST", f"{ONE}/keep", Role.EDITOR, 303),
    ("GET", f"{ONE}/autosave", Role.EDITOR, 200),
    ("GET", f"{ONE}/changes", Role.VIEWER, 200),
    ("GET", f"{ONE}/discard", Role.EDITOR, 200),
    ("POST", f"{ONE}/discard", Role.EDITOR, 412),
    ("POST", f"{ONE}/restore", Role.EDITOR, 400),
    ("GET", f"{ONE}/settings", Role.EDITOR, 200),
    ("POST", f"{ONE}/settings", Role.EDITOR, 303),
    ("POST", f"{ONE}/hold", Role.PUBLISHER, 412),
    ("POST", f"{ONE}/rename", Role.PUBLISHER, 422),
    ("GET", f"{ONE}/stop", Role.PUBLISHER, 200),
    ("GET", f"{ONE}/archive", Role.PUBLISHER, 200),
    ("POST", f"{ONE}/unarchive", Role.PUBLISHER, 303),
    ("GET", f"{ONE}/delete", Role.PUBLISHER, 200),
    ("POST", f"{ONE}/delete", Role.PUBLISHER, 400),
    ("GET", f"{ONE}/versions/1/revert", Role.EDITOR, 200),
    ("POST", f"{ONE}/versions/1/revert", Role.EDITOR, 412),
    ("POST", f"{ONE}/publish", Role.PUBLISHER, 412),
    ("GET", f"{ONE}/roll-back", Role.PUBLISHER, 200),
    ("GET", f"{ONE}/versions/1/current", Role.PUBLISHER, 200),
    ("POST", f"{ONE}/versions/1/current", Role.PUBLISHER, 412),
    ("GET", "/ui/sources", Role.OWNER, 200),
    ("POST", f"/ui/sources/{NO_ID}/sync", Role.OWNER, 404),
    ("POST", f"/ui/sources/{NO_ID}/divergences/{NO_ID}", Role.OWNER, 404),
    ("GET", "/ui/new-source", Role.OWNER, 200),
    ("POST", "/ui/new-source", Role.OWNER, 400),
    ("GET", f"/ui/sources/{NO_ID}", Role.OWNER, 404),
    ("POST", f"/ui/sources/{NO_ID}", Role.OWNER, 404),
    ("POST", f"/ui/sources/{NO_ID}/pause", Role.OWNER, 404),
    ("POST", f"/ui/sources/{NO_ID}/rotate", Role.OWNER, 404),
    ("GET", f"/ui/sources/{NO_ID}/remove", Role.OWNER, 404),
    ("POST", f"/ui/sources/{NO_ID}/remove", Role.OWNER, 404),
    ("GET", "/ui/webhooks", Role.OWNER, 200),
    ("GET", "/ui/new-webhook", Role.OWNER, 200),
    ("POST", "/ui/new-webhook", Role.OWNER, 400),
    ("GET", f"/ui/webhooks/{NO_ID}", Role.OWNER, 404),
    ("GET", f"/ui/webhooks/{NO_ID}/edit", Role.OWNER, 404),
    ("POST", f"/ui/webhooks/{NO_ID}/edit", Role.OWNER, 404),
    ("POST", f"/ui/webhooks/{NO_ID}/state", Role.OWNER, 404),
    ("POST", f"/ui/webhooks/{NO_ID}/test", Role.OWNER, 404),
    ("POST", f"/ui/webhooks/{NO_ID}/replay", Role.OWNER, 404),
    ("POST", f"/ui/webhooks/{NO_ID}/rotate", Role.OWNER, 404),
    ("GET", f"/ui/webhooks/{NO_ID}/delete", Role.OWNER, 404),
    ("POST", f"/ui/webhooks/{NO_ID}/delete", Role.OWNER, 404),
    ("GET", "/ui/projects", Role.VIEWER, 200),
    ("GET", "/ui/settings", Role.VIEWER, 200),
    ("POST", "/ui/settings", Role.OWNER, 400),
    ("GET", "/ui/schema", Role.VIEWER, 200),
    ("POST", "/ui/schema", Role.OWNER, 422),
    ("GET", "/ui/schema/remove", Role.OWNER, 404),
    ("POST", "/ui/schema/remove", Role.OWNER, 404),
    ("GET", "/ui/members", Role.OWNER, 200),
    ("POST", "/ui/members", Role.OWNER, 400),
    ("GET", f"/ui/members/{NO_ID}/remove", Role.OWNER, 404),
    ("POST", f"/ui/members/{NO_ID}/remove", Role.OWNER, 404),
    ("GET", "/ui/tokens", Role.OWNER, 200),
    ("POST", "/ui/tokens", Role.OWNER, 400),
    ("GET", f"/ui/tokens/{NO_ID}/revoke", Role.OWNER, 404),
    ("POST", f"/ui/tokens/{NO_ID}/revoke", Role.OWNER, 404),
    ("GET", f"/ui/deliveries/{NO_ID}", Role.OWNER, 404),
    ("POST", f"/ui/deliveries/{NO_ID}/again", Role.OWNER, 404),
]
FORM = {
    "state": "paused",
    "take": "ours",
    "etag": "0" * 40,
    "definition": "nodes: []",
    "seen": "7",
    "slug": "NO",
}


@pytest.fixture
def workflow(ann: Visitor) -> None:
    """order-sync with v1, v2, which runs, and an open draft; and the release `first`."""
    ann.api.create()
    ann.api.publish()
    ann.api.publish(url="https://two.example/")
    ann.api.post("/workflows/order-sync/versions", json={"from_version": 1})
    ann.api.put("/environments", json={"environments": [{"name": "qa", "role": "editor"}]})
    ann.api.post("/releases", json={"name": "first", "items": [{"workflow": "order-sync", "version": 2}]})


def call(person: Visitor, method: str, path: str) -> Any:
    return person.get(path) if method == "GET" else person.post(path, **FORM)


@pytest.mark.usefixtures("workflow")
def test_an_action_beyond_the_role_is_refused(house: House) -> None:
    """With 403 and the message of the API."""
    ranks = list(Role)
    for role in ranks:
        person = visitor(house, role.value)
        for method, path, needed, status in URLS:
            answer = call(person, method, path)
            if ranks.index(role) >= ranks.index(needed):
                assert answer.status == status, (role, method, path, answer.page.text)
            else:
                assert answer.status == 403, (role, method, path)
                assert f"requires the role {needed}" in answer.page.text


@pytest.mark.usefixtures("workflow")
def test_an_action_beyond_the_role_is_not_offered(house: House) -> None:
    """No link or form of any page leads to a refusal."""
    ranks = list(Role)
    for role in ranks:
        person = visitor(house, role.value)
        pages = [
            path for method, path, needed, status in URLS
            if method == "GET" and status == 200 and "download" not in path
            and ranks.index(role) >= ranks.index(needed)
        ]  # fmt: skip
        seen: set[tuple[str, str]] = set()
        for path in pages:
            page = person.get(path).page
            seen |= {("GET", link.partition("#")[0]) for link in page.links() if link.startswith("/ui/")}
            seen |= {(method.upper(), action) for method, action in page.forms()}
        # Archiving discards the draft that others of the forms are about.
        for method, path in sorted(seen - {("POST", "/ui/sign-out"), ("POST", f"{ONE}/archive")}):
            answer = call(person, method, path)
            assert answer.status not in (403, 404, 405, 500), (role, method, path, answer.page.text)
        if role is Role.VIEWER:
            assert {urlsplit(path).path for method, path in seen if method == "POST"} == {
                "/ui/sign-out",
                "/ui/theme",
            }


@pytest.mark.usefixtures("workflow")
def test_without_a_session_every_url_leads_to_the_sign_in(house: House) -> None:
    client = house.app.test_client()
    for method, path, _, _ in URLS:
        answer = client.open(path, method=method, base_url="https://gitstore.example", buffered=True)
        assert answer.status_code == (303 if method == "GET" else 401), path


@pytest.mark.usefixtures("workflow")
def test_another_tenant_gets_404(house: House) -> None:
    """With the same page as for a workflow that does not exist."""
    stranger = visitor(house, "owner", house.other)
    for method, path, _, _ in URLS:
        if path.startswith(ONE):
            paths = (path, path.replace("order-sync", "nothing"))
            theirs, none = (call(stranger, method, each) for each in paths)
            assert theirs.status == none.status == 404, (method, path)
            text = theirs.page.text.replace("order-sync", "nothing").split("Request")[0]
            assert text == none.page.text.split("Request")[0]
    assert "order-sync" not in stranger.get("/ui/workflows").html


def test_every_permission_is_covered() -> None:
    assert {needed for _, _, needed, _ in URLS} == set(NEEDED.values())
