"""The part of each command's `--help` after its options: examples, environment and exit status.

A test compares `EXAMPLES` with the commands, and each example with the command line that it shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import click

from gitstore import names

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "archive": ("gitstore archive order-sync --reason 'Replaced by sales'",),
    "backup": (
        "gitstore backup /backups/gitstore --verify",
        "gitstore backup /backups/gitstore --full        # begin a new chain",
        "gitstore backup - | zstd | ssh vault 'cat > gitstore.tar.zst'",
    ),
    "delete": ("gitstore delete trial --reason 'Only an attempt'",),
    "describe": (
        "gitstore describe order-sync --name 'Order sync'",
        "gitstore describe order-sync v3 --title 'Autumn' --notes 'With the new warehouse'",
    ),
    "diff": (
        "gitstore diff order-sync                        # current version and draft",
        "gitstore diff order-sync 3 5 --project team-a",
        "gitstore diff order-sync current draft --text",
    ),
    "doctor": (
        "gitstore doctor",
        "gitstore doctor --other-mount /mnt/second/gitstore-data --json",
    ),
    "draft list": ("gitstore draft list team-a order-sync",),
    "draft restore": (
        "gitstore draft restore team-a order-sync        # the last one",
        "gitstore draft restore team-a order-sync --at 2026-01-31T12:00:00.123456Z",
    ),
    "gc": ("gitstore gc", "gitstore gc team-a"),
    "import folder": (
        "gitstore import folder ../flows --project flows --dry-run",
        "gitstore import folder ../flows --project flows --history",
    ),
    "import meshhook": (
        "MESHHOOK_DATABASE_URL=postgresql://... gitstore import meshhook --dry-run",
        "gitstore import meshhook --url-file /run/secrets/meshhook-url",
    ),
    "member add": ("gitstore member add team-a 7f2c9d1e-8a54-4c1b-9f0e-2d3b4a5c6e7f --role editor",),
    "member list": ("gitstore member list team-a", "gitstore member list team-a --json"),
    "member remove": ("gitstore member remove team-a 7f2c9d1e-8a54-4c1b-9f0e-2d3b4a5c6e7f",),
    "merge": (
        "gitstore merge order-sync 3 mine.yaml > merged.yaml",
        "gitstore merge order-sync 3 mine.yaml --ours nodes/start --save --message 'Merge mine'",
    ),
    "migrate": (
        "gitstore migrate --plan                         # what is pending, and what it locks",
        "gitstore migrate",
        "gitstore migrate --finish                       # once no older process runs",
    ),
    "openapi": ("gitstore openapi > openapi.json",),
    "project archive": ("gitstore project archive team-a",),
    "project create": (
        "gitstore project create team-a --name 'Team A'",
        "gitstore project create flows --rules any",
    ),
    "project delete": ("gitstore project delete team-a --project-name team-a",),
    "project list": ("gitstore project list", "gitstore project list --json"),
    "project rename": ("gitstore project rename team-a crew --name 'The crew'",),
    "project rules": ("gitstore project rules team-a schema",),
    "project schema remove": ("gitstore project schema remove team-a",),
    "project schema set": (
        "gitstore project schema set team-a workflow.schema.json",
        "curl -s https://example.com/schema.json | gitstore project schema set team-a -",
    ),
    "project schema show": (
        "gitstore project schema show team-a > workflow.schema.json",
        "gitstore project schema show team-a --history",
    ),
    "project set": ("gitstore project set team-a --file-name flows.json --activate-invalid",),
    "project show": ("gitstore project show team-a", "gitstore project show team-a --json"),
    "project transfer": ("gitstore project transfer team-a 7f2c9d1e-8a54-4c1b-9f0e-2d3b4a5c6e7f",),
    "project unarchive": ("gitstore project unarchive team-a",),
    "rebuild": (
        "gitstore rebuild",
        "gitstore rebuild team-a --accept-git            # give up what Git has lost",
    ),
    "rename": ("gitstore rename order-sync sales --message 'It syncs all sales'",),
    "repair": (
        "gitstore repair",
        "gitstore repair team-a --new-repository",
        "gitstore repair team-a --start-above order-sync 12",
    ),
    "restore": (
        "gitstore restore /backups/gitstore --dry-run",
        "GITSTORE_DATA=/srv/gitstore gitstore restore /backups/gitstore",
        "ssh vault 'zstdcat gitstore.tar.zst' | gitstore restore - --paused",
    ),
    "env define": (
        "gitstore env define staging prod:role=owner,hours=24",
        "gitstore env define dev:role=editor,follows staging prod --project team-a",
    ),
    "env history": ("gitstore env history order-sync prod", "gitstore env history order-sync prod --json"),
    "env list": ("gitstore env list", "gitstore env list order-sync --json"),
    "env promote": (
        "gitstore env promote staging prod order-sync stock --message 'Tested since Monday'",
        "gitstore env promote staging prod order-sync --dry-run",
        "gitstore env promote staging prod order-sync --at 2030-01-31T22:00Z",
    ),
    "env set": (
        "gitstore env set order-sync staging v3 --message 'Try it'",
        "gitstore env set order-sync prod v4=10 v3=90",
        "gitstore env set order-sync prod v4 --at 2030-01-31T22:00",
    ),
    "env unset": ("gitstore env unset order-sync staging",),
    "release create": (
        "gitstore release create 2026-48 order-sync=draft stock=v7 --message 'The autumn catalogue'",
        "gitstore release create 2026-48 order-sync=draft stock=v7 --dry-run",
    ),
    "release list": ("gitstore release list", "gitstore release list --project team-a --json"),
    "release rollback": ("gitstore release rollback 2026-48 --message 'Orders fail'",),
    "release show": ("gitstore release show 2026-48", "gitstore release show 2026-48 --json"),
    "schedule cancel": ("gitstore schedule cancel 9f0c2d1e-8a54-4c1b-9f0e-2d3b4a5c6e7f",),
    "schedule list": ("gitstore schedule list", "gitstore schedule list order-sync --json"),
    "schedule publish": (
        "gitstore schedule publish order-sync --at 2030-01-31T22:00Z --message 'The autumn catalogue'",
    ),
    "secrets check": ("gitstore secrets check",),
    "secrets reset": ("gitstore secrets reset --yes",),
    "serve": (
        "gitstore serve                                  # on http://127.0.0.1:8080",
        "gitstore serve --bind 0.0.0.0:80 --data /srv/gitstore --workers 4",
        "DATABASE_URL=postgresql://gitstore@db/gitstore gitstore serve",
    ),
    "source add": (
        "gitstore source add team-a https://github.com/acme/flows.git --credential-file token",
        "gitstore source add team-a https://forge.example/a.git --direction both --drafts",
    ),
    "source list": ("gitstore source list team-a", "gitstore source list team-a --json"),
    "source resolve": (
        "gitstore source resolve team-a 9f0c2d1e-8a54-4c1b-9f0e-2d3b4a5c6e7f "
        f"{names.draft('order-sync').decode()} theirs",
    ),
    "source rotate": (
        "gitstore source rotate team-a 9f0c2d1e-8a54-4c1b-9f0e-2d3b4a5c6e7f --overlap-hours 1",
    ),
    "source sync": ("gitstore source sync team-a",),
    "supabase grant": ("gitstore supabase grant",),
    "token create": (
        "gitstore token create team-a --role publisher --name ci --expires 30d",
        "gitstore token create team-a --role viewer --name engine > token",
    ),
    "token list": ("gitstore token list team-a", "gitstore token list team-a --json"),
    "token revoke": ("gitstore token revoke 7f2c9d1e-8a54-4c1b-9f0e-2d3b4a5c6e7f",),
    "unarchive": ("gitstore unarchive order-sync",),
    "unyank": ("gitstore unyank order-sync v3",),
    "verify": ("gitstore verify", "gitstore verify team-a --json"),
    "yank": ("gitstore yank order-sync v3 --reason 'It loses orders'",),
    "worker": ("gitstore worker", "DATABASE_URL=postgresql://gitstore@db/gitstore gitstore worker"),
}

_FAILED: Final = "the command failed: the reason and what to do are on stderr"
FAILURES: Final = {
    "backup": "with --verify: what was restored differs",
    "doctor": "there is a problem",
    "import folder": "something was not imported",
    "import meshhook": "something was not imported",
    "merge": "a conflict is left",
    "repair": "a difference remains",
    "restore": "what was restored differs from Git",
    "secrets check": "a secret cannot be decrypted",
    "source sync": "a source could not be synchronized",
    "verify": "there is a difference",
}
"""What exit status 1 means besides a failure."""
_ENVIRONMENT: Final = re.compile(r"\benv: ([A-Z_]+)\]")
_OTHERS: Final = {
    "import meshhook": ("MESHHOOK_DATABASE_URL", "PGPASSWORD"),
}
"""Environment variables that are not settings."""


def complete(command: click.Command, name: str) -> None:
    """Give `command`, and each command of a group, what follows its options in `--help`."""
    if isinstance(command, click.Group):
        for below, child in command.commands.items():
            complete(child, f"{name} {below}")
    elif name in EXAMPLES:
        command.epilog = "\n\n".join(_sections(command, name))


def _sections(command: click.Command, name: str) -> Iterator[str]:
    yield _section("Examples", *EXAMPLES[name])
    options = (option.help or "" for option in command.params if isinstance(option, click.Option))
    variables = [match[1] for text in options if (match := _ENVIRONMENT.search(text))]
    variables += _OTHERS.get(name, ())
    yield f"Environment: {', '.join(variables)}. An option overrides its variable."
    one = f"{FAILURES[name]}, or {_FAILED}" if name in FAILURES else _FAILED
    yield _section("Exit status", "0  success", f"1  {one}", "2  the command line is invalid")


def _section(head: str, *lines: str) -> str:
    r"""Return a section that click does not wrap again, for which it begins with \b."""
    return "\n".join(["\b", f"{head}:", *(f"  {line}" for line in lines)])
