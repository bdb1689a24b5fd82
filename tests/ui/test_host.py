"""A host's front end, in a real browser: its pages call the API from another origin, and open the page."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import Page, expect

from tests.service.users import ISSUER, claims, jwk, signed_with
from tests.stories.instance import Caller, Service, definition
from tests.stories.test_heavy import large
from tests.ui import browser
from tests.ui.browser import needs_chromium

pytestmark = pytest.mark.slow
KEY = ec.generate_private_key(ec.SECP256R1())
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"

_EDITS = """async ([url, token]) => {
  const call = (method, path, body, headers = {}) => fetch(url + path, {
    method, body: body && JSON.stringify(body),
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json", ...headers } });
  const made = await call("POST", "/workflows", { slug: "order-sync" });
  const saved = await call("PUT", "/workflows/order-sync/versions/draft",
    { definition: await (await call("GET", "/workflows/order-sync/versions/draft/definition", null,
      { Accept: "application/json" })).json() }, { "If-Match": made.headers.get("ETag") });
  const missing = await call("GET", "/workflows/nothing");
  const page = await call("GET", "/workflows?limit=1");
  const framed = await fetch(url + "/ui/sign-in", { mode: "no-cors" }).catch(() => "refused");
  return [made.status, made.headers.get("Location"), saved.status, missing.status,
    (await missing.json()).code, page.status, framed];
}"""


class _Host(BaseHTTPRequestHandler):
    """An empty page, and the keys of the host's identity provider."""

    def do_GET(self) -> None:
        body, kind = "<!doctype html><title>Host</title>", "text/html"
        if self.path == "/keys":
            body, kind = json.dumps({"keys": [jwk(KEY.public_key(), "1")]}), "application/json"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body.encode())

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """The origin of the host's front end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Host)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, cluster: Path, host: str) -> Iterator[Service]:
    environment = {
        "GITSTORE_JWT_ISSUERS": json.dumps([{"issuer": ISSUER, "jwks_url": f"{host}/keys"}]),
        "GITSTORE_CORS_ORIGINS": host,
    }
    running = Service(tmp_path_factory.mktemp("host") / "data", environment, cluster).start()
    yield running
    assert running.stop() == 0


def user(service: Service, role: str = "publisher") -> Caller:
    """A new user, who has the role in the project `default`."""
    ada = uuid4()
    with service.owning() as tx:
        tx.run(
            "insert into gitstore.members (project_id, user_id, role) "
            "select id, %(user)s, %(role)s from gitstore.projects where slug = 'default'",
            user=ada,
            role=role,
        )
    return Caller(service.url, "default", signed_with(KEY, claims(ada), kid="1"))


def test_a_heavy_request_of_a_user_is_answered_by_a_process_that_has_no_keys(service: Service) -> None:
    ada = user(service)
    assert ada.call("POST", "/workflows", {"slug": "heavy", "definition": definition("x")}).status == 201
    answer = ada.call("POST", "/workflows/heavy/validate", large())
    assert answer.status == 200, answer.raw
    stranger = Caller(ada.url, "default", f"{ada.token[:-4]}AAAA")
    assert stranger.call("POST", "/workflows/heavy/validate", large()).status == 401


@pytest.fixture
def page(host: str) -> Iterator[Page]:
    """A page of the host."""
    with browser.browser() as chromium:
        opened = chromium.new_page()
        opened.goto(host)
        yield opened


@needs_chromium
def test_a_page_of_the_host_edits_and_opens_the_page_for_its_user(service: Service, page: Page) -> None:
    """By the script in docs/operations.md."""
    ada = user(service)
    assert page.evaluate(_EDITS, [service.url, ada.token]) == [
        201, f"{service.url}/workflows/order-sync", 200, 404, "workflow_not_found", 200, "refused",
    ]  # fmt: skip
    script = re.search(r"```js\n(.*?)```", OPERATIONS.read_text(), re.DOTALL)
    assert script is not None
    code = script[1].replace("https://gitstore.example", service.url)
    with page.expect_navigation(url=f"{service.url}/ui/workflows/order-sync"):
        page.evaluate(f"async (jwt) => {{ {code} }}", ada.token)
    expect(page.locator("body")).to_contain_text("Ada Lovelace")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/ui/sign-in")
