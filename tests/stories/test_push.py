"""Pushing drafts and publishing by tag, with stock git."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path

import pytest

from tests.stories.guide import DOCS, blocks_in
from tests.stories.instance import Author, Caller, Service, definition


def test_a_draft_is_pushed_and_read_back(ann: Author, owner: Caller) -> None:
    """Ann pushes a draft; the terminal reports the save, and HTTP serves the same bytes."""
    commit = ann.draft("order-sync", definition("one"))
    pushed = ann.push("drafts/order-sync")
    assert pushed.ok, pushed.output
    assert "remote: order-sync: draft saved, 2 nodes, 1 edge" in pushed.output
    assert owner.definition("order-sync", "draft") == definition("one").encode()
    draft = owner.get("/workflows/order-sync/versions/draft").json
    assert (draft["state"], draft["version_number"], draft["commit"]) == ("draft", 1, commit)
    assert draft["author"] == {"name": "Ann", "email": "ann@example.test"}
    assert owner.get("/workflows/order-sync/versions/current").status == 404


def test_a_tag_publishes(ann: Author, owner: Caller) -> None:
    """The version has the annotated tag's message and publisher, and is current."""
    ann.draft("order-sync", definition("one"))
    ann.tag("order-sync", 1, "The first")
    pushed = ann.push("drafts/order-sync", "order-sync/v1")
    assert pushed.ok, pushed.output
    assert f"published order-sync v1: {owner.url}/ui/workflows/order-sync/versions/1" in pushed.output
    version = owner.get("/workflows/order-sync/versions/current").json
    assert (version["version_number"], version["state"], version["is_current"]) == (1, "published", True)
    assert version["message"] == "The first"
    assert version["published_by"]
    assert owner.get("/workflows/order-sync/versions/draft").status == 404


def test_a_lightweight_tag_publishes_too(ann: Author, owner: Caller) -> None:
    """It also moves the draft, which was not pushed itself."""
    ann.draft("a", definition("one"))
    ann.push("drafts/a")
    ann.draft("a", definition("two"))
    ann.git("tag", "a/v1")
    assert ann.push("a/v1").ok
    assert owner.definition("a", 1) == definition("two").encode()
    assert ann.git("ls-remote", "origin", "refs/heads/drafts/a").split()[0] == ann.git("rev-parse", "HEAD")


def test_a_moved_and_a_deleted_tag_are_refused(ann: Author, owner: Caller) -> None:
    """By force, by delete, by any role: the version stays, and the terminal names the next one."""
    ann.draft("a", definition("one"))
    ann.tag("a", 1)
    ann.push("drafts/a", "a/v1")
    ann.draft("a", definition("two"))
    ann.git("tag", "-fa", "a/v1", "-m", "moved")
    for arguments in (("--force", "a/v1"), (":refs/tags/a/v1",), ("--force", "--atomic", "drafts/a", "a/v1")):
        pushed = ann.push(*arguments)
        assert not pushed.ok
        assert "v1 is published and can't change; the next version is v2" in pushed.output
    assert owner.definition("a", 1) == definition("one").encode()


def test_eleven_versions_are_pushed_at_once_and_again(ann: Author, owner: Caller) -> None:
    """`git push --tags` sends them as v1, v10, v11, v2: all are published, also when repeated."""
    for number in range(1, 12):
        ann.draft("a", definition(f"v{number}"))
        ann.tag("a", number)
    pushed = ann.push("--tags", "drafts/a")
    assert pushed.ok, pushed.output
    history = owner.get("/workflows/a/versions?limit=100").json["versions"]
    assert [version["version_number"] for version in history] == list(range(11, 0, -1))
    again = ann.push("--tags")
    assert again.ok, again.output
    assert "Everything up-to-date" in again.output


