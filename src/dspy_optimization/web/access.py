"""Who asks, and whether they may. Every route says which permission it needs or that it is public."""

import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request, WebSocket
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from dspy_optimization.agents.untrusted import closest, shown
from dspy_optimization.engine import Engine
from dspy_optimization.errors import InvalidRequestError, StoreError
from dspy_optimization.jobs.job import Priority
from dspy_optimization.serving import Serving
from dspy_optimization.tenancy import LOCAL_PRINCIPAL, Permission, Principal
from dspy_optimization.web.problems import AccessError

Told = TypeVar("Told")

COOKIE = "dspy_opt_key"
"""Where a browser keeps the key it logged in with."""
_ADDRESS = re.compile(r"https?://[^\s,;()]*[^\s,;().:]")
_ADMITTED = "dspy_optimization.admitted"
"""Where a request keeps what let it in, in its scope, which is of one request alone whatever serves it."""


@dataclass(frozen=True, slots=True)
class Public:
    """The dependency of a route that anybody may call. The route guard looks for it."""

    async def __call__(self) -> None:
        """Allow. Asynchronous, so that it takes no thread."""


def serving_of(connection: HTTPConnection) -> Serving:
    """Return what this process serves with."""
    return cast("Serving", connection.app.state.serving)


def key_of(connection: HTTPConnection) -> str | None:
    """Return the key that came along: in the Authorization header, or in the browser's cookie."""
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value:
        return value.strip()
    return connection.cookies.get(COOKIE)


def identify(serving: Serving, key: str | None) -> Principal:
    """Return who holds the key. Raises `AccessError`."""
    if not serving.settings.service.require_keys:
        return LOCAL_PRINCIPAL
    if key is None:
        raise AccessError(
            "wanted: an API key; found: none; possible: the header Authorization: Bearer <key> "
            "(dspy-opt keys create makes one)",
            status=401,
        )
    found = serving.keys.principal(key)
    if found is None:
        raise unknown_key()
    return found


async def recognized(serving: Serving, key: str | None) -> Principal:
    """Return who holds the key, as `identify`; a thread is taken only where there is a key to look up."""
    if key is None or not serving.settings.service.require_keys:
        return identify(serving, key)
    return await run_in_threadpool(identify, serving, key)


def unknown_key() -> AccessError:
    """Return the error of a key that opens nothing."""
    return AccessError(
        "wanted: a valid API key; found: one that is unknown, revoked or expired; possible: dspy-opt keys create",
        status=401,
    )


def check(principal: Principal, permission: Permission) -> None:
    """Raise `AccessError` when this one may not."""
    if not principal.may(permission):
        raise AccessError(
            f"wanted: a key that allows to {permission.value}; found: the role {principal.role.value}; possible: a key "
            "of another role",
            status=403,
        )


@dataclass(frozen=True, slots=True)
class Require:
    """The dependency of a route: returns the engine of whoever asks, or refuses."""

    permission: Permission

    async def __call__(self, request: Request) -> Engine:
        """Return the engine of the tenant that asks; a request is let in once. Raises `AccessError`."""
        by, engine = request.scope.get(_ADMITTED, (None, None))
        if by == self:
            return cast("Engine", engine)
        serving = serving_of(request)
        principal = await recognized(serving, key_of(request))
        request.state.principal = principal
        check(principal, self.permission)
        _check_origin(request)
        _check_query(request)
        engine = serving.engine(principal.tenant)
        request.scope[_ADMITTED] = (self, engine)
        return engine


async def admit(socket: WebSocket, permission: Permission) -> Engine:
    """Return the engine of whoever opens a socket, before it is accepted. Raises `AccessError`."""
    serving = serving_of(socket)
    principal = await recognized(serving, key_of(socket))
    socket.state.principal = principal
    check(principal, permission)
    _check_origin(socket)
    return serving.engine(principal.tenant)


def principal_of(connection: HTTPConnection) -> Principal:
    """Return who asks, as the route's own dependency found out."""
    return cast("Principal", connection.state.principal)


