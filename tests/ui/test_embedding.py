"""Embedded elements in a page of another origin with a strict policy, for a user with a JWT."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from service import assets
from tests.service.users import ISSUER, claims, jwk, signed_with
from tests.stories.instance import Caller, Service
from tests.ui import browser
from tests.ui.browser import SCREENSHOTS, Tab, needs_chromium
from tests.ui.editor import TEXT, create, node

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "examples/sveltekit"
KEY = ec.generate_private_key(ec.SECP256R1())
PAGE = """<!doctype html><html lang="en"><title>Host</title><main><h1>Host</h1>
<gitstore-status></gitstore-status><gitstore-history></gitstore-history>
<gitstore-compare></gitstore-compare><gitstore-editor></gitstore-editor></main>"""
START = """async ([server, token]) => {
  window.events = [];
  for (const name of ["saved", "published", "reverted", "activated", "compare", "error"])
    addEventListener(`gitstore-${name}`, ({ detail }) => window.events.push([name, detail]));
  const { configure } = await import(`${server}/embed/gitstore.js`);
  configure({ getToken: () => token });
  for (const element of document.querySelectorAll("main > :not(h1)"))
    element.setAttribute("workflow", "order-sync");
}"""


class _Host(BaseHTTPRequestHandler):
    """The page of the host, the example once it is built, and a sign-in with its keys."""

    def do_GET(self) -> None:
        example: Path | None = getattr(self.server, "example", None)
        file = None if example is None else example / self.path.lstrip("/")
        if example is not None and (self.path == "/" or (file is not None and file.is_file())):
            shown = file if file is not None and file.is_file() else example / "index.html"
            self._answer(shown.read_bytes(), guess_type(shown.name)[0] or "text/plain")
            return
        body, kind = PAGE, "text/html"
        if self.path == "/keys":
            body, kind = json.dumps({"keys": [jwk(KEY.public_key(), "1")]}), "application/json"
        gitstore = self.server.gitstore if self.path != "/keys" else ""  # type: ignore[attr-defined]
        worker = " worker-src blob:;" if self.path == "/with-worker" else ""
        policy = f"default-src 'none'; script-src {gitstore}; connect-src {gitstore};{worker} base-uri 'none'"
        self._answer(body.encode(), kind, policy)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        user = UUID(body["password"])
        self._answer(json.dumps({"access_token": jwt_of(user)}).encode(), "application/json")

    def _answer(self, body: bytes, kind: str, policy: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if policy:
            self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None: ...


def jwt_of(user: UUID) -> str:
    return signed_with(KEY, claims(user), kid="1")


@pytest.fixture(scope="module")
def host() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Host)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def origin(host: ThreadingHTTPServer) -> str:
    return f"http://localhost:{host.server_port}"


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, cluster: Path, host: ThreadingHTTPServer
) -> Iterator[Service]:
    environment = {
        "GITSTORE_JWT_ISSUERS": json.dumps([{"issuer": ISSUER, "jwks_url": f"{origin(host)}/keys"}]),
        "GITSTORE_CORS_ORIGINS": origin(host),
    }
    running = Service(tmp_path_factory.mktemp("embedding") / "data", environment, cluster).start()
    host.gitstore = running.url  # type: ignore[attr-defined]
    yield running
    assert running.stop() == 0


@dataclass(frozen=True)
class Member(Caller):
    user: UUID


@pytest.fixture
def ada(service: Service) -> Member:
    """A publisher of a new project, in which order-sync has v1, and v2, which is current."""
    owner = service.project(f"p-{uuid4().hex[:12]}")
    create(owner, TEXT)
    for text in (None, TEXT.replace("shipments", "parcels")):
        body = {} if text is None else {"definition": text}
        published = owner.call("POST", "/workflows/order-sync/versions/publish", body)
        assert published.status == 201, published.raw
    user = uuid4()
    token = jwt_of(user)
    with service.owning() as tx:
        tx.run(
            "insert into gitstore.members (project_id, user_id, role) "
            "select id, %(user)s, 'publisher' from gitstore.projects where slug = %(slug)s",
            user=user,
            slug=owner.project,
        )
    return Member(service.url, owner.project, token, user)


@pytest.fixture
def tab(ada: Caller, host: ThreadingHTTPServer) -> Iterator[Tab]:
    """A page of the host that shows all elements; nothing in it was blocked by its policy."""
    with browser.browser() as chromium:
        opened = Tab(chromium.new_page(viewport={"width": 1400, "height": 1000}), origin(host))
        opened.page.set_default_timeout(20_000)
        open_host(opened, ada)
        yield opened
        assert opened.complaints == [], opened.complaints


def events(page: Page, name: str) -> list[Any]:
    return [detail for kind, detail in page.evaluate("window.events") if kind == name]


@needs_chromium
def test_a_page_of_a_host_shows_publishes_and_reverts(tab: Tab, ada: Caller) -> None:
    page = tab.page
    status, history = page.locator("gitstore-status"), page.locator("gitstore-history")
    expect(status.get_by_text("v2 current")).to_be_visible()
    expect(page.locator("gitstore-compare").get_by_text("url of call-1 changed")).to_be_visible()
    expect(page.locator("gitstore-compare").locator(".box.changed")).to_have_count(1)
    history.get_by_label("Compare v2").click()
    assert events(page, "compare") == [{"workflow": "order-sync", "from": "1", "to": "2"}]
    history.get_by_label("Revert to v1").click()
    expect(history.get_by_text("The draft of v3 has the content of v1.")).to_be_visible()
    assert events(page, "reverted") == [{"workflow": "order-sync", "from": 1, "draft": 3}]
    status.get_by_role("button", name="Publish…").click()
    status.get_by_label("Note").fill("As it was")
    status.get_by_role("button", name="Publish v3").click()
    expect(status.get_by_text("v3 current")).to_be_visible()
    expect(history.get_by_text("As it was")).to_be_visible()
    assert events(page, "published") == [{"workflow": "order-sync", "version": 3, "current": True}]
    assert ada.definition("order-sync", 3) == TEXT.encode()
    assert ada.token not in page.content()
    assert "token:" not in status.inner_text() + history.inner_text()
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "embedded.png", full_page=True)


@needs_chromium
def test_a_workflow_is_edited_in_a_page_of_a_host(tab: Tab, ada: Caller) -> None:
    """What another user saved in the meantime is merged."""
    editor = tab.page.locator("gitstore-editor")
    rename(tab, "Pause")
    theirs = {"definition": TEXT.replace("Order paid", "Order placed")}
    made = ada.call("PUT", "/workflows/order-sync/versions/draft", theirs, headers={"If-None-Match": "*"})
    assert made.status == 201, made.raw
    editor.get_by_role("button", name="Save draft").click()
    expect(editor.get_by_text("Their changes are merged with yours")).to_be_visible()
    editor.get_by_role("button", name="Save draft").click()
    expect(editor.get_by_text("Saved ·")).to_be_visible()
    saved = ada.definition("order-sync", "draft").decode()
    assert "Pause" in saved
    assert "Order placed" in saved
    assert "# beside the hook" in saved


def rename(tab: Tab, label: str) -> None:
    """Give the node "Wait" of the embedded editor another label."""
    editor = tab.page.locator("gitstore-editor")
    field = editor.get_by_role("complementary", name="Selected node").get_by_label("Label")
    for _ in range(3):  # a click is lost where the graph is fitted to its place just then
        node(editor, "Wait").click()
        with suppress(PlaywrightTimeoutError):
            field.wait_for(timeout=5_000)
            break
    field.fill(label)
    field.press("Enter")
    expect(node(editor, label)).to_be_visible()


def open_host(tab: Tab, ada: Caller, path: str = "/with-worker") -> None:
    tab.go(path)
    tab.page.evaluate(START, [ada.url, ada.token])


@needs_chromium
def test_a_conflict_in_a_page_of_a_host_is_decided_field_by_field(tab: Tab, ada: Caller) -> None:
    """By buttons that name both values; other changes merge."""
    editor = tab.page.locator("gitstore-editor")
    rename(tab, "Pause")
    theirs = {"definition": TEXT.replace("label: Wait", "label: Hold").replace("Order paid", "Order placed")}
    made = ada.call("PUT", "/workflows/order-sync/versions/draft", theirs, headers={"If-None-Match": "*"})
    assert made.status == 201, made.raw
    editor.get_by_role("button", name="Save draft").click()
    expect(editor.get_by_role("alert")).to_contain_text("Someone else changed the same fields.")
    conflicts = editor.get_by_role("list", name="Conflicts")
    expect(conflicts.get_by_role("button", name='Theirs: "Hold"')).to_be_visible()
    assert tab.axe() == []
    conflicts.get_by_role("button", name='Mine: "Pause"').click()
    expect(editor.get_by_text("Their changes are merged with yours")).to_be_visible()
    editor.get_by_role("button", name="Save draft").click()
    expect(editor.get_by_text("Saved ·")).to_be_visible()
    saved = ada.definition("order-sync", "draft").decode()
    assert ("label: Pause" in saved, "label: Order placed" in saved) == (True, True)


@needs_chromium
def test_unsaved_changes_are_kept_in_the_browser_of_a_host(tab: Tab, ada: Caller) -> None:
    """Until they are saved or discarded, or the page calls `forget`; also where the element was removed."""
    page, kept = tab.page, "Object.keys(localStorage).filter((key) => key.startsWith('gitstore:draft:'))"
    editor = page.locator("gitstore-editor")
    rename(tab, "Pause")
    editor.get_by_label("Summary of your changes").fill("Longer")
    page.evaluate("document.querySelector('gitstore-editor').remove()")
    (key,) = page.evaluate(kept)
    current = ada.get("/workflows/order-sync").json["current"]["commit"]
    assert key.startswith(f"gitstore:draft:{ada.url}:{ada.project}:order-sync:{current}:")
    open_host(tab, ada)
    expect(node(editor, "Wait")).to_be_visible()
    editor.get_by_role("button", name="Restore").click()
    expect(node(editor, "Pause")).to_be_visible()
    expect(editor.get_by_label("Summary of your changes")).to_have_value("Longer")
    editor.get_by_role("button", name="Save draft").click()
    expect(editor.get_by_text("Saved ·")).to_be_visible()
    assert page.evaluate(kept) == []
    editor.get_by_label("Summary of your changes").fill("More")
    page.evaluate("document.querySelector('gitstore-editor').remove()")
    assert len(page.evaluate(kept)) == 1
    page.evaluate("async (server) => (await import(`${server}/embed/gitstore.js`)).forget()", ada.url)
    assert page.evaluate(kept) == []
    saved = ada.get("/workflows/order-sync/versions/draft").json
    assert saved["message"] == "Longer"


@needs_chromium
def test_narrow_pages_and_policies_without_workers_have_the_editor(tab: Tab, ada: Caller) -> None:
    """At 360 px nothing is wider than the page; axe finds nothing in the shadow roots, in both themes."""
    page = tab.page
    page.set_viewport_size({"width": 360, "height": 800})
    open_host(tab, ada, "/")
    editor = page.locator("gitstore-editor")
    expect(editor.get_by_text("valid", exact=True)).to_be_visible()
    assert [each for each in tab.complaints if "worker" not in each] == []
    assert tab.complaints
    tab.complaints.clear()
    rename(tab, "Pause")
    for theme in ("light", "dark"):
        for element in page.locator("main > :not(h1)").all():
            element.evaluate("(element, theme) => element.setAttribute('theme', theme)", theme)
        page.emulate_media(color_scheme=theme)
        assert tab.axe() == []
        page.screenshot(path=SCREENSHOTS / f"embedded-360-{theme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    editor.get_by_role("button", name="Text", exact=True).click()
    expect(editor.locator(".cm-line", has_text="label: Pause")).to_be_visible()
    assert tab.axe() == []


def test_the_stable_url_names_files_that_are_cached_for_ever(
    service: Service, host: ThreadingHTTPServer
) -> None:
    """The script of status and history is small; only allowed origins may load it."""
    caller = Caller(service.url, "default", "")
    entry = caller.get("/embed/gitstore.js", Origin=origin(host))
    assert entry.headers["Access-Control-Allow-Origin"] == origin(host)
    assert "max-age=300" in entry.headers["Cache-Control"]
    assert caller.get("/embed/gitstore.js", **{"If-None-Match": entry.headers["ETag"]}).status == 304
    stranger = caller.get("/embed/gitstore.js", Origin="https://evil.example")
    assert "Access-Control-Allow-Origin" not in stranger.headers
    wanted = set(re.findall(r'"\./([\w.-]+\.js)"', entry.raw.decode()))
    size = 0
    loaded: set[str] = set()
    while wanted - loaded:
        name = (wanted - loaded).pop()
        script = caller.get(f"/embed/{name}")
        assert "immutable" in script.headers["Cache-Control"]
        loaded.add(name)
        size += len(gzip.compress(script.raw))
        wanted |= set(re.findall(r'from"\./([\w.-]+\.js)"', script.raw.decode()))
    assert len(loaded) > 1
    assert size < 60_000
    assert caller.get("/embed/nothing.js").status == 404
    assert caller.get("/embed/..%2Fmanifest.json").status == 404
    assert assets.built("embed/gitstore") is not None


@pytest.fixture(scope="module")
def example(service: Service, host: ThreadingHTTPServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of examples/sveltekit, built as its README says, but in a copy."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    if not (EXAMPLE / "node_modules/.package-lock.json").exists():
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"npm could not install the example's packages: {done.stderr[-300:]}")
    copy = tmp_path_factory.mktemp("example") / "sveltekit"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("node_modules", ".svelte-kit", "build"))
    (copy / "node_modules").symlink_to(EXAMPLE / "node_modules")
    public = {
        "PUBLIC_GITSTORE_URL": service.url,
        "PUBLIC_SUPABASE_URL": origin(host),
        "PUBLIC_SUPABASE_KEY": "anon",
    }
    built = subprocess.run(
        [npm, "run", "build"],
        cwd=copy,
        env={**os.environ, **public},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    host.example = copy / "build"  # type: ignore[attr-defined]
    return origin(host)


@needs_chromium
def test_a_user_of_the_example_publishes_and_reverts(example: str, ada: Member) -> None:
    with browser.browser() as chromium:
        tab = Tab(chromium.new_page(viewport={"width": 1400, "height": 1000}), example)
        page = tab.page
        tab.go("/")
        page.get_by_label("Email").fill("ada@example.com")
        page.get_by_label("Password").fill(str(ada.user))
        page.get_by_label("Project").fill(ada.project)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_label("Revert to v1").click()
        expect(page.locator("main > [role=status]")).to_contain_text("reverted")
        page.get_by_role("button", name="Publish…").click()
        page.get_by_role("button", name="Publish v3").click()
        expect(page.locator("gitstore-status").get_by_text("v3 current")).to_be_visible()
        page.get_by_label("Compare v2").click()
        expect(page.locator("gitstore-compare").get_by_text("url of call-1 changed")).to_be_visible()
        expect(node(page.locator("gitstore-editor"), "Create shipment")).to_be_visible()
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "example-sveltekit.png", full_page=True)
        assert tab.complaints == []
    assert ada.definition("order-sync", 3) == TEXT.encode()
