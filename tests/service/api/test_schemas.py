"""/projects/{id}/schema: the JSON Schema of a project, in every place that shows what it finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from gitstore.definition.schema import LARGEST
from tests.service.api.conftest import House, opened
from tests.service.api.test_projects import User
from tests.service.users import ISSUER, SECRET, add_member

SCHEMA = {"type": "object", "required": ["steps"]}
YAML = {"Content-Type": "application/yaml"}


@pytest.fixture(scope="module")
def house(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    issuers = json.dumps([{"issuer": ISSUER, "secret": SECRET}])
    settings = {"GITSTORE_JWT_ISSUERS": issuers, "GITSTORE_USER_PROJECTS": "9"}
    with opened(postgres_admin_conninfo, migrated_template, **settings) as house:
        yield house


@pytest.fixture
def ada(house: House) -> User:
    return User(house)


def put(user: User, path: str, schema: Any = SCHEMA, **headers: str) -> Any:
    body = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    named = {"Content-Type": "application/schema+json"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    return user.put(path, data=body, headers=named)


def test_a_schema_is_set_read_replaced_and_removed(ada: User) -> None:
    """By its owner, who has seen the one before; it is served as it was sent."""
    path = f"/projects/{ada.make()}/schema"
    assert ada.get(path).status_code == 404
    assert ada.delete(path, headers={"If-Match": "*"}).status_code == 404
    assert put(ada, path, If_Match="*").status_code == 412
    made = put(ada, path, b'{ "type":\n"object" }', If_None_Match="*")
    assert made.status_code == 204, made.text
    read = ada.get(path)
    assert (read.data, read.mimetype) == (b'{ "type":\n"object" }', "application/schema+json")
    assert read.headers["ETag"] == made.headers["ETag"]
    assert ada.get(path, headers={"If-None-Match": read.headers["ETag"]}).status_code == 304
    assert put(ada, path, If_None_Match="*").json["code"] == "stale_schema"
    assert put(ada, path).json["code"] == "precondition_required"
    assert put(ada, path, If_Match=f'"{"0" * 40}"').status_code == 412
    second = put(ada, path, If_Match=read.headers["ETag"])
    assert second.status_code == 204
    assert ada.delete(path).status_code == 428
    assert ada.delete(path, headers={"If-Match": second.headers["ETag"]}).status_code == 204
    assert ada.get(path).json["code"] == "not_found"


def test_an_invalid_schema_is_refused_with_all_problems(ada: User) -> None:
    path = f"/projects/{ada.make()}/schema"
    refused = put(ada, path, {"type": 5, "properties": {"a": {"pattern": 1}}})
    assert (refused.status_code, refused.json["code"]) == (422, "schema_invalid")
    assert [problem["pointer"] for problem in refused.json["problems"]] == ["/type", "/properties/a/pattern"]
    assert put(ada, path, b"{").json["problems"][0]["code"] == "syntax"
    assert put(ada, path, b" " * (LARGEST + 1)).status_code == 413
    assert ada.put(path, data="type: object", headers=YAML).status_code == 415


def test_only_owners_change_the_schema(house: House, ada: User) -> None:
    """Members read it; to others the project does not exist."""
    project = ada.make()
    path = f"/projects/{project}/schema"
    put(ada, path)
    member, stranger = User(house), User(house)
    add_member(house.database, UUID(project), member.id, "publisher")
    assert member.get(path).json == SCHEMA
    assert put(member, path, If_Match="*").status_code == 403
    assert member.delete(path, headers={"If-Match": "*"}).status_code == 403
    assert stranger.get(path).status_code == put(stranger, path).status_code == 404


def test_a_change_of_the_schema_checks_drafts_again_and_leaves_versions(ada: User) -> None:
    """The same problem is told by every answer; without a schema, anything goes."""
    project = ada.make(rules="schema")
    path, query = f"/projects/{project}/schema", f"?project={project}"
    made = ada.post(f"/workflows{query}", json={"slug": "a", "definition": "free: 1\n"})
    assert (made.status_code, made.json["problems"]) == (201, [])
    draft = f"/workflows/a/versions/draft{query}"
    assert ada.get(draft).json["valid"] is True
    etag = put(ada, path).headers["ETag"]
    assert ada.get(draft).json["valid"] is False
    refused = ada.post(f"/workflows/a/versions/publish{query}")
    assert refused.json["code"] == "definition_invalid"
    [problem] = refused.json["problems"]
    assert problem == {
        "code": "schema_violation", "message": '"steps" is a required property', "pointer": "", "node": None,
        "line": 1, "column": 1, "severity": "error",
    }  # fmt: skip
    validated = ada.post(f"/workflows/a/validate{query}", data="free: 1\n", headers=YAML)
    assert validated.json["problems"] == [problem]
    saved = ada.put(draft, data="steps: []\n", headers={**YAML, "If-Match": "*"})
    assert saved.json["problems"] == []
    assert ada.post(f"/workflows/a/versions/publish{query}").status_code == 201
    edited = ada.post(f"/workflows/a/versions{query}", json={"definition": {"steps": {}}})
    assert edited.status_code == 201, edited.text
    put(ada, path, {"properties": {"steps": {"type": "array"}}}, If_Match=etag)
    assert ada.get(draft).json["valid"] is False
    assert ada.get(f"/workflows/a/versions/1{query}").json["valid"] is True
    assert ada.patch(f"/projects/{project}", json={"rules": "any"}).status_code == 200
    assert ada.get(draft).json["valid"] is True
