"""Names looked up in a time that who asks says.

The system's lookup takes as long as the servers of a name let it, and cannot be ended: it goes on in a thread of its
own when nobody waits for it any more.
"""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeAlias

Resolver: TypeAlias = Callable[[str, int], Sequence[str]]
"""Host and port → the addresses it has. Raises `OSError` when it has none."""

MOST_LOOKUPS = 32
"""So many go on at once, those that nobody waits for included."""


def system_resolver(host: str, port: int) -> Sequence[str]:
    """Return what the system says; numbers in any form that it reads as addresses too."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"no name: {error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Lookups:
    """Looks names up; at most `MOST_LOOKUPS` at once. Thread-safe."""

    def __init__(self, resolve: Resolver) -> None:
        self._resolve = resolve
        self._free = threading.BoundedSemaphore(MOST_LOOKUPS)

    def look(self, host: str, port: int, seconds: float) -> Sequence[str]:
        """Return the addresses. Raises `TimeoutError` after so long, else what the resolver raises."""
        end = time.monotonic() + seconds
        if not self._free.acquire(timeout=seconds):
            raise TimeoutError(f"wanted: a lookup of {host}; found: {MOST_LOOKUPS} others under way")
        found: Future[Sequence[str]] = Future()
        # A daemon: a process that ends does not wait for it.
        looking = threading.Thread(target=self._answer, args=(host, port, found), name="lookup", daemon=True)
        try:
            looking.start()
        except BaseException:
            self._free.release()
            raise
        return found.result(max(end - time.monotonic(), 0.0))

    def _answer(self, host: str, port: int, found: "Future[Sequence[str]]") -> None:
        try:
            found.set_result(self._resolve(host, port))
        except Exception as error:  # noqa: BLE001 - raised where the name was asked for
            found.set_exception(error)
        finally:
            self._free.release()
