"""/workflows/{id}/versions and /current: publish, history, reading, the current version."""

from __future__ import annotations

import codecs
import json
import stat
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from dulwich.objects import Blob, Tree

from gitstore.git.commits import new_commit
from gitstore.model import Actor, Limits, Person
from gitstore.names import VersionRef, tag
from gitstore.upstream.importer import Outcome, UpstreamImport
from gitstore.upstream.refs import Layout, RemoteRef
from service.projects import Projects
from tests.service.api.conftest import Client, House, definition, problem, yaml

WORKFLOW = "/workflows/order-sync"
VERSIONS = f"{WORKFLOW}/versions"
IMMUTABLE = "private, immutable, max-age=31536000"


@pytest.fixture
def three(owner: Client) -> Client:
    """order-sync with three versions, the third current, and no draft open."""
    owner.create()
    owner.publish()
    for number in (2, 3):
        assert owner.publish(url=f"https://{number}.example/").status_code == 201
    return owner


# Publishing


def test_publishing_twice_is_idempotent(owner: Client) -> None:
    """201 with Location, then 200 with the same version."""
    owner.create()
    first = owner.publish(message="Ship it")
    assert first.status_code == 201
    assert first.headers["Location"] == f"https://gitstore.example{VERSIONS}/1"
    assert first.json["version_number"] == 1
    assert first.json["state"] == "published"
    assert first.json["is_current"] is True
    assert first.json["message"] == "Ship it"
    assert first.json["published_by"].startswith("token:owner-")
    assert first.json["published_at"].endswith("Z")
    assert first.json["url"] == "https://gitstore.example/ui/workflows/order-sync/versions/1"
    second = owner.publish(message="Again")
    assert second.status_code == 200
    assert second.json == first.json
    assert second.headers["ETag"] == first.headers["ETag"]


def test_a_definition_with_problems_is_not_published(owner: Client) -> None:
    """422 with all of them."""
    broken = definition("")
    broken["nodes"][1]["data"]["config"]["method"] = ""
    broken["edges"].append({"id": "e", "source": "hook", "target": "nowhere"})
    owner.create(definition=broken)
    refused = problem(owner.publish(), 422, "definition_invalid")
    codes = {found["code"] for found in refused["problems"]}
    assert codes >= {"http_url_missing", "http_method_missing", "edge_target_unknown", "edge_id_duplicate"}
    assert {"code", "message", "severity", "pointer", "node", "line", "column"} == set(refused["problems"][0])
    problem(owner.get(f"{VERSIONS}/1"), 404, "version_not_found")


def test_publishing_honours_if_match(owner: Client) -> None:
    tag = owner.create().headers["ETag"]
    stale = owner.post(f"{VERSIONS}/publish", match=f'"{"0" * 40}"')
    assert problem(stale, 412, "stale_draft")["etag"] == tag
    assert owner.post(f"{VERSIONS}/publish", match=tag).status_code == 201
    assert owner.post(f"{VERSIONS}/publish", match=tag).status_code == 200


def test_publishing_can_leave_current_unchanged(owner: Client) -> None:
    owner.create()
    owner.publish()
    second = owner.publish(url="https://b.example/", activate=False)
    assert second.json["is_current"] is False
    assert owner.get(f"{VERSIONS}/current").json["version_number"] == 1
    assert owner.get(f"{VERSIONS}/latest").json["version_number"] == 2


def test_null_is_the_same_as_absent(owner: Client) -> None:
    owner.create()
    made = owner.post(f"{VERSIONS}/publish", json={"message": None, "activate": None, "author": None})
    assert made.status_code == 201
    assert made.json["is_current"] is True


def test_the_author_of_a_version_can_be_given(owner: Client) -> None:
    """The ledger has the authenticated principal."""
    owner.create()
    made = owner.publish(author={"name": "Ada", "email": "ada@example.com"})
    assert made.json["published_by"].startswith("token:owner-")


@pytest.mark.parametrize("body", [{"activate": "yes"}, {"activate": 1}, {"message": []}, {"version": 1}])
def test_an_invalid_publish_body_is_malformed(owner: Client, body: Any) -> None:
    owner.create()
    problem(owner.post(f"{VERSIONS}/publish", json=body), 400, "malformed")


