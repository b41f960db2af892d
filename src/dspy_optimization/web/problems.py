"""Errors as `application/problem+json` (RFC 9457): the one table from what went wrong to a status."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException

from dspy_optimization.errors import (
    CapacityError,
    ConflictError,
    EngineError,
    ExpiredError,
    InfrastructureError,
    InvalidRequestError,
    NoGpuError,
    NotFoundError,
    QueueFullError,
    StoreError,
)
from dspy_optimization.events import Json
from dspy_optimization.web.schemas import ConstraintsIn

MEDIA_TYPE = "application/problem+json"
QUEUE_FULL = "/problems/queue-full"
"""The `type` that tells a full queue from a service that is not there: both are 503."""
_HIDDEN = (
    "wanted: the database; found: it is away, or refuses; possible: try again in a moment, or ask who operates the "
    "service: its log says more"
)
_FIELD = re.compile(r"(?P<path>[A-Za-z_][\w-]*(?:\[\d+\]|\.[A-Za-z_][\w-]*)*)(?: \([^()]*\))?: ")
_NO_FIELDS = frozenset({"wanted", "found", "possible", "body"})
logger = logging.getLogger(__name__)

# The first class that fits; the order is from the special to the general.
STATUSES: Sequence[tuple[type[EngineError], int]] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (ExpiredError, 410),
    (InvalidRequestError, 422),
    (QueueFullError, 503),
    (NoGpuError, 507),
    (CapacityError, 503),
    (InfrastructureError, 503),
)
TITLES: Mapping[int, str] = {
    400: "The request cannot be read",
    401: "A key is needed",
    403: "The key does not allow this",
    404: "There is no such thing",
    405: "The address does not take this method",
    409: "The state does not allow this",
    410: "It is not kept any longer",
    412: "It was changed meanwhile",
    413: "The request is too large",
    415: "The body is of a kind that is not read",
    421: "The service does not answer to this name",
    422: "The request cannot be carried out",
    500: "The engine has a defect",
    503: "Not now",
    507: "There is no GPU for it",
}


class AccessError(EngineError):
    """Send a key that is valid (401) or allows this (403)."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def status_of(error: EngineError) -> int:
    """Return the status of an error of the engine."""
    if isinstance(error, AccessError):
        return error.status
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def problem(
    status: int,
    detail: str,
    *,
    errors: Sequence[Mapping[str, Json]] = (),
    headers: Mapping[str, str] | None = None,
    kind: str = "about:blank",
) -> JSONResponse:
    """Return the answer.

    Args:
        status: of HTTP.
        detail: what was wanted, what was found, what is possible.
        errors: of each wrong field where it is and what is wrong.
        headers: to send.
        kind: tells problems of one status apart for programs.
    """
    title = TITLES.get(status, "It did not work")
    body: dict[str, Json] = {"type": kind, "title": title, "status": status, "detail": detail}
    if errors:
        body["errors"] = [dict(one) for one in errors]
    return JSONResponse(body, status_code=status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI, sees_addresses: Callable[[Request], bool]) -> None:
    """Let every error of this app become a problem.

    Args:
        app: whose errors.
        sees_addresses: whether who asks may read where the database is.
    """

    def of_engine(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, EngineError):
            raise error
        return _of_engine(request, error, sees_addresses)

    app.add_exception_handler(EngineError, of_engine)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_defect)


def field_error(sentence: str) -> Mapping[str, Json] | None:
    """Return which field a sentence is about, and what it says of it; None when it does not begin with one.

    `objectives[0].metric: …` is of the field `objectives.0.metric`, as the checks of a body's form name it; a bare name
    of a constraint is that constraint.
    """
    found = _FIELD.match(sentence)
    if found is None or found["path"] in _NO_FIELDS:
        return None
    path = found["path"].replace("[", ".").replace("]", "")
    where = f"constraints.{path}" if path in ConstraintsIn.model_fields else path
    return {"field": where, "message": sentence[found.end() :]}


def _of_engine(request: Request, error: EngineError, sees_addresses: Callable[[Request], bool]) -> JSONResponse:
    status, detail = status_of(error), str(error)
    headers: dict[str, str] = {}
    if status == 503:
        seconds = error.retry_after_seconds if isinstance(error, QueueFullError) else 5.0
        headers["Retry-After"] = str(max(round(seconds), 1))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, StoreError) and not sees_addresses(request):
        logger.warning(
            "Database does not serve a request",
            extra={"action": "request_without_store", "error": detail, "path": request.url.path},
        )
        detail = _HIDDEN
    one = field_error(detail) if status == 422 else None
    kind = QUEUE_FULL if isinstance(error, QueueFullError) else "about:blank"
    return problem(status, detail, errors=() if one is None else [one], headers=headers, kind=kind)


def _of_validation(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    errors: list[Mapping[str, Json]] = [
        {"field": ".".join(str(part) for part in one["loc"] if part != "body"), "message": str(one["msg"])}
        for one in error.errors()
    ]
    unreadable = any(one["type"] == "json_invalid" for one in error.errors())
    first = errors[0] if errors else {"field": "", "message": ""}
    return problem(
        400 if unreadable else 422,
        f"{first['field'] or 'body'}: {first['message']}; the list of errors says what else is wrong",
        errors=errors,
    )


def _of_http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    path, method = request.url.path, request.method
    match error.status_code:
        case 404:
            detail = f"wanted: {path}; found: no such address; possible: the ones that /openapi.json lists"
            return problem(404, detail, headers=error.headers)
        case 405:
            allowed = ", ".join(_methods(request))
            detail = f"wanted: {method} {path}; found: the address takes no {method}; possible: {allowed}"
            return problem(405, detail, headers={"Allow": allowed})
        case _:
            return problem(error.status_code, str(error.detail), headers=error.headers)


def _methods(request: Request) -> list[str]:
    """Return every method of the address: a route of FastAPI knows only its own."""
    path = request.url.path
    fitting = [one for one in iter_route_contexts(request.app.routes) if one.path_regex.match(path) is not None]
    exact = [one for one in fitting if one.path == path]
    return sorted({method for one in exact or fitting for method in one.methods or ()})


def _of_defect(request: Request, error: Exception) -> JSONResponse:
    logger.error("Request failed", exc_info=error, extra={"action": "request_failed", "path": request.url.path})
    return problem(500, "wanted: an answer; found: a defect of the engine, which its log shows; possible: try again")
