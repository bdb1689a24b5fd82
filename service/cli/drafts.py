"""`gitstore diff`: compare versions; `gitstore draft`: discarded drafts; `gitstore merge`: merge edits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import click

from gitstore.definition.elements import mapping, string
from gitstore.definition.quoting import INVISIBLE, clip, quote_exactly
from gitstore.diff.merge import Side
from gitstore.diff.sequences import text_diff
from gitstore.diff.structure import Diff, Item
from gitstore.diff.values import ABSENT, Op
from gitstore.store import ANY
from service import lookup
from service.actions import drafts, merging
from service.actions.workflows import raw_content
from service.caller import Operator
from service.cli.operator import in_project, operating, with_operator
from service.cli.terminal import WHERE, as_object, as_rows, in_json, report, show, with_config
from service.comparison import compare, files, lists, shown, sides
from service.config import Config


@click.group()
def draft() -> None:
    """Discarded drafts."""


@draft.command("list")
@click.argument("project")
@click.argument("slug")
@as_rows
@with_operator
def list_(operator: Operator, slug: str, as_json: bool) -> None:
    """List the discarded drafts of the workflow SLUG of PROJECT, newest first."""
    with operator.opened() as repository:
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
@in_project
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


# Diff

_LONGEST_VALUE: Final = 500
_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}
_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan", "~": "yellow"}


@click.command("diff")
@click.argument("workflow")
@click.argument("old", metavar="[FROM]", required=False)
@click.argument("new", metavar="[TO]", required=False)
@in_project
@click.option("--layout", is_flag=True, help="Include positions, sizes and the editor's leftovers.")
@click.option("--text", is_flag=True, help="Compare the stored files line by line.")
@as_object
@with_config(*WHERE)
def diff(
    config: Config,
    workflow: str,
    old: str | None,
    new: str | None,
    project: str,
    layout: bool,
    text: bool,
    as_json: bool,
) -> None:
    """Show the difference between two versions of WORKFLOW.

    FROM and TO are 3, v3, current, latest or draft. Without TO: the open draft, else the latest version.
    Without FROM: the version before TO if TO is a number or the current version, else the current version.
    """
    if text and as_json:
        raise click.UsageError("give --text or --json, one of them")
    with operating(config, project) as operator:
        with operator.reading() as tx:
            row = lookup.workflow(tx, operator, workflow)
            versions = sides(tx, row, old, new)
        if text:
            with operator.opened() as repository:
                _show(text_diff(*files(repository, versions)).split("\n")[:-1])
            return
        difference, sentence = compare(operator, versions, layout=layout)
    if as_json:
        before, after = (
            {"version_number": one.version_number, "state": one.state, "id": one.id, "commit": one.commit_sha}
            for one in versions
        )
        facts = {"workflow": row.slug, "from": before, "to": after, "summary": sentence}
        click.echo(in_json({**facts, **lists(difference)}))
        return
    click.echo(f"{row.slug} {shown(versions[0])} -> {shown(versions[1])}: {sentence}")
    _show(_lines(difference))


def _show(lines: Iterable[str]) -> None:
    """Print lines in the colours of their signs, which click omits if the output is not a terminal.

    No content of a definition may control the terminal.
    """
    for line in lines:
        visible = INVISIBLE.sub(lambda match: "\t" if match[0] == "\t" else "?", line)
        click.echo(click.style(visible, fg=_COLOURS.get(visible[:1])))


def _lines(difference: Diff) -> Iterator[str]:
    for item in difference.items:
        if item.effect == "renamed":
            (change,) = item.changes
            yield f"~ node {quote_exactly(change.before)} renamed to {quote_exactly(change.after)}"
            continue
        if item.effect == "reordered" and item.kind != "field":
            yield f"~ {item.kind}s reordered"
            continue
        if item.kind != "field":
            yield f"{_SIGNS[item.effect]} {item.kind} {_name(item)}"
        for change in item.changes:
            how = " reordered" if change.op is Op.REORDER else ""
            yield f"    {change.pointer or 'the whole value'}{how}"
            if change.op in (Op.REMOVE, Op.REPLACE):
                yield f"-     {_value(change.before)}"
            if change.op in (Op.ADD, Op.REPLACE):
                yield f"+     {_value(change.after)}"


def _name(item: Item) -> str:
    value = mapping(item.value)
    if item.kind == "edge" and "source" in value and "target" in value:
        return f"{_value(value['source'])} -> {_value(value['target'])}"
    name = string(value.get("id"))
    return item.pointer if name is None else quote_exactly(name)


def _value(value: Any) -> str:
    shown = quote_exactly(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return clip(shown, _LONGEST_VALUE)
