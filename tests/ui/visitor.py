"""A visitor of the pages without a browser: Flask's client with cookies, forms and parsed answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from typing import Any

from flask.testing import FlaskClient

from tests.service.api.conftest import Client, House

HOST = "https://gitstore.example"
BLOCKS = {"dt", "dd", "td", "th", "div", "p", "li", "button", "h1", "h2", "h3", "label", "span"}
VOID = {"meta", "link", "input", "img", "br", "hr", "col", "rect", "circle", "path", "use", "ellipse"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""


class Page(HTMLParser):
    """A parsed page: its elements with their attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.unclosed: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag == "li":
            self._end_item()
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def _end_item(self) -> None:
        """Close an item whose end tag was omitted (HTML, 13.1.2.4)."""
        if self._open and self._open[-1].tag == "li":
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in ("ol", "ul"):
            self._end_item()
        if not self._open or self._open[-1].tag != tag:
            self.unclosed.append(tag)
        if tag in BLOCKS:
            self.handle_data(" ")
        if any(element.tag == tag for element in self._open):
            while self._open.pop().tag != tag:
                pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def title(self) -> str:
        return self.all("h1")[0].text.strip()

    def all(self, tag: str, **attributes: str) -> list[Element]:
        return [
            element for element in self.elements
            if element.tag == tag and all(element.attributes.get(k) == v for k, v in attributes.items())
        ]  # fmt: skip

    @property
    def text(self) -> str:
        (main,) = self.all("main")
        return " ".join(main.text.split())

    def forms(self) -> Iterator[tuple[str, str]]:
        """(method, action) of each form."""
        for form in self.all("form"):
            yield form.attributes.get("method", "get"), form.attributes.get("action", "")

    def links(self) -> list[str]:
        return [link.attributes["href"] for link in self.all("a") if "href" in link.attributes]

    def value(self, name: str) -> str:
        """Return the value of a field; of a textarea, its text without the first line break."""
        for element in self.elements:
            if element.attributes.get("name") == name:
                if element.tag == "textarea":
                    return element.text.removeprefix("\n")
                return element.attributes.get("value", "")
        raise AssertionError(f"no field {name}")


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    html: str
    location: str | None

    @cached_property
    def page(self) -> Page:
        return Page(self.html)


@dataclass
class Visitor:
    """A browser with one cookie jar."""

    client: FlaskClient
    api: Client
    csrf: str = ""

    def get(self, path: str, **headers: str) -> Answer:
        return self._answer(self.client.get(path, base_url=HOST, headers=headers, buffered=True))

    def post(self, path: str, csrf: str | None = None, **fields: str | list[str]) -> Answer:
        """Send a form."""
        data = {"csrf": self.csrf if csrf is None else csrf, **fields}
        return self._answer(self.client.post(path, base_url=HOST, data=data, buffered=True))

    def sign_in(self, token: str | None = None, following: str = "") -> Answer:
        form = self.get("/ui/sign-in")
        answer = self.post(
            "/ui/sign-in", csrf=form.page.value("csrf"), token=token or self.api.token, next=following
        )
        if answer.status == 303:
            self.csrf = self.get("/ui/workflows").page.value("csrf")
        return answer

    def _answer(self, response: Any) -> Answer:
        return Answer(response.status_code, response.headers, response.text, response.headers.get("Location"))


def visitor(house: House, role: str = "owner", project: Any = None) -> Visitor:
    """Return a visitor signed in with a new token of that role."""
    api = house.client(role, project)
    signed_in = Visitor(house.app.test_client(), api)
    assert signed_in.sign_in().status == 303
    return signed_in


def secret_in(cookie: str) -> bool:
    return re.search(r"gst_|[0-9a-f]{64}", cookie) is not None
