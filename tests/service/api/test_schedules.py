"""Schedules by HTTP and by the command line: made, listed, cancelled, carried out, stopped with a reason."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner
from dulwich.objects import Blob, Tree

from gitstore import changes, names, states
from gitstore.changes import Authorship
from gitstore.git.commits import new_commit
from gitstore.model import Actor, Person
from gitstore.policy import Command
from gitstore.policy_facts import accepted
from gitstore.store import Actors, Store
from service.actions import schedules as actions
from service.caller import Backend
from service.cli.main import commands
from service.worker import ScheduleLoop
from sync import schedules
from sync.schedules import Claim
from tests.helpers import until
from tests.service.api.conftest import Client, House, Response, definition, opened, problem, yaml
from tests.service.serve_process import environment
from tests.service.users import ISSUER, SECRET, add_member, jwt_of

ADA = Person("Ada", "ada@example.com")
ACTORS = Actors(ADA, ADA)
numbers = count()


@pytest.fixture(scope="module")
def house(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    issuers = json.dumps([{"issuer": ISSUER, "secret": SECRET}])
    with opened(postgres_admin_conninfo, migrated_template, GITSTORE_JWT_ISSUERS=issuers) as house:
        rules = [{"name": "staging"}, {"name": "prod", "role": "owner"}]
        house.client("owner").put("/environments", json={"environments": rules})
        yield house


@pytest.fixture
def slug(owner: Client) -> str:
    """A workflow with v1, which is current, v2, which is not, and an open draft."""
    slug = f"flow-{next(numbers)}"
    owner.create(slug)
    owner.publish(slug)
    second = {"definition": definition("https://two.example/"), "activate": False}
    owner.post(f"/workflows/{slug}/versions/publish", json=second)
    owner.post(f"/workflows/{slug}/versions", json={"definition": definition("https://three.example/")})
    return slug


def save(client: Client, slug: str, url: str) -> str:
    saved = client.put(f"/workflows/{slug}/versions/draft", json={"definition": definition(url)}, match="*")
    return str(saved.json["commit"])


def at(hours: float = 1) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


def backend(house: House) -> Backend:
    return Backend.of(house.config, house.database)


def make_due(house: House, made: Response, late: str = "0") -> str:
    """Let the time of a schedule be now, or some time ago."""
    assert made.status_code == 202, made.text
    with house.database.as_owner() as tx:
        tx.run(
            "update gitstore.schedules set at = clock_timestamp() - %(late)s::interval, "
            "due_at = clock_timestamp() where id = %(id)s",
            id=made.json["id"],
            late=late,
        )
    return str(made.json["id"])


def claim(house: House) -> list[Claim]:
    with house.database.as_mirror() as tx:
        return schedules.claim(tx, 10)


def expire(house: House) -> None:
    """End the claims of workers, as if these were killed a while ago."""
    with house.database.as_owner() as tx:
        tx.run("update gitstore.schedules set due_at = clock_timestamp() where state = 'running'")


def carry_out(house: House, made: Response, late: str = "0") -> dict[str, Any]:
    """Let the worker carry out a schedule now; return it as it is then."""
    make_due(house, made, late)
    for claimed in claim(house):
        actions.carry_out(backend(house), claimed)
    return dict(house.client("viewer").get(f"/schedules/{made.json['id']}").json)


def events(house: House, slug: str, kind: str) -> list[dict[str, Any]]:
    with house.database.as_owner() as tx:
        rows = tx.tuples(
            "select e.data from gitstore.events e join gitstore.workflows w on w.id = e.workflow_id "
            "where w.slug = %(slug)s and e.type = %(kind)s order by e.recorded_at",
            slug=slug,
            kind=kind,
        )
    return [data for (data,) in rows]


def writer(house: House) -> closing[Store]:
    return closing(backend(house).projects.writer(house.project, house.database))


def trailers(house: House, slug: str) -> list[str]:
    with writer(house) as store:
        counting = (entry for entry in store.ledger(slug) if store.counts(slug, entry))
        return [str(entry.schedule) for entry in counting if entry.schedule is not None]


# Carried out


def test_the_draft_is_published_later_as_the_one_who_scheduled_it(house: House, slug: str) -> None:
    """The entry in the ledger names the schedule and its author; the event does, too."""
    publisher = house.client("publisher")
    made = publisher.post(
        f"/workflows/{slug}/versions/publish",
        json={"at": at(), "message": "Tonight", "author": {"name": "Eve", "email": "eve@example.com"}},
    )
    assert made.headers["Location"] == f"https://gitstore.example/schedules/{made.json['id']}"
    assert (made.json["state"], made.json["version_number"], made.json["kind"]) == (
        "waiting",
        None,
        "publish",
    )
    assert publisher.get(f"/workflows/{slug}/versions/3").status_code == 404
    done = carry_out(house, made)
    assert (done["state"], done["version_number"], done["reason"]) == ("done", 3, None)
    version = publisher.get(f"/workflows/{slug}/versions/current").json
    assert (version["version_number"], version["message"]) == (3, "Tonight")
    assert version["published_by"] == f"token:{made.json['scheduled_by']}"
    assert trailers(house, slug) == [made.json["id"]]
    assert events(house, slug, "workflow.version.published")[-1]["schedule"] == made.json["id"]


def test_a_user_or_the_user_of_a_program_is_named_as_in_a_request(house: House, slug: str) -> None:
    """A user who is not a member any more stops it, though a user's token is not needed by then."""
    ada, path = uuid4(), f"/workflows/{slug}/current"
    add_member(house.database, house.project.id, ada, "publisher")
    user = Client(house.app, jwt_of(ada))
    made = [user.put(path, json={"version": version, "at": at(version)}) for version in (2, 1)]
    assert carry_out(house, made[0])["state"] == "done"
    program = Client(house.app, house.client("publisher").token, {"Gitstore-On-Behalf-Of": "bob"})
    assert carry_out(house, program.put(path, json={"version": 1, "at": at()}))["state"] == "done"
    with writer(house) as store:
        newest, before, *_ = [entry.actor for entry in store.ledger(slug) if entry.schedule is not None]
    assert isinstance(newest, Actor)
    assert isinstance(before, Actor)
    assert (newest.on_behalf_of, before.subject, before.name) == ("bob", str(ada), "Ada Lovelace")
    with house.database.as_owner() as tx:
        tx.run("delete from gitstore.members where user_id = %(user)s", user=ada)
    stopped = carry_out(house, made[1])
    assert (stopped["state"], stopped["code"]) == ("stopped", "forbidden")
    assert "Ada Lovelace, who scheduled it, has no access" in stopped["reason"]