def test_a_wrong_number_is_refused_with_the_commands_to_correct_it(ann: Author) -> None:
    ann.draft("order-sync", definition("one"))
    ann.tag("order-sync", 7)
    pushed = ann.push("drafts/order-sync", "order-sync/v7")
    assert not pushed.ok
    assert "git tag -d order-sync/v7 && git tag -a order-sync/v1" in pushed.output
    ann.git("tag", "-d", "order-sync/v7")
    ann.tag("order-sync", 1)
    assert ann.push("order-sync/v1").ok


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("nodes:\n  - {id: a, id: b}\n", "line 2, column 13"),
        ("[" * 60_000, "line 1"),
        ("a0: &a0 [x, x]\n" + "".join(
            f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)), "line"),
        ("nodes: \x00\n", "line 1, column 8"),
    ],
    ids=["duplicate key", "deep", "aliases", "NUL"],
)  # fmt: skip
def test_an_unparsable_definition_is_refused_with_line_and_column(
    ann: Author, owner: Caller, content: str, where: str
) -> None:
    """In the terminal and over HTTP, and the service continues."""
    ann.draft("a", content)
    pushed = ann.push("drafts/a")
    assert not pushed.ok
    assert where in pushed.output
    answer = owner.call("POST", "/workflows", {"slug": "a", "definition": content.replace("\0", "\x01")})
    assert answer.status == 422
    assert answer.json["problems"][0]["line"] >= 1
    assert ann.push("drafts/a").ok is False
    assert owner.get("/readyz").status == 200


def test_an_invalid_definition_is_saved_with_warnings_and_not_published(ann: Author) -> None:
    ann.draft("a", definition("one", url=""))
    ann.tag("a", 1)
    saved = ann.push("drafts/a")
    assert saved.ok
    assert 'nodes[1] "call-1": url is required for an HTTP call' in saved.output
    assert "1 problem would block publishing" in saved.output
    published = ann.push("a/v1")
    assert not published.ok
    assert 'nodes[1] "call-1": url is required for an HTTP call' in published.output


def test_a_tag_whose_base_moved_is_refused_until_it_is_merged(
    ann: Author, owner: Caller, tmp_path: Path
) -> None:
    """Bob's v2 was published after Ann's draft began: the terminal advises to merge it, and that works."""
    ann.draft("a", definition("one"))
    ann.tag("a", 1)
    ann.push("drafts/a", "a/v1")
    bob = owner.author(tmp_path / "bob", "Bob")
    bob.draft("a", definition("bob"))
    bob.tag("a", 2)
    assert bob.push("drafts/a", "a/v2").ok
    ann.draft("a", definition("ann"))
    ann.tag("a", 3)
    refused = ann.push("a/v3")
    assert not refused.ok
    assert "v2 was published after this draft began: git merge a/v2, then tag again" in refused.output
    stale = ann.push("drafts/a")
    assert "the draft moved since you fetched" in stale.output or "fetch first" in stale.output
    ann.git("fetch", "-q", "--tags", "origin")
    ann.git("merge", "-q", "-s", "ours", "-m", "Take v2 into account", "a/v2")
    ann.git("tag", "-d", "a/v3")
    ann.tag("a", 3)
    assert ann.push("drafts/a", "a/v3").ok
    assert owner.definition("a", "current") == definition("ann").encode()


def test_the_commands_after_a_moved_base_can_be_pasted(ann: Author, owner: Caller, tmp_path: Path) -> None:
    """As printed in the terminal, although Ann's clone has another v2, of a late attempt."""
    ann.draft("a", definition("one"))
    ann.tag("a", 1)
    ann.push("drafts/a", "a/v1")
    bob = owner.author(tmp_path / "bob", "Bob")
    bob.git("checkout", "-q", "drafts/a")
    (bob.folder / "notes.md").write_text("Bob's\n")
    bob.git("add", "notes.md")
    bob.git("commit", "-qm", "Take notes")
    bob.tag("a", 2)
    assert bob.push("drafts/a", "a/v2").ok
    ann.draft("a", definition("ann"))
    ann.tag("a", 2)
    assert not ann.push("a/v2").ok  # by her own git
    ann.tag("a", 3)
    said = ann.push("a/v3").output
    ways = [line.strip() for line in re.findall(r"remote:   (git .*)", said)]
    assert len(ways) == 2, said
    for way in ways:
        ann.paste(way)
    assert owner.definition("a", "current") == definition("ann").encode()


