"""/workflows/{id}/versions/draft: create, save, discard, revert; no save overwrites another unseen."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from dulwich.objects import ObjectID
from dulwich.refs import Ref
from dulwich.repo import Repo

from gitstore.drafts import Content
from gitstore.model import Person
from gitstore.store import Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from service.actions import drafts
from tests.service.api.conftest import Client, House, definition, problem, yaml

DRAFT = "/workflows/order-sync/versions/draft"
VERSIONS = "/workflows/order-sync/versions"


def raw(owner: Client, path: str = f"{DRAFT}/definition") -> bytes:
    response = owner.get(path)
    assert response.status_code == 200
    return bytes(response.data)


@pytest.fixture
def published(owner: Client) -> Client:
    """order-sync with v1 published and no draft open."""
    owner.create()
    assert owner.publish().status_code == 201
    return owner


# Creating


@pytest.mark.parametrize(
    "media_type",
    ["application/yaml", "text/yaml", "application/x-yaml", "application/yaml; charset=utf-8", "Text/YAML"],
)
def test_a_raw_yaml_body_is_stored_unchanged(published: Client, media_type: str) -> None:
    """Comments, blanks at line ends, a byte order mark."""
    body = b"\xef\xbb\xbf" + yaml() + b"# the end  \r\n"
    made = published.post(VERSIONS, data=body, type=media_type)
    assert made.status_code == 201
    assert made.headers["Location"] == f"https://gitstore.example{DRAFT}"
    assert made.headers["ETag"] == f'"{made.json["commit"]}"'
    assert made.json["version_number"] == 2
    assert raw(published) == body


def test_a_json_file_is_stored_unchanged(published: Client) -> None:
    """Under its own media type, whatever its keys."""
    body = (
        b'{ "nodes" :[{"id":"a","type":"webhook","data":{"label":"A"}}], "message": "mine",  "edges":[] }\n\n'
    )
    made = published.post(VERSIONS, data=body, type="application/vnd.gitstore.definition+json")
    assert made.status_code == 201
    stored = published.get(f"{DRAFT}/definition")
    assert stored.data == body
    assert stored.content_type == "application/json"


def test_text_in_an_envelope_is_stored_unchanged(published: Client) -> None:
    body = yaml().decode() + "# ünïcode \U0001f600\n"
    made = published.post(VERSIONS, json={"definition": body, "message": "Why not"})
    assert made.status_code == 201
    assert made.json["message"] == "Why not"
    assert raw(published) == body.encode()


def test_an_object_in_an_envelope_is_serialized(published: Client) -> None:
    """In the draft's own format; the editor's own fields are dropped."""
    value = definition("https://new.example/")
    value["nodes"][0]["selected"] = True
    made = published.post(VERSIONS, json={"definition": value})
    assert made.status_code == 201
    assert b"https://new.example/" in raw(published)
    assert b"selected" not in raw(published)


def test_an_empty_body_copies_the_current_version(published: Client) -> None:
    """No body, or an empty object."""
    made = published.post(VERSIONS)
    assert made.status_code == 201
    assert published.delete(DRAFT).status_code == 204
    assert published.post(VERSIONS, json={}).status_code == 201
    assert raw(published) == raw(published, f"{VERSIONS}/1/definition")


def test_a_draft_can_be_created_from_an_older_version(published: Client) -> None:
    published.publish(url="https://two.example/")
    for which in (1, "1", "v1"):
        made = published.post(VERSIONS, json={"from_version": which, "message": "Back"})
        assert made.status_code == 201
        assert raw(published) == raw(published, f"{VERSIONS}/v1/definition")
        published.delete(DRAFT)
    for which in ("current", "latest"):
        assert published.post(VERSIONS, json={"from_version": which}).status_code == 201
        assert raw(published) == raw(published, f"{VERSIONS}/2/definition")
        published.delete(DRAFT)


@pytest.mark.parametrize(
    ("which", "status", "code"),
    [
        (7, 404, "version_not_found"),
        (0, 404, "version_not_found"),
        (-1, 404, "version_not_found"),
        (2**31, 404, "version_not_found"),
        ("x", 404, "version_not_found"),
        ("draft", 400, "malformed"),
        (True, 400, "malformed"),
        (1.5, 400, "malformed"),
        ([1], 400, "malformed"),
        ({}, 400, "malformed"),
    ],
)
def test_a_draft_is_not_created_from_an_invalid_version(
    published: Client, which: Any, status: int, code: str
) -> None:
    problem(published.post(VERSIONS, json={"from_version": which}), status, code)
    problem(published.get(DRAFT), 404, "version_not_found")


def test_only_one_draft_can_be_open(owner: Client) -> None:
    """The error names its author."""
    made = owner.create(author={"name": "Ada", "email": "ada@example.com"})
    refused = problem(owner.post(VERSIONS, json={"definition": definition()}), 409, "draft_exists")
    assert refused["etag"] == made.headers["ETag"]
    assert refused["author"] == {"name": "Ada", "email": "ada@example.com"}
    assert refused["time"].endswith("Z")


def test_without_a_current_version_none_is_copied(published: Client) -> None:
    published.delete("/workflows/order-sync/current")
    problem(published.post(VERSIONS), 404, "not_published")


# Saving


def test_saving_requires_if_match(owner: Client) -> None:
    owner.create()
    refused = problem(owner.put(DRAFT, json={"definition": definition()}), 428, "precondition_required")
    assert "If-Match" in refused["detail"]
    problem(owner.put(DRAFT, json={"definition": definition()}, match=" "), 428, "precondition_required")


def test_a_save_changes_the_etag(owner: Client) -> None:
    """Each save answers with the tag for the next."""
    first = owner.create().headers["ETag"]
    second = owner.put(DRAFT, json={"definition": definition("https://b.example/")}, match=first)
    assert second.status_code == 200
    assert "Location" not in second.headers
    tag = second.headers["ETag"]
    assert tag != first
    assert owner.get(DRAFT).headers["ETag"] == tag == owner.get(f"{DRAFT}/definition").headers["ETag"]
    third = owner.put(DRAFT, data=yaml("https://c.example/"), type="application/yaml", match=tag)
    assert third.status_code == 200


def test_a_stale_save_is_refused_with_the_current_state(owner: Client) -> None:
    """Nothing is overwritten; the error has etag, author and time of the newer state."""
    first = owner.create().headers["ETag"]
    ada = {"name": "Ada", "email": "ada@example.com"}
    newer = owner.put(
        DRAFT, json={"definition": definition("https://b.example/"), "author": ada}, match=first
    )
    late = owner.put(DRAFT, json={"definition": definition("https://c.example/")}, match=first)
    refused = problem(late, 412, "stale_draft")
    assert refused["etag"] == newer.headers["ETag"]
    assert refused["author"] == ada
    assert refused["time"].endswith("Z")
    assert owner.get(DRAFT).headers["ETag"] == newer.headers["ETag"]


def test_if_match_accepts_a_star_a_list_and_bare_tags(owner: Client) -> None:
    tag = owner.create().headers["ETag"]
    for match in ("*", f'"{"0" * 40}", {{tag}}', "{tag}", f'W/"{"0" * 40}",{{tag}}'):
        current = owner.get(DRAFT).headers["ETag"]
        body = {"definition": definition(f"https://{abs(hash(match))}.example/")}
        saved = owner.put(DRAFT, json=body, match=match.format(tag=current))
        assert saved.status_code == 200, match
    bare = owner.get(DRAFT).headers["ETag"].strip('"')
    assert owner.put(DRAFT, json={"definition": definition()}, match=bare).status_code == 200
    assert tag


@pytest.mark.parametrize(
    "match", ["W/{tag}", '"*"', '"x"', '""', '"', "W/", ",", '"a","b"', "{tag}x", "\xff", "*x"]
)
def test_if_match_that_does_not_match_saves_nothing(owner: Client, match: str) -> None:
    """A weak tag never matches (RFC 9110); a star in quotes is a tag."""
    tag = owner.create().headers["ETag"]
    saved = owner.put(
        DRAFT, json={"definition": definition("https://b.example/")}, match=match.format(tag=tag)
    )
    problem(saved, 412, "stale_draft")
    refused = owner.delete(DRAFT, match=match.format(tag=tag))
    problem(refused, 412, "stale_draft")


def test_the_tag_of_the_definition_as_json_is_accepted(owner: Client) -> None:
    """A client that read the draft as JSON, edited it and sends it back has seen the draft's state."""
    owner.create()
    read = owner.get(f"{DRAFT}/definition", headers={"Accept": "application/json"})
    assert read.headers["ETag"].endswith('-json"')
    saved = owner.put(DRAFT, data=read.data, type="application/json", match=read.headers["ETag"])
    assert saved.status_code == 200


