"""Jobs and their ids."""

from uuid import UUID

import pytest

from dspy_optimization.jobs.job import WEIGHT_COST, Job, Lane, Priority, job_id
from dspy_optimization.tenancy import LOCAL_TENANT

SUBJECT, SUBMISSION, LATER = UUID(int=1), UUID(int=2), UUID(int=3)


def test_every_attempt_has_an_id_of_its_own() -> None:
    """Ids count up within a submission; the rest stays as it was."""
    first = Job(
        id=job_id(SUBJECT, SUBMISSION), tenant=LOCAL_TENANT, subject=SUBJECT, lane=Lane.GPU, priority=Priority.HIGH
    )
    third = first.again(15.0).again(60.0)

    assert [f"{SUBJECT}/{SUBMISSION}/1", f"{SUBJECT}/{SUBMISSION}/3"] == [first.id, third.id]
    assert (3, 3, 60.0) == (third.number, third.attempt, third.delay_seconds)
    assert (SUBJECT, LOCAL_TENANT, Lane.GPU, Priority.HIGH) == (third.subject, third.tenant, third.lane, third.priority)


def test_a_subject_may_be_submitted_again() -> None:
    """Another submission is another job, the same one is the same job."""
    assert job_id(SUBJECT, SUBMISSION) == job_id(SUBJECT, SUBMISSION)
    assert job_id(SUBJECT, SUBMISSION) != job_id(SUBJECT, LATER)


@pytest.mark.parametrize(("one", "other"), [(Priority.HIGH, Priority.NORMAL), (Priority.NORMAL, Priority.LOW)])
def test_a_step_of_priority_is_four_turns_for_one(one: Priority, other: Priority) -> None:
    """As `Priority` promises."""
    assert 4 * WEIGHT_COST[one] == WEIGHT_COST[other]
