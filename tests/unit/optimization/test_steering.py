"""What a person may do with an optimization, and what happens to its job."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from optimization_house import AGENT, House, words
from queue_on_paper import PaperQueue

from dspy_optimization.agents.objective import Objective
from dspy_optimization.errors import ConflictError, NotFoundError, QueueFullError, StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import EventType
from dspy_optimization.jobs.job import JobId, Lane, Priority
from dspy_optimization.optimization.intake import Proposal
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, Optimization, OptimizationStatus, Wish
from dspy_optimization.optimization.steering import Steering
from dspy_optimization.tenancy import LOCAL_TENANT

Status = OptimizationStatus
FULL = QueueFullError("full", retry_after_seconds=1.0)


@pytest.fixture
def queue() -> PaperQueue:
    return PaperQueue()


@pytest.fixture
def steering(good_house: House, queue: PaperQueue) -> Steering:
    return Steering(
        tenant=LOCAL_TENANT,
        optimizations=good_house.stores.optimizations,
        queue=queue,
        now=lambda: datetime.now(UTC),
        new_id=uuid4,
    )


Standing = Callable[..., OptimizationId]


@pytest.fixture
def standing(good_house: House, steering: Steering) -> Standing:
    """Hand one in and bring it to a status the way it would get there."""

    def make(status: Status = Status.QUEUED, **changes: object) -> OptimizationId:
        optimization_id = _handed_in(good_house, steering).request.id
        steps = {Status.QUEUED: (), Status.RUNNING: (Status.RUNNING,)}.get(status, (Status.RUNNING, status))
        for step in steps:
            good_house.stores.optimizations.update(optimization_id, lambda now, to=step: replace(now, status=to))
        if changes:
            good_house.stores.optimizations.update(optimization_id, lambda now: replace(now, **changes))
        return optimization_id

    return make


def _handed_in(house: House, steering: Steering) -> Optimization:
    proposal = Proposal(
        agent=AGENT,
        dataset=words(),
        objectives=(Objective(metric="exact"),),
        algorithms=(AlgorithmChoice(name="telling"),),
        constraints=Constraints(lane=Lane.GPU, priority=Priority.LOW),
    )
    return steering.submit(house.intake, house.intake.check(proposal))


def test_a_request_and_its_job_are_kept_together(good_house: House, steering: Steering, queue: PaperQueue) -> None:
    """The job is the request's, in its lane and priority; a full queue keeps neither."""
    kept = _handed_in(good_house, steering)
    (job,) = queue.jobs
    queue.refuses = FULL
    with pytest.raises(QueueFullError):
        _handed_in(good_house, steering)

    assert (kept.job, kept.request.id, LOCAL_TENANT) == (job.id, job.subject, job.tenant)
    assert (Lane.GPU, Priority.LOW, 1) == (job.lane, job.priority, job.number)
    assert [kept] == list(good_house.stores.optimizations.newest(9))


def test_without_workers_nothing_is_queued(good_house: House, steering: Steering) -> None:
    """Whoever hands it in carries it out."""
    alone = replace(steering, queue=None)
    optimization = _handed_in(good_house, alone)
    alone.cancel(optimization.request.id)

    assert optimization.job is None


@pytest.mark.parametrize("status", [one for one in Status if one is not Status.RUNNING])
def test_only_what_runs_is_paused(steering: Steering, standing: Standing, status: Status) -> None:
    """The refusal says what is possible instead."""
    with pytest.raises(ConflictError, match=rf"found: .* is {status.value}; possible: \w"):
        steering.pause(standing(status))


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.CANCELLED, Status.FAILED])
def test_what_does_not_go_on_is_not_cancelled(steering: Steering, standing: Standing, status: Status) -> None:
    """Ended for good, or nothing runs."""
    with pytest.raises(ConflictError, match=f"is {status.value}"):
        steering.cancel(standing(status))


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.COMPLETED, Status.CANCELLED])
def test_only_what_stopped_is_resumed(
    steering: Steering, standing: Standing, queue: PaperQueue, status: Status
) -> None:
    """No second job for one that has its own."""
    optimization_id = standing(status)
    with pytest.raises(ConflictError, match=f"is {status.value}"):
        steering.resume(optimization_id)

    assert (1, []) == (len(queue.jobs), queue.withdrawn)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.PAUSED])
def test_what_waits_is_cancelled_at_once_and_its_job_withdrawn(
    steering: Steering, standing: Standing, queue: PaperQueue, status: Status
) -> None:
    """Also the attempt that would have come by itself later."""
    asked = steering.cancel(standing(status))

    assert (True, Status.CANCELLED, [queue.jobs[0].id]) == (
        asked.is_done,
        asked.optimization.status,
        queue.withdrawn,
    )


