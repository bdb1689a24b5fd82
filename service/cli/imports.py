"""`gitstore import`: take over workflows from another system."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO
from uuid import UUID, uuid4

import click
from click.core import ParameterSource
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from gitstore.errors import GitstoreError
from gitstore.model import Person, Rules
from gitstore.names import check_slug, is_slug, slug_from
from gitstore.upstream.definition_files import DefinitionFiles
from gitstore.upstream.recorded import Load, RecordedImport, RecordedWorkflow, Result, compare
from service.cli.operator import APPLICATION, remove_leftovers
from service.cli.terminal import WHERE, Progress, as_object, in_json, print_line, with_config
from service.config import Config
from service.projects import Projects
from service.run.bootstrap import OPERATOR, create_project
from service.run.database import connected
from sync import catalog, meshhook
from sync.catalog import Project
from sync.db import Database
from sync.meshhook import MeshHookProject

MESHHOOK_URL: Final = "MESHHOOK_DATABASE_URL"
_ACTOR: Final = Person("import", "import@gitstore")


@click.group("import")
def imports() -> None:
    """Take over workflows from another system, with their history."""


@imports.command("meshhook")
@click.argument("url", required=False, envvar=MESHHOOK_URL)
@click.option("--url-file", type=click.File("r", encoding="utf-8"), metavar="FILE",
              help="File with the URL of MeshHook's database; - is standard input.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="List what would be imported, but change nothing.")
@click.option("--keep-leftovers", is_flag=True,
              help="Keep fields that the editor left in definitions, such as test results.")  # fmt: skip
@click.pass_context
@as_object
@with_config(*WHERE)
def meshhook_command(
    config: Config,
    context: click.Context,
    url: str | None,
    url_file: TextIO | None,
    dry_run: bool,
    keep_leftovers: bool,
    as_json: bool,
) -> None:
    """Import all workflows of the MeshHook whose Postgres database is at URL.

    URL defaults to the environment variable MESHHOOK_DATABASE_URL. As an argument it must not contain a
    password, because other users of the machine can read arguments: put the whole URL into the variable or a
    file, or the password into PGPASSWORD or ~/.pgpass. The database is only read, in one snapshot. Run the
    import again to add what is new.
    """
    is_argument = context.get_parameter_source("url") is ParameterSource.COMMANDLINE
    conninfo = _conninfo(url, url_file, is_argument=is_argument)
    with ExitStack() as stack:
        database = stack.enter_context(connected(config, APPLICATION))
        most = config.limits.definition
        source = stack.enter_context(meshhook.opened(conninfo, keep_leftovers=keep_leftovers, most=most))
        importing = _Import(Projects(config), database, _Report(dry_run, as_json))
        for project in source.projects():
            notes = Result()
            workflows = source.workflows(project.id, notes)
            here, slug = importing.project_of(project)
            importing.report.add(slug, None, notes)
            importing.run(here, slug, Rules.MESHHOOK, workflows, source.load, as_it_runs=True)
        if not keep_leftovers:
            importing.report.print(
                f"left out what the editor left in {_count(len(source.stripped), 'definition')}"
            )
    importing.report.close()


@imports.command("folder")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--project", "slug", required=True, metavar="SLUG",
              help="Project to import into. A new one is created with the rules `any`.")  # fmt: skip
@click.option("--history", is_flag=True, help="Import each commit of a file as a version, by git log.")
@click.option("--dry-run", is_flag=True, help="List what would be imported, but change nothing.")
@as_object
@with_config(*WHERE)
def folder_command(
    config: Config, folder: Path, slug: str, history: bool, dry_run: bool, as_json: bool
) -> None:
    """Import the definitions in FOLDER, which may be a Git repository: one file per workflow.

    Definitions are the files *.yaml, *.yml and *.json in its folder `workflows` or, without one, anywhere in
    it; in a Git repository, those of HEAD. Run the import again to add a version of each changed file.
    """
    files = DefinitionFiles(folder, history)
    with connected(config, APPLICATION) as database:
        importing = _Import(Projects(config), database, _Report(dry_run, as_json))
        here = importing.project_named(slug)
        notes = Result()
        with ExitStack() as stack:
            reader = stack.enter_context(closing(importing.projects.reader(here))) if here else None
            workflows = list(files.workflows(reader, notes))
        importing.report.add(slug, None, notes)
        importing.run(here, slug, Rules.ANY, workflows, files.load, as_it_runs=False)
    importing.report.close()


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
            f"other users can read a password in an argument: use --url-file, {MESHHOOK_URL} or PGPASSWORD"
        )
    return given


@dataclass(slots=True)
class _Report:
    """The lines and the totals of an import. `refused` counts what was not imported."""

    dry_run: bool
    as_json: bool
    lines: list[str] = field(default_factory=list)
    workflows: int = 0
    versions: int = 0
    invalid: int = 0
    drafts: int = 0
    refused: int = 0

    def print(self, line: str) -> None:
        self.lines.append(line)
        if not self.as_json:
            print_line(line)

    def add(self, project: str, workflow: str | None, result: Result) -> None:
        """Print the lines of `result`, which is about one workflow or, without one, about the project."""
        prefix = f"{workflow}: " if workflow is not None else ""
        self.workflows += bool(result.published or result.draft)
        self.versions += len(result.published)
        self.drafts += result.draft
        self.invalid += len(result.invalid)
        self.refused += len(result.refused)
        for number, reason in result.invalid.items():
            self.print(f"{project}: {prefix}v{number} is recorded as invalid: {reason}")
        for line in result.refused:
            self.print(f"{project}: not imported: {prefix}{line}")
        for line in result.kept:
            self.print(f"{project}: {prefix}{line}")

    def close(self) -> None:
        """Print the totals. Exits with status 1 if something was not imported."""
        verb = "would import" if self.dry_run else "imported"
        if self.as_json:
            names = ("dry_run", "workflows", "versions", "invalid", "drafts", "refused", "lines")
            click.echo(in_json({name: getattr(self, name) for name in names}))
        else:
            click.echo(
                f"{verb} {_count(self.versions, 'version')} ({self.invalid} invalid) and "
                f"{_count(self.drafts, 'draft')} of {_count(self.workflows, 'workflow')}"
            )
        if self.refused:
            click.echo(f"{self.refused} not imported: see above", err=True)
            raise SystemExit(1)


@dataclass(slots=True)
class _Import:
    """An import into one project or several; a dry run writes nothing."""

    projects: Projects
    database: Database
    report: _Report
    _taken: set[str] = field(default_factory=set)

    def run(
        self,
        here: Project | None,
        slug: str,
        rules: Rules,
        workflows: Sequence[RecordedWorkflow],
        load: Load,
        *,
        as_it_runs: bool,
    ) -> None:
        """Import into the project `here`, which has the slug `slug`; None only in a dry run."""
        if here is None or self.report.dry_run:
            with ExitStack() as stack:
                reader = stack.enter_context(closing(self.projects.reader(here))) if here else None
                rules = Rules(here.rules) if here else rules
                for workflow in workflows:
                    self.report.add(slug, workflow.slug, compare(reader, workflow, load, rules))
            return
        try:
            store = self.projects.writer(here, self.database, OPERATOR)
        except GitstoreError as error:  # it is archived, or its repository is missing
            self.report.add(slug, None, Result(refused=[error.message]))
            return
        with closing(store):
            remove_leftovers(self.database, store)
            importing = RecordedImport(store, _ACTOR, load, as_it_runs)
            progress = Progress(f"importing {slug}")
            for done, workflow in enumerate(workflows, 1):
                try:
                    result = importing.record(workflow)
                except GitstoreError as error:
                    result = Result(refused=[error.message])
                self.report.add(slug, workflow.slug, result)
                progress(done, len(workflows))

    def project_of(self, project: MeshHookProject) -> tuple[Project | None, str]:
        """Return the project with the same id, and its slug; create it unless it exists."""
        with self.database.as_owner() as tx:
            here = catalog.project_by_id(tx, project.id)
            if here is not None:
                return here, here.slug
            known = {row.slug for row in catalog.projects(tx)} | self._taken
        slug = _project_slug(project.id, project.name, known)
        self._taken.add(slug)
        name = project.name.replace("\0", "").strip() or slug
        return self._create(project.id, slug, name, Rules.MESHHOOK, project.owner), slug

    def project_named(self, slug: str) -> Project | None:
        """Return the project with this slug; create it unless it exists."""
        with self.database.as_owner() as tx:
            here = catalog.project(tx, check_slug(slug))
        return here or self._create(uuid4(), slug, slug, Rules.ANY, None)

    def _create(
        self, identity: UUID, slug: str, name: str, rules: Rules, owner: UUID | None
    ) -> Project | None:
        if self.report.dry_run:
            self.report.print(f"{slug}: would create the project")
            return None
        with self.database.as_owner() as tx:
            made = create_project(tx, self.projects, identity, slug, name, rules, owner=owner)
        self.report.print(
            f"{slug}: created the project {identity}{f', of the user {owner}' if owner else ''}"
        )
        return made


def _project_slug(identity: UUID, name: str, taken: set[str]) -> str:
    """Return a slug made from a project's name, with a part of its id if the slug is taken."""
    plain = "-".join(name.lower().split())
    slug = plain if is_slug(plain) else slug_from(name, "project")
    return slug if slug not in taken else f"{slug[:54].rstrip('-')}-{identity.hex[:8]}"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
