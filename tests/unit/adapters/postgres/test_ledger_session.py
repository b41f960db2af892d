"""The ledger session on a real database, and a process that is killed on it."""

import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from dspy_optimization.adapters.postgres import Database, PostgresLedger
from dspy_optimization.evaluation.calls import LedgerSession
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Price, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.tenancy import TenantId
from dspy_optimization.testing.scripted_agent import said
from dspy_optimization.testing.scripted_model import ScriptedModel, chat_request

PRICE = Price(prompt_usd=1.0, completion_usd=4.0)
QUESTIONS = 60
THREADS = 4

CHILD = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID
from dspy_optimization.adapters.postgres import Database, PostgresLedger
from dspy_optimization.evaluation.calls import LedgerSession
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Price, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.tenancy import LOCAL_TENANT
from dspy_optimization.testing.scripted_model import ScriptedModel, chat_request

url, optimization, questions, threads = sys.argv[1], UUID(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

def answer(request):
    sys.stdout.write("sent\\n")
    sys.stdout.flush()
    return f"from the child at {time.time_ns()}"

model = ScriptedModel(answer, price=Price(prompt_usd=1.0, completion_usd=4.0), latency_seconds=0.03)
with Database.open(url) as database:
    session = LedgerSession.open(
        PostgresLedger(database, LOCAL_TENANT), optimization, models={Role.TASK: model}, limits=Limits(),
        now=lambda: datetime.now(UTC), warn=print,
    )
    scope = session.scope("gepa", StopSignal())
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda number: scope.call(Role.TASK, chat_request(str(number))), range(questions)))
    print("done", flush=True)
    time.sleep(60)
"""


def session_of(ledger: PostgresLedger, optimization_id: OptimizationId, model: ScriptedModel) -> LedgerSession:
    return LedgerSession.open(
        ledger,
        optimization_id,
        models={Role.TASK: model},
        limits=Limits(max_cost_usd=100.0),
        now=lambda: datetime.now(UTC),
        warn=lambda _: None,
    )


def ask_all(session: LedgerSession) -> list[str]:
    scope = session.scope("gepa", StopSignal())
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda number: said(scope.call(Role.TASK, chat_request(str(number)))), range(QUESTIONS)))


def test_the_bill_in_memory_is_the_bill_in_the_database(
    database: Database, tenant: TenantId, optimization_id: OptimizationId
) -> None:
    """And a second session answers everything from the database and pays nothing."""
    ledger, model = PostgresLedger(database, tenant), ScriptedModel(price=PRICE)
    with session_of(ledger, optimization_id, model) as session:
        first = ask_all(session)
        session.flush()
        bill, stored = session.bill(), ledger.bill(optimization_id)

        assert bill.total.calls == QUESTIONS == stored.total.calls
        assert bill.total.tokens == stored.total.tokens
        assert bill.total.cost_usd == pytest.approx(stored.total.cost_usd)
    with session_of(ledger, optimization_id, model) as session:
        assert ask_all(session) == first
        assert (session.paid_calls, session.bill().answered_from_ledger) == (QUESTIONS, QUESTIONS)
    assert len(model.requests) == QUESTIONS


@pytest.mark.crash
def test_a_killed_process_pays_again_only_what_was_in_flight(
    database: Database,
    database_url: str,
    tenant: TenantId,
    optimization_in: Callable[..., OptimizationId],
) -> None:
    """kill -9 in the middle: known answers stay as they were, and the bill counts the lost calls."""
    optimization_id = optimization_in()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, database_url, str(optimization_id), str(QUESTIONS), str(THREADS)],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        sent = [child.stdout.readline() for _ in range(20)]
        child.send_signal(signal.SIGKILL)
        sent += child.stdout.readlines()
    assert set(sent) == {"sent\n"}
    ledger, model = PostgresLedger(database, tenant), ScriptedModel(lambda _: "from the parent", price=PRICE)
    with session_of(ledger, optimization_id, model) as session:
        lost = session.bill().total.lost_calls
        answers = ask_all(session)
        total = session.bill().total
        session.flush()
        assert ledger.bill(optimization_id).total.calls == total.calls
    kept = [answer for answer in answers if answer.startswith("from the child")]

    assert lost <= THREADS
    assert 20 - THREADS <= len(kept) <= len(sent)
    assert len(model.requests) == QUESTIONS - len(kept)
    assert total.calls == QUESTIONS + lost
    assert total.lost_calls == lost
    assert len(sent) + len(model.requests) <= QUESTIONS + lost
