"""Input and output of the API for outgoing webhooks, as pydantic models: subscriptions and deliveries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from service.api.inputs import Body, PageQuery, Parameters
from service.api.schemas import Answer
from webhooks import delivery_log, subscriptions
from webhooks.addresses import LONGEST_URL
from webhooks.payload import ABOUT_WORKFLOWS, SUBSCRIBABLE

LONGEST_OVERLAP: Final = 168  # hours


def _types(value: list[str]) -> list[str]:
    unknown = [kind for kind in value if kind not in SUBSCRIBABLE]
    if unknown or not value:
        raise ValueError(f"events are some of {', '.join(SUBSCRIBABLE)}")
    return list(dict.fromkeys(value))


Url = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)]
Events = Annotated[
    list[str],
    AfterValidator(_types),
    WithJsonSchema({"type": "array", "minItems": 1, "items": {"type": "string", "enum": list(SUBSCRIBABLE)}}),
]

# Bodies


class CreateSubscription(Body):
    """Without `events`: all that are about workflows."""

    url: Url = Field(description="http or https; a public address", examples=["https://example.com/hooks"])
    events: Events | None = None


class ChangeSubscription(Body):
    """What is absent stays."""

    url: Url | None = None
    events: Events | None = None
    state: Literal["active", "paused"] | None = Field(
        None,
        description="while `paused`, deliveries are held; `active` sends them; it enables a disabled one",
    )


class RotateSecret(Body):
    overlap_hours: Annotated[int, Field(ge=0, le=LONGEST_OVERLAP)] | None = Field(
        24, description="how long the secrets of before sign too"
    )


# Parameters


class SubscriptionPath(Parameters):
    id: str = Field(json_schema_extra={"format": "uuid"})


class DeliveryPath(Parameters):
    id: str = Field(json_schema_extra={"format": "uuid"})


class DeliveriesQuery(PageQuery):
    subscription: UUID | None = Field(None, description="the id of the subscription that they are for")
    state: delivery_log.State | None = None


# Answers


class Subscription(Answer):
    id: UUID
    url: str
    events: list[str]
    state: Literal["active", "paused", "disabled"]
    reason: str | None = Field(description="why it is disabled")
    failing_since: datetime | None = Field(description="null where the last attempt succeeded")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: subscriptions.Subscription, **more: Any) -> Subscription:
        return cls.model_construct(
            id=row.id,
            url=row.url,
            events=row.events,
            state=row.state,
            reason=row.reason,
            failing_since=_utc(row.failing_since),
            created_at=_utc(row.created_at),
            updated_at=_utc(row.updated_at),
            **more,
        )


class NewSubscription(Subscription):
    secret: str = Field(description="of Standard Webhooks (`whsec_…`): shown this once")


class SubscriptionList(Answer):
    subscriptions: list[Subscription]


class NewSecret(Answer):
    secret: str = Field(description="of Standard Webhooks (`whsec_…`): shown this once")


class Delivery(Answer):
    id: UUID
    subscription_id: UUID
    webhook_id: UUID = Field(description="the event's id: the same on every attempt, and in `webhook-id`")
    type: str = Field(examples=list(ABOUT_WORKFLOWS[:1]))
    state: delivery_log.State = Field(
        description="`poison`: the process that sent it ended three times in a row; it is not tried again "
        "until it is redelivered"
    )
    attempts: int
    last_status: int | None
    last_error: str | None
    next_attempt_at: datetime | None = Field(
        description="null where it has ended, or its subscription is paused"
    )
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, row: delivery_log.Delivery, **more: Any) -> Delivery:
        return cls.model_construct(
            id=row.id,
            subscription_id=row.subscription_id,
            webhook_id=row.event_id,
            type=row.type,
            state=row.state,
            attempts=more.pop("attempts", row.attempts),
            last_status=row.last_status,
            last_error=row.last_error,
            next_attempt_at=_utc(row.due_at),
            created_at=_utc(row.created_at),
            ended_at=_utc(row.ended_at),
            **more,
        )


class DeliveryPage(Answer):
    deliveries: list[Delivery]
    next_cursor: str | None


class Attempt(Answer):
    number: int
    url: str
    started_at: datetime
    duration_ms: int
    status: int | None = Field(description="null: there was no answer")
    error: str | None = Field(description="null: it succeeded")
    response: str | None = Field(description="the first 16 KiB of the answer's body")

    @classmethod
    def of(cls, row: delivery_log.Attempt) -> Attempt:
        return cls.model_construct(
            number=row.number,
            url=row.url,
            started_at=_utc(row.started_at),
            duration_ms=row.duration_ms,
            status=row.status,
            error=row.error,
            response=row.response,
        )


class FullDelivery(Delivery):
    history: list[Attempt] = Field(description="every attempt, the oldest first")


def _utc(moment: datetime | None) -> Any:
    return moment.astimezone(UTC) if moment else None


BODIES: Final = (ChangeSubscription, CreateSubscription, RotateSecret)
ANSWERS: Final = (
    DeliveryPage,
    Delivery,
    FullDelivery,
    NewSecret,
    NewSubscription,
    Subscription,
    SubscriptionList,
)
