"""`gitstore serve`."""

from __future__ import annotations

import os
import sys

import click

from service.cli.terminal import with_config
from service.config import Config
from service.run import serve as serving


@click.command()
@with_config()
def serve(config: Config) -> None:
    """Run the service.

    Serves HTTP and git, and runs the background worker and, unless DATABASE_URL is set, Postgres.
    """
    status = serving.serve(config, sys.stdout)
    # Without the interpreter's teardown: everything has been stopped.
    os._exit(status)
