"""What the pages say: workflows, versions, history, comparing, going back; how heavy and fast they are."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from gitstore import ledger, names, recording
from gitstore.content import Content, put_file, to_file
from gitstore.disk.objects import new_commit
from gitstore.judging import StoreFacts
from gitstore.model import Person
from gitstore.policy import Command, judge
from gitstore.versions import version_id, workflow_id
from service.context import EXTENSION
from service.ui import versions as version_pages
from sync import catalog
from tests.service.api.conftest import House, definition, yaml
from tests.ui.visiting import Visitor, visitor

ONE = "/ui/workflows/order-sync"
HEAVIEST = 100_000  # bytes of a page


@pytest.fixture
def published(ann: Visitor) -> None:
    """order-sync with v1, v2 and v3, which runs; no draft is open."""
    ann.api.create(name="Order sync", description="Copies orders.")
    ann.api.publish(message="First")
    ann.api.publish(url="https://two.example/", message="Second")
    ann.api.publish(url="https://three.example/", message="Third")


def current(ann: Visitor) -> Any:
    return ann.api.get("/workflows/order-sync").json["current"]["version_number"]


# Workflows


def test_a_new_gitstore_says_what_to_do(ann: Visitor) -> None:
    assert "No workflow yet" in ann.get("/ui/workflows").page.text


def test_a_workflow_is_created_with_a_starter(ann: Visitor) -> None:
    answer = ann.post(
        "/ui/new-workflow", slug="order-sync", name="Order sync", description="Copies\r\norders."
    )
    assert (answer.status, answer.location) == (303, f"{ONE}/edit?said=created")
    made = ann.api.get("/workflows/order-sync").json
    assert (made["name"], made["description"]) == ("Order sync", "Copies\norders.")
    page = ann.get(ONE).page
    assert "This will be the first version." in page.text
    assert ("post", f"{ONE}/publish") in list(page.forms())


@pytest.mark.parametrize(
    ("slug", "status"),
    [("", 422), ("No", 422), ("a/b", 422), ("new-workflow", 303), ("taken", 409), ("é", 422)],
)
def test_what_is_no_name_is_refused_and_not_lost(ann: Visitor, slug: str, status: int) -> None:
    ann.api.create("taken")
    answer = ann.post("/ui/new-workflow", slug=slug, name="<Title>", description="<Why>")
    assert answer.status == status
    if status != 303:
        assert answer.page.value("name") == "<Title>"
        assert answer.page.value("description") == "<Why>"


def test_workflows_are_found_and_paged(ann: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ui.workflows.PAGE", 2)
    for slug in ("a-one", "b-two", "c-three"):
        ann.api.create(slug)
    first = ann.get("/ui/workflows").page
    assert "c-three" not in first.text
    (more,) = [link for link in first.links() if "cursor" in link]
    assert "c-three" in ann.get(more).page.text
    assert "b-two" not in ann.get("/ui/workflows?q=three").page.text
    assert "Nothing is called that" in ann.get("/ui/workflows?q=<b>").page.text
    assert ann.get("/ui/workflows?cursor=x").status == 400
    assert ann.get("/ui/workflows?q=%00").status == 400


@pytest.mark.usefixtures("published")
def test_the_list_says_what_runs_what_is_open_and_who_was_last(ann: Visitor) -> None:
    ann.api.put("/workflows/order-sync/current", json={"version": 2, "hold": True})
    ann.api.post(
        "/workflows/order-sync/versions",
        json={"definition": "nodes: []", "author": {"name": "Bob", "email": "b@x.y"}},
    )
    (row,) = [row.text for row in ann.get("/ui/workflows").page.all("tr") if "order-sync" in row.text]
    words = " ".join(row.split())
    for expected in ("v2", "held", "latest is v3", "has problems", "by Bob", "just now", "Roll back"):
        assert expected in words


# Publishing and going back


@pytest.mark.usefixtures("published")
def test_the_workflow_says_what_publishing_would_change(ann: Visitor) -> None:
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    page = ann.get(ONE).page
    assert "url of call changed — that is what publishing would change of v3, which runs." in page.text
    answer = ann.post(f"{ONE}/publish", etag=page.value("etag"), message="Fourth", activate="yes")
    assert answer.location == f"{ONE}?said=published"
    assert current(ann) == 4
    assert ann.api.get("/workflows/order-sync/versions/4").json["message"] == "Fourth"


@pytest.mark.usefixtures("published")
def test_publishing_without_letting_it_run(ann: Visitor) -> None:
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    ann.post(f"{ONE}/publish", etag=ann.get(ONE).page.value("etag"), message="")
    assert current(ann) == 3
    assert "latest is v4" in ann.get("/ui/workflows").page.text


@pytest.mark.usefixtures("published")
def test_a_draft_that_moved_is_not_published_unseen(ann: Visitor) -> None:
    """412, with the page as it stands now."""
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    form = ann.get(ONE).page
    ann.api.put(
        "/workflows/order-sync/versions/draft",
        json={"definition": definition("https://x.example/")},
        match="*",
    )
    answer = ann.post(f"{ONE}/publish", etag=form.value("etag"), message="")
    assert answer.status == 412
    assert "The draft moved since you read it" in answer.page.text
    assert current(ann) == 3


@pytest.mark.usefixtures("published")
def test_a_draft_that_a_version_overtook_says_so(ann: Visitor) -> None:
    """And the editor, after showing both, puts it right."""
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://mine.example/")})
    house_store_publish(ann)
    page = ann.get(ONE).page
    assert "v4 was published after this draft began." in page.text
    answer = ann.post(f"{ONE}/publish", etag=page.value("etag"), message="")
    assert answer.status == 409
    form = ann.get(f"{ONE}/edit").page
    mine = form.value("definition")
    fields = {"etag": form.value("etag"), "base": form.value("base"), "definition": mine}
    conflict = ann.post(f"{ONE}/edit", **fields)
    assert conflict.status == 409
    assert "theirs.example" in conflict.html
    fields = {"etag": conflict.page.value("etag"), "base": conflict.page.value("base"), "definition": mine}
    assert ann.post(f"{ONE}/edit", **fields).status == 303
    assert "was published after" not in ann.get(ONE).page.text
    assert ann.api.post("/workflows/order-sync/versions/publish").json["version_number"] == 5


def house_store_publish(ann: Visitor) -> None:
    """Publish v4 beside the open draft, as a tag that is pushed does."""
    here = ann.client.application.extensions[EXTENSION]
    with here.database.as_owner() as tx:
        project = catalog.project(tx, "default")
    with here.projects.mirrored(project, here.database) as (store, _), store.locks.writing(["order-sync"]):
        state = store.state("order-sync")
        file = to_file(Content(value=definition("https://theirs.example/")), None, store.rules, store.limits)
        made = put_file(store.objects, None, [], file)
        commit = new_commit(
            tree=made[-1].id, parents=[state.latest_commit.encode()], author=Person("Bob", "b@x.y"),
            committer=ledger.COMMITTER, when=datetime.now(UTC), message="Theirs",
        )  # fmt: skip
        store.objects.write([*made, commit])
        (verdict,) = judge([Command(names.tag("order-sync", 4), None, commit.id)], StoreFacts(store))
        assert verdict.refusal is None
        occasion = recording.Occasion(Person("Bob", "b@x.y"), datetime.now(UTC), "", True)
        assert not recording.write(store, [recording.record(store, [verdict], occasion)])


@pytest.mark.usefixtures("published")
def test_a_rollback_is_two_clicks_from_the_first_page(ann: Visitor) -> None:
    """A link and a button: the question names both versions, and has a reason at hand."""
    (link,) = [link for link in ann.get("/ui/workflows").page.links() if link.endswith("/roll-back")]
    page = ann.get(link).page
    assert "Make v2 current?" in page.text
    assert "Runs now v3 Third" in page.text
    assert "Will run v2 Second" in page.text
    assert "url of call changed" in page.text
    (action,) = [action for method, action in page.forms() if action.endswith("/current")]
    answer = ann.post(action, seen=page.value("seen"), message=page.value("message"))
    assert answer.location == f"{ONE}?said=moved"
    assert current(ann) == 2
    assert "another version runs now" in ann.get(answer.location or "").page.text


@pytest.mark.usefixtures("published")
def test_a_version_is_held(ann: Visitor) -> None:
    page = ann.get(f"{ONE}/versions/1/current").page
    ann.post(f"{ONE}/versions/1/current", seen=page.value("seen"), message="v3 fails", hold="yes")
    ann.api.publish(url="https://four.example/")
    assert current(ann) == 1
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://five.example/")})
    assert "v1 is held: publishing does not change what runs" in ann.get(ONE).page.text


@pytest.mark.usefixtures("published")
def test_what_was_moved_meanwhile_is_not_moved_unseen(ann: Visitor) -> None:
    page = ann.get(f"{ONE}/versions/1/current").page
    ann.api.put("/workflows/order-sync/current", json={"version": 2})
    answer = ann.post(f"{ONE}/versions/1/current", seen=page.value("seen"), message="")
    assert answer.status == 412
    assert "now v2 runs" in answer.page.text
    assert current(ann) == 2


@pytest.mark.usefixtures("published")
def test_reverting_makes_a_draft_and_leaves_what_runs(ann: Visitor) -> None:
    page = ann.get(f"{ONE}/versions/1/revert").page
    assert "v3 runs on until the draft is published" in page.text
    answer = ann.post(f"{ONE}/versions/1/revert", etag=page.value("etag"), message=page.value("message"))
    assert answer.location == f"{ONE}?said=reverted"
    assert current(ann) == 3
    draft = ann.api.get("/workflows/order-sync/versions/draft").json
    assert draft["message"] == "Revert to v1"
    assert draft["definition"] == ann.api.get("/workflows/order-sync/versions/1").json["definition"]


@pytest.mark.usefixtures("published")
def test_reverting_covers_no_draft_that_was_not_seen(ann: Visitor) -> None:
    form = ann.get(f"{ONE}/versions/1/revert").page
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    answer = ann.post(f"{ONE}/versions/1/revert", etag=form.value("etag"), message="")
    assert answer.status == 412
    assert "A draft is open" in answer.page.text
    again = ann.post(f"{ONE}/versions/1/revert", etag=answer.page.value("etag"), message="")
    assert again.status == 303


@pytest.mark.usefixtures("published")
def test_discarding_asks_first(ann: Visitor) -> None:
    assert ann.get(f"{ONE}/discard").status == 404
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    page = ann.get(f"{ONE}/discard").page
    assert "v3 runs on" in page.text
    assert ann.post(f"{ONE}/discard", etag=page.value("etag")).location == f"{ONE}?said=discarded"
    assert ann.api.get("/workflows/order-sync/versions/draft").status_code == 404


def test_discarding_the_only_draft_leads_to_the_list(ann: Visitor) -> None:
    ann.api.create()
    answer = ann.post(f"{ONE}/discard", etag=ann.get(f"{ONE}/discard").page.value("etag"))
    assert answer.status == 303
    assert ann.get(answer.location or "").status == 200


# Versions and what differs


@pytest.mark.usefixtures("published")
def test_the_history_says_who_when_why_and_what(ann: Visitor) -> None:
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    rows = [" ".join(row.text.split()) for row in ann.get(f"{ONE}/versions").page.all("tr")[1:]]
    assert [row.split()[0] for row in rows] == ["v4", "v3", "v2", "v1"]
    assert rows[0].startswith("v4 draft url of call changed")
    assert rows[1].startswith("v3 current Third url of call changed token:owner")
    assert rows[3].startswith("v1 First the first version")


@pytest.mark.usefixtures("published")
def test_any_two_versions_are_compared_by_two_clicks(ann: Visitor) -> None:
    first = [link for link in ann.get(f"{ONE}/versions").page.links() if "compare=1" in link]
    second = [link for link in ann.get(first[0]).page.links() if "from=1" in link and "to=3" in link]
    page = ann.get(second[0]).page
    assert "url of call changed" in page.text
    assert "https://a.example/ → after: https://three.example/" in page.text
    assert {mark.text for mark in page.all("mark")} == {"a", "three"}
    assert "#n1" in page.links()
    assert "changed: HTTP call Call (call)" in {title.text for title in page.all("title")}


@pytest.mark.usefixtures("published")
def test_the_history_has_no_end_but_the_first_version(ann: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_pages, "PAGE", 2)
    page = ann.get(f"{ONE}/versions").page
    (older,) = [link for link in page.links() if "cursor" in link]
    rows = [" ".join(row.text.split()) for row in ann.get(older).page.all("tr")[1:]]
    assert [row.split()[0] for row in rows] == ["v1"]


@pytest.mark.usefixtures("published")
def test_the_address_that_a_push_prints_leads_to_the_version(ann: Visitor) -> None:
    """And "draft", "current", "latest" and v3 do, too."""
    for shown in ("3", "v3", "current", "latest"):
        page = ann.get(f"{ONE}/versions/{shown}").page
        assert page.title() == "v3"
        assert "Third" in page.text
    for shown in ("9", "draft", "x", "0", "v01"):
        assert ann.get(f"{ONE}/versions/{shown}").status == 404
    url = ann.api.get("/workflows/order-sync/versions/3").json["url"]
    assert url.endswith(f"{ONE}/versions/3")


def test_secrets_are_masked_wherever_people_look(ann: Visitor) -> None:
    """But for the editor and the download, which are for those who may read the file."""
    text = (
        yaml()
        .decode()
        .replace("method: POST", 'method: POST, headers: \'{"Authorization": "Bearer s3cr3t"}\'')
    )
    ann.api.create(definition=text)
    ann.api.publish()
    ann.api.post("/workflows/order-sync/versions", json={"definition": text.replace("s3cr3t", "n3w-s3cr3t")})
    for path in (
        "",
        "/versions",
        "/versions/1",
        "/versions/draft",
        "/compare",
        "/versions/1/current",
        "/versions/1/revert",
    ):
        answer = ann.get(ONE + path)
        assert answer.status == 200
        assert "s3cr3t" not in answer.html, path
    assert "[secret 1]" in ann.get(f"{ONE}/compare").page.text
    assert "s3cr3t" in ann.get(f"{ONE}/versions/1/download").html
    assert "s3cr3t" in ann.get(f"{ONE}/edit").html


def test_a_project_without_rules_has_texts_and_keys_but_no_graph(house: House) -> None:
    eve = visitor(house, "owner", house.other)
    eve.api.post(
        "/workflows", json={"slug": "config", "definition": {"steps": [{"id": "a", "run": "x"}], "nodes": 7}}
    )
    assert eve.api.post("/workflows/config/versions/publish", json={}).status_code == 201
    eve.api.post(
        "/workflows/config/versions", json={"definition": {"steps": [{"id": "a", "run": "y"}], "nodes": 7}}
    )
    assert "steps.0.run changed" in eve.get("/ui/workflows/config").page.text
    page = eve.get("/ui/workflows/config/compare").page
    assert "steps / 0 / run" in page.text
    assert not [svg for svg in page.all("svg") if svg.attributes.get("class") == "drawing"]


# Weight and time


COPY = """
    insert into gitstore.workflow_versions
    select %(id)s, workflow_id, project_id, %(number)s, state, created_at, published_at, commit_sha, ref_oid,
        tree_sha, %(blob)s, file_name, digest, definition, valid, message, author_name, author_email,
        published_by
    from gitstore.workflow_versions where workflow_id = %(workflow)s and version_number = %(like)s
