"""Schedules: optimizations that recur."""

import re
from collections.abc import Mapping
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from dspy_optimization.adapters.postgres.overview_store import PostgresOverview
from dspy_optimization.adapters.postgres.schedule_store import Firing, PostgresSchedules
from dspy_optimization.agents.untrusted import checked_text
from dspy_optimization.bootstrap import new_id
from dspy_optimization.engine import Engine
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.optimization.cron import Cron
from dspy_optimization.optimization.schedule import Schedule, ScheduleId
from dspy_optimization.web import answers, views
from dspy_optimization.web.access import Reading, Running, check_priority, serving_of
from dspy_optimization.web.answers import Page
from dspy_optimization.web.bodies import KeyFirst, TakesExamples
from dspy_optimization.web.firing import fire
from dspy_optimization.web.handing_in import prepare
from dspy_optimization.web.paging import cursor_of, place_of, unknown_cursor
from dspy_optimization.web.routes.parameters import Cursor, Limit, refusals
from dspy_optimization.web.schedule_schemas import (
    ScheduleDetail,
    ScheduleIn,
    ScheduleOut,
    schedule_detail,
    schedule_out,
)
from dspy_optimization.web.schemas import OptimizeIn

router = APIRouter(prefix="/api/v1/schedules", tags=["schedules"], route_class=KeyFirst)
Id = Annotated[UUID, Path(description="The id of a schedule.")]
# Where a program goes from a schedule that was added.
LINKS = {
    name: {"operationId": f"schedules_{operation}", "parameters": {"schedule_id": "$response.body#/id"}}
    for name, operation in (
        ("schedule", "schedule"),
        ("pause", "pause"),
        ("resume", "resume"),
        ("fire", "fire_now"),
        ("remove", "remove"),
    )
}
_SHOWN_TIMES = 5
_FIELD = re.compile(r"[a-z_]+(?:[.\[][\w.\]]+)*: ")
"""How a sentence begins that is about a field."""


@router.post(
    "",
    status_code=201,
    dependencies=[TakesExamples],
    response_model=ScheduleDetail,
    responses={201: {"description": "It is due from now on", "links": LINKS}, **refusals(404, 409, 413, 507)},
)
def add(request: Request, response: Response, engine: Running, body: ScheduleIn) -> ScheduleDetail:
    """Add a schedule. Its request is checked now, as for /estimate, and again whenever it is due."""
    cron = Cron(expression=" ".join(body.cron.split()), timezone=body.timezone)
    checked_text(body.name, "name")
    check_priority(request, body.request.constraints.priority)
    _check(request, engine, body.request)
    now = engine.steering.now()
    schedule = Schedule(
        id=ScheduleId(new_id()),
        name=body.name,
        cron=cron.expression,
        timezone=cron.timezone,
        is_paused=False,
        next_due_at=cron.next(now),
        created_at=now,
        last_due_at=None,
        last_fired_at=None,
        last_optimization_id=None,
        last_optimization_status=None,
        last_error=None,
    )
    _schedules(request, engine).add(schedule, _plain(body.request))
    response.headers["Location"] = f"{router.prefix}/{schedule.id}"
    return _detail(request, engine, schedule)


@router.get("", response_model=Page[ScheduleOut], responses=refusals())
def schedules(request: Request, engine: Reading, limit: Limit = 50, cursor: Cursor = None) -> Page[ScheduleOut]:
    """List schedules, the newest first; without what they hand in."""
    found = _schedules(request, engine).page(None if cursor is None else _place(place_of(cursor)), limit + 1)
    shown = found[:limit]
    more = cursor_of(str(shown[-1].id)) if len(found) > limit else None
    return Page(items=[schedule_out(one) for one in shown], next_cursor=more)


@router.get("/{schedule_id}", response_model=ScheduleDetail, responses=refusals(404))
def schedule(request: Request, engine: Reading, schedule_id: Id) -> ScheduleDetail:
    """Show a schedule with what it hands in and when."""
    return _detail(request, engine, _schedules(request, engine).get(ScheduleId(schedule_id)))


