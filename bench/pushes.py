"""Pushes, against `git http-backend` behind lighttpd: raw requests with packs made before, and stock git."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from dulwich.protocol import pkt_line

from bench import seeds
from bench.load import Job, Operation, request
from bench.measures import Figures, at_least, at_most, beside, measure, median, p99, ratio
from bench.rig import Load, Rig, Side
from gitstore import names
from gitstore.git.process import git
from gitstore.push.request import ZERO
from tests.stories.instance import PLAIN

_CAPABILITIES = b"report-status side-band-64k agent=git/bench"
_TYPE = {"Content-Type": "application/x-git-receive-pack-request"}
LOOK = "/info/refs?service=git-receive-pack"
_NUMBERS = count(1)

Update = tuple[bytes, bytes, bytes]
"""Old and new object id, and ref."""


def by_git(
    *arguments: str, within: Path | None = None, given: bytes = b"", authorization: str = "-"
) -> bytes:
    """Run git, without the settings of this machine; return its output."""
    header = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: {authorization}",
    }
    done = subprocess.run(
        [git(), *arguments], cwd=within, env={**PLAIN, **header}, input=given, capture_output=True, check=True
    )
    return done.stdout


class Work:
    """A repository with all that will be pushed: `versions` of each of `slugs`."""

    def __init__(self, rig: Rig, slugs: Sequence[str], versions: int) -> None:
        self.folder = rig.folder / f"work-{next(_NUMBERS)}.git"
        by_git("init", "-q", "--bare", str(self.folder))
        parts = (part for slug in slugs for part in seeds.workflow(slug, versions, ledgers=False))
        seeds.fill(self.folder, parts)
        listed = self._git("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", "refs/tags")
        self._held = {ref.encode(): oids for ref, *oids in map(str.split, listed.decode().splitlines())}

    def _git(self, *arguments: str, given: bytes = b"") -> bytes:
        return by_git(*arguments, within=self.folder, given=given)

    def updates(self, slug: str, number: int) -> list[Update]:
        """What the push of a version changes: the draft, and the tag that is new."""
        tag, commit = (oid.encode() for oid in self._held[names.tag(slug, number)])
        before = self._held[names.tag(slug, number - 1)][1].encode() if number > 1 else ZERO
        return [(before, commit, names.draft(slug)), (ZERO, tag, names.tag(slug, number))]

    def body(self, updates: Sequence[Update]) -> bytes:
        """What git would send."""
        lines = [b" ".join(update) for update in updates]
        lines[0] += b"\0" + _CAPABILITIES
        wanted = [new for _, new, _ in updates] + [b"^" + old for old, _, _ in updates if old != ZERO]
        flags = ("--revs", "--thin", "--stdout", "--delta-base-offset", "-q")
        pack = self._git("pack-objects", *flags, given=b"".join(oid + b"\n" for oid in wanted))
        return b"".join(map(pkt_line, lines)) + pkt_line(None) + pack


@dataclass(frozen=True)
class Target:
    """Where to push, or to fetch from: a repository of one of the servers."""

    side: Side
    path: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.side.port}{self.path}"

    def raw(self, body: bytes, client: int = 0) -> Operation:
        """The two requests of git: it looks, then pushes."""
        who = self.side.basic(client)
        return [
            request("GET", self.path + LOOK, who),
            request("POST", f"{self.path}/git-receive-pack", who, body, _TYPE),
        ]


def time_and_cpu(here: Load, there: Load) -> Figures:
    return {
        "time": ratio(median(here.whole), median(there.whole), "ms"),
        "CPU": ratio(1000 * here.cpu, 1000 * there.cpu, "ms"),
    }


def targets(rig: Rig, project: str, clients: int = 1) -> tuple[Target, Target]:
    """A project here, and a copy of its repository at git's own server."""
    return (
        Target(rig.ours(project, clients), f"/{project}.git"),
        Target(rig.git, rig.plain(project)),
    )


