"""`gitstore backup` and `restore`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final

import click

from gitstore.diff.summary import count
from gitstore.errors import ConfigError, IntegrityError
from gitstore.git.files import fsync_folder, machine_fault, write_atomically
from gitstore.system import now, try_lock
from service.cli.operator import APPLICATION
from service.cli.terminal import WHERE, CliError, Progress, in_json, with_config
from service.cli.upkeep import differences
from service.config import Config
from service.projects import Projects, make_data_folder
from service.run.bootstrap import OPERATOR
from service.run.database import check, connected, connection_string, opened
from service.run.secret_key import created_sealer, existing_sealer, explanation
from sync import backup as backups
from sync import backup_archive as archives
from sync import restore as restoring
from sync.backup import BackUp
from sync.backup_archive import Archive, Writer
from sync.catalog import Project
from sync.db import Database, Transaction
from webhooks.lost_secrets import lost, reset

STREAM: Final = Path("-")
PASSPHRASE: Final = "GITSTORE_BACKUP_PASSPHRASE_FILE"  # noqa: S105 - the name of a setting

_RESTORING: Final = ".restoring"
_STEP: Final = 2**20


@click.command()
@click.argument("target", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--full", is_flag=True, help="Begin a new chain in the folder: back up everything.")
@click.option(
    "--verify",
    is_flag=True,
    help="Restore the backup into a scratch place, and check it as gitstore verify does.",
)
@click.option(
    "--without", multiple=True, metavar="PROJECT", help="Leave out a project; may be given several times."
)
@click.option("--ask-passphrase", is_flag=True, help="Ask for the passphrase of the secrets.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@with_config(*WHERE, "GITSTORE_SECRET_KEY", PASSPHRASE)
def backup(
    config: Config,
    target: Path,
    full: bool,
    verify: bool,
    without: tuple[str, ...],
    ask_passphrase: bool,
    as_json: bool,
) -> None:
    """Back up all projects to TARGET.

    TARGET is a folder, a file *.tar, or - for stdout. Writers may go on. In a folder, a backup adds
    to the newest one there. Secrets of subscriptions and sources are included with a passphrase only.
    """
    if target == STREAM and (verify or as_json):
        raise click.UsageError("--verify and --json need a folder or a file: stdout has the backup")
    if target == STREAM and sys.stdout.isatty():
        raise click.UsageError("stdout is a terminal: redirect it, or name a folder or a file")
    with _disk_faults():
        passphrase = _passphrase(config, ask=ask_passphrase, new=True)
        path, previous, done, size = _back_up(config, target, passphrase, full=full, without=without)
        found = list(_tried(config, path, passphrase).differences) if verify else []
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    if done.secrets:
        click.echo(
            f"note: {count(done.secrets, 'secret')} of subscriptions and sources left out: set {PASSPHRASE}, "
            "or keep the secrets elsewhere",
            err=True,
        )
    manifest = done.manifest
    if as_json:
        result = {
            "file": str(path),
            "id": manifest.id,
            "predecessor": manifest.predecessor,
            "created_at": manifest.created_at,
            "projects": [project.slug for project in manifest.projects],
            "bytes": size,
            "secrets_left_out": done.secrets,
            "notes": done.notes,
            "verified": verify and not found,
            "differences": [f"{slug}: {line}" for slug, line in found],
        }
        click.echo(in_json(result))
    else:
        adds = f", adds to {previous.name}" if previous is not None else ""
        checked = ", verified" if verify and not found else ""
        what = f"{count(len(manifest.projects), 'project')}, {size / 2**20:.1f} MiB{adds}{checked}"
        click.echo(f"{path}: {what}", err=target == STREAM)
        for slug, line in found:
            click.echo(f"{slug}: {line}", err=True)
    sys.exit(1 if found else 0)


@click.command()
@click.argument("source", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Restore into a scratch place, verify that, and remove it.")
@click.option(
    "--paused", is_flag=True, help="Pause all subscriptions and sources: for a copy beside the original."
)
@click.option("--without-secrets", is_flag=True, help="Restore without the secrets that the backup has.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@with_config(*WHERE, "GITSTORE_SECRET_KEY", PASSPHRASE)
def restore(
    config: Config, source: Path, dry_run: bool, paused: bool, without_secrets: bool, as_json: bool
) -> None:
    """Restore a backup from SOURCE.

    SOURCE is a folder (its newest backup), a file *.tar, or - for stdin. The database and the folder of
    repositories must be empty; other paths and another Postgres will do. A backup that adds to others needs
    those in the same folder. A damaged backup changes nothing. Exit status 1 if the restored state differs
    from Git.
    """
    with ExitStack() as stack:
        stack.enter_context(_disk_faults())
        path = stack.enter_context(_received()) if source == STREAM else source
        passphrase = None
        if not without_secrets:
            with closing(archives.newest(path)) as archive:
                if archive.has(backups.SECRETS):
                    passphrase = _passphrase(config, ask=sys.stdin.isatty())
                    if passphrase is None:
                        raise ConfigError(
                            f"the backup has secrets: set {PASSPHRASE} to the file with its passphrase, or "
                            "restore without them: --without-secrets"
                        )
        if dry_run:
            outcome = _tried(config, path, passphrase, paused=paused)
        else:
            outcome = _restore(config, path, passphrase, paused=paused)
    if as_json:
        result = {
            "projects": [project.slug for project in outcome.projects],
            "secrets_reset": outcome.resets,
            "differences": [f"{slug}: {line}" for slug, line in outcome.differences],
        }
        click.echo(in_json(result))
    else:
        for line in outcome.resets:
            click.echo(line)
        for slug, line in outcome.differences:
            click.echo(f"{slug}: {line}")
        verb = "would be restored" if dry_run else "restored"
        found = len(outcome.differences)
        difference = f"{found or 'no'} difference{'' if found == 1 else 's'}"
        click.echo(f"{verb}: {count(len(outcome.projects), 'project')}, {difference}")
    sys.exit(1 if outcome.differences else 0)


# Backing up


def _back_up(
    config: Config, target: Path, passphrase: str | None, *, full: bool, without: Collection[str]
) -> tuple[Path, Path | None, BackUp, int]:
    """Write the backup; return its path, that of the one that it adds to, the result and the size."""
    with ExitStack() as stack:
        previous: Archive | None = None
        path = target
        if target != STREAM and target.suffix != archives.SUFFIX:
            stack.enter_context(_only_one(target))
            archives.remove_interrupted(target)
            newest = None if full else archives.newest_in(target)
            if newest is not None:
                try:
                    previous = stack.enter_context(closing(Archive(newest)))
                except IntegrityError as error:
                    raise error.reworded(f"{error.message}. Begin a new chain: --full") from error
            path = target / archives.name_at(now())
        out: BinaryIO = sys.stdout.buffer
        if target != STREAM:
            out = stack.enter_context(archives.new_file(path))
        database = stack.enter_context(connected(config, APPLICATION))
        writer = Writer(out, passphrase)
        done = backups.back_up(
            database,
            Projects(config),
            writer,
            previous,
            key=None if passphrase is None else _secret_key(config),
            without=without,
            progress=Progress,
        )
        out.flush()
        return path, previous.path if previous is not None else None, done, writer.size


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises `config` while another backup or restore does."""
    if folder.is_file():
        raise ConfigError(f"{folder} is a file, and not one that ends in {archives.SUFFIX}: name a folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not try_lock(handle):
            raise ConfigError(f"another backup or restore in {folder} is running")
        yield
    finally:
        os.close(handle)


def _secret_key(config: Config) -> str:
    """Return the keys that encrypt the secrets of this installation; empty if there are none."""
    existing_sealer(config)  # raises `config` if it is damaged
    if config.secret_key is not None:
        return config.secret_key
    with suppress(FileNotFoundError):
        return config.secret_key_file.read_text(encoding="ascii").strip()
    return ""


def _passphrase(config: Config, *, ask: bool, new: bool = False) -> str | None:
    """Return the passphrase from its file, else from the terminal if `ask` is set."""
    if config.backup_passphrase_file is not None:
        text = config.backup_passphrase_file.read_text(encoding="utf-8").strip("\r\n")
        if not text:
            raise ConfigError(f"{config.backup_passphrase_file}, the file of the passphrase, is empty")
        return text
    if not ask:
        return None
    return str(click.prompt("Passphrase of the secrets", hide_input=True, confirmation_prompt=new, err=True))


# Restoring


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The result of a restore: lines about secrets that were reset, and (project, difference)."""

    projects: list[Project]
    resets: list[str] = field(default_factory=list)
    differences: list[tuple[str, str]] = field(default_factory=list)


def _restore(config: Config, path: Path, passphrase: str | None, *, paused: bool = False) -> _Outcome:
    """Restore the backup at `path` into the empty installation of `config`, and verify it."""
    with ExitStack() as stack:
        chain = stack.enter_context(archives.chain(path))
        restoring.check_compatible(chain)
        for archive in chain:
            archive.check(Progress(f"checking {archive.path.name}"))
        make_data_folder(config)
        stack.enter_context(_only_one(config.data))
        shutil.rmtree(config.repositories / _RESTORING, ignore_errors=True)  # of a restore that was killed
        if any(config.repositories.iterdir()):
            raise ConfigError(
                f"{config.repositories} is not empty: restore into another GITSTORE_DATA or, if an "
                "interrupted restore left it, move it away"
            )
        conninfo = stack.enter_context(connection_string(config, make=True))
        check(conninfo)
        database = stack.enter_context(closing(opened(config, conninfo, APPLICATION, most=4)))
        outcome = _loaded(config, database, chain, passphrase, paused=paused)
        projects = Projects(config)
        for project in outcome.projects:
            found = differences(database, projects, project)
            outcome.differences.extend((project.slug, line) for line in found)
        return outcome


def _loaded(
    config: Config, database: Database, chain: Sequence[Archive], passphrase: str | None, *, paused: bool
) -> _Outcome:
    """Restore into database and data folder, which are unchanged if that fails before the commit."""
    new = config.repositories / _RESTORING  # on the same file system
    places = Projects(replace(config, data=new))
    had_key, moved, resets = config.secret_key_file.exists(), False, list[str]()
    try:
        with restoring.restoring(
            database, places, chain, OPERATOR, passphrase=passphrase, hold=paused, progress=Progress
        ) as (tx, restored):
            resets += _with_secrets(config, tx, restored)
            moved = True
            for project in restored.projects:
                places.path(project.id).rename(Projects(config).path(project.id))
            fsync_folder(config.repositories)
    except BaseException:
        # When the commit failed, it may still have happened: what belongs to it stays.
        if not moved and not had_key:
            config.secret_key_file.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return _Outcome(restored.projects, resets)


def _with_secrets(config: Config, tx: Transaction, restored: restoring.Restored) -> Iterator[str]:
    """Put the secret key in place, or reset the secrets that were not backed up."""
    if restored.key and existing_sealer(config) is None:
        write_atomically(config.secret_key_file, restored.key + "\n", replace=False)
    unreadable = lost(tx, existing_sealer(config))
    if unreadable and restored.key is not None:
        use = f"unset GITSTORE_SECRET_KEY, and move {config.secret_key_file} away"
        raise ConfigError(f"{explanation(config, unreadable)}\nto use the key of the backup: {use}")
    if unreadable:
        yield from reset(tx, created_sealer(config), unreadable, OPERATOR)


def _tried(config: Config, path: Path, passphrase: str | None, *, paused: bool = False) -> _Outcome:
    """Restore the backup at `path` into a scratch place with a Postgres of its own, and verify it there."""
    folder = Path(tempfile.mkdtemp(prefix="gitstore-restore-"))
    try:
        folder.chmod(0o711)  # root's Postgres runs as another user
        scratch = replace(
            config, data=folder / "data", database_url=None, database_direct_url=None, secret_key=None
        )
        return _restore(scratch, path, passphrase, paused=paused)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _received() -> Iterator[Path]:
    """Yield a file with the backup on stdin."""
    with tempfile.TemporaryDirectory(prefix="gitstore-restore-") as folder:
        path = Path(folder, f"stdin{archives.SUFFIX}")
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, _STEP)
        yield path


@contextmanager
def _disk_faults() -> Iterator[None]:
    """Report a full or failing disk in words."""
    try:
        yield
    except BrokenPipeError as error:
        raise CliError(ConfigError("the reader of the backup is gone")) from error
    except OSError as error:
        raise CliError(machine_fault(error) or ConfigError(f"{error.filename}: {error.strerror}")) from error