# History


def test_the_history_lists_the_draft_then_the_newest_version(three: Client) -> None:
    """Without definitions."""
    three.post(VERSIONS, json={"definition": definition("https://4.example/")})
    rows = three.get(VERSIONS).json["versions"]
    assert [(row["version_number"], row["state"]) for row in rows] == [
        (4, "draft"), (3, "published"), (2, "published"), (1, "published"),
    ]  # fmt: skip
    assert all("definition" not in row for row in rows)
    assert [row["is_current"] for row in rows] == [False, True, False, False]


def test_the_history_is_filtered_by_state(three: Client) -> None:
    three.post(VERSIONS)
    drafts = three.get(f"{VERSIONS}?state=draft").json["versions"]
    published = three.get(f"{VERSIONS}?state=published").json["versions"]
    assert [row["version_number"] for row in drafts] == [4]
    assert [row["version_number"] for row in published] == [3, 2, 1]
    problem(three.get(f"{VERSIONS}?state=other"), 400, "malformed")


def test_the_history_continues_by_cursor_and_link(three: Client) -> None:
    """A version published in between does not shift the next page."""
    first = three.get(f"{VERSIONS}?limit=2&state=published")
    assert [row["version_number"] for row in first.json["versions"]] == [3, 2]
    three.publish(url="https://4.example/")
    target = urlsplit(first.headers["Link"].partition(">")[0][1:])
    assert "state=published" in target.query
    second = three.get(f"{target.path}?{target.query}")
    assert [row["version_number"] for row in second.json["versions"]] == [1]
    assert second.json["next_cursor"] is None
    assert "Link" not in second.headers


@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "cursor=MA",
        "cursor=LTE",
        "cursor=OTk5OTk5OTk5OTk5OTk5",
        "limit=0",
        "limit=1e3",
        "cursor=%ff",
    ],
)
def test_an_invalid_history_query_is_malformed(three: Client, query: str) -> None:
    problem(three.get(f"{VERSIONS}?{query}"), 400, "malformed")


# One version


@pytest.mark.parametrize("version", ["3", "v3", "current", "latest"])
def test_a_version_has_many_names(three: Client, version: str) -> None:
    """It comes with its definition as JSON."""
    found = three.get(f"{VERSIONS}/{version}")
    assert found.status_code == 200
    assert found.json["version_number"] == 3
    assert found.json["definition"] == definition("https://3.example/")
    assert found.headers["ETag"]


def test_the_draft_is_read_as_a_version(three: Client) -> None:
    made = three.post(VERSIONS, json={"definition": definition("https://4.example/")})
    found = three.get(f"{VERSIONS}/draft")
    assert found.json["state"] == "draft"
    assert found.headers["ETag"] == made.headers["ETag"]
    assert found.json["definition"] == definition("https://4.example/")
    problem(three.get(f"{VERSIONS}/4"), 404, "version_not_found")


def test_the_etag_of_a_version_changes_with_its_answer(three: Client) -> None:
    """v3 is current, then is not."""
    before = three.get(f"{VERSIONS}/3").headers["ETag"]
    three.put(f"{WORKFLOW}/current", json={"version": 1})
    assert three.get(f"{VERSIONS}/3").headers["ETag"] != before


@pytest.mark.parametrize(
    "version",
    ["0", "4", "v0", "v", "03", "v03", "-1", "99999999999999999999", "2147483648", "1.0", "V3", "head", "%00",
     "publish", "%ED%A0%80", "%ff", "3%20", "+3", "٣", "draft%0a"],
)  # fmt: skip
def test_an_invalid_version_is_not_found(three: Client, version: str) -> None:
    problem(three.get(f"{VERSIONS}/{version}"), 404, "version_not_found")
    problem(three.get(f"{VERSIONS}/{version}/definition"), 404, "version_not_found")


def test_without_versions_there_is_neither_current_nor_latest(owner: Client) -> None:
    owner.create()
    problem(owner.get(f"{VERSIONS}/current"), 404, "not_published")
    problem(owner.get(f"{VERSIONS}/latest"), 404, "version_not_found")
    problem(owner.get(f"{VERSIONS}/current/definition"), 404, "not_published")


