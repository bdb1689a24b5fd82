"""The addresses of the page. `/ui/workflows/<slug>/versions/<version>` is the one that a push prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flask import Blueprint, Response
from flask.blueprints import BlueprintSetupState

from service.ui import compare, editing, moving, operations, signing, versions, workflows
from service.ui.entering import go
from service.ui.summaries import Summaries

_ONE: Final = "/ui/workflows/<slug>"
_VERSION: Final = f"{_ONE}/versions/<version>"


def first_page() -> Response:
    return go("list_workflows")


_GET: Final[tuple[tuple[str, Callable[..., Response]], ...]] = (
    ("/", first_page),
    ("/ui", first_page),
    ("/ui/", first_page),
    ("/ui/workflows", workflows.list_workflows),
    ("/ui/new-workflow", workflows.new_workflow),
    (_ONE, workflows.show_workflow),
    (f"{_ONE}/edit", editing.edit),
    (f"{_ONE}/discard", workflows.ask_discard),
    (f"{_ONE}/roll-back", moving.roll_back),
    (f"{_ONE}/compare", compare.show_difference),
    (f"{_ONE}/versions", versions.show_history),
    (_VERSION, versions.show_version),
    (f"{_VERSION}/download", versions.download),
    (f"{_VERSION}/revert", moving.ask_revert),
    (f"{_VERSION}/current", moving.ask_current),
    ("/ui/sources", operations.list_sources),
    ("/ui/webhooks", operations.list_subscriptions),
    ("/ui/deliveries/<which>", operations.show_delivery),
)
_POST: Final[tuple[tuple[str, Callable[..., Response]], ...]] = (
    ("/ui/new-workflow", workflows.create_workflow),
    (f"{_ONE}/edit", editing.save),
    (f"{_ONE}/validate", editing.check),
    (f"{_ONE}/publish", workflows.publish),
    (f"{_ONE}/discard", workflows.discard),
    (f"{_VERSION}/revert", moving.revert),
    (f"{_VERSION}/current", moving.make_current),
    ("/ui/sources/<which>/sync", operations.sync_source),
    ("/ui/sources/<which>/divergences/<divergence>", operations.resolve_divergence),
    ("/ui/deliveries/<which>/again", operations.send_again),
)

blueprint = Blueprint("ui", __name__)
signing.register(blueprint)
for _method, _rules in (("GET", _GET), ("POST", _POST)):
    for _path, _view in _rules:
        blueprint.add_url_rule(_path, _view.__name__, _view, methods=[_method])


@blueprint.record_once
def _prepare(state: BlueprintSetupState) -> None:
    state.app.extensions[versions.EXTENSION] = Summaries()


def is_page(path: str) -> bool:
    """Whether what is refused at this path is told as a page."""
    return path == "/ui" or path.startswith("/ui/")