def test_saving_requires_an_open_draft(published: Client) -> None:
    problem(published.put(DRAFT, json={"definition": definition()}, match="*"), 404, "version_not_found")
    problem(published.put(DRAFT, json={"from_version": 1}, match="*"), 404, "version_not_found")


def test_a_save_can_copy_a_version(published: Client) -> None:
    published.publish(url="https://two.example/")
    tag = published.post(VERSIONS, json={"definition": definition("https://three.example/")}).headers["ETag"]
    saved = published.put(DRAFT, json={"from_version": 1}, match=tag)
    assert saved.status_code == 200
    assert raw(published) == raw(published, f"{VERSIONS}/1/definition")
    problem(published.put(DRAFT, json={"from_version": 2}, match=tag), 412, "stale_draft")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": "nothing"},
        {"definition": None},
        {"definition": {"nodes": []}, "from_version": 1},
        {"from_version": 1, "base_version": 1},
        {"definition": "nodes: []", "base_version": "1"},
        {"definition": "nodes: []", "base_version": 0},
        {"definition": 5},
        {"definition": "nodes: []", "message": 5},
        {"definition": "nodes: []", "other": 1},
        {"definition": "nodes: []", "author": "Ada"},
        {"definition": "nodes: []", "message": "x" * 10_001},
    ],
)
def test_a_save_with_no_content_or_two_is_malformed(published: Client, body: Any) -> None:
    tag = published.post(VERSIONS).headers["ETag"]
    problem(published.put(DRAFT, json=body, match=tag), 400, "malformed")
    assert published.get(DRAFT).headers["ETag"] == tag