# The definition


def test_the_definition_is_the_stored_bytes(owner: Client) -> None:
    """With the media type of the file; a number's never change."""
    owner.create()
    owner.put(f"{VERSIONS}/draft", data=yaml(), type="application/yaml", match="*")
    owner.publish()
    for version, caching in (("1", IMMUTABLE), ("v1", IMMUTABLE), ("current", "private, no-cache")):
        found = owner.get(f"{VERSIONS}/{version}/definition")
        assert found.data == yaml()
        assert found.content_type == "application/yaml"
        assert found.headers["Cache-Control"] == caching
        assert found.headers["Vary"] == "Accept"
        assert not found.headers["ETag"].startswith("W/")


def test_json_is_served_without_a_byte_order_mark(owner: Client) -> None:
    """RFC 8259, section 8.1; YAML may have one."""
    owner.create()
    plain = json.dumps(definition("https://1.example/")).encode()
    for kind, sent in (("json", "vnd.gitstore.definition+json"), ("yaml", "yaml")):
        body = codecs.BOM_UTF8 + plain
        owner.put(f"{VERSIONS}/draft", data=body, type=f"application/{sent}", match="*")
        found = owner.get(f"{VERSIONS}/draft/definition")
        assert found.content_type == f"application/{kind}"
        assert found.data == (plain if kind == "json" else body)


@pytest.mark.parametrize(
    ("accept", "as_json"),
    [
        (None, False),
        ("*/*", False),
        ("application/yaml", False),
        ("text/yaml, application/json;q=0.5", False),
        ("text/html", False),
        ("image/png;q=0.x, ,;;", False),
        ("application/json", True),
        ("application/json, text/plain, */*", True),
        ("application/json;q=1, application/yaml;q=0.9", True),
        ("application/*", False),
        ("application/json;q=0", False),
        ("\xff\xfe", False),
    ],
)
def test_the_definition_is_json_if_accept_prefers_it(
    owner: Client, accept: str | None, as_json: bool
) -> None:
    """Stored bytes for an Accept that matches neither."""
    owner.create()
    owner.put(f"{VERSIONS}/draft", data=yaml(), type="application/yaml", match="*")
    owner.publish()
    found = owner.get(f"{VERSIONS}/1/definition", headers={"Accept": accept} if accept else None)
    assert found.status_code == 200
    assert (found.content_type == "application/json") == as_json
    if as_json:
        assert json.loads(found.data)["name"] == "Order sync"
        assert found.headers["ETag"].endswith('-json"')
    else:
        assert found.data == yaml()


def test_a_definition_stored_as_json_is_its_bytes_either_way(owner: Client) -> None:
    body = json.dumps(definition(), indent=7).encode()
    owner.create()
    owner.put(f"{VERSIONS}/draft", json={"definition": body.decode()}, match="*")
    owner.publish()
    plain = owner.get(f"{VERSIONS}/1/definition")
    asked = owner.get(f"{VERSIONS}/1/definition", headers={"Accept": "application/json"})
    assert plain.data == asked.data == body
    assert plain.content_type == asked.content_type == "application/json"
    assert plain.headers["ETag"] == asked.headers["ETag"]


def test_a_definition_in_the_clients_cache_is_not_sent_again(three: Client) -> None:
    """304 without a body, by weak comparison, with lists and the star."""
    path = f"{VERSIONS}/3/definition"
    tag = three.get(path).headers["ETag"]
    for given in (tag, f"W/{tag}", "*", f'"x", {tag}', tag.strip('"')):
        found = three.get(path, headers={"If-None-Match": given})
        assert found.status_code == 304, given
        assert found.data == b""
        assert found.headers["ETag"] == tag
        assert found.headers["Cache-Control"] == IMMUTABLE
    for given in ('"x"', "W/", '"', f"{tag}x", ",", ""):
        assert three.get(path, headers={"If-None-Match": given}).status_code == 200, given
    as_json = {"If-None-Match": tag, "Accept": "application/json"}
    assert three.get(path, headers=as_json).status_code == 200


