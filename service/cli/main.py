"""The `gitstore` command. Every command works with or without a running `gitstore serve`.

Results go to stdout; progress and errors to stderr. The exit status is 0; 1 for an error or a difference; 2
for an invalid command line.
"""

from __future__ import annotations

from typing import Final

import click

from service.cli.terminal import Commands

# Location of each command. It is loaded on use, so that start-up does not wait for unused modules.
PLACES: Final = {
    "archive": "service.cli.workflows:archive",
    "backup": "service.cli.backup:backup",
    "delete": "service.cli.workflows:delete",
    "describe": "service.cli.workflows:describe",
    "diff": "service.cli.drafts:diff",
    "doctor": "service.cli.doctor:doctor",
    "draft": "service.cli.drafts:draft",
    "gc": "service.cli.upkeep:gc",
    "import": "service.cli.imports:imports",
    "member": "service.cli.projects:member",
    "merge": "service.cli.drafts:merge",
    "migrate": "service.cli.upkeep:migrate",
    "openapi": "service.cli.upkeep:openapi",
    "project": "service.cli.projects:project",
    "rebuild": "service.cli.upkeep:rebuild",
    "env": "service.cli.environments:env",
    "release": "service.cli.releases:release",
    "rename": "service.cli.workflows:rename",
    "repair": "service.cli.upkeep:repair",
    "restore": "service.cli.backup:restore",
    "schedule": "service.cli.environments:schedule",
    "secrets": "service.cli.doctor:secrets",
    "serve": "service.cli.serve:serve",
    "source": "service.cli.sources:source",
    "supabase": "service.cli.upkeep:supabase",
    "token": "service.cli.projects:token",
    "unarchive": "service.cli.workflows:unarchive",
    "unyank": "service.cli.workflows:unyank",
    "verify": "service.cli.upkeep:verify",
    "worker": "service.cli.serve:worker",
    "yank": "service.cli.workflows:yank",
}


_EPILOG: Final = """\b
Examples:
  gitstore serve                   # the service, with a Postgres of its own
  gitstore project create team-a   # while it runs, or without it
  gitstore COMMAND --help          # options, examples, exit status

\b
Exit status:
  0  success
  1  an error or, for commands that check something, a difference
  2  the command line is invalid
"""


@click.group(
    cls=Commands,
    places=PLACES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(package_name="gitstore")
def commands() -> None:
    """A Git-backed version store for MeshHook workflows.

    Settings are environment variables; an option overrides one.
    """


def main() -> None:
    """Entry point of the `gitstore` command."""
    commands(prog_name="gitstore")
