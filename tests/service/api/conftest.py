"""An application on a real database and real repositories, two tenants in it, and a client for each role."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from gitstore.model import Rules
from service import app as composition
from service.actions import projects
from service.app import create_app
from service.config import Config
from service.projects import Projects
from service.run.bootstrap import OPERATOR, create_project
from sync.catalog import Project
from sync.db import Database
from tests.conftest import database, temporary_folder
from tests.helpers import definition as definition
from tests.helpers import yaml as yaml

Response = Any  # werkzeug's TestResponse, whose `json` would have to be checked for None each time


@dataclass
class Client:
    """Requests with a token. `json` is sent as JSON, `data` with the content type `type`."""

    app: Flask
    token: str
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: bytes | str | None = None,
        type: str | None = None,
        match: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        sent |= {**self.headers, **(headers or {})}
        if match is not None:
            sent["If-Match"] = match
        options: dict[str, Any] = {"json": json} if json is not None else {}
        if data is not None:
            options = {"data": data}
        if type is not None:
            options["content_type"] = type
        # Buffered, so that the answer is closed, and its log line written.
        return self.app.test_client().open(path, method=method, headers=sent, buffered=True, **options)

    def get(self, path: str, **options: Any) -> Response:
        return self("GET", path, **options)

    def post(self, path: str, **options: Any) -> Response:
        return self("POST", path, **options)

    def put(self, path: str, **options: Any) -> Response:
        return self("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Response:
        return self("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Response:
        return self("DELETE", path, **options)

    def create(self, slug: str = "order-sync", **body: Any) -> Response:
        """Create a workflow; unless `body` changes it, its draft has no problems."""
        made = self.post("/workflows", json={"slug": slug, "definition": definition(), **body})
        assert made.status_code == 201, made.text
        return made

    def publish(self, slug: str = "order-sync", url: str | None = None, **body: Any) -> Response:
        """Publish the draft as it is, or one with `url`."""
        if url is not None:
            draft = f"/workflows/{slug}/versions/draft"
            content = {"definition": definition(url)}
            saved = self.put(draft, json=content, match="*")
            if saved.status_code == 404:
                saved = self.post(f"/workflows/{slug}/versions", json=content)
            assert saved.status_code in (200, 201), saved.text
        return self.post(f"/workflows/{slug}/versions/publish", json=body)


@dataclass
class House:
    """A running application with two projects, and clients for each role."""

    app: Flask
    config: Config
    database: Database
    project: Project
    other: Project

    def client(self, role: str = "owner", project: Project | None = None) -> Client:
        with self.database.as_owner() as tx:
            name = f"{role}-{uuid4().hex[:6]}"
            _, secret = projects.insert_token(tx, (project or self.project).id, OPERATOR, name, role)
        return Client(self.app, secret)

    def repository(self, project: Project | None = None) -> Path:
        return Projects(self.config).path((project or self.project).id)


@contextmanager
def opened(admin_conninfo: str, template: str, **settings: str) -> Iterator[House]:
    """An application with two projects, `other` with the rules `any`, for as long as the block."""
    with database(admin_conninfo, template) as conninfo, temporary_folder() as folder:
        environ = {"GITSTORE_DATA": str(folder / "data"), "DATABASE_URL": conninfo}
        config = Config.from_env({**environ, "GITSTORE_PUBLIC_URL": "https://gitstore.example", **settings})
        with closing(Database(conninfo, lock_seconds=5)) as connected:
            with connected.as_owner() as tx:
                projects = Projects(config)
                project = create_project(tx, projects, uuid4(), "default", "Default")
                other = create_project(tx, projects, uuid4(), "other", "Other", Rules.ANY)
            yield House(create_app(config, database=connected), config, connected, project, other)


@pytest.fixture
def settings() -> dict[str, str]:
    """Environment variables, for a test module to override."""
    return {}


@pytest.fixture
def house(
    postgres_admin_conninfo: str,
    migrated_template: str,
    settings: dict[str, str],
    unexpected: list[Exception],
) -> Iterator[House]:
    """Fails the test at its end if a request ended in `internal`."""
    with opened(postgres_admin_conninfo, migrated_template, **settings) as house:
        yield house
    assert unexpected == []


@pytest.fixture
def unexpected(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Unexpected errors, which callers see as `internal`."""
    seen: list[Exception] = []
    unpatched = composition._unexpected

    def collect(error: Exception) -> Any:
        seen.append(error)
        return unpatched(error)

    monkeypatch.setattr(composition, "_unexpected", collect)
    return seen


@pytest.fixture
def owner(house: House) -> Client:
    return house.client("owner")


def problem(response: Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error answer, checked."""
    assert response.status_code == status, (response.status_code, response.text)
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = json.loads(response.data)
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"] == f"urn:gitstore:problem:{code}"
    assert body["title"]
    assert body["detail"]
    return body
