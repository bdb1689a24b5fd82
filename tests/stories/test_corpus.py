"""Real workflow files, and definitions of every kind: published, read back, restarted, rebuilt, verified."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from gitstore.definition import document as definitions
from gitstore.errors import GitstoreError
from gitstore.model import Limits, Rules
from tests.stories.instance import Author, Caller, Service

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus-argo-workflows-examples" / "data"
CONFIGS: dict[str, dict[str, Any]] = {
    "webhook": {},
    "schedule": {"cron": "0 3 * * *"},
    "httpCall": {"url": "https://{{host}}/v1/ship", "method": "POST", "headers": '{"X-A": "{{token}}"}'},
    "transform": {"expression": "items[?status == `success`].{id: id}"},
    "xmlJsonTransform": {"direction": "xmlToJson"},
    "delay": {"duration": 2.5},
    "conditional": {"condition": "amount > `100`"},
    "branch": {"branches": ["a", "b"]},
    "loop": {"items": "orders[*]"},
    "terminate": {},
}


def of_kind(kind: str, number: int) -> dict[str, Any]:
    """A workflow of a trigger, a node of `kind`, and, for loops, a container with a child."""
    node: dict[str, Any] = {
        "id": "work", "type": "default", "position": {"x": 200, "y": 10 * number},
        "data": {"label": f"{kind} no. {number} ✓", "type": kind, "config": CONFIGS[kind]},
    }  # fmt: skip
    nodes = [{"id": "start", "type": "webhook", "data": {"label": "Start", "config": {}}}, node]
    edges = [{"id": "e1", "source": "start", "target": "work"}]
    if kind == "loop":
        size = {"width": 300, "height": 200}
        node["type"] = "loopContainer"
        node["data"] |= {"isContainer": True, "dimensions": size, "childNodes": ["child"]}
        data = {"label": "Each", "parentContainer": "work", "config": {"template": "{{x}}"}}
        nodes.append({"id": "child", "type": "transform", "data": data})
    return {"name": f"{kind} {number}", "description": 'multi\nline: "yes"', "nodes": nodes, "edges": edges}


def twenty_definitions() -> dict[str, tuple[str, bytes]]:
    """slug -> (file name, bytes): each kind as YAML and as JSON."""
    made = {}
    for number, kind in enumerate(CONFIGS):
        value = of_kind(kind, number)
        made[f"yaml-{number}"] = ("workflow.yaml", definitions.dump(value, "workflow.yaml", Rules.MESHHOOK))
        made[f"json-{number}"] = ("workflow.json", json.dumps(value, indent=1).encode())
    return made


def corpus() -> dict[str, tuple[str, bytes]]:
    """Forty of the real files; those with several documents have bytes only."""
    found: dict[str, tuple[str, bytes]] = {}
    for path in sorted(CORPUS.glob("*.yaml")):
        raw = path.read_bytes()
        try:
            definitions.parse(raw, "workflow.yaml", Rules.ANY, Limits())
        except GitstoreError:
            continue
        found[path.stem[:60]] = ("workflow.yaml", raw)
    return dict(islice(found.items(), 40))


def publish_all(author: Author, files: dict[str, tuple[str, bytes]]) -> None:
    """Push each file on a branch of its own, then all tags in one push."""
    for slug, (name, raw) in files.items():
        author.git("checkout", "-q", "--orphan", f"drafts/{slug}")
        author.git("rm", "-rfq", "--ignore-unmatch", ".")
        (author.folder / name).write_bytes(raw)
        author.git("add", "-f", name)
        author.git("commit", "-qm", slug)
        author.tag(slug, 1)
    pushed = author.push("--all")
    assert pushed.ok, pushed.output
    pushed = author.push("--tags")
    assert pushed.ok, pushed.output


def check_all(owner: Caller, files: dict[str, tuple[str, bytes]]) -> None:
    for slug, (_, raw) in files.items():
        assert owner.definition(slug, "current") == raw, slug
        (version,) = owner.get(f"/workflows/{slug}/versions").json["versions"]
        assert (version["version_number"], version["valid"]) == (1, True)


@pytest.mark.parametrize("which", ["real", "own"])
def test_files_come_back_byte_for_byte(own_service: Service, tmp_path: Path, which: str) -> None:
    """After the push, after a restart and after a rebuild; verify finds no difference."""
    if which == "real" and not CORPUS.is_dir():
        pytest.skip(f"the corpus is not at {CORPUS.relative_to(CORPUS.parents[3])} beside the repository")
    files = corpus() if which == "real" else twenty_definitions()
    owner = own_service.project("corpus", Rules.ANY if which == "real" else Rules.MESHHOOK)
    assert len(files) >= 20
    publish_all(owner.author(tmp_path / "ann"), files)
    check_all(owner, files)
    own_service.stop()
    own_service.start()
    owner = Caller(own_service.url, owner.project, owner.token)
    check_all(owner, files)
    own_service.cli("rebuild", "corpus")
    check_all(owner, files)
    assert own_service.cli("verify").returncode == 0
