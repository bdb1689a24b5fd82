"""Files of killed processes are removed, those of live ones are kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from gitstore.errors import BusyError
from gitstore.git.cleanup import DAY, MINUTE, MOMENT, QUARTER_HOUR, sweep
from gitstore.git.maintenance import pack_refs
from gitstore.git.quarantine import PREFIX, quarantine
from gitstore.git.unpacking import ALIVE, prefix
from gitstore.repository import Repository
from gitstore.unit_of_work import WRITERS, FileUnitOfWork, shared_lock

LOCKS = ("refs/heads/drafts/a.lock", "refs/tags/a/v1.lock", "refs/ledger/a.lock", "objects/ab/cdef.lock")


def swept(bare: Path, slugs: list[str] | None = None, *, later: float = 0.0) -> set[str]:
    removed = sweep(
        bare,
        FileUnitOfWork(Repository(bare, UUID(int=1))).maintenance,
        time.time() + later,
        slugs,
        sleep=lambda _: time.sleep(0.01),
    )
    return {os.path.relpath(path, bare) for path in removed}


def leave(bare: Path, *names: str) -> None:
    for name in names:
        (bare / name).parent.mkdir(parents=True, exist_ok=True)
        (bare / name).touch()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, apart from that of tests which run at the same time."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_abandoned_lock_files_are_removed(bare: Path) -> None:
    """Of refs and of objects; without leftovers, no writer waits."""
    leave(bare, *LOCKS)
    assert swept(bare) == set(LOCKS)

    def never() -> None:
        raise AssertionError

    assert sweep(bare, never, time.time()) == []  # type: ignore[arg-type]


def test_after_a_crash_only_the_writers_workflow_is_examined(bare: Path) -> None:
    leave(bare, *LOCKS, "refs/tags/b/v1.lock", "refs/superseded/a/20260101T000000.000000Z.lock")
    assert swept(bare, ["a"]) == {
        *LOCKS[:3], "refs/superseded/a/20260101T000000.000000Z.lock",
    }  # fmt: skip
    assert (bare / "refs/tags/b/v1.lock").exists()


def test_the_sweep_waits_for_active_writers(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock file of a live writer is kept at any age: the sweep gives up for now."""
    monkeypatch.setattr("gitstore.unit_of_work._PATIENCE", 0.05)
    leave(bare, LOCKS[0])
    with shared_lock(bare / WRITERS), pytest.raises(Exception, match="another process"):
        swept(bare, later=DAY)
    assert (bare / LOCKS[0]).exists()
    assert swept(bare) == {LOCKS[0]}


def test_a_lock_file_created_meanwhile_is_another_one(bare: Path) -> None:
    """The first lock was released; the present one was just taken."""
    leave(bare, LOCKS[0])

    def sleep(_: float) -> None:
        (bare / "other").touch()
        (bare / "other").replace(bare / LOCKS[0])

    assert (
        sweep(bare, FileUnitOfWork(Repository(bare, UUID(int=1))).maintenance, time.time(), sleep=sleep) == []
    )


def test_files_of_git_are_removed_by_age(bare: Path) -> None:
    """Locks of git after a minute, of packed-refs after a quarter of an hour, partial files after a day."""
    top, packing = {"HEAD.lock", "config.lock"}, {"packed-refs.lock", "packed-refs.new"}
    half = {
        "objects/pack/tmp_pack_x",
        "objects/pack/.tmp-1-pack-2.idx",
        "objects/ab/tmp_obj_y",
        "objects/tmp_z",
        "objects/pack/pack-1.pack",
        "objects/pack/pack-2.idx",
        "objects/pack/pack-2.rev",
    }
    leave(bare, *top, *packing, *half, "objects/pack/pack-3.pack", "objects/pack/pack-3.idx")
    assert swept(bare) == set()
    assert swept(bare, later=MINUTE) == top
    assert swept(bare, later=QUARTER_HOUR) == packing
    assert swept(bare, later=DAY) == half


def test_a_repository_whose_creation_was_killed_is_removed(bare: Path) -> None:
    unfinished = bare.parent / ".new-x"
    leave(bare, f"../{unfinished.name}/one.git/HEAD")
    assert swept(bare, later=QUARTER_HOUR) == set()
    assert swept(bare, [], later=DAY) == set()
    assert swept(bare, later=DAY) == {f"../{unfinished.name}"}
    assert not unfinished.exists()