def test_a_version_in_the_clients_cache_is_not_sent_again(three: Client) -> None:
    """Until it becomes or ceases to be current; never for a draft, as its number may change."""
    path = f"{VERSIONS}/current"
    found = three.get(path)
    tag = found.headers["ETag"]
    assert ("ETag", tag) in list(found.headers)  # spelt as in RFC 9110
    same = three.get(path, headers={"If-None-Match": tag})
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", tag)
    assert three.get(f"{VERSIONS}/3", headers={"If-None-Match": tag}).status_code == 304
    assert three.delete(f"{WORKFLOW}/current").headers.get("Content-Type") is None
    assert three.get(f"{VERSIONS}/3", headers={"If-None-Match": tag}).status_code == 200
    draft = three.post(VERSIONS, json={"from_version": 1}).headers["ETag"]
    assert three.get(f"{VERSIONS}/draft", headers={"If-None-Match": draft}).status_code == 200


def test_two_versions_of_one_commit_have_different_etags(three: Client) -> None:
    """Else a reader of `latest` would take the second for the first."""
    tags = [three.get(f"{VERSIONS}/{which}").headers["ETag"] for which in (3, "latest")]
    assert tags[0] == tags[1]
    assert tags[0].endswith('-v3-current"')


def test_head_is_get_without_the_body(three: Client) -> None:
    for path in (WORKFLOW, VERSIONS, f"{VERSIONS}/3", f"{VERSIONS}/3/definition", "/workflows", "/livez"):
        got, headed = three.get(path), three("HEAD", path)
        assert headed.status_code == 200
        assert headed.data == b""
        assert headed.headers["Content-Length"] == str(len(got.data))
        assert headed.headers.get("ETag") == got.headers.get("ETag")


# Current


def test_current_is_rolled_back_held_and_cleared(three: Client) -> None:
    """While it is held, publishing does not move it."""
    back = three.put(f"{WORKFLOW}/current", json={"version": 1, "message": "3 is on fire", "hold": True})
    assert back.status_code == 200
    assert back.json["held"] is True
    assert back.json["current"]["version_number"] == 1
    assert three.publish(url="https://4.example/").json["is_current"] is False
    assert three.get(f"{VERSIONS}/current").json["version_number"] == 1
    released = three.put(f"{WORKFLOW}/current", json={"version": "latest"})
    assert (released.json["held"], released.json["current"]["version_number"]) == (False, 4)
    assert three.delete(f"{WORKFLOW}/current").status_code == 204
    problem(three.get(f"{VERSIONS}/current"), 404, "not_published")
    assert three.get(WORKFLOW).json["current"] is None
    assert three.delete(f"{WORKFLOW}/current").status_code == 204
    assert three.publish(url="https://5.example/").json["is_current"] is True


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"version": 9}, 404, "version_not_found"),
        ({"version": "v9"}, 404, "version_not_found"),
        ({"version": 2**40}, 404, "version_not_found"),
        ({"version": "x"}, 404, "version_not_found"),
        ({"version": "draft"}, 400, "malformed"),
        ({"version": None}, 400, "malformed"),
        ({"version": True}, 400, "malformed"),
        ({"version": []}, 400, "malformed"),
        ({"version": 1, "hold": "yes"}, 400, "malformed"),
        ({}, 400, "malformed"),
        ([], 400, "malformed"),
    ],
)
def test_only_a_published_version_can_be_current(three: Client, body: Any, status: int, code: str) -> None:
    response = three.put(f"{WORKFLOW}/current", data=json.dumps(body), type="application/json")
    problem(response, status, code)
    assert three.get(f"{VERSIONS}/current").json["version_number"] == 3


def test_without_versions_current_cannot_be_moved(owner: Client) -> None:
    owner.create()
    problem(owner.put(f"{WORKFLOW}/current", json={"version": "current"}), 404, "not_published")
    problem(owner.put(f"{WORKFLOW}/current", json={"version": "latest"}), 404, "version_not_found")