def test_base_version_merges_a_version_published_meanwhile(published: Client, house: House) -> None:
    """v2 is published on another line: the draft cannot be published until base_version names it."""
    tag = published.post(VERSIONS, json={"definition": definition("https://mine.example/")}).headers["ETag"]
    _publish_beside(house)
    published.post(f"{VERSIONS}/publish")
    refused = problem(published.post(f"{VERSIONS}/publish"), 409, "base_moved")
    assert refused["base_version"] == 2
    assert {"etag": tag, "latest": 2}.items() <= refused.items()
    assert set(refused) >= {"author", "time"}
    assert "save the draft with base_version 2" in refused["detail"]
    saved = published.put(
        DRAFT, json={"definition": definition("https://merged.example/"), "base_version": 2}, match=tag
    )
    assert saved.status_code == 200
    done = published.post(f"{VERSIONS}/publish")
    assert done.status_code == 201
    assert done.json["version_number"] == 3


def _publish_beside(house: House) -> None:
    """The state after a push of order-sync/v2, on a commit beside the draft."""
    draft, ada = Ref(b"refs/heads/drafts/order-sync"), Person("Ada", "ada@example.com")
    with (
        Repo(str(house.repository())) as repo,
        closing(Store(house.repository(), house.project.id, FileUnitOfWork)) as store,
    ):
        mine = repo.refs[draft]
        repo.refs[draft] = ObjectID(store.objects.peel(repo.refs[Ref(b"refs/tags/order-sync/v1")])[0])
        store.create_draft(
            "order-sync", Content(value=definition("https://beside.example/")), Actors(ada, ada)
        )
        store.publish("order-sync", Actors(ada, ada))
        repo.refs[draft] = mine


def test_an_object_edits_the_file_in_place(published: Client) -> None:
    """Comments, quotes and the order of keys stay; an unchanged object changes no byte."""
    text = yaml().replace(b"\n", b"  # kept\n", 1)
    tag = published.post(VERSIONS, data=text, type="application/yaml").headers["ETag"]
    read = published.get(f"{DRAFT}/definition", headers={"Accept": "application/json"})
    same = published.put(DRAFT, data=read.data, type="application/json", match=tag)
    assert same.headers["ETag"] == tag
    for enveloped in (False, True):
        value = read.json
        value["nodes"][0]["data"]["label"] += f" {enveloped}"
        saved = published.put(DRAFT, json={"definition": value} if enveloped else value, match="*")
        assert saved.status_code == 200
        changed = set(raw(published).splitlines()) ^ set(text.splitlines())
        assert len(changed) == 2
        assert all(b"label" in line for line in changed)


