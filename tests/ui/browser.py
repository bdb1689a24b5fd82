"""A real browser: the system's Chromium, driven by Playwright; and the checks of each page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from tests.stories.instance import Caller

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
SCREENSHOTS = Path(__file__).parents[2] / "screenshots"

AXE = Path(__file__).parents[2] / "service/frontend/node_modules/axe-core/axe.min.js"
"""Installed with the build of the page's scripts (npm ci)."""

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: install Debian's `chromium`, or name one by the variable CHROMIUM"
)

# Texts whose contrast is below WCAG 2.1 AA (1.4.3).
_FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const card = at.matches("g.box") ? at.querySelector(":scope > .card") : null;
      layers.push(rgba(card ? getComputedStyle(card).fill : getComputedStyle(at).backgroundColor));
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const flaws = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const style = getComputedStyle(element);
    if (!own || element.closest(".hidden, .skip, title, script, option, .mark-text, [hidden]")) continue;
    if (!element.getClientRects().length || style.visibility === "hidden") continue;
    const color = rgba(element.closest("svg") ? style.fill : style.color);
    if (!color[3]) continue; // the editor's own text is transparent over the highlighted text
    const under = behind(element);
    const [a, b] = [light(over(color, under)), light(under)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio >= (large ? 3 : 4.5)) continue;
    flaws.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)} ${ratio.toFixed(2)}`);
  }
  return flaws;
}"""

# Checks of names, roles, headings, landmarks and links, beside those of axe-core.
_INACCESSIBLE = """() => {
  const flaws = [];
  const visible = (e) => e.getClientRects().length && getComputedStyle(e).visibility !== "hidden";
  const text = (id) => document.getElementById(id)?.textContent;
  const name = (e) => (e.getAttribute("aria-label")
    || (e.getAttribute("aria-labelledby") || "").split(" ").map(text).join("")
    || [...(e.labels || [])].map((l) => l.textContent).join("")
    || (e.matches("input, select, textarea") ? "" : e.textContent) || e.getAttribute("title") || "").trim();
  for (const e of document.querySelectorAll("a[href], button, input, select, textarea, summary"))
    if (e.type !== "hidden" && visible(e) && !name(e)) flaws.push(`no name: ${e.outerHTML.slice(0, 120)}`);
  for (const e of document.querySelectorAll("section, nav, table, svg[role]"))
    if (!name(e) || (e.matches("nav, svg") && !e.hasAttribute("aria-label")))
      flaws.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  let level = 0;
  for (const e of document.querySelectorAll("h1, h2, h3, h4")) {
    if (!visible(e)) continue;
    const next = Number(e.tagName[1]);
    if (next > level + 1) flaws.push(`heading ${e.tagName} after level ${level}: ${e.textContent}`);
    level = next;
  }
  if (document.querySelectorAll("h1").length !== 1) flaws.push("not one h1");
  for (const mark of ["main", "header", "footer"])
    if (document.querySelectorAll(`body > ${mark}`).length !== 1) flaws.push(`not one ${mark}`);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  flaws.push(...ids.filter((id, index) => ids.indexOf(id) !== index).map((id) => `id twice: ${id}`));
  for (const attribute of ["aria-labelledby", "aria-describedby", "for"])
    for (const e of document.querySelectorAll(`[${attribute}]`))
      for (const id of e.getAttribute(attribute).split(" "))
        if (!document.getElementById(id)) flaws.push(`${attribute} of nothing: ${id}`);
  for (const e of document.querySelectorAll("[tabindex]")) if (e.tabIndex > 0) flaws.push("tabindex above 0");
  for (const e of document.querySelectorAll("th:not([scope])")) flaws.push(`no scope: ${e.textContent}`);
  if (!document.documentElement.lang || !document.title) flaws.push("no language or title");
  for (const e of document.querySelectorAll("a[href^='#']"))
    if (!/^#(L\\d+)?$/.test(e.hash) && !text(e.hash.slice(1))) flaws.push(`leads nowhere: ${e.hash}`);
  return flaws;
}"""


# What the content security policy blocked is a complaint: also a style that is merely missing then.
_VIOLATIONS = """addEventListener("securitypolicyviolation", (event) =>
  console.error("blocked by", event.violatedDirective, event.blockedURI, event.sourceFile, event.sample));"""


_PASTE = """(element, text) => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  element.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}"""


@dataclass
class Tab:
    """A signed-in tab, and the errors and warnings of its console."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.add_init_script(_VIOLATIONS)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"{self.page.url}: {error}"))

    def _console(self, message: object) -> None:
        kind, text = getattr(message, "type", ""), getattr(message, "text", "")
        # Chromium also logs the status of a deliberate refusal as an error.
        if kind in ("error", "warning") and "the server responded with a status of 4" not in text:
            self.complaints.append(f"{self.page.url}: {text}")

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)

    def sign_in(self, token: str) -> None:
        self.go("/")
        self.page.get_by_label("Access token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("heading", name="Workflows", exact=True).wait_for()

    def type(self, text: str) -> None:
        """Replace the definition, in CodeMirror or in the plain form."""
        if self.page.locator("script[type=module]").count():
            with suppress(PlaywrightTimeoutError):  # a tab without scripts never shows it
                self.page.locator(".cm-content").wait_for(timeout=10_000)
        field = self.page.get_by_label("Definition", exact=True)
        if field.evaluate("element => element.matches('textarea')"):
            field.fill(text)
            return
        field.press("Control+a")
        field.evaluate(_PASTE, text)  # `fill` would let Chromium write inline styles

    def axe(self) -> list[str]:
        """Return what axe-core finds on the present page; nothing where it is not installed."""
        if not AXE.exists():
            return []
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
        return [
            f"{self.page.url}: {each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]
        ]

    def problems(self) -> list[str]:
        """Return the problems of the present page: contrast, names and roles, console, width."""
        problems = [*self.page.evaluate(_FAINT), *self.page.evaluate(_INACCESSIBLE), *self.complaints]
        if self.page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            problems.append("the page is wider than the window")
        return [f"{self.page.url}: {each}" for each in problems]


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def tab(chromium: Browser, caller: Caller, **options: object) -> Iterator[Tab]:
    """Open a tab in a context of its own, signed in as `caller`."""
    context: BrowserContext = chromium.new_context(**options)  # type: ignore[arg-type] # as they come
    context.set_default_timeout(20_000)
    try:
        opened = Tab(context.new_page(), caller.url)
        opened.sign_in(caller.token)
        yield opened
        assert opened.complaints == [], opened.complaints
    finally:
        context.close()
