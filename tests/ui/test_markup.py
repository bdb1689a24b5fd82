"""Hostile strings in every user-supplied text: pages contain only our own markup."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.ui.rendering import POLICY
from tests.service.api.conftest import yaml
from tests.ui.visitor import Page, Visitor

BLNS = Path(__file__).parents[3] / "shared" / "data" / "blns" / "data" / "blns.json"
OURS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'onmouseover='alert(1)",
    "</textarea><script>alert(1)//",
    "</title><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt;",
    "]]><x>",
    "<!--",
    "\u202egnp.exe",
    "</ol></main><main id=main>",
]
TAGS = frozenset(
    """html head meta title link script body a header div svg circle path nav form input button main p h1 h2
    h3 section span ul li label table thead tbody tr th td time del ins dl dt dd b q code i symbol defs marker
    clippath ellipse g rect use text ol footer select option details summary pre textarea caption colgroup col
    mark kbd fieldset legend noscript""".split()  # noqa: SIM905 - it reads better
)
BUTTONS = ("button", "button main", "button danger", "button danger main", "link")
SERVICE = Path(__file__).parents[2] / "service"
STYLES = [SERVICE / "static/gitstore.css", SERVICE / "frontend/src/editor.css"]
# Only hairlines of 1px are beside the scales.
OFF_SCALE = re.compile(
    r"(?:font-size|border-radius|padding[a-z-]*|margin[a-z-]*|[ {]gap): "
    r"[^;}]*?(?<![\w.-])-?(?!1px)[\d.]+(?:px|r?em)\b[^;}]*"
)
ONE = "/ui/workflows/naughty"
PATHS = ("", "/activity", "/edit", "/versions", "/versions/1", "/versions/draft", "/compare", "/discard",
         "/versions/1/revert", "/versions/1/current", "/versions/1/download", "/versions/draft/blame",
         "/versions?compare=1", "/settings", "/stop", "/archive", "/versions/1/withdraw",
         "/versions/1/take-back", "/versions/1/describe", "/environments/qa",
         "/environments/qa/remove")  # fmt: skip
OTHERS = ("workflows", "new-workflow", "activity", "sources", "new-source", "webhooks", "new-webhook",
          "releases", "new-release", "environments",
          "environment-rules", "promote", "members", "tokens", "projects",
          "settings", "schema", "nothing", "sign-in")  # fmt: skip


def strings() -> list[str]:
    """Return ours, and those of the big list with characters that are special in HTML."""
    listed = json.loads(BLNS.read_text()) if BLNS.exists() else []
    naughty = [each for each in listed if set(each) & set("<>\"'&`") and "\0" not in each and len(each) < 400]
    return [
        each for each in dict.fromkeys([*OURS, *naughty]) if each.encode("utf-8", "replace").decode() == each
    ]


def definition(naughty: list[str], more: str = "") -> dict[str, Any]:
    nodes = [
        {
            "id": f"{index} {each}",
            "type": ("webhook", "httpCall", each)[index % 3],
            "data": {"label": each + more, "config": {"url": each, "method": each, each or "x": each}},
        }
        for index, each in enumerate(naughty)
    ]
    edges = [
        {"source": a["id"], "target": b["id"], "sourceHandle": each}
        for a, b, each in zip(nodes, nodes[1:], naughty, strict=False)
    ]
    return {"name": naughty[0], "nodes": nodes, "edges": edges}


def check(page: Page) -> None:
    for element in page.elements:
        assert element.tag in TAGS, element
        assert not [name for name in element.attributes if name.startswith("on") or name == "style"], element
        assert not element.attributes.get("href", "").lower().startswith(("javascript:", "data:", "//")), (
            element
        )
        if element.tag == "script":
            assert element.text == ""
    assert page.unclosed == []
    assert len(page.all("main")) == len(page.all("body")) == len(page.all("h1")) == 1
    assert len([each for each in page.all("div") if each.attributes.get("class") == "head"]) == 1
    for button in page.all("button"):
        assert button.attributes.get("class") in BUTTONS or button.attributes.get("name") == "theme", button


@pytest.mark.parametrize("part", range(8))
def test_no_string_becomes_markup(ann: Visitor, part: int) -> None:
    naughty = strings()[part::8]
    text = "\n".join(naughty)[:9000]
    author = {"name": "Eve ' \" onload=x &lt;", "email": "'\"@x.y"}
    body = {"slug": "naughty", "description": text, "definition": definition(naughty), "author": author}
    assert ann.api.post("/workflows", json=body).status_code == 201
    revert = {"definition": {"nodes": [{"id": "a", "type": "webhook"}]}, "author": author, "message": text}
    assert ann.api.put("/workflows/naughty/versions/draft", json=revert, match="*").status_code == 200
    assert ann.api.post("/workflows/naughty/versions/publish", json={"message": text}).status_code == 201
    draft = {"definition": definition(naughty, "!"), "message": text, "author": author}
    assert ann.api.post("/workflows/naughty/versions", json=draft).status_code == 201
    ann.api.put("/environments", json={"environments": [{"name": "qa"}]})
    ann.api.put("/workflows/naughty/environments/qa", json={"version": 1, "message": text})
    described = {"title": naughty[0][:200], "notes": text}
    assert ann.api.patch("/workflows/naughty/versions/1", json=described).status_code == 200
    for path in PATHS:
        answer = ann.get(ONE + path)
        assert answer.status == 200, path
        if path.endswith("download"):
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert answer.headers["Content-Disposition"].startswith("attachment")
        else:
            policy = answer.headers["Content-Security-Policy"]
            assert re.sub(r" 'nonce-[\w-]{22}'", "", policy) == POLICY
            check(answer.page)
    assert ann.api.post("/workflows/naughty/versions/1/yank", json={"reason": text}).status_code == 200
    for path in ("", "/activity", "/versions", "/versions/1", "/versions/1/current", "/versions/1/take-back"):
        check(ann.get(ONE + path).page)
    form = ann.get(f"{ONE}/edit").page
    conflict = ann.post(f"{ONE}/edit", etag="0" * 40, base="1", definition=text, message=text)
    assert conflict.status == 412
    check(conflict.page)
    fields = {"etag": form.value("etag"), "base": form.value("base")}
    again = ann.post(f"{ONE}/edit", **fields, definition=text, message=text)
    check(again.page)


@pytest.mark.parametrize("part", range(4))
def test_no_url_becomes_markup(ann: Visitor, part: int) -> None:
    """Queries are shown in messages about them."""
    ann.api.create("naughty")
    for each in strings()[part::4]:
        for query in ({"q": each}, {"cursor": each}, {"notice": each}):
            check(
                Page(
                    ann.client.get(
                        "/ui/workflows", query_string=query, base_url="https://gitstore.example"
                    ).text
                )
            )
        for names in ({"from": each}, {"to": each}, {"compare": each}):
            answer = ann.client.get(f"{ONE}/compare", query_string=names, base_url="https://gitstore.example")
            assert answer.status_code < 500
            check(Page(answer.text))
        tried = ann.post("/ui/new-workflow", slug=each, name=each, description=each)
        check(tried.page)


def test_every_page_has_one_head_and_buttons_of_one_system(ann: Visitor) -> None:
    for path in OTHERS:
        check(ann.get(f"/ui/{path}").page)
    for file in (SERVICE / "templates").glob("*.html"):
        if file.name not in ("base.html", "macros.html"):
            assert re.search(r"m\.(page_)?head\(", file.read_text()), file.name
            assert "<h1" not in file.read_text(), file.name
    links = re.findall(r'<(?:a|summary)[^>]*class="([^"]*\bbutton\b[^"]*)"', "".join(sources()))
    assert set(links) <= set(BUTTONS)


def sources() -> Iterator[str]:
    for file in (SERVICE / "templates").glob("*.html"):
        yield file.read_text()


@pytest.mark.parametrize("char", ["\u202e", "\u2066", "\u200f", "\u061c"])
def test_characters_that_reorder_text_are_shown_as_escapes(ann: Visitor, char: str) -> None:
    """On every page; a form keeps them, so that saving it changes nothing."""
    text = f"a{char}b"
    raw = f"# {text}\n{yaml().decode()}"
    made = ann.api.post("/workflows", json={"slug": "a", "description": text, "definition": raw})
    assert made.status_code == 201, made.text
    assert ann.api.publish("a", message=text).status_code == 201
    escape = f"a\\u{ord(char):04x}b"
    for path in (
        "/ui/workflows",
        "/ui/workflows/a",
        "/ui/workflows/a/versions",
        "/ui/workflows/a/versions/1",
    ):
        answer = ann.get(path)
        assert answer.status == 200, path
        assert char not in answer.html, path
    assert escape in ann.get("/ui/workflows/a/versions/1").html
    ann.api.post("/workflows/a/versions", json={"from_version": 1})
    assert text in ann.get("/ui/workflows/a/edit").page.value("definition")


@pytest.mark.parametrize("style", STYLES, ids=lambda path: path.name)
def test_styles_use_the_scales_of_type_space_and_corners(style: Path) -> None:
    assert OFF_SCALE.findall(style.read_text()) == []