def test_an_envelope_has_only_its_own_keys(published: Client) -> None:
    """Other keys make it a definition if it has nodes; without nodes, it is a mistyped envelope."""
    mixed = definition() | {"message": "mine", "definition": {}}
    saved = published.post(VERSIONS, json=mixed)
    assert saved.json["message"] != "mine"
    read = published.get(f"{DRAFT}/definition", headers={"Accept": "application/json"}).json
    assert read["definition"] == {}
    refused = published.put(DRAFT, json={"definiton": definition(), "message": "x"}, match="*")
    assert refused.status_code == 400
    assert refused.json["problems"][0]["pointer"] == "/definiton"
    envelope = published.put(
        DRAFT, data=json.dumps(mixed), type="application/vnd.gitstore.draft+json", match="*"
    )
    assert envelope.status_code == 400
    assert {"/nodes", "/edges"} == {problem["pointer"] for problem in envelope.json["problems"]}


def test_keys_of_an_envelope_in_a_definition_for_the_rules_any(house: House) -> None:
    """Among others they are part of the definition; alone, under the media type of definitions."""
    other = house.client("owner", house.other)
    made = other.post("/workflows", json={"slug": "order-sync", "definition": {"start": 1}})
    assert made.status_code == 201
    value = {"message": "hello", "definition": {"a": 1}, "steps": []}
    saved = other.put(DRAFT, data=json.dumps(value), type="application/json", match="*")
    assert saved.status_code == 200
    assert raw(other) == b"message: hello\ndefinition:\n  a: 1\nsteps: []\n"
    body = b'{"message": "hello"}'
    saved = other.put(DRAFT, data=body, type="application/vnd.gitstore.definition+json", match="*")
    assert saved.status_code == 200
    assert raw(other) == body
    problem(other.put(DRAFT, json={"message": "hello"}, match="*"), 400, "malformed")


def test_json_answers_keep_the_order_and_the_numbers_of_the_file(house: House) -> None:
    """An object that is read, changed and sent back as a browser does it is accepted."""
    other = house.client("owner", house.other)
    text = '{"zeta": 1e21, "b": {"z": 1.5, "a": [2, 1e300]}, "aa": 9007199254740991}'
    made = other.post("/workflows", json={"slug": "order-sync", "definition": text})
    assert made.status_code == 201
    for path in (f"{DRAFT}", f"{DRAFT}/definition"):
        read = other.get(path, headers={"Accept": "application/json"})
        value = read.json if path.endswith("definition") else read.json["definition"]
        assert list(value) == ["zeta", "b", "aa"]
        assert list(value["b"]) == ["z", "a"]
        assert value["zeta"] == 1e21
        assert b"1000000000000000000000" not in read.data
    same = other.put(DRAFT, data=json.dumps(value), type="application/json", match="*")
    assert same.headers["ETag"] == other.get(DRAFT).headers["ETag"]
    browsers = json.dumps(value).replace("1e+21", "1e21")
    assert other.put(DRAFT, data=browsers, type="application/json", match="*").status_code == 200
    assert raw(other).decode() == text


