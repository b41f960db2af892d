"""How bodies are read: of who may, as large as the route takes them, and few of the large ones at once."""

import json
from asyncio import Semaphore
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from fastapi import Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Message

from dspy_optimization.agents.loading import MAX_AGENT_BYTES
from dspy_optimization.web.access import Require

ORDINARY_BYTES = 256 * 1024
"""How large a body may be where the route says nothing else."""
EXAMPLES_BYTES = 32 * 1024 * 1024
LARGE_BYTES = 1024 * 1024
"""Larger bodies take turns, and are parsed in a thread."""
LARGE_AT_ONCE = 2
"""Large bodies dealt with at once: parsed, one may take thirty times its size in memory."""

Value = TypeVar("Value")


class BodyTooLargeError(HTTPException):
    """A body is larger than the route takes. An `HTTPException`, for FastAPI takes others for bad JSON."""

    def __init__(self, most: int) -> None:
        possible = (
            "keep the dataset first and name its id, or fewer examples" if most == EXAMPLES_BYTES else "a shorter one"
        )
        super().__init__(413, f"wanted: a body of at most {most} bytes; found: a larger one; possible: {possible}")


@dataclass(frozen=True, slots=True)
class Most:
    """The dependency of a route whose body may be larger than usual. The class of the route looks for it."""

    body_bytes: int

    async def __call__(self) -> None:
        """Allow."""


TakesExamples = Depends(Most(EXAMPLES_BYTES))
TakesAgent = Depends(Most(2 * MAX_AGENT_BYTES))
"""An agent of the size that is accepted, with the white space and escapes of its JSON."""


class KeyFirst(APIRoute):
    """A route that reads its body only when it is known that who sends it may, and no more of it than it takes.

    FastAPI by itself reads and parses a body before it asks any dependency.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        required = next((one for one in _guards(self.dependant) if isinstance(one, Require)), None)
        most = next((one.body_bytes for one in _guards(self.dependant) if isinstance(one, Most)), ORDINARY_BYTES)

        async def admitted(request: Request) -> Response:
            if required is not None:
                await required(request)
            length = request.headers.get("content-length", "")
            if length.isdigit() and int(length) > most:
                raise BodyTooLargeError(most)
            async with AsyncExitStack() as turn:
                return await handle(_Bounded(request, most, turn))

        return admitted


class _Bounded(Request):
    """A request whose body is read up to a size, and in its turn when it is large."""

    def __init__(self, request: Request, most: int, turn: AsyncExitStack) -> None:
        receive, taken = request.receive, 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise BodyTooLargeError(most)
            return message

        super().__init__(request.scope, counted)
        self._turn = turn

    async def json(self) -> Any:
        """Return the body parsed. A large one waits for its turn, which ends with the turn's stack."""
        body = await self.body()
        if len(body) <= LARGE_BYTES:
            return json.loads(body)
        await self._turn.enter_async_context(cast("Semaphore", self.app.state.large_bodies))
        return await run_in_threadpool(_parsed, body)


def _parsed(body: bytes) -> Any:
    # The parser is one call that holds the interpreter to its end; a function of ours lets the event loop in between.
    return json.loads(body, object_hook=_same)


def _same(value: Value) -> Value:
    return value


def _guards(dependant: Dependant) -> Iterator[object]:
    for one in dependant.dependencies:
        yield one.call
        yield from _guards(one)
