"""The visual editor in a real browser: canvas, forms and text."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.stories.instance import Caller
from tests.ui import browser
from tests.ui.browser import SCREENSHOTS, Tab, needs_chromium
from tests.ui.editor import TEXT, WIDE, create, drag, edit, editing, node

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture
def ann(chromium: Browser, owner: Caller) -> Iterator[Tab]:
    """Ann, who edits a workflow of three nodes."""
    with editing(chromium, owner) as opened:
        yield opened


def text(page: Page) -> str:
    """Return the text of the editor, which is short enough to be drawn as a whole."""
    return "\n".join(line.rstrip("\n") for line in page.locator(".cm-line").all_inner_texts())


def changed_lines(page: Page, before: str = TEXT) -> tuple[list[str], list[str]]:
    """Return the lines that are gone and that are new, when the canvas has finished."""
    expect(page.locator("#state")).to_have_text(re.compile("valid|problem"))
    old, new = before.splitlines(), text(page).splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_dragging_a_node_changes_only_the_lines_of_its_position(ann: Tab) -> None:
    drag(ann.page, node(ann.page, "Create shipment"), 0, 90)
    expect(ann.page.get_by_role("button", name="Undo")).to_be_enabled()
    gone, new = changed_lines(ann.page)
    assert set(gone) <= {"      x: 300   # beside the hook", "      y: 0"}
    assert len(new) == len(gone)
    assert all(re.match(r"      [xy]: -?\d+(   # beside the hook)?$", line) for line in new)
    ann.page.get_by_role("button", name="Undo").click()
    assert text(ann.page) == TEXT
    ann.page.get_by_role("button", name="Redo").click()
    assert text(ann.page) != TEXT


def test_nodes_are_added_connected_duplicated_and_deleted(ann: Tab) -> None:
    page = ann.page
    node(page, "Wait").click()
    page.get_by_text("Add node").click()
    page.get_by_role("button", name="End Ends the run").click()
    expect(node(page, "End")).to_be_visible()
    gone, new = changed_lines(page)
    assert gone == []
    assert any("source: wait" in line and "target: terminate-1" in line for line in new)
    page.get_by_role("button", name="Duplicate").click()
    expect(node(page, "End")).to_have_count(2)
    page.get_by_role("complementary", name="Selected node").get_by_role("button", name="Delete").click()
    expect(node(page, "End")).to_have_count(1)
    node(page, "Wait").click()
    page.keyboard.press("Delete")
    expect(node(page, "Wait")).to_have_count(0)
    gone, _ = changed_lines(page)
    assert "  - {id: e2, source: call-1, target: wait}" in gone
    for _ in range(4):
        page.get_by_role("button", name="Undo").click()
    assert text(page) == TEXT


def pull(page: Page, kind: str, x: float, y: float) -> None:
    """Drag a kind from the palette to a point of the window."""
    page.get_by_text("Add node").click()
    box = page.get_by_role("button", name=kind).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 30, box["y"] + 15)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 25, steps=3)
    expect(page.locator(".menu ul")).to_be_hidden()
    page.mouse.move(x, y, steps=3)
    page.mouse.up()
    expect(page.locator(".menu")).not_to_have_attribute("open", "")


def test_kinds_are_dragged_onto_the_canvas(ann: Tab) -> None:
    """Also to where the menu was; a kind dropped on a loop goes into it; nothing is connected."""
    page = ann.page
    page.get_by_text("Add node").click()
    menu = page.locator(".menu ul").bounding_box()
    assert menu is not None
    page.keyboard.press("Escape")
    x, y = menu["x"] + 200, menu["y"] + 90
    pull(page, "Delay Waits", x, y)
    box = node(page, "Delay").bounding_box()
    assert box is not None
    assert abs(box["x"] + box["width"] / 2 - x) < 12
    assert abs(box["y"] + box["height"] / 2 - y) < 12
    expect(page.get_by_role("complementary", name="Selected node")).to_contain_text("delay-1")
    expect(page.locator(".svelte-flow__edge")).to_have_count(2)
    gone, _ = changed_lines(page)
    assert gone == []
    page.get_by_role("button", name="Undo").click()
    assert text(page) == TEXT
    pull(page, "Loop Repeats the nodes", x, y)
    expect(page.get_by_role("complementary", name="Selected node")).to_contain_text("loop-1")
    page.wait_for_timeout(500)  # the canvas shows it beside its form
    loop = node(page, "Loop").bounding_box()
    assert loop is not None
    pull(page, "Delay Waits", loop["x"] + 130, loop["y"] + 150)
    expect(page.locator(".cm-line", has_text="parentContainer: loop-1")).to_have_count(1)
    assert re.search(r"childNodes: *(\[delay-1]|- delay-1)", " ".join(text(page).split()))


def test_two_nodes_are_connected_by_their_handles(ann: Tab) -> None:
    page = ann.page
    source = node(page, "Order paid").locator(".source").bounding_box()
    target = node(page, "Wait").locator(".target").bounding_box()
    assert source is not None
    assert target is not None
    drag(page, node(page, "Order paid").locator(".source"), target["x"] - source["x"], 0)
    expect(page.locator(".svelte-flow__edge")).to_have_count(3)
    assert changed_lines(page) == ([], ["  - {id: e-1, source: hook-1, target: wait}"])


def test_a_node_is_configured_in_its_form(ann: Tab) -> None:
    """Each setting changes its own line; comments and quoting stay."""
    page = ann.page
    node(page, "Create shipment").click()
    form = page.get_by_role("complementary", name="Selected node")
    form.get_by_label("URL").fill("https://two.example/{{id}}")
    form.get_by_label("Method").select_option("PUT")
    form.get_by_label("Header value").fill("Bearer {{other}}")
    form.get_by_label("Attempts").fill("5")
    form.get_by_label("Label").fill("Ship it")
    form.get_by_label("Label").press("Tab")
    expect(node(page, "Ship it")).to_be_visible()
    expect(page.locator("#state")).to_have_text("valid")
    gone, new = changed_lines(page)
    assert "        method: PUT  # keep" in new
    assert "        url: https://two.example/{{id}}" in new
    assert """        headers: '{"Authorization":"Bearer {{other}}"}'""" in new
    assert any("maxAttempts: 5" in line for line in new)
    assert len(gone) == 4
    form.get_by_label("URL").fill("nowhere")
    form.get_by_label("URL").press("Tab")
    expect(form.locator(".problem")).to_contain_text("url must be an http or https URL")
    expect(form.get_by_label("URL")).to_have_attribute("aria-invalid", "true")


def test_durations_and_cron_expressions_are_explained(ann: Tab) -> None:
    """A duration is also written with units; what is wrong is marked beside its line."""
    page = ann.page
    node(page, "Wait").click()
    form = page.get_by_role("complementary", name="Selected node")
    for given, written in (("1 h 30 min", "5400000"), ("soon", "soon"), ("1.5s", "1500"), ("20", "20")):
        form.get_by_label("Duration").fill(given)
        form.get_by_label("Duration").press("Tab")
        expect(page.locator(".cm-line", has_text=f"duration: {written}}}")).to_have_count(1)
        if given == "soon":
            mark = page.locator(".cm-lint-marker-error")
            expect(mark).to_have_count(1)
            assert mark.evaluate("element => getComputedStyle(element, '::before').content") == '"!"'
    page.get_by_text("Add node").click()
    page.get_by_role("button", name="Schedule Starts a run at set times").click()
    for cron, words in (
        ("0 6 * * 1-5", "= at 06:00, on weekdays"),
        ("*/5 * 1 1,7 *", "= every 5 minutes, on day 1, in January, July"),
        ("30 8-18/2 * * MON,6", "= at minute 30, hour 8-18/2, on MON, Saturday"),
        ("61 * * * *", "the minute is from 0 to 59"),
        ("@daily", "five fields: minute, hour, day, month, weekday"),
    ):
        form.get_by_label("Cron expression").fill(cron)
        form.get_by_label("Cron expression").press("Tab")
        expect(form.get_by_text(words, exact=True)).to_be_visible()


def test_selecting_on_one_side_selects_on_the_other(ann: Tab) -> None:
    page = ann.page
    node(page, "Wait").click()
    expect(page.locator(".cm-node").first).to_contain_text("id: wait")
    page.locator(".cm-line", has_text="label: Create shipment").click()
    expect(page.get_by_role("complementary", name="Selected node")).to_contain_text("call-1")


def test_text_that_does_not_parse_keeps_the_last_picture(ann: Tab) -> None:
    ann.type("nodes: [")
    expect(ann.page.get_by_text("The graph shows the last text")).to_be_visible()
    expect(ann.page.locator(".svelte-flow__node")).to_have_count(3)
    ann.type('{"nodes": [{"id": "a", "type": "webhook", "data": {"label": "Only"}}]}')
    expect(ann.page.locator(".svelte-flow__node")).to_have_count(1)


def test_a_definition_without_a_graph_opens_as_text(chromium: Browser, owner: Caller) -> None:
    """Also one with an error, whose graph can't be drawn."""
    create(owner, "on: push\njobs: {}\n")
    with browser.tab(chromium, owner, **WIDE) as tab:
        edit(tab)
        expect(tab.page.get_by_role("button", name="Text", exact=True)).to_have_attribute(
            "aria-pressed", "true"
        )
        assert text(tab.page) == "on: push\njobs: {}\n"


