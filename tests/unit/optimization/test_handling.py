"""What a worker does with an optimization, on the real database, with a queue that only remembers."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from optimization_house import AGENT, House, speller, words
from queue_on_paper import PaperQueue

from dspy_optimization.agents.objective import Objective
from dspy_optimization.errors import ModelError, StoreError
from dspy_optimization.evaluation.ledger import Charge, ChargeId, ChargeStatus, LedgerBatch, OptimizationId
from dspy_optimization.evaluation.model import CallKey, LanguageModel, ModelRequest, Role
from dspy_optimization.events import EventType
from dspy_optimization.jobs.job import Job, JobId
from dspy_optimization.jobs.worker import Interruption, Outcome
from dspy_optimization.optimization.handling import OptimizationHandler
from dspy_optimization.optimization.intake import Proposal
from dspy_optimization.optimization.optimizer import Optimizer
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, OptimizationStatus, Wish
from dspy_optimization.optimization.steering import Steering
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId
from dspy_optimization.testing.scripted_model import ScriptedModel

HouseOf = Callable[[LanguageModel], House]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A house with a queue before it and a handler behind."""

    house: House
    queue: PaperQueue
    steering: Steering
    handler: OptimizationHandler

    def submitted(self, **constraints: object) -> Job:
        proposal = Proposal(
            agent=AGENT,
            dataset=words(),
            objectives=(Objective(metric="exact"),),
            algorithms=(AlgorithmChoice(name="telling"),),
            constraints=replace(Constraints(concurrency=4), **constraints),
        )
        self.steering.submit(self.house.intake, self.house.intake.check(proposal))
        return self.queue.jobs[-1]

    def status(self, job: Job) -> OptimizationStatus:
        return self.house.stores.optimizations.get(OptimizationId(job.subject)).status

    def put(self, job: Job, /, **changes: object) -> None:
        self.house.stores.optimizations.update(OptimizationId(job.subject), lambda now: replace(now, **changes))

    def events(self, job: Job) -> list[EventType]:
        recorded = self.house.stores.events.events(OptimizationId(job.subject))
        return [one.event.type for one in recorded]

    def calls(self, job: Job) -> int:
        return self.house.stores.ledger.bill(OptimizationId(job.subject)).total.calls


def _shop(house: House) -> Shop:
    queue = PaperQueue()

    def optimizer(tenant: TenantId) -> Optimizer:
        assert LOCAL_TENANT == tenant
        return house.optimizer

    def now() -> datetime:
        return datetime.now(UTC)

    steering = Steering(
        tenant=LOCAL_TENANT, optimizations=house.stores.optimizations, queue=queue, now=now, new_id=uuid4
    )
    handler = OptimizationHandler(optimizer=optimizer, queue=queue, now=now)
    return Shop(house=house, queue=queue, steering=steering, handler=handler)


@pytest.fixture
def shop(good_house: House) -> Shop:
    return _shop(good_house)


def test_a_job_is_an_optimization_from_beginning_to_end(shop: Shop) -> None:
    """Done means completed; the same job once more does nothing and pays nothing."""
    job = shop.submitted()
    outcomes = [shop.handler.carry_out(job, Interruption())]
    calls = shop.calls(job)
    outcomes.append(shop.handler.carry_out(job, Interruption()))

    assert [Outcome.DONE, Outcome.DONE] == outcomes
    assert (OptimizationStatus.COMPLETED, calls) == (shop.status(job), shop.calls(job))
    assert 1 == shop.events(job).count(EventType.OPTIMIZATION_COMPLETED)


def test_a_job_that_another_took_the_place_of_does_nothing(shop: Shop) -> None:
    """Handed in anew after a pause: only the newest job carries it out."""
    old = shop.submitted()
    shop.put(old, job=JobId("newer"))

    assert Outcome.DONE is shop.handler.carry_out(old, Interruption())
    assert (OptimizationStatus.QUEUED, 0) == (shop.status(old), shop.calls(old))


