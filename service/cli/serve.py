"""`gitstore serve`."""

from __future__ import annotations

import sys

import click

from service.cli.terminal import with_config
from service.config import Config
from service.run import serve as serving


@click.command()
@with_config()
def serve(config: Config) -> None:
    """Serve, with everything that takes: Postgres (unless one is given), HTTP and git, the worker."""
    sys.exit(serving.serve(config, sys.stdout))
