"""`gitstore serve`."""

from __future__ import annotations

import sys

import click

from service import serve as serving
from service.config import Config
from service.terminal import with_config


@click.command()
@with_config()
def serve(config: Config) -> None:
    """Serve, with everything that takes: Postgres (unless one is given), HTTP and git, the worker."""
    sys.exit(serving.serve(config, sys.stdout))
