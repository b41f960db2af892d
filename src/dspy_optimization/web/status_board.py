"""Where optimizations stand, read for everybody who asks at the same moment by one query.

Nothing is remembered: whoever asks is answered by a reading that began afterwards. While one is under way those who ask
gather for the next, so the more ask, the more one query answers.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from starlette.concurrency import run_in_threadpool

from dspy_optimization.adapters.postgres.overview_store import Moment, unknown
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.tenancy import TenantId

MOST = 100
"""Optimizations one query reads."""

Read = Callable[[TenantId, Sequence[OptimizationId]], Mapping[OptimizationId, Moment]]


class StatusBoard:
    """Answers where optimizations stand. One a process, of one event loop."""

    def __init__(self, read: Read) -> None:
        """Ask `read`, in a thread, one reading a tenant at a time; ids it does not return do not exist."""
        self._read = read
        self._waiting: dict[TenantId, dict[OptimizationId, asyncio.Future[Moment]]] = {}
        self._readers: dict[TenantId, asyncio.Task[None]] = {}

    async def moment(self, tenant: TenantId, optimization_id: OptimizationId) -> Moment:
        """Return where one stands. Raises `NotFoundError`, and what reading raises."""
        waiting = self._waiting.setdefault(tenant, {})
        told = waiting.get(optimization_id)
        if told is None:
            told = waiting[optimization_id] = asyncio.get_running_loop().create_future()
            # Who asked may have gone away: then nobody looks at an error.
            told.add_done_callback(lambda future: future.cancelled() or future.exception())
        if tenant not in self._readers:
            self._readers[tenant] = asyncio.create_task(self._read_all(tenant))
        # Others may wait for the same answer: who goes away must not take it with him.
        return await asyncio.shield(told)

    async def _read_all(self, tenant: TenantId) -> None:
        waiting = self._waiting[tenant]
        try:
            while waiting:
                asked = {key: waiting.pop(key) for key in list(waiting)[:MOST]}
                reading = asyncio.ensure_future(run_in_threadpool(self._read, tenant, list(asked)))
                try:
                    await asyncio.wait([reading])
                except asyncio.CancelledError:
                    for told in (*asked.values(), *waiting.values()):
                        told.cancel()
                    raise
                error = reading.exception()
                found = {} if error is not None else reading.result()
                for key, told in asked.items():
                    if key in found:
                        told.set_result(found[key])
                    else:
                        told.set_exception(unknown(key) if error is None else error)
        finally:
            del self._readers[tenant], self._waiting[tenant]
