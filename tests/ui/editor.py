"""The visual editor in a browser: a workflow to edit, and how to find and move its nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from tests.stories.instance import Caller
from tests.ui import browser
from tests.ui.browser import Tab

EDIT = "/ui/workflows/order-sync/edit"
WIDE: dict[str, Any] = {"viewport": {"width": 1500, "height": 950}}
TEXT = """\
name: Order sync  # of the warehouse
nodes:
  - id: hook-1
    type: webhook
    position: {x: 0, y: 0}
    data: {label: Order paid, config: {}}
  - id: call-1
    type: default
    position:
      x: 300   # beside the hook
      y: 0
    data:
      label: Create shipment
      type: httpCall
      config:
        url: https://warehouse.example/shipments
        method: POST  # keep
        headers: '{"Authorization": "Bearer {{token}}"}'
  - id: wait
    type: delay
    position: {x: 600, y: 0}
    data: {label: Wait, config: {duration: 90000}}
edges:
  - {id: e1, source: hook-1, target: call-1}
  - {id: e2, source: call-1, target: wait}
"""


@contextmanager
def editing(chromium: Browser, owner: Caller) -> Iterator[Tab]:
    """Open the editor with a workflow of three nodes."""
    create(owner, TEXT)
    with browser.tab(chromium, owner, **WIDE) as opened:
        edit(opened)
        yield opened


def create(owner: Caller, text: str) -> None:
    made = owner.call("POST", "/workflows", {"slug": "order-sync", "definition": text})
    assert made.status == 201, made.raw


def edit(tab: Tab) -> None:
    tab.go(EDIT)
    expect(tab.page.locator("#state")).to_have_text(re.compile("valid|problem"))


def node(page: Page | Locator, label: str) -> Locator:
    return page.locator(".svelte-flow__node", has_text=label)


def drag(page: Page, start: Locator, x: float, y: float) -> None:
    box = start.bounding_box()
    assert box is not None
    left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + x / 2, top + y / 2, steps=4)
    page.mouse.move(left + x, top + y, steps=4)
    page.mouse.up()
