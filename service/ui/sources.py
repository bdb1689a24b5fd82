"""Pages for owners: sources and their divergences. The webhook values for the forge are shown once."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from gitstore.errors import GitstoreError
from gitstore.model import Permission
from gitstore.upstream.refs import Layout
from service.actions import sources as actions
from service.actions.sources import Webhook
from service.inputs import ChangeSource, CreateSource, Resolve, validated
from service.ui.rendering import blueprint
from service.ui.visits import Visit, enter, field, go, shown_once
from webhooks import divergences, sources
from webhooks.forges import Forge
from webhooks.sources import EVERY_WORKFLOW, LONGEST_POLL, POLL_SECONDS, SHORTEST_POLL, Direction, Source

FORGES: Final = {forge: forge.profile.title for forge in Forge}
LAYOUTS: Final = {
    Layout.REFS: "branches and tags named as here",
    Layout.FOLDERS: "many workflows in one repository, in workflows/<slug>/",
}
DIRECTIONS: Final = {
    Direction.PULL: "pull (upstream to here)",
    Direction.PUSH: "push (here to upstream)",
    Direction.BOTH: "both",
}
_FIELDS: Final = ("url", "forge", "layout", "direction", "credential", "secret", "poll_seconds")

_CHOICES: Final = {"ours": "Keep ours", "theirs": "Take theirs", "acknowledge": "Acknowledge"}
_NOTICES: Final = {"ours": "kept", "theirs": "resolved", "acknowledge": "acknowledged"}
_LISTED: Final = 50  # divergences of one source


@blueprint.get("/ui/sources")
def list_sources() -> Response:
    visit = enter(Permission.OWN, "listing sources")
    caller = visit.caller
    with caller.reading() as tx:
        rows = sources.sources(tx, caller.project_id)
        open_ = {
            row.id: divergences.open_divergences(tx, caller.project_id, row.id, limit=_LISTED) for row in rows
        }
    return visit.page("sources.html", rows=rows, open=open_, choices=_CHOICES)


@blueprint.post("/ui/sources/<which>/sync")
def sync_source(which: str) -> Response:
    """Let the worker sync the source now."""
    actions.sync(enter(Permission.OWN, "syncing a source").caller, which)
    return go("list_sources", notice="asked")


@blueprint.post("/ui/sources/<which>/divergences/<divergence>")
def resolve_divergence(which: str, divergence: str) -> Response:
    """Resolve a divergence of a draft, or acknowledge one of a tag."""
    visit = enter(Permission.OWN, "resolving a divergence")
    body = validated(Resolve, {"take": field("take")})
    actions.resolve(visit.caller, which, divergence, body.take)
    return go("list_sources", notice=_NOTICES[body.take])


@blueprint.get("/ui/new-source")
def new_source() -> Response:
    visit = enter(Permission.OWN, "adding a source")
    return _form(visit, None, {"workflows": EVERY_WORKFLOW, "poll_seconds": POLL_SECONDS})


@blueprint.post("/ui/new-source")
def create_source() -> Response:
    visit = enter(Permission.OWN, "adding a source")
    given = _given()
    try:
        body = validated(CreateSource, {"url": "", **given})
        source, webhook = actions.create(visit.caller, **body.given())
    except GitstoreError as error:
        return _form(visit, None, given, error)
    return shown_once(
        visit,
        area="sources",
        title="Source added",
        text="Add a webhook with these values to the repository, so that changes are synced within seconds. "
        f"Without it, they are polled every {source.poll_seconds} seconds. The secret is shown only once.",
        values=_values(webhook),
        about=source.url,
        to=("list_sources", {}),
    )


def _values(webhook: Webhook) -> dict[str, str]:
    return {
        "URL": webhook.url,
        "Secret": webhook.secret,
        **({"Enter it as": webhook.secret_as} if webhook.secret_as else {}),
        "Content type": webhook.content_type,
        "Events": ", ".join(webhook.events),
    }


@blueprint.get("/ui/sources/<which>")
def edit_source(which: str) -> Response:
    visit = enter(Permission.OWN, "changing a source")
    return _form(visit, row := _read(visit, which), _settings_of(row))


@blueprint.post("/ui/sources/<which>")
def change_source(which: str) -> Response:
    """Change the source. Empty fields are unchanged; a checkbox removes the credential."""
    visit = enter(Permission.OWN, "changing a source")
    given = {name: value for name, value in _given().items() if name != "url"}
    if field("forget"):
        given["credential"] = ""
    try:
        actions.change(visit.caller, which, **validated(ChangeSource, given).given())
    except GitstoreError as error:
        row = _read(visit, which)
        return _form(visit, row, {**_settings_of(row), **given}, error)
    return go("list_sources", notice="changed")


@blueprint.post("/ui/sources/<which>/rotate")
def rotate_source_secret(which: str) -> Response:
    visit = enter(Permission.OWN, "rotating a secret")
    row, webhook = actions.rotate(visit.caller, which)
    return shown_once(
        visit,
        area="sources",
        title="New secret",
        text="Enter it at the forge now. For 24 hours, the old secret is accepted, too. The new one is shown "
        "only once.",
        values=_values(webhook),
        about=row.url,
        to=("list_sources", {}),
    )


@blueprint.post("/ui/sources/<which>/pause")
def pause_source(which: str) -> Response:
    """Pause or resume the source."""
    paused = bool(field("paused"))
    visit = enter(Permission.OWN, "changing a source")
    actions.change(visit.caller, which, **validated(ChangeSource, {"paused": paused}).given())
    return go("list_sources", notice="source-paused" if paused else "source-resumed")


@blueprint.get("/ui/sources/<which>/remove")
def ask_remove_source(which: str) -> Response:
    visit = enter(Permission.OWN, "removing a source")
    row = _read(visit, which)
    return visit.page(
        "ask.html",
        area="sources",
        question="Remove the source?",
        about=row.url,
        text="It is no longer synced, and its divergences are deleted. Imported versions are kept.",
        action=("remove_source", {"which": which}),
        to=("list_sources", {}),
    )


@blueprint.post("/ui/sources/<which>/remove")
def remove_source(which: str) -> Response:
    actions.delete(enter(Permission.OWN, "removing a source").caller, which)
    return go("list_sources", notice="removed")


def _read(visit: Visit, which: str) -> Source:
    with visit.caller.reading() as tx:
        return actions.find(tx, visit.caller, which)


def _settings_of(row: Source) -> dict[str, Any]:
    names = ("url", "forge", "layout", "direction", "workflows", "drafts", "poll_seconds")
    return {name: getattr(row, name) for name in names}


def _given() -> dict[str, Any]:
    """Return the filled-in fields. A malformed number is passed on, for the model to refuse."""
    given: dict[str, Any] = {name: text for name in _FIELDS if (text := field(name).strip())}
    seconds = str(given.get("poll_seconds", ""))
    if seconds.isascii() and seconds.isdigit():
        given["poll_seconds"] = int(seconds[:9])
    if globs := field("workflows").replace(",", " ").split():
        given["workflows"] = globs
    return {**given, "drafts": bool(field("drafts"))}


def _form(
    visit: Visit, row: Source | None, given: dict[str, Any], error: GitstoreError | None = None
) -> Response:
    return visit.page(
        "source_form.html",
        error,
        row=row,
        given=given,
        forges=FORGES,
        layouts=LAYOUTS,
        directions=DIRECTIONS,
        shortest=SHORTEST_POLL,
        longest=LONGEST_POLL,
    )