def test_a_patch_edits_a_text(owner: Client) -> None:
    """A text that is sent, the open draft or a commit; nothing is saved unless asked, under If-Match."""
    owner.create(definition=yaml().decode())
    tag = owner.get(DRAFT).headers["ETag"]
    edit, path = f"{DRAFT}/edit", "/nodes/0/data/label"
    patch = [{"op": "replace", "path": path, "value": "Paid"}]
    expected = re.sub("label: [^},\n]*", "label: Paid", yaml().decode(), count=1)
    for body in ({}, {"text": yaml().decode()}, {"commit": tag.strip('"')}):
        edited = owner.post(edit, json={"patch": patch, **body})
        assert edited.status_code == 200
        assert edited.json["text"] == expected
        assert edited.json["valid"]
        assert edited.json["saved"] is None
    assert raw(owner) == yaml()
    broken = owner.post(edit, json={"patch": [{"op": "remove", "path": "/nodes/0/id"}]})
    assert not broken.json["valid"]
    assert broken.json["problems"][0]["code"] == "node_id_missing"
    body = {"patch": patch, "save": True, "message": "Rename"}
    problem(owner.post(edit, json=body), 428, "precondition_required")
    problem(owner.post(edit, json=body, match='"0000"'), 412, "stale_draft")
    saved = owner.post(edit, json=body, match=tag)
    assert saved.json["saved"]["message"] == "Rename"
    assert saved.headers["ETag"] == f'"{saved.json["saved"]["commit"]}"'
    assert raw(owner).decode() == expected


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"patch": [{"op": "remove", "path": "/nodes/9"}]}, 400, "malformed"),
        ({"patch": [{"op": "add", "path": "", "value": []}]}, 400, "malformed"),
        ({"patch": {}}, 400, "malformed"),
        ({"patch": [], "text": "a: 1", "commit": "0" * 40}, 400, "malformed"),
        ({"patch": [], "commit": "HEAD"}, 400, "malformed"),
        ({"patch": [], "commit": "0" * 40}, 404, "version_not_found"),
        ({"patch": [], "text": "a: ["}, 422, "definition_unparsable"),
        ({"patch": [{"op": "add", "path": "/n", "value": {"a\0": 1}}]}, 400, "malformed"),
    ],
)
def test_a_patch_that_cannot_be_applied(owner: Client, body: Any, status: int, code: str) -> None:
    owner.create()
    problem(owner.post(f"{DRAFT}/edit", json=body), status, code)


def test_a_definition_is_merged_into_the_draft(owner: Client) -> None:
    """Different fields merge by themselves, and in place; the same field by a decision."""
    base = owner.create(definition=yaml().decode()).headers["ETag"].strip('"')
    theirs = yaml().decode().replace("label: Hook", "label: Paid").replace("sync\n", "sync # by Ada\n")
    tag = owner.put(DRAFT, data=theirs, type="application/yaml", match="*").headers["ETag"]
    merge = f"{DRAFT}/merge"
    expected = theirs.replace("https://a.example/", "https://b.example/")
    for mine in (yaml("https://b.example/").decode(), definition("https://b.example/", name="Order sync")):
        merged = owner.post(merge, json={"base": base, "definition": mine})
        assert merged.status_code == 200, merged.text
        assert (merged.json["text"], merged.json["conflicts"]) == (expected, [])
        assert (merged.json["merged_into"], merged.json["saved"]) == (tag.strip('"'), None)
    clash = {"base": base, "definition": yaml().decode().replace("label: Hook", "label: Begin"), "save": True}
    problem(owner.post(merge, json=clash), 428, "precondition_required")
    refused = problem(owner.post(merge, json=clash, match=tag), 409, "merge_conflict")
    (conflict,) = refused["conflicts"]
    assert conflict == {
        "path": "/nodes/hook/data/label", "node": "hook", "base": "Hook", "ours": "Begin", "theirs": "Paid",
        "absent": [],
    }  # fmt: skip
    clash["decisions"] = {conflict["path"]: "ours"}
    problem(owner.post(merge, json=clash, match=f'"{base}"'), 412, "stale_draft")
    saved = owner.post(merge, json=clash, match=tag)
    assert saved.json["saved"]["commit"] == saved.headers["ETag"].strip('"')
    assert raw(owner).decode() == theirs.replace("label: Paid", "label: Begin")
    discarded = owner.delete(DRAFT, match="*")
    assert discarded.status_code == 204
    owner.create("other")
    mine = saved.json["saved"]["commit"]
    problem(
        owner.post("/workflows/other/versions/draft/merge", json={"base": base, "commit": mine}),
        404,
        "version_not_found",
    )


