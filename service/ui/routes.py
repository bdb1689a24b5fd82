"""The addresses of the page. `/ui/workflows/<slug>/versions/<version>` is the one that a push prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flask import Blueprint, Response
from flask.blueprints import BlueprintSetupState

from service.ui import (
    compare,
    editing,
    moving,
    operations,
    signing,
    sourcing,
    subscribing,
    tokens,
    versions,
    workflows,
)
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
    ("/ui/new-source", sourcing.new_source),
    ("/ui/sources/<which>", sourcing.edit_source),
    ("/ui/sources/<which>/remove", sourcing.ask_remove_source),
    ("/ui/webhooks", operations.list_subscriptions),
    ("/ui/new-webhook", subscribing.new_subscription),
    ("/ui/webhooks/<which>", subscribing.show_subscription),
    ("/ui/webhooks/<which>/edit", subscribing.edit_subscription),
    ("/ui/webhooks/<which>/delete", subscribing.ask_delete_subscription),
    ("/ui/tokens", tokens.list_tokens),
    ("/ui/tokens/<which>/revoke", tokens.ask_revoke_token),
    ("/ui/deliveries/<which>", operations.show_delivery),
)
_POST: Final[tuple[tuple[str, Callable[..., Response]], ...]] = (
    ("/ui/new-workflow", workflows.create_workflow),
    (f"{_ONE}/edit", editing.save),
    (f"{_ONE}/validate", editing.check),
    (f"{_ONE}/publish", workflows.publish),
    (f"{_ONE}/discard", workflows.discard),
    (f"{_ONE}/restore", workflows.restore),
    (f"{_VERSION}/revert", moving.revert),
    (f"{_VERSION}/current", moving.make_current),
    ("/ui/sources/<which>/sync", operations.sync_source),
    ("/ui/sources/<which>/divergences/<divergence>", operations.resolve_divergence),
    ("/ui/new-source", sourcing.create_source),
    ("/ui/sources/<which>", sourcing.change_source),
    ("/ui/sources/<which>/pause", sourcing.pause_source),
    ("/ui/sources/<which>/remove", sourcing.remove_source),
    ("/ui/deliveries/<which>/again", operations.send_again),
    ("/ui/new-webhook", subscribing.create_subscription),
    ("/ui/webhooks/<which>/edit", subscribing.change_subscription),
    ("/ui/webhooks/<which>/state", subscribing.switch_subscription),
    ("/ui/webhooks/<which>/test", subscribing.test_subscription),
    ("/ui/webhooks/<which>/rotate", subscribing.rotate_secret),
    ("/ui/webhooks/<which>/delete", subscribing.delete_subscription),
    ("/ui/tokens", tokens.create_token),
    ("/ui/tokens/<which>/revoke", tokens.revoke_token),
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