def test_every_action_is_in_the_audit_log(three: Client, house: House) -> None:
    """With the principal, the door, the address and the request id, which the ledger has as well."""
    response = three.put(f"{WORKFLOW}/current", json={"version": 1}, headers={"X-Request-Id": "night-shift"})
    assert response.status_code == 200
    with house.database.as_owner() as tx:
        query = (
            "select actor_name, door, action, remote from gitstore.audit_log where request_id = 'night-shift'"
        )
        assert tx.tuples(query) == [
            (response.json["current"]["published_by"].removeprefix("token:"), "http",
             "workflow.current.changed", "127.0.0.1"),
        ]  # fmt: skip
    with closing(Projects(house.config).reader(house.project)) as repository:
        newest = next(repository.ledger("order-sync"))
        assert isinstance(newest.actor, Actor)
        assert newest.actor.request == "night-shift"


def test_served_json_is_accepted(owner: Client) -> None:
    """Floats that are large or small, which the database writes with all their digits, included."""
    numbers = [1e16, 1e21, -1.5e300, 9007199254740994.0, 1e-7, 5e-324, 0.1, 2**53 - 1]
    raw = yaml().decode() + "".join(f"x{n}: {number!r}\n" for n, number in enumerate(numbers))
    made = owner.post("/workflows", json={"slug": "numbers", "definition": raw})
    assert made.status_code == 201, made.text
    draft = "/workflows/numbers/versions/draft"
    served = owner.get(draft).json
    saved = owner.put(draft, json={"definition": served["definition"]}, match="*")
    assert saved.status_code == 200, saved.text
    assert owner.get(draft).json["definition"] == served["definition"]
    assert [float(served["definition"][f"x{n}"]) for n in range(len(numbers))] == numbers


# Imported versions


def imported(house: House, number: int, raw: bytes) -> None:
    """Import `raw` as a version of order-sync, as from a source."""
    blob, tree = Blob.from_string(raw), Tree()
    tree.add(b"workflow.yaml", stat.S_IFREG | 0o644, blob.id)
    ada = Person("Ada", "ada@example.com")
    commit = new_commit(
        tree=tree.id, parents=[], author=ada, committer=ada, when=datetime.now(UTC), message="Elsewhere"
    )
    with closing(Projects(house.config).writer(house.project, house.database)) as store:
        store.objects.write([blob, tree, commit])
        name = tag("order-sync", number)
        ref = RemoteRef(VersionRef("order-sync", number), commit.id, name, name)
        (outcome,) = UpstreamImport(store, Layout.REFS, ada, Limits()).apply([ref])
    assert isinstance(outcome, Outcome), outcome
    assert outcome.refusal is None


def test_an_imported_version_that_is_invalid_is_shown_and_blocked(three: Client, house: House) -> None:
    """With its problems; v3 stays current. It can be made current by hand."""
    imported(house, 5, b"nodes: []\n")
    read = three.get(f"{VERSIONS}/5").json
    assert (read["valid"], read["is_current"], read["definition"]) == (False, False, {"nodes": []})
    assert [found["code"] for found in read["problems"]] == ["no_nodes"]
    workflow = three.get(WORKFLOW).json
    assert workflow["current"]["version_number"] == 3
    assert workflow["blocked"]["version_number"] == 5
    assert workflow["blocked"]["reason"].startswith("1 problem: ")
    assert three.put(f"{WORKFLOW}/current", json={"version": 5}).json["blocked"] is None
    assert three.get(f"{VERSIONS}/3").json["problems"] == []


def test_an_imported_version_that_does_not_parse_is_served_as_bytes(three: Client, house: House) -> None:
    """It has no JSON and no digest."""
    raw = b"nodes: [\n"
    imported(house, 4, raw)
    assert three.get(f"{VERSIONS}/4/definition").data == raw
    refused = three.get(f"{VERSIONS}/4/definition", headers={"Accept": "application/json"})
    (found,) = problem(refused, 422, "definition_unparsable")["problems"]
    assert found["line"] == 2
    read = problem(three.get(f"{VERSIONS}/4"), 422, "definition_unparsable")
    assert (read["version"]["valid"], read["version"]["digest"]) == (False, None)
    assert [each["code"] for each in read["problems"]] == ["syntax"]
    assert read["version"] in three.get(VERSIONS).json["versions"]
    assert three.get(WORKFLOW).json["blocked"]["version_number"] == 4
