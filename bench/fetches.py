"""What git reads, against `git http-backend` on the same repository, and how long the work on all takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import seeds
from bench.measures import Figure, Figures, at_least, at_most, beside, measure, ratio, seconds, shown
from bench.pushes import Target, by_git, time_and_cpu
from bench.rig import Rig
from tests.helpers import until
from tests.webhooks.upstream import upstream_in

Command = Callable[[Target, int], object]


def _targets(rig: Rig, size: int) -> tuple[Target, Target]:
    """A project here, and the same repository at git's own server."""
    project = seeds.project(size)
    ours = Target(rig.ours(project), f"/{project}.git")
    return ours, Target(rig.git, f"/git/repos/{rig.path(project).name}")


def _reading(rig: Rig, size: int, command: Command) -> Figures:
    sides = _targets(rig, size)
    here, there = rig.timed(*((target.side, partial(command, target)) for target in sides))
    return time_and_cpu(here, there)


def _git(target: Target, *arguments: str, within: Path | None = None) -> bytes:
    return by_git(*arguments, within=within, authorization=target.side.basic(0))


@measure("ls-remote", 10)
@measure("ls-remote", 1_000)
@measure("ls-remote", 10_000, time=at_most(1))
@measure("ls-remote", 100_000, time=at_most(1))
def ls_remote(rig: Rig, size: int) -> Figures:
    """git ls-remote, against http-backend."""
    return _reading(rig, size, lambda target, _: _git(target, "ls-remote", target.url))


@measure("clone", 10)
@measure("clone", 1_000)
@measure("clone", 10_000, time=at_most(1))
@measure("clone", 100_000, time=at_most(1))
def clone(rig: Rig, size: int) -> Figures:
    """git clone, against http-backend."""
    folder = rig.folder / "cloned.git"

    def cloned(target: Target, _: int) -> None:
        _git(target, "clone", "-q", "--bare", target.url, str(folder))
        shutil.rmtree(folder)

    return _reading(rig, size, cloned)


@measure("fetch", 10)
@measure("fetch", 1_000)
@measure("fetch", 10_000, time=at_most(1))
@measure("fetch", 100_000, time=at_most(1))
def fetch(rig: Rig, size: int) -> Figures:
    """git fetch that finds nothing new, against http-backend."""
    ours, _ = _targets(rig, size)
    folder = rig.folder / f"fetched-{size}.git"
    _git(ours, "clone", "-q", "--bare", ours.url, str(folder))
    specs = ("refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")
    return _reading(
        rig, size, lambda target, _: _git(target, "fetch", "-q", target.url, *specs, within=folder)
    )


@measure("fetch-one", time=at_most(1.2), CPU=at_most(1.2))
def fetch_one(rig: Rig, size: int) -> Figures:
    """git fetch of one workflow, as docs/git.md says, from the largest project against the smallest."""
    slug = seeds.slug(0)

    def fetched(target: Target, _: int) -> None:
        folder = rig.folder / "one"
        by_git("init", "-q", str(folder))
        by_git("remote", "add", "--no-tags", "-t", f"drafts/{slug}", "origin", target.url, within=folder)
        tags = f"refs/tags/{slug}/*:refs/tags/{slug}/*"
        by_git("config", "--add", "remote.origin.fetch", tags, within=folder)
        _git(target, "fetch", "-q", "origin", within=folder)
        shutil.rmtree(folder)

    sides = [_targets(rig, of)[0] for of in (rig.largest, rig.smallest)]
    here, there = rig.timed(*((target.side, partial(fetched, target)) for target in sides))
    return time_and_cpu(here, there)


# Work on all versions


def _rate(versions: int, taken: float) -> Figure:
    rate = versions / taken
    return Figure(rate, shown(taken, "s"), "", "/s")


@measure("rebuild", 10)
@measure("rebuild", 1_000)
@measure("rebuild", 10_000, rate=at_least(2_000, "/s"))
@measure("rebuild", 100_000, rate=at_least(2_000, "/s"))
def rebuild(rig: Rig, size: int) -> Figures:
    """gitstore rebuild of a project without rows (with the start of the command)."""
    project = rig.fresh("rebuilt").project
    path = rig.path(project)
    shutil.rmtree(path)
    shutil.copytree(rig.path(seeds.project(size)), path)
    return {"rate": _rate(size, seconds(lambda: rig.service.cli("rebuild", project)))}


@measure("verify", 10)
@measure("verify", 1_000)
@measure("verify", 10_000, full=at_least(2_000, "/s"))
@measure("verify", 100_000, full=at_least(2_000, "/s"))
def verify(rig: Rig, size: int) -> Figures:
    """gitstore verify of a project, full and incremental (with the start of the command)."""
    project = seeds.project(size)
    full = seconds(lambda: rig.service.cli("verify", "--full", project))
    again = seconds(lambda: rig.service.cli("verify", project))
    return {"full": _rate(size, full), "incremental": beside(again, full, "s")}


@measure("gc", 10)
@measure("gc", 1_000)
@measure("gc", 10_000, bytes=at_most(1))
@measure("gc", 100_000, bytes=at_most(1))
def gc(rig: Rig, size: int) -> Figures:
    """gitstore gc: the size of the repository after it against before."""
    project = seeds.project(size)
    before = _bytes(rig.path(project))
    taken = seconds(lambda: rig.service.cli("gc", project))
    return {"bytes": ratio(_bytes(rig.path(project)), before, "MB"), "time": beside(taken, None, "s")}


def _bytes(path: Path) -> float:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6


@measure("import", 10)
@measure("import", 1_000)
@measure("import", 10_000, time=at_most(20, "s"))
def source(rig: Rig, size: int) -> Figures:
    """tags imported from a source, from its registration until the last is readable."""
    owner = rig.fresh("imported")
    last = size // seeds.VERSIONS - 1
    with upstream_in(rig.folder / f"upstream-{size}") as upstream:
        seeds.fill(upstream.bare, seeds.script(last + 1, ledgers=False))

        def imported() -> None:
            made = owner.call("POST", "/sources", {"url": upstream.url})
            assert made.status == 201, made.raw
            path = f"/workflows/{seeds.slug(last)}/versions/{seeds.VERSIONS}"
            until(lambda: owner.get(path).status == 200, "the import does not end", seconds=600)

        return {"time": beside(seconds(imported), None, "s")}
