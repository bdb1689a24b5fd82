"""Publish over HTTP, roll back, revert, page through the history; tenants are isolated."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from uuid import uuid4

from gitstore.model import Rules
from tests.stories.instance import Author, Caller, Service, definition

YAML = {"Content-Type": "application/yaml"}


def publish(owner: Caller, slug: str, label: str, **body: object) -> int:
    """Save a draft over HTTP, creating the workflow if needed, and publish it; return the number."""
    is_new = owner.get(f"/workflows/{slug}").status == 404
    path = "/workflows" if is_new else f"/workflows/{slug}/versions"
    slugs = {"slug": slug} if is_new else {}
    saved = owner.call("POST", path, {**slugs, "definition": definition(label)})
    assert saved.status == 201, saved.raw
    answer = owner.call("POST", f"/workflows/{slug}/versions/publish", body)
    assert answer.status == 201, answer.raw
    return int(answer.json["version_number"])


def test_publishing_over_http_makes_a_tag(owner: Caller, tmp_path: Path) -> None:
    """201, then 200 with the same version; git fetches the tag with the bytes that were sent."""
    body = {"slug": "a", "name": "Order sync", "definition": definition("one")}
    assert owner.call("POST", "/workflows", body).status == 201
    first = owner.call("POST", "/workflows/a/versions/publish", {"message": "Go"})
    second = owner.call("POST", "/workflows/a/versions/publish", {"message": "Go"})
    assert (first.status, second.status) == (201, 200)
    assert first.json["id"] == second.json["id"]
    ann = owner.author(tmp_path / "ann")
    assert ann.git("show", "a/v1:workflow.yaml") + "\n" == definition("one")
    assert ann.git("tag", "-l", "--format=%(contents)", "a/v1") == "Go"
    assert owner.definition("a", 1) == definition("one").encode()


def test_saves_over_http_and_pushes_detect_each_other(owner: Caller, tmp_path: Path) -> None:
    """Both write the same branch; a stale save or push is refused."""
    created = owner.call("POST", "/workflows", {"slug": "a", "definition": definition("http")})
    etag = created.headers["ETag"]
    ann = owner.author(tmp_path / "ann")
    ann.draft("a", definition("git"))
    assert ann.push("drafts/a").ok
    save = partial(owner.call, "PUT", "/workflows/a/versions/draft", definition("late").encode())
    stale = save(headers={"If-Match": etag, **YAML})
    assert stale.status == 412
    assert stale.json["code"] == "stale_draft"
    assert stale.json["author"]["name"] == "Ann"
    assert save(headers=YAML).status == 428
    assert save(headers={"If-Match": stale.json["etag"], **YAML}).status == 200
    ann.draft("a", definition("behind"))
    refused = ann.push("drafts/a")
    assert not refused.ok
    assert "fetch first" in refused.output or "the draft moved since you fetched" in refused.output


def test_a_rollback_is_held_until_another_version_is_made_current(owner: Caller) -> None:
    """v3 fails; v2 is made current and held, so that publishing v4 does not change it."""
    for label in ("one", "two", "three"):
        publish(owner, "a", label)
    answer = owner.call("PUT", "/workflows/a/current", {"version": 2, "hold": True, "message": "v3 fails"})
    assert answer.status == 200, answer.raw
    assert owner.definition("a", "current") == definition("two").encode()
    assert publish(owner, "a", "four") == 4
    assert owner.definition("a", "current") == definition("two").encode()
    assert owner.call("PUT", "/workflows/a/current", {"version": "v4"}).status == 200
    assert owner.definition("a", "current") == definition("four").encode()
    assert publish(owner, "a", "five", activate=False) == 5
    assert owner.definition("a", "current") == definition("four").encode()
    assert owner.call("DELETE", "/workflows/a/current").status == 204
    nothing = owner.get("/workflows/a/versions/current")
    assert (nothing.status, nothing.json["code"]) == (404, "not_published")


def test_reverting_changes_the_draft_and_not_the_current_version(owner: Caller) -> None:
    """The draft gets a new commit with the old content, and is published as any other."""
    for label in ("one", "two"):
        publish(owner, "a", label)
    reverted = owner.call("POST", "/workflows/a/versions/1/revert", {})
    assert reverted.status == 201, reverted.raw
    assert owner.definition("a", "draft") == definition("one").encode()
    assert owner.definition("a", "current") == definition("two").encode()
    assert owner.call("POST", "/workflows/a/versions/publish").json["version_number"] == 3


def test_history_pages_through_every_version_once(owner: Caller) -> None:
    """The open draft first, then the newest, by the cursors in Link."""
    for number in range(1, 8):
        publish(owner, "a", f"n{number}")
    owner.call("POST", "/workflows/a/versions", {"definition": definition("open")})
    path, seen = "/workflows/a/versions?limit=3", []
    while path:
        page = owner.get(path)
        seen += [(v["version_number"], v["state"]) for v in page.json["versions"]]
        link = page.headers.get("Link")
        path = link.partition(";")[0].strip("<>").removeprefix(owner.url) if link else ""
    assert seen == [(8, "draft"), *((number, "published") for number in range(7, 0, -1))]


def test_another_tenant_sees_nothing(service: Service, owner: Caller, tmp_path: Path) -> None:
    """The owner of another project gets 404 at every URL, an empty list, and no clone."""
    publish(owner, "secret-plan", "one")
    workflow = owner.get("/workflows/secret-plan").json["id"]
    stranger = service.project(f"p-{uuid4().hex[:12]}")
    assert stranger.get("/workflows").json["workflows"] == []
    for path in ("secret-plan", workflow):
        for tail in ("", "/versions", "/versions/1", "/versions/1/definition", "/versions/current"):
            answer = stranger.get(f"/workflows/{path}{tail}")
            assert (answer.status, answer.json["code"]) == (404, "workflow_not_found")
        for method, tail in (
            ("POST", "/versions/publish"),
            ("DELETE", "/current"),
            ("DELETE", "/versions/draft"),
        ):
            assert stranger.call(method, f"/workflows/{path}{tail}").status == 404
    assert stranger.get(f"/workflows/secret-plan?project={owner.project}").status == 404
    thief = Author(tmp_path / "thief", Caller(owner.url, owner.project, stranger.token))
    output = thief.git("clone", thief.remote, str(thief.folder), check=False, within=tmp_path)
    assert "not found" in output
    assert publish(stranger, "secret-plan", "theirs") == 1


def test_a_project_without_rules_takes_any_mapping(service: Service) -> None:
    owner = service.project(f"p-{uuid4().hex[:12]}", Rules.ANY)
    body = b"apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {entrypoint: main}\n"
    assert owner.call("POST", "/workflows", {"slug": "a", "definition": body.decode()}).status == 201
    assert owner.call("POST", "/workflows/a/versions/publish").status == 201
    assert owner.definition("a", 1) == body


def test_two_pushers_race_for_a_tag(owner: Caller, tmp_path: Path) -> None:
    """In ten rounds with three authors, one push wins each version, and the others are rejected."""
    authors = [owner.author(tmp_path / name, name) for name in ("Ann", "Bob", "Eve")]
    for author in authors:
        author.git("checkout", "-q", "--orphan", "drafts/a")
    for round_ in range(1, 11):
        for author in authors:
            author.draft("a", definition(f"{author.name} {round_}"))
            author.tag("a", round_)
        with ThreadPoolExecutor(3) as pool:
            pushed = list(
                pool.map(lambda author, n=round_: author.push("--atomic", "drafts/a", f"a/v{n}"), authors)
            )
        winners = [author for author, answer in zip(authors, pushed, strict=True) if answer.ok]
        assert len(winners) == 1, [answer.output for answer in pushed]
        assert owner.definition("a", round_) == definition(f"{winners[0].name} {round_}").encode()
        for author, answer in zip(authors, pushed, strict=True):
            if author not in winners:
                assert "rejected" in answer.output
                author.git("tag", "-d", f"a/v{round_}")
                author.git("fetch", "-q", "--tags", "origin")
                author.git("reset", "-q", "--hard", f"a/v{round_}")
