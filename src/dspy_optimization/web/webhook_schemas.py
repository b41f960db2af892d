"""What requests and answers about webhooks hold."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from dspy_optimization.adapters.postgres.tables import DeliveryState
from dspy_optimization.adapters.postgres.webhook_store import Delivery, OutwardType, Webhook
from dspy_optimization.web.answers import Answer
from dspy_optimization.web.schemas import Request


class WebhookIn(Request):
    """Where to be told, and of what."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2000)] = Field(
        description="https, on the public internet; other hosts and http only as the owner of the engine allows.",
        examples=["https://receiver.example.org/hooks/dspy"],
    )
    events: list[OutwardType] | None = Field(
        default=None, min_length=1, max_length=50, description="All of them if not given."
    )
    description: Annotated[str, StringConstraints(max_length=500)] | None = None


class WebhookOut(Answer):
    """A webhook."""

    id: UUID
    url: str
    events: list[OutwardType]
    description: str | None
    created_at: datetime
    disabled_at: datetime | None = Field(description="Since when it gets nothing, because it answered with 410.")


class WebhookCreated(WebhookOut):
    """A webhook that was just added."""

    secret: str = Field(description="Signs every message (Standard Webhooks). Shown here and never again.")


class DeliveryOut(Answer):
    """One event on its way to one webhook."""

    id: UUID
    webhook_id: UUID
    event: str
    optimization_id: UUID
    message_id: str = Field(description="The webhook-id of every attempt.")
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None = Field(description="Null unless it waits.")
    last_error: str | None
    last_status: int | None
    created_at: datetime
    delivered_at: datetime | None


def webhook_out(one: Webhook) -> WebhookOut:
    """Return the answer."""
    return WebhookOut(
        id=one.id,
        url=one.url,
        events=list(one.events),
        description=one.description,
        created_at=one.created_at,
        disabled_at=one.disabled_at,
    )


def delivery_out(one: Delivery) -> DeliveryOut:
    """Return the answer."""
    return DeliveryOut(
        id=one.id,
        webhook_id=one.webhook_id,
        event=one.event_type,
        optimization_id=one.optimization_id,
        message_id=one.message_id,
        state=one.state,
        attempts=one.attempts,
        next_attempt_at=one.next_attempt_at if one.state is DeliveryState.WAITING else None,
        last_error=one.last_error,
        last_status=one.last_status,
        created_at=one.created_at,
        delivered_at=one.delivered_at,
    )
