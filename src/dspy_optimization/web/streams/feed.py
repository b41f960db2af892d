"""The log of one optimization as it grows, read once for everybody who watches it."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile

from starlette.concurrency import run_in_threadpool

from dspy_optimization.errors import StoreError
from dspy_optimization.web.streams.messages import Message, Page, Source

KEPT = 500
"""The newest messages of a log that stay in memory while somebody watches it; older ones are read again."""
logger = logging.getLogger(__name__)


class Feed:
    """The log of one optimization as it grows."""

    def __init__(self, source: Source, poll_seconds: float) -> None:
        self.source = source
        self.watchers: set[asyncio.Event] = set()
        """Set when there is something new."""
        self._poll_seconds = poll_seconds
        self._woken = asyncio.Event()
        self._lock = asyncio.Lock()
        self._begun = 0
        self._completed = 0
        self._page: Page | None = None
        self._kept: deque[Message] = deque(maxlen=KEPT)
        self._floor = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def page(self) -> Page:
        """What was read last."""
        if self._page is None:
            raise RuntimeError("wanted: a feed that was read; found: a new one; possible: refresh it first")
        return self._page

    @property
    def floor(self) -> int:
        """The messages with a greater id are in memory."""
        return self._floor

    def since(self, cursor: int) -> Sequence[Message]:
        """Return the messages with a greater id, in order; the cursor is the floor or above."""
        return [*takewhile(lambda message: message.id > cursor, reversed(self._kept))][::-1]

    def check(self) -> None:
        """Raise what ended the reading, if anything did: `NotFoundError` when the optimization is gone."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def wake(self, event_id: int | None = None) -> None:
        """Read on soon; not when this event was read already."""
        if event_id is None or self._page is None or event_id > self._page.place.id:
            self._woken.set()

    def go_on(self) -> asyncio.Task[None]:
        """Keep reading until cancelled, in a task."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return self._task

    def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()

    async def refresh(self) -> None:
        """Return when everything is read that was written before the call."""
        begun_before = self._begun
        async with self._lock:
            if self._completed > begun_before:
                return  # a reading that began after this call has answered it meanwhile
            is_full = True
            while is_full:
                self._begun += 1
                # Nothing is taken over before the thread has answered: who is cancelled here loses nothing.
                page = await run_in_threadpool(self.source.read, None if self._page is None else self._page.place)
                self._take(page)
                self._completed = self._begun
                is_full = page.is_full

    def _take(self, page: Page) -> None:
        if self._page is not None and self._page.is_over and page.messages:
            # It went on, so the end that is kept is none; who still needs it reads it again.
            self._kept.clear()
            self._floor = self._page.place.id
        for message in page.messages:
            if len(self._kept) == KEPT:
                self._floor = self._kept[0].id
            self._kept.append(message)
        self._page = page
        if page.messages or page.is_over:
            self.tell()

    def tell(self) -> None:
        """Let everybody who watches look."""
        for watcher in self.watchers:
            watcher.set()

    async def _run(self) -> None:
        try:
            while True:
                await happens(self._woken, self._poll_seconds)
                self._woken.clear()
                try:
                    await self.refresh()
                except StoreError as error:
                    logger.warning(
                        "Event log is out of reach", extra={"action": "event_log_unreachable", "error": str(error)}
                    )
        finally:
            self.tell()


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Return True when it is set, False when it was not in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
        return True
    return False
