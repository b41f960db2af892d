"""When a failed call is tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.errors import InvalidRequestError, ModelAuthError, ModelBusyError, ModelError
from dspy_optimization.evaluation.retry import RetryPolicy


@given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_a_pause_lies_between_zero_and_the_doubling_ceiling(attempt: int, chance: float) -> None:
    """Full jitter: uniform in [0, min(cap, base · 2^(attempt − 1))]."""
    policy = RetryPolicy(base_seconds=0.5, cap_seconds=20.0)
    pause = policy.pause_seconds(attempt, None, chance)

    assert 0 <= pause <= min(20.0, 0.5 * 2 ** min(attempt - 1, 60))


@given(attempt=st.integers(1, 50), asked=st.floats(0, 600), chance=st.floats(0, 1, exclude_max=True))
def test_never_earlier_than_the_server_asked(attempt: int, asked: float, chance: float) -> None:
    """And never much later."""
    pause = RetryPolicy().pause_seconds(attempt, asked, chance)

    assert asked <= pause <= asked + 0.5


@pytest.mark.parametrize(
    ("error", "failures", "elapsed", "expected"),
    [
        (ModelError("x", retryable=True), 4, 0.0, None),
        (ModelError("x", retryable=True), 5, 0.0, "attempt 5 of 5"),
        (ModelError("x"), 1, 0.0, "cannot help"),
        (ModelAuthError("x"), 1, 0.0, "cannot help"),
        (ModelBusyError("x"), 99, 0.0, None),
        (ModelBusyError("x"), 0, 296.0, "the deadline is 300 s"),
    ],
)
def test_who_is_tried_again(error: ModelError, failures: int, elapsed: float, expected: str | None) -> None:
    """Failures are counted; refusals of a busy server only meet the deadline."""
    reason = RetryPolicy().verdict(error, failures=failures, elapsed_seconds=elapsed, pause_seconds=5.0)

    assert (reason is None) if expected is None else (reason is not None and expected in reason)


@pytest.mark.parametrize(
    "values", [{"max_attempts": 0}, {"base_seconds": -1.0}, {"cap_seconds": float("inf")}, {"deadline_seconds": -0.1}]
)
def test_impossible_policies_are_refused(values: dict[str, float]) -> None:
    """With the name and the value."""
    with pytest.raises(InvalidRequestError, match=next(iter(values))):
        RetryPolicy(**values)
