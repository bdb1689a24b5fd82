"""What engines and people read, against the Flask application and bare SQL, and lists."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from bench import peers, seeds
from bench.load import Job, Operation, request
from bench.measures import Figures, at_least, at_most, by_turns, measure, median, p99, ratio, seconds
from bench.rig import Rig, Side

_ENGINES = 32
_CURRENT = "/workflows/{slug}/versions/current"
_NUMBER = "/workflows/{slug}/versions/7"
_DEFINITION = "/workflows/{slug}/versions/current/definition"


def _job(rig: Rig, route: str, conditional: bool, side: Side, _: int) -> Job:
    """32 engines, each of which reads one workflow after the other."""
    workflows = rig.largest // seeds.VERSIONS
    slugs = [seeds.slug(number) for number in range(0, workflows, max(workflows // 50, 1))]
    paths = [route.format(slug=slug) for slug in slugs]
    known = {path: {"If-None-Match": rig.etag(side, path)} if conditional else {} for path in paths}

    def operations(client: int) -> list[Operation]:
        at = client % len(paths)
        return [
            [request("GET", path, side.bearer(client), None, known[path])] for path in paths[at:] + paths[:at]
        ]

    clients = [operations(client) for client in range(_ENGINES)]
    return Job(side.port, clients, rig.form.seconds, b"HTTP/1.1 304" if conditional else b"HTTP/1.1 200")


def _reading(rig: Rig, route: str, *, conditional: bool = False) -> Figures:
    sides = (rig.ours(seeds.project(rig.largest), 8), rig.flask)
    here, there = rig.loads(*((side, partial(_job, rig, route, conditional, side)) for side in sides))
    return {
        "rate": ratio(here.rate, there.rate, "/s"),
        "p99": ratio(p99(here.whole), p99(there.whole), "ms"),
        "CPU": ratio(1000 * here.cpu, 1000 * there.cpu, "ms"),
    }


@measure("read-current", rate=at_least(1.2))
def current(rig: Rig, size: int) -> Figures:
    """GET versions/current, 32 engines, against Flask."""
    return _reading(rig, _CURRENT)


@measure("read-current-304", rate=at_least(1.2))
def current_unchanged(rig: Rig, size: int) -> Figures:
    """GET versions/current with If-None-Match, 32 engines, against Flask."""
    return _reading(rig, _CURRENT, conditional=True)


@measure("read-number", rate=at_least(1.2))
def number(rig: Rig, size: int) -> Figures:
    """GET versions/N, 32 engines, against Flask."""
    return _reading(rig, _NUMBER)


@measure("read-number-304", rate=at_least(1.2))
def number_unchanged(rig: Rig, size: int) -> Figures:
    """GET versions/N with If-None-Match, 32 engines, against Flask."""
    return _reading(rig, _NUMBER, conditional=True)


@measure("read-definition", rate=at_least(1.2))
def definition(rig: Rig, size: int) -> Figures:
    """GET versions/current/definition, 32 engines, against Flask."""
    return _reading(rig, _DEFINITION)


@measure("read-definition-304", rate=at_least(1.2))
def definition_unchanged(rig: Rig, size: int) -> Figures:
    """GET versions/current/definition with If-None-Match, 32 engines, against Flask."""
    return _reading(rig, _DEFINITION, conditional=True)


@measure("read-open")
def read_open(rig: Rig, size: int) -> Figures:
    """GET versions/current, 32 engines, against Flask that looks no token up."""
    sides = (rig.ours(seeds.project(rig.largest), 8), replace(rig.flask, tokens=[peers.OPEN]))
    here, there = rig.loads(*((side, partial(_job, rig, _CURRENT, False, side)) for side in sides))
    return {"rate": ratio(here.rate, there.rate, "/s")}


def _alone(rig: Rig, side: Side, path: str, _: int) -> Job:
    return Job(side.port, [[[request("GET", path, side.bearer(0))]] * 5 * rig.form.count])


@measure("read-sql")
def read_sql(rig: Rig, size: int) -> Figures:
    """GET versions/current, one client, against the statement alone."""
    ours, slug = rig.ours(seeds.project(rig.largest)), seeds.slug(0)
    with rig.sql() as connection:
        who = peers.authenticate(connection)

        def here(turn: int) -> list[float]:
            return rig.clients.run(_alone(rig, ours, _CURRENT.format(slug=slug), turn)).whole()

        def there(_: int) -> list[float]:
            work = partial(peers.read, connection, who, slug, "current")
            return [1000 * seconds(work) for _ in range(5 * rig.form.count)]

        times = by_turns(rig.form.rounds + 1, here, there)
    asked, read = ([one for turn in side[1:] for one in turn] for side in times)
    return {"time": ratio(median(asked), median(read), "ms")}


@measure("history", time=at_most(1.0))
def history(rig: Rig, size: int) -> Figures:
    """GET a page of 20 of the history, one client, against Flask."""
    path = f"/workflows/{seeds.slug(0)}/versions?limit=20"
    sides = (rig.ours(seeds.project(rig.largest)), rig.flask)
    here, there = rig.loads(*((side, partial(_alone, rig, side, path)) for side in sides))
    return {
        "time": ratio(median(here.whole), median(there.whole), "ms"),
        "p99": ratio(p99(here.whole), p99(there.whole), "ms"),
    }


@measure("list")
def workflows(rig: Rig, size: int) -> Figures:
    """GET the list of workflows, one client, in the largest project against the smallest."""
    return _by_size(rig, "/workflows")


@measure("empty-search", time=at_most(1.3))
def empty_search(rig: Rig, size: int) -> Figures:
    """GET a search that finds nothing, one client, in the largest project against one workflow."""
    return _by_size(rig, "/workflows?q=nothing-is-called-so")


def _by_size(rig: Rig, path: str) -> Figures:
    sides = (rig.ours(seeds.project(rig.largest)), rig.ours(seeds.project(rig.smallest)))
    here, there = rig.loads(*((side, partial(_alone, rig, side, path)) for side in sides))
    return {"time": ratio(median(here.whole), median(there.whole), "ms")}
