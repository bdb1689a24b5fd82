"""URLs of the pages. A push prints `/ui/workflows/<slug>/versions/<version>`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flask import Blueprint, Response
from flask.blueprints import BlueprintSetupState

from service.ui import (
    compare,
    deliveries,
    editing,
    login,
    rollback,
    sources,
    subscriptions,
    tokens,
    versions,
    workflows,
)
from service.ui.summaries import Summaries
from service.ui.visit import go

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
    (f"{_ONE}/roll-back", rollback.roll_back),
    (f"{_ONE}/compare", compare.show_difference),
    (f"{_ONE}/versions", versions.show_history),
    (_VERSION, versions.show_version),
    (f"{_VERSION}/download", versions.download),
    (f"{_VERSION}/revert", rollback.ask_revert),
    (f"{_VERSION}/current", rollback.ask_current),
    ("/ui/sources", deliveries.list_sources),
    ("/ui/new-source", sources.new_source),
    ("/ui/sources/<which>", sources.edit_source),
    ("/ui/sources/<which>/remove", sources.ask_remove_source),
    ("/ui/webhooks", deliveries.list_subscriptions),
    ("/ui/new-webhook", subscriptions.new_subscription),
    ("/ui/webhooks/<which>", subscriptions.show_subscription),
    ("/ui/webhooks/<which>/edit", subscriptions.edit_subscription),
    ("/ui/webhooks/<which>/delete", subscriptions.ask_delete_subscription),
    ("/ui/tokens", tokens.list_tokens),
    ("/ui/tokens/<which>/revoke", tokens.ask_revoke_token),
    ("/ui/deliveries/<which>", deliveries.show_delivery),
)
_POST: Final[tuple[tuple[str, Callable[..., Response]], ...]] = (
    ("/ui/new-workflow", workflows.create_workflow),
    (f"{_ONE}/edit", editing.save),
    (f"{_ONE}/validate", editing.check),
    (f"{_ONE}/publish", workflows.publish),
    (f"{_ONE}/discard", workflows.discard),
    (f"{_ONE}/restore", workflows.restore),
    (f"{_VERSION}/revert", rollback.revert),
    (f"{_VERSION}/current", rollback.make_current),
    ("/ui/sources/<which>/sync", deliveries.sync_source),
    ("/ui/sources/<which>/divergences/<divergence>", deliveries.resolve_divergence),
    ("/ui/new-source", sources.create_source),
    ("/ui/sources/<which>", sources.change_source),
    ("/ui/sources/<which>/pause", sources.pause_source),
    ("/ui/sources/<which>/remove", sources.remove_source),
    ("/ui/deliveries/<which>/again", deliveries.send_again),
    ("/ui/new-webhook", subscriptions.create_subscription),
    ("/ui/webhooks/<which>/edit", subscriptions.change_subscription),
    ("/ui/webhooks/<which>/state", subscriptions.switch_subscription),
    ("/ui/webhooks/<which>/test", subscriptions.test_subscription),
    ("/ui/webhooks/<which>/rotate", subscriptions.rotate_secret),
    ("/ui/webhooks/<which>/delete", subscriptions.delete_subscription),
    ("/ui/tokens", tokens.create_token),
    ("/ui/tokens/<which>/revoke", tokens.revoke_token),
)

blueprint = Blueprint("ui", __name__)
login.register(blueprint)
for _method, _rules in (("GET", _GET), ("POST", _POST)):
    for _path, _view in _rules:
        blueprint.add_url_rule(_path, _view.__name__, _view, methods=[_method])


@blueprint.record_once
def _prepare(state: BlueprintSetupState) -> None:
    state.app.extensions[versions.EXTENSION] = Summaries()


def is_page(path: str) -> bool:
    """Return whether an error at this path is shown as a page."""
    return path == "/ui" or path.startswith("/ui/")
