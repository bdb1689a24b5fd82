"""Publishing over HTTP, rolling back at night, and what other tenants see: nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from gitstore.model import Rules
from tests.stories.instance import Author, Caller, Service, definition

YAML = {"Content-Type": "application/yaml"}


def publish(owner: Caller, slug: str, label: str, **body: object) -> int:
    """Save a draft over HTTP, making the workflow where there is none, and publish it."""
    if owner.get(f"/workflows/{slug}").status == 404:
        made = owner.call("POST", "/workflows", {"slug": slug, "definition": definition(label)})
    else:
        made = owner.call("POST", f"/workflows/{slug}/versions", {"definition": definition(label)})
    assert made.status == 201, made.raw
    answer = owner.call("POST", f"/workflows/{slug}/versions/publish", body)
    assert answer.status == 201, answer.raw
    return int(answer.json["version_number"])


def test_publishing_over_http_makes_a_tag(owner: Caller, tmp_path: Path) -> None:
    """201, then 200 with the same version; git fetches the tag, and the bytes are those that came in."""
    made = owner.call(
        "POST", "/workflows", {"slug": "a", "name": "Order sync", "definition": definition("one")}
    )
    assert made.status == 201
    first = owner.call("POST", "/workflows/a/versions/publish", {"message": "Go"})
    second = owner.call("POST", "/workflows/a/versions/publish", {"message": "Go"})
    assert (first.status, second.status) == (201, 200)
    assert first.json["id"] == second.json["id"]
    ann = owner.author(tmp_path / "ann")
    assert ann.git("show", "a/v1:workflow.yaml") + "\n" == definition("one")
    assert ann.git("tag", "-l", "--format=%(contents)", "a/v1") == "Go"
    assert owner.definition("a", 1) == definition("one").encode()


def test_a_draft_saved_over_http_and_pushed_on_with_git(owner: Caller, tmp_path: Path) -> None:
    """Both doors lead to the same branch, and each notices the other."""
    made = owner.call("POST", "/workflows", {"slug": "a", "definition": definition("http")})
    etag = made.headers["ETag"]
    ann = owner.author(tmp_path / "ann")
    ann.draft("a", definition("git"))
    assert ann.push("drafts/a").ok
    stale = owner.call(
        "PUT", "/workflows/a/versions/draft", definition("late").encode(), headers={"If-Match": etag, **YAML}
    )
    assert stale.status == 412
    assert stale.json["code"] == "stale_draft"
    assert stale.json["author"]["name"] == "Ann"
    missing = owner.call("PUT", "/workflows/a/versions/draft", definition("late").encode(), headers=YAML)
    assert missing.status == 428
    saved = owner.call(
        "PUT", "/workflows/a/versions/draft", definition("late").encode(),
        headers={"If-Match": stale.json["etag"], **YAML},
    )  # fmt: skip
    assert saved.status == 200
    ann.draft("a", definition("behind"))
    refused = ann.push("drafts/a")
    assert not refused.ok
    assert "fetch first" in refused.output or "the draft moved since you fetched" in refused.output


def test_the_rollback_at_night_and_back_in_the_morning(owner: Caller) -> None:
    """v3 breaks; v2 runs again, held, so that nobody's publication moves it; then v4 is made current."""
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


def test_reverting_makes_a_draft_and_leaves_what_runs(owner: Caller) -> None:
    """A new commit with the old content, to be published like any other."""
    for label in ("one", "two"):
        publish(owner, "a", label)
    reverted = owner.call("POST", "/workflows/a/versions/1/revert", {})
    assert reverted.status == 201, reverted.raw
    assert owner.definition("a", "draft") == definition("one").encode()
    assert owner.definition("a", "current") == definition("two").encode()
    assert owner.call("POST", "/workflows/a/versions/publish").json["version_number"] == 3


def test_history_pages_through_every_version_once(owner: Caller) -> None:
    """An open draft first, then newest first, by the cursor that Link names."""
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
    """Another project's owner: 404 for every address, nothing in the list, no clone."""
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
    said = thief.git("clone", thief.remote, str(thief.folder), check=False, within=tmp_path)
    assert "not found" in said
    assert publish(stranger, "secret-plan", "theirs") == 1


def test_a_project_without_rules_takes_any_mapping(service: Service) -> None:
    """Any YAML or JSON mapping that parses."""
    owner = service.project(f"p-{uuid4().hex[:12]}", Rules.ANY)
    body = b"apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {entrypoint: main}\n"
    assert owner.call("POST", "/workflows", {"slug": "a", "definition": body.decode()}).status == 201
    assert owner.call("POST", "/workflows/a/versions/publish").status == 201
    assert owner.definition("a", 1) == body


def test_two_pushers_race_for_a_tag(owner: Caller, tmp_path: Path) -> None:
    """Ten rounds, three authors: each version has one winner, and every loser is told so."""
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
