"""Actions on what someone typed and has not saved: keep it, and make it a commit once it is idle.

It is neither in Git nor an event, and only its author sees it. It never publishes, and never overwrites: if
the draft or the latest version has changed since its author began, it stays, and a save shows the conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import timedelta
from typing import Final

from gitstore.drafts import check_size
from gitstore.errors import (
    BusyError,
    Code,
    ConflictError,
    GitstoreError,
    MalformedError,
    TemporaryError,
    too_large,
)
from gitstore.model import LONGEST_TEXT, Permission
from service import lookup
from service.access import authorize
from service.actions import drafts
from service.actions.workflows import raw_content
from service.caller import Backend, Caller, in_the_name_of
from sync import autosaves, catalog
from sync.autosaves import Autosave

IDLE: Final = timedelta(minutes=10)
KEPT: Final = timedelta(days=30)
MOST: Final = 100
"""Rows of an author in a project."""


def put(
    caller: Caller, slug: str, *, began: str, etag: str, base: int, definition: str, message: str
) -> Autosave:
    """Keep what the caller typed after opening the commit `began`; `etag` and `base` as in `save_edited`.

    If the worker has committed that text, the row continues from it. Its `conflict` means that the draft or
    the latest version has changed since. Raises `too_large` and `limit_reached`.
    """
    check_size(definition.encode(), caller.limits)
    if len(message) > LONGEST_TEXT:
        raise too_large("the message has", len(message), LONGEST_TEXT, "characters")
    if not began:
        raise MalformedError("the form does not name the commit that was edited: reload the page")
    me, user = caller.principal.id, caller.principal.user
    with caller.as_user() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        commit = autosaves.current(tx, workflow.id, me, began)
        if autosaves.others(tx, caller.project_id, me, workflow.id, commit) >= MOST:
            message = f"you have {MOST} unsaved changes in this project: save or discard some of them"
            raise ConflictError(Code.LIMIT_REACHED, message)
        on_draft = commit != began or etag == began
        row = autosaves.put(
            tx,
            caller.project_id,
            workflow.id,
            me,
            str(user) if user else None,
            commit=commit,
            on_draft=on_draft,
            version=base,
            definition=definition,
            message=message,
        )
    if row is None:
        raise BusyError("what was typed is being saved: try again")
    return replace(row, conflict=_moved(workflow, row))


def _moved(workflow: catalog.Workflow, row: Autosave) -> str | None:
    """Return what has changed since the author of a row began, None if a save would not conflict."""
    draft = workflow.draft_commit if workflow.draft_number else None
    if draft != (row.base_commit if row.on_draft else None):
        return "the draft has changed since you began to edit"
    if row.base_version and row.base_version != workflow.latest_number:
        return f"v{workflow.latest_number} was published since you began to edit"
    return None


def own(caller: Caller, slug: str) -> list[Autosave]:
    """Return what the caller typed in a workflow and did not save, the newest first."""
    with caller.reading() as tx:
        return autosaves.own(tx, lookup.workflow(tx, caller, slug).id, caller.principal.id)


def current(caller: Caller, slug: str, began: str) -> str:
    """Return the commit that the worker made of the caller's text after `began`, or `began`."""
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug).id
        return autosaves.current(tx, workflow, caller.principal.id, began)


def delete(caller: Caller, slug: str, began: Collection[str]) -> None:
    """Delete what the caller typed after opening one of the commits `began`."""
    with caller.as_user() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        autosaves.delete(tx, workflow.id, [commit for commit in began if commit])


def commit_idle(backend: Backend, stopping: Callable[[], bool], age: timedelta = IDLE) -> int:
    """Make a commit of each text that was not changed for `age`; return the number of commits.

    A text that cannot become one stays, with the reason.
    """
    with backend.database.as_owner() as tx:
        rows = autosaves.idle(tx, age)
    done = 0
    for row in rows:
        if stopping():
            break
        try:
            done += _commit(backend, row)
        except TemporaryError:
            continue  # the next round
        except GitstoreError as error:
            with backend.database.as_owner() as tx:
                autosaves.fail(tx, row, error.message)
    return done


def _commit(backend: Backend, row: Autosave) -> bool:
    """Save a row as its author, if they still may; return False if its text is saved already."""
    caller = in_the_name_of(backend, row.project_id, row.actor_id, row.actor_user)
    with backend.database.as_owner() as tx:
        workflow = catalog.workflow(tx, row.workflow_id)
    if workflow is None:
        raise lookup.unknown_workflow(str(row.workflow_id))
    slug = workflow.slug
    authorize(caller.principal, Permission.EDIT, f"saving the draft of {slug}")
    with caller.opened() as repository:
        state = repository.state(slug)
        raw = drafts.file_in(repository, slug, state.draft or row.base_commit).raw
    text = drafts.with_line_ends(row.definition, raw)
    saved = row.base_commit
    if text.encode() != raw:
        commit = row.base_commit if row.on_draft else ""
        content = raw_content(text.encode(), caller.limits)
        saved = drafts.save_edited(
            caller, slug, content, commit=commit, base=row.base_version, message=row.message.strip()
        ).commit
    with backend.database.as_owner() as tx:
        if saved == row.base_commit:
            autosaves.drop(tx, row)
        else:
            autosaves.commit(tx, row, saved)
    return saved != row.base_commit
