"""`gitstore draft`: list and restore discarded drafts; `gitstore merge`: merge into the draft."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import click

from gitstore.definition.quoting import INVISIBLE, clip
from gitstore.diff.merge import Side
from gitstore.diff.values import ABSENT
from gitstore.store import ANY
from service.actions import drafts, merging
from service.actions.workflows import raw_content
from service.cli.operator import operating
from service.cli.terminal import WHERE, as_object, as_rows, in_json, report, show, with_config
from service.config import Config
from service.projects import DEFAULT

_LONGEST_VALUE: Final = 500


@click.group()
def draft() -> None:
    """Discarded drafts."""


@draft.command("list")
@click.argument("project")
@click.argument("slug")
@as_rows
@with_config(*WHERE)
def list_(config: Config, project: str, slug: str, as_json: bool) -> None:
    """List the discarded drafts of the workflow SLUG of PROJECT, newest first."""
    with operating(config, project) as operator, operator.opened() as repository:
        rows = [
            (_time(draft.at), draft.author.name, draft.commit, draft.ref)
            for draft in drafts.discarded(repository, slug)
        ]
    show(("discarded at", "author", "commit", "ref"), rows, as_json=as_json)


@draft.command("restore")
@click.argument("project")
@click.argument("slug")
@click.option("--at", metavar="TIME", help="When it was discarded, as shown by `list`. Default: the last.")
@as_object
@with_config(*WHERE)
def restore(config: Config, project: str, slug: str, at: str | None, as_json: bool) -> None:
    """Reopen a discarded draft of the workflow SLUG of PROJECT."""
    moment = _moment(at)
    with operating(config, project) as operator:
        saved = drafts.restore(operator, slug, at=moment)
    facts = {"project": project, "workflow": slug, "commit": saved.commit}
    report(f"restored the draft of {slug}: {saved.commit}", facts, as_json=as_json)


@click.command("merge")
@click.argument("workflow")
@click.argument("base")
@click.argument("mine", type=click.File("rb"), required=False)
@click.option("--commit", metavar="COMMIT", help="What to merge: a draft, a version or a discarded draft.")
@click.option("--ours", "ours", multiple=True, metavar="PATH", help="Decide a conflict for what is merged.")
@click.option("--theirs", "theirs", multiple=True, metavar="PATH", help="Decide a conflict for the draft.")
@click.option("--save", is_flag=True, help="Save the result as the draft, unless a conflict is left.")
@click.option("--message", default="", help="The message of the saved draft.")
@click.option("--project", default=DEFAULT, show_default=True, help="The project of the workflow.")
@as_object
@with_config(*WHERE)
def merge(
    config: Config,
    workflow: str,
    base: str,
    mine: BinaryIO | None,
    commit: str | None,
    ours: tuple[str, ...],
    theirs: tuple[str, ...],
    save: bool,
    message: str,
    project: str,
    as_json: bool,
) -> None:
    """Merge MINE into the draft of WORKFLOW.

    Prints MINE, a file or -, merged with what changed in the draft since BASE.

    BASE is the version or the commit from which both began. Without an open draft, the latest version is
    merged. Conflicts are listed on stderr, and the exit status is 1, until each is decided by its path.
    """
    if (mine is None) == (commit is None):
        raise click.UsageError("give MINE or --commit, one of them")
    decided = {**dict.fromkeys(ours, Side.OURS), **dict.fromkeys(theirs, Side.THEIRS)}
    with operating(config, project) as operator:
        content = raw_content(mine.read(), config.limits) if mine is not None else commit or ""
        merged = merging.merged(operator, workflow, base=base, ours=content, decided=decided)
        for conflict in () if as_json else merged.conflicts:
            click.echo(f"conflict: {_visible(conflict.path)}", err=True)
            for name, value in (
                ("base", conflict.base),
                ("ours", conflict.ours),
                ("theirs", conflict.theirs),
            ):
                click.echo(f"  {name + ':':8}{_visible(_shown(value))}", err=True)
        if save:
            saved = merging.save(operator, workflow, merged, expected={ANY}, message=message)
            facts = {"workflow": workflow, "commit": saved.commit, "conflicts": []}
            report(f"saved the draft of {workflow}: {saved.commit}", facts, as_json=as_json)
            return
    if as_json:
        click.echo(
            in_json(
                {
                    "workflow": workflow,
                    "commit": None,
                    "definition": merged.definition.raw.decode("utf-8", "replace"),
                    "conflicts": [conflict.path for conflict in merged.conflicts],
                }
            )
        )
    else:
        click.echo(merged.definition.raw, nl=False)
    if merged.conflicts:
        click.get_current_context().exit(1)


def _shown(value: Any) -> str:
    return "(absent)" if value is ABSENT else clip(json.dumps(value, ensure_ascii=False), _LONGEST_VALUE)


def _visible(text: str) -> str:
    """Return text that does not control the terminal."""
    return INVISIBLE.sub("?", text)


def _moment(text: str | None) -> datetime | None:
    """Parse ISO 8601, as in the output of `list` and in ref names; UTC if no zone is given."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = "expected a time such as 2026-01-31T12:00:00.123456Z"
        raise click.BadParameter(message, param_hint="--at") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
