"""Actions on schedules: publish, move or promote later; cancel that; and carry it out at its time.

What a schedule would do is checked when it is made, and again when it is carried out, in the name of the
person who made it, with the role that they have then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import uuid4

from gitstore import ledger, names, pointers
from gitstore.environments import CURRENT, rulebook, weighted
from gitstore.errors import (
    Code,
    ConflictError,
    ForbiddenError,
    GitstoreError,
    MalformedError,
    NotFoundError,
    NotMirroredError,
    RenamedError,
    StaleDraftError,
    TemporaryError,
)
from gitstore.model import LedgerEntry, LedgerKind, Permission, Person
from gitstore.policy import Command
from gitstore.policy_facts import accepted
from gitstore.repository import Repository
from gitstore.schedules import Scheduled, carried_out
from gitstore.store import ANY, already_published
from gitstore.system import rfc3339
from service import logs, lookup
from service.access import authorize
from service.actions import environments, versions
from service.actions.drafts import seen_commit
from service.caller import Backend, Caller, in_the_name_of, operator
from service.logs import Event
from service.projects import check_writable
from sync import audit, catalog, events, levels, schedules
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Transaction
from sync.schedules import FURTHEST, MOST, Claim, Plan, Schedule, ShownSchedule
from sync.unit_of_work import MirrorUnitOfWork
from webhooks.lease_loop import MOST_CRASHES, WORKER_ENDED, given_up

_PAUSE: Final = timedelta(seconds=1)
_LONGEST_REASON: Final = 2000
_AGAIN: Final = "check, and schedule it again"


class TakenOverError(TemporaryError):
    """Another worker carries out the schedule: this one was stopped for longer than its claim."""


# Make


def publish(
    caller: Caller,
    slug: str,
    at: datetime,
    *,
    author: Person | None = None,
    message: str = "",
    activate: bool = True,
    expected: Collection[str] | None = None,
) -> ShownSchedule:
    """Schedule the publication of the draft as it is now. `expected` as in `drafts`."""
    check_writable(caller.project)
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        newest, state = repository.newest_counting(slug), repository.state(slug)
        if state.draft is None:
            raise ConflictError(Code.NO_DRAFT, f"{slug} has no draft: save or push one, then schedule it")
        if seen_commit(repository, slug, expected) not in (None, ANY, state.draft):
            raise StaleDraftError("the draft moved since you read it: read it again, then schedule it")
        lookup.admit(caller, slug, state.latest + 1)
        if repository.holds_latest(state):
            raise already_published(state)
        accepted(repository, Command(names.tag(slug, state.next_number), None, state.draft.encode()))
        plan = _plan(
            caller, repository, slug, at, newest, message, kind="publish", draft_commit=state.draft,
            activate=activate, author_name=author.name if author is not None else None,
            author_email=author.email if author is not None else None,
        )  # fmt: skip
    return _make(caller, [(slug, plan)])[0]


def move(
    caller: Caller,
    slug: str,
    environment: str,
    weights: Iterable[tuple[int | str, int]],
    at: datetime,
    *,
    message: str = "",
    hold: bool = False,
    expected: Collection[str] | None = None,
) -> ShownSchedule:
    """Schedule a move of a pointer, or of `current`, to one version, or to two with their weights."""
    check_writable(caller.project)
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        newest, state, rules = repository.newest_counting(slug), repository.state(slug), rulebook(repository)
        environments.authorize_move(caller, rules, environment, f"moving {slug} in {environment}")
        numbers = {lookup.number_of(repository, slug, version): weight for version, weight in weights}
        wanted = weighted(environment, numbers, held=hold)
        pointers.check_expected(state, environment, expected)
        if reasons := pointers.refusals(repository, rules, state, environment, wanted.versions, at):
            raise (
                reasons[0] if environment == CURRENT else pointers.refused([(slug, each) for each in reasons])
            )
        plan = _plan(
            caller, repository, slug, at, newest, message, kind="move", environment=environment, held=hold,
            version_number=wanted.version, weight=wanted.weight, second_number=wanted.second,
        )  # fmt: skip
    return _make(caller, [(slug, plan)])[0]


def promote(
    caller: Caller, listed: Sequence[str], source: str, target: str, at: datetime, *, message: str = ""
) -> list[ShownSchedule]:
    """Schedule a promotion of workflows (slugs or ids) to the versions that are in `source` now.

    Each workflow has a schedule of its own, so that one that is stopped does not stop the others. A workflow
    that is there already has none.
    """
    check_writable(caller.project)
    slugs = [lookup.slug_of(caller, name) for name in listed]
    made = []
    with caller.opened() as repository:
        environments.authorize_move(caller, rulebook(repository), target, f"promoting to {target}")
        newest = {slug: repository.newest_counting(slug) for slug in slugs}
        planned = pointers.plan(repository, slugs, source, target, at)
        if planned.refusals:
            raise pointers.refused(planned.refusals)
        for each in planned.promotions:
            if each.moves:
                plan = _plan(
                    caller, repository, each.slug, at, newest[each.slug], message, kind="promote",
                    environment=target, source=source, version_number=each.after.version,
                )  # fmt: skip
                made.append((each.slug, plan))
    return _make(caller, made)


def _plan(
    caller: Caller,
    repository: Repository,
    slug: str,
    at: datetime,
    newest: LedgerEntry | None,
    message: str,
    **what: Any,
) -> Plan:
    """Return what a schedule of the caller does; `what` are further fields of `Plan`."""
    me = caller.principal
    defaults: dict[str, Any] = {
        "environment": None, "source": None, "draft_commit": None, "version_number": None, "weight": 100,
        "second_number": None, "held": False, "activate": True, "author_name": None, "author_email": None,
    }  # fmt: skip
    return Plan(
        project_id=caller.project_id,
        workflow_id=repository.identity(slug),
        at=at,
        message=message,
        ledger_oid=newest.oid if newest is not None else None,
        actor_id=me.id,
        actor_name=me.name,
        actor_kind=me.kind,
        actor_user=str(me.user) if me.user is not None else None,
        on_behalf_of=caller.on_behalf_of,
        **{**defaults, **what},
    )


def _make(caller: Caller, plans: Sequence[tuple[str, Plan]]) -> list[ShownSchedule]:
    """Store the schedules of workflows; one that is there already is returned as it is."""
    made, new = [], []
    with caller.as_user() as tx:
        if any(plan.environment not in (None, CURRENT) for _, plan in plans):
            ledger.check_level(LedgerKind.POINTED, levels.level(tx))
        for slug, plan in plans:
            workflow = lookup.workflow(tx, caller, slug)
            if schedules.count(tx, workflow.id) >= MOST:
                raise ConflictError(
                    Code.LIMIT_REACHED, f"{slug} has {MOST} schedules that wait: cancel some of them first"
                )
            wanted = uuid4()
            row = schedules.create(tx, wanted, plan)
            if row is None:
                message = f"at must be in the future, and at most {FURTHEST.days} days away"
                raise MalformedError(message)
            if row.id == wanted:
                new.append((slug, row))
                details = {"workflow": slug, "at": rfc3339(row.at), **_about(row)}
                caller.audit(tx, "schedule.created", row.id, details)
            elif not _is_same(row, plan):
                raise ConflictError(
                    Code.SCHEDULE_EXISTS,
                    f"something else is scheduled for {slug} at that very time: choose another, or cancel it",
                    schedule=str(row.id),
                )
            made.append(ShownSchedule(**asdict(row), slug=slug, workflow_name=workflow.name))
    for slug, row in new:
        caller.log(Event.SCHEDULED, workflow=slug, schedule=str(row.id), at=rfc3339(row.at), **_about(row))
    return made


def _is_same(row: Schedule, plan: Plan) -> bool:
    known = {name: getattr(row, name) for name in asdict(plan)}
    return {**known, "ledger_oid": plan.ledger_oid} == asdict(plan)


def _about(row: Schedule) -> dict[str, Any]:
    about = {
        "kind": row.kind,
        "environment": row.environment,
        "version": row.version_number,
        "commit": row.draft_commit,
    }
    return {name: value for name, value in about.items() if value is not None}


# Cancel


def find(tx: Transaction, caller: Caller, schedule: str) -> ShownSchedule:
    return lookup.find("schedule", schedule, partial(schedules.find, tx, caller.project_id))


def cancel(caller: Caller, schedule: str) -> None:
    """Cancel a schedule: for the person who made it, and for those who may do it themselves.

    Raises `schedule_ended`.
    """
    with caller.as_user() as tx:
        row = find(tx, caller, schedule)
        if row.actor_id != caller.principal.id:
            _authorize_cancel(caller, row)
        if row.state == "cancelled":
            return
        if not schedules.cancel(tx, caller.project_id, row.id, caller.principal.name):
            ended = {"done": "was carried out", "stopped": "was stopped"}.get(
                row.state, "is being carried out"
            )
            raise ConflictError(Code.SCHEDULE_ENDED, f"the schedule {ended}: it cannot be cancelled any more")
        caller.audit(tx, "schedule.cancelled", row.id, {"workflow": row.slug, "at": rfc3339(row.at)})
    caller.log(Event.SCHEDULE_CANCELLED, workflow=row.slug, schedule=str(row.id))


def _authorize_cancel(caller: Caller, row: ShownSchedule) -> None:
    what = f"cancelling a schedule of {row.slug}"
    with caller.opened() as repository:
        rules = rulebook(repository)
    if row.environment in {rule.name for rule in rules.rules}:
        environments.authorize_move(caller, rules, row.environment or CURRENT, what)
    else:
        authorize(caller.principal, Permission.PUBLISH, what)


# Carry out


def carry_out(backend: Backend, claimed: Claim) -> None:
    """Carry out a claimed schedule, or record why that is not possible; after temporary failures, again."""
    try:
        slug, number = _perform(backend, claimed)
    except TakenOverError:
        return
    except NotMirroredError:
        with backend.database.as_mirror() as tx:
            schedules.look_again(tx, claimed, _PAUSE)
    except (TemporaryError, RenamedError):  # nothing was written
        with backend.database.as_mirror() as tx:
            schedules.release(tx, claimed, _PAUSE)
    except GitstoreError as error:
        _stop(backend, claimed, error)
    else:
        with backend.database.as_mirror() as tx:
            delay = schedules.finish(tx, claimed, number)
        if delay is not None:
            _log(backend, claimed, Event.SCHEDULE_DONE, slug, delay, version=number)


def _perform(backend: Backend, claimed: Claim) -> tuple[str, int | None]:
    """Do what the schedule is for, unless the ledger has it; return the slug, and the version's number."""
    with backend.database.as_owner() as tx:
        project = catalog.project_by_id(tx, claimed.project_id)
        workflow = catalog.workflow(tx, claimed.workflow_id)
    if project is None or workflow is None:
        raise NotFoundError(Code.WORKFLOW_NOT_FOUND, "the workflow does not exist any more")
    slug = workflow.slug
    scheduled = Scheduled(claimed.id, claimed.ledger_oid, partial(_check_held, backend, claimed))
    if claimed.taken_over:
        with closing(backend.projects.reader(project)) as repository:
            if (entry := _recorded(backend, repository, slug, scheduled)) is not None:
                return slug, entry.version
    if claimed.crashes >= MOST_CRASHES:
        raise ConflictError(Code.SCHEDULE_MISSED, given_up(WORKER_ENDED, _AGAIN))
    if claimed.missed:
        raise ConflictError(
            Code.SCHEDULE_MISSED, f"no worker ran at its time, nor in the hour after it: {_AGAIN}"
        )
    caller = _author(backend, project, claimed)
    if claimed.kind == "publish":
        return slug, _publish(caller, slug, claimed, scheduled)
    environment, number = claimed.environment or CURRENT, claimed.version_number or 0
    if claimed.kind == "promote":
        environments.promote(
            caller, [slug], claimed.source or "", environment, message=claimed.message, scheduled=scheduled,
            version=number,
        )  # fmt: skip
    elif environment == CURRENT:
        authorize(caller.principal, Permission.PUBLISH, f"moving current of {slug}")
        versions.move_current(
            caller, slug, number, message=claimed.message, hold=claimed.held, scheduled=scheduled
        )
    else:
        weights = claimed.weights.items()
        environments.move(
            caller,
            slug,
            environment,
            weights,
            message=claimed.message,
            hold=claimed.held,
            scheduled=scheduled,
        )
    return slug, number