def operates(connection: HTTPConnection) -> bool:
    """Say whether who asks may see what concerns the whole installation: hosts, processes, addresses.

    Asks nobody: where it is not known who asks, as on public routes and without the database, the answer is no.
    """
    if not serving_of(connection).settings.service.require_keys:
        return True
    principal: Principal | None = getattr(connection.state, "principal", None)
    return principal is not None and principal.may(Permission.ADMINISTER)


def check_priority(connection: HTTPConnection, priority: str) -> None:
    """Raise `AccessError` for the priority high of who may not operate: it goes before what others wait for."""
    if priority == Priority.HIGH and not operates(connection):
        raise AccessError(
            f"constraints.priority: wanted: a key that may administer, for {priority}; found: the role "
            f"{principal_of(connection).role.value}; possible: normal, low, or ask who operates the service",
            status=403,
        )


def without_addresses(text: str) -> str:
    """Return what may be told to who does not operate: the text with no address of a server in it."""
    return _ADDRESS.sub("…", text)


async def is_operator(connection: HTTPConnection) -> bool:
    """Say the same of who asks on a public route, where the key has to be looked up for it; without one, no."""
    if operates(connection):
        return True
    try:
        return (await recognized(serving_of(connection), key_of(connection))).may(Permission.ADMINISTER)
    except (AccessError, StoreError):
        return False


async def still_admitted(connection: HTTPConnection, permission: Permission) -> bool:
    """Say whether whoever opened a stream may go on: a revoked or expired key ends what it opened.

    One look-up by primary key. While the database is away nobody is turned out, for then nothing is told either.
    """
    serving = serving_of(connection)
    if not serving.settings.service.require_keys:
        return True
    try:
        return (await recognized(serving, key_of(connection))).may(permission)
    except AccessError:
        return False
    except StoreError:
        return True


async def while_admitted(
    connection: HTTPConnection,
    permission: Permission,
    messages: AsyncGenerator[Told],
    *,
    every_seconds: float = 30.0,
    seconds: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Told]:
    """Yield the messages of a stream while who opened it is still admitted.

    It is asked before a message (or the None of a silent while) that comes so long after the last time, so a stream
    with a heartbeat outlives its key by no more than both together. Raises `AccessError` (401) when the key has ended;
    the messages are closed in any case.
    """
    asked = seconds()
    async with aclosing(messages):
        async for message in messages:
            if seconds() - asked >= every_seconds:
                if not await still_admitted(connection, permission):
                    raise unknown_key()
                asked = seconds()
            yield message


def _check_query(request: Request) -> None:
    """Refuse parameters that the address does not have: a misspelt filter must not show everything."""
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute):
        return
    known = sorted(set(_query_names(route.dependant)))
    for name in request.query_params:
        if name not in known:
            raise InvalidRequestError(
                f"{shown(name)}: wanted: a parameter of this address; found: an unknown one{closest(name, known)}; "
                f"possible: {', '.join(known) or 'none'}"
            )


def _query_names(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        yield field.alias
    for one in dependant.dependencies:
        yield from _query_names(one)


def _check_origin(connection: HTTPConnection) -> None:
    """Refuse what another site's page makes a browser send; programs send no Origin."""
    if connection.scope["type"] == "http" and connection.scope["method"] in {"GET", "HEAD", "OPTIONS"}:
        return
    origin = connection.headers.get("origin")
    if origin is None or origin.partition("://")[2] == connection.headers.get("host"):
        return
    raise AccessError(
        f"wanted: a request from a page of this service; found: one from {origin}; possible: send it from the page, or "
        "from a program without the header Origin",
        status=403,
    )


Reading = Annotated[Engine, Depends(Require(Permission.READ))]
Running = Annotated[Engine, Depends(Require(Permission.RUN))]
Administering = Annotated[Engine, Depends(Require(Permission.ADMINISTER))]
Anybody = Depends(Public())
