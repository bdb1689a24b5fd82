"""Pages of workflows, versions, history and comparison; their size and speed."""

from __future__ import annotations

import time

import pytest

from gitstore.names import version_id, workflow_id
from service.ui import versions as version_pages
from tests.service.api.conftest import House, definition, yaml
from tests.service.api.test_versions import imported
from tests.ui.visitor import Visitor, visitor

ONE = "/ui/workflows/order-sync"
HEAVIEST = 105_000  # bytes of a page


# Workflows


def test_an_empty_list_explains_how_to_begin(ann: Visitor) -> None:
    assert "No workflows yet" in ann.get("/ui/workflows").page.text


def test_a_workflow_is_created_with_a_starter(ann: Visitor) -> None:
    answer = ann.post(
        "/ui/new-workflow", slug="order-sync", name="Order sync", description="Copies\r\norders."
    )
    assert (answer.status, answer.location) == (303, f"{ONE}/edit")
    workflow = ann.api.get("/workflows/order-sync").json
    assert (workflow["name"], workflow["description"]) == ("Order sync", "Copies\norders.")
    page = ann.get(ONE).page
    assert "This draft becomes the first version." in page.text
    assert ("post", f"{ONE}/publish") in list(page.forms())


def test_a_blocked_version_is_named_with_the_reason(ann: Visitor, published: None, house: House) -> None:
    """An invalid version of a source; it can be made current by hand."""
    imported(house, 4, b"nodes: [] # <b>\n")
    page = ann.get(ONE).page
    assert "v4 is not current, because it is invalid." in page.text
    assert "1 problem: " in page.text
    assert f"{ONE}/versions/4" in list(page.links())
    assert "invalid" in ann.get(f"{ONE}/versions/4").page.text
    assert ann.api.put("/workflows/order-sync/current", json={"version": 4}).status_code == 200
    assert "is not current" not in ann.get(ONE).page.text


@pytest.mark.parametrize(
    ("slug", "status"),
    [("-", 422), ("No", 422), ("a/b", 422), ("new-workflow", 303), ("taken", 409), ("é", 422)],
)
def test_invalid_slugs_are_refused_and_the_input_is_kept(ann: Visitor, slug: str, status: int) -> None:
    ann.api.create("taken")
    answer = ann.post("/ui/new-workflow", slug=slug, name="<Title>", description="<Why>")
    assert answer.status == status
    if status != 303:
        assert answer.page.value("name") == "<Title>"
        assert answer.page.value("description") == "<Why>"


