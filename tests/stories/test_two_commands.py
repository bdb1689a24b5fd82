"""The two commands of the README, for any place of the clone, any user and any environment.

The clone lies in a folder that only its owner may enter, with a space and non-ASCII letters in its name.
`-m soak` tries every combination of conditions, and then the commands themselves, with the whole suite.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from itertools import combinations
from pathlib import Path
from uuid import uuid4

import pytest

from tests.installation import Installation, copy_checkout
from tests.service.serve_process import GITSTORE, running, until
from tests.stories.instance import Caller, definition

DEAD_PROXY = "http://127.0.0.1:9"
CONDITIONS = ("postgres", "proxy", "tmpdir", "umask")
USERS = [
    pytest.param("root", id="root", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")),
    pytest.param("ordinary", id="ordinary"),
]
COMBINATIONS = [
    pytest.param(
        frozenset(some),
        id=" ".join(some) or "none",
        marks=() if size in (0, len(CONDITIONS)) else pytest.mark.soak,
    )
    for size in range(len(CONDITIONS) + 1)
    for some in combinations(CONDITIONS, size)
]

# Changes to another user, as login(1) does, and runs a command in place of this process.
_BECOME = """
import os, sys, warnings  # before the change of user: these files may be inaccessible then
uid, umask = int(sys.argv[1]), int(sys.argv[2], 8)
os.umask(umask)
if uid != os.geteuid():
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
os.execvp(sys.argv[3], sys.argv[3:])
"""


@pytest.fixture
def uid(user: str) -> int:
    """Id of the user; "ordinary" is the current user, or `nobody` if that is root."""
    me = os.geteuid()
    return pwd.getpwnam("nobody").pw_uid if me == 0 and user == "ordinary" else me


@pytest.fixture
def home(installation: Installation, uid: int) -> Iterator[Path]:
    """A folder of that user beside the installation, which no other user can enter meanwhile."""
    closed = installation.checkout.parent
    before = closed.stat()
    os.chown(closed, uid, -1)
    closed.chmod(0o700)
    home = closed / f"home {uuid4().hex}"
    home.mkdir()
    os.chown(home, uid, -1)
    yield home
    shutil.rmtree(home)
    os.chown(closed, before.st_uid, -1)
    closed.chmod(before.st_mode)


def become(uid: int, conditions: Collection[str]) -> tuple[str, ...]:
    """Return the prefix of a command that this user runs."""
    return sys.executable, "-c", _BECOME, str(uid), "077" if "umask" in conditions else "022"


def environment(home: Path, uid: int, conditions: Collection[str]) -> dict[str, str]:
    """Return the variables of the conditions; a start of the system's Postgres leaves a file in `home`."""
    path = home / "bin"
    path.mkdir()
    path.chmod(0o755)  # whatever the umask is under which the tests run
    variables = {"PATH": str(path), "HOME": str(home)}
    if "postgres" in conditions:
        variables["PATH"] += os.pathsep + os.environ["PATH"]
        for program in ("initdb", "pg_ctl", "postgres"):
            (path / program).write_text(f'#!/bin/sh\ntouch "{home}/started"\nexit 1\n')
            (path / program).chmod(0o755)
    else:
        for tool in ("cat", "git", "setpriv", "sh", "unshare"):
            if found := shutil.which(tool):
                (path / tool).symlink_to(found)
    if "proxy" in conditions:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            variables |= {name: DEAD_PROXY, name.upper(): DEAD_PROXY}
    if "tmpdir" in conditions:
        temporary = home / "tmp für alles"
        temporary.mkdir(mode=0o700)
        os.chown(temporary, uid, -1)
        variables["TMPDIR"] = str(temporary)
    return variables


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("conditions", COMBINATIONS)
def test_a_workflow_is_published_and_read_back(
    installation: Installation, home: Path, uid: int, conditions: frozenset[str]
) -> None:
    """From the first start to a clean stop, by the printed lines; nothing else is started or left behind."""
    variables = environment(home, uid, conditions)
    serve = (str(installation.python), *GITSTORE[1:], "serve")
    check_serve(home, uid, conditions, serve, {**variables, **installation.environment})


def check_serve(
    home: Path, uid: int, conditions: Collection[str], command: tuple[str, ...], variables: dict[str, str]
) -> None:
    """Start the service with `command`, run the printed lines, read the version, and stop the service."""
    as_user = become(uid, conditions)
    with running(home, (*as_user, *command), None, **variables) as service:
        lines = service.ready().output.partition("into a shell:\n\n")[2]
        pasted = subprocess.run(
            [*as_user, "sh", "-e"],
            input=lines, cwd=home, env=variables, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert pasted.returncode == 0, pasted.stderr
        assert "remote: published hello v1" in pasted.stderr
        owner = Caller(service.url, "default", (service.data / "owner-token").read_text().strip())
        assert owner.definition("hello", "current") == (home / "hello/workflow.yaml").read_bytes()
        made = owner.call("POST", "/workflows", {"slug": "other", "definition": definition("Other")})
        assert made.status == 201, made.raw
        assert service.stop() == 0
        until(service.gone)
    assert {path.lstat().st_uid for path in service.data.rglob("*")} == {uid}
    assert not (home / "started").exists()
    if "tmpdir" in conditions:
        left = [path.name for path in Path(variables["TMPDIR"]).iterdir()]
        assert [name for name in left if not name.startswith("uv-")] == []  # uv leaves its lock


@pytest.mark.parametrize("user", ["root" if os.geteuid() == 0 else "ordinary"])
def test_tests_pass_in_such_a_folder(installation: Installation, home: Path, uid: int) -> None:
    """Tests that start children of another user, and tests that use HTTP and git on loopback."""
    variables = environment(home, uid, CONDITIONS)
    some = [
        "tests/sync/test_embedded_places.py::test_an_ordinary_user_runs_it_directly[pdeathsig]",
        "tests/sync/test_embedded_places.py::test_the_folder_of_another_user_is_refused",
        "tests/stories/test_push.py::test_a_tag_publishes",
    ]
    tests = subprocess.run(
        [*become(uid, CONDITIONS), sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", *some],
        cwd=installation.checkout,
        env={**variables, **installation.environment},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert re.search(r"\d+ passed", tests.stdout)
    assert not (home / "started").exists()


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("user", USERS)
def test_the_commands_themselves(installation: Installation, home: Path, uid: int) -> None:
    """`uv run gitstore serve` and `uv run pytest`, the whole suite, in a new clone under all conditions."""
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is not on PATH"
    variables = environment(home, uid, CONDITIONS)
    shutil.copy(Path(uv).resolve(), home / "bin/uv")
    copy_checkout(clone := home / "clone")
    for path in (clone, *clone.rglob("*")):
        os.chown(path, uid, -1)
    variables |= {"UV_PYTHON": str(installation.python)}
    variables |= {k: v for k, v in installation.environment.items() if k != "PYTHONPATH"}
    as_user = become(uid, CONDITIONS)
    online = {name: value for name, value in variables.items() if not name.lower().endswith("_proxy")}
    online |= {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_"))}
    subprocess.run([*as_user, "uv", "sync", "-q"], cwd=clone, env=online, check=True)
    check_serve(home, uid, CONDITIONS, ("uv", "run", "--project", str(clone), "gitstore", "serve"), variables)
    tests = subprocess.run(
        [*as_user, "uv", "run", "pytest", "-q"],
        cwd=clone, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert not (home / "started").exists()
