"""The JSON that subscribers get, in the shape of Standard Webhooks: {"type", "timestamp", "data"}.

    workflow.version.published   workflow, version_number, version_id, commit, digest, valid, message,
                                 author {name, email}, published_by, activated
    workflow.draft.updated       the same up to author, discarded; of a discarded one workflow, commit (null),
                                 discarded, message
    workflow.current.changed     workflow, version_number and version_id (null: nothing runs), previous, held,
                                 message, by
    workflow.version.diverged    what the divergence says
    subscription.disabled        subscription_id, url, reason, failing_since
    webhook.test                 subscription_id, message

`data` has project_id too, and workflow_id where there is one.
It says what happened and where to look; a definition is fetched from the API. `timestamp` is when it
happened. It has the same bytes on every attempt, since it is made from the event's row, which never changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sync.events import EventType

DISABLED: Final = "subscription.disabled"
TEST: Final = "webhook.test"
ABOUT_WORKFLOWS: Final = tuple(kind.value for kind in EventType)
"""What a subscription gets unless it says otherwise."""
SUBSCRIBABLE: Final = (*ABOUT_WORKFLOWS, DISABLED)


def body(
    kind: str, at: datetime, project_id: UUID, workflow_id: UUID | None, data: Mapping[str, Any]
) -> bytes:
    """The bytes to sign and to send, UTF-8."""
    about = {"project_id": str(project_id)}
    if workflow_id is not None:
        about["workflow_id"] = str(workflow_id)
    message = {"type": kind, "timestamp": timestamp(at), "data": {**about, **data}}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def timestamp(at: datetime) -> str:
    """RFC 3339, in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
