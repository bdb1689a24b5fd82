"""`gitstore release`: publish or move several workflows in one step, list that, and roll it back."""

from __future__ import annotations

from typing import Final

import click

from gitstore.environments import CURRENT
from gitstore.errors import GitstoreError, ReleaseRefusedError
from gitstore.store import ANY
from service import lookup
from service.actions import releases as actions
from service.actions.releases import Choice
from service.caller import Caller, Operator
from service.cli.operator import in_project, with_message, with_operator
from service.cli.terminal import as_rows, show
from sync import releases

_MOST: Final = 1000


class _Choices(click.ParamType[Choice]):
    """`SLUG=VERSION`, with `draft`, a number, `latest` or `current` as the version."""

    name = "SLUG=VERSION"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Choice:
        slug, _, version = value.partition("=")
        if not slug or not version:
            self.fail(f"{value!r} is not SLUG=VERSION, as in order-sync=draft or order-sync=v3", param, ctx)
        if version == "draft":
            return Choice(slug, draft=ANY)
        return Choice(slug, int(version) if version.isascii() and version.isdigit() else version)


@click.group()
def release() -> None:
    """Releases: several workflows that are published or moved in one step."""


@release.command("create")
@click.argument("name")
@click.argument("choices", type=_Choices(), nargs=-1, required=True, metavar="SLUG=VERSION...")
@with_message
@click.option("--env", "environment", default=CURRENT, show_default=True, help="The environment to move in.")
@click.option("--dry-run", is_flag=True, help="Only show what would change, and what stops it.")
@in_project
@as_rows
@with_operator
def create(
    operator: Operator,
    name: str,
    choices: tuple[Choice, ...],
    message: str,
    environment: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish drafts and make versions current as the release NAME: all of them, or nothing.

    VERSION is draft, a number such as 3 or v3, latest or current.
    """
    if dry_run:
        _preview(operator, choices, environment, as_json)
        return
    try:
        made = actions.create(operator, name, choices, message=message, environment=environment)
    except ReleaseRefusedError as error:
        lines = [f"  {slug}: {each.message}" for slug, each in error.refusals]
        raise error.reworded("\n".join([f"{name}: nothing was changed:", *lines])) from error
    _show_items(operator, made.name, as_json)


@release.command("list")
@in_project
@as_rows
@with_operator
def list_(operator: Operator, as_json: bool) -> None:
    """List the releases of a project, newest first."""
    with operator.reading() as tx:
        rows = [
            (
                row.name,
                row.environment,
                row.released_at,
                row.released_by,
                row.workflows,
                row.standing,
                row.message,
            )
            for row in releases.page(tx, operator.project_id, limit=_MOST)
        ]
    heads = ("name", "environment", "released at", "released by", "workflows", "standing", "message")
    show(heads, rows, as_json=as_json)


@release.command("show")
@click.argument("name")
@in_project
@as_rows
@with_operator
def show_(operator: Operator, name: str, as_json: bool) -> None:
    """List the workflows of the release NAME."""
    _show_items(operator, name, as_json)


@release.command("rollback")
@click.argument("name")
@with_message
@click.option("--force", is_flag=True, help="Also move workflows that have moved since.")
@in_project
@as_rows
@with_operator
def rollback(operator: Operator, name: str, message: str, force: bool, as_json: bool) -> None:
    """Return every workflow of the release NAME to the version that was current before."""
    returns = actions.roll_back(operator, name, message=message, force=force)
    rows = [(each.slug, str(each.left), str(each.now)) for each in returns]
    show(("workflow", "left", "now"), rows, as_json=as_json)


def _preview(operator: Caller, choices: tuple[Choice, ...], environment: str, as_json: bool) -> None:
    found = actions.preview(operator, choices, environment)
    rows = [
        (item.slug, f"v{item.version}", str(item.before), changes, None) for item, changes in found.items
    ] + [(slug, None, None, None, error.message) for slug, error in found.refusals]
    show(("workflow", "version", "before", "changes", "refused"), sorted(rows), as_json=as_json)
    if found.refusals:
        raise GitstoreError(found.refusals[0][1].code, "the release would be refused")


def _show_items(operator: Caller, name: str, as_json: bool) -> None:
    _, items = lookup.release(operator, name)
    rows = [
        (
            item.slug,
            f"v{item.version_number}",
            "published" if item.published else "chosen",
            f"v{item.before_number}" if item.before_number else None,
            f"v{item.now_number}" if item.now_number else None,
        )
        for item in items
    ]
    show(("workflow", "version", "how", "before", "now"), rows, as_json=as_json)
