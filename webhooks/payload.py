"""The JSON payload of deliveries, in the format of Standard Webhooks: {"type", "timestamp", "data"}.

    workflow.version.published   workflow, version_number, version_id, commit, digest, valid, message,
                                 author {name, email}, published_by, activated
    workflow.draft.updated       the same up to author, discarded; for a discarded draft workflow, commit
                                 (null), discarded, message
    workflow.current.changed     workflow, version_number and version_id (null: no current version), previous,
                                 held, message, by
    workflow.version.diverged    the fields of the divergence
    subscription.disabled        subscription_id, url, reason, failing_since
    webhook.test                 subscription_id, message

`data` also has project_id and, for an event of a workflow, workflow_id. A payload describes the event without
the definition, which subscribers fetch from the API. `timestamp` is the time of the event. Every attempt
sends the same bytes, since the payload is built from the event's row, which never changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from gitstore.system import rfc3339
from sync.events import EventType

DISABLED: Final = "subscription.disabled"
TEST: Final = "webhook.test"
ABOUT_WORKFLOWS: Final = tuple(kind.value for kind in EventType)
"""Event types of a subscription by default."""
SUBSCRIBABLE: Final = (*ABOUT_WORKFLOWS, DISABLED)


def body(
    kind: str, at: datetime, project_id: UUID, workflow_id: UUID | None, data: Mapping[str, Any]
) -> bytes:
    """Return the UTF-8 bytes to sign and send."""
    about = {"project_id": str(project_id)}
    if workflow_id is not None:
        about["workflow_id"] = str(workflow_id)
    message = {"type": kind, "timestamp": timestamp(at), "data": {**about, **data}}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def timestamp(at: datetime) -> str:
    """Return the time in RFC 3339 format, in UTC."""
    return rfc3339(at)
