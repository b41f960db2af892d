"""Running coroutines in tests without leaving event loops behind."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def run(work: "Coroutine[Any, Any, Answer]") -> Answer:
    """Return what the coroutine returns.

    DSPy and LiteLLM ask for the thread's event loop, which makes one; `asyncio.run` would replace it unclosed.
    """
    with suppress(RuntimeError):
        asyncio.get_event_loop_policy().get_event_loop().close()
    return asyncio.run(work)