def test_a_rewritten_draft_is_refused_and_can_be_replaced(ann: Author, owner: Caller) -> None:
    """Deleting the draft and pushing again works; the old head is kept."""
    first = ann.draft("a", definition("one"))
    ann.push("drafts/a")
    ann.git("commit", "-q", "--amend", "-m", "other words")
    refused = ann.push("--force", "drafts/a")
    assert not refused.ok
    assert "rebase onto it, or delete the draft and push again (the old one is kept)" in refused.output
    assert ann.push("--delete", "drafts/a").ok
    assert ann.push("drafts/a").ok
    ann.git("fetch", "-q", "origin", "refs/superseded/*:refs/superseded/*")
    assert first in ann.git("for-each-ref", "refs/superseded/a")
    assert owner.get("/workflows/a/versions/draft").status == 200


def test_a_mirror_push_destroys_nothing(ann: Author, owner: Caller, tmp_path: Path) -> None:
    """From a plain clone, and from a bare one that lacks a newer draft: refused, nothing lost."""
    ann.draft("a", definition("one"))
    ann.push("drafts/a")
    bare = Author(tmp_path / "bare.git", owner)
    bare.clone("--bare")
    ann.draft("b", definition("two"))
    ann.push("drafts/b")
    plain = owner.author(tmp_path / "plain")
    before = ann.git("ls-remote", "origin")
    for pusher in (plain, bare):
        pushed = pusher.push("--mirror")
        assert not pushed.ok
        assert ann.git("ls-remote", "origin") == before


def test_an_atomic_push_is_all_or_nothing(ann: Author, owner: Caller) -> None:
    """One refused tag refuses the draft, too; without it, both are accepted."""
    ann.draft("a", definition("one"))
    ann.tag("a", 5)
    refused = ann.push("--atomic", "drafts/a", "a/v5")
    assert not refused.ok
    assert owner.get("/workflows/a").status == 404
    ann.git("tag", "-d", "a/v5")
    ann.tag("a", 1)
    assert ann.push("--atomic", "drafts/a", "a/v1").ok


def test_a_shallow_clone_can_push_on(ann: Author, owner: Caller, tmp_path: Path) -> None:
    """From depth 1, a draft and a version."""
    for number in (1, 2):
        ann.draft("a", definition(f"v{number}"))
        ann.tag("a", number)
    pushed = ann.push("drafts/a", "--tags")
    assert pushed.ok, pushed.output
    shallow = Author(tmp_path / "shallow", owner, "Eve")
    shallow.clone("--depth", "1", "--branch", "drafts/a")
    shallow.draft("a", definition("v3"))
    shallow.tag("a", 3)
    pushed = shallow.push("drafts/a", "a/v3")
    assert pushed.ok, pushed.output


def test_ten_mebibytes_come_in_chunks(ann: Author, service: Service, owner: Caller) -> None:
    """git sends chunked above 1 MiB; incompressible notes beside the definition are kept."""
    import random

    notes = random.Random(7).randbytes(2 * 2**20)  # noqa: S311
    for number in range(5):
        (ann.folder / f"notes-{number}").write_bytes(notes[number:])
    ann.git("add", ".")
    ann.draft("a", definition("one"))
    pushed = ann.push("drafts/a")
    assert pushed.ok, pushed.output
    ann.git("fsck", "--strict")


def test_a_pack_over_the_limit_is_refused_with_the_limit(ann: Author) -> None:
    """The whole pack is read, so that git shows the answer and not a broken pipe."""
    import random

    for number in range(6):
        (ann.folder / f"n-{number}").write_bytes(random.Random(number).randbytes(3 * 2**20))  # noqa: S311
    ann.git("add", ".")
    ann.draft("a", definition("one"))
    pushed = ann.push("drafts/a")
    assert not pushed.ok
    assert "the limit is 16,777,216" in pushed.output


