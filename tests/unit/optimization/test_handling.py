"""What a worker does with an optimization, on the real database, with a queue that only remembers."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from optimization_house import AGENT, House, speller, words
from queue_on_paper import PaperQueue

from dspy_optimization.agents.objective import Objective
from dspy_optimization.errors import ModelError, PauseRequested, ProcessDiedError, StoreError
from dspy_optimization.evaluation.ledger import Charge, ChargeId, ChargeStatus, LedgerBatch, OptimizationId
from dspy_optimization.evaluation.model import CallKey, LanguageModel, ModelRequest, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import EventType
from dspy_optimization.jobs.job import Job, JobId
from dspy_optimization.jobs.worker import Interruption, Outcome
from dspy_optimization.optimization.handling import OptimizationHandler
from dspy_optimization.optimization.intake import Proposal
from dspy_optimization.optimization.optimizer import Optimizer
from dspy_optimization.optimization.request import (
    AlgorithmChoice,
    Constraints,
    Isolation,
    OptimizationStatus,
    Wish,
)
from dspy_optimization.optimization.steering import Steering
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId
from dspy_optimization.testing.scripted_model import ScriptedModel

HouseOf = Callable[[LanguageModel], House]


@dataclass(slots=True)
class Beside:
    """`IsolatedRuns` that need no process: each run goes as the next of `fates` says, or well."""

    optimizer: Optimizer
    fates: list[Callable[[OptimizationId, StopSignal], None]] = field(default_factory=list)
    runs: int = 0

    def run(self, tenant: TenantId, optimization_id: OptimizationId, stop: StopSignal) -> None:
        assert LOCAL_TENANT == tenant
        self.runs += 1
        if self.fates:
            self.fates.pop(0)(optimization_id, stop)
        else:
            self.optimizer.run(optimization_id, stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A house with a queue before it and a handler behind."""

    house: House
    queue: PaperQueue
    steering: Steering
    handler: OptimizationHandler
    beside: Beside

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
    beside = Beside(house.optimizer)
    handler = OptimizationHandler(optimizer=optimizer, isolated=beside, queue=queue, now=now)
    return Shop(house=house, queue=queue, steering=steering, handler=handler, beside=beside)


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


