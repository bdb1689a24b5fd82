"""/openapi.json says what there is, validly, and what it says is what happens. /docs shows it offline."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.core.errors import InvalidSchema
from schemathesis.specs.openapi.checks import ignored_auth

from tests.service.api.conftest import Client, House, definition

QUIET = list(HealthCheck)


@pytest.fixture
def document(owner: Client) -> dict[str, Any]:
    response = owner.get("/openapi.json")
    assert response.content_type == "application/json"
    found: dict[str, Any] = response.json
    return found


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    """By the schema of OpenAPI 3.1 itself; and every reference leads somewhere."""
    assert document["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(document).validate()
    names = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert names <= set(document["components"]["schemas"])
    with pytest.raises(InvalidSchema):
        schemathesis.openapi.from_dict({**document, "paths": {"/x": {"get": 5}}}).validate()


def test_every_route_is_in_the_document_and_needs_a_token(house: House, document: dict[str, Any]) -> None:
    """Those of git, of the document itself and of pages are not."""
    apart = ("static", "docs", "git", "ui", "hooks")
    for rule in house.app.url_map.iter_rules():
        if rule.endpoint.partition(".")[0] in apart:
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            operation = document["paths"][path][method.lower()]
            open_to_all = path in ("/livez", "/readyz", "/metrics")
            assert operation.get("security") == (None if open_to_all else [{"token": []}]), path
            assert operation["summary"].endswith(".")
            assert "parameters" in operation or "{" not in path


def test_every_refusal_is_declared_as_a_problem(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], (method, path, status)


def test_the_rule_for_bodies_of_drafts_is_written_down(document: dict[str, Any]) -> None:
    body = document["paths"]["/workflows/{id}/versions"]["post"]["requestBody"]
    assert "envelope" in body["description"]
    assert set(body["content"]) == {"application/json", "application/yaml"}


def test_the_document_is_the_same_for_every_application_of_the_process(house: House, document: Any) -> None:
    """Blueprints are modules' own and shared: registering them again adds and loses nothing."""
    from service.api.openapi import document as made
    from service.app import create_app

    again = create_app(house.config, database=house.database)
    assert made(again) == document  # type: ignore[arg-type]


# What it says is what happens


@pytest.fixture
def api(house: House) -> Any:
    """The schema, on a project with a workflow `a` that has versions and an open draft."""
    owner = house.client("owner")
    owner.create("a")
    owner.publish("a")
    owner.publish("a", url="https://2.example/")
    owner.post("/workflows/a/versions", json={"definition": definition("https://3.example/")})
    return schemathesis.openapi.from_wsgi("/openapi.json", house.app)


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=QUIET, derandomize=True)
def test_answers_are_as_declared(case: schemathesis.Case, house: House, owner: Client) -> None:
    """Whatever fits or does not fit the document: declared statuses, media types, bodies; never a 5xx."""
    if case.method == "DELETE" and "tokens" in case.path:
        case.path_parameters["id"] = "f006bb46-fe48-4d75-9eed-9f211fa75bee"  # not the one in use
    headers = {**(case.headers or {}), "Authorization": f"Bearer {owner.token}"}
    # ignored_auth sends other tokens than ours: test_access.py does that for every endpoint.
    case.call_and_validate(headers=headers, excluded_checks=[ignored_auth])


# The page


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.found += [value for key in ("href", "src") if (value := named.get(key))]
        self.inline += tag == "style" or (tag == "script" and "src" not in named)
        self.inline += any(name.startswith("on") or name == "style" for name in named)


def test_the_page_needs_no_network_and_no_inline_script(owner: Client) -> None:
    """Everything that it loads is here, and its policy lets nothing else in."""
    page = owner.get("/docs")
    assert page.content_type == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "http" not in policy
    links = _Links()
    links.feed(page.text)
    assert links.inline == 0
    assert len(links.found) == 5
    for link in links.found:
        assert not link.startswith(("http", "//", "/"))
        loaded = owner.get(f"/{link}")
        assert loaded.status_code == 200, link
        assert loaded.data


def test_the_pages_files_are_those_of_the_plugin_alone(owner: Client) -> None:
    for path in (
        "/docs/",
        "/docs/..%2f__init__.py",
        "/docs/%2e%2e/__init__.py",
        "/docs/js",
        "/docs/%00",
        "/docs//etc/passwd",
    ):
        assert owner.get(path).status_code == 404, path