@pytest.mark.parametrize(
    ("path", "body", "read", "expected"),
    [
        ("current", {"version": 2}, "current", 2),
        ("environments/staging", {"version": "v2", "hold": True}, "staging", 2),
        ("environments/prod", {"weights": {"1": 90, "2": 10}}, "prod", None),
    ],
)
def test_pointers_are_moved_later(
    house: House, owner: Client, slug: str, path: str, body: dict[str, Any], read: str, expected: int | None
) -> None:
    made = owner.put(f"/workflows/{slug}/{path}", json={**body, "at": at()})
    assert carry_out(house, made)["state"] == "done"
    if expected is None:
        weights = owner.get(f"/workflows/{slug}/{path}").json["weights"]
        assert weights == made.json["weights"] == {"1": 90, "2": 10}
    else:
        assert owner.get(f"/workflows/{slug}/versions/{read}").json["version_number"] == expected
    assert trailers(house, slug) == [made.json["id"]]


def test_workflows_are_promoted_later_each_by_itself(house: House, owner: Client, slug: str) -> None:
    """To the versions of now; one that is stopped does not stop the others."""
    other = f"{slug}-other"
    owner.create(other)
    owner.publish(other)
    for each in (slug, other):
        owner.put(f"/workflows/{each}/environments/staging", json={"version": 1})
    body = {"from": "staging", "to": "prod", "at": at(), "workflows": [slug, other]}
    made = owner.post("/promote", json=body)
    assert made.status_code == 202
    owner.put(f"/workflows/{slug}/environments/staging", json={"version": 2})
    for each in made.json["schedules"]:
        make_due(house, type("Answer", (), {"status_code": 202, "json": each}))
    for claimed in claim(house):
        actions.carry_out(backend(house), claimed)
    found = {each["workflow"]: each for each in owner.get("/schedules?limit=2").json["schedules"]}
    assert (found[slug]["state"], found[slug]["code"]) == ("stopped", "environment_moved")
    assert "on v2, not on v1 any more, in staging" in found[slug]["reason"]
    assert found[other]["state"] == "done"
    assert owner.get(f"/workflows/{other}/versions/prod").json["version_number"] == 1
    one = owner.post(f"/workflows/{slug}/promote", json={"from": "staging", "to": "prod", "at": at()})
    assert [each["version_number"] for each in one.json["schedules"]] == [2]


