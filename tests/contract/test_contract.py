"""Each action through every door that has it: the same effect, and the same refusals, without effect."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from gitstore.store import Store
from service.access import Role
from service.clients import SignIns
from tests.contract.doors import ACTIONS, DOORS, Action, Api, Cli, Door, Git, Page
from tests.contract.world import DRAFT, SLUG, WORKFLOW, World
from tests.service.api.conftest import House, opened, yaml

CALLS = [(door, action) for door in DOORS for action in ACTIONS if getattr(door, action, None)]


def names_of(value: object) -> str:
    return value.__name__.lower() if isinstance(value, type) else str(value)


@pytest.fixture(scope="module")
def house(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    """An application for all tests here; each has a project of its own."""
    with opened(postgres_admin_conninfo, migrated_template) as house:
        yield house


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed sign-ins are limited by address, and all of these have one."""
    monkeypatch.setattr(SignIns, "failed", lambda _self, _address: None)


@pytest.fixture
def world(house: House) -> World:
    return World.build(house)


def action_in(world: World, name: str, **arguments: Any) -> Action:
    """The action with arguments that fit the world, but for `arguments`."""
    standard: dict[str, Any] = {"seen": world.draft, "text": yaml("https://new.example/")}
    if name == "create":
        standard["slug"] = "another"
    if name == "publish":
        standard["version"] = world.latest + 1
    if name == "rename_project":
        standard["slug"] = f"{world.project.slug}-renamed"
    if name == "delete_project":
        standard["slug"] = world.project.slug
    if name == "revoke_token":
        standard["token"] = world.owner.post("/tokens", json={"name": "victim", "role": "viewer"}).json["id"]
    return Action(name, **{**standard, **arguments})


def possible(world: World, name: str) -> Action:
    """The action, in a world where it succeeds."""
    if name == "restore":
        discarded_draft(world)
    if name == "remove_member":
        a_member(world)
    if name == "delete_project":
        archived(world)
    return action_in(world, name)


def refuse(world: World, door: Door, action: Action, code: str) -> None:
    """Perform the action; check that it is refused with `code`, and that nothing has changed."""
    before = world.state()
    door.check_refusal(door.perform(action), code)
    assert world.state() == before


# Effects


def states(world: World) -> list[tuple[int, str]]:
    rows = world.owner.get(f"{WORKFLOW}/versions").json["versions"]
    return [(row["version_number"], row["state"]) for row in rows]


def live_tokens(world: World) -> set[str]:
    return {row["name"] for row in world.owner.get("/tokens").json["tokens"] if row["revoked_at"] is None}


def project_row(world: World) -> Any:
    return world.owner.get(f"/projects/{world.project.id}").json


def roles_of_members(world: World) -> list[str]:
    return [row["role"] for row in world.owner.get(f"/projects/{world.project.id}/members").json["members"]]


def recorded(world: World) -> Counter[tuple[str, str]]:
    """The (door, action) of each record of the audit log."""
    query = "select door, action from gitstore.audit_log where project_id = %(project)s"
    with world.house.database.as_owner() as tx:
        return Counter(tx.tuples(query, project=world.project.id))


EFFECTS: dict[str, Callable[[World], bool]] = {
    "create": lambda world: world.owner.get("/workflows/another/versions/draft").status_code == 200,
    "save": lambda world: world.owner.get(f"{DRAFT}/definition").data == yaml("https://new.example/"),
    "publish": lambda world: (states(world)[0], world.current) == ((3, "published"), 3),
    "discard": lambda world: states(world) == [(2, "published"), (1, "published")],
    "restore": lambda world: states(world)[0] == (3, "draft"),
    "revert": lambda world: (
        world.owner.get(f"{DRAFT}/definition").data
        == world.owner.get(f"{WORKFLOW}/versions/1/definition").data
    ),
    "move_current": lambda world: world.current == 1,
    "clear_current": lambda world: world.current is None,
    "create_token": lambda world: "ci" in live_tokens(world),
    "revoke_token": lambda world: "victim" not in live_tokens(world),
    "set_member": lambda world: roles_of_members(world) == ["viewer"],
    "remove_member": lambda world: roles_of_members(world) == [],
    "rename_project": lambda world: project_row(world)["slug"] == f"{world.project.slug}-renamed",
    "change_rules": lambda world: project_row(world)["rules"] == "any",
    "delete_project": lambda world: not world.house.repository().exists(),
}
RECORDED = {
    "publish": "workflow.version.published",
    "move_current": "workflow.current.changed",
    "clear_current": "workflow.current.changed",
    "create_token": "token.created",
    "revoke_token": "token.revoked",
    "set_member": "member.changed",
    "remove_member": "member.removed",
    "rename_project": "project.changed",
    "change_rules": "project.changed",
}
"""What the audit log calls an action, if not an update of a draft."""