def test_both_parents_of_a_merged_commit_are_kept(published: Client, house: House) -> None:
    """A discarded draft is merged into the open one; the page of history shows where each came from."""
    made = {"definition": definition("https://mine.example/")}
    mine = published.post("/workflows/order-sync/versions", json=made).json["commit"]
    published.delete(DRAFT)
    body = {"definition": definition(name="Theirs")}
    theirs = published.post("/workflows/order-sync/versions", json=body).headers["ETag"]
    merge = {"base": "v1", "commit": mine, "save": True, "message": "Both"}
    saved = published.post(f"{DRAFT}/merge", json=merge, match=theirs)
    assert saved.status_code == 200, saved.text
    with closing(Store(house.repository(), house.project.id, FileUnitOfWork)) as store:
        commit = store.objects.commit(saved.json["saved"]["commit"].encode())
        assert [parent.decode() for parent in commit.parents] == [theirs.strip('"'), mine]
    value = published.get(f"{DRAFT}/definition", headers={"Accept": "application/json"}).json
    assert (value["name"], value["nodes"][1]["data"]["config"]["url"]) == ("Theirs", "https://mine.example/")


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({"base": 1}, 400, "malformed", "a definition or a commit"),
        ({"base": "HEAD", "definition": {}}, 404, "version_not_found", "is not a version"),
        ({"base": 9, "definition": {}}, 404, "version_not_found", "no version v9"),
        ({"base": "0" * 40, "definition": {}}, 404, "version_not_found", "in the commit"),
        ({"base": 1, "commit": "0" * 40}, 404, "version_not_found", "in no draft, version or discarded"),
        ({"base": 1, "definition": "a: ["}, 422, "definition_unparsable", "yours has an error"),
        ({"base": 1, "definition": {}, "decisions": {"/a": "mine"}}, 400, "malformed", "'ours' or 'theirs'"),
    ],
)
def test_what_cannot_be_merged_is_refused_in_words(
    published: Client, body: Any, status: int, code: str, words: str
) -> None:
    assert words in problem(published.post(f"{DRAFT}/merge", json=body), status, code)["detail"]


def test_the_author_of_a_draft_can_be_given(owner: Client, house: House) -> None:
    """By default, it is the token."""
    made = owner.create().json["draft"]
    assert made["author"]["name"].startswith("token:owner-")
    assert made["author"]["email"].endswith("@tokens.gitstore")
    ada = {"name": " Ada Löwe ", "email": "ada@example.com"}
    saved = owner.put(DRAFT, json={"definition": definition("https://b.example/"), "author": ada}, match="*")
    assert saved.json["author"] == {"name": "Ada Löwe", "email": "ada@example.com"}
    with closing(Store(house.repository(), house.project.id, FileUnitOfWork)) as store:
        commit = store.objects.commit(saved.json["commit"].encode())
        assert commit.author == "Ada Löwe <ada@example.com>".encode()
        assert commit.committer == b"gitstore <gitstore@localhost>"


# Discarding and reverting


def test_a_discarded_draft_is_kept_in_git(published: Client, house: House) -> None:
    tag = published.post(VERSIONS).headers["ETag"]
    problem(published.delete(DRAFT, match=f'"{"0" * 40}"'), 412, "stale_draft")
    assert published.delete(DRAFT, match=tag).status_code == 204
    problem(published.get(DRAFT), 404, "version_not_found")
    problem(published.delete(DRAFT), 404, "version_not_found")
    with Repo(str(house.repository())) as repo:
        kept = [repo.refs[ref] for ref in repo.refs.allkeys() if ref.startswith(b"refs/superseded/")]
    assert tag.strip('"').encode() in kept


def test_a_discarded_draft_is_restored(published: Client, house: House) -> None:
    """By the answer of the discard, and as listed; not over an open draft."""
    made = published.post(VERSIONS).headers["ETag"]
    link = published.delete(DRAFT).headers["Link"]
    found = re.fullmatch(r'<https://gitstore\.example(.*)>; rel="restore"; at="(.*)"', link)
    assert found
    restore, at = found.groups()
    (kept,) = published.get(f"{DRAFT}/superseded").json["superseded"]
    assert (kept["at"], f'"{kept["commit"]}"') == (at, made)
    assert kept["ref"].startswith("refs/superseded/order-sync/")
    restored = published.post(restore, json={"at": at})
    assert restored.status_code == 201
    assert (restored.headers["ETag"], restored.headers["Location"]) == (
        made,
        f"https://gitstore.example{DRAFT}",
    )
    assert published.get(DRAFT).json["commit"] == restored.json["commit"]
    stands = problem(published.post(restore), 409, "draft_exists")
    assert stands["etag"] == made
    published.delete(DRAFT)
    problem(published.post(restore, json={"at": "2020-01-01T00:00:00Z"}), 404, "version_not_found")
    for wrong in ("yesterday", "2020-01-01T00:00:00", 1):
        problem(published.post(restore, json={"at": wrong}), 400, "malformed")
    assert published.post(restore).status_code == 201
    problem(published.get("/workflows/nothing/versions/draft/superseded"), 404, "workflow_not_found")
    problem(published.post("/workflows/nothing/versions/draft/restore"), 404, "workflow_not_found")
    with house.database.as_owner() as tx:
        noted = tx.tuples(
            "select door from gitstore.audit_log where action = 'workflow.draft.updated' "
            "and object = 'drafts/order-sync' order by id desc limit 1"
        )
    assert noted == [("http",)]


