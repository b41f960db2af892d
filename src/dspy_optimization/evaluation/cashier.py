"""Pays for one call: holds the worst case, writes the start, asks the model, books the end."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from dspy_optimization.errors import ModelError, StopSearch, StoreError
from dspy_optimization.evaluation.budget import Budget, Reservation
from dspy_optimization.evaluation.group_commit import GroupCommit
from dspy_optimization.evaluation.ledger import Charge, ChargeId, ChargeStatus, OptimizationId
from dspy_optimization.evaluation.model import CallKey, LanguageModel, ModelRequest, ModelResponse, Price, Role
from dspy_optimization.evaluation.need import worst_case
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.tally import Tally

_LOOK_SECONDS = 0.1
"""How often a call that waits for a slot looks whether it still should."""


def admit_all() -> None:
    """Let every call be paid that the budget can pay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One call with everything that is settled before it is made."""

    key: CallKey
    role: Role
    label: str
    model: LanguageModel
    request: ModelRequest
    stop: StopSignal
    admit: Callable[[], None] = admit_all
    """Raises what ends the work when this call may not be paid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cashier:
    """Pays for the calls of one optimization. Thread-safe."""

    optimization_id: OptimizationId
    budget: Budget
    writer: GroupCommit
    tally: Tally
    slots: threading.Semaphore
    """As many as calls may be in flight at once, over all roles."""
    now: Callable[[], datetime]
    new_id: Callable[[], UUID]

    def pay(self, question: Question) -> ModelResponse:
        """Return the model's answer, charged once. What happens otherwise is in the table of `evaluation.calls`.

        The end of the call is handed to the group commit without waiting.
        """
        question.admit()
        need = worst_case(question.request, question.model.price)
        charge = Charge(
            id=ChargeId(self.new_id()),
            optimization_id=self.optimization_id,
            key=question.key,
            role=question.role,
            label=question.label,
            model=question.model.identity,
            status=ChargeStatus.STARTED,
            reserved_usd=need.cost_usd,
            prompt_tokens=need.prompt_tokens,
            completion_tokens=need.completion_tokens,
            started_at=self.now(),
        )
        reservation = self.budget.reserve(need, question.stop)
        # until the model has answered or refused nobody can know what the call took: it counts as lost
        ended = replace(charge, status=ChargeStatus.LOST, cost_usd=need.cost_usd)
        answer: ModelResponse | None = None
        try:
            answer = self._ask(charge, question)
            ended = _settled(charge, answer, question.model.price)
        except (ModelError, StoreError, StopSearch):
            ended = _failed(charge)
            raise
        finally:
            self._end(replace(ended, settled_at=self.now()), reservation, answer)
        return answer

    def _ask(self, charge: Charge, question: Question) -> ModelResponse:
        self.writer.submit(started=[charge]).wait(question.stop)
        while not self.slots.acquire(timeout=_LOOK_SECONDS):
            question.stop.check()
        try:
            question.stop.check()
            return question.model.complete(question.request)
        finally:
            self.slots.release()

    def _end(self, charge: Charge, reservation: Reservation, answer: ModelResponse | None) -> None:
        # first: whatever fails below, what was paid is on its way to the ledger
        self.writer.submit(ended=[charge], answers={charge.key: answer} if answer is not None else {})
        self.tally.add(charge)
        if charge.status is ChargeStatus.FAILED:
            self.budget.release(reservation)
        else:
            tokens = charge.prompt_tokens + charge.completion_tokens
            self.budget.settle(reservation, cost_usd=charge.cost_usd, tokens=tokens)


def _failed(charge: Charge) -> Charge:
    return replace(charge, status=ChargeStatus.FAILED, cost_usd=0.0, prompt_tokens=0, completion_tokens=0)


def _settled(charge: Charge, answer: ModelResponse, price: Price | None) -> Charge:
    return replace(
        charge,
        status=ChargeStatus.SETTLED,
        cost_usd=cost_usd(answer, price),
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
    )


def cost_usd(answer: ModelResponse, price: Price | None) -> float:
    """Return what an answer costs: what it says itself, else its tokens at the price of the model asked, else 0."""
    if answer.cost_usd is not None:
        return answer.cost_usd
    return price.cost_usd(answer.prompt_tokens, answer.completion_tokens) if price is not None else 0.0
