"""The web application: what it opens, what it refuses before any route, which routes there are."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from threading import BoundedSemaphore
from types import FrameType

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from dspy_optimization.adapters.postgres.overview_store import PostgresOverview
from dspy_optimization.serving import ServiceRole, Serving, open_serving
from dspy_optimization.settings import Settings
from dspy_optimization.web import problems
from dspy_optimization.web.access import operates
from dspy_optimization.web.bodies import LARGE_AT_ONCE
from dspy_optimization.web.dashboard import pages
from dspy_optimization.web.doors import Doors
from dspy_optimization.web.firing import Firer
from dspy_optimization.web.readiness import Readiness, look
from dspy_optimization.web.routes import (
    agents,
    catalog,
    custom_algorithms,
    datasets,
    evidence,
    experiments,
    optimizations,
    schedules,
    system,
    traffic,
    webhooks,
)
from dspy_optimization.web.status_board import StatusBoard
from dspy_optimization.web.streams import routes as streams
from dspy_optimization.web.streams.hub import EventHub

DESCRIPTION = """Makes LLM agents measurably better, and proves it on data nobody optimized on.

Errors are `application/problem+json`. Where keys are required, send `Authorization: Bearer <key>`.
"""
_MODEL_TESTS = 4
"""Models asked on request at once: such a call may take minutes, and other requests need the threads."""
ROUTERS = (
    optimizations.router,
    evidence.router,
    agents.router,
    datasets.router,
    catalog.router,
    custom_algorithms.router,
    webhooks.router,
    schedules.router,
    experiments.router,
    traffic.router,
    streams.router,
    pages.router,
)


@contextmanager
def _heeding_signals(serving: Serving, hub: EventHub) -> Iterator[None]:
    """End streams and interrupt jobs as soon as the process is told to go: servers wait for both before they end.

    The server's own handler is called too. Outside the main thread, where no signal can be heard, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def go(number: int, frame: FrameType | None) -> None:
        serving.jobs.interrupt()
        loop.call_soon_threadsafe(hub.close_streams)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in before:
        signal.signal(number, go)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _operation(route: APIRoute) -> str:
    """Return the name of an operation in the documentation and for links."""
    return f"{route.tags[0]}_{route.name}" if route.tags else route.name


def _nothing() -> None:
    pass


def create_app(
    settings: Settings, role: ServiceRole = ServiceRole.ALL, *, started: Callable[[], None] = _nothing
) -> FastAPI:
    """Return the application; what it serves with is opened when it starts and closed when it ends.

    A worker has the routes that operators need and no others.

    Args:
        settings: what somebody set.
        role: which part of the service this process is.
        started: called once everything is open, before the first request.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opened = open_serving(settings, role)
        serving = await run_in_threadpool(opened.__enter__)
        try:
            app.state.serving = serving
            app.state.hub = EventHub(serving.foundation.url)
            database = serving.foundation.database
            app.state.board = StatusBoard(lambda tenant, ids: PostgresOverview(database, tenant).moments(ids))
            app.state.readiness = Readiness(lambda: look(serving))
            await app.state.hub.start()
            firer = Firer(serving)
            try:
                if role is not ServiceRole.WORKER:
                    firer.start()
                with _heeding_signals(serving, app.state.hub):
                    started()
                    yield
            finally:
                await run_in_threadpool(firer.stop)
                await app.state.hub.stop()
        finally:
            await run_in_threadpool(opened.__exit__, None, None, None)

    app = FastAPI(
        title="DSPy Optimization Engine",
        version=version("dspy-optimization"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation,
    )
    app.state.model_tests = BoundedSemaphore(_MODEL_TESTS)
    app.state.large_bodies = asyncio.Semaphore(LARGE_AT_ONCE)
    app.add_middleware(
        Doors,
        allowed_hosts=settings.service.allowed_hosts,
        this_machine_only=not settings.service.require_keys,
    )
    problems.install(app, operates)
    app.include_router(system.router)
    if role is not ServiceRole.WORKER:
        for router in ROUTERS:
            app.include_router(router)
    return app