def test_moves_by_schedules_do_not_stop_later_ones(house: House, owner: Client, slug: str) -> None:
    """A version that is rolled out in steps; a move by a person stops the rest."""
    at_prod = f"/workflows/{slug}/environments/prod"
    owner.put(at_prod, json={"version": 1})
    steps = [
        owner.put(at_prod, json={"weights": {"1": 100 - share, "2": share}, "at": at(share)})
        for share in (10, 50, 90)
    ]
    assert [carry_out(house, step)["state"] for step in steps[:2]] == ["done", "done"]
    owner.put(at_prod, json={"version": 1, "message": "It fails"})
    stopped = carry_out(house, steps[2])
    assert (stopped["state"], stopped["code"]) == ("stopped", "environment_moved")
    assert owner.get(at_prod).json["version_number"] == 1


def test_a_renamed_workflow_keeps_its_schedules(house: House, owner: Client, slug: str) -> None:
    made = owner.put(f"/workflows/{slug}/current", json={"version": 2, "at": at()})
    owner.post(f"/workflows/{slug}/rename", json={"slug": f"{slug}-new"})
    assert owner.get(f"/schedules/{made.json['id']}").json["workflow"] == f"{slug}-new"
    assert carry_out(house, made)["state"] == "done"
    assert owner.get(f"/workflows/{slug}-new/versions/current").json["version_number"] == 2


# Stopped


def revoke(house: House, owner: Client, _slug: str, made: Response) -> None:
    (token,) = [
        each for each in owner.get("/tokens").json["tokens"] if each["name"] == made.json["scheduled_by"]
    ]
    assert owner.delete(f"/tokens/{token['id']}").status_code == 204


def publish_aside(house: House, _owner: Client, slug: str, _made: Response) -> None:
    """Publish a version that the draft does not build on, as a push of a tag does."""
    with writer(house) as store, store.unit_of_work.begin([slug]):
        blob, tree = Blob.from_string(yaml("https://aside.example/")), Tree()
        tree.add(b"workflow.yaml", 0o100644, blob.id)
        latest = store.state(slug).latest_commit or ""
        commit = new_commit(
            tree=tree.id, parents=[latest.encode()], author=ADA, committer=ADA, when=store.clock(),
            message="Aside",
        )  # fmt: skip
        store.objects.write([blob, tree, commit])
        verdict = accepted(store, Command(names.tag(slug, 3), None, commit.id))
        changes.write_one(store, changes.record(store, [verdict], Authorship(ADA, store.clock())))


def archive(house: House, _owner: Client, slug: str, _made: Response) -> None:
    with writer(house) as store:
        states.archive(store, slug, ACTORS)


