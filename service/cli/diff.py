"""`gitstore diff`: the difference between two versions, for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click

from gitstore.definition.elements import mapping, string
from gitstore.definition.quoting import INVISIBLE, clip, quote_exactly
from gitstore.diff.structure import Diff, Item
from gitstore.diff.text import text_diff
from gitstore.diff.values import Op
from service import lookup
from service.cli.operator import operating
from service.cli.terminal import WHERE, as_object, in_json, with_config
from service.comparison import compare, files, lists, shown, sides
from service.config import Config
from service.projects import DEFAULT

_LONGEST_VALUE: Final = 500
_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}
_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan", "~": "yellow"}


@click.command("diff")
@click.argument("workflow")
@click.argument("old", metavar="[FROM]", required=False)
@click.argument("new", metavar="[TO]", required=False)
@click.option("--project", default=DEFAULT, show_default=True, help="The project of the workflow.")
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