@pytest.mark.parametrize(("kind", "name"), CALLS, ids=names_of)
def test_an_action_has_the_same_effect_through_every_door(world: World, kind: type[Door], name: str) -> None:
    """Its least role suffices, and the audit log names the door."""
    action = possible(world, name)
    door = kind(world, world.house.client(ACTIONS[name]).token)
    before = recorded(world)
    answer = door.perform(action)
    assert answer.ok, (answer.status, answer.text)
    assert EFFECTS[name](world)
    if name == "delete_project":  # with its audit log
        return
    assert (kind.name, RECORDED.get(name, "workflow.draft.updated")) in recorded(world) - before


# Refusals of every action


@pytest.mark.parametrize(("kind", "name"), [call for call in CALLS if call[0] is not Cli], ids=names_of)
def test_an_action_needs_a_credential_and_its_role(world: World, kind: type[Door], name: str) -> None:
    """No token, an unknown one, and each role below the one that is needed."""
    action = possible(world, name)
    for token in ("", "gst_" + "A" * 43):
        refuse(world, kind(world, token), action, "unauthenticated")
    roles = [role.value for role in Role]
    for role in roles[: roles.index(ACTIONS[name])]:
        refuse(world, kind(world, world.house.client(role).token), action, "forbidden")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind, name in CALLS
        if kind is not Cli and (kind is Git or not name.startswith("create"))
    ],
    ids=names_of,
)
def test_the_object_of_another_tenant_is_not_found(world: World, kind: type[Door], name: str) -> None:
    """404, as for an object that does not exist."""
    action = possible(world, name)
    stranger = world.house.client("owner", world.house.other)
    door = kind(world, stranger.token)
    of_project = kind is Git or name.endswith(("_member", "_project", "_rules"))
    missing = "project_not_found" if of_project else "not_found" if "token" in name else "workflow_not_found"
    refuse(world, door, action, missing)


# Refusals of one action


def as_built(world: World) -> None: ...


def no_draft(world: World) -> None:
    assert world.owner.publish(SLUG).status_code == 201


def discarded_draft(world: World) -> None:
    assert world.owner.delete(DRAFT).status_code == 204


def invalid_draft(world: World) -> None:
    world.save("")


def base_moved(world: World) -> None:
    """v3 was published from a commit beside the draft."""
    published = world.owner.get(f"{WORKFLOW}/versions/2").json["commit"]
    door = Git(world, world.owner.token)
    assert door.publish_new(SLUG, 3, yaml("https://beside.example/"), published.encode()).ok


def a_member(world: World) -> None:
    world.owner.put(f"/projects/{world.project.id}/members/{Action.user}", json={"role": "editor"})


def the_last_owner(world: World) -> None:
    world.owner.put(f"/projects/{world.project.id}/members/{Action.user}", json={"role": "owner"})


def archived(world: World) -> None:
    assert world.owner.patch(f"/projects/{world.project.id}", json={"archived": True}).status_code == 200


def lost_versions(world: World) -> None:
    """v1 and v2 are lost with the repository, and the workflow was created anew."""
    discarded_draft(world)
    path = world.house.repository()
    shutil.rmtree(path)
    Store.init(path)
    with world.house.database.as_owner() as tx:
        tx.run("select set_config('gitstore.upkeep', 'on', true)")
        tx.run(
            "update gitstore.workflow_versions set state = 'lost' where state = 'published' "
            "and project_id = %(project)s", project=world.project.id,
        )  # fmt: skip
        tx.run(
            "update gitstore.workflows set latest_number = 0, current_version_id = null, "
            "draft_commit = null, ledger_oid = null where project_id = %(project)s", project=world.project.id,
        )  # fmt: skip
    world.owner.create(SLUG)


@dataclass(frozen=True)
class Refusal:
    """`doors` refuse `action` in `situation` with `code`; a push, where it differs, with `pushed`."""

    action: str
    code: str
    situation: Callable[[World], None]
    doors: tuple[type[Door], ...]
    pushed: str
    arguments: dict[str, Any]


def refused(
    action: str,
    code: str,
    situation: Callable[[World], None] = as_built,
    doors: tuple[type[Door], ...] = (Api, Page),
    pushed: str = "",
    **arguments: Any,
) -> Refusal:
    return Refusal(action, code, situation, doors, pushed or code, arguments)


UNPARSABLE = b"nodes: [\n  a\nb: c"
NO_ID = str(uuid4())
TOKENED = (Api, Page, Git)
UNPUSHED = (Api, Page, Cli)