@pytest.mark.parametrize("wish", Wish)
def test_a_process_that_works_on_it_is_asked(
    good_house: House, steering: Steering, standing: Standing, queue: PaperQueue, wish: Wish
) -> None:
    """It obeys after the calls in flight; nothing is changed over its head."""
    optimization_id = standing(Status.RUNNING)
    with good_house.stores.optimizations.owning(optimization_id):
        asked = (steering.pause if wish is Wish.PAUSE else steering.cancel)(optimization_id)

    assert (False, Status.RUNNING, wish) == (asked.is_done, asked.optimization.status, asked.optimization.wish)
    assert [] == queue.withdrawn


@pytest.mark.parametrize(
    ("wish", "status", "event"),
    [
        (Wish.PAUSE, Status.PAUSED, EventType.OPTIMIZATION_PAUSED),
        (Wish.CANCEL, Status.CANCELLED, EventType.OPTIMIZATION_CANCELLED),
    ],
)
def test_the_step_of_a_dead_process_is_taken_for_it(
    good_house: House, steering: Steering, standing: Standing, wish: Wish, status: Status, event: EventType
) -> None:
    """Nobody works on it any more: done at once, and told."""
    optimization_id = standing(Status.RUNNING)
    asked = (steering.pause if wish is Wish.PAUSE else steering.cancel)(optimization_id)

    assert (True, status) == (asked.is_done, asked.optimization.status)
    assert event is good_house.stores.events.events(optimization_id)[-1].event.type


@pytest.mark.parametrize("status", [Status.PAUSED, Status.FAILED])
def test_resuming_queues_a_new_job_and_takes_the_old_one_out(
    good_house: House, steering: Steering, standing: Standing, queue: PaperQueue, status: Status
) -> None:
    """What stopped it is forgotten: its error and the wish to pause."""
    optimization_id = standing(status, error="it broke", wish=Wish.PAUSE)
    resumed = steering.resume(optimization_id)
    old, new = queue.jobs

    assert (Status.QUEUED, None, None, new.id) == (resumed.status, resumed.error, resumed.wish, resumed.job)
    assert ([old.id], 1, optimization_id) == (queue.withdrawn, new.number, new.subject)
    assert new.id != old.id
    assert EventType.OPTIMIZATION_QUEUED is good_house.stores.events.events(optimization_id)[-1].event.type


class SilentQueue(PaperQueue):
    """Takes jobs, and cannot be reached when one is to be taken out again."""

    def withdraw(self, jobs: Sequence[JobId]) -> None:
        raise StoreError("the database is away")


@pytest.mark.parametrize("status", [Status.QUEUED, Status.PAUSED])
def test_what_was_done_is_answered_although_the_job_stays(
    good_house: House, steering: Steering, standing: Standing, caplog: pytest.LogCaptureFixture, status: Status
) -> None:
    """Cancelled is cancelled, resumed is resumed: the old job finds that it is not its turn. Operators are told."""
    silent = replace(steering, queue=SilentQueue())
    optimization_id = standing(status)
    if status is Status.PAUSED:
        assert Status.QUEUED is silent.resume(optimization_id).status
    asked = silent.cancel(optimization_id)

    assert (True, Status.CANCELLED) == (asked.is_done, asked.optimization.status)
    assert Status.CANCELLED is good_house.stores.optimizations.get(optimization_id).status
    assert {"job_not_withdrawn"} == {record.__dict__["action"] for record in caplog.records}


def test_a_full_queue_leaves_everything_as_it_was(
    good_house: House, steering: Steering, standing: Standing, queue: PaperQueue
) -> None:
    """Above all the attempt that comes by itself later."""
    optimization_id = standing(Status.PAUSED, error="away")
    before = good_house.stores.optimizations.get(optimization_id)
    queue.refuses = FULL
    with pytest.raises(QueueFullError):
        steering.resume(optimization_id)

    assert (before, []) == (good_house.stores.optimizations.get(optimization_id), queue.withdrawn)


def test_what_is_not_there_is_not_steered(steering: Steering) -> None:
    """The message names what is."""
    for act in (steering.pause, steering.cancel, steering.resume):
        with pytest.raises(NotFoundError):
            act(OptimizationId(uuid4()))


def test_a_job_is_known_by_its_optimization(good_house: House, standing: Standing, queue: PaperQueue) -> None:
    """Read back from the database as it was written."""
    optimization_id = standing()

    assert JobId(queue.jobs[0].id) == good_house.stores.optimizations.get(optimization_id).job