def test_a_revert_is_a_new_commit_with_the_old_content(published: Client) -> None:
    """Nothing is rewritten: the draft's history continues."""
    published.publish(url="https://two.example/")
    made = published.post(f"{VERSIONS}/v1/revert", json={"message": "Two was wrong"})
    assert made.status_code == 201
    assert made.headers["ETag"] == f'"{made.json["commit"]}"'
    assert made.headers["Location"] == f"https://gitstore.example{DRAFT}"
    assert made.json["message"] == "Two was wrong"
    assert raw(published) == raw(published, f"{VERSIONS}/1/definition")
    again = published.publish()
    assert again.json["version_number"] == 3
    assert again.json["digest"] == published.get(f"{VERSIONS}/1").json["digest"]


def test_a_revert_to_an_invalid_version_is_refused(published: Client) -> None:
    problem(published.post(f"{VERSIONS}/9/revert"), 404, "version_not_found")
    problem(published.post(f"{VERSIONS}/zero/revert"), 404, "version_not_found")
    problem(published.post(f"{VERSIONS}/draft/revert"), 400, "malformed")
    assert published.post(f"{VERSIONS}/current/revert").status_code == 201


# Races


def test_one_of_two_concurrent_saves_wins(owner: Client) -> None:
    """In many rounds: exactly one 200; the 412 of the other names the winner's state."""
    tag = owner.create().headers["ETag"]
    with ThreadPoolExecutor(2) as pool:
        for n in range(10):

            def save(who: int, tag: str = tag, n: int = n) -> Any:
                body = {"definition": definition(f"https://{who}-{n}.example/")}
                return owner.put(DRAFT, json=body, match=tag)

            answers = sorted(pool.map(save, (1, 2)), key=lambda answer: answer.status_code)
            assert [answer.status_code for answer in answers] == [200, 412]
            tag = answers[0].headers["ETag"]
            assert problem(answers[1], 412, "stale_draft")["etag"] == tag
    assert owner.get(DRAFT).headers["ETag"] == tag