def test_a_process_that_has_to_go_hands_on(shop: Shop) -> None:
    """It is queued again, in one transaction with its next job, and completed by whoever takes that."""
    job = shop.submitted()
    going = Interruption()
    going.set()
    outcome = shop.handler.carry_out(job, going)
    paused = shop.status(job)
    shop.handler.wait_again(job.again(0.0), outcome)
    queued = shop.status(job)
    done = shop.handler.carry_out(shop.queue.jobs[-1], Interruption())

    assert (Outcome.INTERRUPTED, OptimizationStatus.PAUSED) == (outcome, paused)
    assert (OptimizationStatus.QUEUED, 2) == (queued, len(shop.queue.jobs))
    assert (Outcome.DONE, OptimizationStatus.COMPLETED) == (done, shop.status(job))


def test_one_whose_process_died_between_pausing_and_queuing_goes_on(shop: Shop) -> None:
    """The same job is claimed again; nobody had asked for that pause."""
    job = shop.submitted()
    going = Interruption()
    going.set()
    shop.handler.carry_out(job, going)

    assert Outcome.DONE is shop.handler.carry_out(job, Interruption())
    assert OptimizationStatus.COMPLETED is shop.status(job)


def test_what_a_person_paused_stays_paused(shop: Shop) -> None:
    """However often its job is claimed again, until that person resumes it."""
    job = shop.submitted()
    shop.put(job, status=OptimizationStatus.RUNNING)
    shop.steering.pause(OptimizationId(job.subject))

    assert Outcome.DONE is shop.handler.carry_out(job, Interruption())
    assert OptimizationStatus.PAUSED is shop.status(job)
    shop.steering.resume(OptimizationId(job.subject))
    assert Outcome.DONE is shop.handler.carry_out(shop.queue.jobs[-1], Interruption())
    assert OptimizationStatus.COMPLETED is shop.status(job)


@pytest.mark.parametrize(
    ("wish", "status"),
    [(Wish.PAUSE, OptimizationStatus.PAUSED), (Wish.CANCEL, OptimizationStatus.CANCELLED)],
)
def test_a_wish_outlives_the_process_it_was_told_to(shop: Shop, wish: Wish, status: OptimizationStatus) -> None:
    """It died before it obeyed; the next one obeys instead of going on."""
    job = shop.submitted()
    shop.put(job, status=OptimizationStatus.RUNNING, wish=wish)

    assert Outcome.DONE is shop.handler.carry_out(job, Interruption())
    assert (status, 0) == (shop.status(job), shop.calls(job))


def test_a_pause_and_a_process_that_has_to_go_is_a_pause(house_of: HouseOf) -> None:
    """Both at once: what the person said counts, nothing is queued."""
    good, begun, go_on = speller(lambda _: 0.4), threading.Event(), threading.Event()

    def slow(request: ModelRequest) -> str:
        begun.set()
        go_on.wait(10.0)
        return good(request)

    shop = _shop(house_of(ScriptedModel(slow)))
    job, going, outcomes = shop.submitted(), Interruption(), list[Outcome]()
    thread = threading.Thread(target=lambda: outcomes.append(shop.handler.carry_out(job, going)))
    thread.start()
    assert begun.wait(30.0)
    asked = shop.steering.pause(OptimizationId(job.subject))
    going.set()
    go_on.set()
    thread.join(30.0)

    assert (False, [Outcome.DONE], OptimizationStatus.PAUSED) == (asked.is_done, outcomes, shop.status(job))


def test_what_somebody_else_holds_is_looked_at_again(shop: Shop) -> None:
    """Another living process works on it: no error, no second run."""
    job = shop.submitted()
    with shop.house.stores.optimizations.owning(OptimizationId(job.subject)):
        outcome = shop.handler.carry_out(job, Interruption())

    assert (Outcome.BUSY, OptimizationStatus.QUEUED, 0) == (outcome, shop.status(job), shop.calls(job))


