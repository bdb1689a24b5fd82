"""Changes made with a shell on the server: a published version does not change unnoticed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.helpers import object_file, until
from tests.stories.instance import Author, Caller, Service, contents, definition, everything


@pytest.fixture
def owner(own_service: Service) -> Caller:
    owner = own_service.owner
    for label in ("one", "two", "three"):
        owner.publish("a", label)
    owner.publish("b", "other")
    return owner


def git(service: Service, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "--git-dir", str(service.repository), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_removed_tag_is_not_used_again(own_service: Service, owner: Caller, tmp_path: Path) -> None:
    """Neither git nor HTTP publishes its number; verify names the repair, which restores it."""
    ann = owner.author(tmp_path / "ann")
    before = git(own_service, "for-each-ref")
    git(own_service, "update-ref", "-d", "refs/tags/a/v3")
    commit = ann.draft("a", definition("mine"))
    ann.git("tag", "-f", "a/v3", commit)
    assert not ann.push("-f", "a/v3").ok
    assert not ann.push("-f", "drafts/a").ok
    owner.call("POST", "/workflows/a/versions", {"definition": definition("mine")})
    refused = owner.call("POST", "/workflows/a/versions/publish")
    assert (refused.status, refused.json["code"]) == (409, "integrity")
    for number, label in ((1, "one"), (2, "two"), (3, "three")):
        assert owner.definition("a", number) == definition(label).encode()
    owner.publish("b", "goes on")
    report = own_service.cli("verify", check=False)
    assert report.returncode == 1
    assert "a/v3: " in report.stdout
    assert "gitstore repair" in report.stdout
    assert own_service.cli("rebuild", check=False).returncode == 1
    assert own_service.cli("verify", check=False).returncode == 1, "rebuild does not hide it"
    repaired = own_service.cli("repair")
    assert "refs/tags/a/v3: restored to " in repaired.stdout
    assert set(before.splitlines()) - set(git(own_service, "for-each-ref").splitlines()) <= {
        line for line in before.splitlines() if line.endswith(("/b", "HEAD"))
    }
    assert own_service.cli("verify").returncode == 0


def test_a_damaged_ref_and_a_corrupt_object_leave_the_others_readable(
    own_service: Service, owner: Caller, tmp_path: Path
) -> None:
    """HTTP serves every version, from Postgres if need be, and git the others; verify reports the damage."""
    path = own_service.repository
    (path / "refs/tags/a/v2").write_bytes(b"\0" * 41)
    blob = git(own_service, "rev-parse", "b/v1:workflow.yaml")
    broken = object_file(path, blob)
    broken.chmod(0o644)
    broken.write_bytes(b"torn")
    for number, label in ((1, "one"), (2, "two"), (3, "three")):
        assert owner.definition("a", number) == definition(label).encode()
    assert owner.get("/workflows/b/versions/1/definition").status == 200
    # A full clone needs the corrupt blob, a fetch of the others does not.
    clone = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    author = Author(clone, owner)
    author.git("fetch", "-q", author.remote, "refs/tags/a/v1:refs/tags/a/v1", "refs/tags/a/v3:refs/tags/a/v3")
    assert author.git("show", "a/v3:workflow.yaml") + "\n" == definition("three")
    report = own_service.cli("verify", "--full", check=False).stdout
    assert "a/v2: its tag is damaged" in report
    assert blob in report
    repaired = own_service.cli("repair", check=False)
    assert "refs/tags/a/v2: restored" in repaired.stdout
    assert blob in repaired.stderr, "repair reports what it cannot restore"


def test_gc_beside_the_running_service(own_service: Service, owner: Caller) -> None:
    """It packs everything, and the service continues."""
    until(
        lambda: "pruned no objects, 1 pack" in own_service.cli("gc").stdout, "the worker's own does not end"
    )
    owner.publish("a", "four")
    for number, label in enumerate(("one", "two", "three", "four"), 1):
        assert owner.definition("a", number) == definition(label).encode()
    assert own_service.cli("verify").returncode == 0


def test_no_secret_is_written_anywhere(own_service: Service, owner: Caller, tmp_path: Path) -> None:
    """The owner's token is in no log, repository, argument or answer, and in rows only as a digest."""
    ann = owner.author(tmp_path / "ann")
    ann.draft("c", definition("pushed"))
    assert ann.push("drafts/c").ok
    wrong = owner.token[:-4] + "zzzz"
    answers = [
        Caller(owner.url, "default", wrong).get("/workflows").raw,
        owner.get(f"/workflows/{owner.token}").raw,
        owner.get(f"/workflows?project={owner.token}").raw,
        owner.get(f"/workflows?token={owner.token}").raw,
        owner.get(f"/{owner.token}.git/info/refs?service=git-upload-pack").raw,
        owner.call("POST", "/workflows", {"slug": owner.token}).raw,
        owner.call("PUT", "/workflows/a/current", {"version": owner.token}).raw,
        owner.get("/workflows/a").raw,
    ]
    secret = owner.token
    for token in (wrong, secret):
        assert token.encode() not in b"".join(answers)
    assert secret not in own_service.log()
    for path, content in contents(own_service.repository):
        assert secret.encode() not in content, path
    assert not (own_service.repository / "logs").exists(), "a reflog"
    with own_service.owning() as tx:
        assert secret not in " ".join(everything(tx))
    assert secret not in own_service.arguments()