"""


def many_versions(house: House, first: int, last: int) -> None:
    """Rows alone, as of an import: the pages read no more of them."""
    workflow = workflow_id(house.project.id, "order-sync")
    with house.database.as_owner() as tx:
        tx.run("alter table gitstore.workflow_versions disable trigger user")
        for number in range(first, last + 1):
            values = {"id": version_id(workflow, number), "number": number, "workflow": workflow}
            tx.run(COPY, **values, like=1 + number % 3, blob=f"{number:040}")
        tx.run("update gitstore.workflows set latest_number = %(n)s where id = %(w)s", n=last, w=workflow)
        tx.run("alter table gitstore.workflow_versions enable trigger user")
        tx.run("analyze gitstore.workflow_versions")


@pytest.mark.usefixtures("published")
def test_pages_are_light_and_fast_however_long_the_history_is(house: House, ann: Visitor) -> None:
    """Under 100 KB, and as fast at 10,000 versions as at 40, but for what else the machine does."""
    paths = ["/ui/workflows", f"{ONE}/versions", f"{ONE}/compare?from=1&to=3", f"{ONE}/versions/3",
             f"{ONE}/versions/2/current"]  # fmt: skip

    def seconds(path: str) -> float:
        found = []
        for _ in range(5):
            begun = time.perf_counter()
            answer = ann.get(path)
            found.append(time.perf_counter() - begun)
            assert answer.status == 200, answer.page.text
            assert len(answer.html.encode()) < HEAVIEST
        return min(found)

    many_versions(house, 4, 40)
    before = {path: seconds(path) for path in paths}
    many_versions(house, 41, 10_000)
    after = {path: seconds(path) for path in paths}
    for path in paths:
        assert after[path] < max(3 * before[path], 0.25), (path, before[path], after[path])


def test_a_large_graph_is_light_enough(ann: Visitor) -> None:
    """A hundred nodes, with a long label each."""
    nodes = [
        {
            "id": f"node-{i}",
            "type": "transform",
            "data": {"label": f"A transformation, number {i}", "config": {"expression": "a.b"}},
        }
        for i in range(100)
    ]
    nodes[0]["type"] = "webhook"
    edges = [{"id": f"e{i}", "source": f"node-{i // 2}", "target": f"node-{i}"} for i in range(1, 100)]
    ann.api.create(definition={"nodes": nodes, "edges": edges})
    ann.api.publish()
    for path in ("", "/versions/1", "/edit"):
        answer = ann.get(ONE + path)
        assert answer.status == 200
        assert len(answer.html.encode()) < HEAVIEST, (path, len(answer.html))


def test_a_huge_definition_is_shown_in_part(ann: Visitor) -> None:
    text = yaml().decode() + "".join(f"# line {i}\n" for i in range(60_000))
    ann.api.create(definition=text)
    ann.api.publish()
    answer = ann.get(f"{ONE}/versions/1")
    assert "more characters: download it" in answer.page.text
    assert len(answer.html.encode()) < 2 * HEAVIEST