def test_a_defect_fails_nothing_that_another_process_works_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose lease ran out may find a defect after others were given the job."""
    monkeypatch.setattr("dspy_optimization.optimization.handling._LETTING_GO_SECONDS", 0.2)
    job = shop.submitted()
    shop.put(job, status=OptimizationStatus.RUNNING)
    with shop.house.stores.optimizations.owning(OptimizationId(job.subject)):
        shop.handler.give_up(job, "KeyError: 'x'")

    assert OptimizationStatus.RUNNING is shop.status(job)
    assert EventType.OPTIMIZATION_FAILED not in shop.events(job)


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


def _dying(shop: Shop, status: OptimizationStatus | None, *, may_pass: bool) -> Callable[..., None]:
    """Return how a run goes whose process dies with the optimization in this state; None: before it changed any."""

    def fate(optimization_id: OptimizationId, _stop: StopSignal) -> None:
        if status is not None:
            change: Callable[..., object] = lambda now: replace(now, status=OptimizationStatus.RUNNING)  # noqa: E731
            shop.house.stores.optimizations.update(optimization_id, change)  # type: ignore[arg-type]
            shop.house.stores.optimizations.update(optimization_id, lambda now: replace(now, status=status))
        raise ProcessDiedError("killed by signal 9", may_pass=may_pass)

    return fate


def test_whose_isolation_is_asked_for_runs_in_a_process(shop: Shop) -> None:
    """And no other; the store says what became of it."""
    thread, process = shop.submitted(), shop.submitted(isolation=Isolation.PROCESS)
    outcomes = [shop.handler.carry_out(job, Interruption()) for job in (thread, process)]

    assert ([Outcome.DONE] * 2, 1) == (outcomes, shop.beside.runs)
    assert [OptimizationStatus.COMPLETED] * 2 == [shop.status(job) for job in (thread, process)]


def test_a_killed_process_pauses_until_it_is_tried_again(shop: Shop) -> None:
    """It says what killed it; the next attempt goes on."""
    job = shop.submitted(isolation=Isolation.PROCESS)
    shop.beside.fates.append(_dying(shop, OptimizationStatus.RUNNING, may_pass=True))
    with pytest.raises(ProcessDiedError):
        shop.handler.carry_out(job, Interruption())
    found = shop.house.stores.optimizations.get(OptimizationId(job.subject))
    again = job.again(15.0)
    shop.handler.wait_again(again, Outcome.PASSING)
    done = shop.handler.carry_out(again, Interruption())

    assert (OptimizationStatus.PAUSED, "killed by signal 9") == (found.status, found.error)
    assert EventType.OPTIMIZATION_PAUSED in shop.events(job)
    assert (Outcome.DONE, OptimizationStatus.COMPLETED) == (done, shop.status(job))


def test_a_process_that_crashed_fails_its_optimization(shop: Shop) -> None:
    """A person has to mend something, and then resumes it."""
    job = shop.submitted(isolation=Isolation.PROCESS)
    shop.beside.fates.append(_dying(shop, OptimizationStatus.RUNNING, may_pass=False))
    outcome = shop.handler.carry_out(job, Interruption())
    found = shop.house.stores.optimizations.get(OptimizationId(job.subject))
    shop.steering.resume(OptimizationId(job.subject))
    done = shop.handler.carry_out(shop.queue.jobs[-1], Interruption())

    assert (Outcome.DONE, OptimizationStatus.FAILED) == (outcome, found.status)
    assert "killed by signal 9" in (found.error or "")
    assert EventType.OPTIMIZATION_FAILED in shop.events(job)
    assert (Outcome.DONE, OptimizationStatus.COMPLETED) == (done, shop.status(job))


@pytest.mark.parametrize(
    ("may_pass", "status"), [(True, OptimizationStatus.QUEUED), (False, OptimizationStatus.FAILED)]
)
def test_a_process_that_never_began(shop: Shop, may_pass: bool, status: OptimizationStatus) -> None:
    """What waits cannot pause: it waits on, or fails; either says why."""
    job = shop.submitted(isolation=Isolation.PROCESS)
    shop.beside.fates.append(_dying(shop, None, may_pass=may_pass))
    if may_pass:
        with pytest.raises(ProcessDiedError):
            shop.handler.carry_out(job, Interruption())
    else:
        shop.handler.carry_out(job, Interruption())
    found = shop.house.stores.optimizations.get(OptimizationId(job.subject))

    assert (status, "killed by signal 9") == (found.status, found.error)


def test_a_process_that_died_after_its_end_changes_nothing(shop: Shop) -> None:
    """It had written its result and did not come to say so."""
    job = shop.submitted(isolation=Isolation.PROCESS)

    def fate(optimization_id: OptimizationId, stop: StopSignal) -> None:
        shop.house.optimizer.run(optimization_id, stop)
        raise ProcessDiedError("killed by signal 9", may_pass=True)

    shop.beside.fates.append(fate)

    assert Outcome.DONE is shop.handler.carry_out(job, Interruption())
    assert OptimizationStatus.COMPLETED is shop.status(job)


@pytest.mark.parametrize("status", [None, OptimizationStatus.RUNNING, OptimizationStatus.PAUSED])
def test_a_process_ended_because_its_worker_goes_is_handed_on(shop: Shop, status: OptimizationStatus | None) -> None:
    """Wherever it stood: before it began, in the middle, or paused already."""
    job, going = shop.submitted(isolation=Isolation.PROCESS), Interruption()
    going.set()
    shop.beside.fates.append(_dying(shop, status, may_pass=True))
    outcome = shop.handler.carry_out(job, going)
    shop.handler.wait_again(job.again(0.0), outcome)
    done = shop.handler.carry_out(shop.queue.jobs[-1], Interruption())

    assert (Outcome.INTERRUPTED, Outcome.DONE) == (outcome, done)
    assert OptimizationStatus.COMPLETED is shop.status(job)


def test_a_process_that_went_before_it_changed_anything_is_handed_on(shop: Shop) -> None:
    """It ended well, and left the optimization waiting."""
    job, going = shop.submitted(isolation=Isolation.PROCESS), Interruption()
    going.set()
    shop.beside.fates.append(lambda *_: None)

    assert Outcome.INTERRUPTED is shop.handler.carry_out(job, going)


def test_a_dead_process_that_another_took_over_from_is_left_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written into what somebody living works on."""
    monkeypatch.setattr("dspy_optimization.optimization.handling._LETTING_GO_SECONDS", 0.2)
    job = shop.submitted(isolation=Isolation.PROCESS)
    shop.beside.fates.append(_dying(shop, OptimizationStatus.RUNNING, may_pass=False))
    with shop.house.stores.optimizations.owning(OptimizationId(job.subject)):
        outcome = shop.handler.carry_out(job, Interruption())

    assert (Outcome.BUSY, OptimizationStatus.RUNNING) == (outcome, shop.status(job))


def test_a_pause_that_a_person_wished_survives_the_death(shop: Shop) -> None:
    """Paused it is; nobody tries it again until that person resumes it."""
    job = shop.submitted(isolation=Isolation.PROCESS)

    def fate(optimization_id: OptimizationId, _stop: StopSignal) -> None:
        shop.put(job, status=OptimizationStatus.RUNNING)
        shop.put(job, wish=Wish.PAUSE)
        raise ProcessDiedError("killed by signal 9", may_pass=True)

    shop.beside.fates.append(fate)
    with pytest.raises(ProcessDiedError):
        shop.handler.carry_out(job, Interruption())
    again = job.again(15.0)
    shop.handler.wait_again(again, Outcome.PASSING)

    assert Outcome.DONE is shop.handler.carry_out(again, Interruption())
    assert OptimizationStatus.PAUSED is shop.status(job)


def test_a_stop_with_a_reason_reaches_the_process(shop: Shop) -> None:
    """A pause that a dead process did not come to is asked of the next."""
    job, reasons = shop.submitted(isolation=Isolation.PROCESS), list[object]()
    shop.put(job, status=OptimizationStatus.RUNNING, wish=Wish.PAUSE)
    shop.beside.fates.append(lambda _id, stop: reasons.append(stop.reason))
    shop.handler.carry_out(job, Interruption())

    assert [PauseRequested] == [type(one) for one in reasons]