def test_what_may_pass_is_tried_again_and_says_why_until_then(house_of: HouseOf) -> None:
    """It stands paused with its reason; the next attempt is queued with its delay, and a person may go on sooner."""
    away = [True]

    def answer(request: ModelRequest) -> str:
        if away[0]:
            raise ModelError("the server is away", retryable=True)
        return speller(lambda _: 0.4)(request)

    shop = _shop(house_of(ScriptedModel(answer)))
    job = shop.submitted()
    outcome = shop.handler.carry_out(job, Interruption())
    again = job.again(15.0)
    shop.handler.wait_again(again, outcome)
    found = shop.house.stores.optimizations.get(OptimizationId(job.subject))
    away[0] = False
    done = shop.handler.carry_out(again, Interruption())

    assert (Outcome.PASSING, OptimizationStatus.PAUSED, again.id) == (outcome, found.status, found.job)
    assert "the server is away" in (found.error or "")
    assert again == shop.queue.jobs[-1]
    assert (Outcome.DONE, OptimizationStatus.COMPLETED) == (done, shop.status(job))


def test_the_next_attempt_and_its_mark_are_written_together(shop: Shop) -> None:
    """When the queue refuses, the optimization still names the job it had."""
    job = shop.submitted()
    shop.queue.refuses = StoreError("away")
    with pytest.raises(StoreError):
        shop.handler.wait_again(job.again(0.0), Outcome.BUSY)

    assert job.id == shop.house.stores.optimizations.get(OptimizationId(job.subject)).job
    assert EventType.OPTIMIZATION_QUEUED not in shop.events(job)


def test_a_defect_fails_what_runs_and_nothing_else(shop: Shop) -> None:
    """It says what broke and can be resumed; what is paused or done keeps its state."""
    job = shop.submitted()
    shop.put(job, status=OptimizationStatus.RUNNING)
    shop.handler.give_up(job, "KeyError: 'x'")
    found = shop.house.stores.optimizations.get(OptimizationId(job.subject))
    shop.steering.resume(OptimizationId(job.subject))
    shop.handler.carry_out(shop.queue.jobs[-1], Interruption())
    shop.handler.give_up(job, "KeyError: 'x'")

    assert OptimizationStatus.FAILED is found.status
    assert "KeyError: 'x'" in (found.error or "")
    assert OptimizationStatus.COMPLETED is shop.status(job)


def test_the_deadline_ends_it_with_what_was_found(shop: Shop) -> None:
    """One that has passed while it waited ends it at once; one that is far away changes nothing."""
    late = shop.submitted(deadline=datetime.now(UTC) - timedelta(hours=1))
    early = shop.submitted(deadline=datetime.now(UTC) + timedelta(days=10_000))
    outcomes = [shop.handler.carry_out(job, Interruption()) for job in (late, early)]

    assert [Outcome.DONE, Outcome.DONE] == outcomes
    assert (OptimizationStatus.CANCELLED, OptimizationStatus.COMPLETED) == (shop.status(late), shop.status(early))


def test_the_bill_holds_what_a_process_taken_for_dead_paid_meanwhile(house_of: HouseOf) -> None:
    """It had stood still, woke, and sent one more call while its successor was at work."""
    good, woken = speller(lambda text: 0.8 if "LOUD" in text else 0.4), list[Job]()

    def answer(request: ModelRequest) -> str:
        if woken:
            job = woken.pop()
            late = Charge(
                id=ChargeId(uuid4()),
                optimization_id=OptimizationId(job.subject),
                key=CallKey("e" * 64),
                role=Role.TASK,
                label="telling",
                model="model@place",
                status=ChargeStatus.STARTED,
                reserved_usd=0.0,
                started_at=datetime.now(UTC),
            )
            shop.house.stores.ledger.commit(LedgerBatch(started=[late]))
        return good(request)

    shop = _shop(house_of(ScriptedModel(answer)))
    job = shop.submitted()
    woken.append(job)
    shop.handler.carry_out(job, Interruption())
    result = shop.house.stores.results.result(OptimizationId(job.subject))

    assert result is not None
    assert ([], shop.calls(job)) == (woken, result.bill.total.calls)