def _publish(caller: Caller, slug: str, claimed: Claim, scheduled: Scheduled) -> int:
    authorize(caller.principal, Permission.PUBLISH, f"publishing {slug}")
    author = None
    if claimed.author_name is not None and claimed.author_email is not None:
        author = Person(claimed.author_name, claimed.author_email)
    try:
        return versions.publish(
            caller, slug, author=author, message=claimed.message, activate=claimed.activate,
            expected={claimed.draft_commit or ""}, scheduled=scheduled,
        ).number  # fmt: skip
    except StaleDraftError as error:
        raise error.reworded(f"the draft of {slug} moved after this was scheduled: {_AGAIN}") from error


def _recorded(
    backend: Backend, repository: Repository, slug: str, scheduled: Scheduled
) -> LedgerEntry | None:
    """Return the entry of a worker that was killed; under the lock, so that such a worker is done with it."""
    with MirrorUnitOfWork(backend.database, repository).begin([slug]):
        return carried_out(repository, slug, scheduled)


def _check_held(backend: Backend, claimed: Claim) -> None:
    with backend.database.as_mirror() as tx:
        if not schedules.is_held(tx, claimed):
            raise TakenOverError(Code.BUSY, "another worker carries out the schedule")


def _author(backend: Backend, project: Project, claimed: Claim) -> Caller:
    """Return the person who made a schedule, with their present role. Raises `forbidden`."""
    if claimed.actor_kind == "operator":
        caller: Caller = operator(backend, project, Origin("operator", claimed.actor_name, "worker"))
    else:
        try:
            caller = in_the_name_of(backend, project.id, claimed.actor_id, claimed.actor_user)
        except ForbiddenError as error:
            message = f"{claimed.actor_name}, who scheduled it, has no access to the project any more"
            raise error.reworded(message) from error
    return replace(caller, on_behalf_of=claimed.on_behalf_of)


