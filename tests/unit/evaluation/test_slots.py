"""How many calls one optimization has in flight."""

import threading
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from dspy_optimization.errors import CancelRequested
from dspy_optimization.evaluation.calls import LedgerSession
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.testing.memory_ledger import MemoryLedger
from dspy_optimization.testing.scripted_model import ScriptedModel, chat_request


def _session(model: ScriptedModel, max_in_flight: int) -> LedgerSession:
    return LedgerSession.open(
        MemoryLedger(),
        OptimizationId(uuid4()),
        models=dict.fromkeys(Role, model),
        limits=Limits(),
        now=lambda: datetime.now(UTC),
        warn=lambda warning: None,
        max_in_flight=max_in_flight,
    )


@pytest.mark.parametrize("slots", [1, 3])
def test_no_more_calls_than_slots_are_in_flight(slots: int) -> None:
    """Over all roles and threads together."""
    model = ScriptedModel(latency_seconds=0.01)
    with _session(model, slots) as session:
        calls = session.scope("search", StopSignal())
        asked = [(role, f"question {index}") for index in range(5) for role in Role]
        threads = [
            threading.Thread(target=calls.call, args=(role, chat_request(f"{role} {text}"))) for role, text in asked
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert slots == model.most_in_flight
    assert len(asked) == len(model.requests)


def test_who_waits_for_a_slot_can_be_stopped() -> None:
    """A cancel does not wait for the call that has the slot; what never was sent costs nothing."""
    release, asked = threading.Event(), threading.Event()

    def slow(request: object) -> str:
        asked.set()
        release.wait(10.0)
        return "done"

    with _session(ScriptedModel(slow), 1) as session:
        holder = threading.Thread(
            target=session.scope("first", StopSignal()).call, args=(Role.TASK, chat_request("first"))
        )
        holder.start()
        asked.wait(10.0)
        stop = StopSignal()
        threading.Timer(0.2, lambda: stop.stop(CancelRequested("enough"))).start()

        with pytest.raises(CancelRequested):
            session.scope("second", stop).call(Role.TASK, chat_request("second"))

        release.set()
        holder.join()
        spent = session.bill().total

    assert (1, 0) == (spent.calls, spent.lost_calls)
