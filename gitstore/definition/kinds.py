"""The kinds of node that MeshHook's editor offers, and their settings: the one description of them.

The rules read from it which settings are required and which are JMESPath; the page builds its palette and its
forms from `as_json`; docs/definition.md lists it (a test compares).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Input = Literal["text", "long", "url", "choice", "number", "jmespath", "headers", "retry", "cron", "duration"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of `data.config`. `templates` states whether `{{…}}` is filled in when the node runs.

    `required` is checked for the kinds of `docs/definition.md`'s rules; elsewhere it marks the form only.
    """

    name: str
    label: str
    input: Input = "text"
    required: bool = False
    templates: bool = False
    hint: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """`starts` is True if a run can begin at such a node; `aliases` are other spellings of `name`."""

    name: str
    title: str
    summary: str
    settings: tuple[Setting, ...]
    starts: bool = False
    aliases: tuple[str, ...] = ()


_DESCRIPTION: Final = Setting("description", "Description")
_HEADERS: Final = Setting("headers", "Headers", "headers", templates=True)

ALL: Final = (
    Kind(
        "webhook",
        "Webhook",
        "Starts a run, or posts to a URL",
        (
            Setting("url", "URL", "url", templates=True, hint="https://api.example.com/hook/{{id}}"),
            Setting("method", "Method", "choice", choices=("POST", "PUT", "PATCH")),
            _HEADERS,
            Setting("bodyTemplate", "Body", "long", templates=True, hint='{"title": "{{title}}"}'),
            _DESCRIPTION,
        ),
        starts=True,
    ),
    Kind(
        "schedule",
        "Schedule",
        "Starts a run at set times",
        (
            Setting("cron", "Cron expression", "cron", hint="0 6 * * 1-5: at 06:00 on weekdays"),
            Setting("timezone", "Time zone", hint="Europe/Berlin"),
            _DESCRIPTION,
        ),
        starts=True,
    ),
    Kind(
        "httpCall",
        "HTTP call",
        "Sends an HTTP request",
        (
            Setting("url", "URL", "url", True, True, "https://api.example.com/users/{{userId}}"),
            Setting("method", "Method", "choice", True, choices=("GET", "POST", "PUT", "PATCH", "DELETE")),
            _HEADERS,
            Setting("body", "Body", "long", templates=True, hint='{"name": "{{user.name}}"}'),
            Setting("timeout", "Timeout (ms)", "duration", hint="30000"),
            Setting("retryPolicy", "Retries", "retry"),
        ),
        aliases=("http_call",),
    ),
    Kind(
        "transform",
        "Transform",
        "Reshapes data: by a JMESPath expression or a template",
        (
            Setting("expression", "Expression", "jmespath", hint="items[?price > `10`].name"),
            Setting("template", "Template", "long", templates=True, hint='{"name": "{{user.name}}"}'),
            _DESCRIPTION,
        ),
    ),
    Kind(
        "xmlJsonTransform",
        "XML ↔ JSON",
        "Converts XML to JSON or back",
        (Setting("format", "Convert to", "choice", choices=("json", "xml")), _DESCRIPTION),
    ),
    Kind(
        "delay",
        "Delay",
        "Waits",
        (Setting("duration", "Duration (ms)", "duration", True, hint="1000"), _DESCRIPTION),
    ),
    Kind(
        "conditional",
        "Condition",
        "Goes on only if a condition holds",
        (Setting("condition", "Condition", "jmespath", True, hint="status == `success`"), _DESCRIPTION),
    ),
    Kind(
        "branch",
        "Branch",
        "Splits a run into several paths",
        (
            Setting("branches", "Number of branches", "number", hint="2"),
            Setting("strategy", "Strategy", "choice", choices=("parallel", "sequential")),
            _DESCRIPTION,
        ),
    ),
    Kind(
        "loop",
        "Loop",
        "Repeats the nodes inside it for each item",
        (Setting("items", "Items", "jmespath", True, hint="data.items[*]"), _DESCRIPTION),
        aliases=("loopContainer",),
    ),
    Kind(
        "terminate",
        "End",
        "Ends the run",
        (
            Setting("reason", "Reason", hint="Workflow completed"),
            Setting("status", "Status", "choice", choices=("success", "failure", "cancelled")),
        ),
    ),
)

KINDS: Final = {kind.name: kind for kind in ALL}
ALIASES: Final = {alias: kind.name for kind in ALL for alias in kind.aliases}
EXPRESSIONS: Final = {
    kind.name: setting.name for kind in ALL for setting in kind.settings if setting.input == "jmespath"
}
"""The setting of a kind that is a JMESPath expression."""


def as_json() -> list[dict[str, Any]]:
    """Return the description for a form, in the order of the palette."""
    return [asdict(kind) for kind in ALL]
