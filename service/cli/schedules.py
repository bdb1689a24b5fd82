"""`gitstore schedule`, and the option `--at` of commands that publish or move."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import click

from service import lookup
from service.actions import schedules as actions
from service.cli.operator import operating
from service.cli.terminal import WHERE, as_object, as_rows, report, show, with_config
from service.config import Config
from service.projects import DEFAULT
from sync import schedules
from sync.schedules import ShownSchedule

_MOST: Final = 1000
_PROJECT = click.option("--project", default=DEFAULT, show_default=True, help="The project.")


class _Time(click.ParamType[datetime]):
    """A time as in RFC 3339; without a zone, one of this machine's."""

    name = "TIME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time such as 2030-01-31T22:00 or 2030-01-31T22:00Z", param, ctx)


AT: Final = click.option(
    "--at", type=_Time(), help="Do it later, at this time: 2030-01-31T22:00Z, or without Z in local time."
)


@click.group()
def schedule() -> None:
    """Schedules: publications and moves of pointers that are carried out later."""


@schedule.command("list")
@click.argument("workflow", required=False)
@_PROJECT
@as_rows
@with_config(*WHERE)
def list_(config: Config, workflow: str | None, project: str, as_json: bool) -> None:
    """List the schedules of a project or of WORKFLOW, those with the latest time first."""
    with operating(config, project) as operator, operator.reading() as tx:
        known = lookup.workflow(tx, operator, workflow).id if workflow is not None else None
        rows = schedules.page(tx, operator.project_id, workflow=known, limit=_MOST)
    show_schedules(rows, as_json=as_json)


@schedule.command("publish")
@click.argument("workflow")
@click.option("--at", type=_Time(), required=True, help="2030-01-31T22:00Z, or without Z in local time.")
@click.option("--message", default="", help="The reason, which the ledger records.")
@click.option("--not-current", is_flag=True, help="The current version stays as it is.")
@_PROJECT
@as_rows
@with_config(*WHERE)
def publish(
    config: Config, workflow: str, at: datetime, message: str, not_current: bool, project: str, as_json: bool
) -> None:
    """Publish the draft of WORKFLOW later, as it is now."""
    with operating(config, project) as operator:
        slug = lookup.slug_of(operator, workflow)
        made = actions.publish(operator, slug, at, message=message, activate=not not_current)
    show_schedules([made], as_json=as_json)


@schedule.command("cancel")
@click.argument("schedule_id", metavar="SCHEDULE")
@_PROJECT
@as_object
@with_config(*WHERE)
def cancel(config: Config, schedule_id: str, project: str, as_json: bool) -> None:
    """Cancel SCHEDULE, the id of one that waits."""
    with operating(config, project) as operator:
        actions.cancel(operator, schedule_id)
    report(f"cancelled {schedule_id}", {"cancelled": schedule_id}, as_json=as_json)


def show_schedules(rows: Sequence[ShownSchedule], *, as_json: bool) -> None:
    heads = ("id", "workflow", "kind", "environment", "version", "at", "state", "by", "reason")
    show(heads, [_row(each) for each in rows], as_json=as_json)


def _row(row: ShownSchedule) -> tuple[object, ...]:
    version = f"v{row.version_number}" if row.version_number else f"draft {(row.draft_commit or '')[:7]}"
    if row.second_number is not None:
        version = ", ".join(f"v{number}:{weight}" for number, weight in row.weights.items())
    return (
        row.id, row.slug, row.kind, row.environment, version, row.at, row.state, row.actor_name, row.reason
    )  # fmt: skip
