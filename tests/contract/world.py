"""A project in the state that a refusal needs, and everything in it that an action could change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import uuid4

from dulwich.repo import Repo
from flask import Flask

from gitstore.model import Rules
from service.projects import Projects
from service.run.bootstrap import create_project
from sync.catalog import Project
from tests.service.api.conftest import Client, House, definition, yaml

SLUG = "order-sync"
WORKFLOW = f"/workflows/{SLUG}"
DRAFT = f"{WORKFLOW}/versions/draft"

_ROWS = """
    select 'workflow', to_jsonb(t) from gitstore.workflows t where project_id = %(project)s
    union all select 'version', to_jsonb(t) from gitstore.workflow_versions t where project_id = %(project)s
    union all select 'token', to_jsonb(t) - 'last_used_at'
        from gitstore.access_tokens t where project_id = %(project)s
    union all select 'member', to_jsonb(t) from gitstore.members t where project_id = %(project)s
    union all select 'project', to_jsonb(t) from gitstore.projects t where id = %(project)s
    union all select 'audit', to_jsonb(t) from gitstore.audit_log t where project_id = %(project)s
"""


@dataclass
class World:
    """A new project: order-sync has v1 and v2, v2 is current, and a draft is open."""

    house: House
    owner: Client
    stale: str
    """Commit of an earlier state of the draft."""

    @classmethod
    def build(cls, house: House) -> World:
        with house.database.as_owner() as tx:
            slug = f"p-{uuid4().hex[:12]}"
            project = create_project(tx, Projects(house.config), uuid4(), slug, slug, Rules.MESHHOOK)
        house = replace(house, project=project)
        owner = house.client("owner")
        owner.create(SLUG)
        for url in (None, "https://two.example/"):
            assert owner.publish(SLUG, url).status_code == 201
        stale = owner.post(f"{WORKFLOW}/versions", json={"definition": definition("https://three.example/")})
        world = cls(house, owner, stale.json["commit"])
        world.save("https://four.example/")
        return world

    @property
    def app(self) -> Flask:
        return self.house.app

    @property
    def project(self) -> Project:
        return self.house.project

    @property
    def draft(self) -> str:
        """The commit of the open draft, or ""."""
        return str((self.owner.get(WORKFLOW).json["draft"] or {}).get("commit", ""))

    @property
    def latest(self) -> int:
        return int(self.owner.get(WORKFLOW).json["latest_version"] or 0)

    @property
    def current(self) -> int | None:
        current = self.owner.get(WORKFLOW).json["current"]
        return current and int(current["version_number"])

    @property
    def discarded(self) -> str:
        """The ref of the draft that was discarded last."""
        rows = self.owner.get(f"{DRAFT}/superseded").json.get("superseded")
        return str(rows[0]["ref"]) if rows else f"refs/superseded/{SLUG}/20260101T000000.000000Z"

    def save(self, url: str) -> None:
        assert self.owner.put(DRAFT, data=yaml(url), type="application/yaml", match="*").status_code == 200

    def state(self) -> tuple[object, ...]:
        """Everything that an action could change: refs, rows and records of the audit log."""
        with Repo(str(self.house.repository())) as repository:
            refs = {ref: repository.refs[ref] for ref in repository.refs.allkeys() if ref != b"HEAD"}
        with self.house.database.as_owner() as tx:
            rows = tx.tuples(_ROWS, project=self.project.id)
        return refs, sorted(map(str, rows))
