"""Output of `gitstore serve` when it is ready: its address, and five lines that publish a workflow.

The lines can be pasted as they are into any POSIX shell of this machine, without any configuration of git:
the clone reads the owner's token from its file whenever git asks for a password, so that it appears in no
URL, no argument and no history. Names and addresses may be changed.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from service.config import Config
from service.projects import DEFAULT
from service.run.bootstrap import Setup
from sync import catalog
from sync.db import Database

PAGE: Final = "/"
_YOU: Final = "git -c user.name=You -c user.email=you@example.com"
_MOST: Final = 1000


def greeting(config: Config, setup: Setup, slug: str, *, terminal: bool) -> str:
    """Return the whole text. The token itself is shown on a terminal only: other output is kept."""
    lines = [f"gitstore is ready: {config.public_url}{PAGE}", ""]
    lines += [f"note: {said}" for said in setup.said]
    if setup.token is None:
        return "\n".join([*lines, ""])
    if terminal:
        lines += [f"The owner's token, also in {config.token_file}:", "", f"    {setup.token}", ""]
    else:
        lines += [f"The owner's token is in {config.token_file}", ""]
    lines += ["To publish a first workflow, paste these five lines into a shell:", ""]
    return "\n".join([*lines, *five_lines(config.public_url, config.token_file, slug), "", ""])


def five_lines(url: str, token_file: Path, slug: str) -> list[str]:
    """Return the commands that clone, write, commit, push and publish the workflow `slug`."""
    # The empty helper first: it disables the machine's own helpers, which would store the token.
    helper = f'!f() {{ echo username=git; echo "password=$(cat {shlex.quote(str(token_file))})"; }}; f'
    clone = f"git clone -c credential.helper= -c credential.helper={shlex.quote(helper)}"
    if _is_loopback(url):
        clone += " -c http.proxy="  # git uses http_proxy for loopback addresses, too
    folder = shlex.quote(slug)
    name = slug.replace("-", " ").capitalize()
    return [
        f"{clone} {shlex.quote(f'{url}/{DEFAULT}.git')} {folder} && cd {folder}",
        rf"printf 'name: {name}\nnodes:\n  - {{id: start, type: webhook, data: {{label: Start}}}}\n'"
        " > workflow.yaml",
        f"git checkout -b drafts/{slug} && git add workflow.yaml && {_YOU} commit -m 'Begin {slug}'",
        f"git push origin drafts/{slug}",
        f"{_YOU} tag -a {slug}/v1 -m 'The first version' && git push origin {slug}/v1",
    ]


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def unused_slug(database: Database, setup: Setup) -> str:
    """Return an unused name for the workflow of the lines, which are printed at every start."""
    with database.as_owner() as transaction:
        for number in range(1, _MOST):
            slug = "hello" if number == 1 else f"hello-{number}"
            if catalog.workflow_by_slug(transaction, setup.project.id, slug) is None:
                break
    return slug
