"""One thread that works for many: it takes whatever gathered while it worked on the last."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Gatherer(Generic[Item]):
    """Hands items of all threads to `work`, in their order, as many at once as there are. Never waits for more."""

    def __init__(self, name: str, work: Callable[[list[Item]], None], abandon: Callable[[list[Item]], None]) -> None:
        """Start the thread.

        Args:
            name: of the thread.
            work: gets at least one item; takes care of them even when it raises, which ends the thread.
            abandon: gets the items that were waiting when `work` broke.
        """
        self._work = work
        self._abandon = abandon
        self._wake = threading.Condition()
        self._waiting: list[Item] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def hand_over(self, item: Item) -> bool:
        """Say whether the item will be worked on; False once the gatherer is closed or broken."""
        with self._wake:
            if self._closed:
                return False
            self._waiting.append(item)
            self._wake.notify()
            return True

    def close(self) -> None:
        """Work on what is left and end the thread; a second call does nothing."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while items := self._take():
                self._work(items)
        finally:
            with self._wake:
                self._closed = True
                left, self._waiting = self._waiting, []
            self._abandon(left)

    def _take(self) -> list[Item]:
        """Return all that gathered, at least one; nothing when it is time to end."""
        with self._wake:
            while not self._waiting and not self._closed:
                self._wake.wait()
            items, self._waiting = self._waiting, []
            return items
