"""A copy of the checkout, its dependencies and the interpreter, for other users to run.

A clone in root's home, its virtual environment and the interpreter that uv installed are below folders that
only root may enter. Tests run the processes of other users from such a copy.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[1]
_NOT_CODE = shutil.ignore_patterns(".*", "gitstore-data", "screenshots", "dist", "__pycache__")
_NOT_NEEDED = shutil.ignore_patterns("site-packages", "test", "idlelib", "tkinter", "config-*", "ensurepip")


def is_open(path: Path) -> bool:
    """Whether every user may reach `path`."""
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


@dataclass(frozen=True)
class Installation:
    """A checkout and the interpreter that runs it."""

    python: Path
    checkout: Path
    environment: dict[str, str]


HERE = Installation(Path(sys.executable), CHECKOUT, {"PYTHONPATH": str(CHECKOUT)})


def install(folder: Path, *requirements: str) -> Installation:
    """Copy the checkout and the dependencies of it and of `requirements` into `folder`, for all to read."""
    checkout, site = folder / "checkout", folder / "site"
    copy_checkout(checkout)
    for path, name in _files(map(Requirement, ("gitstore[embedded]", *requirements))):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, site / name)
        shutil.copymode(path, site / name)
    environment = {"PYTHONPATH": os.pathsep.join([str(checkout), str(site)])}
    python = Path(sys.executable).resolve()
    if not is_open(python):
        python = _copy_python(python, folder / "python")
        environment["LD_LIBRARY_PATH"] = str(folder / "python/lib")
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
    return Installation(python, checkout, environment)


def copy_checkout(folder: Path) -> None:
    """Copy the files of this checkout."""
    shutil.copytree(CHECKOUT, folder, ignore=_NOT_CODE)


def _files(requirements: Iterable[Requirement]) -> Iterator[tuple[Path, str]]:
    """The files of the required distributions and of their requirements: (path, name)."""
    todo, seen = list(requirements), set[tuple[str, str]]()
    while todo:
        requirement = todo.pop()
        installed = distribution(requirement.name)
        for extra in ("", *requirement.extras):
            if (requirement.name, extra) in seen:
                continue
            seen.add((requirement.name, extra))
            wanted = map(Requirement, installed.requires or [])
            todo += [one for one in wanted if not one.marker or one.marker.evaluate({"extra": extra})]
            if not extra:
                files = [file for file in installed.files or [] if ".." not in file.parts]
                yield from ((Path(str(file.locate())), str(file)) for file in files)


def _copy_python(python: Path, folder: Path) -> Path:
    """Copy the interpreter with its library, which it finds relative to itself."""
    (folder / "bin").mkdir(parents=True)
    copied = folder / "bin" / python.name
    shutil.copy(python, copied)
    stdlib = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(stdlib, folder / "lib" / stdlib.name, ignore=_NOT_NEEDED)
    for library in stdlib.parent.glob("libpython*.so*"):
        shutil.copy(library, folder / "lib")
    return copied