def _stop(backend: Backend, claimed: Claim, error: GitstoreError) -> None:
    """Record why a schedule is not carried out, with its event, once."""
    reason, by = error.message[:_LONGEST_REASON], claimed.actor_name
    origin = Origin(str(claimed.actor_id), by, "worker")
    with backend.database.as_mirror() as tx:
        delay = schedules.stop(tx, claimed, error.code.value, reason)
        if delay is None:
            return
        workflow = catalog.workflow(tx, claimed.workflow_id)
        slug = workflow.slug if workflow is not None else None
        details = {"workflow": slug, **_about(claimed), "code": error.code.value, "reason": reason}
        data = {**details, "by": by}
        event = events.schedule_stopped(claimed.id, claimed.project_id, claimed.workflow_id, claimed.at, data)
        events.insert(tx, [event])
        audit.note(tx, claimed.project_id, origin, "schedule.stopped", str(claimed.id), details)
    _log(backend, claimed, Event.SCHEDULE_STOPPED, slug, delay, code=error.code.value, reason=reason)


def _log(
    backend: Backend, claimed: Claim, event: Event, slug: str | None, delay: float, **facts: object
) -> None:
    with backend.database.as_mirror() as tx:
        project = catalog.project_by_id(tx, claimed.project_id)
    logs.action(
        event,
        level="warning" if event is Event.SCHEDULE_STOPPED else "info",
        project=project.slug if project is not None else None,
        workflow=slug,
        schedule=str(claimed.id),
        principal=claimed.actor_name,
        delay_ms=round(delay * 1000, 1),
        **facts,
    )
