"""`gitstore env`: environments and the pointers in them; `gitstore schedule`: later changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import click

from gitstore import ledger, pointers
from gitstore.environments import EnvironmentRule, rulebook
from gitstore.errors import EnvironmentRefusedError, GitstoreError
from gitstore.pointers import Move
from gitstore.store import ANY
from service import lookup
from service.access import Role
from service.actions import environments as actions
from service.actions import schedules
from service.caller import Caller, Operator
from service.cli.operator import in_project, with_message, with_operator
from service.cli.terminal import as_object, as_rows, report, show
from sync import environments
from sync import schedules as schedule_rows
from sync.environments import ShownPointer
from sync.schedules import ShownSchedule

# Schedules, and the option `--at` of commands that publish or move

_MOST: Final = 1000


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
@in_project
@as_rows
@with_operator
def list_schedules(operator: Operator, workflow: str | None, as_json: bool) -> None:
    """List the schedules of a project or of WORKFLOW, those with the latest time first."""
    with operator.reading() as tx:
        known = lookup.workflow(tx, operator, workflow).id if workflow is not None else None
        rows = schedule_rows.page(tx, operator.project_id, workflow=known, limit=_MOST)
    show_schedules(rows, as_json=as_json)


@schedule.command("publish")
@click.argument("workflow")
@click.option("--at", type=_Time(), required=True, help="2030-01-31T22:00Z, or without Z in local time.")
@with_message
@click.option("--not-current", is_flag=True, help="The current version stays as it is.")
@in_project
@as_rows
@with_operator
def publish(
    operator: Operator, workflow: str, at: datetime, message: str, not_current: bool, as_json: bool
) -> None:
    """Publish the draft of WORKFLOW later, as it is now."""
    slug = lookup.slug_of(operator, workflow)
    made = schedules.publish(operator, slug, at, message=message, activate=not not_current)
    show_schedules([made], as_json=as_json)


@schedule.command("cancel")
@click.argument("schedule_id", metavar="SCHEDULE")
@in_project
@as_object
@with_operator
def cancel(operator: Operator, schedule_id: str, as_json: bool) -> None:
    """Cancel SCHEDULE, the id of one that waits."""
    schedules.cancel(operator, schedule_id)
    report(f"cancelled {schedule_id}", {"cancelled": schedule_id}, as_json=as_json)


def show_schedules(rows: Sequence[ShownSchedule], *, as_json: bool) -> None:
    heads = ("id", "workflow", "kind", "environment", "version", "at", "state", "by", "reason")
    show(heads, [_schedule(each) for each in rows], as_json=as_json)


def _schedule(row: ShownSchedule) -> tuple[object, ...]:
    version = f"v{row.version_number}" if row.version_number else f"draft {(row.draft_commit or '')[:7]}"
    if row.second_number is not None:
        version = ", ".join(f"v{number}:{weight}" for number, weight in row.weights.items())
    return (
        row.id, row.slug, row.kind, row.environment, version, row.at, row.state, row.actor_name, row.reason
    )  # fmt: skip


class _Rules(click.ParamType[EnvironmentRule]):
    """`NAME[:role=ROLE][,follows][,hours=N]`."""

    name = "NAME[:RULES]"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> EnvironmentRule:
        name, _, given = value.partition(":")
        rule = EnvironmentRule(name, Role.PUBLISHER.value)
        for part in filter(None, given.split(",")):
            key, _, setting = part.partition("=")
            if key == "role" and setting in set(Role):
                rule = replace(rule, role=setting)
            elif part == "follows":
                rule = replace(rule, follows=True)
            elif key == "hours" and setting.isascii() and setting.isdigit():
                rule = replace(rule, hours=int(setting[:6]))
            else:
                roles = ", ".join(Role)
                self.fail(f"{part!r} is not role=ROLE ({roles}), follows or hours=N", param, ctx)
        return rule


class _Weight(click.ParamType[tuple[str, int]]):
    """`VERSION`, or `VERSION=PERCENT`."""

    name = "VERSION[=PERCENT]"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        version, _, percent = value.partition("=")
        if percent and not (percent.isascii() and percent.isdigit() and len(percent) < 4):
            self.fail(f"{value!r} is not VERSION or VERSION=PERCENT, as in v3 or v3=90", param, ctx)
        return version, int(percent or 100)


@click.group()
def env() -> None:
    """Environments: named pointers of workflows, such as staging and prod."""


@env.command("define")
@click.argument("rules", type=_Rules(), nargs=-1, metavar="NAME[:RULES]...")
@in_project
@as_rows
@with_operator
def define(operator: Operator, rules: tuple[EnvironmentRule, ...], as_json: bool) -> None:
    """Define all environments of a project, in the order of promotion.

    RULES are role=ROLE (the least role that may move pointers; default: publisher), follows (each publication
    moves the pointer) and hours=N (that a version must have been in the environment before).
    """
    changed = actions.change_rules(operator, rules, {ANY})
    _show_rules(changed.rules, as_json)


@env.command("list")
@click.argument("workflow", required=False)
@in_project
@as_rows
@with_operator
def list_(operator: Operator, workflow: str | None, as_json: bool) -> None:
    """List the environments of a project, or the pointers of WORKFLOW in them."""
    with operator.opened() as repository:
        rules = rulebook(repository).rules
        if workflow is None:
            _show_rules(rules, as_json)
            return
        with operator.reading() as tx:
            row = lookup.workflow(tx, operator, workflow)
            found = {each.name: each for each in environments.of_workflow(tx, row.id)}
    rows = [(rule.name, *_pointer(found.get(rule.name))) for rule in rules]
    show(("environment", "version", "held", "moved at", "moved by", "message"), rows, as_json=as_json)


@env.command("set")
@click.argument("workflow")
@click.argument("environment")
@click.argument("versions", type=_Weight(), nargs=-1, required=True, metavar="VERSION[=PERCENT]...")
@click.option("--hold", is_flag=True, help="Publications leave the pointer where it is.")
@AT
@with_message
@in_project
@as_rows
@with_operator
def set_(
    operator: Operator,
    workflow: str,
    environment: str,
    versions: tuple[tuple[str, int], ...],
    hold: bool,
    at: datetime | None,
    message: str,
    as_json: bool,
) -> None:
    """Move the pointer of WORKFLOW in ENVIRONMENT to a version, or to two with their weights in percent."""
    slug = lookup.slug_of(operator, workflow)
    if at is not None:
        made = schedules.move(operator, slug, environment, versions, at, message=message, hold=hold)
        show_schedules([made], as_json=as_json)
        return
    actions.move(operator, slug, environment, versions, message=message, hold=hold)
    _show_pointer(operator, slug, environment, as_json)


@env.command("unset")
@click.argument("workflow")
@click.argument("environment")
@with_message
@in_project
@as_rows
@with_operator
def unset(operator: Operator, workflow: str, environment: str, message: str, as_json: bool) -> None:
    """Remove the pointer of WORKFLOW from ENVIRONMENT."""
    slug = lookup.slug_of(operator, workflow)
    actions.remove(operator, slug, environment, message=message)
    _show_pointer(operator, slug, environment, as_json)


@env.command("history")
@click.argument("workflow")
@click.argument("environment")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="Show at most so many moves.",
)
@click.option("--from", "start", metavar="ENTRY", help="Continue at this entry of the ledger.")
@in_project
@as_rows
@with_operator
def history(
    operator: Operator,
    workflow: str,
    environment: str,
    limit: int,
    start: str | None,
    as_json: bool,
) -> None:
    """List the moves of the pointer of WORKFLOW in ENVIRONMENT, newest first.

    If there are older ones, the last line, on stderr, has the entry of the ledger that continues the list.
    """
    moves: list[Move] = []
    slug = lookup.slug_of(operator, workflow)
    with operator.opened() as repository:
        lookup.existing(repository, slug)
        rulebook(repository).find(environment)
        while True:
            page, start = pointers.history(
                repository, slug, environment, limit=limit - len(moves), start=start
            )
            moves += page
            if start is None or len(moves) == limit:
                break
    rows = [
        (
            move.entry.when,
            ledger.show_pointer(move.to) if move.to is not None else None,
            move.to is not None and move.to.held,
            move.entry.actor.name,
            move.entry.message,
        )
        for move in moves
    ]
    show(("at", "version", "held", "by", "message"), rows, as_json=as_json)
    if start is not None:
        click.echo(f"older moves: --from {start}", err=True)


@env.command("promote")
@click.argument("source")
@click.argument("target")
@click.argument("workflows", nargs=-1, required=True, metavar="WORKFLOW...")
@AT
@with_message
@click.option("--dry-run", is_flag=True, help="Only show what would change, and what stops it.")
@in_project
@as_rows
@with_operator
def promote(
    operator: Operator,
    source: str,
    target: str,
    workflows: tuple[str, ...],
    at: datetime | None,
    message: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Move WORKFLOWS in the environment TARGET to their versions in SOURCE: all of them, or none."""
    if dry_run:
        _preview(operator, workflows, source, target, at, as_json)
        return
    try:
        if at is not None:
            made = schedules.promote(operator, workflows, source, target, at, message=message)
            show_schedules(made, as_json=as_json)
            return
        promoted = actions.promote(operator, workflows, source, target, message=message)
    except EnvironmentRefusedError as error:
        lines = [f"  {slug}: {each.message}" for slug, each in error.refusals]
        raise error.reworded("\n".join(["nothing was moved:", *lines])) from error
    rows = [
        (each.slug, ledger.show_pointer(each.before) if each.before else None, f"v{each.after.version}")
        for each in promoted
    ]
    show(("workflow", "before", "version"), rows, as_json=as_json)