def test_the_ledger_can_be_fetched(ann: Author) -> None:
    """Actor, time and reason are in git's log."""
    ann.draft("a", definition("one"))
    ann.tag("a", 1, "Why not")
    ann.push("drafts/a", "a/v1")
    ann.git("fetch", "-q", "origin", "refs/ledger/*:refs/ledger/*")
    log = ann.git("log", "--format=%an%n%B", "refs/ledger/a")
    assert "Published a v1" in log
    assert "Gitstore-Current: v1" in log
    assert "owner of" in log
    refused = ann.push("--force", "HEAD:refs/ledger/a")
    assert not refused.ok


def test_one_workflow_is_fetched_alone(ann: Author, owner: Caller, tmp_path: Path) -> None:
    """By the lines of docs/git.md: git asks for no other refs, and pulls and pushes as a clone does."""
    for slug in ("orders", "orders-2"):
        ann.draft(slug, definition(slug))
        ann.tag(slug, 1)
    assert ann.push("drafts/orders", "orders/v1", "drafts/orders-2", "orders-2/v1").ok
    (lines,) = blocks_in((DOCS / "git.md").read_text().partition("### One workflow alone")[2])
    script = lines.text.replace("http://<host>/<project>.git", ann.remote)
    Author(tmp_path, owner).paste(f"export GIT_TRACE_PACKET={tmp_path}/packets\n{script}")
    asked = re.findall(r"fetch> ref-prefix (\S+)", (tmp_path / "packets").read_text())
    assert asked
    assert [prefix for prefix in asked if "orders" not in prefix] == []
    alone = Author(tmp_path / "orders", owner)
    assert alone.git("for-each-ref", "--format=%(refname)").splitlines() == [
        "refs/heads/drafts/orders", "refs/remotes/origin/drafts/orders", "refs/tags/orders/v1"
    ]  # fmt: skip

    commit = alone.draft("orders", definition("two"))
    alone.tag("orders", 2)
    pushed = alone.push("drafts/orders", "orders/v2")
    assert pushed.ok, pushed.output
    assert owner.definition("orders", 2) == definition("two").encode()
    ann.git("checkout", "-q", "drafts/orders")
    ann.git("pull", "-q", "origin", "drafts/orders")
    ann.draft("orders", definition("three"))
    ann.tag("orders", 3)
    assert ann.push("drafts/orders", "orders/v3").ok
    alone.git("pull", "-q")
    assert alone.git("rev-parse", "HEAD~1") == commit
    assert alone.git("tag").split() == ["orders/v1", "orders/v2", "orders/v3"]


def test_a_clone_checks_out_the_newest_draft(ann: Author, owner: Caller, tmp_path: Path) -> None:
    """The remote's HEAD names it; a fetch by protocol v2 and a partial clone work."""
    for slug in ("a", "b", "c"):
        ann.draft(slug, definition(slug))
        ann.push(f"drafts/{slug}")
    clone = owner.author(tmp_path / "clone")
    assert clone.git("branch", "--show-current") == "drafts/c"
    partial = Author(tmp_path / "partial", owner)
    partial.clone("--filter=blob:none")
    assert (partial.folder / "workflow.yaml").read_text() == definition("c")


def test_without_a_token_git_is_asked_for_one(owner: Caller, tmp_path: Path) -> None:
    """401 with WWW-Authenticate: Basic; a wrong password is reported."""
    answer = Caller(owner.url, owner.project, "nonsense").get(
        f"/{owner.project}.git/info/refs?service=git-upload-pack"
    )
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="gitstore"')
    stranger = Author(tmp_path / "x", Caller(owner.url, owner.project, "gst_" + "x" * 43))
    assert "Authentication failed" in stranger.git(
        "clone", stranger.remote, str(stranger.folder), check=False, within=tmp_path
    )
    assert "remote: the access token is unknown, revoked or expired" in stranger.git(
        "ls-remote", stranger.remote, check=False, within=tmp_path
    )


