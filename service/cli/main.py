"""The `gitstore` command. Every command works beside a running `gitstore serve`, and without one.

Results go to stdout; progress, and what is wrong, to stderr. The exit status is 0; 1 where something is
wrong, or differs; 2 where the command line is not understood.
"""

from __future__ import annotations

from typing import Final

import click

from service.cli.terminal import Commands

# Where each command is. It is loaded when it is asked for: a start is not to wait for what it does not need.
PLACES: Final = {
    "diff": "service.cli.diff:diff",
    "draft": "service.cli.drafts:draft",
    "gc": "service.cli.upkeep:gc",
    "migrate": "service.cli.upkeep:migrate",
    "openapi": "service.cli.upkeep:openapi",
    "project": "service.cli.projects:project",
    "rebuild": "service.cli.upkeep:rebuild",
    "repair": "service.cli.upkeep:repair",
    "secrets": "service.cli.secrets:secrets",
    "serve": "service.cli.serve:serve",
    "source": "service.cli.sources:source",
    "token": "service.cli.projects:token",
    "verify": "service.cli.upkeep:verify",
    "worker": "service.cli.worker:worker",
}


@click.group(cls=Commands, places=PLACES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gitstore")
def commands() -> None:
    """A Git-backed version store for MeshHook workflows.

    Settings are environment variables; an option overrides one.
    """


def main() -> None:
    """The entry point."""
    commands(prog_name="gitstore")


if __name__ == "__main__":
    main()