@router.post("/{schedule_id}/pause", response_model=ScheduleOut, responses=refusals(404))
def pause(request: Request, engine: Running, schedule_id: Id) -> ScheduleOut:
    """Let it be due no more until it is resumed. Its last optimization goes on."""
    return schedule_out(_schedules(request, engine).pause(ScheduleId(schedule_id)))


@router.post("/{schedule_id}/resume", response_model=ScheduleOut, responses=refusals(404))
def resume(request: Request, engine: Running, schedule_id: Id) -> ScheduleOut:
    """Let it be due again; what it missed while it was paused is not made up for."""
    kept = _schedules(request, engine)
    found = kept.get(ScheduleId(schedule_id))
    if not found.is_paused and found.next_due_at is not None:
        return schedule_out(found)
    return schedule_out(kept.resume(found.id, found.times.next(engine.steering.now())))


@router.post(
    "/{schedule_id}/fire", status_code=202, response_model=answers.Accepted, responses=refusals(404, 409, 413, 507)
)
def fire_now(request: Request, response: Response, engine: Running, schedule_id: Id) -> answers.Accepted:
    """Hand it in now, paused or not. When it is due next does not change; while its last one has not ended: 409."""
    serving = serving_of(request)
    kept = _schedules(request, engine)
    found = kept.get(ScheduleId(schedule_id))
    check_priority(request, _priority(kept.request(found.id)))
    made = fire(serving, engine, Firing(schedule=found, at=engine.steering.now()))
    told = PostgresOverview(serving.foundation.database, engine.steering.tenant).moment(made.request.id).accepted
    answer = views.accepted(made, told)
    response.headers["Location"] = answer.links["self"]
    return answer


@router.delete("/{schedule_id}", status_code=204, responses=refusals(404))
def remove(request: Request, engine: Running, schedule_id: Id) -> None:
    """Remove a schedule. The optimizations it made stay."""
    _schedules(request, engine).remove(ScheduleId(schedule_id))


def _schedules(request: Request, engine: Engine) -> PostgresSchedules:
    return PostgresSchedules(serving_of(request).foundation.database, engine.steering.tenant)


def _detail(request: Request, engine: Engine, schedule: Schedule) -> ScheduleDetail:
    upcoming = schedule.times.upcoming(engine.steering.now(), _SHOWN_TIMES) if schedule.next_due_at is not None else []
    return schedule_detail(schedule, _schedules(request, engine).request(schedule.id), upcoming)


def _check(request: Request, engine: Engine, body: OptimizeIn) -> None:
    """Refuse what could not be handed in now, naming the field as it stands in a schedule."""
    if body.constraints.deadline is not None:
        raise InvalidRequestError(
            "request.constraints.deadline: wanted: none, for it is one moment and a schedule recurs; found: "
            f"{body.constraints.deadline.isoformat()}; possible: max_optimization_time"
        )
    try:
        prepare(serving_of(request), engine, body)
    except InvalidRequestError as error:
        sentence = str(error)
        where = (
            "request." if _FIELD.match(sentence) is not None and not sentence.startswith("wanted: ") else "request: "
        )
        raise type(error)(f"{where}{sentence}") from error


def _plain(body: OptimizeIn) -> dict[str, Json]:
    """Return what was given, and nothing that was not: what is left to the service stays so."""
    try:
        plain: dict[str, Json] = body.model_dump(mode="json", exclude_unset=True)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            "request: wanted: values nested a few levels deep; found: more than can be read; possible: flatter examples"
        ) from error
    return plain


def _priority(kept: Mapping[str, Json]) -> str:
    constraints = kept.get("constraints")
    return str(constraints.get("priority")) if isinstance(constraints, dict) else ""


def _place(place: Json) -> ScheduleId:
    try:
        return ScheduleId(UUID(place if isinstance(place, str) else ""))
    except ValueError as error:
        raise unknown_cursor() from error