def test_git_prints_why_a_repository_cannot_be_read_or_pushed(
    ann: Author, service: Service, owner: Caller, tmp_path: Path
) -> None:
    """403 and 404 are text, also at an address that no project can have."""
    ann.draft("a", definition("one"))
    reader = Author(ann.folder, service.caller(owner.project, "viewer"))
    pushed = reader.push("drafts/a")
    assert not pushed.ok
    assert "remote: pushing requires the role" in pushed.output
    for path, line in (
        ("nowhere.git", "remote: there is no project 'nowhere'"),
        ("acme/flows.git", f"remote: no repository is at /acme/flows.git: clone {owner.url}/<project>.git"),
        ("", f"remote: no repository is at /: clone {owner.url}/<project>.git"),
    ):
        assert line in ann.git("ls-remote", f"{owner.url}/{path}", check=False), path


def test_an_address_without_git_at_its_end_works(ann: Author, owner: Caller) -> None:
    """Clone, fetch and push, as forges accept it."""
    ann.git("remote", "set-url", "origin", ann.remote.removesuffix(".git"))
    ann.draft("a", definition("one"))
    pushed = ann.push("drafts/a")
    assert pushed.ok, pushed.output
    Author(ann.folder.parent / "again", owner).git(
        "clone", "-q", ann.remote.removesuffix(".git"), "again", within=ann.folder.parent
    )
    assert (ann.folder.parent / "again/workflow.yaml").read_text() == definition("one")


@pytest.mark.parametrize("protocol", ["0", "1", "2"])
def test_a_partial_clone_fetches_what_it_lacks(
    ann: Author, owner: Caller, tmp_path: Path, protocol: str
) -> None:
    """By each version of the protocol: files at checkout, and older ones when they are read."""
    for label in ("one", "two"):
        ann.draft("a", definition(label))
    assert ann.push("drafts/a").ok
    partial = Author(tmp_path / "partial", owner)
    partial.clone("-c", f"protocol.version={protocol}", "--filter=blob:none")
    assert (partial.folder / "workflow.yaml").read_text() == definition("two")
    assert partial.git("show", "HEAD~1:workflow.yaml") == definition("one").strip()


def test_a_commit_without_a_ref_is_not_fetched_by_its_id(
    ann: Author, service: Service, tmp_path: Path
) -> None:
    """By protocol version 0, as by git's own server; an older commit of a draft is."""
    older = ann.draft("a", definition("one"))
    head = ann.draft("a", definition(ann.caller.project))  # in no other repository
    assert ann.push("drafts/a").ok
    drafts = (service.data / "repos").glob("*.git/refs/heads/drafts/a")
    (repository,) = (draft.parents[3] for draft in drafts if draft.read_text().strip() == head)
    unreachable = ann.git("commit-tree", f"{head}^{{tree}}", "-m", "Lost", within=repository)
    other = Author(tmp_path / "other", ann.caller)
    other.clone()
    plain = ("-c", "protocol.version=0", "fetch", "origin")
    assert other.run(*plain, older).ok
    refused = other.run(*plain, unreachable)
    assert not refused.ok
    assert f"not our ref {unreachable}" in refused.output


def test_caches_do_not_keep_what_git_reads(owner: Caller) -> None:
    """The headers are those of git's own server."""
    credentials = b64encode(f"git:{owner.token}".encode()).decode()
    path = f"/{owner.project}.git"
    for service in ("git-upload-pack", "git-receive-pack"):
        headers = {
            "Authorization": f"Basic {credentials}",
            "Content-Type": f"application/x-{service}-request",
        }
        for answer in (
            owner.call("GET", f"{path}/info/refs?service={service}", headers=headers),
            owner.call("POST", f"{path}/{service}", b"0000", headers=headers),
        ):
            assert answer.status == 200
            assert answer.headers["Cache-Control"] == "no-cache, max-age=0, must-revalidate"
            assert answer.headers["Pragma"] == "no-cache"
            assert answer.headers["Expires"] == "Fri, 01 Jan 1980 00:00:00 GMT"