def test_json_is_edited_in_its_own_style(chromium: Browser, owner: Caller) -> None:
    before = """{
  "nodes": [
    {"id": "a", "type": "webhook", "position": {"x": 0, "y": 0}, "data": {"label": "First"}},
    {"id": "b", "type": "delay", "position": {"x": 300, "y": 0}, "data": {"label": "Second"}}
  ],
  "edges": [{"source": "a", "target": "b"}]
}
"""
    create(owner, before)
    with browser.tab(chromium, owner, **WIDE) as tab:
        edit(tab)
        node(tab.page, "Second").click()
        form = tab.page.get_by_role("complementary", name="Selected node")
        form.get_by_label("Label").fill("Wait")
        form.get_by_label("Label").press("Enter")
        expect(node(tab.page, "Wait")).to_be_visible()
        assert text(tab.page) == before.replace("Second", "Wait")


def test_obvious_problems_have_a_repair(ann: Tab) -> None:
    page = ann.page
    first = "{id: a, type: webhok, position: {x: 0, y: 0}, data: {label: A}}"
    second = "{id: b, type: delay, data: {config: {duration: 5}}}"
    ann.type(f"nodes:\n  - {first}\n  - {second}\nedges: [{{source: a, target: b}}]\n")
    for repair in ("Change to webhook", "Place it", "Add a label"):
        page.locator("#problems").get_by_role("button", name=repair).click()
        expect(page.locator("#problems").get_by_role("button", name=repair)).to_have_count(0)
    expect(page.locator("#problems")).to_contain_text("No problems")
    assert "type: webhook" in text(page)
    assert "label: Delay" in text(page)
    third = "{id: c, type: delay, position: {x: 700, y: 140}, data: {label: C, config: {duration: 5}}}"
    fourth = (
        "{id: d, type: schedule, position: {x: -400, y: 140}, data: {label: D, config: {cron: 0 6 * * *}}}"
    )
    ann.type(text(page).replace("edges:", f"  - {third}\n  - {fourth}\nedges:"))
    for repair in ("Connect after Delay", "Connect before Delay"):
        page.locator("#problems").get_by_role("button", name=repair).click()
        expect(page.locator("#problems").get_by_role("button", name=repair)).to_have_count(0)
    expect(page.locator("#problems")).to_contain_text("No problems")
    edges = text(page).partition("edges:")[2]
    assert "source: b, target: c" in edges
    assert "source: d, target: b" in edges


