"""The running bill of one process."""

import threading

from dspy_optimization.evaluation.ledger import Bill, Charge, ChargeStatus, Spend
from dspy_optimization.evaluation.model import Role


class Tally:
    """Adds charges to the bill earlier processes left. Thread-safe."""

    def __init__(self, bill: Bill) -> None:
        self._lock = threading.Lock()
        self._by_role: dict[Role, Spend] = dict(bill.by_role)
        self._by_label: dict[str, Spend] = dict(bill.by_label)
        self._answered_from_ledger = 0
        self._paid_calls = bill.total.calls

    @property
    def paid_calls(self) -> int:
        """Calls charged so far, lost ones included."""
        return self._paid_calls

    def count_answer(self) -> None:
        """Count a call that was not paid because its answer was known."""
        with self._lock:
            self._answered_from_ledger += 1

    def add(self, charge: Charge) -> None:
        """Add an ended charge; a failed one costs nothing and is no call."""
        if charge.status is ChargeStatus.FAILED:
            return
        spend = Spend(
            calls=1,
            lost_calls=int(charge.status is ChargeStatus.LOST),
            cost_usd=charge.cost_usd,
            prompt_tokens=charge.prompt_tokens,
            completion_tokens=charge.completion_tokens,
        )
        with self._lock:
            self._by_role[charge.role] = self._by_role.get(charge.role, Spend()) + spend
            self._by_label[charge.label] = self._by_label.get(charge.label, Spend()) + spend
            self._paid_calls += 1

    def bill(self) -> Bill:
        """Return the bill as it stands."""
        with self._lock:
            return Bill(
                by_role=dict(self._by_role),
                by_label=dict(self._by_label),
                answered_from_ledger=self._answered_from_ledger,
            )
