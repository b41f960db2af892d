"""Follows one optimization through its events, whoever carries it out."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from dspy_optimization.agents.example import Split
from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.ledger import Bill, OptimizationId
from dspy_optimization.events import RecordedEvent
from dspy_optimization.optimization.standing import Standing, View
from dspy_optimization.optimization.store import Stores

LOOK_SECONDS = 0.25
"""Between two looks at the database."""
BILL_SECONDS = 1.0
"""Between two sums over the charges, of which there may be many."""


class Display(Protocol):
    """Shows a person or a program what happens."""

    def tell(self, event: RecordedEvent) -> None:
        """Show one event; called once for each, in order."""
        ...

    def show(self, view: View) -> None:
        """Show where things stand; called several times a second."""
        ...

    def note(self, text: str) -> None:
        """Say something beside the events."""
        ...

    def end(self) -> None:
        """Leave the terminal as it was found; called once, also when something failed."""
        ...


class Follower:
    """Reads new events and shows them."""

    def __init__(
        self, stores: Stores, optimization_id: OptimizationId, display: Display, now: Callable[[], datetime]
    ) -> None:
        """Read what does not change. Raises `NotFoundError` when there is no such optimization."""
        optimization = stores.optimizations.get(optimization_id)
        dataset = stores.datasets.get(optimization.request.dataset)
        self._stores = stores
        self._id = optimization_id
        self._display = display
        self._now = now
        self._seen = 0
        self._standing = Standing(n_val=len(dataset[Split.VAL]), n_test=len(dataset[Split.TEST]))
        self._agent = optimization.request.target.id
        self._bill = Bill()
        self._billed_at: datetime | None = None

    def skip(self) -> None:
        """Take in what happened before without telling it event by event."""
        for recorded in self._stores.events.events(self._id):
            self._take(recorded)

    def look(self) -> View | None:
        """Show what is new; None when the database cannot be asked just now."""
        try:
            optimization = self._stores.optimizations.get(self._id)
            news = self._stores.events.events(self._id, self._seen)
            bill = self._summed()
        except StoreError:
            return None
        for recorded in news:
            self._take(recorded)
            self._display.tell(recorded)
        view = View(
            optimization=optimization,
            agent=self._agent,
            standing=self._standing,
            bill=bill,
            now=self._now(),
        )
        self._display.show(view)
        return view

    def _summed(self) -> Bill:
        now = self._now()
        if self._billed_at is None or (now - self._billed_at).total_seconds() >= BILL_SECONDS:
            self._bill, self._billed_at = self._stores.ledger.bill(self._id), now
        return self._bill

    def _take(self, recorded: RecordedEvent) -> None:
        self._seen = recorded.id
        self._standing = self._standing.after(recorded.event)