Change = Callable[[House, Client, str, Response], object]
STOPS: dict[str, tuple[str, Change]] = {
    "draft moved": ("stale_draft", lambda _, owner, slug, __: save(owner, slug, "https://four.example/")),
    "draft discarded": (
        "no_draft",
        lambda _, owner, slug, __: owner.delete(f"/workflows/{slug}/versions/draft"),
    ),
    "draft published": ("no_draft", lambda _, owner, slug, __: owner.publish(slug)),
    "base moved": ("base_moved", publish_aside),
    "role lost": ("forbidden", revoke),
    "archived": ("workflow_archived", archive),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_changed_since_stops_a_publication(house: House, owner: Client, slug: str, name: str) -> None:
    """The schedule has the reason, subscribers get an event, and nothing is published."""
    code, change = STOPS[name]
    made = house.client("publisher").post(f"/workflows/{slug}/versions/publish", json={"at": at()})
    change(house, owner, slug, made)
    before = owner.get(f"/workflows/{slug}").json["latest_version"]
    stopped = carry_out(house, made)
    assert (stopped["state"], stopped["code"]) == ("stopped", code), stopped
    assert stopped["ended_at"]
    assert stopped["reason"]
    (event,) = events(house, slug, "workflow.schedule.stopped")
    assert (event["schedule"], event["code"], event["reason"]) == (made.json["id"], code, stopped["reason"])
    assert owner.get(f"/workflows/{slug}").json["latest_version"] == before
    assert trailers(house, slug) == []


def test_a_definition_that_became_invalid_stops_its_publication(house: House) -> None:
    other = house.client("owner", house.other)
    other.post("/workflows", json={"slug": "any", "definition": {"steps": []}})
    made = other.post("/workflows/any/versions/publish", json={"at": at()})
    assert other.patch("/projects/other", json={"rules": "meshhook"}).status_code == 200
    make_due(house, made)
    for claimed in claim(house):
        actions.carry_out(backend(house), claimed)
    stopped = other.get(f"/schedules/{made.json['id']}").json
    assert (stopped["state"], stopped["code"]) == ("stopped", "definition_invalid")
    other.patch("/projects/other", json={"rules": "any"})


@pytest.mark.parametrize(
    ("path", "change", "code"),
    [
        ("current", ("post", "versions/2/yank", {"reason": "wrong"}), "version_unusable"),
        ("environments/staging", ("post", "versions/2/yank", {"reason": "wrong"}), "environment_refused"),
        ("current", ("put", "current", {"version": 1, "hold": True}), "environment_moved"),
        ("environments/staging", ("put", "environments/staging", {"version": 1}), "environment_moved"),
    ],
)
def test_what_changed_since_stops_a_move(
    house: House, owner: Client, slug: str, path: str, change: tuple[str, str, dict[str, Any]], code: str
) -> None:
    made = owner.put(f"/workflows/{slug}/{path}", json={"version": 2, "at": at()})
    method, where, body = change
    assert owner(method.upper(), f"/workflows/{slug}/{where}", json=body).status_code == 200
    stopped = carry_out(house, made)
    assert (stopped["state"], stopped["code"]) == ("stopped", code), stopped


def test_a_role_that_an_environment_requires_by_then_is_checked(
    house: House, owner: Client, slug: str
) -> None:
    made = house.client("publisher").put(
        f"/workflows/{slug}/environments/staging", json={"version": 2, "at": at()}
    )
    rules = owner.get("/environments")
    stricter = [{**each, "role": "owner"} for each in rules.json["environments"]]
    owner.put("/environments", json={"environments": stricter}, match=rules.headers["ETag"])
    assert carry_out(house, made)["code"] == "forbidden"
    owner.put("/environments", json={"environments": rules.json["environments"]}, match="*")


def test_a_schedule_that_no_worker_carried_out_within_the_hour_is_stopped(
    house: House, owner: Client, slug: str
) -> None:
    body = {"version": 2, "at": at()}
    made = owner.put(f"/workflows/{slug}/current", json=body)
    assert carry_out(house, made, "59 minutes")["state"] == "done"
    owner.put(f"/workflows/{slug}/current", json={"version": 1})
    late = owner.put(f"/workflows/{slug}/current", json=body)
    assert carry_out(house, late, "61 minutes")["code"] == "schedule_missed"


def test_schedules_of_a_workflow_keep_their_order_though_they_are_late(
    house: House, owner: Client, slug: str
) -> None:
    """After a while without a worker, the last step is the last; one that is tried again delays the rest."""
    path = f"/workflows/{slug}/environments/prod"
    made = [owner.put(path, json={"version": version, "at": at(version)}) for version in (1, 2)]
    make_due(house, made[1], "1 minute")
    make_due(house, made[0], "2 minutes")
    for schedule in made:
        (claimed,) = claim(house)
        assert str(claimed.id) == schedule.json["id"]
        with house.database.as_mirror() as tx:
            schedules.release(tx, claimed, timedelta())
        (claimed,) = claim(house)
        assert str(claimed.id) == schedule.json["id"]
        assert claim(house) == []
        actions.carry_out(backend(house), claimed)
    assert owner.get(path).json["version_number"] == 2


# Refused when it is made


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("PUT", "current", {"version": 2, "at": "2020-01-01T00:00:00Z"}, 400, "malformed"),
        ("PUT", "current", {"version": 2, "at": "2999-01-01T00:00:00Z"}, 400, "malformed"),
        ("PUT", "current", {"version": 2, "at": "tomorrow"}, 400, "malformed"),
        ("PUT", "current", {"version": 9}, 404, "version_not_found"),
        ("PUT", "environments/nowhere", {"version": 2}, 404, "environment_not_found"),
        ("PUT", "environments/staging", {"weights": {"1": 90, "2": 20}}, 422, "environment_invalid"),
        ("POST", "promote", {"from": "staging", "to": "prod"}, 404, "not_published"),
    ],
)
def test_what_would_be_refused_now_is_refused_when_it_is_scheduled(
    owner: Client, slug: str, method: str, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    problem(owner(method, f"/workflows/{slug}/{path}", json={"at": at(), **body}), status, code)
    assert owner.get(f"/workflows/{slug}/schedules").json["schedules"] == []


def test_a_move_in_an_environment_waits_for_the_end_of_an_upgrade(
    house: House, owner: Client, slug: str
) -> None:
    """As the ledger entry would; the other kinds do not."""
    with house.database.as_owner() as tx:
        tx.run("update gitstore.feature_level set level = 1")
    body = {"version": 2, "at": at()}
    problem(owner.put(f"/workflows/{slug}/environments/prod", json=body), 409, "upgrade_unfinished")
    assert owner.put(f"/workflows/{slug}/current", json=body).status_code == 202
    with house.database.as_owner() as tx:
        tx.run("update gitstore.feature_level set level = 2")


def test_a_draft_with_errors_or_that_moved_is_not_scheduled(owner: Client, slug: str) -> None:
    publish = f"/workflows/{slug}/versions/publish"
    problem(owner.post(publish, json={"at": at()}, match='"other"'), 412, "stale_draft")
    draft = owner.put(f"/workflows/{slug}/versions/draft", json={"definition": {"nodes": [{}]}}, match="*")
    assert draft.status_code == 200
    problem(owner.post(publish, json={"at": at()}), 422, "definition_invalid")
    given = {"definition": definition("https://new.example/"), "at": at()}
    made = owner.post(publish, json=given, match="*")
    assert (made.status_code, made.json["commit"]) == (
        202,
        owner.get(f"/workflows/{slug}/versions/draft").json["commit"],
    )


def test_the_same_request_again_finds_its_schedule(house: House, owner: Client, slug: str) -> None:
    """Another one for the same pointer and time is a conflict, as their order would be open."""
    body = {"version": 2, "at": at()}
    path = f"/workflows/{slug}/current"
    first, again = owner.put(path, json=body), owner.put(path, json=body)
    assert first.json["id"] == again.json["id"]
    problem(owner.put(path, json={**body, "version": 1}), 409, "schedule_exists")
    assert len(owner.get(f"/workflows/{slug}/schedules").json["schedules"]) == 1


def test_hours_in_the_environment_before_count_until_the_time(house: House, slug: str, owner: Client) -> None:
    """A version that will have been there long enough by then may be scheduled, and not earlier."""
    rules = owner.get("/environments")
    waits = [{"name": "staging"}, {"name": "prod", "hours": 24}]
    owner.put("/environments", json={"environments": waits}, match="*")
    owner.put(f"/workflows/{slug}/environments/staging", json={"version": 1})
    promotion = {"from": "staging", "to": "prod"}
    problem(
        owner.post(f"/workflows/{slug}/promote", json={**promotion, "at": at(23)}), 422, "environment_refused"
    )
    made = owner.post(f"/workflows/{slug}/promote", json={**promotion, "at": at(25)})
    assert made.status_code == 202
    owner.put("/environments", json={"environments": rules.json["environments"]}, match="*")


# Cancelled


def test_a_schedule_is_cancelled_by_those_who_may_do_what_it_does(
    house: House, owner: Client, slug: str
) -> None:
    made = owner.put(f"/workflows/{slug}/current", json={"version": 2, "at": at()})
    path = f"/schedules/{made.json['id']}"
    problem(house.client("editor").delete(path), 403, "forbidden")
    assert house.client("publisher").delete(path).status_code == 204
    assert owner.delete(path).status_code == 204
    cancelled = owner.get(path).json
    assert (cancelled["state"], cancelled["cancelled_by"][:9]) == ("cancelled", "publisher")
    with house.database.as_owner() as tx:
        assert tx.value("select due_at from gitstore.schedules where id = %(id)s", id=made.json["id"]) is None
    prod = owner.put(f"/workflows/{slug}/environments/prod", json={"version": 2, "at": at()})
    problem(house.client("publisher").delete(f"/schedules/{prod.json['id']}"), 403, "forbidden")
    problem(house.client("owner", house.other).get(path), 404, "not_found")
    problem(owner.delete(f"/schedules/{names.workflow_id(house.project.id, slug)}"), 404, "not_found")
    recorded = [each["action"] for each in owner.get("/audit?action=schedule").json["audit"]][:3]
    assert recorded == ["schedule.created", "schedule.cancelled", "schedule.created"]


def test_either_the_cancel_or_the_worker_comes_first(house: House, owner: Client, slug: str) -> None:
    """A schedule that a worker has claimed cannot be cancelled; a cancelled one is not claimed."""
    first = owner.put(f"/workflows/{slug}/current", json={"version": 2, "at": at()})
    second = owner.put(f"/workflows/{slug}/environments/staging", json={"version": 2, "at": at()})
    make_due(house, first)
    (claimed,) = claim(house)
    problem(owner.delete(f"/schedules/{first.json['id']}"), 409, "schedule_ended")
    actions.carry_out(backend(house), claimed)
    assert (
        "was carried out"
        in problem(owner.delete(f"/schedules/{first.json['id']}"), 409, "schedule_ended")["detail"]
    )
    make_due(house, second)
    assert owner.delete(f"/schedules/{second.json['id']}").status_code == 204
    assert claim(house) == []


# The worker


def test_a_worker_that_was_stopped_for_a_while_writes_nothing(house: House, owner: Client, slug: str) -> None:
    """Another one has taken over its claim, and stopped the schedule."""
    made = owner.put(f"/workflows/{slug}/current", json={"version": 2, "at": at()})
    make_due(house, made)
    (slow,) = claim(house)
    expire(house)
    (other,) = claim(house)
    assert (other.taken_over, other.crashes) == (True, 1)
    actions.carry_out(backend(house), slow)
    assert owner.get(f"/workflows/{slug}/versions/current").json["version_number"] == 1
    actions.carry_out(backend(house), other)
    actions.carry_out(backend(house), slow)
    assert owner.get(f"/workflows/{slug}/versions/current").json["version_number"] == 2
    assert trailers(house, slug) == [made.json["id"]]


def test_what_a_killed_worker_had_written_is_found_before_anything_else(
    house: House, owner: Client, slug: str
) -> None:
    """Even if its author has lost the role since, and other moves came after it."""
    made = house.client("publisher").put(f"/workflows/{slug}/current", json={"version": 2, "at": at()})
    make_due(house, made)
    (killed,) = claim(house)
    actions._perform(backend(house), killed)
    revoke(house, owner, slug, made)
    owner.put(f"/workflows/{slug}/current", json={"version": 1})
    expire(house)
    (other,) = claim(house)
    actions.carry_out(backend(house), other)
    assert owner.get(f"/schedules/{made.json['id']}").json["state"] == "done"
    assert owner.get(f"/workflows/{slug}/versions/current").json["version_number"] == 1
    assert trailers(house, slug) == [made.json["id"]]


def test_a_schedule_is_given_up_after_three_crashes(house: House, owner: Client, slug: str) -> None:
    made = owner.put(f"/workflows/{slug}/current", json={"version": 2, "at": at()})
    make_due(house, made)
    for crashes in range(4):
        (claimed,) = claim(house)
        assert claimed.crashes == crashes
        expire(house)
    (claimed,) = claim(house)
    actions.carry_out(backend(house), claimed)
    stopped = owner.get(f"/schedules/{made.json['id']}").json
    assert stopped["code"] == "schedule_missed"
    assert "given up after 3 crashes in a row" in stopped["reason"]


def test_two_workers_carry_out_each_schedule_once_within_two_seconds(
    house: House, owner: Client, slug: str
) -> None:
    """Of twelve at the same time, by Postgres' clock. A worker that sleeps is woken by a new schedule."""
    slugs = [f"{slug}-{number}" for number in range(12)]
    for each in slugs:
        owner.create(each)
    stop = threading.Event()
    loops = [ScheduleLoop(backend(house), stop) for _ in range(2)]
    with loops[0].running(), loops[1].running():
        with house.database.as_owner() as tx:
            then = tx.value("select clock_timestamp() + interval '3 seconds'").isoformat()
        made = [owner.post(f"/workflows/{each}/versions/publish", json={"at": then}) for each in slugs]
        assert {each.status_code for each in made} == {202}
        until(lambda: not states_of(house, made) - {"done"}, "they were not carried out", seconds=20)
    with house.database.as_owner() as tx:
        early, late = tx.tuples(
            "select min(ended_at - at), max(ended_at - at) from gitstore.schedules "
            "where id = any(%(ids)s::uuid[])",
            ids=[each.json["id"] for each in made],
        )[0]
    assert timedelta() < early < late < timedelta(seconds=2)
    assert [trailers(house, each) for each in slugs] == [[each.json["id"]] for each in made]
    assert all(len(events(house, each, "workflow.version.published")) == 1 for each in slugs)


def states_of(house: House, made: list[Response]) -> set[str]:
    with house.database.as_owner() as tx:
        query = "select distinct state from gitstore.schedules where id = any(%(ids)s::uuid[])"
        return {state for (state,) in tx.tuples(query, ids=[each.json["id"] for each in made])}


# The command line


def test_the_command_line_schedules_lists_and_cancels(house: House, owner: Client, slug: str) -> None:
    settings = environment(DATABASE_URL=house.database.conninfo, GITSTORE_DATA=str(house.config.data))

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(commands, [*arguments, "--json"], env=settings)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    owner.put(f"/workflows/{slug}/environments/staging", json={"version": 2})
    (moved,) = run("env", "set", slug, "prod", "v1=90", "v2=10", "--at", at())
    assert (moved["version"], moved["state"]) == ("v2:10, v1:90", "waiting")
    (promoted,) = run("env", "promote", "staging", "prod", slug, "--at", at(2))
    (published,) = run("schedule", "publish", slug, "--at", at(3))
    listed = run("schedule", "list", slug)
    assert [each["id"] for each in listed] == [published["id"], promoted["id"], moved["id"]]
    cancelled = CliRunner().invoke(commands, ["schedule", "cancel", moved["id"]], env=settings)
    assert cancelled.output == f"cancelled {moved['id']}\n"
    answer = owner.get(f"/schedules/{published['id']}")
    answer.status_code = 202
    assert carry_out(house, answer)["state"] == "done"
    assert owner.get(f"/workflows/{slug}/versions/current").json["published_by"] == "operator"
    wrong = CliRunner().invoke(commands, ["schedule", "publish", slug, "--at", "tonight"], env=settings)
    assert "is not a time such as" in wrong.output