def _raw(rig: Rig, size: int, pushers: int, each: int) -> Figures:
    """Each pusher pushes commits and tags of a workflow of its own, `each` in a turn."""
    slugs = [f"raw-{next(_NUMBERS)}" for _ in range(pushers)]
    work = Work(rig, slugs, each * (rig.form.rounds + 1))
    numbers = range(1, each * (rig.form.rounds + 1) + 1)
    bodies = [[work.body(work.updates(slug, number)) for number in numbers] for slug in slugs]

    def job(target: Target, turn: int) -> Job:
        mine = [packs[turn * each : (turn + 1) * each] for packs in bodies]
        clients = [[target.raw(body, at) for body in packs] for at, packs in enumerate(mine)]
        return Job(target.side.port, clients, None, b"ok refs/tags/", reconnect=True)

    sides = targets(rig, seeds.project(size), pushers)
    here, there = rig.loads(*((target.side, partial(job, target)) for target in sides))
    return {
        "time": ratio(median(here.whole), median(there.whole), "ms"),
        "rate": ratio(here.rate, there.rate, "/s"),
        "p99": beside(p99(here.whole), p99(there.whole), "ms"),
        "CPU": beside(1000 * here.cpu, 1000 * there.cpu, "ms"),
    }


@measure("push", 10, time=at_most(0.7))
@measure("push", 1_000)
@measure("push", 10_000, time=at_most(0.3))
@measure("push", 100_000, time=at_most(0.1))
def push(rig: Rig, size: int) -> Figures:
    """a push of a commit and its tag, raw, against http-backend."""
    return _raw(rig, size, 1, rig.form.count)


@measure("pushers", 10, rate=at_least(2))
@measure("pushers", 10_000, rate=at_least(2))
@measure("pushers", 100_000, rate=at_least(2))
def pushers(rig: Rig, size: int) -> Figures:
    """pushes of a commit and its tag, raw, by 8 pushers, against http-backend."""
    return _raw(rig, size, 8, max(rig.form.count // 4, 1))


@measure("push-git", 10)
@measure("push-git", 1_000)
@measure("push-git", 100_000, time=at_most(0.2))
def push_of_git(rig: Rig, size: int) -> Figures:
    """a push of a commit and its tag by stock git, against http-backend."""
    slug = f"git-{next(_NUMBERS)}"
    work = Work(rig, [slug], rig.form.rounds + 1)

    def pushing(target: Target, turn: int) -> None:
        specs = [f"{new.decode()}:{ref.decode()}" for _, new, ref in work.updates(slug, turn + 1)]
        command = ("push", "-q", target.url, *specs)
        by_git(*command, within=work.folder, authorization=target.side.basic(0))

    sides = targets(rig, seeds.project(size))
    here, there = rig.timed(*((target.side, partial(pushing, target)) for target in sides))
    return time_and_cpu(here, there)


@measure("advertisement", CPU=at_most(5))
def advertisement(rig: Rig, size: int) -> Figures:
    """The advertisement to a pusher, in the largest project against the smallest."""
    sides = [Target(rig.ours(seeds.project(of)), f"/{seeds.project(of)}.git") for of in (size, rig.smallest)]

    def job(target: Target, _: int) -> Job:
        look = [request("GET", target.path + LOOK, target.side.basic(0))]
        return Job(target.side.port, [[look] * 4 * rig.form.count])

    here, there = rig.loads(*((target.side, partial(job, target)) for target in sides))
    large, small = (len(rig.get(to.side, to.path + LOOK, to.side.basic(0))) for to in sides)
    return {
        **time_and_cpu(here, there),
        "bytes": beside(large / 1000, small / 1000, "KB"),
    }


@measure("tags", 10)
@measure("tags", 1_000, time=at_most(3, "s"))
@measure("tags", 10_000, time=at_most(20, "s"))
def many_tags(rig: Rig, size: int) -> Figures:
    """tags in one push to an empty project, raw, against http-backend."""
    slugs = [seeds.slug(number) for number in range(size // seeds.VERSIONS)]
    work = Work(rig, slugs, seeds.VERSIONS)
    body = work.body(
        [work.updates(slug, number)[1] for slug in slugs for number in range(1, seeds.VERSIONS + 1)]
    )

    def pushed(target: Target) -> float:
        job = Job(target.side.port, [[target.raw(body)]], None, b"ok refs/tags/", reconnect=True)
        return rig.clients.run(job).seconds

    here, there = map(pushed, targets(rig, rig.fresh("tags").project))
    return {"time": beside(here, there, "s")}
