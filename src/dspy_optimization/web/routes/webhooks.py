"""Webhooks: who is told of what, and what became of it."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request

from dspy_optimization.adapters.postgres.tables import DeliveryState
from dspy_optimization.adapters.postgres.webhook_store import DeliveryPlace, OutwardType, PostgresWebhooks
from dspy_optimization.adapters.webhooks import new_secret
from dspy_optimization.engine import Engine
from dspy_optimization.events import Json
from dspy_optimization.web.access import Reading, Running, serving_of
from dspy_optimization.web.answers import Page
from dspy_optimization.web.bodies import KeyFirst
from dspy_optimization.web.paging import cursor_of, page_of, place_of, unknown_cursor
from dspy_optimization.web.routes.parameters import Cursor, Limit, refusals
from dspy_optimization.web.webhook_schemas import (
    DeliveryOut,
    WebhookCreated,
    WebhookIn,
    WebhookOut,
    delivery_out,
    webhook_out,
)

router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"], route_class=KeyFirst)
WebhookId = Annotated[UUID, Path(description="The id of a webhook.")]


@router.post("", status_code=201, response_model=WebhookCreated, responses=refusals(409, 413))
def add(request: Request, engine: Running, body: WebhookIn) -> WebhookCreated:
    """Add a webhook. The answer shows its secret, once."""
    url = serving_of(request).egress.check(body.url)
    secret = new_secret()
    wanted = list(OutwardType) if body.events is None else list(dict.fromkeys(body.events))
    kept = _webhooks(request, engine).add(url, secret, wanted, body.description)
    return WebhookCreated(**webhook_out(kept).model_dump(), secret=secret)


@router.get("", response_model=Page[WebhookOut], responses=refusals())
def webhooks(request: Request, engine: Reading, limit: Limit = 50, cursor: Cursor = None) -> Page[WebhookOut]:
    """List webhooks, the newest first; without their secrets."""
    return page_of([webhook_out(one) for one in _webhooks(request, engine).webhooks()], limit, cursor)


@router.delete("/{webhook_id}", status_code=204, responses=refusals(404))
def remove(request: Request, engine: Running, webhook_id: WebhookId) -> None:
    """Remove a webhook, its secret and its deliveries. What is being sent just now still arrives."""
    _webhooks(request, engine).remove(webhook_id)


@router.get("/{webhook_id}/deliveries", response_model=Page[DeliveryOut], responses=refusals(404))
def deliveries(
    request: Request,
    engine: Reading,
    webhook_id: WebhookId,
    state: DeliveryState | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[DeliveryOut]:
    """List what was sent to a webhook or waits for it, the newest first."""
    after = None if cursor is None else _place(place_of(cursor))
    found = _webhooks(request, engine).deliveries(webhook_id, state, after, limit + 1)
    shown = found[:limit]
    more = cursor_of([shown[-1].created_at.isoformat(), str(shown[-1].id)]) if len(found) > limit else None
    return Page(items=[delivery_out(one) for one in shown], next_cursor=more)


@router.post(
    "/deliveries/{delivery_id}/redeliver", status_code=202, response_model=DeliveryOut, responses=refusals(404, 409)
)
def redeliver(
    request: Request, engine: Running, delivery_id: Annotated[UUID, Path(description="The id of a delivery.")]
) -> DeliveryOut:
    """Send once more, whatever became of it; receivers know the message by its id."""
    return delivery_out(_webhooks(request, engine).redeliver(delivery_id))


def _webhooks(request: Request, engine: Engine) -> PostgresWebhooks:
    serving = serving_of(request)
    return PostgresWebhooks(serving.foundation.database, engine.steering.tenant, serving.sealing)


def _place(place: Json) -> DeliveryPlace:
    if not isinstance(place, list) or len(place) != 2 or not all(isinstance(one, str) for one in place):
        raise unknown_cursor()
    try:
        created_at, last = datetime.fromisoformat(str(place[0])), UUID(str(place[1]))
    except ValueError as error:
        raise unknown_cursor() from error
    if created_at.tzinfo is None:
        raise unknown_cursor()
    return DeliveryPlace(created_at=created_at, id=last)
