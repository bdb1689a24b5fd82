"""Have git check and unpack a pack that is not trusted, as a child process under a memory limit."""

from __future__ import annotations

import mmap
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from dulwich.object_format import SHA1
from dulwich.pack import Pack

from gitstore.budget import spending
from gitstore.errors import ObjectsMissingError, ObjectsRefusedError
from gitstore.git.files import fault_in_output
from gitstore.git.process import FRUGAL, command, environment, limit_memory
from gitstore.model import Limits
from gitstore.unit_of_work import shared_lock

ALIVE: Final = "alive"
"""The lock file in a folder of this module and of gitstore/git/quarantine.py."""

# Messages of unpack-objects and index-pack about a referenced object that does not exist.
_LINK_BROKEN = ("object of unexpected type", "did not receive expected object", "unresolved delta")
_LONGEST_OUTPUT = 4096  # characters of git's error output that are passed on
_BOUNDED: Final = {**FRUGAL, "core.packedGitLimit": "32m"}
_DURABLE: Final = {**_BOUNDED, "core.fsync": "all", "core.fsyncMethod": "fsync"}
_PASSING: Final = {**_BOUNDED, "core.fsync": "none"}
_EXPLODE: Final = ("unpack-objects", "-q", "--strict")
_INDEX: Final = ("index-pack", "--strict", "--stdin", "--fix-thin")

Data = bytes | mmap.mmap


def prefix(repository: Path) -> str:
    """Return the prefix of the names of the folders in which git checks small packs of `repository`."""
    return f"gitstore-incoming-{repository.stem}-"


def unpack(repository: Path, folder: Path, pack: Data, limits: Limits, *, exploded: bool) -> None:
    """Unpack `pack` into the object store `folder`, durable on return: as loose objects, or as a pack."""
    _run(repository, folder, _EXPLODE if exploded else _INDEX, _DURABLE, pack, limits)


def checked(repository: Path, pack: Data, limits: Limits) -> dict[bytes, tuple[int, bytes]]:
    """Return the types and contents of a small pack, and of its deltas' bases, once git has checked them."""
    # Among temporary files, so on a local disk even if the repository is not.
    with (
        tempfile.TemporaryDirectory(prefix=prefix(repository), ignore_cleanup_errors=True) as folder,
        shared_lock(Path(folder, ALIVE)),
    ):
        _run(repository, Path(folder), _INDEX, _PASSING, pack, limits)
        (made,) = Path(folder, "pack").glob("*.pack")
        with closing(Pack(os.fspath(made.with_suffix("")), object_format=SHA1)) as whole:
            return {bytes(oid): whole.get_raw(oid) for oid in whole}


@spending("git")
def _run(
    repository: Path,
    folder: Path,
    how: Sequence[str],
    config: Mapping[str, str],
    pack: Data,
    limits: Limits,
) -> None:
    """Have git read `pack` into `folder`, a store of objects in front of those of `repository`.

    Raises `objects_missing` or `objects_refused`, the latter with git's own messages in `lines`.
    """
    places = {
        "GIT_OBJECT_DIRECTORY": os.fspath(folder),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.fspath(repository / "objects"),
    }
    with subprocess.Popen(
        command(repository, *how, config=config),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(places),
    ) as child:
        # The child waits for input, so the limit applies before the first byte.
        limit_memory(child.pid, limits.memory)
        _, complaint = child.communicate(pack)  # type: ignore[arg-type] # any buffer will do
    if child.returncode != 0:
        output = (
            complaint.decode("utf-8", "replace")[:_LONGEST_OUTPUT].strip()
            or "git exited without an error message"
        )
        lines = output.splitlines()
        if (fault := fault_in_output(output)) is not None:
            raise fault
        if any(words in output for words in _LINK_BROKEN):
            what = "the pushed objects refer to missing objects"
            raise ObjectsMissingError(what, lines=[what, *lines])
        raise ObjectsRefusedError(_reason(output), lines=lines)


def _reason(output: str) -> str:
    """Return the relevant line of git's error output."""
    lines = [line for line in output.splitlines() if line.startswith(("error: ", "fatal: "))] or [output]
    return "git refused the objects: " + lines[0].partition(": ")[2]