def _preview(
    operator: Caller,
    workflows: Sequence[str],
    source: str,
    target: str,
    at: datetime | None,
    as_json: bool,
) -> None:
    found = actions.preview(operator, workflows, source, target, at)
    rows: list[tuple[object, ...]] = [
        (
            each.slug,
            ledger.show_pointer(each.before) if each.before else None,
            f"v{each.after.version}",
            changes,
            "; ".join(error.message for slug, error in found.refusals if slug == each.slug) or None,
        )
        for each, changes in found.promotions
    ]
    known = {each.slug for each, _ in found.promotions}
    rows += [(slug, None, None, None, error.message) for slug, error in found.refusals if slug not in known]
    show(("workflow", "before", "version", "changes", "refused"), sorted(rows, key=str), as_json=as_json)
    if found.refusals:
        raise GitstoreError(found.refusals[0][1].code, "the promotion would be refused")


def _show_rules(rules: Sequence[EnvironmentRule], as_json: bool) -> None:
    rows = [(rule.name, rule.role, rule.follows, rule.hours) for rule in rules]
    show(("environment", "role", "follows", "hours"), rows, as_json=as_json)


def _show_pointer(operator: Caller, slug: str, environment: str, as_json: bool) -> None:
    with operator.reading() as tx:
        row = lookup.workflow(tx, operator, slug)
        found = {each.name: each for each in environments.of_workflow(tx, row.id)}
    rows = [(environment, *_pointer(found.get(environment)))]
    show(("environment", "version", "held", "moved at", "moved by", "message"), rows, as_json=as_json)


def _pointer(row: ShownPointer | None) -> tuple[object, ...]:
    if row is None:
        return (None, False, None, None, None)
    return (ledger.show_pointer(row.pointer), row.held, row.moved_at, row.moved_by, row.message)
