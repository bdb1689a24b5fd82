"""/openapi.json is valid, complete and agrees with the answers; /docs shows it offline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, cast
from uuid import uuid4

import jsonschema_rs
import pytest
import schemathesis
from flask_openapi3.openapi import OpenAPI
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import DataObject, booleans, data, sampled_from
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
)

from service.api.openapi import document as made
from service.app import create_app
from service.config import Config
from service.projects import Projects
from service.run.bootstrap import create_project
from tests.conftest import examples
from tests.service.api.conftest import Client, House, definition, opened


def _made_without_a_database() -> dict[str, Any]:
    config = Config.from_env({"DATABASE_URL": "host=/nonexistent", "GITSTORE_DATA": "/nonexistent"})
    return made(cast(OpenAPI, create_app(config)))


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, found) for path, item in document["paths"].items() for method, found in item.items()
    ]


@pytest.fixture
def document(owner: Client) -> dict[str, Any]:
    response = owner.get("/openapi.json")
    assert response.content_type == "application/json"
    found: dict[str, Any] = response.json
    return found


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    """By the schema of OpenAPI 3.1; every reference resolves."""
    assert document["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(document).validate()
    names = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert names <= set(document["components"]["schemas"])
    with pytest.raises(Exception, match="Failed validating"):
        schemathesis.openapi.from_dict({**document, "paths": {"/x": {"get": 5}}}).validate()


def test_every_default_fits_its_schema(document: dict[str, Any]) -> None:
    """Client generators refuse a document otherwise."""
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        for field, of in schema.get("properties", {}).items():
            if "default" in of:
                whole = {**of, "components": {"schemas": schemas}}
                assert jsonschema_rs.is_valid(whole, of["default"]), f"{name}.{field}: {of}"


def test_every_route_is_in_the_document_and_requires_a_token(house: House, document: dict[str, Any]) -> None:
    """Except those of git, the document itself, pages, custom elements and webhooks."""
    apart = ("static", "embedding", "docs", "git", "ui", "hooks")
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


def test_every_error_is_declared_as_a_problem(document: dict[str, Any]) -> None:
    for path, method, operation in _operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (method, path, status)


def test_the_rule_for_envelopes_is_documented(document: dict[str, Any]) -> None:
    body = document["paths"]["/workflows/{id}/versions"]["post"]["requestBody"]
    assert "envelope" in body["description"]
    assert set(body["content"]) == {
        "application/json",
        "application/yaml",
        "application/vnd.gitstore.definition+json",
        "application/vnd.gitstore.draft+json",
    }


def test_a_second_application_has_the_same_document(house: House, document: Any) -> None:
    """Blueprints are shared: registering them again adds and loses nothing."""
    from service.api.openapi import document as made
    from service.app import create_app

    again = create_app(house.config, database=house.database)
    assert made(cast(OpenAPI, again)) == document


# The answers agree with the document

# test_access.py tests that each endpoint requires a token. The document cannot describe all that is refused
# (a cursor of another list, a definition that does not parse), nor all that is accepted (`limit` twice).
NOT_HERE = [ignored_auth, positive_data_acceptance, negative_data_rejection]

CASES = [
    pytest.param(operation["operationId"], mode, id=f"{operation['operationId']}-{mode.value}")
    for _, _, operation in _operations(_made_without_a_database())
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.get("parameters")  # else there is nothing to get wrong
]


@pytest.fixture(scope="module")
def described(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[tuple[House, Any]]:
    """An application, and its document as read by schemathesis, which takes half a second of CPU."""
    with opened(postgres_admin_conninfo, migrated_template) as house:
        yield house, schemathesis.openapi.from_wsgi("/openapi.json", house.app)


@pytest.mark.parametrize(("operation", "mode"), CASES)
def test_answers_are_as_declared(described: tuple[House, Any], operation: str, mode: GenerationMode) -> None:
    """Valid and invalid requests get declared statuses, media types and bodies; never a 5xx."""
    house, api = described
    slug = f"p-{uuid4().hex[:12]}"
    with house.database.as_owner() as tx:
        project = create_project(tx, Projects(house.config), uuid4(), slug, slug)
    owner = house.client("owner", project)
    owner.create("a")
    owner.publish("a")
    owner.publish("a", url="https://2.example/")
    owner.post("/workflows/a/versions", json={"definition": definition("https://3.example/")})

    @settings(examples(25), suppress_health_check=list(HealthCheck), derandomize=True)
    @given(data())
    def check(drawn: DataObject) -> None:
        case: Any = drawn.draw(api.find_operation_by_id(operation).as_strategy(generation_mode=mode))
        if "id" in case.path_parameters and drawn.draw(booleans()):
            case.path_parameters["id"] = "a"
            case.path_parameters["version"] = drawn.draw(
                sampled_from(["1", "v2", "draft", "current", "latest"])
            )
        headers = {**(case.headers or {}), "Authorization": f"Bearer {owner.token}"}
        case.call_and_validate(headers=headers, excluded_checks=NOT_HERE)

    check()


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
    """It loads only files from this server, and its policy allows nothing else."""
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


def test_only_files_of_the_plugin_are_served(owner: Client) -> None:
    for path in (
        "/docs/",
        "/docs/..%2f__init__.py",
        "/docs/%2e%2e/__init__.py",
        "/docs/js",
        "/docs/%00",
        "/docs//etc/passwd",
    ):
        assert owner.get(path).status_code == 404, path
