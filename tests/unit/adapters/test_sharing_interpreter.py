"""Threads hand over the sooner the fewer optimizations run."""

import sys
from collections.abc import Iterator

import pytest

from dspy_optimization.adapters.interpreter import SHORT_SECONDS, USUAL_SECONDS, share_interpreter


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("running", "seconds"),
    [(0, SHORT_SECONDS), (1, SHORT_SECONDS), (3, 3 * SHORT_SECONDS), (10, USUAL_SECONDS), (1000, USUAL_SECONDS)],
)
def test_the_interval_grows_with_what_runs_up_to_pythons_own(running: int, seconds: float) -> None:
    share_interpreter(running)

    assert seconds == pytest.approx(sys.getswitchinterval())