def test_workflows_are_searched_and_paged(ann: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ui.workflows.PAGE", 2)
    for slug in ("a-one", "b-two", "c-three"):
        ann.api.create(slug)
    for sort, last in (("name", "c-three"), ("updated", "a-one"), ("published", "a-one")):
        first = ann.get(f"/ui/workflows?sort={sort}").page
        assert last not in first.text
        assert "3 workflows" in first.text
        (more,) = [link for link in first.links() if "cursor" in link]
        assert last in ann.get(more).page.text
    assert "b-two" not in ann.get("/ui/workflows?q=three").page.text
    assert "No workflows found" in ann.get("/ui/workflows?q=<x>").page.text
    assert ann.get("/ui/workflows?cursor=x").status == 400
    assert ann.get("/ui/workflows?q=%00").status == 400


@pytest.mark.usefixtures("published")
def test_workflows_are_filtered(ann: Visitor, house: House) -> None:
    """By their state, and by who changed them."""
    for slug in ("held", "broken", "idle"):
        ann.api.create(slug)
    ann.api.publish("held")
    ann.api.put("/workflows/held/current", json={"version": 1, "hold": True})
    ann.api.put("/workflows/broken/versions/draft", json={"definition": {"nodes": []}}, match="*")
    ann.api.publish("idle", activate=False)
    bob = house.client("publisher")
    bob.create("bobs")
    expected = {
        "running": {"order-sync", "held"},
        "held": {"held"},
        "draft": {"broken", "bobs"},
        "problems": {"broken"},
        "idle": {"idle"},
        "mine": {"order-sync", "held", "broken", "idle"},
        "": {"order-sync", "held", "broken", "idle", "bobs"},
    }
    for only, slugs in expected.items():
        page = ann.get(f"/ui/workflows?filter={only}").page
        listed = {link.rpartition("/")[2] for link in page.links() if link.count("/") == 3}
        assert listed - {"new-workflow"} == slugs, only
        rows = ann.api.get("/workflows" + (f"?filter={only}" if only else "")).json
        assert {row["slug"] for row in rows["workflows"]} == slugs
        assert rows["total"] == len(slugs)


@pytest.mark.usefixtures("published")
def test_the_list_shows_current_version_draft_and_last_author(ann: Visitor) -> None:
    ann.api.put("/workflows/order-sync/current", json={"version": 2, "hold": True})
    ann.api.post(
        "/workflows/order-sync/versions",
        json={"definition": "nodes: []", "author": {"name": "Bob", "email": "b@x.y"}},
    )
    (row,) = [row.text for row in ann.get("/ui/workflows").page.all("tr") if "order-sync" in row.text]
    words = " ".join(row.split())
    for expected in ("v2", "held", "latest: v3", "has problems", "by Bob", "just now", "Roll back"):
        assert expected in words


# Versions and comparison


@pytest.mark.usefixtures("published")
def test_the_history_shows_author_message_and_changes(ann: Visitor) -> None:
    ann.api.post("/workflows/order-sync/versions", json={"definition": definition("https://four.example/")})
    rows = [" ".join(row.text.split()) for row in ann.get(f"{ONE}/versions").page.all("tr")[1:]]
    assert [row.split()[0] for row in rows] == ["v4", "v3", "v2", "v1"]
    assert rows[0].startswith("v4 draft url of call changed")
    assert rows[1].startswith("v3 current Third url of call changed 2 nodes owner")
    assert rows[3].startswith("v1 First the first version")


@pytest.mark.usefixtures("published")
def test_any_two_versions_are_compared_in_two_clicks(ann: Visitor) -> None:
    first = [link for link in ann.get(f"{ONE}/versions").page.links() if "compare=1" in link]
    second = [link for link in ann.get(first[0]).page.links() if "from=1" in link and "to=3" in link]
    page = ann.get(second[0]).page
    assert "url of call changed" in page.text
    assert "https://a.example/ → after: https://three.example/" in page.text
    assert {mark.text for mark in page.all("mark")} == {"a", "three"}
    assert "#n1" in page.links()
    assert "changed: HTTP call Call (call)" in {title.text for title in page.all("title")}


@pytest.mark.usefixtures("published")
def test_the_history_is_paged_to_the_first_version(ann: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_pages, "PAGE", 2)
    page = ann.get(f"{ONE}/versions").page
    assert len(page.all("tr")) == 1 + 2
    (older,) = [link for link in page.links() if "rows=" in link]
    assert numbers(ann, older.partition("#")[0]) == ["v3", "v2", "v1"], "so that Back shows as many again"
    monkeypatch.setattr(version_pages, "_MOST_ROWS", 2)
    (older,) = [link for link in ann.get(f"{ONE}/versions").page.links() if "cursor=" in link]
    assert numbers(ann, older.partition("#")[0]) == ["v1"]


def numbers(ann: Visitor, path: str) -> list[str]:
    """Return the first words of the rows of a history."""
    return [row.text.split()[0] for row in ann.get(path).page.all("tr")[1:]]


@pytest.mark.usefixtures("published")
def test_the_history_is_searched_by_message_author_and_date(ann: Visitor) -> None:
    """A change is still described against the version before, and a version can be opened by its number."""
    me = ann.api.get("/workflows/order-sync/versions/1").json["published_by"]
    for query, found in (
        ("q=sec", ["v2"]),
        ("q=nothing", []),
        (f"author={me}", ["v3", "v2", "v1"]),
        ("author=Bob", []),
        ("since=2020-01-01&until=2999-01-01", ["v3", "v2", "v1"]),
        ("until=2020-01-01", []),
        ("since=x&until=2020-13-45", ["v3", "v2", "v1"]),
    ):
        assert numbers(ann, f"{ONE}/versions?{query}") == found, query
    assert "url of call changed" in ann.get(f"{ONE}/versions?q=second").page.text
    assert ann.get(f"{ONE}/versions?q=%00").status == 400
    assert ann.get(f"{ONE}/versions?go=v2").location == f"{ONE}/versions/v2"


@pytest.mark.usefixtures("published")
def test_the_url_that_a_push_prints_shows_the_version(ann: Visitor) -> None:
    """So do "current", "latest" and v3."""
    for shown in ("3", "v3", "current", "latest"):
        page = ann.get(f"{ONE}/versions/{shown}").page
        assert page.title() == "Order sync v3"
        assert "Third" in page.text
    for shown in ("9", "draft", "x", "0", "v01"):
        assert ann.get(f"{ONE}/versions/{shown}").status == 404
    url = ann.api.get("/workflows/order-sync/versions/3").json["url"]
    assert url.endswith(f"{ONE}/versions/3")


def test_pages_show_values_as_they_are_stored(ann: Visitor) -> None:
    """Also those that look like secrets: the same reader may download the file."""
    text = yaml().decode().replace("method: POST", "method: POST, token: s3cr3t")
    ann.api.create(definition=text)
    ann.api.publish()
    ann.api.post("/workflows/order-sync/versions", json={"definition": text.replace("s3cr3t", "n3w-s3cr3t")})
    for path in ("/versions/1", "/versions/draft", "/compare", "/versions/1/download", "/edit"):
        assert "s3cr3t" in ann.get(ONE + path).html, path
    assert "s3cr3t → after: n3w-s3cr3t" in ann.get(f"{ONE}/compare").page.text


def test_a_project_without_rules_has_no_graph(house: House) -> None:
    eve = visitor(house, "owner", house.other)
    eve.api.post(
        "/workflows", json={"slug": "config", "definition": {"steps": [{"id": "a", "run": "x"}], "nodes": 7}}
    )
    assert eve.api.post("/workflows/config/versions/publish", json={}).status_code == 201
    eve.api.post(
        "/workflows/config/versions", json={"definition": {"steps": [{"id": "a", "run": "y"}], "nodes": 7}}
    )
    assert "run of a changed" in eve.get("/ui/workflows/config").page.text
    page = eve.get("/ui/workflows/config/compare").page
    assert "steps / 0 / run" in page.text
    assert not [svg for svg in page.all("svg") if svg.attributes.get("class") == "drawing"]


# Size and time


COPY = """
    insert into gitstore.workflow_versions
    select %(id)s, workflow_id, project_id, %(number)s, state, created_at, published_at, commit_sha, ref_oid,
        tree_sha, %(blob)s, file_name, digest, definition, valid, message, author_name, author_email,
        published_by
    from gitstore.workflow_versions where workflow_id = %(workflow)s and version_number = %(like)s
"""


def many_versions(house: House, first: int, last: int) -> None:
    """Insert rows without Git objects; the pages read only rows."""
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
def test_pages_are_small_and_fast_for_any_length_of_the_history(house: House, ann: Visitor) -> None:
    """Under 100 KB, and about as fast at 10,000 versions as at 40."""
    paths = ["/ui/workflows", f"{ONE}/versions", f"{ONE}/compare?from=1&to=3", f"{ONE}/versions/3",
             f"{ONE}/versions/2/current"]  # fmt: skip

    def seconds(path: str) -> float:
        durations = []
        for _ in range(5):
            begun = time.perf_counter()
            answer = ann.get(path)
            durations.append(time.perf_counter() - begun)
            assert answer.status == 200, answer.page.text
            assert len(answer.html.encode()) < HEAVIEST
        return min(durations)

    many_versions(house, 4, 40)
    before = {path: seconds(path) for path in paths}
    many_versions(house, 41, 10_000)
    after = {path: seconds(path) for path in paths}
    for path in paths:
        assert after[path] < max(3 * before[path], 0.25), (path, before[path], after[path])


def test_pages_of_a_large_graph_are_small(ann: Visitor) -> None:
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


def test_a_huge_definition_is_truncated(ann: Visitor) -> None:
    text = yaml().decode() + "".join(f"# line {i}\n" for i in range(60_000))
    ann.api.create(definition=text)
    ann.api.publish()
    answer = ann.get(f"{ONE}/versions/1")
    assert "more characters: download the file" in answer.page.text
    assert len(answer.html.encode()) < 2 * HEAVIEST


@pytest.mark.usefixtures("published")
def test_texts_are_compared_in_one_column_and_with_all_lines(ann: Visitor) -> None:
    """The choice of one keeps the other, and the versions."""
    page = ann.get(f"{ONE}/compare?from=1&to=2").page
    assert "unchanged lines" in page.text
    (unified,) = [link for link in page.links() if "view=unified" in link]
    page = ann.get(unified.partition("#")[0]).page
    (table,) = page.all("table")
    assert "unified" in table.attributes["class"]
    assert len(page.all("tr", **{"class": "differs"})) == 2
    (every,) = [link for link in page.links() if "lines=all" in link]
    assert "view=unified" in every
    page = ann.get(every.partition("#")[0]).page
    assert "unchanged line" not in page.text
    assert "https://two.example/" in page.text


@pytest.mark.usefixtures("published")
def test_the_overview_draws_the_draft_against_the_current_version(ann: Visitor) -> None:
    """In one graph with marks; a draft with problems is drawn by itself, with their marks."""
    one = "/workflows/order-sync/versions"
    ann.api.post(one, json={"definition": definition("https://four.example/")})
    page = ann.get(ONE).page
    assert "Draft against v3" in page.text
    (drawing,) = page.all("svg", **{"class": "drawing"})
    assert "changed: " in drawing.text
    ann.api.put(f"{one}/draft", json={"definition": {"nodes": [], "edges": []}}, match="*")
    assert "Draft against" not in ann.get(ONE).page.text
