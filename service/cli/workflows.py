"""`gitstore yank`, `describe`, `archive`, `rename`, `delete`: commands on one workflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from gitstore.states import pointers_on
from service import lookup
from service.actions import versions, workflows
from service.caller import Operator
from service.cli.operator import in_project, operating, with_message, with_operator
from service.cli.terminal import WHERE, as_object, report, with_config
from service.config import Config

_WORKFLOW: Final = click.argument("workflow")
_VERSION: Final = click.argument("version")


def _reason(*, required: bool = False) -> Callable[[Any], Any]:
    default: dict[str, Any] = {"required": True} if required else {"default": ""}
    return click.option("--reason", help="The reason, which the ledger records.", **default)


@click.command("yank")
@_WORKFLOW
@_VERSION
@_reason(required=True)
@in_project
@as_object
@with_operator
def yank(operator: Operator, workflow: str, version: str, reason: str, as_json: bool) -> None:
    """Withdraw VERSION of WORKFLOW: nothing new selects it. Runs that are pinned to it still read it."""
    slug = lookup.slug_of(operator, workflow)
    number = versions.yank(operator, slug, version, reason=reason)
    with operator.opened() as repository:
        pointers = pointers_on(repository.state(slug), number)
    facts = {"workflow": slug, "version": number, "yanked": True, "reason": reason, "pointers": pointers}
    left = f"; still on it: {', '.join(pointers)}" if pointers else ""
    report(f"v{number} of {slug} is yanked{left}", facts, as_json=as_json)


@click.command("unyank")
@_WORKFLOW
@_VERSION
@in_project
@as_object
@with_operator
def unyank(operator: Operator, workflow: str, version: str, as_json: bool) -> None:
    """Take back the yank of VERSION of WORKFLOW."""
    slug = lookup.slug_of(operator, workflow)
    number = versions.unyank(operator, slug, version)
    facts = {"workflow": slug, "version": number, "yanked": False}
    report(f"v{number} of {slug} is not yanked", facts, as_json=as_json)


@click.command("describe")
@_WORKFLOW
@click.argument("version", required=False)
@click.option("--name", help="The name of the workflow; empty: that of its definition.")
@click.option("--description", help="The description of the workflow; empty: that of its definition.")
@click.option("--title", help="The title of VERSION; empty: none.")
@click.option("--notes", help="The notes of VERSION; empty: none.")
@in_project
@as_object
@with_config(*WHERE)
def describe(
    config: Config, workflow: str, version: str | None, project: str, as_json: bool, **texts: str | None
) -> None:
    """Describe WORKFLOW by --name and --description, or its VERSION by --title and --notes.

    What is not given stays as it is.
    """
    given = {key: text for key, text in texts.items() if text is not None}
    expected = {"name", "description"} if version is None else {"title", "notes"}
    if not given or not given.keys() <= expected:
        of = "WORKFLOW alone" if version is None else "VERSION"
        raise click.UsageError(f"{of} is described by {' and '.join(f'--{key}' for key in sorted(expected))}")
    with operating(config, project) as operator:
        slug = lookup.slug_of(operator, workflow)
        if version is None:
            workflows.describe(operator, slug, given)
            report(f"{slug} is described", {"workflow": slug, **given}, as_json=as_json)
        else:
            number = versions.annotate(operator, slug, version, given)
            facts = {"workflow": slug, "version": number, **given}
            report(f"v{number} of {slug} is described", facts, as_json=as_json)


@click.command("archive")
@_WORKFLOW
@_reason()
@in_project
@as_object
@with_operator
def archive(operator: Operator, workflow: str, reason: str, as_json: bool) -> None:
    """Archive WORKFLOW: it runs nothing and takes no change, and lists leave it out. Nothing is lost."""
    slug = lookup.slug_of(operator, workflow)
    workflows.archive(operator, slug, reason=reason)
    report(f"{slug} is archived", {"workflow": slug, "archived": True}, as_json=as_json)


@click.command("unarchive")
@_WORKFLOW
@in_project
@as_object
@with_operator
def unarchive(operator: Operator, workflow: str, as_json: bool) -> None:
    """Let the archived WORKFLOW run and be changed again.

    A deleted one, named by its slug, exists again, and `gitstore draft restore` reopens its draft.
    """
    slug = lookup.slug_of(operator, workflow)
    workflows.unarchive(operator, slug)
    report(f"{slug} is not archived", {"workflow": slug, "archived": False}, as_json=as_json)


@click.command("rename")
@_WORKFLOW
@click.argument("slug")
@with_message
@in_project
@as_object
@with_operator
def rename(operator: Operator, workflow: str, slug: str, message: str, as_json: bool) -> None:
    """Give WORKFLOW another SLUG. Its id and its versions stay; its former addresses redirect."""
    former = lookup.slug_of(operator, workflow)
    workflows.rename(operator, former, slug, message=message)
    report(f"{former} is {slug} now", {"workflow": slug, "former": former}, as_json=as_json)


@click.command("delete")
@_WORKFLOW
@_reason()
@in_project
@as_object
@with_operator
def delete(operator: Operator, workflow: str, reason: str, as_json: bool) -> None:
    """Delete WORKFLOW, which was never published. Git keeps its draft, and its slug is free.

    `gitstore unarchive`, then `gitstore draft restore`, take the deletion back.
    """
    slug = lookup.slug_of(operator, workflow)
    workflows.delete(operator, slug, reason=reason)
    report(f"{slug} is deleted", {"workflow": slug, "deleted": True}, as_json=as_json)