def test_the_keyboard_moves_connects_and_finds(ann: Tab) -> None:
    page = ann.page
    find(page, "shipment")
    form = page.get_by_role("complementary", name="Selected node")
    expect(form).to_contain_text("call-1")
    form.get_by_label("Connect to").select_option("hook-1")
    expect(page.locator("#problems")).to_contain_text("cycle")
    node(page, "Create shipment").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".cm-line", has_text=re.compile(r"^\s+y: [1-9]"))).to_have_count(1)
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(page.locator("#state")).to_have_text("valid")
    assert text(page) == TEXT


def test_arranging_moves_nodes_apart_and_changes_positions_only(ann: Tab) -> None:
    page = ann.page
    before = TEXT.replace("{x: 600, y: 0}", "{x: 310, y: 10}")
    ann.type(before)
    expect(page.locator("#state")).to_have_text("valid")
    page.get_by_role("button", name="Arrange").click()
    expect(page.locator(".cm-line", has_text="x: 600")).to_be_visible()
    _, new = changed_lines(page, before)
    assert new
    assert all(re.search(r"\b[xy]: -?\d+", line) for line in new)


def test_a_node_is_put_into_a_loop_and_taken_out(ann: Tab) -> None:
    page = ann.page
    node(page, "Wait").click()
    page.get_by_text("Add node").click()
    page.get_by_role("button", name="Loop Repeats the nodes").click()
    expect(page.get_by_role("complementary", name="Selected node")).to_contain_text("loop-1")
    node(page, "Wait").click()
    inside = page.get_by_role("complementary", name="Selected node").get_by_label("Inside")
    inside.select_option("loop-1")
    expect(page.locator(".cm-line", has_text="parentContainer: loop-1")).to_have_count(1)
    expect(page.locator("#problems")).to_contain_text("container")  # its edges join what is outside
    assert "childNodes: [wait]" in text(page).replace("\n          - wait", " [wait]")
    inside.select_option("")
    expect(page.locator(".cm-line", has_text="parentContainer")).to_have_count(0)
    expect(page.locator("#problems")).not_to_contain_text("container")


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_selected_nodes_are_grouped_into_a_loop(ann: Tab, by: str) -> None:
    """Which gets their edges from and to others. It is one change: one undo takes it back."""
    page = ann.page
    if by == "mouse":
        page.get_by_role("button", name="Group", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("hold Shift and drag")
        node(page, "Create shipment").click()
        expect(page.get_by_role("complementary", name="Selected node")).to_be_visible()  # moves the graph
        node(page, "Wait").click(modifiers=["Control"])
        page.get_by_role("button", name="Group 2 nodes").click()
    else:
        node(page, "Create shipment").press("Enter")
        node(page, "Wait").press("Control+Enter")
        expect(page.get_by_role("button", name="Group 2 nodes")).to_be_visible()
        page.keyboard.press("Control+g")
    expect(page.get_by_role("complementary", name="Selected node")).to_contain_text("loop-1")
    _, new = changed_lines(page)
    grouped = text(page)
    assert "{id: e1, source: hook-1, target: loop-1}" in grouped
    assert "{id: e2, source: call-1, target: wait}" in grouped
    assert grouped.index("id: loop-1") < grouped.index("id: call-1")
    assert "# beside the hook" in grouped
    assert len([line for line in new if "parentContainer: loop-1" in line]) == 2
    expect(page.locator("#problems")).not_to_contain_text("container")
    page.get_by_role("button", name="Undo").click()
    assert text(page) == TEXT


def test_a_loop_is_folded_and_unfolded(chromium: Browser, owner: Caller) -> None:
    """By a button that the keyboard reaches; the definition stays as it is. A found node is unfolded."""
    loop = (
        "type: loopContainer, data: {label: Each, isContainer: true, childNodes: [a, b], config: {items: x}}"
    )
    inner = "".join(
        f"  - {{id: {name}, type: delay, parentId: each, position: {{x: {x}, y: 80}}, "
        f"data: {{label: Inner {name}, parentContainer: each, config: {{duration: 5}}}}}}\n"
        for name, x in (("a", 40), ("b", 320))
    )
    before = (
        f"nodes:\n  - {{id: hook, type: webhook, position: {{x: -400, y: 0}}, data: {{label: Hook}}}}\n"
        f"  - {{id: each, position: {{x: 0, y: 0}}, {loop}}}\n{inner}"
        "edges:\n  - {source: hook, target: each}\n  - {source: a, target: b}\n"
        "  - {source: hook, target: b}\n"
    )
    create(owner, before)
    with browser.tab(chromium, owner, **WIDE) as tab:
        edit(tab)
        page = tab.page
        expect(page.locator(".svelte-flow__node")).to_have_count(4)
        fold = page.get_by_role("button", name="Fold Each", exact=True)
        fold.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".svelte-flow__node")).to_have_count(2)
        expect(node(page, "Each")).to_contain_text("2 nodes inside")
        expect(page.locator(".svelte-flow__edge")).to_have_count(2)  # that of the inner nodes is hidden
        unfold = page.get_by_role("button", name="Unfold Each")
        expect(unfold).to_have_attribute("aria-expanded", "false")
        expect(unfold).to_be_focused()
        assert tab.axe() == []
        assert text(page) == before
        find(page, "Inner b")
        expect(node(page, "Inner b")).to_be_in_viewport()
        fold.click()
        node(page, "Each").click()
        page.keyboard.press("Delete")
        expect(page.locator(".svelte-flow__node")).to_have_count(1)
        assert "parentId" not in text(page)
        page.get_by_role("button", name="Undo").click()
        assert text(page) == before


