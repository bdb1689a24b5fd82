"""docs/releases.md, read as a newcomer reads it: its blocks run with stock git, curl and the command line."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.stories.guide import Guide, Shell
from tests.stories.instance import Caller, Service, definition


@pytest.fixture
def guide() -> Guide:
    return Guide("releases.md", {})


@pytest.fixture
def shell(owner: Caller, service: Service, guide: Guide, tmp_path: Path) -> Iterator[Shell]:
    """A shell in Ann's clone, with an operator's `gitstore` for her project, after the first block."""
    for slug in ("billing", "order-sync", "prices", "shipping", "stock"):
        owner.publish(slug, f"{slug} one")
    ann = owner.author(tmp_path / "ann", "Ann")
    program = tmp_path / "bin/gitstore"
    program.parent.mkdir()
    command = shlex.join([sys.executable, "-m", "service.cli"])
    program.write_text(f'#!/bin/sh\nexec {command} "$@" --project {owner.project}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {
        **service.settings(),
        **ann.environment,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "GITSTORE": owner.url,
        "TOKEN": owner.token,
    }
    with closing(Shell(ann.folder, environment)) as opened:
        opened.follow(guide.section("In a shell"))
        yield opened


def publish(owner: Caller, slug: str, last: int) -> None:
    """Publish v2 to v<last>."""
    for number in range(2, last + 1):
        body = {"definition": definition(f"{slug} {number}")}
        assert owner.call("POST", f"/workflows/{slug}/versions/publish", body).status == 201


def current(owner: Caller, slug: str) -> int:
    number: int = owner.get(f"/workflows/{slug}").json["current"]["version_number"]
    return number


def in_prod(owner: Caller, slug: str) -> int | None:
    number: int | None = owner.get(f"/workflows/{slug}/environments/prod").json["version_number"]
    return number


def test_a_promotion_at_noon_is_taken_back_at_night(guide: Guide, shell: Shell, owner: Caller) -> None:
    """With git and curl alone: the next publication does not reach prod, which is held."""
    *_, noon, _ = shell.follow(guide.section("To prod at noon, and back at night"))
    assert '"refusals":[]' in noon
    assert (in_prod(owner, "order-sync"), in_prod(owner, "stock")) == (1, 1)
    publish(owner, "order-sync", 3)
    assert in_prod(owner, "order-sync") == 1


def test_five_workflows_are_released_and_rolled_back(guide: Guide, shell: Shell, owner: Caller) -> None:
    """With git and curl alone: all five are current at once, and none of them afterwards."""
    released, _ = shell.follow(guide.section("Five workflows at once, and back"))
    assert released.count('"published":true') == 5
    assert [current(owner, slug) for slug in ("billing", "prices", "stock")] == [1, 1, 1]


def test_a_bad_version_is_withdrawn_and_pinned_runs_go_on(guide: Guide, shell: Shell, owner: Caller) -> None:
    """With git and curl alone: the version is read by its number, and nothing new selects it."""
    publish(owner, "order-sync", 2)
    _, pinned, _ = shell.follow(guide.section("A bad version, without breaking pinned runs"))
    assert "name: order-sync 2\n" in pinned
    assert owner.definition("order-sync", 2) == definition("order-sync 2").encode()
    assert current(owner, "order-sync") == 1
    read = owner.get("/workflows/order-sync/versions/2")
    assert (read.status, read.json["yanked"]) == (200, True)


def test_every_other_block_runs_with_the_command_line(guide: Guide, shell: Shell, owner: Caller) -> None:
    publish(owner, "order-sync", 7)
    publish(owner, "stock", 7)
    shell.follow(guide.section("Environments"))
    assert (in_prod(owner, "order-sync"), in_prod(owner, "stock")) == (3, 7)
    for slug in ("order-sync", "prices"):
        assert owner.save(slug, "autumn") == 201
    assert owner.call("PUT", "/workflows/order-sync/environments/staging", {"version": 5}).status == 200
    (scheduled,) = shell.follow(guide.section("Later"))
    kinds = ("publish", "move", "promote")
    assert [scheduled.count(f"order-sync  {kind} ") for kind in kinds] == [2, 2, 2]  # made, and listed
    shell.follow(guide.section("Several workflows at once"))
    assert (current(owner, "order-sync"), current(owner, "prices")) == (8, 2)
    (yanked,) = shell.follow(guide.section("Withdraw a version"))
    assert "It loses orders" in yanked
    stories = (
        "To prod at noon, and back at night",
        "Five workflows at once, and back",
        "A bad version, without breaking pinned runs",
    )
    assert guide.unread.keys() == {*stories}
