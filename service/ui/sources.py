"""Pages for owners: a source and its actions. The values to paste into its forge are shown once."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from gitstore.errors import GitstoreError
from gitstore.model import Permission
from gitstore.upstream.importer import Layout
from service import errors
from service.actions import sources as owning
from service.inputs import ChangeSource, CreateSource, validated
from service.ui.visit import Visit, enter, field, go, shown_once
from webhooks.forges import Forge
from webhooks.sources import LONGEST_POLL, POLL_SECONDS, SHORTEST_POLL, Direction, Source

FORGES: Final = {forge: forge.profile.title for forge in Forge}
LAYOUTS: Final = {
    Layout.REFS: "the same branches and tags as here",
    Layout.FOLDERS: "many workflows in one repository, in workflows/<slug>/",
}
DIRECTIONS: Final = {
    Direction.PULL: "from there to here",
    Direction.PUSH: "from here to there",
    Direction.BOTH: "both ways",
}
_FIELDS: Final = ("url", "forge", "layout", "direction", "credential", "secret", "poll_seconds")


def new_source() -> Response:
    visit = enter(Permission.OWN, "adding a source")
    return _form(visit, None, {"poll_seconds": POLL_SECONDS})


def create_source() -> Response:
    visit = enter(Permission.OWN, "adding a source")
    given = _given()
    try:
        made, webhook = owning.create(visit.caller, **validated(CreateSource, {"url": "", **given}).given())
    except GitstoreError as error:
        return _form(visit, None, given, error)
    values = {
        "URL": webhook.url,
        "Secret": webhook.secret,
        "Content type": webhook.content_type,
        "Events": ", ".join(webhook.events),
    }
    return shown_once(
        visit,
        "sources",
        "The source is added",
        "Paste this into the settings of the repository's webhooks, and it is followed within moments. "
        f"Without one, it is asked every {made.poll_seconds} seconds. The secret is shown this once.",
        values,
        about=made.url,
        to=("list_sources", {}),
    )


def edit_source(which: str) -> Response:
    visit = enter(Permission.OWN, "changing a source")
    return _form(visit, row := _read(visit, which), _as_it_is(row))


def change_source(which: str) -> Response:
    """Change the source. Empty fields are unchanged; a checkbox removes the credential."""
    visit = enter(Permission.OWN, "changing a source")
    given = {name: value for name, value in _given().items() if name != "url"}
    if field("forget"):
        given["credential"] = ""
    try:
        owning.change(visit.caller, which, **validated(ChangeSource, given).given())
    except GitstoreError as error:
        row = _read(visit, which)
        return _form(visit, row, {**_as_it_is(row), **given}, error)
    return go("list_sources", said="changed")


def pause_source(which: str) -> Response:
    """Pause or resume the source."""
    paused = bool(field("paused"))
    visit = enter(Permission.OWN, "changing a source")
    owning.change(visit.caller, which, **validated(ChangeSource, {"paused": paused}).given())
    return go("list_sources", said="source-paused" if paused else "source-resumed")


def ask_remove_source(which: str) -> Response:
    visit = enter(Permission.OWN, "removing a source")
    row = _read(visit, which)
    return visit.page(
        "ask.html",
        area="sources",
        title="Remove the source?",
        about=row.url,
        text="It is followed no more, and where both sides differ is forgotten. What it brought stays.",
        action=("remove_source", {"which": which}),
        button="Remove the source",
        to=("list_sources", {}),
    )


def remove_source(which: str) -> Response:
    owning.delete(enter(Permission.OWN, "removing a source").caller, which)
    return go("list_sources", said="removed")


def _read(visit: Visit, which: str) -> Source:
    with visit.caller.reading() as tx:
        return owning.find(tx, visit.caller, which)


def _as_it_is(row: Source) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("url", "forge", "layout", "direction", "poll_seconds")}


def _given() -> dict[str, Any]:
    """Return the filled-in fields. A malformed number is passed on, for the model to refuse."""
    given: dict[str, Any] = {name: text for name in _FIELDS if (text := field(name).strip())}
    seconds = str(given.get("poll_seconds", ""))
    if seconds.isascii() and seconds.isdigit():
        given["poll_seconds"] = int(seconds[:9])
    return given


def _form(
    visit: Visit, row: Source | None, given: dict[str, Any], error: GitstoreError | None = None
) -> Response:
    return visit.page(
        "source_form.html",
        int(errors.STATUS[error.code]) if error else 200,
        row=row,
        given=given,
        error=error,
        forges=FORGES,
        layouts=LAYOUTS,
        directions=DIRECTIONS,
        shortest=SHORTEST_POLL,
        longest=LONGEST_POLL,
    )
