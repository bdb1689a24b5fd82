"""The order of writes to disk, checked by the system calls of a writer, where strace is available."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import definition
from tests.sync.conftest import House
from tests.sync.kill_points import ROOT, push_request

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d{1,10})<([^>]*)>, )?"([^"]*)"')  # perhaps below an open folder
_OBJECTS = re.compile(r"objects/(../\w{38}|pack/pack-\w{40}[.](pack|idx))")
_DURABLE = "fsync,fdatasync,rename,renameat,renameat2,link,linkat,mkdir,mkdirat"
_FD = re.compile(r"^\d+<([^>]*)>")


def calls_of(
    house: House, conninfo: str, write: dict[str, Any], folder: Path, traced: str
) -> list[tuple[str, str, bool]]:
    """(name, arguments, whether it succeeded) of each system call of a write that names the repository."""
    out = folder / "trace"
    child = subprocess.run(
        ["strace", "-f", "-y", "-qq", "-o", str(out), "-s", "400", "-e", f"trace={traced}",
         sys.executable, "-m", "tests.sync.kill_points", str(house.store.path), str(house.project), conninfo],
        input=json.dumps({"write": write, "at": None, "nth": 0}) + "\n",
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert json.loads(child.stdout)["ended"] is not None
    found = map(_CALL.search, out.read_text().splitlines())
    calls = [(call[1], call[2], not call[3].startswith("-")) for call in found if call is not None]
    return [call for call in calls if str(house.store.path) in call[1]]


def traced(house: House, conninfo: str, write: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
    """(what, path) of each durable step: `sync <file or folder>`, `from <old>` and `name <new>`, in order."""
    steps = []
    for call, arguments, succeeded in calls_of(house, conninfo, write, folder, _DURABLE):
        if not succeeded:
            continue
        if call.endswith("sync"):
            steps.append(("sync", (_FD.match(arguments) or ["", ""])[1]))
        elif call.startswith("mkdir"):
            steps.append(("made", named_in(arguments)[-1]))
        else:
            steps += zip(("from", "name"), named_in(arguments)[-2:], strict=True)
    base = str(house.store.path) + "/"
    return [(what, path.removeprefix(base)) for what, path in steps if path.startswith(base[:-1])]


def named_in(arguments: str) -> list[str]:
    """The paths that a system call names, as absolute ones."""
    return [str(Path(folder, path)) for folder, path in _PATH.findall(arguments)]


def check_order(steps: list[tuple[str, str]], tag: str) -> None:
    """Objects, their folders, the ledger and its folder, then the tag and its folder."""
    place = steps.index(("name", tag))
    objects = [path for what, path in steps if what == "name" and _OBJECTS.fullmatch(path)]
    assert objects
    for path in objects:
        named = steps.index(("name", path))
        assert named < place, f"{path} comes after the tag"
        _, source = steps[named - 1]
        # Files of the quarantine were written, synced and named by git, under other names.
        assert "tmp_objdir-" in source or ("sync", source) in steps[:named], f"{path} is named unsynced"
        folder = str(Path(path).parent)
        assert ("sync", folder) in steps[named:place], f"the folder of {path} is not synced before the tag"
    for path in [path for what, path in steps if what == "made" and re.fullmatch(r"objects/..", path)]:
        assert ("sync", "objects") in steps[steps.index(("made", path)) : place], f"{path} is not synced"
    ledger = max(at for at, step in enumerate(steps) if step == ("name", "refs/ledger/a"))
    assert ("sync", "refs/ledger") in steps[ledger:place]
    for path in (tag, "refs/ledger/a"):
        assert ("sync", f"{path}.lock") in steps[: steps.index(("name", path))], f"{path} is named unsynced"
    assert ("sync", str(Path(tag).parent)) in steps[place:]


def test_a_publication_is_durable_in_the_order_of_its_references(
    house: House, conninfo: str, tmp_path: Path
) -> None:
    house.save("a")
    write = {"kind": "publish", "slug": "a", "definition": {}}
    check_order(traced(house, conninfo, write, tmp_path), "refs/tags/a/v1")


def test_a_draft_and_its_publication_in_one_write_are_durable_in_that_order(
    house: House, conninfo: str, tmp_path: Path
) -> None:
    """All objects in one pack; the draft moves last."""
    house.publish("a")
    write = {"kind": "one call", "slug": "a", "definition": definition("https://c.example/")}
    steps = traced(house, conninfo, write, tmp_path)
    check_order(steps, "refs/tags/a/v2")
    assert len([path for what, path in steps if what == "name" and path.endswith(".pack")]) == 1
    draft = steps.index(("name", "refs/heads/drafts/a"))
    assert steps.index(("name", "refs/tags/a/v2")) < draft
    assert ("sync", "refs/heads/drafts/a.lock") in steps[:draft]
    assert ("sync", "refs/heads/drafts") in steps[draft:]


@pytest.mark.parametrize("large", [False, True])
def test_a_push_is_durable_in_the_same_order(
    house: House, conninfo: str, tmp_path: Path, *, large: bool
) -> None:
    """One pack; large files are moved in from the quarantine, where git has synced them."""
    request = push_request(tmp_path / "scratch", "a", large=large)
    steps = traced(house, conninfo, {"kind": "push", "slug": "a", "request": str(request)}, tmp_path)
    check_order(steps, "refs/tags/a/v1")
    check_order(steps, "refs/tags/a/v2")
    arrived = [path for what, path in steps if what == "sync" and "tmp_objdir-incoming-" in path]
    packs = [path for what, path in steps if what == "name" and path.endswith(".pack")]
    loose = [path for path in arrived if "tmp_obj_" in path]
    assert (len(loose), len(packs)) == ((8, 1) if large else (0, 1))


@pytest.mark.parametrize(
    ("kind", "syncs", "calls", "parts"),
    [("save", 5, 46, 125), ("publish", 7, 58, 146), ("one call", 9, 70, 180)],
)
def test_a_write_makes_few_system_calls(
    house: House, conninfo: str, tmp_path: Path, kind: str, syncs: int, calls: int, parts: int
) -> None:
    """Each fsync, and each part of a path, is a round trip, or several, on a volume of several machines.

    The process is new: it also reads the small packs, which a web process keeps in memory.
    """
    house.publish("a")
    if kind != "one call":
        house.save("a", "https://b.example/")
    write = {"kind": kind, "slug": "a", "definition": definition("https://c.example/")}
    calls_made = calls_of(house, conninfo, write, tmp_path, "file,fsync,fdatasync")
    paths = [call for call in calls_made if '"",' not in call[1] and call[0] != "execve"]
    assert sum(call.endswith("sync") for call, *_ in paths) <= syncs
    assert sum(not call.endswith("sync") for call, *_ in paths) <= calls, paths
    above = len(house.store.path.parent.parts)
    used = [path for call in paths if not call[0].endswith("sync") for _, path in _PATH.findall(call[1])]
    assert sum(len(Path(path).parts) - (above if path[0] == "/" else 0) for path in used) <= parts, used