REFUSALS = {
    "the workflow exists": refused(
        "create", "workflow_exists", doors=TOKENED, pushed="stale_draft", slug=SLUG
    ),
    "an invalid name": refused(
        "create", "invalid_name", doors=TOKENED, pushed="ref_not_accepted", slug="A-b"
    ),
    "a new text does not parse": refused(
        "create", "definition_unparsable", doors=(Api, Git), text=UNPARSABLE
    ),
    "a stale save": refused("save", "stale_draft", doors=TOKENED, seen="stale"),
    "a text does not parse": refused("save", "definition_unparsable", doors=TOKENED, text=UNPARSABLE),
    "a save of a missing workflow": refused("save", "workflow_not_found", slug="missing"),
    "a stale publish": refused("publish", "stale_draft", seen="stale"),
    "a moved base": refused("publish", "base_moved", base_moved, doors=TOKENED, version=4),
    "an invalid definition": refused("publish", "definition_invalid", invalid_draft, doors=TOKENED),
    "a publish without a draft": refused("publish", "no_draft", discarded_draft),
    "a publish of a missing workflow": refused("publish", "workflow_not_found", slug="missing"),
    "a number that is not the next": refused("publish", "wrong_number", doors=(Git,), version=7),
    "a number that is published": refused("publish", "version_immutable", doors=(Git,), version=1),
    "the number of a lost version": refused("publish", "wrong_number", lost_versions, (Git,), version=1),
    "a stale discard": refused("discard", "stale_draft", doors=TOKENED, seen="stale"),
    "a discard without a draft": refused("discard", "version_not_found", no_draft),
    "a discard in a missing workflow": refused("discard", "workflow_not_found", slug="missing"),
    "a restore over an open draft": refused("restore", "draft_exists", doors=UNPUSHED),
    "nothing to restore": refused("restore", "version_not_found", no_draft, doors=UNPUSHED),
    "a restore in a missing workflow": refused(
        "restore", "workflow_not_found", doors=UNPUSHED, slug="missing"
    ),
    "a stale revert": refused("revert", "stale_draft", seen="stale"),
    "a revert without the draft's state": refused("revert", "precondition_required", seen=""),
    "a revert to a missing version": refused("revert", "version_not_found", version=9),
    "a revert to a lost version": refused("revert", "version_not_found", lost_versions),
    "a revert in a missing workflow": refused("revert", "workflow_not_found", slug="missing"),
    "a missing version as current": refused("move_current", "version_not_found", version=9),
    "a lost version as current": refused("move_current", "version_not_found", lost_versions),
    "current of a missing workflow": refused("move_current", "workflow_not_found", slug="missing"),
    "clearing a missing workflow": refused(
        "clear_current", "workflow_not_found", doors=(Api,), slug="missing"
    ),
    "a token with an unknown role": refused("create_token", "malformed", doors=UNPUSHED, role="root"),
    "a token without a name": refused("create_token", "malformed", doors=UNPUSHED, token=" "),
    "a project's slug that is taken": refused(
        "rename_project", "project_exists", doors=(Api, Cli), slug="other"
    ),
    "a project's slug that is none": refused(
        "rename_project", "invalid_name", doors=(Api, Cli), slug="No Slug"
    ),
    "a member with an unknown role": refused("set_member", "malformed", doors=(Api, Cli), role="root"),
    "the last owner with a lower role": refused("set_member", "last_owner", the_last_owner, doors=(Api, Cli)),
    "removal of the last owner": refused("remove_member", "last_owner", the_last_owner, doors=(Api, Cli)),
    "removal of a user without a role": refused("remove_member", "not_found", doors=(Api, Cli)),
    "a creation in an archived project": refused(
        "create", "project_archived", archived, doors=TOKENED, slug="another"
    ),
    "a save in an archived project": refused("save", "project_archived", archived, doors=TOKENED),
    "a publication in an archived project": refused("publish", "project_archived", archived, doors=TOKENED),
    "a restore in an archived project": refused("restore", "project_archived", archived, doors=UNPUSHED),
    "a move of current in an archived project": refused("move_current", "project_archived", archived),
    "new rules of an archived project": refused(
        "change_rules", "project_archived", archived, doors=(Api, Cli)
    ),
    "the deletion of a project in use": refused("delete_project", "project_not_archived", doors=(Api, Cli)),
    "a missing token": refused("revoke_token", "not_found", doors=UNPUSHED, token=NO_ID),
}


@pytest.mark.parametrize(
    ("kind", "refusal"),
    [
        pytest.param(kind, refusal, id=f"{kind.name}: {name}")
        for name, refusal in REFUSALS.items()
        for kind in refusal.doors
    ],
)
def test_every_door_refuses_the_same(world: World, kind: type[Door], refusal: Refusal) -> None:
    refusal.situation(world)
    arguments = {
        name: world.stale if value == "stale" else value for name, value in refusal.arguments.items()
    }
    action = action_in(world, refusal.action, **arguments)
    refuse(world, kind(world, world.owner.token), action, refusal.pushed if kind is Git else refusal.code)