def test_workflows_are_locked_one_after_the_other_for_a_limited_time(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where writers leave no gap: many workflows that are being written do not occupy a worker."""
    monkeypatch.setattr("gitstore.git.cleanup._PATIENCE", 0.05)
    leave(bare, *(f"refs/heads/drafts/{slug}.lock" for slug in "abc"))
    asked: list[str] = []

    def busy(slug: str = "") -> AbstractContextManager[None]:
        asked.append(slug)
        time.sleep(0.1)
        raise BusyError("another writer")

    with pytest.raises(BusyError):
        sweep(bare, busy, time.time(), alone=busy, sleep=lambda _: None)
    assert len(asked) == 2
    assert asked[0] == ""


class Packing:
    """A process that packs refs, stopped while its git holds packed-refs.lock."""

    _PACKING = (
        "import sys; from pathlib import Path; from gitstore.git.maintenance import pack_refs\n"
        "pack_refs(Path(sys.argv[1]))"
    )

    def __init__(self, bare: Path) -> None:
        for _ in range(50):
            self.parent = psutil.Popen([sys.executable, "-c", self._PACKING, str(bare)])
            with suppress(psutil.NoSuchProcess):  # git ended before it was stopped
                if self._stop_git(bare / "packed-refs.lock"):
                    return
            self.parent.wait()
            make_refs(bare, "again")
        raise AssertionError("git was never found with its lock")

    def _stop_git(self, lock: Path) -> bool:
        """Wait for git and its lock, and stop git; return whether it holds the lock then."""
        while not (children := self.parent.children()):
            if self.parent.poll() is not None:
                return False
        (self.git,) = children
        while not lock.exists() and self.git.status() != psutil.STATUS_ZOMBIE:
            pass
        self.git.suspend()
        if not (holds := lock.exists()):
            self.git.resume()
        return holds

    def end(self) -> None:
        """Let it go on, and wait until it is done."""
        self.git.resume()
        psutil.wait_procs([self.git, self.parent])


def make_refs(bare: Path, slug: str, count: int = 2000) -> set[str]:
    """Write loose tags."""
    oid = subprocess.check_output(
        ["git", "-C", str(bare), "hash-object", "-w", "--stdin"], input=b""
    ).decode()
    names = [f"refs/tags/{slug}/v{number}" for number in range(1, count + 1)]
    leave(bare, *names)
    for name in names:
        (bare / name).write_text(oid)
    return set(names)


def refs_of(bare: Path) -> set[str]:
    listed = subprocess.check_output(["git", "-C", str(bare), "for-each-ref", "--format=%(refname)"])
    return set(listed.decode().split())


def test_the_lock_of_a_pack_of_refs_is_kept_while_its_git_lives(bare: Path) -> None:
    """However long it takes, and although gitstore's process was killed: other refs would be lost.

    A second pack would remove the files of newer refs, and the first one would then write packed-refs without
    them. A lock file of a ref is kept for a minute: git may be about to delete the ref's file.
    """
    made = make_refs(bare, "a")
    packing = Packing(bare)
    packing.parent.kill()
    packing.parent.wait()
    made |= make_refs(bare, "b", 5)
    leave(bare, LOCKS[0])
    assert swept(bare) == set()
    assert swept(bare, later=QUARTER_HOUR) == {LOCKS[0]}
    with pytest.raises(BusyError, match=r"packed-refs\.lock"):
        pack_refs(bare)
    packing.end()
    assert swept(bare) == set()
    pack_refs(bare)
    assert refs_of(bare) >= made


def test_the_lock_of_a_killed_pack_of_refs_is_removed(bare: Path) -> None:
    made = make_refs(bare, "a")
    packing = Packing(bare)
    packing.git.kill()
    packing.end()
    assert swept(bare, later=MINUTE) == set()
    assert "packed-refs.lock" in swept(bare, later=QUARTER_HOUR)
    pack_refs(bare)
    assert refs_of(bare) >= made


def test_a_quarantine_is_removed_after_its_process_ended(bare: Path) -> None:
    """Its process holds a lock in it, which the kernel releases when the process is killed."""
    with quarantine(bare) as held:
        assert held.folder.is_dir()
        assert swept(bare, later=DAY) == set()
    making = (
        "import sys; from pathlib import Path; from gitstore.git.quarantine import quarantine\n"
        "with quarantine(Path(sys.argv[1])) as held: held.folder; print('made', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", making, str(bare)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"made\n"
        assert swept(bare, later=DAY) == set()
        child.send_signal(signal.SIGKILL)
    (name,) = swept(bare, later=MOMENT)
    assert name.startswith(f"objects/{PREFIX}")
    assert list((bare / "objects").glob(f"{PREFIX}*")) == []


def test_a_quarantine_without_a_lock_file_is_removed_after_a_minute(bare: Path) -> None:
    leave(bare, f"objects/{PREFIX}x/incoming")
    assert swept(bare) == set()
    assert swept(bare, later=MINUTE) == {f"objects/{PREFIX}x"}


def test_a_folder_in_which_a_small_pack_was_checked_is_removed(bare: Path, temporary: Path) -> None:
    """It is among temporary files, and left there, without the lock, if the process is killed.

    That of another repository may have been made just now, and stays.
    """
    checked, other = temporary / f"{prefix(bare)}x", temporary / f"{prefix(bare.with_stem('other'))}x"
    for folder in (checked / "pack", other):
        folder.mkdir(parents=True)
    later = time.time() + DAY
    with shared_lock(checked / ALIVE):
        assert sweep(bare, nullcontext, later) == []
    assert sweep(bare, nullcontext, later, ["a"]) == []
    assert sweep(bare, nullcontext, later) == [checked]
    assert list(temporary.iterdir()) == [other]


def test_a_clock_set_back_makes_no_file_old(bare: Path) -> None:
    leave(bare, "HEAD.lock", "packed-refs.lock")
    assert swept(bare, later=-DAY) == set()
