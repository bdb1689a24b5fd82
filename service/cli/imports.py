"""`gitstore import`: take over what another system published."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Final, TextIO
from uuid import UUID

import click
from click.core import ParameterSource
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from gitstore.errors import GitstoreError
from gitstore.model import Person, Rules
from gitstore.names import is_slug, slug_from
from gitstore.upstream import recorded
from gitstore.upstream.recorded import RecordedImport, RecordedWorkflow, Result
from service.cli.operator import APPLICATION
from service.cli.terminal import WHERE, Progress, with_config
from service.config import Config
from service.projects import Projects
from service.run.bootstrap import OPERATOR, create_project
from service.run.database import connected
from sync import catalog, meshhook
from sync.catalog import Project
from sync.db import Database
from sync.meshhook import MeshHook, MeshHookProject

MESHHOOK_URL: Final = "MESHHOOK_DATABASE_URL"
_ACTOR: Final = Person("import:meshhook", "import@meshhook.gitstore")


@click.group("import")
def imports() -> None:
    """Take over what another system published, with its history."""


@imports.command("meshhook")
@click.argument("url", required=False, envvar=MESHHOOK_URL)
@click.option("--url-file", type=click.File("r", encoding="utf-8"), metavar="FILE",
              help="File with the URL of MeshHook's database; - is standard input.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="List what would be imported, and change nothing.")
@click.option("--keep-leftovers", is_flag=True,
              help="Keep what the editor left in definitions, such as live test results.")  # fmt: skip
@click.pass_context
@with_config(*WHERE)
def meshhook_command(
    config: Config,
    context: click.Context,
    url: str | None,
    url_file: TextIO | None,
    dry_run: bool,
    keep_leftovers: bool,
) -> None:
    """Import all workflows of the MeshHook whose Postgres database is at URL.

    By default, URL is taken from the environment variable MESHHOOK_DATABASE_URL. A URL in the arguments has
    no password, since other users of the machine can read it: use a variable or a file for the whole URL, or
    PGPASSWORD or ~/.pgpass for the password. The database is only read, in one snapshot. The same import
    again adds what is new.
    """
    is_argument = context.get_parameter_source("url") is ParameterSource.COMMANDLINE
    conninfo = _conninfo(url, url_file, is_argument=is_argument)
    with ExitStack() as stack:
        database = stack.enter_context(connected(config, APPLICATION))
        source = stack.enter_context(meshhook.opened(conninfo, keep_leftovers=keep_leftovers))
        report = _Report(dry_run)
        importing = _Import(Projects(config), database, source, report)
        for project in source.projects():
            importing.run(project)
        report.leftovers = len(source.stripped)
    report.close(keep_leftovers=keep_leftovers)


def _conninfo(url: str | None, file: TextIO | None, *, is_argument: bool) -> str:
    """Return the connection string to use; raises a usage error."""
    given = (file.read().strip() if file else None) or url
    if not given:
        raise click.UsageError(f"name MeshHook's database: URL, --url-file or {MESHHOOK_URL}")
    try:
        parts = conninfo_to_dict(given)
    except ProgrammingError:  # its message quotes the text, which may hold a password
        raise click.UsageError("not a URL of a Postgres database: postgresql://user@host/database") from None
    if is_argument and parts.get("password"):
        raise click.UsageError(
            f"no password in arguments, which others can read: use --url-file, {MESHHOOK_URL} or PGPASSWORD"
        )
    return given


@dataclass(slots=True)
class _Report:
    """The lines and the totals of an import. `failed` counts what was not imported."""

    dry_run: bool
    workflows: int = 0
    versions: int = 0
    invalid: int = 0
    drafts: int = 0
    leftovers: int = 0
    failed: int = 0

    def note(self, project: str, line: str) -> None:
        self.failed += line.startswith("not imported")
        click.echo(f"{project}: {line}")

    def add(self, project: str, slug: str, result: Result) -> None:
        self.workflows += bool(result.published or result.draft)
        self.versions += len(result.published)
        self.drafts += result.draft
        self.invalid += len(result.invalid)
        for number, reason in result.invalid.items():
            self.note(project, f"{slug}/v{number} is recorded as invalid: {reason}")
        for line in result.refused:
            self.note(project, f"not imported: {slug}: {line}")
        for line in result.kept:
            self.note(project, f"{slug}: {line}")

    def close(self, *, keep_leftovers: bool) -> None:
        """Print the totals. Exit status 1 if something was not imported."""
        verb = "would import" if self.dry_run else "imported"
        click.echo(
            f"{verb} {_count(self.versions, 'version')} ({self.invalid} invalid) and "
            f"{_count(self.drafts, 'draft')} of {_count(self.workflows, 'workflow')}"
        )
        if not keep_leftovers:
            click.echo(f"{_count(self.leftovers, 'definition')} without what the editor left in them")
        if self.failed:
            click.echo(f"{self.failed} not imported: see above", err=True)
            raise SystemExit(1)


@dataclass(slots=True)
class _Import:
    projects: Projects
    database: Database
    source: MeshHook
    report: _Report
    _taken: set[str] = field(default_factory=set)

    def run(self, project: MeshHookProject) -> None:
        """Import one project into the project with the same id, which is created if necessary."""
        notes: list[str] = []
        workflows = self.source.workflows(project.id, notes)
        here, slug = self._project(project)
        for line in notes:
            self.report.note(slug, line)
        progress = Progress(f"importing {slug}")
        if self.report.dry_run or here is None:
            self._compare(here, slug, workflows)
            return
        with closing(self.projects.writer(here, self.database, OPERATOR)) as store:
            importing = RecordedImport(store, _ACTOR, self.source.load)
            for done, workflow in enumerate(workflows):
                progress(done, len(workflows))
                try:
                    self.report.add(slug, workflow.slug, importing.record(workflow))
                except GitstoreError as error:
                    self.report.note(slug, f"not imported: {workflow.slug}: {error.message}")
            progress(len(workflows), len(workflows))

    def _compare(self, here: Project | None, slug: str, workflows: list[RecordedWorkflow]) -> None:
        with ExitStack() as stack:
            reader = stack.enter_context(closing(self.projects.reader(here))) if here else None
            rules = Rules(here.rules) if here else Rules.MESHHOOK
            for workflow in workflows:
                result = recorded.compare(reader, workflow, self.source.load, rules)
                self.report.add(slug, workflow.slug, result)

    def _project(self, project: MeshHookProject) -> tuple[Project | None, str]:
        """Return the project here, None in a dry run without one, and its slug."""
        with self.database.as_owner() as tx:
            here = catalog.project_by_id(tx, project.id)
            if here is not None:
                return here, here.slug
            slug = _project_slug(
                project.id, project.name, {row.slug for row in catalog.projects(tx)} | self._taken
            )
            self._taken.add(slug)
            if not self.report.dry_run:
                name = project.name.replace("\0", "").strip() or slug
                here = create_project(tx, self.projects, project.id, slug, name, owner=project.owner)
        self.report.note(slug, f"{'would create' if here is None else 'created'} the project {project.id}")
        return here, slug


def _project_slug(identity: UUID, name: str, taken: set[str]) -> str:
    """Return a slug for a project: of its name, and with a part of its id if another project has that."""
    plain = "-".join(name.lower().split())
    slug = plain if is_slug(plain) else slug_from(name, "project")
    return slug if slug not in taken else f"{slug[:54].rstrip('-')}-{identity.hex[:8]}"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