def test_the_etag_of_a_save_is_its_own(owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another save between a save and its answer: its ETag would let the client overwrite it unseen."""
    tag = owner.create().headers["ETag"]
    as_saved = drafts.as_saved
    theirs = []

    def interrupted(*args: Any) -> Any:
        monkeypatch.setattr(drafts, "as_saved", as_saved)
        body = {"definition": definition("https://theirs.example/")}
        theirs.append(owner.put(DRAFT, json=body, match="*"))
        return as_saved(*args)

    monkeypatch.setattr(drafts, "as_saved", interrupted)
    ours = owner.put(DRAFT, json={"definition": definition("https://ours.example/")}, match=tag)
    assert theirs[0].status_code == ours.status_code == 200
    assert ours.headers["ETag"] != theirs[0].headers["ETag"]
    assert ours.headers["ETag"] == f'"{ours.json["commit"]}"'
    assert ours.json["digest"] != theirs[0].json["digest"]
    assert set(ours.json) == set(theirs[0].json)
    assert ours.json["version_number"] == theirs[0].json["version_number"]
    late = owner.put(DRAFT, json={"definition": definition()}, match=ours.headers["ETag"])
    problem(late, 412, "stale_draft")


def test_if_none_match_creates_a_draft_and_overwrites_none(owner: Client) -> None:
    """201 where none is open, else 412 with the draft that is; never together with If-Match."""
    owner.create()
    headers = {"If-None-Match": "*"}
    body = {"definition": definition("https://2.example/")}
    stale = problem(owner.put(DRAFT, json=body, headers=headers), 412, "stale_draft")
    assert stale["etag"] == owner.get(DRAFT).headers["ETag"]
    assert owner.get(DRAFT).json["definition"] == definition()
    owner.publish()
    made = owner.put(DRAFT, json=body, headers=headers)
    assert (made.status_code, made.json["version_number"]) == (201, 2)
    problem(owner.put(DRAFT, json={"definition": definition()}, headers=headers, match="*"), 400, "malformed")


def test_a_definition_is_published_in_one_call(owner: Client) -> None:
    """As an object, or as text with its bytes kept; its draft stays if it can't be published."""
    owner.create()
    owner.publish()
    body: dict[str, Any] = {"definition": definition("https://2.example/"), "message": "Second"}
    made = owner.post(f"{VERSIONS}/publish", json=body)
    assert (made.status_code, made.json["version_number"], made.json["message"]) == (201, 2, "Second")
    text = yaml("https://3.example/")
    assert owner.post(f"{VERSIONS}/publish", data=text, type="application/yaml").json["version_number"] == 3
    assert owner.get(f"{VERSIONS}/3/definition").data == text
    same = owner.post(f"{VERSIONS}/publish", data=text, type="application/yaml")
    assert (same.status_code, same.json["version_number"]) == (200, 3)
    body = {"definition": definition("https://3.example/", name="Order sync")}
    again = owner.post(f"{VERSIONS}/publish", json=body)
    assert (again.status_code, again.json["version_number"]) == (200, 3)
    problem(owner.get(DRAFT), 404, "version_not_found")
    invalid = {"definition": definition("")}
    refused = problem(owner.post(f"{VERSIONS}/publish", json=invalid), 422, "definition_invalid")
    assert [each["code"] for each in refused["problems"]] == ["http_url_missing"]
    assert owner.get(DRAFT).json["valid"] is False


def test_definitions_that_are_published_at_once_make_contiguous_versions(owner: Client) -> None:
    """Eight clients, one workflow: each call saves and publishes in one write, so none is refused."""
    owner.create()
    owner.publish()

    def publish(client: int) -> list[int]:
        made = []
        for turn in range(3):
            body = {"definition": definition(f"https://{client}.example/{turn}")}
            answer = owner.post(f"{VERSIONS}/publish", json=body)
            assert answer.status_code == 201, answer.json
            made.append(answer.json["version_number"])
            assert owner.get(f"{VERSIONS}/{made[-1]}").json["definition"] == body["definition"]
        return made

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for made in pool.map(publish, range(8)) for number in made]
    assert sorted(numbers) == list(range(2, 26))
    problem(owner.get(DRAFT), 404, "version_not_found")


def test_a_definition_that_is_not_published_leaves_what_a_save_leaves(owner: Client) -> None:
    """A new draft, or a new commit on the open one, where only the publication is refused."""
    owner.create()
    owner.publish()
    seen = owner.post(VERSIONS, json={"definition": definition("https://2.example/")}).headers["ETag"]
    invalid = {"definition": definition("")}
    problem(owner.post(f"{VERSIONS}/publish", json=invalid, match=seen), 422, "definition_invalid")
    left = owner.get(DRAFT)
    assert (left.json["valid"], left.headers["ETag"] == seen) == (False, False)
    problem(owner.post(f"{VERSIONS}/publish", json=invalid, match=seen), 412, "stale_draft")
    latest = {"definition": raw(owner, f"{VERSIONS}/1/definition").decode()}
    same = owner.post(f"{VERSIONS}/publish", json=latest, match=left.headers["ETag"])
    assert (same.status_code, same.json["version_number"]) == (200, 1)
    assert owner.get(DRAFT).json["definition"] == definition()


def test_a_definition_in_a_publish_overwrites_no_draft_unseen(owner: Client) -> None:
    """409 while another draft is open; with If-Match, that draft is replaced."""
    owner.create()
    owner.publish()
    owner.post(VERSIONS, json={"definition": definition("https://theirs.example/")})
    body = {"definition": definition("https://mine.example/"), "activate": False}
    problem(owner.post(f"{VERSIONS}/publish", json=body), 409, "draft_exists")
    problem(owner.post(f"{VERSIONS}/publish", json=body, match='"0000"'), 412, "stale_draft")
    seen = owner.get(DRAFT).headers["ETag"]
    made = owner.post(f"{VERSIONS}/publish", json=body, match=seen)
    assert (made.status_code, made.json["version_number"], made.json["is_current"]) == (201, 2, False)
    assert owner.get(f"{VERSIONS}/2").json["definition"] == body["definition"]