# Date.now is called for each step of CodeMirror's parser.
_COUNTS = """window.posted = 0; window.steps = 0;
const post = Worker.prototype.postMessage, now = Date.now;
Worker.prototype.postMessage = function (message) {
  posted += JSON.stringify(message).length; return post.call(this, message);
};
Date.now = () => { steps += 1; return now(); };"""


@pytest.fixture
def large(chromium: Browser, owner: Caller) -> Iterator[Tab]:
    """A workflow of 500 nodes and half a megabyte; the page counts its work."""
    rows = "".join(
        f"  - id: n{i}\n    type: delay\n    position: {{x: {i % 25 * 300}, y: {i // 25 * 120}}}\n"
        f"    data: {{label: Node {i}, config: {{duration: 5, description: {'x' * 800}}}}}\n"
        for i in range(500)
    )
    edges = "".join(f"  - {{id: e{i}, source: n{i}, target: n{i + 1}}}\n" for i in range(499))
    create(owner, f"nodes:\n{rows}edges:\n{edges}")
    with browser.tab(chromium, owner, **WIDE) as tab:
        tab.page.add_init_script(_COUNTS)
        edit(tab)
        yield tab


def test_five_hundred_nodes_open_readable(large: Tab) -> None:
    """At a size at which labels can be read, drawn only where visible; a node is found.

    A key is as cheap as in a small text: neither the worker gets, nor the colours parse, the whole text.
    """
    page = large.page
    box = page.get_by_text("Node 0", exact=True).first.bounding_box()
    assert box is not None
    assert box["height"] > 10
    assert page.locator(".svelte-flow__node").count() < 200
    find(page, "Node 420")
    expect(node(page, "Node 420")).to_be_in_viewport()
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "edit-500-nodes.png")

    page.locator(".cm-content").press("Control+Home")
    page.keyboard.type("# ")
    for _ in range(50):  # until the text is coloured to its end
        settle(large)
        page.evaluate("posted = 0, steps = 0")
        page.keyboard.type("x")
        steps = page.evaluate("steps")
        if steps < 1000:
            break
    settle(large)
    assert (steps < 1000, page.evaluate("posted < 1000")) == (True, True), steps


