"""Whether the process can do its work, looked at once for everybody who asks within a moment.

Anybody may ask, and a look opens connections and asks the database: so there is one at a time, whoever asks meanwhile
waits for it, and what it found is told for a while.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool

from dspy_optimization.adapters.models import EMBEDDED
from dspy_optimization.errors import InfrastructureError
from dspy_optimization.serving import Serving

_OK = "ok"
_CONNECT_SECONDS = 1.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found of one thing that is needed."""

    told: str
    """`ok`, or what is the matter, for everybody."""
    place: str | None = None
    """The same for who may know hosts; None: there is no more to say."""

    @property
    def is_ok(self) -> bool:
        """Whether nothing is the matter."""
        return self.told == _OK

    def sentence(self, shows_hosts: bool) -> str:
        """Return what is said of it."""
        return self.place if shows_hosts and self.place is not None else self.told


Checks = Mapping[str, Check]


class Readiness:
    """Answers by the last look. One a process, of one event loop."""

    shared_seconds: ClassVar[float] = 2.0
    """How long what a look found is told."""

    def __init__(self, look: Callable[[], Checks], seconds: Callable[[], float] = time.monotonic) -> None:
        """Look with `look`, in a thread, one at a time."""
        self._look = look
        self._seconds = seconds
        self._found: Checks | None = None
        self._found_at = 0.0
        self._looking: asyncio.Task[Checks] | None = None

    async def checks(self) -> Checks:
        """Return what a look found that ended within `shared_seconds`, or ends now."""
        if self._looking is None:
            if self._found is not None and self._seconds() - self._found_at < self.shared_seconds:
                return self._found
            self._looking = asyncio.create_task(self._look_once())
            # Who asked may have gone away: then nobody looks at an error.
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Others may wait for the same look: who goes away must not take it with him.
        return await asyncio.shield(self._looking)

    async def _look_once(self) -> Checks:
        try:
            self._found = await run_in_threadpool(self._look)
            self._found_at = self._seconds()
            return self._found
        finally:
            self._looking = None


def look(serving: Serving) -> Checks:
    """Return what is found of all that is needed. Takes up to a second a model server."""
    return {
        "database": _database(serving),
        "migrations": _migrations(serving),
        "lease": _lease(serving),
        "queue": _queue(serving),
        "webhooks": _webhooks(serving),
        "models": _models(serving),
    }


def _database(serving: Serving) -> Check:
    try:
        with serving.foundation.database.shared():
            return Check(told=_OK)
    except InfrastructureError as error:
        return _away(error)


def _migrations(serving: Serving) -> Check:
    try:
        schema = serving.foundation.database.schema()
    except InfrastructureError as error:
        return _away(error)
    if schema.found == schema.newest:
        return Check(told=_OK)
    return Check(
        told=f"wanted: schema {schema.newest}, the newest this process knows; found: {schema.found or 'none'}; "
        "possible: start it again, which brings an older schema there, or start the newer engine that made a newer one"
    )


def _lease(serving: Serving) -> Check:
    return Check(told=_OK if serving.keeper.is_fresh else "the lease was not extended in time")


def _queue(serving: Serving) -> Check:
    if serving.jobs.is_draining:
        return Check(told="this process drains: it takes nothing new")
    try:
        serving.queue.claimed_by()
    except InfrastructureError as error:
        return _away(error)
    return Check(told=_OK)


def _webhooks(serving: Serving) -> Check:
    if serving.deliverer is None or serving.deliverer.is_whole:
        return Check(told=_OK)
    return Check(told="a thread that delivers to webhooks has ended: the log says why; start the process again")


def _away(error: InfrastructureError) -> Check:
    logger.warning("Not ready", extra={"action": "not_ready", "error": str(error)})
    return Check(told="the database is away, or refuses; the log says more", place=str(error))


def _models(serving: Serving) -> Check:
    """Say whether the servers of the models take connections; those of providers are not asked."""
    roles: dict[tuple[str, int], list[str]] = {}
    for role, spec in serving.settings.models.items():
        parts = urlsplit(spec.base_url or "")
        if spec.model != EMBEDDED and parts.hostname is not None:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            roles.setdefault((parts.hostname, port), []).append(role.value)
    silent = []
    for server, asking in roles.items():
        try:
            socket.create_connection(server, timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            silent.append(f"{' and '.join(asking)} ({error.strerror or error})")
    if not silent:
        return Check(told=_OK)
    return Check(told=f"the server takes no connection, of the model for {', for '.join(silent)}")