def test_git_archive_is_refused_in_words(ann: Author, owner: Caller) -> None:
    """As git 2.44 and newer ask: by an ERR packet; at the advertisement by text. A stranger gets 401."""
    credentials = b64encode(f"git:{owner.token}".encode()).decode()
    headers = {
        "Authorization": f"Basic {credentials}",
        "Content-Type": "application/x-git-upload-archive-request",
    }
    path = f"/{owner.project}.git"
    answer = owner.call("POST", f"{path}/git-upload-archive", b"0000", headers=headers)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-git-upload-archive-result")
    assert answer.raw[4:].startswith(b"ERR git archive --remote is not supported: clone the repository")
    assert int(answer.raw[:4], 16) == len(answer.raw)
    answer = owner.call("GET", f"{path}/info/refs?service=git-upload-archive", headers=headers)
    assert (answer.status, answer.raw[:21]) == (403, b"git archive --remote ")
    assert owner.call("POST", f"{path}/git-upload-archive", b"0000").status == 401


def test_a_large_project_shows_a_pusher_what_a_push_needs(
    ann: Author, owner: Caller, service: Service, tmp_path: Path
) -> None:
    """Of more than 2,000 refs: the drafts, and not all tags. Pushes work as before, and a fetch sees all."""
    ann.draft("a", definition("one"))
    ann.tag("a", 1)
    ann.draft("c", definition("c"))
    ann.tag("c", 1)
    ann.draft("b", definition("b"))
    assert ann.push("drafts/a", "a/v1", "drafts/b", "c/v1").ok
    head = ann.git("rev-parse", "HEAD")
    project = owner.get(f"/projects/{owner.project}").json["id"]
    repository = service.data / "repos" / f"{project}.git"
    refs = "".join(f"{head} refs/superseded/b/{20200101000000 + n}Z\n" for n in range(2_100))
    (repository / "packed-refs").write_text(f"# pack-refs with: peeled fully-peeled sorted \n{refs}")
    credentials = b64encode(f"git:{owner.token}".encode()).decode()
    place = f"/{owner.project}.git/info/refs?service=git-receive-pack"
    shown = owner.call("GET", place, headers={"Authorization": f"Basic {credentials}"}).raw
    assert b"refs/heads/drafts/b" in shown
    assert b"refs/tags/a/v1" not in shown
    assert b"refs/tags/c/v1" in shown  # which has no branch
    assert b"refs/superseded" not in shown
    assert shown.count(b"refs/ledger/") == 1
    before = ann.git("ls-remote", "origin")
    assert before.count("refs/superseded/b/") == 2_100

    plain = owner.author(tmp_path / "plain")
    refused = plain.push("--mirror")
    assert not refused.ok
    assert ann.git("ls-remote", "origin") == before
    ann.draft("a", definition("two"))
    ann.tag("a", 2)
    again = ann.push("a/v1", "a/v2", "drafts/a", "drafts/b")
    assert again.ok, again.output
    assert owner.definition("a", 2) == definition("two").encode()
    moved = ann.push("--force", "a/v2:refs/tags/a/v1")
    assert "v1 is published and can't change" in moved.output


def test_a_mirror_clone_has_nothing_to_push(ann: Author, owner: Caller, tmp_path: Path) -> None:
    """Heads of discarded drafts and ledgers are known to be there, and are not listed as new references."""
    ann.draft("a", definition("one"))
    ann.tag("a", 1)
    assert ann.push("drafts/a", "a/v1").ok
    assert ann.push("--delete", "drafts/a").ok
    mirror = Author(tmp_path / "mirror", owner)
    mirror.clone("--mirror")
    assert "refs/superseded/a/" in mirror.git("for-each-ref")
    pushed = mirror.run("push")
    assert pushed.ok
    assert pushed.output.strip() == "Everything up-to-date"