def test_five_hundred_nodes_are_drawn_without_details_from_afar(large: Tab) -> None:
    """A few elements a node, and one for all edges; both come back where labels can be read."""
    page = large.page
    page.locator("button.graph").click()
    find(page, "Node 262")
    expect(node(page, "Node 262")).to_be_in_viewport()
    page.locator(".svelte-flow__pane").hover()
    for _ in range(6):
        page.mouse.wheel(0, 400)
    nodes, edges = page.locator(".svelte-flow__node"), page.locator(".svelte-flow__edge")
    expect(nodes).to_have_count(500)
    expect(edges).to_have_count(0)
    path = page.get_by_role("img", name="499 edges").locator("path").get_attribute("d")
    assert (path or "").count("C") == 499
    expect(page.locator(".svelte-flow__node .words")).to_have_count(0)
    assert page.locator(".svelte-flow__nodes *").count() < 500 * 5
    assert large.axe() == []
    page.screenshot(path=SCREENSHOTS / "edit-500-nodes-afar.png")
    nodes.nth(262).click()
    expect(page.get_by_label("Selected node").get_by_role("heading")).to_have_text("Node 262")
    for _ in range(6):
        page.mouse.wheel(0, -400)
    expect(node(page, "Node 262").locator(".words")).to_be_visible()
    expect(page.get_by_label("From Node 261 to Node 262")).to_have_count(1)
    expect(page.get_by_role("img", name="499 edges")).to_have_count(0)


def settle(tab: Tab) -> None:
    """Wait until the text is parsed and checked."""
    expect(tab.page.locator("#state")).to_have_text(re.compile("valid|problem"))


def find(page: Page, label: str) -> None:
    page.get_by_label("Find a node").fill(label)
    page.get_by_label("Find a node").press("Enter")
