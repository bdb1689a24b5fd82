"""The page of a project's JSON Schema, and the settings that put it in force."""

from __future__ import annotations

import json
from typing import Any

from gitstore.definition.schema import LARGEST
from tests.service.api.conftest import House
from tests.ui.visitor import HOST, Visitor, visitor

SCHEMA = "/ui/schema"
STRICT = json.dumps({"type": "object", "required": ["steps"]}, indent=2)


def send(ann: Visitor, text: str, do: str = "save", seen: str | None = None) -> Any:
    known = ann.get(SCHEMA).page.value("seen") if seen is None else seen
    return ann.post(SCHEMA, schema=text, do=do, seen=known)


def test_an_owner_sets_replaces_restores_and_removes_a_schema(ann: Visitor) -> None:
    """Each change is in the history, from which an earlier schema is put in force again."""
    page = ann.get(SCHEMA).page
    assert "no schema" in page.text
    assert '"$schema"' in page.value("schema")
    assert send(ann, STRICT).location == SCHEMA
    page = ann.get(SCHEMA).page
    assert page.value("schema") == STRICT
    assert "the rules meshhook" in page.text
    assert ann.post("/ui/settings", name="Flows", rules="schema").status == 303
    assert "in force" in ann.get(SCHEMA).page.text
    first = page.value("seen")
    assert send(ann, "{}").status == 303
    earlier = ann.get(f"{SCHEMA}?at={first}").page
    assert "an earlier schema" in earlier.text
    assert earlier.value("schema") == STRICT
    assert ann.post(SCHEMA, schema=STRICT, do="save", seen=earlier.value("seen")).status == 303
    seen = ann.get(f"{SCHEMA}/remove").page.value("seen")
    assert ann.post(f"{SCHEMA}/remove", seen=seen).location == SCHEMA
    text = ann.get(SCHEMA).page.text
    assert text.count("Set ") == 3
    assert "Removed" in text
    assert ann.post(f"{SCHEMA}/remove", seen=seen).status == 404


def test_what_is_wrong_with_a_schema_is_listed_with_its_line(ann: Visitor) -> None:
    """And what was typed stays in the form; nothing is saved."""
    for do in ("save", "check"):
        text = '{\n "type": 5,\n "properties": {"a": {"pattern": 1}}\n}'
        refused = send(ann, text, do)
        assert (refused.status, refused.page.value("schema")) == (422, text)
        assert "2 problems of the schema" in refused.page.text
        assert "line 2" in refused.page.text
    assert send(ann, "{").status == 422
    assert send(ann, " " * (LARGEST + 1)).status == 422
    assert "no schema" in ann.get(SCHEMA).page.text


def test_a_check_tells_which_drafts_would_fail(ann: Visitor) -> None:
    """Under any rules, without saving the schema."""
    for slug, name in (("a", "One"), ("b", "Two")):
        assert ann.api.create(slug, name=name).status_code == 201
    page = send(ann, STRICT, "check").page
    assert "2 drafts would fail" in page.text
    assert '"steps" is a required property' in page.text
    assert "/ui/workflows/a" in page.links()
    page = send(ann, '{"required": ["nodes"]}', "check").page
    assert "No draft would fail" in page.text
    assert "2 drafts checked" in page.text
    assert ann.get(SCHEMA).page.value("seen") == ""


def test_a_schema_that_someone_else_has_changed_is_not_replaced(ann: Visitor) -> None:
    assert send(ann, "{}").status == 303
    refused = send(ann, STRICT, seen="0" * 40)
    assert (refused.status, refused.page.value("schema")) == (412, STRICT)
    assert ann.get(SCHEMA).page.value("schema") == "{}"


def test_a_file_is_taken_instead_of_the_text(ann: Visitor) -> None:
    parts = {"csrf": ann.csrf.encode(), "do": b"save", "seen": b"", "schema": b"{}"}
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)
        for name, value in parts.items()
    )
    body += (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="s.json"\r\n\r\n{"a":\r\n1}\r\n--x--'
    )
    kind = "multipart/form-data; boundary=x"
    made = ann.client.post(SCHEMA, base_url=HOST, data=body, content_type=kind, buffered=True)
    assert made.status_code == 303
    stored = ann.api.get(f"/projects/{ann.api.get('/projects').json['projects'][0]['id']}/schema")
    assert stored.data == b'{"a":\r\n1}'


def test_members_read_the_schema_and_the_settings(ann: Visitor, house: House) -> None:
    """Without a form, as only owners change them."""
    assert send(ann, STRICT).status == 303
    viewer = visitor(house, "viewer")
    page = viewer.get(SCHEMA).page
    assert '"steps"' in page.text
    assert page.all("textarea") == []
    assert "MeshHook" in viewer.get("/ui/settings").page.text
    refused = ann.post("/ui/settings", name="", rules="any")
    assert refused.status == 400
    assert ann.post("/ui/settings", name="New", rules="any").status == 303
    assert ann.get("/ui/settings").page.value("name") == "New"
